//! Records the plan of a run: what a training step, a scale refresh and an evaluation do, and which
//! buffers they share.

use crate::config::{Config, Quant, Shape, TablePlace};
use crate::model::{self, Backward, Network};
use crate::ops::embedding_bag::{self, BatchViews};
use crate::ops::{dense_update, loss, row_update};
use crate::plan::{Elem, Plan, Role, View};
use crate::tables::Tables;

mod compress;
mod quantize;

pub use compress::{Compressed, PartBuffers, TensorBuffers};
pub use quantize::LayerScales;
use quantize::{Copies, Learned};

/// Names of the phases.
pub mod phase {
    /// Recomputes the tables' scales; for learned scales, the first ones of tables and MLPs.
    pub const REFRESH: &str = "refresh";
    /// Quantizes the MLPs for evaluation.
    pub const QUANTIZE: &str = "quantize";
    /// Forward, loss, backward; with workers only to the gradients of the top MLP.
    pub const GRADIENTS: &str = "gradients";
    /// With workers: backward to the gradients of the rows.
    pub const ROWS: &str = "row gradients";
    /// With workers: backward to the gradients of the bottom MLP.
    pub const BOTTOM: &str = "bottom gradients";
    /// With workers: error feedback and scales of the top MLP's gradients, of the bottom MLP's, and scales of the rows'.
    pub const SCALES: [&str; 3] = ["scales of the top MLP", "scales of the bottom MLP", "scales of rows"];
    /// With workers: codes of the same.
    pub const CODES: [&str; 3] = ["codes of the top MLP", "codes of the bottom MLP", "codes of rows"];
    /// Optimizers.
    pub const UPDATE: &str = "update";
    /// Update of learned scales (method `lsq`).
    pub const LEARN: &str = "learn";
    /// Forward only.
    pub const EVALUATE: &str = "evaluate";
    /// As [`GRADIENTS`], in FP32, where training begins so.
    pub const FULL_GRADIENTS: &str = "gradients in FP32";
    /// As [`ROWS`], in FP32, where training begins so.
    pub const FULL_ROWS: &str = "row gradients in FP32";
    /// As [`BOTTOM`], in FP32, where training begins so.
    pub const FULL_BOTTOM: &str = "bottom gradients in FP32";
    /// As [`EVALUATE`], in FP32, where training begins so.
    pub const FULL_EVALUATE: &str = "evaluate in FP32";
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
    /// The tables, cut; of tables on the host only the rows of a step, `[U, D]`.
    pub shards: Vec<View>,
    /// State of the tables' optimizer, cut the same way.
    pub shard_states: Vec<View>,
    /// The largest magnitude of each table, as bits, where the host knows it `[K]`.
    pub largest: Option<View>,
    /// Scales of the tables `[K]`; in method `pact` their largest magnitudes.
    pub scales: View,
    /// Scales of the MLPs' layers, where they are quantized.
    pub layer_scales: Vec<LayerScales>,
    /// Touched rows of a training step after quantization `[U, D]`.
    pub gathered: View,
    /// Logits of an evaluation `[B]`.
    pub logits: View,
    /// Logits of an evaluation in FP32 `[B]`, where training begins so.
    pub full_logits: Option<View>,
    /// 1 once a quantized step was made, where training begins in FP32 `[1]`; written by the host for the host.
    pub quantizing: Option<View>,
    /// What workers exchange.
    pub exchange: Option<Compressed>,
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

/// No step has more ids, and no buffer of its samples or of the rows that they touch has more values: far beyond any device (of
/// 32 bits: 256 MiB), and small enough to count in bytes.
pub(crate) const MAX_VALUES: usize = if usize::BITS < 64 { 1 << 26 } else { (isize::MAX >> 15) as usize };

impl Capacity {
    /// Values of the largest buffer that a step of so many samples, ids and rows needs. Counts too large for a word are the largest word.
    pub(crate) fn largest(&self, shape: &Shape) -> usize {
        let bags = (shape.tables() + 1).saturating_mul(shape.dim);
        let width = shape.bottom.iter().chain(&shape.top).copied().fold(bags, usize::max);
        self.ids.max(self.touched.saturating_mul(shape.dim)).max(self.samples.saturating_mul(width))
    }

    /// For `samples` samples with at most `max_bag[k]` ids in a bag of table k.
    pub fn new(samples: usize, tables: &Tables, max_bag: &[usize]) -> Capacity {
        Capacity::of(samples, tables.rows(), max_bag)
    }

