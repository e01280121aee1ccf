//! The loop: next batch, step, report, evaluate, save. Prints nothing; what happens is told to an
//! observer as [`Event`]s and stands in `metrics.jsonl`.
//!
//! A run's folder holds `config.toml` (resolved settings), `ids.bin` (the id dictionary, for text
//! data), `tuning.json` (the texts of kernels that were found to be the quickest, for a run that was
//! tuned), `metrics.jsonl`, `last.safetensors` and `best.safetensors`. `last.safetensors` is a
//! function of the settings, those texts and the step alone, so a run that was stopped and resumed
//! writes the same bytes as one that never stopped.

use crate::config::{Config, Format, Shape};
use crate::error::{Error, Result};
use crate::metrics::Summary;
use crate::profile::Profile;
use crate::session::DeviceInfo;
use crate::tuning_file::{Tune, Tuning};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

mod assemble;
mod card;
mod comm;
mod dry_run;
mod evaluate;
mod export;
mod folder;
mod imported;
mod in_process;
mod journal;
mod memory;
mod pack;
mod ranks;
mod stepper;
mod stream;
mod tables;
mod traffic;
mod trainer;
mod waits;
mod window;

pub use crate::computer::memory;
pub use assemble::{Assembled, Preparing, assemble, prepare, resolve, schema};
pub use comm::{Comm, GradientBytes, MAX_PLAYED, Scheme, comm};
pub use dry_run::{DryRun, Part, dry_run};
pub use evaluate::{Each, Scored, Trained, Which};
pub use export::{ExportFormat, ExportOptions, Exported, export};
pub use folder::{BEST, CONFIG, IDS, LAST, METRICS, PACKED, free_name};
pub use imported::{Imported, Wanted, import};
pub use in_process::run_in_process;
pub use pack::{PackOptions, Packing, pack};
pub use ranks::{Connect, Ranks, Terms};
pub use traffic::{Milliseconds, Traffic};

/// What happens in a run.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// Something that takes a while before the first step.
    Preparing {
        /// What is being done.
        what: &'a str,
        /// Units done.
        done: u64,
        /// Units in all; 0 when not known.
        total: u64,
    },
    /// Data and model are ready.
    Ready(&'a Facts),
    /// Some steps further.
    Progress(&'a Progress),
    /// A part of the data was evaluated.
    Evaluated(&'a Evaluation),
    /// A checkpoint was written.
    Saved {
        /// The file.
        path: &'a Path,
        /// Steps done.
        step: u64,
    },
    /// The steps that were to be profiled are done; the run goes on.
    Profiled(&'a Profile),
    /// Something the user should know; the run goes on.
    Warning(&'a str),
}

/// What a run works with.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The run's folder.
    pub dir: PathBuf,
    /// The device in use.
    pub device: DeviceInfo,
    /// Where tables on the host are kept; `None` where they live on the device.
    pub host_tables: Option<&'static str>,
    /// The model.
    pub shape: Shape,
    /// Workers that train together, and samples of all of them in a step; `None` without workers.
    pub workers: Option<(usize, u64)>,
    /// Samples to train on.
    pub train: u64,
    /// Samples to validate on.
    pub validation: u64,
    /// Samples to test on.
    pub test: u64,
    /// Malformed lines left out.
    pub skipped: u64,
    /// The step the run begins at; above 0 when resumed.
    pub first_step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Steps in one epoch.
    pub epoch_steps: u64,
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// The running epoch, the first is 0.
    pub epoch: u64,
    /// Mean loss since the last report.
    pub loss: f64,
    /// AUC of recent samples, each predicted before it was learned from.
    pub auc: Option<f64>,
    /// Samples learned from per second, evaluations and checkpoints apart.
    pub samples_per_second: f64,
    /// Milliseconds that a step waited for its batch, a mean since the last report.
    pub data_wait_ms: f64,
    /// Time left, in seconds.
    pub seconds_left: f64,
    /// What workers exchanged since the last report.
    pub exchange: Option<Traffic>,
}

/// The result on one part of the data.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Evaluation {
    /// `validation`, `test` (with the weights at the end) or `test at best validation`.
    pub part: String,
    /// Steps done.
    pub step: u64,
    /// Epochs done, with the fraction of a running one.
    pub epoch: f64,
    /// AUC, log loss and the rest.
    #[serde(flatten)]
    pub summary: Summary,
}

/// Where the first weights come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// The published initialisation, from the seed.
    Fresh,
    /// The weights of a PyTorch-named state dict.
    Init(PathBuf),
    /// The folder's last checkpoint.
    Resume,
}

/// How to run.
#[derive(Debug)]
pub struct Options<'a> {
    /// The run's folder; it must not hold anything unless `start` is [`Start::Resume`].
    pub dir: PathBuf,
    /// Where the weights come from.
    pub start: Start,
    /// Becomes true when the run shall stop after the current step.
    pub stop: &'a AtomicBool,
    /// The run's place among others.
    pub ranks: Ranks,
    /// Steps whose commands are timed, after a few to warm up; 0 for none.
    pub profile: u64,
    /// Whether texts of kernels are timed before a GPU trains; only without workers.
    pub tuning: Tuning,
}

