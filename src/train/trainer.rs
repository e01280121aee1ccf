//! The loop itself.

use super::journal::Journal;
use super::ranks::Resumed;
use super::stepper::{Failure, Stepper};
use super::traffic::Meter;
use super::waits::Waits;
use super::window::Window;
use super::{Assembled, Event, Facts, Options, Outcome, broken, folder, ranks};
use crate::config::Config;
use crate::data::Batch;
use crate::data::loader::{Loader, Order, Share};
use crate::error::{Error, Result};
use crate::session::Session;
use std::collections::VecDeque;
use std::iter::Peekable;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

mod parts;
mod profiling;
mod results;
mod saving;
pub(super) use saving::best_so_far;

/// Gets events.
type Observe<'o> = &'o mut dyn FnMut(&Event<'_>);

/// A run between its first and its last step.
pub(super) struct Trainer<'a> {
    config: &'a Config,
    options: &'a Options<'a>,
    data: Assembled,
    session: Session,
    stepper: Stepper,
    meter: Meter,
    /// Some rank was asked to stop.
    stop_agreed: bool,
    /// At the rank that keeps the run's folder.
    journal: Option<Journal>,
    window: Window,
    /// Steps begun.
    step: u64,
    /// Steps whose results are here.
    finished: u64,
    first_step: u64,
    steps: u64,
    epoch_steps: u64,
    /// The best AUC on the validation part, and its step.
    best: Option<(f64, u64)>,
    /// The step at which this process found its best weights.
    best_now: Option<u64>,
    /// The last AUC of a report.
    recent_auc: Option<f64>,
    /// Labels of the steps whose results are not fetched yet.
    in_flight: VecDeque<Vec<f32>>,
    last_batch: Option<Batch>,
    /// The step of the last checkpoint in the folder.
    saved: Option<u64>,
    /// When results last came, or a read of them was begun for that they had not come for long.
    fetched: Instant,
    /// Time in steps, and the samples whose results came in it.
    trained: Duration,
    samples: u64,
    profiler: Option<profiling::Profiler>,
    /// Nanoseconds that steps waited for batches.
    waited: Arc<AtomicU64>,
    /// The same by step.
    waits: Waits,
}

impl<'a> Trainer<'a> {
    /// A run at its beginning, or where `state` says.
    pub(super) fn new(
        config: &'a Config,
        options: &'a Options<'a>,
        data: Assembled,
        mut session: Session,
        mut stepper: Stepper,
        resumed: Option<Resumed>,
    ) -> Result<Self> {
        let leads = stepper.team().is_none_or(|team| team.seat().rank == 0);
        let global = global_batch(config);
        let epoch_steps = (data.parts.train.end - data.parts.train.start).div_ceil(global);
        let (state, best) = resumed.map_or((None, None), |r| (Some(r.state), r.best));
        if config.quant.pretrains() {
            session.set_pretrain_steps(epoch_steps.saturating_mul(config.quant.pretrain_epochs))?;
        }
        let all = epoch_steps.saturating_mul(config.train.epochs);
        let steps = if config.train.max_steps > 0 { all.min(config.train.max_steps) } else { all };
        let (step, lines) = state.as_ref().map_or((0, 0), |s| (s.step, s.lines));
        if step > steps {
            let text = format!(
                "the checkpoint of `{}` is at step {step}, but the run has only {steps} steps; raise --epochs",
                options.dir.display()
            );
            return Err(Error::Config(text));
        }
        let window = match &state {
            Some(state) => Window::from_tensors(&state.extra).ok_or_else(|| {
                broken(&options.dir.join(folder::LAST), "lacks the loop's `dqrm.window` tensors; resume from a last.safetensors")
            })?,
            None => Window::default(),
        };
        let profiler = profiling::Profiler::new(options.profile, step, steps, &super::device_text(session.device()));
        Ok(Trainer {
            profiler,
            best,
            best_now: None,
            journal: if leads { Some(Journal::open(&options.dir.join(folder::METRICS), lines)?) } else { None },
            stepper,
            meter: Meter::default(),
            stop_agreed: false,
            saved: state.map(|s| s.step),
            recent_auc: None,
            in_flight: VecDeque::new(),
            last_batch: None,
            fetched: Instant::now(),
            trained: Duration::ZERO,
            samples: 0,
            waited: Arc::default(),
            waits: Waits::new(step),
            first_step: step,
            config,
            options,
            data,
            session,
            window,
            step,
            finished: step,
            steps,
            epoch_steps,
        })
    }