    /// The same for tables of `rows` rows. Counts too large for a word are the largest word.
    pub(crate) fn of(samples: usize, rows: &[u64], max_bag: &[usize]) -> Capacity {
        let ids = max_bag.iter().map(|&m| samples.saturating_mul(m)).fold(0, usize::saturating_add);
        let touched = touched_by_table(samples, rows, max_bag).into_iter().fold(0, u64::saturating_add);
        Capacity { samples, ids, touched: usize::try_from(touched).unwrap_or(usize::MAX) }
    }
}

/// The most rows of each table that `samples` samples touch, with at most `max_bag[k]` ids in a bag of table k.
pub fn touched_by_table(samples: usize, rows: &[u64], max_bag: &[usize]) -> Vec<u64> {
    rows.iter().zip(max_bag).map(|(&rows, &bag)| (samples as u64).saturating_mul(bag as u64).min(rows)).collect()
}

/// Records everything; `ring` is the number of steps whose results are kept. With tables on the host, a step's rows
/// are numbered through in one shard.
pub fn record(shape: &Shape, config: &Config, tables: &Tables, max_bag: &[usize], ring: usize) -> Recorded {
    let (network, quant) = (Network::new(shape), &config.quant);
    let one_piece = (config.model.tables == TablePlace::Host).then(|| tables.in_one_piece());
    let tables = one_piece.as_ref().unwrap_or(tables);
    let train = Capacity::new(config.train.batch, tables, max_bag);
    let evaluate = Capacity::new(config.train.eval_batch, tables, max_bag);
    let mut plan = Plan::new();
    let r = declare(&mut plan, shape, config, tables, &network, train, evaluate, ring);
    let copies = Copies::declare(&mut plan, &network, quant);
    let most = touched_by_table(config.train.batch, tables.rows(), max_bag);
    let mut recorder = Recorder { plan, shape, config, tables, network, train, evaluate, most, r, copies };
    if quant.has_table_scales() || quant.learns_mlp_scales() {
        recorder.plan.phase(phase::REFRESH);
        let Recorder { plan, network, r, copies, .. } = &mut recorder;
        quantize::refresh(plan, network, quant, tables, r, copies.as_ref());
    }
    recorder.steps();
    recorder.evaluations();
    let Recorder { plan, mut r, copies, .. } = recorder;
    r.layer_scales = copies.map_or(Vec::new(), |c| c.layers);
    r.plan = plan;
    r
}

/// A plan in the making.
struct Recorder<'a> {
    plan: Plan,
    shape: &'a Shape,
    config: &'a Config,
    tables: &'a Tables,
    network: Network,
    train: Capacity,
    evaluate: Capacity,
    /// The most rows of each table that a training step touches.
    most: Vec<u64>,
    r: Recorded,
    copies: Option<Copies>,
}

/// Where steps leave their gradients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gradients {
    /// Of the MLPs, flat.
    pub(crate) mlps: View,
    /// Of the touched rows `[U, D]`.
    pub(crate) rows: View,
}

