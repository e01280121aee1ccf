//! The loop itself.

use super::journal::{Journal, Report};
use super::window::{Window, report_every};
use super::{Assembled, Evaluation, Event, Facts, Options, Outcome, Progress, broken, device_text, folder};
use crate::checkpoint::{self, Checkpoint, State};
use crate::config::Config;
use crate::data::Batch;
use crate::data::loader::{Loader, Order, Share};
use crate::error::{Error, Result};
use crate::metrics::Summary;
use crate::session::Session;
use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Results are fetched at least this often.
const FETCH_TIME: Duration = Duration::from_millis(500);

/// Gets events.
type Observe<'o> = &'o mut dyn FnMut(&Event<'_>);

/// A run between its first and its last step.
pub(super) struct Trainer<'a> {
    config: &'a Config,
    options: &'a Options<'a>,
    data: Assembled,
    session: Session,
    journal: Journal,
    window: Window,
    /// Steps done.
    step: u64,
    first_step: u64,
    steps: u64,
    epoch_steps: u64,
    /// The best AUC on the validation part, and its step.
    best: Option<(f64, u64)>,
    /// The last AUC of a report.
    recent_auc: Option<f64>,
    /// Labels of the steps whose results are not fetched yet.
    in_flight: VecDeque<Vec<f32>>,
    last_batch: Option<Batch>,
    /// The step of the last checkpoint in the folder.
    saved: Option<u64>,
    fetched: Instant,
    trained: Duration,
    samples: u64,
}

impl<'a> Trainer<'a> {
    /// A run at its beginning, or where `state` says.
    pub(super) fn new(
        config: &'a Config,
        options: &'a Options<'a>,
        data: Assembled,
        mut session: Session,
        state: Option<State>,
    ) -> Result<Self> {
        let epoch_steps = (data.parts.train.end - data.parts.train.start).div_ceil(config.train.batch as u64);
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
        Ok(Trainer {
            best: if state.is_some() { best_so_far(&options.dir)? } else { None },
            journal: Journal::open(&options.dir.join(folder::METRICS), lines)?,
            saved: state.map(|s| s.step),
            recent_auc: None,
            in_flight: VecDeque::new(),
            last_batch: None,
            fetched: Instant::now(),
            trained: Duration::ZERO,
            samples: 0,
            first_step: step,
            config,
            options,
            data,
            session,
            window,
            step,
            steps,
            epoch_steps,
        })
    }

