//! One scale per embedding table: `max|w| / n` over all its rows, wherever they lie. Magnitudes are
//! compared as bits, so the order of comparison does not matter and a NaN is never lost.
//! Refreshed at steps 0, P, 2P … (arXiv 2410.20046 section 3.2); it is one read of every table.

use super::case::{Case, ELEMENTWISE, kaggle_rows};
use super::parallel;
use crate::params;
use crate::plan::kernel::{reads, shared, updates, writes};
use crate::plan::{Args, Elem, Kernel, Plan, View, groups};
use crate::quant;
use crate::tables::Tables;
use rayon::prelude::*;

params!(
    /// Parameters of `table_absmax`.
    AbsmaxParams {
        /// First element in the shard.
        start: u32,
        /// Elements.
        count: u32,
        /// Where the results begin.
        partial: u32,
    }
);
params!(
    /// Parameters of `table_scale`.
    TableScaleParams {
        /// First partial of the table.
        first: u32,
        /// Its partials.
        count: u32,
        /// The table.
        table: u32,
        /// Largest code.
        max_code: f32,
    }
);

const SOURCE: &str = include_str!("../../shaders/table_scale.wgsl");
const SHARED: &[&str] = &[shared::INDEX, shared::QUANT];
/// Elements that one workgroup reduces.
const CHUNK: usize = 16_384;

/// Largest magnitude of each run of 16,384 elements, as bits.
pub static TABLE_ABSMAX: Kernel = Kernel {
    name: "table_absmax",
    op: "table_scale",
    source: SOURCE,
    shared: SHARED,
    workgroup: [64, 1, 1],
    params: AbsmaxParams::FIELDS,
    bindings: &[reads("table", Elem::F32), writes("partials", Elem::U32)],
    twin: table_absmax,
    variants: &[],
};

/// Scale of one table from its partials.
pub static TABLE_SCALE: Kernel = Kernel {
    name: "table_scale",
    op: "table_scale",
    source: SOURCE,
    shared: SHARED,
    workgroup: [64, 1, 1],
    params: TableScaleParams::FIELDS,
    bindings: &[reads("table_partials", Elem::U32), updates("scales", Elem::F32)],
    twin: table_scale,
    variants: &[],
};

/// This op's kernels.
pub const KERNELS: &[&Kernel] = &[&TABLE_ABSMAX, &TABLE_SCALE];

/// Partials that all tables need.
pub fn partials(tables: &Tables) -> usize {
    tables.all_segments().iter().map(|s| (s.count as usize * tables.dim()).div_ceil(CHUNK)).sum()
}

/// Records the refresh of all scales: `partials` `[partials()]`, `scales` `[K]`.
pub fn refresh(plan: &mut Plan, tables: &Tables, max_code: u32, shards: &[View], partials: View, scales: View) {
    let dim = tables.dim();
    let mut next = 0;
    let mut first = vec![0u32; tables.count() + 1];
    for segment in tables.all_segments() {
        let count = segment.count as usize * dim;
        let params = AbsmaxParams { start: (segment.shard_row as usize * dim) as u32, count: count as u32, partial: next };
        plan.push(&TABLE_ABSMAX, format!("table {}", segment.table), &params, &[shards[segment.shard], partials], groups(count.div_ceil(CHUNK)));
        next += count.div_ceil(CHUNK) as u32;
        first[segment.table + 1] = next;
    }
    for table in 0..tables.count() {
        let (first, count) = (first[table], first[table + 1] - first[table]);
        let params = TableScaleParams { first, count, table: table as u32, max_code: max_code as f32 };
        plan.push(&TABLE_SCALE, format!("table {table}"), &params, &[partials, scales], [1, 1, 1]);
    }
}

/// Records the scales of all tables from the largest magnitude of each, as bits: `largest` `[K]`, `scales` `[K]`.
pub fn from_largest(plan: &mut Plan, tables: usize, max_code: u32, largest: View, scales: View) {
    for table in 0..tables {
        let params = TableScaleParams { first: table as u32, count: 1, table: table as u32, max_code: max_code as f32 };
        plan.push(&TABLE_SCALE, format!("table {table}"), &params, &[largest, scales], [1, 1, 1]);
    }
}

fn table_absmax(mut args: Args<'_>) {
    let p: AbsmaxParams = args.params();
    let table = &args.u32s(0)[p.start as usize..(p.start + p.count) as usize];
    let partials = &mut args.output_u32()[p.partial as usize..];
    table.par_chunks(CHUNK).zip(partials).for_each(|(values, out)| *out = parallel::max_abs_bits(values));
}

fn table_scale(mut args: Args<'_>) {
    let p: TableScaleParams = args.params();
    let all = parallel::max_abs_bits(&args.u32s(0)[p.first as usize..(p.first + p.count) as usize]);
    args.output()[p.table as usize] = quant::scale(f32::from_bits(all), p.max_code as u32);
}

fn case(name: &str, rows: &[u64], dim: usize, max_binding: u64, zero: bool) -> Case {
    let tables = Tables::new(rows, dim, max_binding).expect("a case's tables fit");
    let mut case = Case::new(format!("table_scale {name}"), 1, 0);
    let shard = |case: &mut Case, s| {
        let len = tables.rows_in_shard(s) as usize * dim;
        if zero { case.f32s(&format!("shard {s}"), vec![0.0; len]) } else { case.random(&format!("shard {s}"), len) }
    };
    let shards: Vec<View> = (0..tables.shards()).map(|s| shard(&mut case, s)).collect();
    let count = partials(&tables);
    let scratch = case.words("partials", vec![super::case::POISON; count], Elem::U32);
    let scales = case.output("scales", rows.len());
    refresh(&mut case.plan, &tables, 7, &shards, scratch, scales);
    case.check(scales, ELEMENTWISE);
    case
}

fn largest_case() -> Case {
    let mut case = Case::new("table_scale from the largest magnitudes", 1, 0);
    let largest = [0.0f32, 0.7, 1e-12, 3.5e3].map(f32::to_bits).to_vec();
    let largest = case.words("largest", largest, Elem::U32);
    let scales = case.output("scales", 4);
    from_largest(&mut case.plan, 4, 7, largest, scales);
    case.check(scales, ELEMENTWISE);
    case
}

/// Cases.
pub fn cases() -> Vec<Case> {
    vec![
        largest_case(),
        case("one element", &[1], 1, u64::MAX, false),
        case("zero tables get the floor", &[4, 3], 3, u64::MAX, true),
        case("odd", &[5, 1, 777], 3, u64::MAX, false),
        case("a table over three bindings", &[10, 9000, 5], 16, 4000 * 64, false),
        case("100,000 rows", &[100_000, 24], 16, u64::MAX, false),
    ]
}

/// Shapes of the Kaggle model.
pub const SHAPES: &[fn() -> Case] = &[
    || case("Kaggle", &kaggle_rows(), 16, u64::MAX, false),
];
