//! Weights on DoReFa's grid, whose values lie in -1..=1: `(2c + 1) / (2^k - 1)` with the code
//! `c = round((2^k - 1) (tanh w / (2 tanh m) + 1/2)) - 2^(k-1)`, m the largest magnitude of the table or
//! matrix (Zhou et al. 2016, arXiv 1606.06160 section 2.3; arXiv 2410.20046 calls it PACT). Since tanh rises,
//! `max |tanh w| = tanh m`, and m comes from `table_scale` and `group_scale` with 1 as the largest code. The
//! gradient passes unchanged (straight-through estimator): the published code has no factor for tanh.
//! `gather_dorefa` takes the place of `gather_rows`; pooling is [`super::embedding_bag`]'s.

use super::case::{Case, ELEMENTWISE, Tolerance, kaggle_rows};
use super::embedding_bag::{BatchViews, example, views};
use super::parallel;
use crate::params;
use crate::plan::kernel::{reads, shared, writes};
use crate::plan::{Args, Elem, Kernel, Plan, View, grid};
use crate::quant::dorefa::{Grid, spacing};
use crate::tables::Tables;

params!(
    /// Parameters of `gather_dorefa`.
    GatherDorefaParams {
        /// D
        dim: u32,
        /// Which shard is bound.
        shard: u32,
        /// Largest code n = 2^(k-1) - 1.
        max_code: f32,
        /// Distance of two values.
        spacing: f32,
    }
);
params!(
    /// Parameters of `dorefa_weights`.
    DorefaParams {
        /// Elements.
        len: u32,
        /// Largest code n = 2^(k-1) - 1.
        max_code: f32,
        /// Distance of two values.
        spacing: f32,
    }
);

const SOURCE: &str = include_str!("../../shaders/dorefa.wgsl");
const SHARED: &[&str] = &[shared::INDEX, shared::QUANT];

/// Copies and quantizes the touched rows of one shard.
pub static GATHER_DOREFA: Kernel = Kernel {
    name: "gather_dorefa",
    op: "dorefa",
    source: SOURCE,
    shared: SHARED,
    workgroup: [64, 1, 1],
    params: GatherDorefaParams::FIELDS,
    bindings: &[
        reads("rows", Elem::U32),
        reads("row_tables", Elem::U32),
        reads("shard_offsets", Elem::U32),
        reads("largest", Elem::F32),
        reads("table", Elem::F32),
        writes("gathered", Elem::F32),
    ],
    twin: gather_dorefa,
    variants: &[],
};

/// Quantizes one matrix.
pub static DOREFA_WEIGHTS: Kernel = Kernel {
    name: "dorefa_weights",
    op: "dorefa",
    source: SOURCE,
    shared: SHARED,
    workgroup: [64, 1, 1],
    params: DorefaParams::FIELDS,
    bindings: &[reads("values", Elem::F32), reads("max_abs", Elem::F32), writes("quantized", Elem::F32)],
    twin: dorefa_weights,
    variants: &[],
};

/// This op's kernels.
pub const KERNELS: &[&Kernel] = &[&GATHER_DOREFA, &DOREFA_WEIGHTS];

/// Records `gathered` `[U, D]` from the bound tables and the largest magnitude of each table, `largest` `[K]`.
pub fn gather(plan: &mut Plan, tables: &Tables, batch: &BatchViews, max_code: u32, largest: View, shards: &[View], gathered: View) {
    let dim = tables.dim();
    for (s, &shard) in shards.iter().enumerate() {
        let most = (gathered.len / dim).min(tables.rows_in_shard(s) as usize);
        let params = GatherDorefaParams { dim: dim as u32, shard: s as u32, max_code: max_code as f32, spacing: spacing(max_code) };
        let views = [batch.rows, batch.row_tables, batch.shard_offsets, largest, shard, gathered];
        plan.push(&GATHER_DOREFA, format!("shard {s}"), &params, &views, grid(most * dim));
    }
}

/// Records `quantized` from `values` of the same length and their largest magnitude, `max_abs` `[1]`.
pub fn quantize(plan: &mut Plan, label: &str, max_code: u32, values: View, max_abs: View, quantized: View) {
    let params = DorefaParams { len: values.len as u32, max_code: max_code as f32, spacing: spacing(max_code) };
    plan.push(&DOREFA_WEIGHTS, label, &params, &[values, max_abs, quantized], grid(values.len));
}