/// What a finished run leaves behind.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Outcome {
    /// The run's folder.
    pub dir: PathBuf,
    /// `cpu` or `gpu`, and the name.
    pub device: String,
    /// Steps done.
    pub steps: u64,
    /// The test part with the weights at the end of the run.
    pub end: Option<Evaluation>,
    /// The test part with the weights of the best validation AUC.
    pub best: Option<Evaluation>,
    /// The last evaluation of the validation part.
    pub validation: Option<Evaluation>,
    /// The best AUC on the validation part.
    pub best_validation_auc: Option<f64>,
    /// The AUC of the probabilities that the synthetic labels of the test part were drawn with.
    pub teacher_auc: Option<f64>,
    /// Bytes of the model in FP32.
    pub fp32_bytes: u64,
    /// Bytes of the model when packed with the run's bit widths.
    pub packed_bytes: u64,
    /// Samples learned from per second, evaluations and checkpoints apart; 0 when there was no step.
    pub samples_per_second: f64,
    /// Milliseconds that a step waited for its batch, a mean over all steps.
    pub data_wait_ms: f64,
    /// Share of the training time that steps waited for batches.
    pub data_wait_share: f64,
    /// Malformed lines left out.
    pub skipped_rows: u64,
}

/// Trains a model as `config` says, in `options.dir`.
///
/// # Errors
/// Settings or data that cannot be used, a folder in use, a full disk, a loss that is not a
/// number, and [`Error::Interrupted`] when `options.stop` became true.
pub fn run(config: &Config, options: Options<'_>, observe: &mut dyn FnMut(&Event<'_>)) -> Result<Outcome> {
    let config = resolve(config)?;
    config.validate()?;
    check_folder(&config, &options)?;
    let data = assemble(&config, &mut |what, done, total| observe(&Event::Preparing { what, done, total }))?;
    run_on(&config, data, options, observe)
}

/// Whether the folder can take the run. [`run_on`] does not ask.
///
/// # Errors
/// A folder in use, or to be resumed with other settings.
pub fn check_folder(config: &Config, options: &Options<'_>) -> Result<()> {
    match options.start {
        _ if !options.ranks.leads() => Ok(()),
        Start::Resume => folder::check_resume(&options.dir, config),
        _ => folder::check_fresh(&options.dir),
    }
}

