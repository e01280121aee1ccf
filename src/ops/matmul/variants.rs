//! Other ways to compute matrix products, for some kinds of adapters.

use super::{cooperative, subgroups, tiles};
use crate::plan::kernel::shared;
use crate::plan::groups;
use crate::plan::variant::{Form, Job, MadeFor, Subgroups, Variant, always};

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
        subgroup: Some(Subgroups::Exactly(8)),
        cooperative: None,
        stages: None,
        made_for: MadeFor::Software,
        forms,
        suits,
        worth: always,
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

/// Tiles of 32 x 32 of the output `[B, outputs]`.
fn forward_grid(job: &Job<'_>) -> [u32; 3] {
    tiles(job.param(1), job.len(3) / job.param(1))
}

/// Of the output `[B, inputs]`.
fn input_grid(job: &Job<'_>) -> [u32; 3] {
    tiles(job.param(0), job.len(2) / job.param(0))
}

/// Of the output `[outputs, inputs]`.
fn weight_grid(job: &Job<'_>) -> [u32; 3] {
    tiles(job.param(0), job.param(1))
}

/// Tiles of 64 x 64 in place of 32 x 32.
fn large([columns, rows, _]: [u32; 3]) -> [u32; 3] {
    [columns.div_ceil(2), rows.div_ceil(2), 1]
}

/// So many large tiles that they keep a GPU busy; with fewer, small ones that four slices share do.
fn many(grid: [u32; 3]) -> bool {
    large(grid).iter().product::<u32>() >= LARGE_TILES
}

const LARGE_TILES: u32 = 128;
const TILES: &str = include_str!("../../../shaders/variants/matmul_tiles.wgsl");
const RESULTS: &str = include_str!("../../../shaders/variants/matmul_results.wgsl");
const TILES_INPUTS: &str = include_str!("../../../shaders/variants/matmul_tiles_wide.wgsl");
const TILES_ANY_INPUTS: &str = include_str!("../../../shaders/variants/matmul_tiles_narrow.wgsl");
const TILES_OUTPUTS: &str = include_str!("../../../shaders/variants/matmul_tiles_wide_outputs.wgsl");
const TILES_ANY_OUTPUTS: &str = include_str!("../../../shaders/variants/matmul_tiles_narrow_outputs.wgsl");
const TILE_64: &str = "const TILE = 64u;\nconst SLICES = 1u;";
const TILE_32: &str = "const TILE = 32u;\nconst SLICES = 4u;";

/// Which widths are multiples of four; what is not is fetched in words.
#[derive(Clone, Copy)]
pub(super) enum Fours {
    Both,
    Outputs,
    Any,
}

impl Fours {
    /// How operands are fetched and results stored; what tiles and subgroups share.
    pub(super) const fn shared(self) -> &'static [&'static str] {
        match self {
            Fours::Both => &[shared::STEP, RESULTS, TILES_INPUTS, TILES_OUTPUTS],
            Fours::Outputs => &[shared::STEP, RESULTS, TILES_ANY_INPUTS, TILES_OUTPUTS],
            Fours::Any => &[shared::STEP, RESULTS, TILES_ANY_INPUTS, TILES_ANY_OUTPUTS],
        }
    }
}

const fn tile32(name: &'static str, entry: &'static str, widths: Fours, forms: &'static [Form], grid: fn(&Job<'_>) -> [u32; 3]) -> Variant {
    let suits = match widths {
        Fours::Both => fours,
        Fours::Outputs => four_outputs,
        Fours::Any => always,
    };
    Variant {
        name,
        entry,
        consts: TILE_32,
        source: TILES,
        shared: widths.shared(),
        workgroup: [256, 1, 1],
        subgroup: None,
        cooperative: None,
        stages: None,
        made_for: MadeFor::Hardware,
        forms,
        suits,
        worth: always,
        grid,
    }
}

