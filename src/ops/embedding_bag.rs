//! Embedding bags, sum pooling, over the rows a batch touches.
//!
//! `gathered[u] = q(table[row_u])`, `pooled[b, k] = Σ_bag gathered`, and backwards
//! `gradient[u] = Σ d_pooled[b, k_u]` over the samples that used row u, in order. q is fake
//! quantization with the table's scale; its gradient is the identity (straight-through estimator,
//! arXiv 2410.20046 section 3). Only touched rows are read, quantized once each, and no second copy
//! of a table exists. An empty bag is the zero vector.

use super::case::{Case, ELEMENTWISE, EXACT, kaggle_rows, sums};
use super::parallel;
use crate::data::{Batch, Block};
use crate::params;
use crate::plan::kernel::{reads, shared, writes};
use crate::plan::{Args, Elem, Kernel, Plan, View, grid};
use crate::quant;
use crate::tables::Tables;

mod variants;

params!(
    /// Parameters of `gather_rows`.
    GatherParams {
        /// D
        dim: u32,
        /// Which shard is bound.
        shard: u32,
        /// Largest code, or 0 for no quantization.
        max_code: f32,
    }
);
params!(
    /// Parameters of `pool_bags`.
    PoolParams {
        /// K
        tables: u32,
        /// D
        dim: u32,
        /// Largest code when the sum is quantized, else 0.
        max_code: f32,
    }
);
params!(
    /// Parameters of `bag_gradient`.
    BagGradientParams {
        /// K
        tables: u32,
        /// D
        dim: u32,
    }
);

const SOURCE: &str = include_str!("../../shaders/embedding_bag.wgsl");
const SHARED: &[&str] = &[shared::STEP, shared::INDEX, shared::QUANT];

/// Copies and quantizes the touched rows of one shard.
pub static GATHER_ROWS: Kernel = Kernel {
    name: "gather_rows",
    op: "embedding_bag",
    source: SOURCE,
    shared: SHARED,
    workgroup: [64, 1, 1],
    params: GatherParams::FIELDS,
    bindings: &[
        reads("rows", Elem::U32),
        reads("row_tables", Elem::U32),
        reads("shard_offsets", Elem::U32),
        reads("scales", Elem::F32),
        reads("table", Elem::F32),
        writes("gathered", Elem::F32),
    ],
    twin: gather_rows,
    variants: &variants::GATHER,
};

/// Sums bags.
pub static POOL_BAGS: Kernel = Kernel {
    name: "pool_bags",
    op: "embedding_bag",
    source: SOURCE,
    shared: SHARED,
    workgroup: [64, 1, 1],
    params: PoolParams::FIELDS,
    bindings: &[
        reads("bag_offsets", Elem::U32),
        reads("bag_rows", Elem::U32),
        reads("pool_scales", Elem::F32),
        reads("pool_gathered", Elem::F32),
        writes("pooled", Elem::F32),
    ],
    twin: pool_bags,
    variants: &variants::POOL,
};

/// One gradient row for each touched row.
pub static BAG_GRADIENT: Kernel = Kernel {
    name: "bag_gradient",
    op: "embedding_bag",
    source: SOURCE,
    shared: SHARED,
    workgroup: [64, 1, 1],
    params: BagGradientParams::FIELDS,
    bindings: &[
        reads("row_offsets", Elem::U32),
        reads("row_samples", Elem::U32),
        reads("gradient_tables", Elem::U32),
        reads("d_pooled", Elem::F32),
        writes("row_gradients", Elem::F32),
    ],
    twin: bag_gradient,
    variants: &variants::GRADIENT,
};

/// This op's kernels.
pub const KERNELS: &[&Kernel] = &[&GATHER_ROWS, &POOL_BAGS, &BAG_GRADIENT];

/// The index buffers of a batch on the device.
#[derive(Debug, Clone, Copy)]
pub struct BatchViews {
    /// `[B * K + 1]`
    pub bag_offsets: View,
    /// `[ids]`
    pub bag_rows: View,
    /// `[U]`
    pub rows: View,
    /// `[U]`
    pub row_tables: View,
    /// `[S + 1]`
    pub shard_offsets: View,
    /// `[U + 1]`
    pub row_offsets: View,
    /// `[ids]`
    pub row_samples: View,
}

