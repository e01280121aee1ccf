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

/// Elements of a vector that are taken together.
const LANES: usize = 16;
/// Products of one vector with so many others are made side by side.
const BLOCK: usize = 8;

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
        direct.copy_from_slice(vector(self.dense, self.pooled, self.pairs, b, 0));
        products.fill(0.0);
        for at in (0..self.pairs.dim).step_by(LANES) {
            for first in (0..=self.pairs.tables).step_by(BLOCK) {
                self.block(b, at, first, products);
            }
        }
    }
}

impl Products<'_> {
    /// Adds elements `at .. at + 16` of the products with vectors `first .. first + 8`, which are
    /// transposed first, so that no sum runs across a register.
    #[inline(always)]
    fn block(&self, b: usize, at: usize, first: usize, products: &mut [f32]) {
        let pairs = self.pairs;
        let part = |i| {
            let vector = &vector(self.dense, self.pooled, pairs, b, i)[at..];
            &vector[..vector.len().min(LANES)]
        };
        let mut columns = [[0.0; BLOCK]; LANES];
        for j in first..(first + BLOCK).min(pairs.tables + 1) {
            columns.iter_mut().zip(part(j)).for_each(|(column, v)| column[j - first] = *v);
        }
        for i in first..=pairs.tables {
            let mut sums = [0.0; BLOCK];
            for (column, x) in columns.iter().zip(part(i)) {
                sums.iter_mut().zip(column).for_each(|(s, v)| *s += x * v);
            }
            let row = &mut products[pairs.row_start(i)..pairs.row_start(i + 1)];
            row.iter_mut().skip(first).zip(sums).for_each(|(p, s)| *p += s);
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
        let dim = self.pairs.dim;
        for (i, sum) in (self.first..).zip(out.chunks_exact_mut(dim)) {
            let (blocks, rest) = sum.as_chunks_mut::<LANES>();
            let last = blocks.len() * LANES;
            for (c, block) in blocks.iter_mut().enumerate() {
                *block = self.sum(b, i, c * LANES);
            }
            for (c, v) in rest.iter_mut().enumerate() {
                [*v] = self.sum(b, i, last + c);
            }
            if i == 0 {
                let direct = &self.d_joined[b * self.pairs.width()..][..dim];
                for ((s, d), x) in sum.iter_mut().zip(direct).zip(vector(self.dense, self.pooled, self.pairs, b, 0)) {
                    *s = if *x <= 0.0 { 0.0 } else { *s + d };
                }
            }
        }
    }
}

impl Gradients<'_> {
    /// Elements `at .. at + N` of `Σ gᵢⱼ Tⱼ`, in the order of j, kept in registers.
    #[inline(always)]
    fn sum<const N: usize>(&self, b: usize, i: usize, at: usize) -> [f32; N] {
        let (pairs, dim) = (self.pairs, self.pairs.dim);
        let products = &self.d_joined[b * pairs.width()..][dim..pairs.width()];
        let mut sum = [0.0; N];
        let mut add = |g: f32, vector: &[f32]| {
            for (s, v) in sum.iter_mut().zip(&vector[at..at + N]) {
                *s += g * v;
            }
        };
        let tables = &self.pooled[b * pairs.tables * dim..][..pairs.tables * dim];
        let mut vectors = std::iter::once(&self.dense[b * dim..][..dim]).chain(tables.chunks_exact(dim));
        for (g, vector) in products[pairs.row_start(i)..][..i].iter().zip(&mut vectors) {
            add(*g, vector);
        }
        let own = vectors.next().filter(|_| pairs.diagonal);
        own.into_iter().for_each(|vector| add(2.0 * products[pairs.row_start(i) + i], vector));
        let mut next = pairs.row_start(i + 1) + i;
        for (j, vector) in (i + 1..).zip(vectors) {
            add(products[next], vector);
            next += pairs.row_start(j + 1) - pairs.row_start(j);
        }
        sum
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
    case
}

/// Cases.
pub fn cases() -> Vec<Case> {
    vec![case(1, 1, 1, false), case(3, 2, 5, true), case(65, 7, 12, false), case(5, 1, 33, true), case(128, 26, 16, false)]
}

/// Shapes of the Kaggle model.
pub const SHAPES: &[fn() -> Case] = &[
    || case(128, 26, 16, false),
    || case(2048, 26, 16, false),
];
