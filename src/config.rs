//! Every setting of a run, as it stands in a TOML file. All fields have defaults, unknown keys
//! are errors, and [`Config::validate`] checks that the parts fit each other.

use crate::error::{Error, Result};
use crate::quant::Bits;
use serde::{Deserialize, Serialize};

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seeds the weights, the synthetic clicks and the order of the samples.
    pub seed: u64,
    /// `auto` (a real GPU, else the CPU), `cpu`, `gpu` (any adapter), or part of an adapter's name.
    pub device: Device,
    /// The network.
    pub model: Model,
    /// Fake quantization.
    pub quant: Quant,
    /// Optimizers and learning rate.
    pub optim: Optim,
    /// The loop.
    pub train: Train,
    /// Where the samples come from.
    pub data: Data,
}

/// Which engine runs the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(from = "String", into = "String")]
pub enum Device {
    /// A real GPU if there is one, else the CPU engine; never a software adapter.
    #[default]
    Auto,
    /// The CPU engine.
    Cpu,
    /// Any adapter, a software one too.
    Gpu,
    /// The first adapter whose name contains this text, whatever its kind.
    Named(String),
}

impl From<String> for Device {
    fn from(text: String) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "auto" => Device::Auto,
            "cpu" => Device::Cpu,
            "gpu" => Device::Gpu,
            _ => Device::Named(text),
        }
    }
}

impl From<Device> for String {
    fn from(device: Device) -> String {
        match device {
            Device::Auto => "auto".into(),
            Device::Cpu => "cpu".into(),
            Device::Gpu => "gpu".into(),
            Device::Named(name) => name,
        }
    }
}

/// Published shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Small enough to train in a minute on two cores.
    #[default]
    Tiny,
    /// Criteo Kaggle, width 16 (DLRM `bench/dlrm_s_criteo_kaggle.sh`).
    Kaggle,
    /// Criteo Terabyte, width 64, ids modulo 10 million.
    Terabyte,
    /// MLPerf, width 128, ids modulo 40 million.
    Mlperf,
}

/// How the dense vector and the pooled embeddings meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Interaction {
    /// Dot products of all pairs (strict lower triangle), after the dense vector.
    #[default]
    Dot,
    /// All vectors side by side.
    Cat,
}

/// The loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Binary cross-entropy from logits, mean over the batch.
    #[default]
    Bce,
    /// Mean squared error of the probability (DLRM's own default, used by its debug run).
    Mse,
}

/// The network's shape. Every field that is left out comes from the preset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// Which published shape fills in what is not given here.
    pub preset: Preset,
    /// Dense features per sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense: Option<usize>,
    /// Width of an embedding row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dim: Option<usize>,
    /// Widths of the bottom MLP's layers, without the input; the last must be `dim`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bottom: Option<Vec<usize>>,
    /// Widths of the top MLP's layers, without the input; the last must be 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top: Option<Vec<usize>>,
    /// Rows of each table; left out, they come from the data's dictionary, its modulus or the preset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<Vec<u64>>,
    /// No table gets more rows than this; ids are taken modulo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<u64>,
    /// Dot or cat.
    pub interaction: Interaction,
    /// Keep the diagonal of the dot interaction (DLRM's `--arch-interaction-itself`).
    pub interaction_diagonal: bool,
    /// What is minimised.
    pub loss: Loss,
}

/// One scale per output row, or one per matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum ScalePer {
    /// One scale per output row of the weight matrix.
    #[default]
    Channel,
    /// One scale per weight matrix.
    Matrix,
}

/// Fake quantization while training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quant {
    /// Width of the embedding rows: 2, 4, 8, 16 or "none".
    pub embedding_bits: Bits,
    /// Width of the MLP weights: 2, 4, 8, 16 or "none".
    pub mlp_bits: Bits,
    /// Table scales are recomputed at steps 0, P, 2P … (the paper uses 200 on Kaggle).
    pub period: u64,
    /// Granularity of the MLP scales.
    pub mlp_scale: ScalePer,
    /// Quantize biases too, with the scale of their row.
    pub quantize_bias: bool,
    /// Sum the bag first and quantize the sum, as the published code does; the default quantizes
    /// rows, which is what a packed table can hold. One-hot bags give the same result.
    pub pool_then_quantize: bool,
}

