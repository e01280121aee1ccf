//! Every setting of a run, as it stands in a TOML file. All fields have defaults, unknown keys
//! are errors, and [`Config::validate`] checks that the parts fit each other.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

mod data;
mod model;
mod quant;
mod workers;

pub use data::{Column, Data, Format, IdText, Ids, MAX_BAG, OnBadRow, Schema, Synthetic};
pub use model::{
    Interaction, KAGGLE_ROWS, Loss, MAX_LAYERS, MAX_TABLES, MAX_WIDTH, MLPERF_ROWS, Model, Preset, Shape, TERABYTE_ROWS, TablePlace,
};
pub use quant::{EmbeddingScale, Method, Quant, ScalePer};
pub use workers::{GradientScale, LrRule, MAX_WORKERS, RowSums, Workers};

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
    /// Workers that train together.
    #[serde(skip_serializing_if = "Workers::is_default")]
    pub workers: Workers,
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
        left * left
    }

    /// The rate at `step` for a base rate, which decay takes no further than 1e-7.
    fn rate(&self, base: f64, step: u64) -> f64 {
        let rate = base * self.factor(step);
        if step + 1 < self.warmup_steps { rate } else { rate.max(base.min(1e-7)) }
    }

    /// Learning rate of the MLPs at `step` (the first step is 0).
    pub fn lr_at(&self, step: u64) -> f64 {
        self.rate(self.lr, step)
    }

    /// Learning rate of the tables at `step`.
    pub fn embedding_lr_at(&self, step: u64) -> f64 {
        self.rate(self.embedding_lr.unwrap_or(self.lr), step)
    }

    /// Kernels compute in FP32, so the numbers must be good ones after rounding to it.
    fn validate(&self) -> Result<()> {
        let fail = |text: String| Err(Error::Config(text));
        for (key, rate) in [("lr", Some(self.lr)), ("embedding_lr", self.embedding_lr)] {
            if let Some(rate) = rate.filter(|&rate| !((rate as f32).is_finite() && rate >= 0.0)) {
                return fail(format!("optim.{key} is {rate}; it must be a finite number, 0 or more"));
            }
        }
        for (key, eps) in [("adagrad_eps", self.adagrad_eps), ("adam_eps", self.adam_eps)] {
            if !((eps as f32).is_finite() && eps as f32 >= f32::MIN_POSITIVE) {
                return fail(format!("optim.{key} is {eps}; it must be a number from 1.2e-38 to 3.4e38, so that FP32 can hold it"));
            }
        }
        if self.adam_betas.iter().any(|&b| !(b >= 0.0 && (b as f32) < 1.0)) {
            return fail(format!("optim.adam_betas is {:?}; both must lie in [0, 1), in FP32 too", self.adam_betas));
        }
        Ok(())
    }
}

/// Which checkpoints a run keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Checkpoints {
    /// The newest, and the one with the best AUC on the validation part.
    #[default]
    All,
    /// The newest. The test part is evaluated with it alone.
    Last,
    /// None: the run cannot be resumed, packed or evaluated later.
    None,
}