impl BatchViews {
    /// What a forward pass needs of `batch`, each list with its buffer.
    pub fn forward<'a>(&self, batch: &'a Batch) -> [(View, &'a [u32]); 5] {
        [
            (self.bag_offsets, &batch.bag_offsets),
            (self.bag_rows, &batch.bag_rows),
            (self.rows, &batch.rows),
            (self.row_tables, &batch.row_tables),
            (self.shard_offsets, &batch.shard_offsets),
        ]
    }
}

/// What is quantized, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantize {
    /// Nothing.
    Nothing,
    /// Each row, to codes up to this; packed tables can hold the result.
    Rows(u32),
    /// The sum of each bag, to codes up to this, as the published code does.
    Sums(u32),
}

/// Records gather and pooling. `shards` are the bound tables; `gathered` is `[U, D]`, `pooled` `[B, K, D]`.
pub fn forward(plan: &mut Plan, tables: &Tables, batch: &BatchViews, quantize: Quantize, scales: View, shards: &[View], gathered: View, pooled: View) {
    let dim = tables.dim();
    let (rows_code, sums_code) = match quantize {
        Quantize::Nothing => (0, 0),
        Quantize::Rows(n) => (n, 0),
        Quantize::Sums(n) => (0, n),
    };
    for (s, &shard) in shards.iter().enumerate() {
        let most = (gathered.len / dim).min(tables.rows_in_shard(s) as usize);
        let params = GatherParams { dim: dim as u32, shard: s as u32, max_code: rows_code as f32 };
        let views = [batch.rows, batch.row_tables, batch.shard_offsets, scales, shard, gathered];
        plan.push(&GATHER_ROWS, format!("shard {s}"), &params, &views, grid(most * dim));
    }
    pool(plan, tables, batch, sums_code, scales, gathered, pooled);
}

/// Records the sums of the bags alone; `max_code` is 0 unless the sums are quantized with `scales`.
pub fn pool(plan: &mut Plan, tables: &Tables, batch: &BatchViews, max_code: u32, scales: View, gathered: View, pooled: View) {
    let params = PoolParams { tables: tables.count() as u32, dim: tables.dim() as u32, max_code: max_code as f32 };
    plan.push(&POOL_BAGS, "bags", &params, &[batch.bag_offsets, batch.bag_rows, scales, gathered, pooled], grid(pooled.len));
}

/// Records the gradient of the touched rows, `row_gradients` `[U, D]`, from `d_pooled` `[B, K, D]`.
pub fn backward(plan: &mut Plan, tables: &Tables, batch: &BatchViews, d_pooled: View, row_gradients: View) {
    let params = BagGradientParams { tables: tables.count() as u32, dim: tables.dim() as u32 };
    let views = [batch.row_offsets, batch.row_samples, batch.row_tables, d_pooled, row_gradients];
    plan.push(&BAG_GRADIENT, "rows", &params, &views, grid(row_gradients.len));
}

/// One touched row, copied and quantized.
struct Gather<'a> {
    rows: &'a [u32],
    row_tables: &'a [u32],
    table: &'a [f32],
    scales: &'a [f32],
    max_code: f32,
}

impl parallel::Row for Gather<'_> {
    #[inline(always)]
    fn row(&self, i: usize, out: &mut [f32]) {
        copy(out, &self.table[self.rows[i] as usize * out.len()..][..out.len()]);
        if self.max_code > 0.0 {
            quantize(out, self.scales[self.row_tables[i] as usize], self.max_code);
        }
    }
}

fn gather_rows(mut args: Args<'_>) {
    let p: GatherParams = args.params();
    let (dim, shard, shard_offsets) = (p.dim as usize, p.shard as usize, args.u32s(2));
    let (first, last) = (shard_offsets[shard] as usize, shard_offsets[shard + 1] as usize);
    let (rows, row_tables) = (&args.u32s(0)[first..last], &args.u32s(1)[first..last]);
    let gather = Gather { rows, row_tables, scales: args.f32s(3), table: args.f32s(4), max_code: p.max_code };
    parallel::each(&mut args.output()[first * dim..last * dim], dim, &gather);
}

