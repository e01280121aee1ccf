//! Touched embedding rows quantized on a grid of their own: `gathered[u] = q(table[row_u])` with the scale
//! `max(max|row|, 1e-8) / n` of the row as it is now. Takes the place of `gather_rows`; pooling and the way
//! back are [`super::embedding_bag`]'s (the gradient passes unchanged).

use super::case::{Case, ELEMENTWISE, kaggle_rows};
use super::embedding_bag::{BatchViews, example, views};
use super::parallel;
use crate::params;
use crate::plan::kernel::{reads, shared, writes};
use crate::plan::{Args, Elem, Kernel, Plan, View, grid};
use crate::quant;
use crate::tables::Tables;

params!(
    /// Parameters of `gather_row_scaled`.
    RowScaleParams {
        /// D
        dim: u32,
        /// Which shard is bound.
        shard: u32,
        /// Largest code.
        max_code: f32,
    }
);

/// Copies the touched rows of one shard, each on its own grid.
pub static GATHER_ROW_SCALED: Kernel = Kernel {
    name: "gather_row_scaled",
    op: "row_scale",
    source: include_str!("../../shaders/row_scale.wgsl"),
    shared: &[shared::INDEX, shared::QUANT],
    workgroup: [64, 1, 1],
    params: RowScaleParams::FIELDS,
    bindings: &[
        reads("rows", Elem::U32),
        reads("shard_offsets", Elem::U32),
        reads("table", Elem::F32),
        writes("gathered", Elem::F32),
    ],
    twin: gather_row_scaled,
    variants: &[],
};

/// This op's kernels.
pub const KERNELS: &[&Kernel] = &[&GATHER_ROW_SCALED];

/// Records `gathered` `[U, D]` from the bound tables, with codes up to `max_code`.
pub fn gather(plan: &mut Plan, tables: &Tables, batch: &BatchViews, max_code: u32, shards: &[View], gathered: View) {
    let dim = tables.dim();
    for (s, &shard) in shards.iter().enumerate() {
        let most = (gathered.len / dim).min(tables.rows_in_shard(s) as usize);
        let params = RowScaleParams { dim: dim as u32, shard: s as u32, max_code: max_code as f32 };
        let views = [batch.rows, batch.shard_offsets, shard, gathered];
        plan.push(&GATHER_ROW_SCALED, format!("shard {s}"), &params, &views, grid(most * dim));
    }
}

fn gather_row_scaled(mut args: Args<'_>) {
    let p: RowScaleParams = args.params();
    let (rows, shard_offsets, table, gathered) = (args.u32s(0), args.u32s(1), args.f32s(2), args.output());
    let (dim, shard) = (p.dim as usize, p.shard as usize);
    let (first, last) = (shard_offsets[shard] as usize, shard_offsets[shard + 1] as usize);
    parallel::rows(&mut gathered[first * dim..last * dim], dim, |i, out| {
        let row = &table[rows[first + i] as usize * dim..][..dim];
        let largest = row.iter().fold(0, |m, w| m.max(w.to_bits() & 0x7fff_ffff));
        let scale = quant::scale(f32::from_bits(largest), p.max_code as u32);
        let inverse = 1.0 / scale;
        out.iter_mut().zip(row).for_each(|(o, &w)| *o = quant::fake_quant(w, scale, inverse, p.max_code));
    });
}

fn case(name: &str, samples: usize, rows: &[u64], dim: usize, max_binding: u64, max_code: u32) -> Case {
    let (tables, batch) = example(samples, rows, dim, max_binding, &[1, 0, 3], false);
    let mut case = Case::new(format!("row_scale {name}"), samples, batch.touched());
    let index = views(&mut case, &batch);
    let shards: Vec<View> = (0..tables.shards()).map(|s| case.random(&format!("shard {s}"), tables.rows_in_shard(s) as usize * dim)).collect();
    let gathered = case.output("gathered", batch.touched() * dim);
    gather(&mut case.plan, &tables, &index, max_code, &shards, gathered);
    case.check(gathered, ELEMENTWISE);
    case
}

/// A row of zeros, one with ties (its scale is 1/8), one with a NaN.
fn special() -> Case {
    let (tables, batch) = example(3, &[3], 4, u64::MAX, &[3], false);
    let mut case = Case::new("row_scale zeros, ties, NaN", 3, batch.touched());
    let index = views(&mut case, &batch);
    let values = [0.0, -0.0, 0.0, 0.0, 0.875, 0.0625, -0.1875, -0.3125, 0.5, f32::NAN, -2.0, 1e-30];
    let shard = case.f32s("shard 0", values.to_vec());
    let gathered = case.output("gathered", batch.touched() * 4);
    gather(&mut case.plan, &tables, &index, 7, &[shard], gathered);
    case.check(gathered, ELEMENTWISE);
    case
}

/// Cases.
pub fn cases() -> Vec<Case> {
    let all = u64::MAX;
    vec![
        case("one element", 1, &[1], 1, all, 7),
        special(),
        case("odd, three bindings, INT2", 50, &[7, 90, 1], 3, 40 * 12, 1),
        case("width 80, INT8", 33, &[200, 9], 80, all, 127),
        case("Kaggle's 26 tables, B 128", 128, &[1000; 26], 16, all, 7),
    ]
}

/// Shapes of the Kaggle model.
pub const SHAPES: &[fn() -> Case] = &[
    || case("Kaggle, B 128", 128, &kaggle_rows(), 16, u64::MAX, 7),
    || case("Kaggle, B 2048", 2048, &kaggle_rows(), 16, u64::MAX, 7),
];