    /// Trains to the end and evaluates the test part. With workers, the others learn why this one ends.
    pub(super) fn run(mut self, observe: Observe<'_>) -> Result<Outcome> {
        let outcome = self.run_steps(observe).map_err(|error| self.with_checkpoint(error));
        if let Some(team) = self.stepper.team() {
            // that all stop was agreed on
            let reason = outcome.as_ref().err().filter(|e| !matches!(e, Error::Interrupted(_)));
            team.end(reason.map(Error::to_string).as_deref());
        }
        outcome
    }

    fn run_steps(&mut self, observe: Observe<'_>) -> Result<Outcome> {
        observe(&Event::Ready(&self.facts()));
        let mut validation = None;
        let order = self.data.parts.train.clone();
        let mut batches = Vec::new();
        for share in self.stepper.shares() {
            let steps = self.step..self.steps;
            let loader = self.loader(order.clone(), self.config.data.shuffle, self.config.train.batch, steps, share)?;
            batches.push(loader.timed(&self.waited));
        }
        let mut alone = if matches!(self.stepper, Stepper::Alone) { batches.pop().map(Iterator::peekable) } else { None };
        self.stepper.begin(&self.session, batches, self.step)?;
        self.compare(None)?;
        loop {
            let (epoch_end, last) = (self.due(self.epoch_steps), self.step == self.steps);
            let evaluate = epoch_end || self.due(self.config.train.eval_every);
            let save = epoch_end || last || self.due(self.config.train.checkpoint_every);
            let stopped = self.stopped();
            if evaluate || save || stopped {
                self.fetch(observe)?;
            }
            if stopped {
                return Err(self.interrupted(observe));
            }
            if epoch_end || last {
                self.compare(None)?;
            } else if self.due(self.config.workers.check_every) {
                self.compare(Some(self.step / self.config.workers.check_every))?;
            }
            if save && self.saved != Some(self.step) {
                self.save(observe)?;
            }
            if evaluate || (last && self.step > 0) {
                validation = self.validate(!evaluate, observe)?.or(validation);
            }
            if last {
                break;
            }
            match &mut alone {
                Some(batches) => self.train(batches, observe)?,
                None => self.train_together(observe)?,
            }
        }
        self.end_profile(observe);
        self.finish(validation, observe)
    }

    /// Compares the replicas of all ranks, unless that is switched off.
    pub(super) fn compare(&mut self, round: Option<u64>) -> Result<()> {
        match self.stepper.team() {
            Some(team) if self.config.workers.check_every > 0 => ranks::compare(team, &mut self.session, self.step, round),
            _ => Ok(()),
        }
    }

    /// An error about peers, with the checkpoint that is left.
    fn with_checkpoint(&self, mut error: Error) -> Error {
        if let Error::Peer { kept, .. } | Error::Replica { kept, .. } = &mut error {
            let path = self.options.dir.join(folder::LAST);
            *kept = match self.saved {
                Some(step) => format!("The last checkpoint, `{}` (step {step}), is kept; go on with --resume", path.display()),
                None => "No checkpoint had been written yet".into(),
            };
        }
        error
    }

    /// True at every multiple of `every` steps but the first.
    fn due(&self, every: u64) -> bool {
        self.step > 0 && every > 0 && self.step.is_multiple_of(every)
    }

    /// The run shall stop. Ranks agree on it at the end of a step or of an evaluation.
    fn stopped(&self) -> bool {
        match self.stepper {
            Stepper::Rank(_) => self.stop_agreed,
            _ => self.asked_to_stop(),
        }
    }