fn gather_dorefa(mut args: Args<'_>) {
    let p: GatherDorefaParams = args.params();
    let (rows, row_tables, shard_offsets) = (args.u32s(0), args.u32s(1), args.u32s(2));
    let (largest, table, gathered) = (args.f32s(3), args.f32s(4), args.output());
    let (dim, shard) = (p.dim as usize, p.shard as usize);
    let (first, last) = (shard_offsets[shard] as usize, shard_offsets[shard + 1] as usize);
    parallel::rows(&mut gathered[first * dim..last * dim], dim, |i, out| {
        let grid = Grid::new(largest[row_tables[first + i] as usize], p.max_code as u32);
        let row = &table[rows[first + i] as usize * dim..][..dim];
        out.iter_mut().zip(row).for_each(|(o, &w)| *o = grid.value(w));
    });
}

/// Quantizes a run of values.
struct Run<'a> {
    values: &'a [f32],
    grid: Grid,
}

impl parallel::Row for Run<'_> {
    #[inline(always)]
    fn row(&self, i: usize, out: &mut [f32]) {
        let values = &self.values[i * out.len()..];
        out.iter_mut().zip(values).for_each(|(o, &w)| *o = self.grid.value(w));
    }
}

fn dorefa_weights(mut args: Args<'_>) {
    let p: DorefaParams = args.params();
    let (values, max_abs, out) = (args.f32s(0), args.f32s(1)[0], args.output());
    let grid = Grid::new(max_abs, p.max_code as u32);
    let whole = out.len() / WIDTH * WIDTH;
    let (runs, rest) = out.split_at_mut(whole);
    parallel::each(runs, WIDTH, &Run { values, grid });
    rest.iter_mut().zip(&values[whole..]).for_each(|(o, &w)| *o = grid.value(w));
}

/// Values that the twin of `dorefa_weights` takes at a time.
const WIDTH: usize = 64;

/// Where a value lies so near the middle of two codes that the last bit of tanh decides.
fn one_code(max_code: u32) -> Tolerance {
    Tolerance { relative: 1e-5, absolute: 1.01 * spacing(max_code), reason: "codes are so close that tanh's last bits decide some" }
}

fn tolerance(max_code: u32) -> Tolerance {
    if max_code > 1000 { one_code(max_code) } else { ELEMENTWISE }
}

fn rows(name: &str, samples: usize, rows: &[u64], dim: usize, max_binding: u64, max_code: u32) -> Case {
    let (tables, batch) = example(samples, rows, dim, max_binding, &[1, 2, 0], false);
    let mut case = Case::new(format!("dorefa rows {name}"), samples, batch.touched());
    let index = views(&mut case, &batch);
    // Some tables reach beyond their largest magnitude, as they do between a step and the next refresh.
    let largest = case.f32s("largest", (0..rows.len()).map(|k| 0.25 * (k % 5 + 1) as f32).collect());
    let shards: Vec<View> = (0..tables.shards()).map(|s| case.random(&format!("shard {s}"), tables.rows_in_shard(s) as usize * dim)).collect();
    let gathered = case.output("gathered", batch.touched() * dim);
    gather(&mut case.plan, &tables, &index, max_code, largest, &shards, gathered);
    case.check(gathered, tolerance(max_code));
    case
}

fn weights(name: &str, values: Vec<f32>, largest: f32, max_code: u32) -> Case {
    let mut case = Case::new(format!("dorefa weights {name}"), 1, 0);
    let len = values.len();
    let values = case.f32s("values", values);
    let max_abs = case.f32s("max_abs", vec![largest]);
    let quantized = case.output("quantized", len);
    quantize(&mut case.plan, "weights", max_code, values, max_abs, quantized);
    case.check(quantized, tolerance(max_code));
    case
}

/// Cases.
pub fn cases() -> Vec<Case> {
    let all = u64::MAX;
    let random = |name: &str, len: usize| super::case::random(name, len);
    let special = vec![0.0, -0.0, 1.0, -1.0, 1e-30, -3.0, 30.0, -f32::INFINITY, f32::NAN];
    vec![
        rows("one element", 1, &[1], 1, all, 7),
        rows("odd, three bindings, INT2", 50, &[7, 90, 1], 3, 40 * 12, 1),
        rows("26 tables, B 128", 128, &[1000; 26], 16, all, 7),
        weights("zero (a tie), ends, beyond, NaN", special, 1.0, 7),
        weights("NaN as the largest", vec![0.5; 3], f32::NAN, 7),
        weights("small, odd, INT8", random("small", 77).iter().map(|w| 1e-3 * w).collect(), 1e-3, 127),
        weights("INT16", random("sixteen", 5000), 1.0, 32_767),
        weights("512x367", random("large", 512 * 367), 1.0, 7),
    ]
}

/// Shapes of the Kaggle model.
pub const SHAPES: &[fn() -> Case] = &[
    || rows("Kaggle, B 128", 128, &kaggle_rows(), 16, u64::MAX, 7),
    || rows("Kaggle, B 2048", 2048, &kaggle_rows(), 16, u64::MAX, 7),
    || weights("512x367", super::case::random("large", 512 * 367), 1.0, 7),
];