/// Copies a row, sixteen elements at a time: a call of `memcpy` for each row takes longer than that.
#[inline(always)]
fn copy(out: &mut [f32], row: &[f32]) {
    let ((blocks, end), (from, tail)) = (out.as_chunks_mut::<16>(), row.as_chunks::<16>());
    for (block, from) in blocks.iter_mut().zip(from) {
        *block = *from;
    }
    if !end.is_empty() {
        end.copy_from_slice(tail);
    }
}

#[inline(always)]
fn quantize(values: &mut [f32], scale: f32, max_code: f32) {
    let inverse = 1.0 / scale;
    values.iter_mut().for_each(|v| *v = quant::fake_quant(*v, scale, inverse, max_code));
}

/// `out = Σ` row `row_of(i)` of `values` over `ids`, in their order; sixteen elements at a time, in registers.
#[inline(always)]
fn add_up(out: &mut [f32], ids: &[u32], values: &[f32], row_of: impl Fn(u32) -> usize) {
    let dim = out.len();
    let (blocks, rest) = out.as_chunks_mut::<16>();
    let first = dim - rest.len();
    for (at, block) in (0..).step_by(16).zip(blocks) {
        let mut sum = [0.0; 16];
        for &i in ids {
            let row = &values[row_of(i) * dim + at..][..16];
            sum.iter_mut().zip(row).for_each(|(s, v)| *s += v);
        }
        *block = sum;
    }
    rest.fill(0.0);
    if !rest.is_empty() {
        for &i in ids {
            let row = &values[row_of(i) * dim + first..][..rest.len()];
            rest.iter_mut().zip(row).for_each(|(s, v)| *s += v);
        }
    }
}

/// The sum of one bag.
struct Pool<'a> {
    bag_offsets: &'a [u32],
    bag_rows: &'a [u32],
    scales: &'a [f32],
    gathered: &'a [f32],
    max_code: f32,
    tables: usize,
}

impl parallel::Row for Pool<'_> {
    #[inline(always)]
    fn row(&self, bag: usize, out: &mut [f32]) {
        let bag_rows = &self.bag_rows[self.bag_offsets[bag] as usize..self.bag_offsets[bag + 1] as usize];
        add_up(out, bag_rows, self.gathered, |u| u as usize);
        if self.max_code > 0.0 {
            quantize(out, self.scales[bag % self.tables], self.max_code);
        }
    }
}

fn pool_bags(mut args: Args<'_>) {
    let p: PoolParams = args.params();
    let (tables, dim) = (p.tables as usize, p.dim as usize);
    let (bag_offsets, bag_rows, scales, gathered) = (args.u32s(0), args.u32s(1), args.f32s(2), args.f32s(3));
    let live = args.step.batch as usize * tables * dim;
    let pool = Pool { bag_offsets, bag_rows, scales, gathered, max_code: p.max_code, tables };
    parallel::each(&mut args.output()[..live], dim, &pool);
}

/// The gradient of one touched row.
struct Gradient<'a> {
    row_offsets: &'a [u32],
    row_samples: &'a [u32],
    row_tables: &'a [u32],
    d_pooled: &'a [f32],
    tables: usize,
}

impl parallel::Row for Gradient<'_> {
    #[inline(always)]
    fn row(&self, u: usize, out: &mut [f32]) {
        let table = self.row_tables[u] as usize;
        let samples = &self.row_samples[self.row_offsets[u] as usize..self.row_offsets[u + 1] as usize];
        add_up(out, samples, self.d_pooled, |b| b as usize * self.tables + table);
    }
}

fn bag_gradient(mut args: Args<'_>) {
    let p: BagGradientParams = args.params();
    let (row_offsets, row_samples, row_tables, d_pooled) = (args.u32s(0), args.u32s(1), args.u32s(2), args.f32s(3));
    let (tables, dim) = (p.tables as usize, p.dim as usize);
    let live = args.step.touched as usize * dim;
    let gradient = Gradient { row_offsets, row_samples, row_tables, d_pooled, tables };
    parallel::each(&mut args.output()[..live], dim, &gradient);
}

/// Bags for cases: sizes cycle through `sizes`, ids through the tables (`same`: every id is row 0).
pub(super) fn example(samples: usize, rows: &[u64], dim: usize, max_binding: u64, sizes: &[usize], same: bool) -> (Tables, Batch) {
    let tables = Tables::new(rows, dim, max_binding).expect("a case's tables fit");
    let batch = example_batch(samples, sizes, same, &tables);
    (tables, batch)
}

