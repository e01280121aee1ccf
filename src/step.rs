//! Records the plan of a run: what a training step, a scale refresh and an evaluation do, and which
//! buffers they share.

use crate::config::{Config, Quant, ScalePer, Shape};
use crate::model::{self, Effective, Network};
use crate::ops::embedding_bag::{self, BatchViews, Quantize};
use crate::ops::{dense_update, fake_quant, loss, row_update, table_scale};
use crate::plan::schedule::VIEW_ALIGNMENT;
use crate::plan::{Elem, Plan, Role, View};
use crate::tables::Tables;

/// Names of the phases.
pub mod phase {
    /// Recomputes the tables' scales.
    pub const REFRESH: &str = "refresh";
    /// Quantizes the MLPs for evaluation.
    pub const QUANTIZE: &str = "quantize";
    /// Forward, loss, backward.
    pub const GRADIENTS: &str = "gradients";
    /// Optimizers.
    pub const UPDATE: &str = "update";
    /// Forward only.
    pub const EVALUATE: &str = "evaluate";
}

/// The recorded plan and the buffers the host talks to.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Everything.
    pub plan: Plan,
    /// Dense features `[B, D]`.
    pub dense: View,
    /// Labels `[B]`.
    pub labels: View,
    /// Index buffers.
    pub batch: BatchViews,
    /// MLP parameters, flat.
    pub weights: View,
    /// State of the MLPs' optimizer, same layout.
    pub weight_states: Vec<View>,
    /// The tables, cut.
    pub shards: Vec<View>,
    /// State of the tables' optimizer, cut the same way.
    pub shard_states: Vec<View>,
    /// Scales of the tables `[K]`.
    pub scales: View,
    /// Touched rows of a training step after quantization `[U, D]`.
    pub gathered: View,
    /// Logits of an evaluation `[B]`.
    pub logits: View,
    /// Results of the last steps `[slots, B]`.
    pub logit_ring: View,
    /// Results of the last steps `[slots]`.
    pub loss_ring: View,
}

/// The most samples, ids and touched rows of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// B
    pub samples: usize,
    /// Ids of all bags.
    pub ids: usize,
    /// U
    pub touched: usize,
}

impl Capacity {
    /// For `samples` samples with at most `max_bag[k]` ids in a bag of table k.
    pub fn new(samples: usize, tables: &Tables, max_bag: &[usize]) -> Capacity {
        Capacity::of(samples, tables.rows(), max_bag)
    }

    /// The same for tables of `rows` rows. Counts too large for a word are the largest word.
    pub(crate) fn of(samples: usize, rows: &[u64], max_bag: &[usize]) -> Capacity {
        let ids = max_bag.iter().map(|&m| samples.saturating_mul(m)).fold(0, usize::saturating_add);
        let used = |(&r, &m): (&u64, &usize)| samples.saturating_mul(m).min(usize::try_from(r).unwrap_or(usize::MAX));
        let touched = rows.iter().zip(max_bag).map(used).fold(0, usize::saturating_add);
        Capacity { samples, ids, touched }
    }
}

