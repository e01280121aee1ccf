//! Every setting of a run, as it stands in a TOML file. All fields have defaults, unknown keys
//! are errors, and [`Config::validate`] checks that the parts fit each other.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

mod data;
mod model;
mod quant;

pub use data::{Column, Data, Format, IdText, Ids, OnBadRow, Schema, Synthetic};
pub use model::{Interaction, KAGGLE_ROWS, Loss, MLPERF_ROWS, Model, Preset, Shape, TERABYTE_ROWS};
pub use quant::{EmbeddingScale, Method, Quant, ScalePer};

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
