//! Training runs of workers, and what is kept of them.

use super::Args;
use dqrm::config::{Config, Device, Format, GradientScale, Preset, Workers};
use dqrm::dist::team::Patience;
use dqrm::dist::transport::network::Network;
use dqrm::metrics::Summary;
use dqrm::quant::Bits;
use dqrm::train::{self, Assembled, Event, Options, Outcome, Progress, Ranks, Start, Traffic};
use dqrm::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// How gradients travel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scheme {
    pub(crate) name: &'static str,
    pub(crate) rows: Bits,
    pub(crate) mlps: Bits,
    pub(crate) feedback: bool,
    pub(crate) scale: GradientScale,
}

/// Touched rows in FP32.
pub(crate) const FP32: Scheme =
    Scheme { name: "sparse FP32", rows: Bits::None, mlps: Bits::None, feedback: false, scale: GradientScale::Own };
/// INT8 with error feedback: the default.
pub(crate) const INT8: Scheme = Scheme { name: "INT8, feedback", rows: Bits::B8, mlps: Bits::B8, feedback: true, ..FP32 };
/// The same without error feedback.
pub(crate) const INT8_PLAIN: Scheme = Scheme { name: "INT8, no feedback", feedback: false, ..INT8 };
/// Only the embeddings' gradients are quantized.
pub(crate) const INT8_ROWS: Scheme = Scheme { name: "INT8 embeddings, FP32 MLPs", mlps: Bits::None, ..INT8_PLAIN };
/// INT4 with error feedback.
pub(crate) const INT4: Scheme = Scheme { name: "INT4, feedback", rows: Bits::B4, mlps: Bits::B4, ..INT8 };
/// As in the published code at its last state: the mean of all scales, no error feedback.
pub(crate) const PUBLISHED: Scheme =
    Scheme { name: "INT8, published: mean scales, no feedback", scale: GradientScale::Average, ..INT8_PLAIN };

impl Scheme {
    fn workers(&self, args: &Args, count: usize) -> Workers {
        let Scheme { rows, mlps, feedback, scale, .. } = *self;
        Workers { count, row_bits: rows, mlp_bits: mlps, feedback, scale, lr_rule: args.lr_rule, check_every: 0, ..Workers::default() }
    }
}

/// How good a model became.
#[derive(Debug, Clone)]
pub(crate) struct Quality {
    /// Mean training loss of the last epoch.
    pub(crate) loss: f64,
    /// The test part with the weights at the end.
    pub(crate) end: Summary,
    /// With the weights of the best validation AUC.
    pub(crate) best: Summary,
}

/// What a step of workers took.
#[derive(Debug, Clone)]
pub(crate) struct Timing {
    /// Milliseconds of a step.
    pub(crate) ms: f64,
    /// What was exchanged, in runs that are long enough for a report.
    pub(crate) traffic: Option<Traffic>,
}

/// The sum of the losses of all steps so far, at each step at which the run said something; it does at the end of each
/// epoch.
#[derive(Debug, Default)]
struct Losses {
    sums: BTreeMap<u64, f64>,
    /// The step of the last report, from which on a mean is told, and the sum there.
    reported: (u64, f64),
}

impl Losses {
    fn push(&mut self, progress: &Progress) {
        let (step, sum) = self.reported;
        let now = sum + (progress.step - step) as f64 * progress.loss;
        self.sums.insert(progress.step, now);
        if progress.exchange.is_some() {
            self.reported = (progress.step, now);
        }
    }

    /// The mean of the steps after the first `steps`.
    fn after(&self, steps: u64) -> f64 {
        let before = if steps == 0 { Some(&0.0) } else { self.sums.get(&steps) };
        match (before, self.sums.last_key_value()) {
            (Some(before), Some((last, sum))) => (sum - before) / (last - steps) as f64,
            _ => f64::NAN,
        }
    }
}

/// Makes runs on the same data, and remembers how they ended.
#[derive(Debug)]
pub(crate) struct Runs {
    pub(crate) args: Args,
    pub(crate) data: Assembled,
    config: Config,
    known: HashMap<String, Option<Quality>>,
}

impl Runs {
    /// Opens the data.
    pub(crate) fn new(args: Args) -> Result<Runs> {
        let mut config = Config { device: Device::from(args.device.clone()), ..Config::default() };
        config.model.preset = Preset::Kaggle;
        config.data.files = args.files.clone();
        config.data.format = Format::Criteo;
        config.data.cache = std::env::temp_dir().join("dqrm-workers").to_string_lossy().into_owned();
        config.quant.period = 200;
        config.optim.lr = args.lr;
        let config = train::resolve(&config)?;
        let data = train::assemble(&config, &mut |_, _, _| {})?;
        Ok(Runs { args, data, config, known: HashMap::new() })
    }