    /// Trains to the end and evaluates the test part.
    pub(super) fn run(mut self, observe: Observe<'_>) -> Result<Outcome> {
        observe(&Event::Ready(&self.facts()));
        let mut validation = None;
        let mut batches =
            self.loader(self.data.parts.train.clone(), self.config.data.shuffle, self.config.train.batch, self.step..self.steps)?;
        loop {
            let (epoch_end, last) = (self.due(self.epoch_steps), self.step == self.steps);
            let evaluate = epoch_end || self.due(self.config.train.eval_every);
            let save = epoch_end || last || self.due(self.config.train.checkpoint_every);
            if evaluate || save || self.stopped() {
                self.fetch(observe)?;
            }
            if self.stopped() {
                return Err(self.interrupted(observe));
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
            self.train(&mut batches, observe)?;
        }
        self.finish(validation, observe)
    }

    /// True at every multiple of `every` steps but the first.
    fn due(&self, every: u64) -> bool {
        self.step > 0 && every > 0 && self.step.is_multiple_of(every)
    }

    fn stopped(&self) -> bool {
        self.options.stop.load(Ordering::Relaxed)
    }

    fn facts(&self) -> Facts {
        let len = |range: &Range<u64>| range.end - range.start;
        Facts {
            dir: self.options.dir.clone(),
            device: self.session.device().clone(),
            shape: self.data.shape.clone(),
            train: len(&self.data.parts.train),
            validation: len(&self.data.parts.validation),
            test: len(&self.data.parts.test),
            skipped: self.data.skipped,
            first_step: self.first_step,
            steps: self.steps,
            epoch_steps: self.epoch_steps,
        }
    }

    fn loader(&self, range: Range<u64>, shuffle: bool, batch: usize, steps: Range<u64>) -> Result<Loader> {
        let order = Order { range, shuffle: shuffle.then_some(self.config.seed), share: Share::default() };
        Loader::new(self.data.samples.clone(), order, self.session.tables().clone(), batch, steps, self.config.train.loader_threads)
    }

    /// One step.
    fn train(&mut self, batches: &mut Loader, observe: Observe<'_>) -> Result<()> {
        let began = Instant::now();
        let batch = batches.next().ok_or_else(|| Error::Data(format!("the samples ended at step {} of {}", self.step, self.steps)))??;
        self.session.train_step(self.step, &batch)?;
        self.step += 1;
        self.samples += batch.samples as u64;
        self.in_flight.push_back(batch.labels.clone());
        self.last_batch = Some(batch);
        self.trained += began.elapsed();
        if self.in_flight.len() >= Session::RING / 2 || self.fetched.elapsed() > FETCH_TIME {
            self.fetch(observe)?;
        }
        Ok(())
    }

    /// Fetches the results of the steps in flight, checks their losses and reports.
    fn fetch(&mut self, observe: Observe<'_>) -> Result<()> {
        let began = Instant::now();
        let results = pollster::block_on(self.session.history())?;
        self.trained += began.elapsed();
        self.fetched = Instant::now();
        for result in results {
            let labels = self.in_flight.pop_front().unwrap_or_default();
            if !result.loss.is_finite() {
                return Err(self.not_finite(result.step, result.loss, None));
            }
            self.window.push(result.loss, &result.logits, &labels);
            if (result.step + 1).is_multiple_of(report_every(self.config.train.batch)) {
                self.recent_auc = self.window.auc();
                let progress = self.progress(result.step + 1);
                let lr = self.config.optim.lr_at(result.step);
                self.journal.add(&Report::new(&progress, self.epoch_steps, lr))?;
                observe(&Event::Progress(&progress));
                self.window.clear();
            }
        }
        if !self.window.is_empty() {
            observe(&Event::Progress(&self.progress(self.step)));
        }
        Ok(())
    }

    /// How far the run is after `step` steps, of which the last few done may still be in flight.
    fn progress(&self, step: u64) -> Progress {
        let rate = self.rate();
        let done = (self.step - self.first_step).max(1) as f64;
        Progress {
            step,
            steps: self.steps,
            epoch: running_epoch(step, self.epoch_steps),
            loss: self.window.loss(),
            auc: self.recent_auc,
            samples_per_second: rate,
            seconds_left: (self.steps - step) as f64 * self.trained.as_secs_f64() / done,
        }
    }

    fn rate(&self) -> f64 {
        if self.samples == 0 { 0.0 } else { self.samples as f64 / self.trained.as_secs_f64().max(1e-9) }
    }

    /// Evaluates a part of the data; `None` when it is empty. A request to stop ends it early.
    fn part(&mut self, name: &str, range: Range<u64>) -> Result<Option<Evaluation>> {
        if range.is_empty() {
            return Ok(None);
        }
        let batch = self.config.train.eval_batch as u64;
        let batches = self.loader(range.clone(), false, batch as usize, 0..(range.end - range.start).div_ceil(batch))?;
        self.session.begin_evaluation()?;
        let (mut logits, mut labels) = (Vec::new(), Vec::new());
        for batch in batches {
            let batch = batch?;
            logits.extend(pollster::block_on(self.session.logits(&batch))?);
            labels.extend(&batch.labels);
            if self.stopped() {
                return Ok(None);
            }
        }
        if let Some(bad) = logits.iter().find(|l| !l.is_finite()) {
            return Err(self.not_finite(self.step.saturating_sub(1), *bad, None));
        }
        Ok(Some(Evaluation::new(name, self.step, self.epoch_steps, Summary::from_logits(&logits, &labels))))
    }

    /// Evaluates the validation part and keeps the weights when they are the best so far. The best
    /// is chosen among the evaluations that the settings ask for; one where the run is cut short
    /// (`provisional`) counts only while there is no other, so that a run made longer later gives
    /// what it would have given in one piece. Weights that were never quantized are not candidates, unless
    /// the run ends before it quantizes.
    fn validate(&mut self, provisional: bool, observe: Observe<'_>) -> Result<Option<Evaluation>> {
        let result = self.part("validation", self.data.parts.validation.clone())?;
        if self.stopped() {
            return Err(self.interrupted(observe));
        }
        let Some(evaluation) = result else { return Ok(None) };
        let pretraining = self.session.pretraining();
        let provisional = provisional || pretraining;
        let candidate = !pretraining || self.step == self.steps;
        let better = |auc: f64| candidate && self.best.is_none_or(|(best, _)| auc > best && !provisional);
        if let Some(auc) = evaluation.summary.auc.filter(|&auc| better(auc)) {
            self.write(folder::BEST, Some((auc, provisional)), observe)?;
            self.best = Some((auc, self.step));
        }
        self.journal.evaluation(&evaluation)?;
        observe(&Event::Evaluated(&evaluation));
        Ok(Some(evaluation))
    }

    /// Writes `last.safetensors`.
    fn save(&mut self, observe: Observe<'_>) -> Result<()> {
        self.write(folder::LAST, None, observe)?;
        self.saved = Some(self.step);
        Ok(())
    }

    fn write(&mut self, name: &str, measured: Option<(f64, bool)>, observe: Observe<'_>) -> Result<()> {
        let path = self.options.dir.join(name);
        let state = State {
            step: self.step,
            epoch: self.step / self.epoch_steps,
            lines: self.journal.lines,
            validation_auc: measured.map(|(auc, _)| auc),
            provisional: measured.is_some_and(|(_, provisional)| provisional),
            shape: self.data.shape.clone(),
            extra: if measured.is_none() { self.window.tensors() } else { Vec::new() },
        };
        if let Err(bad) = checkpoint::write(&path, &mut self.session, &state)? {
            let place = format!("`{}` (value {} is {})", bad.tensor, bad.index, bad.value);
            return Err(self.not_finite(self.step.saturating_sub(1), f32::NAN, Some(place)));
        }
        observe(&Event::Saved { path: &path, step: self.step });
        Ok(())
    }

    /// Saves, and says how to go on.
    fn interrupted(&mut self, observe: Observe<'_>) -> Error {
        if self.saved != Some(self.step)
            && let Err(error) = self.save(observe)
        {
            return error;
        }
        let dir = self.options.dir.display();
        let (step, steps) = (self.step, self.steps);
        Error::Interrupted(format!("interrupted after step {step} of {steps}; everything is saved, go on with `dqrm train --resume {dir}`"))
    }

    /// The error for a loss or a weight that is not finite.
    fn not_finite(&mut self, step: u64, loss: f32, buffer: Option<String>) -> Error {
        let last = self.last_batch.take();
        let found = || pollster::block_on(self.session.first_not_finite(last.as_ref()));
        let buffer = match buffer.map_or_else(found, |b| Ok(Some(b))) {
            Ok(buffer) => buffer.unwrap_or_else(|| "not among the buffers that still exist".into()),
            Err(error) => return error,
        };
        let (path, lr) = (self.options.dir.join(folder::LAST), self.config.optim.lr);
        let kept = match self.saved {
            Some(step) => format!("The last good checkpoint, `{}` (step {step}), is kept", path.display()),
            None => "No checkpoint had been written yet".into(),
        };
        Error::NotFinite {
            step,
            loss,
            buffer,
            kept: format!("{kept}; try a smaller learning rate than {lr} (--lr) or a warm-up (optim.warmup_steps)"),
        }
    }

    /// Evaluates the test part with the last and with the best weights.
    fn finish(mut self, validation: Option<Evaluation>, observe: Observe<'_>) -> Result<Outcome> {
        let test = self.data.parts.test.clone();
        let end = self.part("test", test.clone())?;
        if self.stopped() {
            return Err(self.interrupted(observe));
        }
        let best = match (self.best, &end) {
            (Some((_, step)), Some(end)) if step == self.step => Some(Evaluation { part: "test at best validation".into(), ..end.clone() }),
            (Some((_, step)), Some(_)) => {
                Checkpoint::open(&self.options.dir.join(folder::BEST))?.load_inference(&mut self.session)?;
                let at_end = std::mem::replace(&mut self.step, step);
                let best = self.part("test at best validation", test.clone())?;
                self.step = at_end;
                best
            }
            _ => None,
        };
        if self.stopped() {
            return Err(self.interrupted(observe));
        }
        for evaluation in end.iter().chain(&best) {
            self.journal.evaluation(evaluation)?;
            observe(&Event::Evaluated(evaluation));
        }
        Ok(Outcome {
            dir: self.options.dir.clone(),
            device: device_text(self.session.device()),
            steps: self.steps,
            teacher_auc: self.data.teacher_auc(test)?,
            fp32_bytes: self.data.shape.fp32_bytes(),
            packed_bytes: self.data.shape.packed_bytes(&self.config.quant),
            samples_per_second: self.rate(),
            skipped_rows: self.data.skipped,
            best_validation_auc: self.best.map(|b| b.0),
            validation,
            end,
            best,
        })
    }
}

/// The epoch of the last of `step` steps, the first is 0.
fn running_epoch(step: u64, epoch_steps: u64) -> u64 {
    step.saturating_sub(1) / epoch_steps.max(1)
}

/// What `best.safetensors` says of itself, unless it was only provisional.
fn best_so_far(dir: &Path) -> Result<Option<(f64, u64)>> {
    let path = dir.join(folder::BEST);
    if !path.exists() {
        return Ok(None);
    }
    let header = Checkpoint::open(&path)?.header;
    Ok(header.validation_auc.filter(|_| !header.provisional).map(|auc| (auc, header.step)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_runs_until_its_last_step_is_done() {
        assert_eq!([0, 1, 10, 11, 20, 21].map(|step| running_epoch(step, 10)), [0, 0, 0, 1, 1, 2]);
    }
}
