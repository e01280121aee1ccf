//! What `case.json` says: the shape, the settings of the run, the tolerances. Fields that are not
//! known here are ignored.

use dqrm::config::{Config, DenseOptimizer, Device, Interaction, Loss, Model, Optim, Quant, RowOptimizer, ScalePer, Shape, Train};
use dqrm::quant::Bits;
use dqrm::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Samples per evaluation step; the evaluation part is cut into pieces of this size.
pub(crate) const EVAL_BATCH: usize = 256;

const MAX_STEPS: usize = 1 << 20;

/// One case.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Case {
    /// Dense features D.
    pub(crate) dense: usize,
    dim: usize,
    /// All widths, input first.
    bottom: Vec<usize>,
    /// Widths without the input.
    top: Vec<usize>,
    top_input: Option<usize>,
    /// Rows of each table.
    pub(crate) rows: Vec<u64>,
    #[serde(default)]
    interaction: Interaction,
    #[serde(default)]
    interaction_itself: bool,
    /// Samples per step.
    pub(crate) batch: usize,
    /// Steps to train.
    pub(crate) steps: usize,
    /// Lines for training, the first ones.
    pub(crate) train_rows: usize,
    /// Lines for evaluation, the next ones.
    #[serde(default = "eval_rows")]
    pub(crate) eval_rows: usize,
    optimizer: String,
    lr: f64,
    #[serde(default = "bce")]
    loss: Loss,
    /// Fields hold several categories.
    #[serde(default)]
    pub(crate) multi_hot: bool,
    /// What an empty category field means.
    #[serde(default)]
    pub(crate) empty_categorical: Empty,
    /// Fake quantization, if any.
    quantization: Option<Quantization>,
    ties: Option<Ties>,
    tolerances: BTreeMap<String, serde_json::Value>,
    tolerances_loose: Option<BTreeMap<String, serde_json::Value>>,
}

fn eval_rows() -> usize {
    256
}

fn bce() -> Loss {
    Loss::Bce
}

/// What an empty category field means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Empty {
    /// The value 0.
    #[default]
    ZeroValue,
    /// No category at all.
    EmptyBag,
}

#[derive(Debug, Clone, Deserialize)]
struct Quantization {
    embedding_bits: Option<Bits>,
    #[serde(default = "table")]
    embedding_scale: String,
    #[serde(default = "one")]
    embedding_period: u64,
    #[serde(default = "pool_first")]
    embedding_order: String,
    linear_bits: Option<Bits>,
    #[serde(default)]
    linear_scale: ScalePer,
    #[serde(default = "one")]
    linear_period: u64,
    #[serde(default)]
    quantize_bias: bool,
}

fn table() -> String {
    "table".into()
}

fn one() -> u64 {
    1
}

fn pool_first() -> String {
    "pool_then_quantize".into()
}

/// Evaluation rows that look up exact halves of a code.
#[derive(Debug, Clone, Deserialize)]
struct Ties {
    #[serde(default)]
    eval_rows: Vec<usize>,
}