    /// Steps in one epoch of global batches of `global` samples.
    pub(crate) fn epoch_steps(&self, global: usize) -> u64 {
        let train = &self.data.parts.train;
        (train.end - train.start).div_ceil(global.max(1) as u64)
    }

    fn config(&self, scheme: &Scheme, count: usize, batch: usize, seed: u64) -> Config {
        let mut config = Config { seed, workers: scheme.workers(&self.args, count), ..self.config.clone() };
        config.train.batch = batch;
        config.train.epochs = self.args.epochs;
        config
    }

    /// What distinguishes a run.
    pub(crate) fn key(&self, scheme: &Scheme, count: usize, batch: usize, seed: u64) -> String {
        format!("{:?}, batch {batch}, seed {seed}", scheme.workers(&self.args, count))
    }

    /// Trains `count` logical workers to the end, unless that was done before; `None` when the loss was no number.
    pub(crate) fn quality(&mut self, scheme: &Scheme, count: usize, batch: usize, seed: u64) -> Result<Option<Quality>> {
        let key = self.key(scheme, count, batch, seed);
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let began = Instant::now();
        let config = self.config(scheme, count, batch, seed);
        let mut losses = Losses::default();
        let mut observe = |event: &Event<'_>| {
            if let Event::Progress(progress) = event {
                losses.push(progress);
            }
        };
        let outcome = in_folder(|options| train::run_on(&config, self.data.clone(), options, &mut observe));
        let quality = match outcome {
            Ok(outcome) => Some(quality(&outcome, losses.after(outcome.steps.saturating_sub(self.epoch_steps(count * batch))))?),
            Err(error @ Error::NotFinite { .. }) => {
                eprintln!("did not converge: {error}");
                None
            }
            Err(error) => return Err(error),
        };
        let auc = quality.as_ref().and_then(|q| q.end.auc).map_or("-".into(), |auc| format!("{auc:.4}"));
        eprintln!("{count} workers, {}, seed {seed}: test AUC {auc}, {:.0} s", scheme.name, began.elapsed().as_secs_f64());
        self.known.insert(key, quality.clone());
        Ok(quality)
    }

    /// The settings and data of `steps` steps and nothing else.
    fn steps_only(&self, scheme: &Scheme, steps: u64) -> (Config, Assembled) {
        let Args { workers, batch, .. } = self.args;
        let mut config = self.config(scheme, workers, batch, 0);
        config.train.epochs = steps.div_ceil(self.epoch_steps(workers * batch)).max(1);
        config.train.max_steps = steps;
        let mut data = self.data.clone();
        (data.parts.validation, data.parts.test) = (0..0, 0..0);
        (config, data)
    }

    /// Milliseconds of a step of all logical workers, one after another.
    pub(crate) fn simulated_ms(&self, steps: u64) -> Result<f64> {
        let (config, data) = self.steps_only(&INT8, steps);
        let outcome = in_folder(|options| train::run_on(&config, data, options, &mut |_| {}))?;
        Ok(self.ms(&outcome))
    }

    /// Times steps of workers that are threads of this process.
    pub(crate) fn timing(&self, scheme: &Scheme, network: Option<Network>) -> Result<Timing> {
        let (config, data) = self.steps_only(scheme, self.args.steps);
        let mut traffic = None;
        let mut observe = |event: &Event<'_>| {
            if let Event::Progress(Progress { exchange: Some(exchange), .. }) = event {
                traffic = Some(exchange.clone());
            }
        };
        let outcome = in_folder(|options| train::run_in_process(&config, data, options, Patience::default(), network, &mut observe))?;
        Ok(Timing { ms: self.ms(&outcome), traffic })
    }

    fn ms(&self, outcome: &Outcome) -> f64 {
        1e3 * (self.args.workers * self.args.batch) as f64 / outcome.samples_per_second
    }
}

/// Calls `run` with a folder that is gone afterwards.
fn in_folder(run: impl FnOnce(Options<'_>) -> Result<Outcome>) -> Result<Outcome> {
    let folder = tempfile::tempdir().map_err(Error::io("create", "a temporary folder"))?;
    let stop = AtomicBool::new(false);
    run(Options {
        dir: folder.path().join("run"),
        start: Start::Fresh,
        stop: &stop,
        ranks: Ranks::Simulated { network: None },
        profile: 0,
        tuning: Default::default(),
    })
}

fn quality(outcome: &Outcome, loss: f64) -> Result<Quality> {
    let Some(end) = &outcome.end else {
        return Err(Error::Data("the data has no test part; give more rows".into()));
    };
    let best = outcome.best.as_ref().unwrap_or(end);
    Ok(Quality { loss, end: end.summary.clone(), best: best.summary.clone() })
}