const fn tile64(
    name: &'static str,
    entry: &'static str,
    widths: Fours,
    forms: &'static [Form],
    grid: fn(&Job<'_>) -> [u32; 3],
    worth: fn(&Job<'_>) -> bool,
) -> Variant {
    Variant { consts: TILE_64, worth, ..tile32(name, entry, widths, forms, grid) }
}

fn large_forward_grid(job: &Job<'_>) -> [u32; 3] {
    large(forward_grid(job))
}

fn large_input_grid(job: &Job<'_>) -> [u32; 3] {
    large(input_grid(job))
}

fn large_weight_grid(job: &Job<'_>) -> [u32; 3] {
    large(weight_grid(job))
}

fn many_forward(job: &Job<'_>) -> bool {
    many(forward_grid(job))
}

fn many_input(job: &Job<'_>) -> bool {
    many(input_grid(job))
}

fn many_weight(job: &Job<'_>) -> bool {
    many(weight_grid(job))
}

use Form::{Storage, Texels, Texels4};
/// Buffers only.
const THREE: &[Form] = &[Storage, Storage, Storage];
const FOUR: &[Form] = &[Storage, Storage, Storage, Storage];

/// Of `matmul_nt`.
pub(super) static NT: [Variant; 14] = [
    texels("matmul_nt_texels4", "matmul_nt_texels", WIDE, &[Texels4, Texels4, Storage, Storage], fours, forward_grid),
    texels("matmul_nt_texels_mixed", "matmul_nt_texels", MIXED, &[Texels, Texels, Storage, Storage], four_outputs, forward_grid),
    texels("matmul_nt_texels", "matmul_nt_texels", NARROW, &[Texels, Texels, Storage, Storage], always, forward_grid),
    tile64("matmul_nt_tiles64_fours", "matmul_nt_tiles", Fours::Both, FOUR, large_forward_grid, many_forward),
    tile64("matmul_nt_tiles64_mixed", "matmul_nt_tiles", Fours::Outputs, FOUR, large_forward_grid, many_forward),
    tile64("matmul_nt_tiles64", "matmul_nt_tiles", Fours::Any, FOUR, large_forward_grid, many_forward),
    tile32("matmul_nt_tiles32_fours", "matmul_nt_tiles", Fours::Both, FOUR, forward_grid),
    tile32("matmul_nt_tiles32_mixed", "matmul_nt_tiles", Fours::Outputs, FOUR, forward_grid),
    tile32("matmul_nt_tiles32", "matmul_nt_tiles", Fours::Any, FOUR, forward_grid),
    subgroups::variant::<{ cooperative::NT }>("matmul_nt_subgroups_fours", Fours::Both, FOUR),
    subgroups::variant::<{ cooperative::NT }>("matmul_nt_subgroups_mixed", Fours::Outputs, FOUR),
    subgroups::variant::<{ cooperative::NT }>("matmul_nt_subgroups", Fours::Any, FOUR),
    cooperative::variant::<16, { cooperative::NT }>("matmul_nt_cooperative16", FOUR),
    cooperative::variant::<8, { cooperative::NT }>("matmul_nt_cooperative8", FOUR),
];
/// Of `matmul_nn`.
pub(super) static NN: [Variant; 14] = [
    texels("matmul_nn_texels4", "matmul_nn_texels", WIDE, &[Texels4, Texels4, Storage], fours, input_grid),
    texels("matmul_nn_texels_mixed", "matmul_nn_texels", MIXED, &[Texels4, Texels, Storage], four_outputs, input_grid),
    texels("matmul_nn_texels", "matmul_nn_texels", NARROW, &[Texels, Texels, Storage], always, input_grid),
    tile64("matmul_nn_tiles64_fours", "matmul_nn_tiles", Fours::Both, THREE, large_input_grid, many_input),
    tile64("matmul_nn_tiles64_mixed", "matmul_nn_tiles", Fours::Outputs, THREE, large_input_grid, many_input),
    tile64("matmul_nn_tiles64", "matmul_nn_tiles", Fours::Any, THREE, large_input_grid, many_input),
    tile32("matmul_nn_tiles32_fours", "matmul_nn_tiles", Fours::Both, THREE, input_grid),
    tile32("matmul_nn_tiles32_mixed", "matmul_nn_tiles", Fours::Outputs, THREE, input_grid),
    tile32("matmul_nn_tiles32", "matmul_nn_tiles", Fours::Any, THREE, input_grid),
    subgroups::variant::<{ cooperative::NN }>("matmul_nn_subgroups_fours", Fours::Both, THREE),
    subgroups::variant::<{ cooperative::NN }>("matmul_nn_subgroups_mixed", Fours::Outputs, THREE),
    subgroups::variant::<{ cooperative::NN }>("matmul_nn_subgroups", Fours::Any, THREE),
    cooperative::variant::<16, { cooperative::NN }>("matmul_nn_cooperative16", THREE),
    cooperative::variant::<8, { cooperative::NN }>("matmul_nn_cooperative8", THREE),
];
/// Of `matmul_nn_gated`.
pub(super) static NN_GATED: [Variant; 14] = [
    texels("matmul_nn_gated_texels4", "matmul_nn_gated_texels", WIDE, &[Texels4, Texels4, Storage, Storage], fours, input_grid),
    texels("matmul_nn_gated_texels_mixed", "matmul_nn_gated_texels", MIXED, &[Texels4, Texels, Storage, Storage], four_outputs, input_grid),
    texels("matmul_nn_gated_texels", "matmul_nn_gated_texels", NARROW, &[Texels, Texels, Storage, Storage], always, input_grid),
    tile64("matmul_nn_gated_tiles64_fours", "matmul_nn_gated_tiles", Fours::Both, FOUR, large_input_grid, many_input),
    tile64("matmul_nn_gated_tiles64_mixed", "matmul_nn_gated_tiles", Fours::Outputs, FOUR, large_input_grid, many_input),
    tile64("matmul_nn_gated_tiles64", "matmul_nn_gated_tiles", Fours::Any, FOUR, large_input_grid, many_input),
    tile32("matmul_nn_gated_tiles32_fours", "matmul_nn_gated_tiles", Fours::Both, FOUR, input_grid),
    tile32("matmul_nn_gated_tiles32_mixed", "matmul_nn_gated_tiles", Fours::Outputs, FOUR, input_grid),
    tile32("matmul_nn_gated_tiles32", "matmul_nn_gated_tiles", Fours::Any, FOUR, input_grid),
    subgroups::variant::<{ cooperative::NN_GATED }>("matmul_nn_gated_subgroups_fours", Fours::Both, FOUR),
    subgroups::variant::<{ cooperative::NN_GATED }>("matmul_nn_gated_subgroups_mixed", Fours::Outputs, FOUR),
    subgroups::variant::<{ cooperative::NN_GATED }>("matmul_nn_gated_subgroups", Fours::Any, FOUR),
    cooperative::variant::<16, { cooperative::NN_GATED }>("matmul_nn_gated_cooperative16", FOUR),
    cooperative::variant::<8, { cooperative::NN_GATED }>("matmul_nn_gated_cooperative8", FOUR),
];
/// Of `matmul_tn`.
pub(super) static TN: [Variant; 14] = [
    texels("matmul_tn_texels4", "matmul_tn_texels", WIDE, &[Texels4, Texels4, Storage], fours, weight_grid),
    texels("matmul_tn_texels_mixed", "matmul_tn_texels", MIXED, &[Texels4, Texels, Storage], four_outputs, weight_grid),
    texels("matmul_tn_texels", "matmul_tn_texels", NARROW, &[Texels, Texels, Storage], always, weight_grid),
    tile64("matmul_tn_tiles64_fours", "matmul_tn_tiles", Fours::Both, THREE, large_weight_grid, many_weight),
    tile64("matmul_tn_tiles64_mixed", "matmul_tn_tiles", Fours::Outputs, THREE, large_weight_grid, many_weight),
    tile64("matmul_tn_tiles64", "matmul_tn_tiles", Fours::Any, THREE, large_weight_grid, many_weight),
    tile32("matmul_tn_tiles32_fours", "matmul_tn_tiles", Fours::Both, THREE, weight_grid),
    tile32("matmul_tn_tiles32_mixed", "matmul_tn_tiles", Fours::Outputs, THREE, weight_grid),
    tile32("matmul_tn_tiles32", "matmul_tn_tiles", Fours::Any, THREE, weight_grid),
    subgroups::variant::<{ cooperative::TN }>("matmul_tn_subgroups_fours", Fours::Both, THREE),
    subgroups::variant::<{ cooperative::TN }>("matmul_tn_subgroups_mixed", Fours::Outputs, THREE),
    subgroups::variant::<{ cooperative::TN }>("matmul_tn_subgroups", Fours::Any, THREE),
    cooperative::variant::<16, { cooperative::TN }>("matmul_tn_cooperative16", THREE),
    cooperative::variant::<8, { cooperative::TN }>("matmul_tn_cooperative8", THREE),
];
/// Of `bias_gradient`.
pub(super) static BIAS: [Variant; 2] = [
    texels("bias_gradient_texels", "bias_gradient_texels", WIDE, &[Texels4, Storage], four_outputs, |job| {
        groups(job.param(1).div_ceil(32))
    }),
    Variant {
        name: "bias_gradient_sliced",
        entry: "bias_gradient_sliced",
        consts: "",
        source: include_str!("../../../shaders/variants/bias_sliced.wgsl"),
        shared: &[shared::STEP],
        workgroup: [16, 16, 1],
        subgroup: None,
        cooperative: None,
        stages: None,
        made_for: MadeFor::Hardware,
        forms: &[Storage, Storage],
        suits: |job| job.param(1).div_ceil(16) <= 65_535,
        worth: always,
        grid: |job| [job.param(1).div_ceil(16) as u32, 1, 1],
    },
];
