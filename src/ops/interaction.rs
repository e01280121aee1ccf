//! Dot interaction: with T = [dense vector, pooled embeddings], `out = concat(T₀, Tᵢ·Tⱼ for j < i)`,
//! the strict lower triangle row by row (`interact_features` of facebookresearch/dlrm); with the
//! diagonal, j ≤ i. Backwards `dTᵢ = Σ gᵢⱼ Tⱼ`, plus the direct path to T₀. T₀ is the output of the
//! bottom MLP's last ReLU, so its gradient is masked here and enters that layer as `dz`.

use super::case::{Case, sums};
use super::parallel;
use crate::params;
use crate::plan::kernel::{reads, shared, writes};
use crate::plan::{Args, Elem, Kernel, Plan, View, grid};
use std::cmp::Ordering;

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
/// Vectors whose sums are made at the same time.
const GROUP: usize = 4;

#[inline(always)]
fn vector<'a>(dense: &'a [f32], pooled: &'a [f32], pairs: Pairs, b: usize, i: usize) -> &'a [f32] {
    if i == 0 { &dense[b * pairs.dim..][..pairs.dim] } else { &pooled[(b * pairs.tables + i - 1) * pairs.dim..][..pairs.dim] }
}

#[inline(always)]
fn add<const N: usize>(sum: &mut [f32; N], factor: f32, part: &[f32; N]) {
    for (s, v) in sum.iter_mut().zip(part) {
        *s += factor * v;
    }
}

/// Samples of the forward pass.
struct Products<'a> {
    pairs: Pairs,
    dense: &'a [f32],
    pooled: &'a [f32],
}

impl parallel::Row for Products<'_> {
    #[inline(always)]
    fn row(&self, b: usize, out: &mut [f32]) {
        self.rows(b, out, out.len());
    }

    #[inline(always)]
    fn rows(&self, first: usize, out: &mut [f32], width: usize) {
        let mut columns = vec![[0.0; BLOCK]; (self.pairs.tables + 1).div_ceil(BLOCK) * self.pairs.dim];
        for (i, out) in out.chunks_exact_mut(width).enumerate() {
            let (direct, products) = out.split_at_mut(self.pairs.dim);
            direct.copy_from_slice(vector(self.dense, self.pooled, self.pairs, first + i, 0));
            self.transpose(first + i, &mut columns);
            self.triangle(first + i, &columns, products);
        }
    }
}

impl Products<'_> {
    /// `N` vectors of sample `b` from `first` on; the last one again where there are no more.
    #[inline(always)]
    fn vectors<const N: usize>(&self, b: usize, first: usize) -> [&[f32]; N] {
        std::array::from_fn(|j| vector(self.dense, self.pooled, self.pairs, b, (first + j).min(self.pairs.tables)))
    }

    /// For each eight vectors in turn their first elements, then their second ones …, so that no sum runs across a register.
    #[inline(always)]
    fn transpose(&self, b: usize, columns: &mut [[f32; BLOCK]]) {
        for (block, columns) in columns.chunks_exact_mut(self.pairs.dim).enumerate() {
            let vectors: [_; BLOCK] = self.vectors(b, block * BLOCK);
            for (k, column) in columns.iter_mut().enumerate() {
                for (element, v) in column.iter_mut().zip(&vectors) {
                    *element = v[k];
                }
            }
        }
    }

    /// All products of sample `b`, in groups of eight or four vectors.
    #[inline(always)]
    fn triangle(&self, b: usize, columns: &[[f32; BLOCK]], products: &mut [f32]) {
        let mut i = 0;
        while i <= self.pairs.tables {
            if i + GROUP <= self.pairs.tables {
                self.group::<{ 2 * GROUP }>(b, i, columns, products);
                i += 2 * GROUP;
            } else {
                self.group::<GROUP>(b, i, columns, products);
                i += GROUP;
            }
        }
    }

    /// The products of vectors `i .. i + R` with those before them; several at once, because one sum after another would wait for itself.
    ///
    /// Eight products are stored at a time, also where a row of the triangle has fewer left. What is too much lies in rows that follow, in their
    /// first blocks or in this one, which are stored later: blocks come from the last to the first, and in a block rows from the first to the last.
    #[inline(always)]
    fn group<const R: usize>(&self, b: usize, i: usize, columns: &[[f32; BLOCK]], products: &mut [f32]) {
        let (pairs, dim) = (self.pairs, self.pairs.dim);
        let vectors: [_; R] = self.vectors(b, i);
        let starts: [_; R] = std::array::from_fn(|r| pairs.row_start(i + r));
        let last = (i + R - 1).min(pairs.tables);
        let longest = pairs.row_start(last + 1) - pairs.row_start(last);
        for block in (0..longest.div_ceil(BLOCK)).rev() {
            let sums = tile(vectors, &columns[block * dim..][..dim]);
            for (start, sums) in starts.iter().zip(&sums).take(last + 1 - i) {
                let at = start + block * BLOCK;
                if let Some(all) = products.get_mut(at..at + BLOCK) {
                    all.copy_from_slice(sums);
                } else if let Some(end) = products.get_mut(at..) {
                    for (p, s) in end.iter_mut().zip(sums) {
                        *p = *s;
                    }
                }
            }
        }
    }
}

