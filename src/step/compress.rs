//! What workers add to a step: gradients become codes on the device, and the update takes its rows from
//! what all workers touched.

use super::{Gradients, phase};
use crate::config::Workers;
use crate::model::{Layer, Network};
use crate::ops::embedding_bag::BatchViews;
use crate::ops::{fake_quant, gradient_codes};
use crate::plan::schedule::VIEW_ALIGNMENT;
use crate::plan::{Elem, Plan, Role, View};
use crate::quant::Bits;
use crate::tables::Tables;

/// The gradients of one tensor on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorBuffers {
    /// Values, in the flat buffer of gradients.
    pub values: View,
    /// Scales, one for each group; nothing in FP32.
    pub scales: Option<View>,
    /// Codes in words; nothing in FP32.
    pub codes: Option<View>,
}

/// The gradients of an MLP on the device.
pub type PartBuffers = Vec<TensorBuffers>;

/// What the host reads, and what it writes back.
#[derive(Debug, Clone, PartialEq)]
pub struct Compressed {
    /// Top MLP, bottom MLP: their tensors, in the order of the model.
    pub parts: [PartBuffers; 2],
    /// Gradients of the touched rows `[U, D]`.
    pub row_gradients: View,
    /// Scales of the tables' gradients `[K]`; nothing in FP32.
    pub row_scales: Option<View>,
    /// Codes of the rows' gradients; nothing in FP32.
    pub row_codes: Option<View>,
    /// Gradients of the MLPs, flat: computed here, then replaced by the sums.
    pub gradients: View,
    /// What was not sent yet of the MLPs' gradients, flat.
    pub errors: Option<View>,
    /// Rows that some worker touched, in their shards `[V]`.
    pub union_rows: View,
    /// Where each shard's rows begin in them, and the end `[S + 1]`.
    pub union_offsets: View,
    /// Their summed gradients `[V, D]`.
    pub union_gradients: View,
}

impl Compressed {
    /// The lists and gradients that the update takes.
    pub(super) fn union(&self, batch: &BatchViews) -> (BatchViews, View) {
        (BatchViews { rows: self.union_rows, shard_offsets: self.union_offsets, ..*batch }, self.union_gradients)
    }
}

/// Declares the buffers and records the phases. `most[k]` is the most rows of table k that a step of one worker
/// touches.
pub(super) fn record(
    plan: &mut Plan,
    workers: &Workers,
    tables: &Tables,
    network: &Network,
    most: &[u64],
    batch: &BatchViews,
    gradients: Gradients,
) -> Compressed {
    let errors = workers.keeps_errors().then(|| plan.buffer("exchange.errors", "flat", network.flat_len, Elem::F32, Role::Persistent));
    // It is written in any case; without feedback nobody reads it.
    let left_out = match errors {
        None if workers.mlp_bits.quantized() => plan.buffer("exchange.left_out", "flat", network.flat_len, Elem::F32, Role::Persistent),
        _ => errors.unwrap_or(gradients.mlps),
    };
    let parts = [(0, &network.top), (1, &network.bottom)].map(|(p, layers)| part(plan, workers, p, layers, gradients.mlps, left_out));
    let rows = match workers.row_bits {
        Bits::None => [None; 2],
        bits => {
            let scales = plan.buffer("exchange.row_scales", "[K]", tables.count(), Elem::F32, Role::Persistent);
            let words = gradient_codes::words(gradients.rows.len, bits.width());
            let codes = plan.buffer("exchange.row_codes", "[U, D] codes", words, Elem::U32, Role::Persistent);
            plan.phase(phase::SCALES[2]);
            gradient_codes::row_scales(plan, tables, batch, bits.width(), gradients.rows, scales);
            plan.phase(phase::CODES[2]);
            gradient_codes::rows(plan, batch, tables.dim(), bits.width(), scales, gradients.rows, codes);
            [Some(scales), Some(codes)]
        }
    };
    let all = |(&rows, &used): (&u64, &u64)| rows.min(used.saturating_mul(workers.count as u64)) as usize;
    let union = tables.rows().iter().zip(most).map(all).fold(0, usize::saturating_add).max(1);
    Compressed {
        parts,
        row_gradients: gradients.rows,
        row_scales: rows[0],
        row_codes: rows[1],
        gradients: gradients.mlps,
        errors,
        union_rows: plan.buffer("exchange.rows", "[V]", union, Elem::U32, Role::Input),
        union_offsets: plan.buffer("exchange.shard_offsets", "[S + 1]", tables.shards() + 1, Elem::U32, Role::Input),
        union_gradients: plan.buffer("exchange.row_gradients", "[V, D]", union * tables.dim(), Elem::F32, Role::Input),
    }
}

/// One MLP's tensors.
fn part(plan: &mut Plan, workers: &Workers, p: usize, layers: &[Layer], gradients: View, left_out: View) -> PartBuffers {
    let tensors: Vec<(String, View, usize)> = layers
        .iter()
        .flat_map(|l| {
            let (weight, bias) = (l.weight(gradients), l.bias(gradients));
            [(format!("{}.weight", l.name), weight, l.linear.outputs), (format!("{}.bias", l.name), bias, 1)]
        })
        .collect();
    let Bits::None = workers.mlp_bits else { return coded_part(plan, workers, p, &tensors, left_out) };
    tensors.into_iter().map(|(_, values, _)| TensorBuffers { values, scales: None, codes: None }).collect()
}

fn coded_part(plan: &mut Plan, workers: &Workers, p: usize, tensors: &[(String, View, usize)], left_out: View) -> PartBuffers {
    let bits = workers.mlp_bits.width();
    let aligned = |len: usize| len.next_multiple_of(VIEW_ALIGNMENT);
    let words = |values: &View| gradient_codes::words(values.len, bits);
    let name = ["top", "bottom"][p];
    let all_scales = tensors.iter().map(|(_, _, groups)| aligned(*groups)).sum();
    let all_codes = tensors.iter().map(|(_, values, _)| aligned(words(values))).sum();
    let scales = plan.buffer(format!("exchange.{name}_scales"), "by tensor", all_scales, Elem::F32, Role::Persistent);
    let codes = plan.buffer(format!("exchange.{name}_codes"), "by tensor", all_codes, Elem::U32, Role::Persistent);
    let (mut scale_at, mut code_at, mut buffers) = (0, 0, PartBuffers::new());
    for (_, values, groups) in tensors {
        let tensor = TensorBuffers {
            values: *values,
            scales: Some(scales.slice(scale_at, *groups)),
            codes: Some(codes.slice(code_at, words(values))),
        };
        (scale_at, code_at) = (scale_at + aligned(*groups), code_at + aligned(words(values)));
        buffers.push(tensor);
    }
    let in_errors = |values: &View| left_out.slice(values.offset, values.len);
    plan.phase(phase::SCALES[p]);
    for ((name, values, _), tensor) in tensors.iter().zip(&buffers) {
        if workers.keeps_errors() {
            gradient_codes::add_errors(plan, name, in_errors(values), *values);
        }
        if let Some(scales) = tensor.scales {
            fake_quant::scales(plan, name, workers.mlp_bits.max_code(), *values, scales);
        }
    }
    plan.phase(phase::CODES[p]);
    for ((name, values, _), tensor) in tensors.iter().zip(&buffers) {
        if let (Some(scales), Some(codes)) = (tensor.scales, tensor.codes) {
            gradient_codes::groups(plan, name, bits, *values, scales, codes, in_errors(values));
        }
    }
    buffers
}