/// Records everything; `ring` is the number of steps whose results are kept.
pub fn record(shape: &Shape, config: &Config, tables: &Tables, max_bag: &[usize], ring: usize) -> Recorded {
    let network = Network::new(shape);
    let train = Capacity::new(config.train.batch, tables, max_bag);
    let evaluate = Capacity::new(config.train.eval_batch, tables, max_bag);
    let mut plan = Plan::new();
    let mut r = declare(&mut plan, shape, config, tables, &network, train, evaluate, ring);
    let effective = quantize_mlps(&mut plan, &network, &config.quant, r.weights);

    if config.quant.embedding_bits.quantized() {
        plan.phase(phase::REFRESH);
        let partials = plan.buffer("absmax", "[partials]", table_scale::partials(tables), Elem::U32, Role::Scratch);
        table_scale::refresh(&mut plan, tables, config.quant.embedding_bits.max_code(), &r.shards, partials, r.scales);
    }

    plan.phase(phase::GRADIENTS);
    record_mlp_quantization(&mut plan, &network, &config.quant, r.weights, &effective);
    let (gathered, pooled) = bags(&mut plan, "", shape, &config.quant, tables, &r, train);
    r.gathered = gathered;
    let acts = model::forward(&mut plan, shape, &network, "", train.samples, effective.effective, r.dense, pooled);
    let losses = plan.buffer("losses", "[B]", train.samples, Elem::F32, Role::Scratch);
    let d_logits = plan.buffer("d_logits", "[B]", train.samples, Elem::F32, Role::Scratch);
    loss::record(&mut plan, shape.loss, acts.logits(), r.labels, losses, d_logits, r.logit_ring, r.loss_ring);
    let gradients = plan.buffer("gradients", "flat", network.flat_len, Elem::F32, Role::Persistent);
    let d_pooled = model::backward(&mut plan, shape, &network, train.samples, effective.effective, &acts, d_logits, gradients);
    let row_gradients = plan.buffer("row_gradients", "[U, D]", train.touched * shape.dim, Elem::F32, Role::Persistent);
    embedding_bag::backward(&mut plan, tables, &r.batch, d_pooled, row_gradients);

    plan.phase(phase::UPDATE);
    dense_update::update(&mut plan, &config.optim, gradients, r.weights, &r.weight_states);
    let eps = config.optim.adagrad_eps as f32;
    row_update::update(&mut plan, config.optim.embedding, eps, tables, &r.batch, row_gradients, &r.shards, &r.shard_states);

    plan.phase(phase::QUANTIZE);
    record_mlp_quantization(&mut plan, &network, &config.quant, r.weights, &effective);

    plan.phase(phase::EVALUATE);
    let (_, pooled) = bags(&mut plan, "eval.", shape, &config.quant, tables, &r, evaluate);
    let acts = model::forward(&mut plan, shape, &network, "eval.", evaluate.samples, effective.effective, r.dense, pooled);
    r.logits = acts.logits();
    plan.buffers[r.logits.buffer.0].role = Role::Persistent; // the host reads it
    r.plan = plan;
    r
}

fn declare(
    plan: &mut Plan,
    shape: &Shape,
    config: &Config,
    tables: &Tables,
    network: &Network,
    train: Capacity,
    evaluate: Capacity,
    ring: usize,
) -> Recorded {
    let (samples, ids, touched) = (train.samples.max(evaluate.samples), train.ids.max(evaluate.ids), train.touched.max(evaluate.touched));
    let (k, dim) = (tables.count(), tables.dim());
    let dense = plan.buffer("dense", "[B, dense]", samples * shape.dense, Elem::F32, Role::Input);
    let labels = plan.buffer("labels", "[B]", samples, Elem::F32, Role::Input);
    let mut index = |name: &str, shape: &str, len: usize| plan.buffer(name, shape, len, Elem::U32, Role::Input);
    let batch = BatchViews {
        bag_offsets: index("bag_offsets", "[B * K + 1]", samples * k + 1),
        bag_rows: index("bag_rows", "[ids]", ids),
        rows: index("rows", "[U]", touched),
        row_tables: index("row_tables", "[U]", touched),
        shard_offsets: index("shard_offsets", "[S + 1]", tables.shards() + 1),
        row_offsets: index("row_offsets", "[U + 1]", touched + 1),
        row_samples: index("row_samples", "[ids]", ids),
    };
    let mut keep = |name: String, shape: &str, len: usize| plan.buffer(name, shape, len, Elem::F32, Role::Persistent);
    let weights = keep("weights".into(), "flat", network.flat_len);
    let weight_states =
        (0..dense_update::states(config.optim.dense)).map(|i| keep(format!("weight_state.{i}"), "flat", network.flat_len)).collect();
    let shards = (0..tables.shards()).map(|s| keep(format!("tables.{s}"), "[rows, D]", tables.rows_in_shard(s) as usize * dim)).collect();
    let per_row = row_update::state_per_row(config.optim.embedding, dim);
    let states = if per_row == 0 { 0 } else { tables.shards() };
    let shard_states =
        (0..states).map(|s| keep(format!("table_state.{s}"), "[rows, …]", tables.rows_in_shard(s) as usize * per_row)).collect();
    let scales = keep("scales".into(), "[K]", k);
    let logit_ring = keep("logit_ring".into(), "[slots, B]", ring * train.samples);
    let loss_ring = keep("loss_ring".into(), "[slots]", ring);
    Recorded {
        plan: Plan::new(),
        dense,
        labels,
        batch,
        weights,
        weight_states,
        shards,
        shard_states,
        scales,
        gathered: scales,
        logits: scales,
        logit_ring,
        loss_ring,
    }
}