/// Products of `R` vectors with the eight in `columns`.
#[inline(always)]
fn tile<const R: usize>(mut vectors: [&[f32]; R], columns: &[[f32; BLOCK]]) -> [[f32; BLOCK]; R] {
    let dim = columns.len();
    for v in &mut vectors {
        *v = &v[..dim];
    }
    let mut sums = [[0.0; BLOCK]; R];
    for k in 0..dim {
        let column = columns[k]; // a copy, or the sums are not kept in registers
        for r in 0..R {
            add(&mut sums[r], vectors[r][k], &column);
        }
    }
    sums
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
        let mut groups = out.chunks_exact_mut(GROUP * dim);
        let mut i = self.first;
        for group in &mut groups {
            self.vectors::<GROUP>(b, i, group);
            i += GROUP;
        }
        for one in groups.into_remainder().chunks_exact_mut(dim) {
            self.vectors::<1>(b, i, one);
            i += 1;
        }
        if self.first == 0 {
            let direct = &self.d_joined[b * self.pairs.width()..][..dim];
            for ((s, d), x) in out.iter_mut().zip(direct).zip(vector(self.dense, self.pooled, self.pairs, b, 0)) {
                *s = if *x <= 0.0 { 0.0 } else { *s + d };
            }
        }
    }
}

impl Gradients<'_> {
    /// The gradients of vectors `i .. i + R`.
    #[inline(always)]
    fn vectors<const R: usize>(&self, b: usize, i: usize, out: &mut [f32]) {
        let dim = self.pairs.dim;
        let whole = dim - dim % LANES;
        for at in (0..whole).step_by(LANES) {
            for (r, sum) in self.sums::<R, LANES>(b, i, at).iter().enumerate() {
                out[r * dim + at..][..LANES].copy_from_slice(sum);
            }
        }
        for at in whole..dim {
            for (r, [sum]) in self.sums::<R, 1>(b, i, at).into_iter().enumerate() {
                out[r * dim + at] = sum;
            }
        }
    }

    /// Elements `at .. at + N` of vector `j`.
    #[inline(always)]
    fn elements<const N: usize>(&self, b: usize, j: usize, at: usize) -> &[f32; N] {
        vector(self.dense, self.pooled, self.pairs, b, j)[at..].first_chunk().expect("a vector has as many elements")
    }

    /// Elements `at .. at + N` of `Σ gᵢⱼ Tⱼ` for vectors `i .. i + R`, in the order of j, kept in registers.
    #[inline(always)]
    fn sums<const R: usize, const N: usize>(&self, b: usize, i: usize, at: usize) -> [[f32; N]; R] {
        let pairs = self.pairs;
        let products = &self.d_joined[b * pairs.width()..][pairs.dim..pairs.width()];
        let starts: [usize; R] = std::array::from_fn(|r| pairs.row_start(i + r));
        let mut sums = [[0.0; N]; R];
        for j in 0..i {
            let part = self.elements(b, j, at);
            for r in 0..R {
                add(&mut sums[r], products[starts[r] + j], part);
            }
        }
        for j in i..i + R {
            let (row, part) = (&products[pairs.row_start(j)..], self.elements(b, j, at));
            let (twice, own) = if pairs.diagonal { (2.0 * row[j], part) } else { (0.0, &[0.0; N]) };
            for r in 0..R {
                let (g, part) = match (i + r).cmp(&j) {
                    Ordering::Less => (row[i + r], part),
                    Ordering::Equal => (twice, own),
                    Ordering::Greater => (products[starts[r] + j], part),
                };
                add(&mut sums[r], g, part);
            }
        }
        for j in i + R..=pairs.tables {
            let g: &[f32; R] = products[pairs.row_start(j) + i..].first_chunk().expect("a row of products is that long");
            let part = self.elements(b, j, at);
            for r in 0..R {
                add(&mut sums[r], g[r], part);
            }
        }
        sums
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
    vec![
        case(1, 1, 1, false),
        case(3, 2, 5, true),
        case(65, 7, 12, false),
        case(5, 1, 33, true),
        case(128, 26, 16, false),
        case(9, 12, 20, true),
        case(5, 15, 7, true),
        case(4, 8, 17, false),
        case(3, 31, 3, false),
        case(3, 16, 9, true),
        case(2, 4, 1, true),
    ]
}

/// Shapes of the Kaggle model.
pub const SHAPES: &[fn() -> Case] = &[
    || case(128, 26, 16, false),
    || case(2048, 26, 16, false),
];