/// The same with data that was assembled before, for settings that [`resolve`] gave.
///
/// # Errors
/// As [`run`].
pub fn run_on(config: &Config, data: Assembled, mut options: Options<'_>, observe: &mut dyn FnMut(&Event<'_>)) -> Result<Outcome> {
    let mut config = config.clone();
    config.validate()?;
    let ranks = std::mem::take(&mut options.ranks);
    ranks.check(&config.workers)?;
    if options.profile > 0 && config.workers.on() {
        return Err(Error::Config("commands are timed in runs without workers; leave out --profile or the workers".into()));
    }
    if options.tuning.mode != Tune::Off && config.workers.on() {
        return Err(Error::Config("texts of kernels are timed in runs without workers; leave out --tune or the workers".into()));
    }
    let leads = ranks.leads();
    for message in data.messages.iter().filter(|_| leads) {
        observe(&Event::Warning(&format!("left out: {message}")));
    }
    memory::check(&data.shape, &config, data.samples.max_bag(), memory())?;
    let mut checkpoint = match &options.start {
        Start::Init(path) if leads => Some(crate::checkpoint::Checkpoint::open(path)?),
        Start::Resume if leads => Some(folder::open_last(&options.dir, &data)?),
        _ => None,
    };
    if let Some(checkpoint) = &checkpoint {
        checkpoint.check_weights(&data.shape)?;
    }
    let (mut session, tuned) = tables::load_for_run(&config, &data, &options, observe)?;
    let mut saved = None;
    match (&options.start, &mut checkpoint) {
        (Start::Init(path), Some(checkpoint)) => {
            let unused = checkpoint.load_weights(&mut session)?;
            if !unused.is_empty() {
                observe(&Event::Warning(&format!("`{}`: {} tensors were not used: {}", path.display(), unused.len(), unused.join(", "))));
            }
        }
        (Start::Resume, Some(checkpoint)) => {
            let mut state = checkpoint.load(&mut session)?;
            let (then, now) = (state.workers, config.workers.count as u64);
            let samples = data.parts.train.end - data.parts.train.start;
            let step = ranks::moved_step(state.step, samples, config.train.batch as u64, then, now);
            if step != state.step {
                let text = format!(
                    "step {} of {then} workers is step {step} of {now}: a step has other samples now, and so have --max-steps, warm-up and decay",
                    state.step
                );
                observe(&Event::Warning(&text));
            }
            state.step = step;
            let moved = |step, from| ranks::moved_step(step, samples, config.train.batch as u64, from, now);
            saved = Some(ranks::Resumed { state, best: trainer::best_so_far(&options.dir, &moved)? });
        }
        (Start::Fresh, _) => {
            session.initialise(config.seed, &mut |done, total| observe(&Event::Preparing { what: "weights", done, total }))?;
        }
        _ => {}
    }
    if config.data.format == Format::Text {
        config.data.schema.width = data.width;
    }
    let (mut stepper, saved) = stepper::Stepper::new(ranks, &mut session, &config, &data, &options.start, checkpoint.is_some(), saved)?;
    if leads && options.start != Start::Resume {
        folder::create(&options.dir, &config, &data).inspect_err(|e| stepper.end(e))?;
    }
    if leads {
        tuned.keep(&options.dir).inspect_err(|e| stepper.end(e))?;
    }
    let trainer = trainer::Trainer::new(&config, &options, data, session, stepper, saved)?;
    if leads && options.start == Start::Resume {
        folder::keep_config(&options.dir, &config)?;
    }
    trainer.run(observe)
}

/// "cpu (2 threads)".
fn device_text(device: &DeviceInfo) -> String {
    format!("{} ({})", device.engine, device.name)
}

impl Evaluation {
    /// A part's result after `step` steps.
    fn new(part: &str, step: u64, epoch_steps: u64, summary: Summary) -> Evaluation {
        Evaluation { part: part.into(), step, epoch: step as f64 / epoch_steps.max(1) as f64, summary }
    }
}

/// A checkpoint's error with the file's name in front.
fn broken(path: &Path, reason: impl Into<String>) -> Error {
    Error::Checkpoint { path: path.into(), reason: reason.into() }
}