impl Default for Quant {
    fn default() -> Self {
        Quant {
            embedding_bits: Bits::B4,
            mlp_bits: Bits::B4,
            period: 200,
            mlp_scale: ScalePer::Channel,
            quantize_bias: true,
            pool_then_quantize: false,
        }
    }
}

/// What updates the embedding rows; only touched rows are ever written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum RowOptimizer {
    /// `w -= lr g`.
    #[default]
    Sgd,
    /// `s += g^2; w -= lr g / (sqrt(s) + eps)`, one `s` per element.
    Adagrad,
    /// The same with one accumulator per row, fed with the row's mean `g^2`.
    Rwsadagrad,
}

/// What updates the MLPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum DenseOptimizer {
    /// `w -= lr g`.
    #[default]
    Sgd,
    /// `s += g^2; w -= lr g / (sqrt(s) + eps)`.
    Adagrad,
    /// Adam with bias correction (Kingma and Ba 2015).
    Adam,
}

/// Optimizers and the learning-rate policy (DLRM's `LRPolicyScheduler`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Optim {
    /// For the tables.
    pub embedding: RowOptimizer,
    /// For the MLPs.
    pub dense: DenseOptimizer,
    /// Base learning rate.
    pub lr: f64,
    /// Learning rate of the tables when it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_lr: Option<f64>,
    /// The rate rises linearly over this many steps.
    pub warmup_steps: u64,
    /// Decay starts at this step.
    pub decay_start: u64,
    /// Polynomial decay of power 2 over this many steps; 0 means none.
    pub decay_steps: u64,
    /// Added to the root in Adagrad.
    pub adagrad_eps: f64,
    /// Adam's two decay rates.
    pub adam_betas: [f64; 2],
    /// Added to the root in Adam.
    pub adam_eps: f64,
}

impl Default for Optim {
    fn default() -> Self {
        Optim {
            embedding: RowOptimizer::Sgd,
            dense: DenseOptimizer::Sgd,
            lr: 0.1,
            embedding_lr: None,
            warmup_steps: 0,
            decay_start: 0,
            decay_steps: 0,
            adagrad_eps: 1e-10,
            adam_betas: [0.9, 0.999],
            adam_eps: 1e-8,
        }
    }
}

impl Optim {
    /// The factor on the base rate at `step` (the first step is 0): linear warm-up, then a
    /// plateau, then polynomial decay of power 2 that stays at its last value.
    pub fn factor(&self, step: u64) -> f64 {
        let count = step + 1;
        if count < self.warmup_steps {
            return count as f64 / self.warmup_steps as f64;
        }
        let start = self.decay_start.max(self.warmup_steps);
        if self.decay_steps == 0 || count < start {
            return 1.0;
        }
        let done = (count - start).min(self.decay_steps - 1);
        let left = (self.decay_steps - done) as f64 / self.decay_steps as f64;
        (left * left).max(1e-7 / self.lr.max(1e-30))
    }
}

/// The loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Train {
    /// Samples per step.
    pub batch: usize,
    /// Passes over the training part.
    pub epochs: u64,
    /// Stop after this many steps; 0 means no limit.
    pub max_steps: u64,
    /// Samples per evaluation step.
    pub eval_batch: usize,
    /// Evaluate on the validation part every this many steps besides each epoch's end; 0 means never.
    pub eval_every: u64,
    /// Write a checkpoint every this many steps besides each epoch's end; 0 means never.
    pub checkpoint_every: u64,
    /// Loader threads.
    pub loader_threads: usize,
}

impl Default for Train {
    fn default() -> Self {
        Train { batch: 128, epochs: 1, max_steps: 0, eval_batch: 2048, eval_every: 0, checkpoint_every: 0, loader_threads: 2 }
    }
}