    fn asked_to_stop(&self) -> bool {
        self.options.stop.load(Ordering::Relaxed)
    }

    fn facts(&self) -> Facts {
        let len = |range: &Range<u64>| range.end - range.start;
        Facts {
            dir: self.options.dir.clone(),
            device: self.session.device().clone(),
            host_tables: self.session.host_tables(),
            shape: self.data.shape.clone(),
            workers: self.config.workers.on().then(|| (self.config.workers.count, global_batch(self.config))),
            train: len(&self.data.parts.train),
            validation: len(&self.data.parts.validation),
            test: len(&self.data.parts.test),
            skipped: self.data.skipped,
            first_step: self.first_step,
            steps: self.steps,
            epoch_steps: self.epoch_steps,
        }
    }

    fn loader(&self, range: Range<u64>, shuffle: bool, batch: usize, steps: Range<u64>, share: Share) -> Result<Loader> {
        let order = Order { range, shuffle: shuffle.then_some(self.config.seed), share };
        Loader::new(self.data.samples.clone(), order, self.session.tables().clone(), batch, steps, self.config.train.loader_threads)
    }

    /// One step.
    fn train(&mut self, batches: &mut Peekable<Loader>, observe: Observe<'_>) -> Result<()> {
        let began = Instant::now();
        let batch = match self.timed_step(batches, observe) {
            Some(batch) => batch?,
            None => {
                let ended = || Error::Data(format!("the samples ended at step {} of {}", self.step, self.steps));
                let batch = batches.next().ok_or_else(ended)??;
                self.announce(batches);
                self.session.train_step(self.step, &batch)?;
                batch
            }
        };
        self.step += 1;
        self.waits.begun(self.waited.load(Ordering::Relaxed));
        self.in_flight.push_back(batch.labels.clone());
        self.last_batch = Some(batch);
        self.trained += began.elapsed();
        self.settle(observe)
    }

    /// Says which rows come after those of the batch at hand, where that helps.
    fn announce(&mut self, batches: &mut Peekable<Loader>) {
        if self.session.has_host_tables()
            && let Some(Ok(next)) = batches.peek()
        {
            self.session.announce(next);
        }
    }

    /// One step with workers.
    fn train_together(&mut self, observe: Observe<'_>) -> Result<()> {
        let began = Instant::now();
        let train = &self.data.parts.train;
        let order = Order { range: train.clone(), shuffle: None, share: Share { rank: 0, world: self.config.workers.count } };
        let global = order.global_samples(self.config.train.batch, self.step);
        let stop = self.asked_to_stop();
        let done = match &mut self.stepper {
            Stepper::Alone => return Err(Error::Plan("a step of workers in a run without".into())),
            Stepper::Rank(rank) => rank.step(&mut self.session, self.step, global, stop),
            Stepper::Simulated(all) => all.step(&mut self.session, self.step, global, stop),
        };
        let done = match done {
            Ok(done) => done,
            Err(Failure::Error(error)) => return Err(error),
            Err(Failure::Gradient(bad)) => return Err(self.not_finite(self.step, f32::NAN, Some(bad.0))),
        };
        if !done.loss.is_finite() {
            return Err(self.not_finite(self.step, done.loss, None));
        }
        self.trained += began.elapsed();
        self.samples += done.samples;
        self.stop_agreed |= done.stop;
        self.meter.push(&done);
        let step = self.step;
        self.step += 1;
        self.finished = self.step;
        self.waits.begun(self.waited.load(Ordering::Relaxed));
        self.take_result(step, done.loss, &done.logits, &done.labels, observe)?;
        if self.fetched.elapsed() > results::FETCH_TIME {
            self.fetch(observe)?;
        }
        Ok(())
    }
}

/// Samples of all workers in a step.
fn global_batch(config: &Config) -> u64 {
    (config.train.batch as u64).saturating_mul(config.workers.count.max(1) as u64)
}
