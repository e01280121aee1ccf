//! A small model that learns from clicks on ads: the plan, the kernels, the optimizer and the order of samples of `dqrm train`, on few
//! enough clicks to learn them by heart. What a person can see here is when that begins, in FP32 and with few bits.

use crate::ads::{self, Clicks};
use dqrm::config::{Config, DenseOptimizer, Device, Format, Model, RowOptimizer, ScalePer, Shape};
use dqrm::data::ids::Mapper;
use dqrm::data::order::{Order, Share, fetch_batch};
use dqrm::data::{Batch, Samples};
use dqrm::metrics::Summary;
use dqrm::packed::{self, Coding, Input, Manifest, Rule, Source, WritePlan};
use dqrm::quant::Bits;
use dqrm::session::Session;
use dqrm::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Seed of all clicks: what changes with a run's own seed is the weights and the order.
const CLICKS: u64 = 2;
/// The validation clicks lie far behind those that any training takes.
const VALIDATION: u64 = 1 << 40;
/// Samples of a batch that is evaluated.
const EVALUATION_BATCH: usize = 1024;

/// How much faster tables learn than MLPs: a row is in few samples of a batch.
const TABLES: f64 = 400.0;

/// The most of each setting.
const MAX_BATCH: usize = 4096;
const MAX_PERIOD: u64 = 1_000_000;
const MAX_RATE: f64 = 100.0;
const MAX_TRAIN: u64 = 1_000_000;
const MAX_VALIDATION: u64 = 200_000;
/// The most steps of one call.
const MAX_STEPS: u64 = 10_000;

/// What a page may choose. Fields that are left out have defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Width of all weights: 2, 4, 8, 16, or null for FP32.
    pub bits: Option<u32>,
    /// Steps between two refreshes of the tables' scales. In between, no value of a row can leave the range that its table's scale gives.
    pub period: u64,
    /// Of Adagrad for the MLPs; the tables take 400 times as much with plain SGD, whose gradients are means over the batch.
    pub learning_rate: f64,
    /// Clicks of a step.
    pub batch: usize,
    /// Of the first weights and of the order of the clicks.
    pub seed: u64,
    /// Clicks to learn from.
    pub train: u64,
    /// Clicks that are only looked at.
    pub validation: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { bits: Some(4), period: 10_000, learning_rate: 0.01, batch: 128, seed: 0, train: 40_000, validation: 10_000 }
    }
}

/// A whole number within its limits.
fn within(name: &str, value: u64, most: u64) -> Result<()> {
    match value {
        0 => Err(Error::Config(format!("`{name}` is 0; 1 to {most} are possible"))),
        _ if value > most => Err(Error::Config(format!("`{name}` is {value}; 1 to {most} are possible"))),
        _ => Ok(()),
    }
}

fn check_rate(rate: f64) -> Result<()> {
    match rate > 0.0 && rate <= MAX_RATE {
        true => Ok(()),
        false => Err(Error::Config(format!("`learning_rate` is {rate}; a number above 0 and at most {MAX_RATE} is needed"))),
    }
}