/// Layout of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Clicks made up by the generator.
    #[default]
    Synthetic,
    /// Criteo TSV: label, 13 integers, 26 categories of 8 hex digits.
    Criteo,
    /// Delimited text after `[data.schema]`.
    Text,
}

/// How raw categories become row numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Ids {
    /// First-seen order over the training part; row 0 is kept for ids never seen there.
    #[default]
    Dictionary,
    /// The value modulo the table's rows.
    Modulo,
}

/// What a malformed line does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum OnBadRow {
    /// Stop and name the place.
    #[default]
    Error,
    /// Leave the line out and count it.
    Skip,
}

/// Where the samples come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// Input files in time order, plain or gzip; empty means synthetic clicks.
    pub files: Vec<String>,
    /// Their layout.
    pub format: Format,
    /// How categories become rows.
    pub ids: Ids,
    /// The modulus when `ids = "modulo"` and the model gives no rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modulo: Option<u64>,
    /// Fractions of train, validation and test, in file order.
    pub split: [f64; 3],
    /// Shuffle the training part, another order each epoch.
    pub shuffle: bool,
    /// What a malformed line does.
    pub on_bad_row: OnBadRow,
    /// Folder for prepared data, reused by later runs on the same files.
    pub cache: String,
    /// Columns, for `format = "text"`.
    pub schema: Schema,
    /// The generator, for `format = "synthetic"`.
    pub synthetic: Synthetic,
}

impl Default for Data {
    fn default() -> Self {
        Data {
            files: Vec::new(),
            format: Format::Synthetic,
            ids: Ids::Dictionary,
            modulo: None,
            split: [0.8, 0.1, 0.1],
            shuffle: true,
            on_bad_row: OnBadRow::Error,
            cache: "runs/cache".into(),
            schema: Schema::default(),
            synthetic: Synthetic::default(),
        }
    }
}

/// How a category is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum IdText {
    /// Any text; hashed to 64 bits (XXH3).
    #[default]
    Text,
    /// Hexadecimal digits, up to 16.
    Hex,
    /// A decimal number without sign.
    Int,
}

/// The columns of delimited text, numbered from 1 or, when the file has a header, named.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schema {
    /// Between columns: one character, `\t` for a tab.
    pub separator: String,
    /// The first line of each file holds names.
    pub header: bool,
    /// The label's column.
    pub label: Column,
    /// A label is positive when its number is at least this.
    pub label_threshold: f64,
    /// Dense columns.
    pub dense: Vec<Column>,
    /// Dense values become ln(max(x, 0) + 1); otherwise they are used as they are.
    pub dense_log: bool,
    /// Columns with one category each; an empty field is the value 0 (or the empty text).
    pub categorical: Vec<Column>,
    /// Columns with several categories each; an empty field is an empty bag. These tables follow the categorical ones.
    pub multi_hot: Vec<Column>,
    /// Between the categories of a multi-hot column.
    pub multi_hot_separator: String,
    /// More categories than this in one field are an error.
    pub multi_hot_max: usize,
    /// How categories are spelled.
    pub id_text: IdText,
}

impl Default for Schema {
    fn default() -> Self {
        Schema {
            separator: "\t".into(),
            header: false,
            label: Column::Number(1),
            label_threshold: 0.5,
            dense: Vec::new(),
            dense_log: true,
            categorical: Vec::new(),
            multi_hot: Vec::new(),
            multi_hot_separator: ",".into(),
            multi_hot_max: 64,
            id_text: IdText::Text,
        }
    }
}

impl Schema {
    /// Criteo's layout with `dense` integers and `tables` one-hot categories.
    pub fn criteo(dense: usize, tables: usize) -> Schema {
        Schema {
            dense: (2..2 + dense).map(Column::Number).collect(),
            categorical: (2 + dense..2 + dense + tables).map(Column::Number).collect(),
            id_text: IdText::Hex,
            ..Schema::default()
        }
    }