impl Case {
    /// Reads `case.json`.
    pub(crate) fn read(path: &Path) -> Result<Case> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        serde_json::from_str(&text).map_err(|e| Error::Data(format!("`{}`: {e}", path.display())))
    }

    /// The shape of the model, checked.
    pub(crate) fn shape(&self) -> Result<Shape> {
        if self.bottom.first() != Some(&self.dense) {
            return Err(Error::Data(format!("`bottom` {:?} must begin with `dense` ({})", self.bottom, self.dense)));
        }
        if self.rows.len() >= 1 << 12 || self.dim > 1 << 16 || self.bottom.iter().chain(&self.top).any(|&w| w > 1 << 20) {
            return Err(Error::Data("a model of this size is not supported: at most 4095 tables, width 65536, layers of 1048576".into()));
        }
        let model = Model {
            dense: Some(self.dense),
            dim: Some(self.dim),
            bottom: Some(self.bottom[1..].to_vec()),
            top: Some(self.top.clone()),
            rows: Some(self.rows.clone()),
            interaction: self.interaction,
            interaction_diagonal: self.interaction_itself,
            loss: self.loss,
            ..Model::default()
        };
        let shape = model.shape(None, None)?;
        match self.top_input {
            Some(given) if given != shape.top[0] => {
                Err(Error::Data(format!("`top_input` is {given}, but these tables and this interaction give {}", shape.top[0])))
            }
            _ => Ok(shape),
        }
    }

    /// The settings of the run, checked.
    pub(crate) fn config(&self, device: &Device) -> Result<Config> {
        if self.train_rows == 0 || self.eval_rows == 0 || self.steps == 0 {
            return Err(Error::Data("`train_rows`, `eval_rows` and `steps` must be at least 1".into()));
        }
        if self.steps > MAX_STEPS {
            return Err(Error::Data(format!("{} steps are asked for; at most {MAX_STEPS} are supported", self.steps)));
        }
        let (embedding, dense) = self.optimizers()?;
        let config = Config {
            device: device.clone(),
            quant: self.quant()?,
            optim: Optim { embedding, dense, lr: self.lr, ..Optim::default() },
            train: Train { batch: self.batch.min(self.train_rows), eval_batch: EVAL_BATCH, ..Train::default() },
            ..Config::default()
        };
        config.validate()?;
        Ok(config)
    }

    /// The optimizers of tables and MLPs. `adam` is for the MLPs; the tables beside it use SGD.
    fn optimizers(&self) -> Result<(RowOptimizer, DenseOptimizer)> {
        match self.optimizer.as_str() {
            "sgd" => Ok((RowOptimizer::Sgd, DenseOptimizer::Sgd)),
            "adagrad" => Ok((RowOptimizer::Adagrad, DenseOptimizer::Adagrad)),
            "rwsadagrad" => Ok((RowOptimizer::Rwsadagrad, DenseOptimizer::Adagrad)),
            "adam" => Ok((RowOptimizer::Sgd, DenseOptimizer::Adam)),
            other => Err(Error::Data(format!("optimizer `{other}` is not supported; use sgd, adagrad, rwsadagrad or adam"))),
        }
    }

    fn quant(&self) -> Result<Quant> {
        let Some(q) = &self.quantization else {
            return Ok(Quant { embedding_bits: Bits::None, mlp_bits: Bits::None, ..Quant::default() });
        };
        let fail = |text: String| Err(Error::Data(text));
        if q.linear_period != 1 {
            return fail(format!(
                "linear_period {} is not supported: MLP scales are fresh at every forward pass, so only 1 is",
                q.linear_period
            ));
        }
        if q.embedding_scale != "table" {
            return fail(format!("embedding_scale `{}` is not supported, only one scale per `table` is", q.embedding_scale));
        }
        let order = q.embedding_order.as_str();
        let pool_then_quantize = order.starts_with("pool");
        if !pool_then_quantize && !order.starts_with("quantize") && !order.starts_with("row") {
            return fail(format!("embedding_order `{order}` is not known; use pool_then_quantize or quantize_then_pool"));
        }
        Ok(Quant {
            embedding_bits: q.embedding_bits.unwrap_or(Bits::None),
            mlp_bits: q.linear_bits.unwrap_or(Bits::None),
            period: q.embedding_period,
            mlp_scale: q.linear_scale,
            quantize_bias: q.quantize_bias,
            pool_then_quantize,
            ..Quant::default()
        })
    }

    /// The tolerances for correctly rounded arithmetic, or the `loose` ones.
    pub(crate) fn tolerances(&self, loose: bool) -> Result<Tolerances> {
        let (name, map) = match (loose, &self.tolerances_loose) {
            (false, _) => ("tolerances", &self.tolerances),
            (true, Some(map)) => ("tolerances_loose", map),
            (true, None) => return Err(Error::Data("the case has no `tolerances_loose`".into())),
        };
        let left_out = if loose { self.ties.iter().flat_map(|t| t.eval_rows.iter().copied()).collect() } else { Vec::new() };
        let values = map.iter().filter_map(|(key, value)| Some((key.clone(), value.as_f64()?))).collect();
        Ok(Tolerances { name, values, left_out })
    }
}

/// Named limits of the differences.
#[derive(Debug, Clone)]
pub(crate) struct Tolerances {
    name: &'static str,
    values: BTreeMap<String, f64>,
    /// Evaluation rows that are not compared: on arithmetic that is not correctly rounded, exact
    /// halves of a code may go either way.
    pub(crate) left_out: Vec<usize>,
}

impl Tolerances {
    /// The limit called `key`.
    pub(crate) fn get(&self, key: &str) -> Result<f64> {
        self.values.get(key).copied().ok_or_else(|| Error::Data(format!("`{}` has no number `{key}`", self.name)))
    }
}