/// The same for tables that are cut already.
pub(super) fn example_batch(samples: usize, sizes: &[usize], same: bool, tables: &Tables) -> Batch {
    let rows = tables.rows();
    let mut block = Block::new();
    block.samples = samples;
    let mut n = 0u64;
    for bag in 0..samples * rows.len() {
        for _ in 0..sizes[bag % sizes.len()] {
            n += 1;
            block.ids.push(if same { 0 } else { (n.wrapping_mul(2_654_435_761) % rows[bag % rows.len()]) as u32 });
        }
        block.end_bag();
    }
    Batch::prepare(&block, tables).expect("a case's ids lie in its tables")
}

/// The index buffers of a batch in a case.
pub(super) fn views(case: &mut Case, batch: &Batch) -> BatchViews {
    BatchViews {
        bag_offsets: case.u32s("bag_offsets", batch.bag_offsets.clone()),
        bag_rows: case.u32s("bag_rows", batch.bag_rows.clone()),
        rows: case.u32s("rows", batch.rows.clone()),
        row_tables: case.u32s("row_tables", batch.row_tables.clone()),
        shard_offsets: case.u32s("shard_offsets", batch.shard_offsets.clone()),
        row_offsets: case.u32s("row_offsets", batch.row_offsets.clone()),
        row_samples: case.u32s("row_samples", batch.row_samples.clone()),
    }
}

fn case(name: &str, samples: usize, rows: &[u64], dim: usize, max_binding: u64, sizes: &[usize], same: bool, quantize: Quantize) -> Case {
    let (tables, batch) = example(samples, rows, dim, max_binding, sizes, same);
    let mut case = Case::new(format!("embedding_bag {name}"), samples, batch.touched());
    let views = views(&mut case, &batch);
    let scales = case.f32s("scales", (0..rows.len()).map(|k| 0.0625 * (k % 5 + 1) as f32).collect());
    let shards: Vec<View> = (0..tables.shards()).map(|s| case.random(&format!("shard {s}"), tables.rows_in_shard(s) as usize * dim)).collect();
    let gathered = case.output("gathered", batch.touched() * dim);
    let pooled = case.output("pooled", samples * rows.len() * dim);
    forward(&mut case.plan, &tables, &views, quantize, scales, &shards, gathered, pooled);
    let d_pooled = case.random("d_pooled", samples * rows.len() * dim);
    let row_gradients = case.output("row_gradients", batch.touched() * dim);
    backward(&mut case.plan, &tables, &views, d_pooled, row_gradients);
    let longest = batch.row_offsets.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0) as usize;
    if batch.touched() > 0 {
        case.check(gathered, if quantize == Quantize::Nothing { EXACT } else { ELEMENTWISE });
        case.check(row_gradients, sums(longest));
    }
    case.check(pooled, ELEMENTWISE);
    case
}

/// Cases.
pub fn cases() -> Vec<Case> {
    let all = u64::MAX;
    vec![
        case("one bag of one id", 1, &[1], 1, all, &[1], false, Quantize::Rows(7)),
        case("odd sizes, bags empty or long", 7, &[5, 1, 33], 3, all, &[0, 1, 5, 2], false, Quantize::Nothing),
        case("all bags empty", 4, &[5, 2], 4, all, &[0], false, Quantize::Rows(7)),
        case("all ids equal", 300, &[9, 4], 8, all, &[1], true, Quantize::Rows(7)),
        case("a table over three bindings", 65, &[11, 70, 3], 4, 30 * 16, &[1, 2], false, Quantize::Rows(127)),
        case("rows of more than two blocks", 12, &[30, 6], 35, all, &[2, 0, 3], false, Quantize::Rows(7)),
        case("sums quantized", 33, &[40, 2, 17], 16, all, &[3, 1], false, Quantize::Sums(7)),
        case("Kaggle's 26 tables, B 128", 128, &[1000; 26], 16, all, &[1], false, Quantize::Rows(7)),
    ]
}

/// Shapes of the Kaggle model.
pub const SHAPES: &[fn() -> Case] = &[
    || case("Kaggle, B 128", 128, &kaggle_rows(), 16, u64::MAX, &[1], false, Quantize::Rows(7)),
    || case("Kaggle, B 2048", 2048, &kaggle_rows(), 16, u64::MAX, &[1], false, Quantize::Rows(7)),
];