    /// Tables: one per categorical column, then one per multi-hot column.
    pub fn tables(&self) -> usize {
        self.categorical.len() + self.multi_hot.len()
    }
}

/// One column of a text file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// Counted from 1.
    Number(usize),
    /// As spelled in the header.
    Name(String),
}

/// The synthetic click generator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Synthetic {
    /// Samples in all, before the split.
    pub samples: u64,
    /// Exponent of the Zipf distribution of ids.
    pub zipf: f64,
    /// Share of positive labels aimed at (Criteo Kaggle: 0.256).
    pub positive_rate: f64,
    /// Categories per bag; 1 is one-hot.
    pub bag: usize,
}

impl Default for Synthetic {
    fn default() -> Self {
        Synthetic { samples: 1_000_000, zipf: 1.1, positive_rate: 0.256, bag: 1 }
    }
}

/// Rows of the 26 tables of Criteo Kaggle (training logs of the published code).
pub const KAGGLE_ROWS: [u64; 26] = [
    1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18,
    15, 286181, 105, 142572,
];

/// Rows of Criteo Terabyte with ids modulo 10 million (published code).
pub const TERABYTE_ROWS: [u64; 26] = [
    9980200, 26095, 17224, 7383, 20152, 3, 7112, 1435, 62, 9756762, 1332128, 314263, 10, 2208, 11168, 122, 4, 971, 14, 9994101, 7267918,
    9946670, 415284, 12422, 102, 36,
];

/// Rows of the MLPerf model with ids modulo 40 million (`torchrec_dlrm/README.MD` of facebookresearch/dlrm).
pub const MLPERF_ROWS: [u64; 26] = [
    40000000, 39060, 17295, 7424, 20265, 3, 7122, 1543, 63, 40000000, 3067956, 405282, 10, 2209, 11938, 155, 4, 976, 14, 40000000,
    40000000, 40000000, 590152, 12973, 108, 36,
];

/// The shape a model finally has: nothing left open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// Dense features D.
    pub dense: usize,
    /// Embedding width.
    pub dim: usize,
    /// Bottom MLP widths, input first: `[dense, …, dim]`.
    pub bottom: Vec<usize>,
    /// Top MLP widths, input first: `[interaction output, …, 1]`.
    pub top: Vec<usize>,
    /// Rows of each table.
    pub rows: Vec<u64>,
    /// Dot or cat.
    pub interaction: Interaction,
    /// Diagonal kept.
    pub diagonal: bool,
    /// What is minimised.
    pub loss: Loss,
}

impl Preset {
    fn parts(self) -> (usize, Vec<usize>, Vec<usize>, Vec<u64>) {
        match self {
            Preset::Tiny => (8, vec![64, 32, 8], vec![64, 32, 1], KAGGLE_ROWS.iter().map(|&r| r.min(2_000)).collect()),
            Preset::Kaggle => (16, vec![512, 256, 64, 16], vec![512, 256, 1], KAGGLE_ROWS.to_vec()),
            Preset::Terabyte => (64, vec![512, 256, 64], vec![512, 512, 256, 1], TERABYTE_ROWS.to_vec()),
            Preset::Mlperf => (128, vec![512, 256, 128], vec![1024, 1024, 512, 256, 1], MLPERF_ROWS.to_vec()),
        }
    }

    /// Rows of the preset's tables.
    pub fn rows(self) -> Vec<u64> {
        self.parts().3
    }
}