/// The MLP weights that the forward pass sees, and the scales behind them.
struct QuantizedMlps {
    effective: Effective,
    /// Quantized copies (flat) and the scales of each layer, in order; none in FP32.
    copies: Option<(View, Vec<View>)>,
}

fn quantize_mlps(plan: &mut Plan, network: &Network, quant: &Quant, weights: View) -> QuantizedMlps {
    if !quant.mlp_bits.quantized() {
        return QuantizedMlps { effective: Effective { weights, biases: weights }, copies: None };
    }
    let copies = plan.buffer("weights_quantized", "flat", network.flat_len, Elem::F32, Role::Persistent);
    let count = |outputs: usize| if quant.mlp_scale == ScalePer::Channel { outputs } else { 1 };
    let total = network.layers().map(|l| count(l.linear.outputs).next_multiple_of(VIEW_ALIGNMENT)).sum();
    let all = plan.buffer("mlp_scales", "flat", total, Elem::F32, Role::Persistent);
    let mut at = 0;
    let mut scales = Vec::new();
    for layer in network.layers() {
        let len = count(layer.linear.outputs);
        scales.push(all.slice(at, len));
        at += len.next_multiple_of(VIEW_ALIGNMENT);
    }
    let biases = if quant.quantize_bias { copies } else { weights };
    QuantizedMlps { effective: Effective { weights: copies, biases }, copies: Some((copies, scales)) }
}

fn record_mlp_quantization(plan: &mut Plan, network: &Network, quant: &Quant, weights: View, mlps: &QuantizedMlps) {
    let Some((copies, scales)) = &mlps.copies else { return };
    let n = quant.mlp_bits.max_code();
    for (layer, &scales) in network.layers().zip(scales) {
        fake_quant::scales(plan, &layer.name, n, layer.weight(weights), scales);
        fake_quant::quantize(plan, &format!("{}.weight", layer.name), n, layer.weight(weights), scales, layer.weight(*copies));
        if quant.quantize_bias {
            fake_quant::quantize(plan, &format!("{}.bias", layer.name), n, layer.bias(weights), scales, layer.bias(*copies));
        }
    }
}

fn bags(plan: &mut Plan, prefix: &str, shape: &Shape, quant: &Quant, tables: &Tables, r: &Recorded, capacity: Capacity) -> (View, View) {
    let gathered = plan.buffer(format!("{prefix}gathered"), "[U, D]", capacity.touched * shape.dim, Elem::F32, Role::Scratch);
    let pooled =
        plan.buffer(format!("{prefix}pooled"), "[B, K, D]", capacity.samples * shape.tables() * shape.dim, Elem::F32, Role::Scratch);
    let n = quant.embedding_bits.max_code();
    let quantize = match (quant.embedding_bits.quantized(), quant.pool_then_quantize) {
        (false, _) => Quantize::Nothing,
        (true, false) => Quantize::Rows(n),
        (true, true) => Quantize::Sums(n),
    };
    embedding_bag::forward(plan, tables, &r.batch, quantize, r.scales, &r.shards, gathered, pooled);
    (gathered, pooled)
}
