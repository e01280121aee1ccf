//! Other ways to compute matrix products, for some kinds of adapters.

use super::tiles;
use crate::plan::kernel::shared;
use crate::plan::groups;
use crate::plan::variant::{Form, Job, MadeFor, Variant};

const TEXELS: &str = include_str!("../../../shaders/variants/matmul_texels.wgsl");
const WIDE: &[&str] = &[shared::STEP, shared::TEXELS, include_str!("../../../shaders/variants/matmul_wide.wgsl")];
const NARROW: &[&str] = &[shared::STEP, shared::TEXELS, include_str!("../../../shaders/variants/matmul_narrow.wgsl")];

const fn texels(name: &'static str, entry: &'static str, shared: &'static [&'static str], forms: &'static [Form], grid: fn(&Job<'_>) -> [u32; 3]) -> Variant {
    let wide = matches!(forms[0], Form::Texels4);
    let suits: fn(&Job<'_>) -> bool = if wide { fours } else { |_| true };
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
pub(super) static NT: [Variant; 2] = [
    texels("matmul_nt_texels4", "matmul_nt_texels", WIDE, &[Texels4, Texels4, Storage, Storage], forward_grid),
    texels("matmul_nt_texels", "matmul_nt_texels", NARROW, &[Texels, Texels, Storage, Storage], forward_grid),
];
/// Of `matmul_nn`.
pub(super) static NN: [Variant; 2] = [
    texels("matmul_nn_texels4", "matmul_nn_texels", WIDE, &[Texels4, Texels4, Storage], input_grid),
    texels("matmul_nn_texels", "matmul_nn_texels", NARROW, &[Texels, Texels, Storage], input_grid),
];
/// Of `matmul_nn_gated`.
pub(super) static NN_GATED: [Variant; 2] = [
    texels("matmul_nn_gated_texels4", "matmul_nn_gated_texels", WIDE, &[Texels4, Texels4, Storage, Storage], input_grid),
    texels("matmul_nn_gated_texels", "matmul_nn_gated_texels", NARROW, &[Texels, Texels, Storage, Storage], input_grid),
];
/// Of `matmul_tn`.
pub(super) static TN: [Variant; 2] = [
    texels("matmul_tn_texels4", "matmul_tn_texels", WIDE, &[Texels4, Texels4, Storage], weight_grid),
    texels("matmul_tn_texels", "matmul_tn_texels", NARROW, &[Texels, Texels, Storage], weight_grid),
];
/// Of `bias_gradient`.
pub(super) static BIAS: [Variant; 1] = [Variant {
    suits: |job| job.param(1).is_multiple_of(4),
    ..texels("bias_gradient_texels", "bias_gradient_texels", WIDE, &[Texels4, Storage], |job| groups(job.param(1).div_ceil(32)))
}];
