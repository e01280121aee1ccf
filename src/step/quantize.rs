//! How weights become the values that the forward pass uses, by method: the MLPs once per step, the rows of
//! the tables as they are looked up. And, for learned scales, where they come from and how they change.

use super::{Capacity, Recorded};
use crate::config::{EmbeddingScale, Method, Quant, ScalePer, Shape};
use crate::model::{Effective, Network};
use crate::ops::embedding_bag::{self, Quantize};
use crate::ops::{dorefa, fake_quant, layer_quant, lsq, row_scale, table_scale};
use crate::plan::schedule::VIEW_ALIGNMENT;
use crate::plan::{Elem, Plan, Role, View};
use crate::tables::Tables;

/// Scales of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerScales {
    /// Of the matrix, `[outputs]` or `[1]`. In method `pact` the largest magnitude instead.
    pub weight: View,
    /// Of the bias, `[1]`, where it has one of its own (`lsq`).
    pub bias: Option<View>,
}

/// The quantized copies of the MLPs' parameters, and the scales behind them.
#[derive(Debug, Clone)]
pub(super) struct Copies {
    /// Flat.
    values: View,
    /// All scales, flat.
    scales: View,
    /// Those of each layer, in order.
    pub(super) layers: Vec<LayerScales>,
}

impl Copies {
    /// Declares them; none in FP32.
    pub(super) fn declare(plan: &mut Plan, network: &Network, quant: &Quant) -> Option<Copies> {
        if !quant.mlp_bits.quantized() {
            return None;
        }
        let values = plan.buffer("weights_quantized", "flat", network.flat_len, Elem::F32, Role::Persistent);
        let per_row = quant.mlp_scale == ScalePer::Channel && quant.method != Method::Pact;
        let own_bias = quant.method == Method::Lsq && quant.quantize_bias;
        let count = |outputs: usize| if per_row { outputs } else { 1 };
        let aligned = |len: usize| len.next_multiple_of(VIEW_ALIGNMENT);
        let of_layer = |outputs: usize| aligned(count(outputs)) + if own_bias { aligned(1) } else { 0 };
        let total = network.layers().map(|l| of_layer(l.linear.outputs)).sum();
        let scales = plan.buffer("mlp_scales", "flat", total, Elem::F32, Role::Persistent);
        let mut at = 0;
        let mut layers = Vec::new();
        for layer in network.layers() {
            let outputs = layer.linear.outputs;
            let bias = own_bias.then(|| scales.slice(at + aligned(count(outputs)), 1));
            layers.push(LayerScales { weight: scales.slice(at, count(outputs)), bias });
            at += of_layer(outputs);
        }
        Some(Copies { values, scales, layers })
    }
}

/// What the forward pass sees of the MLPs.
pub(super) fn effective(quant: &Quant, weights: View, copies: Option<&Copies>) -> Effective {
    let copies = copies.filter(|_| quant.mlp_bits.quantized()).map(|c| c.values);
    let biases = copies.filter(|_| quant.quantize_bias && quant.method != Method::Pact);
    Effective { weights: copies.unwrap_or(weights), biases: biases.unwrap_or(weights) }
}

/// Records the quantized copies of the MLPs.
pub(super) fn mlps(plan: &mut Plan, network: &Network, quant: &Quant, weights: View, copies: Option<&Copies>) {
    let Some(copies) = copies.filter(|_| quant.mlp_bits.quantized()) else { return };
    let n = quant.mlp_bits.max_code();
    let fixed = !matches!(quant.method, Method::Lsq | Method::Pact);
    for (layer, scales) in network.layers().zip(&copies.layers) {
        if fixed && quant.mlp_scale == ScalePer::Channel {
            let (of, flat) = (layer.parts(), |buffer| layer.span(buffer));
            layer_quant::quantize(plan, &layer.name, of, n, quant.quantize_bias, flat(weights), scales.weight, flat(copies.values));
            continue;
        }
        let (weight, bias) = (layer.weight(weights), layer.bias(weights));
        let (weight_name, bias_name) = (format!("{}.weight", layer.name), format!("{}.bias", layer.name));
        match quant.method {
            Method::Pact => {
                fake_quant::scales(plan, &layer.name, LARGEST, weight, scales.weight);
                dorefa::quantize(plan, &weight_name, n, weight, scales.weight, layer.weight(copies.values));
                continue;
            }
            Method::Lsq => {}
            Method::Dqrm | Method::Hawq | Method::Ptq => fake_quant::scales(plan, &layer.name, n, weight, scales.weight),
        }
        fake_quant::quantize(plan, &weight_name, n, weight, scales.weight, layer.weight(copies.values));
        if quant.quantize_bias {
            fake_quant::quantize(plan, &bias_name, n, bias, scales.bias.unwrap_or(scales.weight), layer.bias(copies.values));
        }
    }
}

/// With this as the largest code, a "scale" is the largest magnitude itself, which is what `dorefa` needs.
const LARGEST: u32 = 1;

