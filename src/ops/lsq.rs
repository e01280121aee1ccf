//! Learned step sizes (LSQ; Esser et al. 2020, arXiv 1902.08153): the scale s of a group is trained like a weight.
//!
//! Forward, `q(w) = round(clamp(t, -n-1, n)) s` with `t = w / s`: the same kernels as for scales that are found
//! (`gather_rows`, `fake_quant_weights`). Backward, from `dL/dq`:
//!
//! - `dL/dw = dL/dq` where `-n-1 <= t <= n`, else 0;
//! - `dL/ds = g Σ dL/dq (round(t) - t)` inside, `dL/dq` times the bound outside, with `g = 1 / sqrt(n N)`.
//!
//! N is the number of elements that were quantized with s in this step: a row or a matrix of an MLP, a bias, and
//! of a table the touched rows times D. The factor is there because the sum has N terms; rows that a step
//! does not touch add none. s begins at `2 mean|w| / sqrt(n)` and is updated by plain SGD, with the learning rate
//! of what it scales; it never falls below [`MIN_STEP`].

use super::embedding_bag::BatchViews;
use crate::params;
use crate::plan::kernel::{reads, shared, updates, writes};
use crate::plan::{Args, Elem, Kernel, Plan, View, grid, groups};
use crate::quant;
use crate::tables::Tables;
use rayon::prelude::*;

/// The smallest scale; a step that would make it smaller or negative leaves this.
pub const MIN_STEP: f32 = 1e-8;

params!(
    /// Parameters of `abs_sums`.
    AbsSumParams {
        /// First element.
        start: u32,
        /// Elements.
        count: u32,
        /// Elements of a group.
        group_len: u32,
        /// Where the results begin.
        first: u32,
    }
);
params!(
    /// Parameters of `step_sizes`.
    StepSizeParams {
        /// First sum of the first scale.
        first: u32,
        /// Sums of one scale.
        count: u32,
        /// The first scale.
        place: u32,
        /// How many.
        scales: u32,
        /// `2 / (elements of one scale * sqrt(n))`
        factor: f32,
    }
);
params!(
    /// Parameters of `lsq_gradient`.
    LsqParams {
        /// Groups.
        groups: u32,
        /// Elements that share a scale.
        group_len: u32,
        /// Largest code n.
        max_code: f32,
        /// `1 / sqrt(n * group_len)`
        factor: f32,
    }
);
params!(
    /// Parameters of `lsq_row_gradient`.
    LsqRowParams {
        /// D
        dim: u32,
        /// Which shard is bound.
        shard: u32,
        /// Largest code n.
        max_code: f32,
    }
);
params!(
    /// Parameters of `lsq_table_gradient`.
    LsqTableParams {
        /// D
        dim: u32,
        /// Largest code n.
        max_code: f32,
    }
);
params!(
    /// Parameters of `lsq_update`.
    LsqUpdateParams {
        /// Scales.
        len: u32,
        /// 1 for the tables' learning rate, 0 for that of the MLPs.
        of_tables: u32,
    }
);

/// Elements of a table that one workgroup sums.
const CHUNK: usize = 16_384;

const fn kernel(name: &'static str, params: &'static [(&'static str, &'static str)], bindings: &'static [crate::plan::Binding], twin: fn(Args<'_>)) -> Kernel {
    Kernel {
        name,
        op: "lsq",
        source: include_str!("../../shaders/lsq.wgsl"),
        shared: &[shared::STEP, shared::INDEX, shared::QUANT],
        workgroup: [64, 1, 1],
        params,
        bindings,
        twin,
        variants: &[],
    }
}

/// Sums of magnitudes, one for each group.
pub static ABS_SUMS: Kernel =
    kernel("abs_sums", AbsSumParams::FIELDS, &[reads("weights", Elem::F32), writes("sums", Elem::F32)], abs_sums);

/// First scales from those sums.
pub static STEP_SIZES: Kernel =
    kernel("step_sizes", StepSizeParams::FIELDS, &[reads("all_sums", Elem::F32), updates("scales", Elem::F32)], step_sizes);

/// Gradients of an MLP's weights and scales.
pub static LSQ_GRADIENT: Kernel = kernel(
    "lsq_gradient",
    LsqParams::FIELDS,
    &[reads("values", Elem::F32), reads("value_scales", Elem::F32), updates("gradients", Elem::F32), writes("d_scales", Elem::F32)],
    lsq_gradient,
);

/// Gradients of the touched rows of one shard, and each row's part of its table's scale.
pub static LSQ_ROW_GRADIENT: Kernel = kernel(
    "lsq_row_gradient",
    LsqRowParams::FIELDS,
    &[
        reads("rows", Elem::U32),
        reads("row_tables", Elem::U32),
        reads("shard_offsets", Elem::U32),
        reads("table_scales", Elem::F32),
        reads("table", Elem::F32),
        updates("row_gradients", Elem::F32),
        writes("row_sums", Elem::F32),
    ],
    lsq_row_gradient,
);