impl Settings {
    /// Settings from JSON, checked.
    ///
    /// # Errors
    /// Text that is no such JSON, an unknown field, a value out of range.
    pub fn from_json(text: &str) -> Result<Settings> {
        let settings: Settings = serde_json::from_str(text).map_err(|e| Error::Config(format!("the settings cannot be used: {e}")))?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<()> {
        self.width()?;
        check_rate(self.learning_rate)?;
        within("period", self.period, MAX_PERIOD)?;
        within("batch", self.batch as u64, MAX_BATCH as u64)?;
        within("train", self.train, MAX_TRAIN)?;
        within("validation", self.validation, MAX_VALIDATION)
    }

    fn width(&self) -> Result<Bits> {
        match self.bits {
            None => Ok(Bits::None),
            Some(2) => Ok(Bits::B2),
            Some(4) => Ok(Bits::B4),
            Some(8) => Ok(Bits::B8),
            Some(16) => Ok(Bits::B16),
            Some(other) => Err(Error::Config(format!("`bits` is {other}; 2, 4, 8, 16 and null (FP32) are possible"))),
        }
    }

    fn config(&self, device: Device) -> Result<Config> {
        let mut config = Config { seed: self.seed, device, ..Config::default() };
        let bits = self.width()?;
        (config.quant.embedding_bits, config.quant.mlp_bits, config.quant.period) = (bits, bits, self.period);
        (config.optim.embedding, config.optim.dense) = (RowOptimizer::Sgd, DenseOptimizer::Adagrad);
        (config.optim.lr, config.optim.embedding_lr) = (self.learning_rate, Some(TABLES * self.learning_rate));
        (config.train.batch, config.train.eval_batch) = (self.batch, EVALUATION_BATCH);
        Ok(config)
    }
}

/// The network: small, so that learning by heart has to happen in the tables.
fn shape(rows: &[u64]) -> Result<Shape> {
    let model = Model { dim: Some(16), bottom: Some(vec![16]), top: Some(vec![16, 1]), ..Model::default() };
    model.shape(Some(ads::DENSE.len()), Some(rows.to_vec()))
}

/// A model, its clicks, and how far it has come.
#[derive(Debug)]
pub struct Training {
    settings: Settings,
    session: Session,
    clicks: Clicks,
    order: Order,
    validation: Vec<Batch>,
    /// Of the true probabilities on the validation clicks: nobody can expect better.
    best: Summary,
    step: u64,
}

impl Training {
    /// A model with its first weights, and its clicks.
    ///
    /// # Errors
    /// Settings out of range, a device that does not exist or is too small.
    pub async fn load(device: Device, settings: Settings) -> Result<Training> {
        settings.check()?;
        let clicks = Clicks::new(CLICKS, 0..settings.train);
        let held = Clicks::new(CLICKS, VALIDATION..VALIDATION + settings.validation);
        let shape = shape(clicks.rows())?;
        let mut session = Session::load(&shape, &settings.config(device)?, clicks.max_bag()).await?;
        session.initialise(settings.seed, &mut |_, _| {})?;
        let in_order = Order { range: 0..held.len(), shuffle: None, share: Share::default() };
        let steps = 0..in_order.steps_per_epoch(EVALUATION_BATCH);
        let batches = steps.map(|step| fetch_batch(&held, &in_order, session.tables(), EVALUATION_BATCH, step));
        let validation = batches.collect::<Result<Vec<_>>>()?;
        let logits: Vec<f32> = (0..held.len()).map(|i| held.logit(&held.showing(i)) as f32).collect();
        let best = Summary::from_logits(&logits, &labels(&validation));
        let order = Order { range: 0..clicks.len(), shuffle: Some(settings.seed), share: Share::default() };
        Ok(Training { settings, session, clicks, order, validation, best, step: 0 })
    }

    /// The settings, the device, the size of the model, and what the true probabilities would reach.
    pub fn describe(&self) -> Value {
        let (device, shape) = (self.session.device(), self.session.shape());
        json!({
            "settings": self.settings,
            "engine": device.engine,
            "device": device.name,
            "step": self.step,
            "steps_per_epoch": self.steps_per_epoch(),
            "tables": shape.tables(),
            "dim": shape.dim,
            "parameters": shape.fp32_bytes() / 4,
            "best": { "auc": self.best.auc, "log_loss": self.best.log_loss },
        })
    }

    /// Steps until every click was seen once.
    pub fn steps_per_epoch(&self) -> u64 {
        self.order.steps_per_epoch(self.settings.batch)
    }