impl Recorder<'_> {
    /// The phases of training steps.
    fn steps(&mut self) {
        let quant = self.config.quant.in_steps();
        let (gathered, gradients) = self.gradients("", [phase::GRADIENTS, phase::ROWS, phase::BOTTOM], &quant, None);
        self.r.gathered = gathered;
        let learned = self.learned_gradients(&quant, gradients);
        if self.config.workers.on() {
            let Recorder { plan, config, tables, network, most, r, .. } = self;
            let exchange = compress::record(plan, &config.workers, tables, network, most, &r.batch, gradients);
            r.exchange = Some(exchange);
        }

        self.plan.phase(phase::UPDATE);
        let Recorder { plan, config, tables, r, .. } = self;
        dense_update::update(plan, &config.optim, gradients.mlps, r.weights, &r.weight_states);
        let eps = config.optim.adagrad_eps as f32;
        let (touched, summed) = r.exchange.as_ref().map_or((r.batch, gradients.rows), |e| e.union(&r.batch));
        row_update::update(plan, config.optim.embedding, eps, tables, &touched, summed, &r.shards, &r.shard_states);

        if learned != Learned::default() {
            self.plan.phase(phase::LEARN);
            quantize::learned_update(&mut self.plan, &self.r, self.copies.as_ref(), learned);
        }
        if quant.pretrains() {
            let phases = [phase::FULL_GRADIENTS, phase::FULL_ROWS, phase::FULL_BOTTOM];
            self.gradients("fp32.", phases, &quant.full_precision(), Some(gradients));
        }
    }

    /// Forward, loss, backward with weights as `quant` says, in one phase, or with workers in three. Gives the gathered
    /// rows and where the gradients lie, which is in the buffers of another such recording when there is one.
    fn gradients(&mut self, prefix: &str, phases: [&'static str; 3], quant: &Quant, others: Option<Gradients>) -> (View, Gradients) {
        let Recorder { plan, shape, config, tables, network, train, r, copies, .. } = self;
        let split = config.workers.on();
        plan.phase(phases[0]);
        quantize::mlps(plan, network, quant, r.weights, copies.as_ref());
        let (gathered, pooled) = quantize::bags(plan, prefix, shape, quant, tables, r, *train);
        let effective = quantize::effective(quant, r.weights, copies.as_ref());
        let acts = model::forward(plan, shape, network, prefix, train.samples, effective, r.dense, pooled);
        let losses = plan.buffer(format!("{prefix}losses"), "[B]", train.samples, Elem::F32, Role::Scratch);
        let d_logits = plan.buffer(format!("{prefix}d_logits"), "[B]", train.samples, Elem::F32, Role::Scratch);
        loss::record(plan, shape.loss, acts.logits(), r.labels, losses, d_logits, r.logit_ring, r.loss_ring);
        let keep = |plan: &mut Plan, other: Option<View>, name: &str, shape: &str, len: usize| {
            other.unwrap_or_else(|| plan.buffer(name, shape, len, Elem::F32, Role::Persistent))
        };
        let mlps = keep(plan, others.map(|o| o.mlps), "gradients", "flat", network.flat_len);
        let batch = train.samples;
        let backward = Backward { shape, network, prefix, batch, effective, acts: &acts, gradients: mlps };
        let d_joined = backward.top(plan, d_logits);
        if split {
            plan.phase(phases[1]);
        }
        let [d_dense, d_pooled] = backward.interaction(plan, d_joined);
        let rows = keep(plan, others.map(|o| o.rows), "row_gradients", "[U, D]", train.touched * shape.dim);
        embedding_bag::backward(plan, tables, &r.batch, d_pooled, rows);
        if split {
            plan.phase(phases[2]);
        }
        backward.bottom(plan, d_dense);
        (gathered, Gradients { mlps, rows })
    }

    fn learned_gradients(&mut self, quant: &Quant, gradients: Gradients) -> Learned {
        let Recorder { plan, tables, network, r, copies, .. } = self;
        quantize::learned_gradients(plan, network, quant, tables, r, copies.as_ref(), gradients.mlps, gradients.rows)
    }

    /// The phases of evaluations.
    fn evaluations(&mut self) {
        let quant = &self.config.quant;
        self.plan.phase(phase::QUANTIZE);
        quantize::mlps(&mut self.plan, &self.network, quant, self.r.weights, self.copies.as_ref());
        self.plan.phase(phase::EVALUATE);
        self.r.logits = self.logits("eval.", quant);
        if quant.pretrains() {
            self.plan.phase(phase::FULL_EVALUATE);
            self.r.full_logits = Some(self.logits("fp32.eval.", &quant.full_precision()));
        }
    }

    fn logits(&mut self, prefix: &str, quant: &Quant) -> View {
        let Recorder { plan, shape, tables, network, evaluate, r, copies, .. } = self;
        let (_, pooled) = quantize::bags(plan, prefix, shape, quant, tables, r, *evaluate);
        let effective = quantize::effective(quant, r.weights, copies.as_ref());
        let acts = model::forward(plan, shape, network, prefix, evaluate.samples, effective, r.dense, pooled);
        plan.buffers[acts.logits().buffer.0].role = Role::Persistent; // the host reads it
        acts.logits()
    }
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
    let per_row = row_update::state_per_row(config.optim.embedding, dim);
    let states = if per_row == 0 { 0 } else { tables.shards() };
    let on_host = config.model.tables == TablePlace::Host;
    let (shards, shard_states) = if on_host {
        let rows = keep("touched_rows".into(), "[U, D]", touched * dim);
        (vec![rows], (0..states).map(|_| keep("touched_state".into(), "[U, …]", train.touched * per_row)).collect())
    } else {
        let rows_in = |s| tables.rows_in_shard(s) as usize;
        let shards = (0..tables.shards()).map(|s| keep(format!("tables.{s}"), "[rows, D]", rows_in(s) * dim)).collect();
        (shards, (0..states).map(|s| keep(format!("table_state.{s}"), "[rows, …]", rows_in(s) * per_row)).collect())
    };
    let scales = keep("scales".into(), "[K]", k);
    let quantizing = config.quant.pretrains().then(|| keep("quantizing".into(), "[1]", 1));
    let logit_ring = keep("logit_ring".into(), "[slots, B]", ring * train.samples);
    let loss_ring = keep("loss_ring".into(), "[slots]", ring);
    let largest = on_host.then(|| plan.buffer("largest", "[K]", k, Elem::U32, Role::Input));
    Recorded {
        plan: Plan::new(),
        dense,
        labels,
        batch,
        weights,
        weight_states,
        shards,
        shard_states,
        largest,
        scales,
        layer_scales: Vec::new(),
        gathered: scales,
        logits: scales,
        full_logits: None,
        quantizing,
        exchange: None,
        logit_ring,
        loss_ring,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Model;

    #[test]
    fn the_largest_buffer_of_a_step_is_counted_without_wrapping() {
        let shape =
            Model { dim: Some(65_536), bottom: Some(vec![65_536]), rows: Some(vec![1; 64]), ..Model::default() }.shape(None, None).unwrap();
        let capacity = |samples| Capacity::of(samples, &shape.rows, &[1; 64]);
        // 64 rows are touched at most, but each sample has 64 bags.
        assert_eq!(capacity(1).largest(&shape), 65 * 65_536);
        assert_eq!(capacity(16_384).largest(&shape), 16_384 * 65 * 65_536);
        assert_eq!(capacity(usize::MAX).largest(&shape), usize::MAX);
    }
}