impl Model {
    /// Fills in the preset. `dense` and `rows` are what the data says, for what is not given here.
    pub fn shape(&self, data_dense: Option<usize>, data_rows: Option<Vec<u64>>) -> Result<Shape> {
        let (dim, bottom, top, rows) = self.preset.parts();
        let dense = self.dense.or(data_dense).unwrap_or(13);
        let dim = self.dim.unwrap_or(dim);
        let cap = self.max_rows.unwrap_or(u64::MAX);
        let rows: Vec<u64> = self.rows.clone().or(data_rows).unwrap_or(rows).into_iter().map(|r| r.min(cap)).collect();
        let bottom = self.bottom.clone().unwrap_or(bottom);
        let top = self.top.clone().unwrap_or(top);
        let vectors = rows.len() + 1;
        let input = match (self.interaction, self.interaction_diagonal) {
            (Interaction::Dot, false) => dim + vectors * (vectors - 1) / 2,
            (Interaction::Dot, true) => dim + vectors * (vectors + 1) / 2,
            (Interaction::Cat, _) => dim * vectors,
        };
        let shape = Shape {
            dense,
            dim,
            bottom: std::iter::once(dense).chain(bottom).collect(),
            top: std::iter::once(input).chain(top).collect(),
            rows,
            interaction: self.interaction,
            diagonal: self.interaction_diagonal,
            loss: self.loss,
        };
        shape.validate()?;
        Ok(shape)
    }
}

impl Shape {
    /// Checks that the parts fit each other.
    pub fn validate(&self) -> Result<()> {
        let fail = |text: String| Err(Error::Config(text));
        if self.dense == 0 || self.dim == 0 {
            return fail(format!("model.dense ({}) and model.dim ({}) must be at least 1", self.dense, self.dim));
        }
        if self.bottom.len() < 2 || self.bottom.contains(&0) {
            return fail(format!("model.bottom {:?} must name at least one layer, none of width 0", &self.bottom[1..]));
        }
        if self.bottom.last() != Some(&self.dim) {
            return fail(format!(
                "the last width of model.bottom is {}, but model.dim is {}; they must be equal, because the dense vector meets the embedding rows in the interaction",
                self.bottom.last().unwrap_or(&0),
                self.dim
            ));
        }
        if self.top.len() < 2 || self.top.contains(&0) || self.top.last() != Some(&1) {
            return fail(format!("model.top {:?} must end with 1 (the logit) and have no width 0", &self.top[1..]));
        }
        if self.rows.is_empty() {
            return fail("the model has no table; give model.rows or data with categorical columns".into());
        }
        if let Some(k) = self.rows.iter().position(|&r| r == 0) {
            return fail(format!("table {k} has 0 rows; every table needs at least 1"));
        }
        if let Some(k) = self.rows.iter().position(|&r| r > u32::MAX as u64) {
            return fail(format!("table {k} has {} rows; row numbers are 32 bits wide, so at most {} fit", self.rows[k], u32::MAX));
        }
        Ok(())
    }

    /// Tables K.
    pub fn tables(&self) -> usize {
        self.rows.len()
    }

    /// Embedding parameters.
    pub fn embedding_parameters(&self) -> u64 {
        self.rows.iter().sum::<u64>() * self.dim as u64
    }

    /// MLP parameters: weights and biases.
    pub fn mlp_parameters(&self) -> u64 {
        let count = |widths: &[usize]| widths.windows(2).map(|w| (w[0] * w[1] + w[1]) as u64).sum::<u64>();
        count(&self.bottom) + count(&self.top)
    }

    /// Bytes of the model in FP32.
    pub fn fp32_bytes(&self) -> u64 {
        4 * (self.embedding_parameters() + self.mlp_parameters())
    }

    /// Bytes of the model when packed: codes, one FP32 scale per table, one per MLP output row
    /// (biases are codes on the row's scale).
    pub fn packed_bytes(&self, quant: &Quant) -> u64 {
        let rows: u64 = self.rows.iter().map(|&r| quant.embedding_bits.packed_bytes(r, self.dim as u64)).sum();
        let mut total = rows + if quant.embedding_bits.quantized() { 4 * self.rows.len() as u64 } else { 0 };
        for widths in [&self.bottom, &self.top] {
            for w in widths.windows(2) {
                let (input, output) = (w[0] as u64, w[1] as u64);
                total += quant.mlp_bits.packed_bytes(output, input);
                let bias_bits = if quant.quantize_bias { quant.mlp_bits } else { Bits::None };
                total += bias_bits.packed_bytes(1, output);
                if quant.mlp_bits.quantized() {
                    total += 4 * if quant.mlp_scale == ScalePer::Channel { output } else { 1 };
                }
            }
        }
        total
    }
}

