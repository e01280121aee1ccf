//! Records the plan of a prediction.

use crate::model::{self, Network};
use crate::ops::embedding_bag::{self, BatchViews};
use crate::ops::matmul;
use crate::ops::packed_bag::{self, PackedTables};
use crate::ops::packed_matmul::{self, PackedLayer};
use crate::packed::Outline;
use crate::plan::{Elem, Plan, Role, View};
use crate::quant::pack;
use crate::step::{Capacity, phase};
use crate::tables::Tables;

/// The recorded plan and the buffers the host talks to.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    pub(super) plan: Plan,
    pub(super) dense: View,
    pub(super) batch: BatchViews,
    pub(super) shards: Vec<View>,
    /// One `[K]`, or one for each shard.
    pub(super) scales: Vec<View>,
    pub(super) row_scales: bool,
    /// Name, bytes of a packed row, buffers.
    pub(super) layers: Vec<(String, usize, LayerViews)>,
    pub(super) logits: View,
}

/// A layer's parameters.
#[derive(Debug, Clone, Copy)]
pub(super) enum LayerViews {
    Full { weights: View, bias: View },
    Packed(PackedLayer),
}

/// Records the forward pass of up to `capacity` samples.
pub(super) fn record(outline: &Outline, network: &Network, tables: &Tables, capacity: Capacity) -> Recorded {
    let (m, shape) = (outline.manifest(), &outline.manifest().shape);
    let (k, dim) = (shape.tables(), shape.dim);
    let mut plan = Plan::new();
    let mut input = |name: String, shape: &str, len: usize, elem| plan.buffer(name, shape, len, elem, Role::Input);
    let dense = input("dense".into(), "[B, dense]", capacity.samples * shape.dense, Elem::F32);
    let mut index = |name: &str, shape: &str, len: usize| input(name.into(), shape, len, Elem::U32);
    let rows = index("rows", "[U]", capacity.touched);
    let batch = BatchViews {
        bag_offsets: index("bag_offsets", "[B * K + 1]", capacity.samples * k + 1),
        bag_rows: index("bag_rows", "[ids]", capacity.ids),
        rows,
        row_tables: index("row_tables", "[U]", capacity.touched),
        shard_offsets: index("shard_offsets", "[S + 1]", tables.shards() + 1),
        // Only gradients need these two.
        row_offsets: rows,
        row_samples: rows,
    };
    let row_scales = outline.row_scales();
    let shards = (0..tables.shards()).map(|s| {
        let len = packed_bag::words(tables.rows_in_shard(s), tables.row_bytes());
        input(format!("codes.{s}"), "[rows, bytes] in words", len, Elem::U32)
    });
    let shards: Vec<View> = shards.collect();
    let scales = match row_scales {
        true => {
            (0..tables.shards()).map(|s| input(format!("row_scales.{s}"), "[rows]", tables.rows_in_shard(s) as usize, Elem::F32)).collect()
        }
        false => vec![input("scales".into(), "[K]", k, Elem::F32)],
    };
    let layers: Vec<_> = network
        .layers()
        .map(|layer| {
            let (outputs, inputs) = (layer.linear.outputs, layer.linear.inputs);
            let bias = input(format!("{}.bias", layer.name), "[out]", outputs, Elem::F32);
            let views = if m.mlps.bits.quantized() {
                let codes =
                    input(format!("{}.codes", layer.name), "[out, words]", outputs * packed_matmul::words(m.mlps.bits, inputs), Elem::U32);
                let count = outline.place(&format!("{}.weight.scale", layer.name)).len() / 4;
                let scales = input(format!("{}.scale", layer.name), "[out] or [1]", count, Elem::F32);
                LayerViews::Packed(PackedLayer { bits: m.mlps.bits, offset: m.mlps.offset, codes, scales, bias })
            } else {
                LayerViews::Full { weights: input(format!("{}.weight", layer.name), "[out, in]", outputs * inputs, Elem::F32), bias }
            };
            (layer.name.clone(), pack::row_bytes(m.mlps.bits, inputs), views)
        })
        .collect();

    plan.phase(phase::EVALUATE);
    let gathered = plan.buffer("gathered", "[U, D]", capacity.touched * dim, Elem::F32, Role::Scratch);
    let pooled = plan.buffer("pooled", "[B, K, D]", capacity.samples * k * dim, Elem::F32, Role::Scratch);
    let on_device =
        PackedTables { bits: m.tables.bits, offset: m.tables.offset, shards: shards.clone(), scales: scales.clone(), row_scales };
    packed_bag::gather(&mut plan, tables, &batch, &on_device, gathered);
    embedding_bag::pool(&mut plan, tables, &batch, 0, scales[0], gathered, pooled);
    let acts = model::forward_with(&mut plan, shape, network, "", capacity.samples, dense, pooled, &|plan, layer, x, y| {
        let views = layers.iter().find(|(name, ..)| *name == layer.name).map(|(_, _, views)| *views);
        match views {
            Some(LayerViews::Packed(p)) => packed_matmul::forward(plan, &layer.name, layer.linear, capacity.samples, x, &p, y),
            Some(LayerViews::Full { weights, bias }) => {
                matmul::forward(plan, &layer.name, layer.linear, capacity.samples, x, weights, bias, y)
            }
            None => unreachable!("every layer of the network was declared"),
        }
    });
    let logits = acts.logits();
    plan.buffers[logits.buffer.0].role = Role::Persistent; // the host reads it
    Recorded { plan, dense, batch, shards, scales, row_scales, layers, logits }
}
