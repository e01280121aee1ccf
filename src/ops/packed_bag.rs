//! Rows of packed embedding tables: `gathered[u] = (code[row_u] + offset) scale`, from the packed words
//! themselves; no other copy of a table exists. Forward only. Pooling is [`super::embedding_bag`]'s.
//! Format: `src/quant/pack.rs`; the grid of arXiv 2410.20046 section 3.

use super::case::{Case, EXACT, kaggle_rows};
use super::embedding_bag::{BatchViews, example_batch, views};
use super::parallel;
use crate::params;
use crate::plan::kernel::{reads, shared, writes};
use crate::plan::{Args, Elem, Kernel, Plan, View, grid};
use crate::quant::{Bits, pack};
use crate::tables::Tables;

params!(
    /// Parameters of `gather_packed`.
    GatherPackedParams {
        /// D
        dim: u32,
        /// Which shard is bound.
        shard: u32,
        /// Width of a code.
        bits: u32,
        /// Bytes of a row.
        row_bytes: u32,
        /// 1 with a scale for each row of the shard, 0 with one for each table.
        row_scales: u32,
        /// Added to every code.
        offset: f32,
    }
);

/// Reads the touched rows of one shard.
pub static GATHER_PACKED: Kernel = Kernel {
    name: "gather_packed",
    op: "packed_bag",
    source: include_str!("../../shaders/packed_bag.wgsl"),
    shared: &[shared::INDEX, shared::PACK],
    workgroup: [64, 1, 1],
    params: GatherPackedParams::FIELDS,
    bindings: &[
        reads("rows", Elem::U32),
        reads("row_tables", Elem::U32),
        reads("shard_offsets", Elem::U32),
        reads("scales", Elem::F32),
        reads("codes", Elem::U32),
        writes("gathered", Elem::F32),
    ],
    twin: gather_packed,
    variants: &[],
};

/// This op's kernels.
pub const KERNELS: &[&Kernel] = &[&GATHER_PACKED];

/// The packed tables on the device.
#[derive(Debug, Clone)]
pub struct PackedTables {
    /// Width of a code.
    pub bits: Bits,
    /// Added to every code.
    pub offset: f32,
    /// The codes of each shard, in words.
    pub shards: Vec<View>,
    /// One view `[K]`, or one for each shard with a scale for each of its rows.
    pub scales: Vec<View>,
    /// True for the second.
    pub row_scales: bool,
}

/// Words of packed codes that hold `rows` rows.
pub fn words(rows: u64, row_bytes: usize) -> usize {
    (rows as usize * row_bytes).div_ceil(4)
}

/// Records the reading of a batch's rows into `gathered` `[U, D]`.
pub fn gather(plan: &mut Plan, tables: &Tables, batch: &BatchViews, packed: &PackedTables, gathered: View) {
    let (dim, bits) = (tables.dim(), packed.bits.width());
    let words = dim.div_ceil(32 / bits as usize);
    for (s, &shard) in packed.shards.iter().enumerate() {
        let most = (gathered.len / dim).min(tables.rows_in_shard(s) as usize);
        let (row_bytes, row_scales) = (tables.row_bytes() as u32, u32::from(packed.row_scales));
        let params = GatherPackedParams { dim: dim as u32, shard: s as u32, bits, row_bytes, row_scales, offset: packed.offset };
        let scales = packed.scales[if packed.row_scales { s } else { 0 }];
        let views = [batch.rows, batch.row_tables, batch.shard_offsets, scales, shard, gathered];
        plan.push(&GATHER_PACKED, format!("shard {s}"), &params, &views, grid(most * words));
    }
}

/// The bit width that parameters name.
pub(super) fn bits(width: u32) -> Bits {
    [Bits::B2, Bits::B4, Bits::B8].into_iter().find(|b| b.width() == width).unwrap_or(Bits::B16)
}

/// One touched row.
struct Rows<'a> {
    bits: Bits,
    offset: f32,
    row_bytes: usize,
    rows: &'a [u32],
    groups: &'a [u32],
    scales: &'a [f32],
    codes: &'a [u8],
}