/// Gradients of the tables' scales.
pub static LSQ_TABLE_GRADIENT: Kernel = kernel(
    "lsq_table_gradient",
    LsqTableParams::FIELDS,
    &[reads("tables_of_rows", Elem::U32), reads("sums_of_rows", Elem::F32), writes("d_table_scales", Elem::F32)],
    lsq_table_gradient,
);

/// `s -= lr dL/ds`
pub static LSQ_UPDATE: Kernel =
    kernel("lsq_update", LsqUpdateParams::FIELDS, &[reads("scale_gradients", Elem::F32), updates("learned", Elem::F32)], lsq_update);

/// This op's kernels.
pub const KERNELS: &[&Kernel] = &[&ABS_SUMS, &STEP_SIZES, &LSQ_GRADIENT, &LSQ_ROW_GRADIENT, &LSQ_TABLE_GRADIENT, &LSQ_UPDATE];

fn factor(elements: usize, max_code: u32) -> f32 {
    (2.0 / (elements as f64 * (max_code as f64).sqrt())) as f32
}

/// Sums that [`first_table_scales`] needs.
pub fn table_sums(tables: &Tables) -> usize {
    tables.all_segments().iter().map(|s| (s.count as usize * tables.dim()).div_ceil(CHUNK)).sum()
}

/// Records the first `scales` `[K]` of the tables; `partials` has [`table_sums`] floats.
pub fn first_table_scales(plan: &mut Plan, tables: &Tables, max_code: u32, shards: &[View], partials: View, scales: View) {
    let dim = tables.dim();
    let mut next = 0;
    let mut first = vec![0u32; tables.count() + 1];
    for segment in tables.all_segments() {
        let count = segment.count as usize * dim;
        let params = AbsSumParams { start: (segment.shard_row as usize * dim) as u32, count: count as u32, group_len: CHUNK as u32, first: next };
        plan.push(&ABS_SUMS, format!("table {}", segment.table), &params, &[shards[segment.shard], partials], groups(count.div_ceil(CHUNK)));
        next += count.div_ceil(CHUNK) as u32;
        first[segment.table + 1] = next;
    }
    for table in 0..tables.count() {
        let (first, count) = (first[table], first[table + 1] - first[table]);
        let factor = factor(tables.rows()[table] as usize * dim, max_code);
        let params = StepSizeParams { first, count, place: table as u32, scales: 1, factor };
        plan.push(&STEP_SIZES, format!("table {table}"), &params, &[partials, scales], [1, 1, 1]);
    }
}

/// Records the first `scales` of `weights`, one for each `weights.len / scales.len` elements; `partials` has a
/// float for each scale.
pub fn first_scales(plan: &mut Plan, label: &str, max_code: u32, weights: View, partials: View, scales: View) {
    let group_len = weights.len / scales.len;
    let params = AbsSumParams { start: 0, count: weights.len as u32, group_len: group_len as u32, first: 0 };
    plan.push(&ABS_SUMS, label, &params, &[weights, partials], groups(scales.len));
    let params = StepSizeParams { first: 0, count: 1, place: 0, scales: scales.len as u32, factor: factor(group_len, max_code) };
    plan.push(&STEP_SIZES, label, &params, &[partials, scales], groups(scales.len));
}

/// Records, after the gradients `dL/dq` of some `weights`, what becomes `dL/dw` in place and `d_scales`.
pub fn gradient(plan: &mut Plan, label: &str, max_code: u32, weights: View, scales: View, gradients: View, d_scales: View) {
    let group_len = weights.len / scales.len;
    let factor = (1.0 / (max_code as f64 * group_len as f64).sqrt()) as f32;
    let params = LsqParams { groups: scales.len as u32, group_len: group_len as u32, max_code: max_code as f32, factor };
    plan.push(&LSQ_GRADIENT, label, &params, &[weights, scales, gradients, d_scales], groups(scales.len));
}

/// Records the same for the touched rows: `row_gradients` `[U, D]` in place and `d_scales` `[K]`; `row_sums` is `[U]`.
pub fn table_gradient(
    plan: &mut Plan,
    tables: &Tables,
    batch: &BatchViews,
    max_code: u32,
    scales: View,
    shards: &[View],
    row_gradients: View,
    row_sums: View,
    d_scales: View,
) {
    let dim = tables.dim();
    for (s, &shard) in shards.iter().enumerate() {
        let most = row_sums.len.min(tables.rows_in_shard(s) as usize);
        let params = LsqRowParams { dim: dim as u32, shard: s as u32, max_code: max_code as f32 };
        let views = [batch.rows, batch.row_tables, batch.shard_offsets, scales, shard, row_gradients, row_sums];
        plan.push(&LSQ_ROW_GRADIENT, format!("shard {s}"), &params, &views, grid(most));
    }
    let params = LsqTableParams { dim: dim as u32, max_code: max_code as f32 };
    plan.push(&LSQ_TABLE_GRADIENT, "tables", &params, &[batch.row_tables, row_sums, d_scales], [tables.count() as u32, 1, 1]);
}

/// Records `scales -= lr d_scales`.
pub fn update(plan: &mut Plan, label: &str, of_tables: bool, d_scales: View, scales: View) {
    let params = LsqUpdateParams { len: scales.len as u32, of_tables: of_tables as u32 };
    plan.push(&LSQ_UPDATE, label, &params, &[d_scales, scales], grid(scales.len));
}