impl Checkpoints {
    fn is_default(&self) -> bool {
        *self == Checkpoints::All
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
    /// Which checkpoints are kept. One is as large as the tables, and the new one is whole before the old one goes.
    #[serde(skip_serializing_if = "Checkpoints::is_default")]
    pub checkpoints: Checkpoints,
    /// Loader threads.
    pub loader_threads: usize,
}

impl Default for Train {
    fn default() -> Self {
        Train {
            batch: 128,
            epochs: 1,
            max_steps: 0,
            eval_batch: 2048,
            eval_every: 0,
            checkpoint_every: 0,
            checkpoints: Checkpoints::All,
            loader_threads: 2,
        }
    }
}

impl Config {
    /// Checks values that do not depend on the data.
    pub fn validate(&self) -> Result<()> {
        let fail = |text: String| Err(Error::Config(text));
        self.quant.validate()?;
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
        self.optim.validate()?;
        self.workers.validate()?;
        if self.workers.on() && self.quant.method == Method::Lsq {
            return fail(
                "method `lsq` learns its scales from gradients that workers do not exchange; use another method, or no workers".into(),
            );
        }
        if self.model.tables == TablePlace::Host {
            self.check_host_tables()?;
        } else if self.model.table_dir.is_some() {
            return fail("model.table_dir (--table-dir) is only for tables on the host; add --tables host, or leave it out".into());
        }
        let split = self.data.split;
        if split.iter().any(|f| !(0.0..=1.0).contains(f)) || (split.iter().sum::<f64>() - 1.0).abs() > 1e-6 || split[0] == 0.0 {
            return fail(format!("data.split is {split:?}; three fractions in [0, 1] that sum to 1 are needed, the first above 0"));
        }
        let most = self.data.schema.multi_hot_max;
        if most == 0 || most > MAX_BAG {
            return fail(format!("data.schema.multi_hot_max is {most}; a bag has room for 1 to {MAX_BAG} categories"));
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

    /// What tables on the host cannot do.
    fn check_host_tables(&self) -> Result<()> {
        if self.workers.on() {
            return Err(Error::Config(
                "tables on the host (--tables host) and workers do not go together yet; use --tables device, or no workers".into(),
            ));
        }
        if self.quant.method == Method::Lsq {
            return Err(Error::Config(
                "method `lsq` takes its first scales from the mean of whole tables on the device; use another method, or --tables device"
                    .into(),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_on_the_host_refuse_what_they_cannot_do() {
        let host = || Config { model: Model { tables: TablePlace::Host, ..Model::default() }, ..Config::default() };
        host().validate().unwrap();
        let refused = |config: Config, says: &str| {
            let text = config.validate().unwrap_err().to_string();
            assert!(text.contains(says), "{text} does not say {says}");
        };
        refused(Config { workers: Workers { count: 2, ..Workers::default() }, ..host() }, "--tables host) and workers");
        refused(Config { quant: Quant { method: Method::Lsq, ..Quant::default() }, ..host() }, "method `lsq`");
        let model = Model { table_dir: Some("x".into()), ..Model::default() };
        refused(Config { model, ..Config::default() }, "--table-dir");
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

    #[test]
    fn decay_ends_at_a_small_rate_and_never_above_the_base() {
        let o = |lr, embedding_lr| Optim { lr, embedding_lr, warmup_steps: 4, decay_steps: 1000, ..Optim::default() };
        let end = |o: &Optim| (o.lr_at(1 << 40), o.embedding_lr_at(1 << 40));
        assert_eq!(end(&o(0.0, None)), (0.0, 0.0));
        assert_eq!(end(&o(0.0, Some(1.0))), (0.0, 1e-6));
        assert_eq!(end(&o(1e-9, Some(1e-3))), (1e-9, 1e-7));
        let (mlps, tables) = end(&o(10.0, Some(0.0)));
        assert!((mlps - 1e-5).abs() < 1e-12 && tables == 0.0, "{mlps} {tables}");
        for step in 0..2000 {
            let rate = o(1e-9, None).lr_at(step);
            assert!(rate <= 1e-9, "{rate} at step {step}");
        }
        assert_eq!(o(1e-9, None).lr_at(0), 0.25e-9, "warm-up has no floor");
    }

    #[test]
    fn rates_and_small_numbers_must_be_good_in_fp32() {
        let refused = |edit: &dyn Fn(&mut Optim), says: &str| {
            let mut config = Config::default();
            edit(&mut config.optim);
            let text = config.validate().unwrap_err().to_string();
            assert!(text.contains(says), "{text} does not say {says}");
        };
        for bad in [f64::NAN, f64::INFINITY, -1e-9, 1e300] {
            refused(&|o| o.lr = bad, &format!("optim.lr is {bad};"));
            refused(&|o| o.embedding_lr = Some(bad), &format!("optim.embedding_lr is {bad};"));
        }
        for bad in [f64::NAN, f64::INFINITY, -1e-8, 0.0, 1e-50, 1e-40, 1e40] {
            refused(&|o| o.adagrad_eps = bad, "optim.adagrad_eps is");
            refused(&|o| o.adam_eps = bad, "optim.adam_eps is");
        }
        for bad in [f64::NAN, -0.1, 1.0, 0.999_999_999_999] {
            refused(&|o| o.adam_betas[1] = bad, "optim.adam_betas is");
        }
        refused(&|o| o.adam_betas[0] = 2.0, "optim.adam_betas is");
    }

    #[test]
    fn bags_have_a_limit() {
        let mut config = Config::default();
        config.data.schema.multi_hot_max = MAX_BAG;
        config.validate().unwrap();
        config.data.schema.multi_hot_max += 1;
        assert!(config.validate().unwrap_err().to_string().contains("multi_hot_max is 65537"));
    }
}