/// Records what gives the tables their scales: the refresh, or for learned scales (the MLPs' too) the first ones.
pub(super) fn refresh(plan: &mut Plan, network: &Network, quant: &Quant, tables: &Tables, r: &Recorded, copies: Option<&Copies>) {
    let n = quant.embedding_bits.max_code();
    if quant.has_table_scales() {
        match quant.method {
            Method::Lsq => {
                let partials = plan.buffer("abs_sums", "[partials]", lsq::table_sums(tables), Elem::F32, Role::Scratch);
                lsq::first_table_scales(plan, tables, n, &r.shards, partials, r.scales);
            }
            method => {
                let n = if method == Method::Pact { LARGEST } else { n };
                match r.largest {
                    Some(largest) => table_scale::from_largest(plan, tables.count(), n, largest, r.scales),
                    None => {
                        let partials = plan.buffer("absmax", "[partials]", table_scale::partials(tables), Elem::U32, Role::Scratch);
                        table_scale::refresh(plan, tables, n, &r.shards, partials, r.scales);
                    }
                }
            }
        }
    }
    let Some(copies) = copies.filter(|_| quant.learns_mlp_scales()) else { return };
    let n = quant.mlp_bits.max_code();
    for (layer, scales) in network.layers().zip(&copies.layers) {
        let mut first = |name: String, values: View, scales: View| {
            let partials = plan.buffer(format!("{name}.abs_sums"), "[scales]", scales.len, Elem::F32, Role::Scratch);
            lsq::first_scales(plan, &name, n, values, partials, scales);
        };
        first(format!("{}.weight", layer.name), layer.weight(r.weights), scales.weight);
        if let Some(bias) = scales.bias {
            first(format!("{}.bias", layer.name), layer.bias(r.weights), bias);
        }
    }
}

/// Records the touched rows as the forward pass sees them, and the sums of the bags: `(gathered, pooled)`.
pub(super) fn bags(
    plan: &mut Plan,
    prefix: &str,
    shape: &Shape,
    quant: &Quant,
    tables: &Tables,
    r: &Recorded,
    capacity: Capacity,
) -> (View, View) {
    let gathered = plan.buffer(format!("{prefix}gathered"), "[U, D]", capacity.touched * shape.dim, Elem::F32, Role::Scratch);
    let pooled =
        plan.buffer(format!("{prefix}pooled"), "[B, K, D]", capacity.samples * shape.tables() * shape.dim, Elem::F32, Role::Scratch);
    let n = quant.embedding_bits.max_code();
    let quantized = quant.embedding_bits.quantized();
    if quantized && quant.method == Method::Pact {
        dorefa::gather(plan, tables, &r.batch, n, r.scales, &r.shards, gathered);
        embedding_bag::pool(plan, tables, &r.batch, 0, r.scales, gathered, pooled);
    } else if quantized && quant.embedding_scale == EmbeddingScale::Row {
        row_scale::gather(plan, tables, &r.batch, n, &r.shards, gathered);
        embedding_bag::pool(plan, tables, &r.batch, 0, r.scales, gathered, pooled);
    } else {
        let quantize = match (quantized, quant.pool_then_quantize) {
            (false, _) => Quantize::Nothing,
            (true, false) => Quantize::Rows(n),
            (true, true) => Quantize::Sums(n),
        };
        embedding_bag::forward(plan, tables, &r.batch, quantize, r.scales, &r.shards, gathered, pooled);
    }
    (gathered, pooled)
}

/// Gradients of learned scales.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Learned {
    /// `[K]`
    tables: Option<View>,
    /// As the MLPs' scales, flat.
    mlps: Option<View>,
}

/// Records, behind the gradients of the quantized weights, what makes those of the weights and of the scales from them.
pub(super) fn learned_gradients(
    plan: &mut Plan,
    network: &Network,
    quant: &Quant,
    tables: &Tables,
    r: &Recorded,
    copies: Option<&Copies>,
    gradients: View,
    row_gradients: View,
) -> Learned {
    let mut learned = Learned::default();
    if quant.method != Method::Lsq {
        return learned;
    }
    if let Some(copies) = copies.filter(|_| quant.mlp_bits.quantized()) {
        let n = quant.mlp_bits.max_code();
        let all = plan.buffer("mlp_scale_gradients", "flat", copies.scales.len, Elem::F32, Role::Persistent);
        let of = |scales: View| all.slice(scales.offset - copies.scales.offset, scales.len);
        for (layer, scales) in network.layers().zip(&copies.layers) {
            let (weight, d_weight) = (layer.weight(r.weights), layer.weight(gradients));
            lsq::gradient(plan, &format!("{}.weight", layer.name), n, weight, scales.weight, d_weight, of(scales.weight));
            if let Some(bias) = scales.bias {
                lsq::gradient(plan, &format!("{}.bias", layer.name), n, layer.bias(r.weights), bias, layer.bias(gradients), of(bias));
            }
        }
        learned.mlps = Some(all);
    }
    if quant.embedding_bits.quantized() {
        let n = quant.embedding_bits.max_code();
        let row_sums = plan.buffer("row_sums", "[U]", row_gradients.len / tables.dim(), Elem::F32, Role::Scratch);
        let all = plan.buffer("scale_gradients", "[K]", tables.count(), Elem::F32, Role::Persistent);
        lsq::table_gradient(plan, tables, &r.batch, n, r.scales, &r.shards, row_gradients, row_sums, all);
        learned.tables = Some(all);
    }
    learned
}

/// Records the update of learned scales.
pub(super) fn learned_update(plan: &mut Plan, r: &Recorded, copies: Option<&Copies>, learned: Learned) {
    if let (Some(d_scales), Some(copies)) = (learned.mlps, copies) {
        lsq::update(plan, "MLPs", false, d_scales, copies.scales);
    }
    if let Some(d_scales) = learned.tables {
        lsq::update(plan, "tables", true, d_scales, r.scales);
    }
}