impl parallel::Row for Rows<'_> {
    #[inline(always)]
    fn row(&self, i: usize, out: &mut [f32]) {
        let codes = &self.codes[self.rows[i] as usize * self.row_bytes..][..self.row_bytes];
        pack::decode_row(codes, self.bits, self.scales[self.groups[i] as usize], self.offset, out);
    }
}

fn gather_packed(mut args: Args<'_>) {
    let p: GatherPackedParams = args.params();
    let (rows, row_tables, shard_offsets) = (args.u32s(0), args.u32s(1), args.u32s(2));
    let live = shard_offsets[p.shard as usize] as usize..shard_offsets[p.shard as usize + 1] as usize;
    let op = Rows {
        bits: bits(p.bits),
        offset: p.offset,
        row_bytes: p.row_bytes as usize,
        rows: &rows[live.clone()],
        groups: &(if p.row_scales != 0 { rows } else { row_tables })[live.clone()],
        scales: args.f32s(3),
        codes: bytemuck::cast_slice(args.u32s(4)),
    };
    let dim = p.dim as usize;
    parallel::each(&mut args.output()[live.start * dim..live.end * dim], dim, &op);
}

fn case(name: &str, samples: usize, rows: &[u64], dim: usize, bits: Bits, max_binding: u64, row_scales: bool, offset: f32) -> Case {
    let row_bytes = pack::row_bytes(bits, dim);
    let tables = Tables::packed(rows, dim, row_bytes, max_binding).expect("a case's tables fit");
    let batch = example_batch(samples, &[1, 0, 3], false, &tables);
    let mut case = Case::new(format!("packed_bag {name}"), samples, batch.touched());
    let index = views(&mut case, &batch);
    let word = |i: usize| (i as u32).wrapping_mul(2_654_435_761).rotate_left(7);
    let shards = (0..tables.shards()).map(|s| case.u32s(&format!("shard {s}"), (0..words(tables.rows_in_shard(s), row_bytes)).map(word).collect()));
    let shards: Vec<View> = shards.collect();
    let scale = |i: usize| 0.0625 * (i % 5 + 1) as f32;
    let scales = match row_scales {
        true => (0..tables.shards()).map(|s| case.f32s(&format!("scales {s}"), (0..tables.rows_in_shard(s) as usize).map(scale).collect())).collect(),
        false => vec![case.f32s("scales", (0..rows.len()).map(scale).collect())],
    };
    let gathered = case.output("gathered", batch.touched() * dim);
    gather(&mut case.plan, &tables, &index, &PackedTables { bits, offset, shards, scales, row_scales }, gathered);
    case.check(gathered, EXACT);
    case
}

/// Cases.
pub fn cases() -> Vec<Case> {
    let all = u64::MAX;
    vec![
        case("one row of one code", 1, &[1], 1, Bits::B4, all, false, 0.0),
        case("rows of 3 bytes over many bindings", 40, &[5, 90, 33], 5, Bits::B4, 48, false, 0.0),
        case("rows of 3 bytes, scales of rows", 40, &[5, 90, 33], 5, Bits::B4, 48, true, 0.0),
        case("2 bits, odd", 33, &[7, 50], 9, Bits::B2, all, false, 0.5),
        case("8 bits, odd", 33, &[7, 50], 7, Bits::B8, all, true, 0.0),
        case("16 bits, odd", 33, &[7, 50], 3, Bits::B16, all, false, 0.0),
        case("Kaggle's 26 tables, INT4, B 128", 128, &[1000; 26], 16, Bits::B4, all, false, 0.0),
    ]
}

/// Shapes of the Kaggle model.
pub const SHAPES: &[fn() -> Case] = &[
    || case("Kaggle, INT4, B 1", 1, &kaggle_rows(), 16, Bits::B4, u64::MAX, false, 0.0),
    || case("Kaggle, INT4, B 128", 128, &kaggle_rows(), 16, Bits::B4, u64::MAX, false, 0.0),
    || case("Kaggle, INT4, B 2048", 2048, &kaggle_rows(), 16, Bits::B4, u64::MAX, false, 0.0),
];
