//! Matrix products on cooperative matrices, from operands in two halves ([`super::halves`]): these are measured and packed
//! before the product, and bias, activation or gate follow it.

use crate::plan::kernel::shared;
use crate::plan::variant::{Form, Job, MadeFor, Stage, Stages, Variant, always};

const PRODUCT: &str = include_str!("../../../shaders/variants/matmul_cooperative.wgsl");
const SIZES: &str = include_str!("../../../shaders/variants/matmul_cooperative_sizes.wgsl");
const HALVES: &str = include_str!("../../../shaders/variants/matmul_halves.wgsl");
const HALVES_NT: &str = include_str!("../../../shaders/variants/matmul_halves_nt.wgsl");
const HALVES_NN: &str = include_str!("../../../shaders/variants/matmul_halves_nn.wgsl");
const HALVES_TN: &str = include_str!("../../../shaders/variants/matmul_halves_tn.wgsl");

/// The product has at most so many workgroups; their subgroups take blocks in turn.
const MOST_GROUPS: usize = 32_768;

/// `y = act(x Wᵗ + bias)`
pub(super) const NT: usize = 0;
/// `dx = dz W`
pub(super) const NN: usize = 1;
/// The same, gated.
pub(super) const NN_GATED: usize = 2;
/// `dW = dzᵗ x`
pub(super) const TN: usize = 3;

const fn product_consts(side: usize) -> &'static str {
    match side {
        8 => {
            "enable f16;
enable wgpu_cooperative_matrix;
alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sums = coop_mat8x8<f32, C>;
const TILE = 8u;"
        }
        16 => {
            "enable f16;
enable wgpu_cooperative_matrix;
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;
const TILE = 16u;"
        }
        _ => panic!("WGSL has cooperative matrices of 8 x 8 and 16 x 16"),
    }
}

const fn halves_consts(side: usize) -> &'static str {
    if side == 8 { "enable f16;\nconst TILE = 8u;" } else { "enable f16;\nconst TILE = 16u;" }
}

/// What is summed over: inputs, outputs or samples.
const fn over(of: usize) -> &'static str {
    match of {
        NT => "const OVER = 0u;",
        NN | NN_GATED => "const OVER = 1u;",
        _ => "const OVER = 2u;",
    }
}

const fn operands(of: usize) -> &'static str {
    match of {
        NT => HALVES_NT,
        NN | NN_GATED => HALVES_NN,
        _ => HALVES_TN,
    }
}

const fn finish(of: usize) -> &'static str {
    match of {
        NT => "finish_nt",
        NN => "finish_nn",
        NN_GATED => "finish_nn_gated",
        _ => "finish_tn",
    }
}

/// Left rows, right rows and terms that the views of a command have room for.
pub(super) fn room<const OF: usize>(job: &Job<'_>) -> [usize; 3] {
    let (inputs, outputs) = (job.param(0), job.param(1));
    match OF {
        NT => [job.len(3) / outputs.max(1), outputs, inputs],
        NN | NN_GATED => [job.len(2) / inputs.max(1), inputs, outputs],
        _ => [outputs, inputs, job.len(0) / outputs.max(1)],
    }
}

/// The same in whole tiles; rows come in pairs of them.
fn padded<const SIDE: usize, const OF: usize>(job: &Job<'_>) -> [usize; 3] {
    let [left, right, terms] = room::<OF>(job);
    [left.next_multiple_of(2 * SIDE), right.next_multiple_of(2 * SIDE), terms.next_multiple_of(SIDE)]
}

/// A workgroup for eight rows of the operands.
fn measure_grid<const SIDE: usize, const OF: usize>(job: &Job<'_>) -> [u32; 3] {
    let [left, right, _] = padded::<SIDE, OF>(job);
    [1, (left + right).div_ceil(8) as u32, 1]
}

fn pack_grid<const SIDE: usize, const OF: usize>(job: &Job<'_>) -> [u32; 3] {
    let [left, right, terms] = padded::<SIDE, OF>(job);
    [terms.div_ceil(8) as u32, (left + right).div_ceil(8) as u32, 1]
}

/// A subgroup, at least, for each block of 2 x 2 tiles.
fn product_grid<const SIDE: usize, const OF: usize>(job: &Job<'_>) -> [u32; 3] {
    let [left, right, _] = padded::<SIDE, OF>(job);
    let blocks = left / (2 * SIDE) * (right / (2 * SIDE));
    [blocks.clamp(1, MOST_GROUPS) as u32, 1, 1]
}

fn finish_grid<const OF: usize>(job: &Job<'_>) -> [u32; 3] {
    let [left, right, _] = room::<OF>(job);
    [right.div_ceil(8) as u32, left.div_ceil(8) as u32, 1]
}

/// No more workgroups than any device dispatches.
fn suits<const SIDE: usize, const OF: usize>(job: &Job<'_>) -> bool {
    let [pack, finish] = [pack_grid::<SIDE, OF>(job), finish_grid::<OF>(job)];
    pack.iter().chain(&finish).all(|&groups| groups <= 65_535)
}

fn row_words<const SIDE: usize, const OF: usize>(job: &Job<'_>) -> usize {
    let [left, right, _] = padded::<SIDE, OF>(job);
    left + right
}

/// Two halves of two bytes for each element.
fn left_words<const SIDE: usize, const OF: usize>(job: &Job<'_>) -> usize {
    let [left, _, terms] = padded::<SIDE, OF>(job);
    left * terms
}

fn right_words<const SIDE: usize, const OF: usize>(job: &Job<'_>) -> usize {
    let [_, right, terms] = padded::<SIDE, OF>(job);
    right * terms
}

fn sum_words<const SIDE: usize, const OF: usize>(job: &Job<'_>) -> usize {
    let [left, right, _] = padded::<SIDE, OF>(job);
    left * right
}

const fn halves_stage<const SIDE: usize, const OF: usize>(entry: &'static str, grid: fn(&Job<'_>) -> [u32; 3]) -> Stage {
    let text = const { &[halves_consts(SIDE), over(OF), HALVES, operands(OF), SIZES, shared::STEP] };
    Stage { entry, text, workgroup: [8, 8, 1], grid }
}

/// The variant of one kernel with tiles of one side.
pub(super) const fn variant<const SIDE: usize, const OF: usize>(name: &'static str, forms: &'static [Form]) -> Variant {
    Variant {
        name,
        entry: "matmul_cooperative",
        consts: product_consts(SIDE),
        source: PRODUCT,
        shared: const { &[over(OF), SIZES, shared::STEP] },
        workgroup: [64, 1, 1],
        subgroup: None,
        cooperative: Some(SIDE as u32),
        stages: const {
            Some(&Stages {
                before: &[
                    halves_stage::<SIDE, OF>("measure", measure_grid::<SIDE, OF>),
                    halves_stage::<SIDE, OF>("pack", pack_grid::<SIDE, OF>),
                ],
                behind: &[halves_stage::<SIDE, OF>(finish(OF), finish_grid::<OF>)],
                scratch: &[row_words::<SIDE, OF>, left_words::<SIDE, OF>, right_words::<SIDE, OF>, sum_words::<SIDE, OF>],
            })
        },
        made_for: MadeFor::Hardware,
        forms,
        suits: suits::<SIDE, OF>,
        worth: always,
        grid: product_grid::<SIDE, OF>,
    }
}