/// At least [`MIN_STEP`]; NaN stays NaN.
fn positive(s: f32) -> f32 {
    if s < MIN_STEP { MIN_STEP } else { s }
}

/// `dq/ds` at t, and whether `dq/dw` is 1; NaN stays NaN.
#[inline(always)]
fn slope(t: f32, max_code: f32) -> (f32, bool) {
    let bound = t.clamp(-max_code - 1.0, max_code);
    if bound == t || t.is_nan() { (quant::round_half_even(t) - t, true) } else { (bound, false) }
}

/// Masks the gradients of a run of weights; gives `Σ dL/dq dq/ds`.
#[inline(always)]
fn masked(weights: &[f32], gradients: &mut [f32], inverse: f32, max_code: f32) -> f32 {
    let mut sum = 0.0;
    for (g, w) in gradients.iter_mut().zip(weights) {
        let (slope, inside) = slope(w * inverse, max_code);
        sum += *g * slope;
        *g = if inside { *g } else { 0.0 };
    }
    sum
}

/// A sum by parts of 64, which keeps a long one from losing digits.
fn sum_of(values: impl Iterator<Item = f32>) -> f32 {
    let (mut total, mut part) = (0.0, 0.0);
    for (i, v) in values.enumerate() {
        part += v;
        if i % 64 == 63 {
            (total, part) = (total + part, 0.0);
        }
    }
    total + part
}

fn abs_sums(mut args: Args<'_>) {
    let p: AbsSumParams = args.params();
    let weights = &args.f32s(0)[p.start as usize..(p.start + p.count) as usize];
    let sums = &mut args.output()[p.first as usize..];
    weights.par_chunks(p.group_len as usize).zip(sums).for_each(|(group, out)| *out = sum_of(group.iter().map(|w| w.abs())));
}

fn step_sizes(mut args: Args<'_>) {
    let p: StepSizeParams = args.params();
    let sums = args.f32s(0)[p.first as usize..].chunks_exact(p.count as usize);
    let scales = &mut args.output()[p.place as usize..(p.place + p.scales) as usize];
    scales.iter_mut().zip(sums).for_each(|(s, sums)| *s = positive(p.factor * sum_of(sums.iter().copied())));
}

fn lsq_gradient(mut args: Args<'_>) {
    let p: LsqParams = args.params();
    let (weights, scales, gradients, d_scales) = (args.f32s(0), args.f32s(1), args.output(), args.output());
    let len = p.group_len as usize;
    let groups = gradients.par_chunks_exact_mut(len).with_min_len((1 << 14) / len + 1).zip(weights.par_chunks_exact(len));
    groups.zip(scales).zip(d_scales).for_each(|(((gradients, weights), s), out)| {
        let inverse = 1.0 / s;
        let sum = pulp::Arch::new().dispatch(|| {
            let parts = gradients.chunks_mut(64).zip(weights.chunks(64));
            parts.map(|(gradients, weights)| masked(weights, gradients, inverse, p.max_code)).sum::<f32>()
        });
        *out = sum * p.factor;
    });
}

fn lsq_row_gradient(mut args: Args<'_>) {
    let p: LsqRowParams = args.params();
    let (rows, row_tables, shard_offsets) = (args.u32s(0), args.u32s(1), args.u32s(2));
    let (scales, table, gradients, row_sums) = (args.f32s(3), args.f32s(4), args.output(), args.output());
    let (dim, shard) = (p.dim as usize, p.shard as usize);
    let (first, last) = (shard_offsets[shard] as usize, shard_offsets[shard + 1] as usize);
    let of_rows = gradients[first * dim..last * dim].par_chunks_exact_mut(dim).with_min_len(1024);
    of_rows.zip(&mut row_sums[first..last]).enumerate().for_each(|(i, (gradient, out))| {
        let weights = &table[rows[first + i] as usize * dim..][..dim];
        *out = masked(weights, gradient, 1.0 / scales[row_tables[first + i] as usize], p.max_code);
    });
}

fn lsq_table_gradient(mut args: Args<'_>) {
    let p: LsqTableParams = args.params();
    let touched = args.step.touched as usize;
    let (row_tables, row_sums) = (&args.u32s(0)[..touched], args.f32s(1));
    for (k, out) in args.output().iter_mut().enumerate() {
        let first = row_tables.partition_point(|&t| (t as usize) < k);
        let end = row_tables.partition_point(|&t| t as usize <= k);
        let elements = (end - first).max(1) as f32 * p.dim as f32;
        *out = sum_of(row_sums[first..end].iter().copied()) / (p.max_code * elements).sqrt();
    }
}

fn lsq_update(mut args: Args<'_>) {
    let p: LsqUpdateParams = args.params();
    let lr = if p.of_tables != 0 { args.step.lr_rows } else { args.step.lr };
    let gradients = args.f32s(0);
    args.output().iter_mut().zip(gradients).for_each(|(s, g)| *s = positive(*s - lr * g));
}

mod cases;
pub use cases::{SHAPES, cases};
