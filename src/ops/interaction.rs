//! Dot interaction: with T = [dense vector, pooled embeddings], `out = concat(T₀, Tᵢ·Tⱼ for j < i)`,
//! the strict lower triangle row by row (`interact_features` of facebookresearch/dlrm); with the
//! diagonal, j ≤ i. Backwards `dTᵢ = Σ gᵢⱼ Tⱼ`, plus the direct path to T₀. T₀ is the output of the
//! bottom MLP's last ReLU, so its gradient is masked here and enters that layer as `dz`.

use super::case::{Case, sums};
use super::parallel;
use crate::params;
use crate::plan::kernel::{reads, shared, writes};
use crate::plan::{Args, Elem, Kernel, Plan, View, grid};

mod variants;

params!(
    /// Parameters of both kernels.
    InteractionParams {
        /// K
        tables: u32,
        /// D
        dim: u32,
        /// 1 when the diagonal is kept.
        diagonal: u32,
    }
);

const SOURCE: &str = include_str!("../../shaders/interaction.wgsl");
const SHARED: &[&str] = &[shared::STEP, shared::INDEX];

/// Pairs of vectors to products.
pub static INTERACTION_FORWARD: Kernel = Kernel {
    name: "interaction_forward",
    op: "interaction",
    source: SOURCE,
    shared: SHARED,
    workgroup: [64, 1, 1],
    params: InteractionParams::FIELDS,
    bindings: &[reads("dense", Elem::F32), reads("pooled", Elem::F32), writes("joined", Elem::F32)],
    twin: interaction_forward,
    variants: &variants::FORWARD,
};

/// Gradients of products to gradients of vectors.
pub static INTERACTION_BACKWARD: Kernel = Kernel {
    name: "interaction_backward",
    op: "interaction",
    source: SOURCE,
    shared: SHARED,
    workgroup: [64, 1, 1],
    params: InteractionParams::FIELDS,
    bindings: &[
        reads("dense", Elem::F32),
        reads("pooled", Elem::F32),
        reads("d_joined", Elem::F32),
        writes("d_dense", Elem::F32),
        writes("d_pooled", Elem::F32),
    ],
    twin: interaction_backward,
    variants: &variants::BACKWARD,
};

/// This op's kernels.
pub const KERNELS: &[&Kernel] = &[&INTERACTION_FORWARD, &INTERACTION_BACKWARD];

/// Tables, width and whether the diagonal is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pairs {
    /// K
    pub tables: usize,
    /// D
    pub dim: usize,
    /// j ≤ i instead of j < i.
    pub diagonal: bool,
}

impl Pairs {
    /// Width of the output.
    pub fn width(self) -> usize {
        self.dim + self.row_start(self.tables + 1)
    }

    fn row_start(self, i: usize) -> usize {
        if self.diagonal { i * (i + 1) / 2 } else { i * i.saturating_sub(1) / 2 }
    }

    fn params(self) -> InteractionParams {
        InteractionParams { tables: self.tables as u32, dim: self.dim as u32, diagonal: self.diagonal as u32 }
    }

    fn of(p: InteractionParams) -> Pairs {
        Pairs { tables: p.tables as usize, dim: p.dim as usize, diagonal: p.diagonal != 0 }
    }
}

/// Records `joined` `[B, width]` for up to `batch` samples.
pub fn forward(plan: &mut Plan, pairs: Pairs, batch: usize, dense: View, pooled: View, joined: View) {
    plan.push(&INTERACTION_FORWARD, "dot", &pairs.params(), &[dense, pooled, joined], grid(batch * pairs.width()));
}

/// Records `d_dense` `[B, D]` (masked by the ReLU that made `dense`) and `d_pooled` `[B, K, D]`.
pub fn backward(plan: &mut Plan, pairs: Pairs, batch: usize, dense: View, pooled: View, d_joined: View, d_dense: View, d_pooled: View) {
    let views = [dense, pooled, d_joined, d_dense, d_pooled];
    plan.push(&INTERACTION_BACKWARD, "dot", &pairs.params(), &views, grid(batch * (pairs.tables + 1) * pairs.dim));
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a8, a_rest) = a.as_chunks::<8>();
    let (b8, b_rest) = b.as_chunks::<8>();
    let mut lanes = [0.0f32; 8];
    for (x, y) in a8.iter().zip(b8) {
        for l in 0..8 {
            lanes[l] += x[l] * y[l];
        }
    }
    lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f32>()
}

#[inline(always)]
fn vector<'a>(dense: &'a [f32], pooled: &'a [f32], pairs: Pairs, b: usize, i: usize) -> &'a [f32] {
    if i == 0 { &dense[b * pairs.dim..][..pairs.dim] } else { &pooled[(b * pairs.tables + i - 1) * pairs.dim..][..pairs.dim] }
}