impl Config {
    /// Checks values that do not depend on the data.
    pub fn validate(&self) -> Result<()> {
        let fail = |text: String| Err(Error::Config(text));
        if self.quant.period == 0 {
            return fail("quant.period is 0; the smallest period is 1 (a fresh scale every step)".into());
        }
        if self.train.batch == 0 || self.train.eval_batch == 0 {
            return fail("train.batch and train.eval_batch must be at least 1".into());
        }
        if self.train.batch > 1 << 20 || self.train.eval_batch > 1 << 20 {
            return fail(format!(
                "train.batch {} and train.eval_batch {} must be at most {}",
                self.train.batch,
                self.train.eval_batch,
                1 << 20
            ));
        }
        if !(self.optim.lr.is_finite() && self.optim.lr >= 0.0) || self.optim.embedding_lr.is_some_and(|x| !(x.is_finite() && x >= 0.0)) {
            return fail(format!("optim.lr is {}; it must be a finite number, 0 or more", self.optim.lr));
        }
        if self.optim.adam_betas.iter().any(|b| !(0.0..1.0).contains(b)) {
            return fail(format!("optim.adam_betas is {:?}; both must lie in [0, 1)", self.optim.adam_betas));
        }
        let split = self.data.split;
        if split.iter().any(|f| !(0.0..=1.0).contains(f)) || (split.iter().sum::<f64>() - 1.0).abs() > 1e-6 || split[0] == 0.0 {
            return fail(format!("data.split is {split:?}; three fractions in [0, 1] that sum to 1 are needed, the first above 0"));
        }
        let s = &self.data.synthetic;
        if s.samples == 0
            || s.bag == 0
            || s.bag > 1024
            || !(s.zipf.is_finite() && s.zipf >= 0.0)
            || !(s.positive_rate > 0.0 && s.positive_rate < 1.0)
        {
            return fail(format!("data.synthetic {s:?} is out of range: samples >= 1, 1 <= bag <= 1024, zipf >= 0, 0 < positive_rate < 1"));
        }
        if self.train.loader_threads == 0 || self.train.loader_threads > 64 {
            return fail(format!("train.loader_threads is {}; 1 to 64 are possible", self.train.loader_threads));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_have_the_published_sizes() {
        let shape = |preset| Model { preset, ..Model::default() }.shape(None, None).unwrap();
        let kaggle = shape(Preset::Kaggle);
        assert_eq!((kaggle.top[0], kaggle.mlp_parameters(), kaggle.embedding_parameters()), (367, 475_985, 540_201_232));
        let terabyte = shape(Preset::Terabyte);
        assert_eq!((terabyte.top[0], terabyte.mlp_parameters(), terabyte.embedding_parameters()), (415, 762_177, 3_143_286_336));
        assert_eq!(shape(Preset::Mlperf).top[0], 479);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let model = Model { dim: Some(32), preset: Preset::Kaggle, ..Model::default() };
        assert!(model.shape(None, None).unwrap_err().to_string().contains("model.dim is 32"));
        let model = Model { rows: Some(vec![5, 0]), ..Model::default() };
        assert!(model.shape(None, None).unwrap_err().to_string().contains("table 1 has 0 rows"));
    }

    #[test]
    fn warm_up_rises_and_decay_falls_with_power_two() {
        let o = Optim { lr: 1.0, warmup_steps: 4, decay_start: 10, decay_steps: 10, ..Optim::default() };
        assert_eq!((0..5).map(|s| o.factor(s)).collect::<Vec<_>>(), [0.25, 0.5, 0.75, 1.0, 1.0]);
        assert_eq!(o.factor(8), 1.0);
        assert_eq!(o.factor(9), 1.0);
        assert!((o.factor(14) - 0.25).abs() < 1e-12);
        assert_eq!(o.factor(1_000_000), o.factor(18));
        assert_eq!(Optim::default().factor(123), 1.0);
    }
}
