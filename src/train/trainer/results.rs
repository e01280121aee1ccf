//! Results of steps as they arrive: checked, kept for the next report, told. Nobody waits for them while a run goes on.

use super::{Observe, Trainer, global_batch};
use crate::error::Result;
use crate::session::{Session, StepResult};
use crate::train::journal::Report;
use crate::train::stepper::Stepper;
use crate::train::window::report_every;
use crate::train::{Event, Progress};
use std::time::{Duration, Instant};

/// Where steps are slow, a read of results is begun at least this often.
pub(super) const FETCH_TIME: Duration = Duration::from_millis(500);

impl Trainer<'_> {
    /// Takes in what has arrived, and begins to read more when it is due.
    pub(super) fn settle(&mut self, observe: Observe<'_>) -> Result<()> {
        let began = Instant::now();
        let long = self.fetched.elapsed() > FETCH_TIME;
        let results = pollster::block_on(self.session.settled(if long { 1 } else { Session::RING / 2 }))?;
        self.trained += began.elapsed();
        if long {
            self.fetched = Instant::now();
        }
        match results.is_empty() {
            true => Ok(()),
            false => self.take_results(results, observe),
        }
    }

    /// Waits for the results of all steps begun, and takes them in.
    pub(super) fn fetch(&mut self, observe: Observe<'_>) -> Result<()> {
        let began = Instant::now();
        let results = pollster::block_on(self.session.history())?;
        self.trained += began.elapsed();
        self.take_results(results, observe)
    }

    /// Checks losses and reports.
    fn take_results(&mut self, results: Vec<StepResult>, observe: Observe<'_>) -> Result<()> {
        self.fetched = Instant::now();
        self.finished += results.len() as u64;
        self.samples += self.in_flight.iter().take(results.len()).map(|labels| labels.len() as u64).sum::<u64>();
        for result in results {
            let labels = self.in_flight.pop_front().unwrap_or_default();
            if !result.loss.is_finite() {
                return Err(self.not_finite(result.step, result.loss, None));
            }
            self.take_result(result.step, result.loss, &result.logits, &labels, observe)?;
        }
        if !self.window.is_empty() {
            observe(&Event::Progress(&self.progress(self.finished)));
        }
        Ok(())
    }

    /// Takes in the result of a step; reports when enough have come together.
    pub(super) fn take_result(&mut self, step: u64, loss: f32, logits: &[f32], labels: &[f32], observe: Observe<'_>) -> Result<()> {
        self.window.push(loss, logits, labels);
        self.waits.arrived();
        if (step + 1).is_multiple_of(report_every(global_batch(self.config) as usize)) {
            self.recent_auc = self.window.auc();
            let progress = self.progress(step + 1);
            let lr = self.config.optim.lr_at(step) * self.config.workers.lr_factor();
            if let Some(journal) = &mut self.journal {
                journal.add(&Report::new(&progress, self.epoch_steps, lr))?;
            }
            observe(&Event::Progress(&progress));
            self.window.clear();
            self.meter.clear();
            self.waits.reported();
        }
        Ok(())
    }

    /// How far the run is after `step` steps, of those whose results are here.
    fn progress(&self, step: u64) -> Progress {
        let rate = self.rate();
        let (played, network) = match &self.stepper {
            Stepper::Simulated(all) => (self.config.workers.count, all.network),
            _ => (1, None),
        };
        let done = self.finished.saturating_sub(self.first_step).max(1) as f64;
        Progress {
            step,
            steps: self.steps,
            epoch: running_epoch(step, self.epoch_steps),
            loss: self.window.loss(),
            auc: self.recent_auc,
            samples_per_second: rate,
            data_wait_ms: self.waits.mean_ms(),
            seconds_left: (self.steps - step) as f64 * self.trained.as_secs_f64() / done,
            exchange: self.meter.mean(&self.data.shape, played, network),
        }
    }

    /// Samples a second; those of steps that are only queued do not count.
    pub(super) fn rate(&self) -> f64 {
        if self.samples == 0 { 0.0 } else { self.samples as f64 / self.trained.as_secs_f64().max(1e-9) }
    }
}

/// The epoch of the last of `step` steps, the first is 0.
fn running_epoch(step: u64, epoch_steps: u64) -> u64 {
    step.saturating_sub(1) / epoch_steps.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_runs_until_its_last_step_is_done() {
        assert_eq!([0, 1, 10, 11, 20, 21].map(|step| running_epoch(step, 10)), [0, 0, 0, 1, 1, 2]);
    }
}