    /// Trains `n` steps; gives the loss of each, before its update.
    ///
    /// # Errors
    /// Too many steps at once, a loss that is no number any more, a lost device.
    pub async fn steps(&mut self, n: u64) -> Result<Vec<f32>> {
        if n > MAX_STEPS {
            return Err(Error::Config(format!("{n} steps at once; at most {MAX_STEPS} are possible, call again for more")));
        }
        let (mut losses, mut wrong) = (Vec::with_capacity(n as usize), None);
        for i in 1..=n {
            let batch = fetch_batch(&self.clicks, &self.order, self.session.tables(), self.settings.batch, self.step)?;
            self.session.train_step(self.step, &batch)?;
            self.step += 1;
            let results = if i == n { self.session.history().await? } else { self.session.settled(Session::RING / 2).await? };
            for result in results {
                wrong = wrong.or((!result.loss.is_finite()).then_some((result.step, result.loss)));
                losses.push(result.loss);
            }
        }
        match wrong {
            Some((step, loss)) => {
                Err(Error::Data(format!("the loss became {loss} at step {step}; begin again with a smaller learning rate")))
            }
            None => Ok(losses),
        }
    }

    /// Steps done, and epochs.
    pub fn done(&self) -> (u64, f64) {
        (self.step, self.step as f64 / self.steps_per_epoch() as f64)
    }

    /// How the model does on the validation clicks, which is how the file of [`Training::pack`] does: with the tables' scales of the
    /// last step, and the MLPs' from their present weights.
    ///
    /// # Errors
    /// A lost device.
    pub async fn evaluate(&mut self) -> Result<Summary> {
        self.session.begin_evaluation()?;
        let mut logits = Vec::new();
        for batch in &self.validation {
            logits.extend(self.session.logits(batch).await?);
        }
        Ok(Summary::from_logits(&logits, &labels(&self.validation)))
    }

    /// Changes the learning rate of the steps that follow.
    ///
    /// # Errors
    /// A rate out of range.
    pub fn set_learning_rate(&mut self, rate: f64) -> Result<()> {
        check_rate(rate)?;
        self.session.set_learning_rates(rate, Some(TABLES * rate))?;
        self.settings.learning_rate = rate;
        Ok(())
    }

    /// The packed file of the present weights, which takes rows of text with the columns of [`ads::header`].
    ///
    /// # Errors
    /// A model in FP32, weights that are not finite, a lost device.
    pub async fn pack(&mut self) -> Result<Vec<u8>> {
        let bits = self.settings.width()?;
        if !bits.quantized() {
            return Err(Error::Config("this model was trained in FP32, and packed tables are quantized; train with 2 to 16 bits".into()));
        }
        // makes the tables' first scales where no step has
        self.session.begin_evaluation()?;
        let mut weights = Weights(BTreeMap::new());
        let names: Vec<_> = self.session.tensors().iter().filter(|t| t.is_weight() || t.is_scale()).cloned().collect();
        for tensor in names {
            let values = self.session.read(&tensor.name, 0, tensor.len() as usize).await?;
            weights.0.insert(tensor.name, values);
        }
        let coding = Coding { bits, offset: 0.0 };
        let manifest = Manifest {
            shape: self.session.shape().clone(),
            tables: coding,
            mlps: coding,
            input: Input { format: Format::Text, schema: ads::schema(), generator: None },
            method: "dqrm".into(),
            step: self.step,
        };
        let plan = WritePlan {
            manifest,
            rule: Rule::Kept,
            row_scales: false,
            mlp_scales: ScalePer::Channel,
            quantize_bias: true,
            ids: Mapper::of_words(&ads::vocabulary())?.to_bytes(),
        };
        Ok(packed::encode(&plan, &mut weights, &mut |_, _| {})?.0)
    }
}

fn labels(batches: &[Batch]) -> Vec<f32> {
    batches.iter().flat_map(|batch| batch.labels.iter().copied()).collect()
}

/// Weights read from the device.
struct Weights(BTreeMap<String, Vec<f32>>);

impl Source for Weights {
    fn read(&mut self, name: &str, start: u64, values: &mut [f32]) -> Result<()> {
        let found = self.0.get(name).and_then(|all| all.get(start as usize..start as usize + values.len()));
        values.copy_from_slice(found.ok_or_else(|| Error::Data(format!("there are no values {start}+{} of `{name}`", values.len())))?);
        Ok(())
    }
}