/// One sample of the forward pass.
struct Products<'a> {
    pairs: Pairs,
    dense: &'a [f32],
    pooled: &'a [f32],
}

impl parallel::Row for Products<'_> {
    #[inline(always)]
    fn row(&self, b: usize, out: &mut [f32]) {
        let (direct, products) = out.split_at_mut(self.pairs.dim);
        let vector = |i| vector(self.dense, self.pooled, self.pairs, b, i);
        direct.copy_from_slice(vector(0));
        for i in 0..=self.pairs.tables {
            let left = vector(i);
            let row = &mut products[self.pairs.row_start(i)..self.pairs.row_start(i + 1)];
            for (j, p) in row.iter_mut().enumerate() {
                *p = dot(left, vector(j));
            }
        }
    }
}

fn interaction_forward(mut args: Args<'_>) {
    let pairs = Pairs::of(args.params());
    let live = args.step.batch as usize * pairs.width();
    let op = Products { pairs, dense: args.f32s(0), pooled: args.f32s(1) };
    parallel::each(&mut args.output()[..live], pairs.width(), &op);
}

/// One sample of the backward pass, for vectors `first ..`: 0 gives the dense vector, 1 the tables.
struct Gradients<'a> {
    pairs: Pairs,
    dense: &'a [f32],
    pooled: &'a [f32],
    d_joined: &'a [f32],
    first: usize,
}

impl parallel::Row for Gradients<'_> {
    #[inline(always)]
    fn row(&self, b: usize, out: &mut [f32]) {
        let (pairs, dim) = (self.pairs, self.pairs.dim);
        let upstream = &self.d_joined[b * pairs.width()..][..pairs.width()];
        let (direct, products) = upstream.split_at(dim);
        let vector = |i| vector(self.dense, self.pooled, pairs, b, i);
        for (i, sum) in (self.first..).zip(out.chunks_exact_mut(dim)) {
            sum.fill(0.0);
            for j in 0..i {
                add_scaled(sum, products[pairs.row_start(i) + j], vector(j));
            }
            if pairs.diagonal {
                add_scaled(sum, 2.0 * products[pairs.row_start(i) + i], vector(i));
            }
            for j in i + 1..=pairs.tables {
                add_scaled(sum, products[pairs.row_start(j) + i], vector(j));
            }
            if i == 0 {
                for ((s, d), x) in sum.iter_mut().zip(direct).zip(vector(0)) {
                    *s = if *x <= 0.0 { 0.0 } else { *s + d };
                }
            }
        }
    }
}

#[inline(always)]
fn add_scaled(out: &mut [f32], g: f32, vector: &[f32]) {
    for (o, v) in out.iter_mut().zip(vector) {
        *o += g * v;
    }
}

fn interaction_backward(mut args: Args<'_>) {
    let pairs = Pairs::of(args.params());
    let (batch, dim) = (args.step.batch as usize, pairs.dim);
    let op = |first| Gradients { pairs, dense: args.f32s(0), pooled: args.f32s(1), d_joined: args.f32s(2), first };
    let (dense, tables) = (op(0), op(1));
    parallel::each(&mut args.output()[..batch * dim], dim, &dense);
    parallel::each(&mut args.output()[..batch * pairs.tables * dim], pairs.tables * dim, &tables);
}

fn case(batch: usize, tables: usize, dim: usize, diagonal: bool) -> Case {
    let pairs = Pairs { tables, dim, diagonal };
    let mut case = Case::new(format!("interaction B {batch}, K {tables}, D {dim}{}", if diagonal { ", diagonal" } else { "" }), batch, 0);
    let (dense, pooled) = (case.random("dense", batch * dim), case.random("pooled", batch * tables * dim));
    let joined = case.output("joined", batch * pairs.width());
    forward(&mut case.plan, pairs, batch, dense, pooled, joined);
    let d_joined = case.random("d_joined", batch * pairs.width());
    let (d_dense, d_pooled) = (case.output("d_dense", batch * dim), case.output("d_pooled", batch * tables * dim));
    backward(&mut case.plan, pairs, batch, dense, pooled, d_joined, d_dense, d_pooled);
    case.check(joined, sums(dim));
    case.check(d_dense, sums(tables));
    case.check(d_pooled, sums(tables));
    case.flops = (batch * (pairs.width() - dim) * dim * 6) as u64;
    case
}

/// Cases.
pub fn cases() -> Vec<Case> {
    vec![case(1, 1, 1, false), case(3, 2, 5, true), case(65, 7, 12, false), case(5, 1, 33, true), case(128, 26, 16, false)]
}
