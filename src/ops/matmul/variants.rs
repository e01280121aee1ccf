//! Other ways to compute matrix products, for some kinds of adapters.

use super::tiles;
use crate::plan::kernel::shared;
use crate::plan::groups;
use crate::plan::variant::{Form, Job, MadeFor, Variant};

const TEXELS: &str = include_str!("../../../shaders/variants/matmul_texels.wgsl");
const INPUTS: &str = include_str!("../../../shaders/variants/matmul_wide.wgsl");
const ANY_INPUTS: &str = include_str!("../../../shaders/variants/matmul_narrow.wgsl");
const OUTPUTS: &str = include_str!("../../../shaders/variants/matmul_wide_outputs.wgsl");
const ANY_OUTPUTS: &str = include_str!("../../../shaders/variants/matmul_narrow_outputs.wgsl");
/// Both widths are multiples of four.
const WIDE: &[&str] = &[shared::STEP, shared::TEXELS, INPUTS, OUTPUTS];
/// The outputs' width is.
const MIXED: &[&str] = &[shared::STEP, shared::TEXELS, ANY_INPUTS, OUTPUTS];
/// Any widths.
const NARROW: &[&str] = &[shared::STEP, shared::TEXELS, ANY_INPUTS, ANY_OUTPUTS];

const fn texels(
    name: &'static str,
    entry: &'static str,
    shared: &'static [&'static str],
    forms: &'static [Form],
    suits: fn(&Job<'_>) -> bool,
    grid: fn(&Job<'_>) -> [u32; 3],
) -> Variant {
    Variant {
        name,
        entry,
        consts: "",
        source: TEXELS,
        shared,
        workgroup: [8, 1, 1],
        subgroup: Some(8),
        made_for: MadeFor::Software,
        forms,
        suits,
        grid,
    }
}

/// Both widths are multiples of four.
fn fours(job: &Job<'_>) -> bool {
    job.param(0).is_multiple_of(4) && job.param(1).is_multiple_of(4)
}

fn four_outputs(job: &Job<'_>) -> bool {
    job.param(1).is_multiple_of(4)
}

fn any(_: &Job<'_>) -> bool {
    true
}

/// Tiles of the output `[B, outputs]`.
fn forward_grid(job: &Job<'_>) -> [u32; 3] {
    tiles(job.param(1), job.len(3) / job.param(1))
}

/// Tiles of the output `[B, inputs]`.
fn input_grid(job: &Job<'_>) -> [u32; 3] {
    tiles(job.param(0), job.len(2) / job.param(0))
}

/// Tiles of the output `[outputs, inputs]`.
fn weight_grid(job: &Job<'_>) -> [u32; 3] {
    tiles(job.param(0), job.param(1))
}

use Form::{Storage, Texels, Texels4};

/// Of `matmul_nt`.
pub(super) static NT: [Variant; 3] = [
    texels("matmul_nt_texels4", "matmul_nt_texels", WIDE, &[Texels4, Texels4, Storage, Storage], fours, forward_grid),
    texels("matmul_nt_texels_mixed", "matmul_nt_texels", MIXED, &[Texels, Texels, Storage, Storage], four_outputs, forward_grid),
    texels("matmul_nt_texels", "matmul_nt_texels", NARROW, &[Texels, Texels, Storage, Storage], any, forward_grid),
];
/// Of `matmul_nn`.
pub(super) static NN: [Variant; 3] = [
    texels("matmul_nn_texels4", "matmul_nn_texels", WIDE, &[Texels4, Texels4, Storage], fours, input_grid),
    texels("matmul_nn_texels_mixed", "matmul_nn_texels", MIXED, &[Texels4, Texels, Storage], four_outputs, input_grid),
    texels("matmul_nn_texels", "matmul_nn_texels", NARROW, &[Texels, Texels, Storage], any, input_grid),
];
/// Of `matmul_nn_gated`.
pub(super) static NN_GATED: [Variant; 3] = [
    texels("matmul_nn_gated_texels4", "matmul_nn_gated_texels", WIDE, &[Texels4, Texels4, Storage, Storage], fours, input_grid),
    texels("matmul_nn_gated_texels_mixed", "matmul_nn_gated_texels", MIXED, &[Texels4, Texels, Storage, Storage], four_outputs, input_grid),
    texels("matmul_nn_gated_texels", "matmul_nn_gated_texels", NARROW, &[Texels, Texels, Storage, Storage], any, input_grid),
];
/// Of `matmul_tn`.
pub(super) static TN: [Variant; 3] = [
    texels("matmul_tn_texels4", "matmul_tn_texels", WIDE, &[Texels4, Texels4, Storage], fours, weight_grid),
    texels("matmul_tn_texels_mixed", "matmul_tn_texels", MIXED, &[Texels4, Texels, Storage], four_outputs, weight_grid),
    texels("matmul_tn_texels", "matmul_tn_texels", NARROW, &[Texels, Texels, Storage], any, weight_grid),
];
/// Of `bias_gradient`.
pub(super) static BIAS: [Variant; 1] = [texels(
    "bias_gradient_texels",
    "bias_gradient_texels",
    WIDE,
    &[Texels4, Storage],
    four_outputs,
    |job| groups(job.param(1).div_ceil(32)),
)];
