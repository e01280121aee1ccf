//! Checkpoints of a run, and what is said when it cannot go on.

use super::{Observe, Trainer};
use crate::checkpoint::{self, Checkpoint, State};
use crate::config::Checkpoints;
use crate::error::{Error, Result};
use crate::train::{Event, folder};
use std::path::Path;

impl Trainer<'_> {
    /// Writes `last.safetensors`.
    pub(super) fn save(&mut self, observe: Observe<'_>) -> Result<()> {
        if self.config.train.checkpoints == Checkpoints::None {
            return Ok(());
        }
        // A checkpoint of replicas that have come apart must not replace one of replicas that had not.
        self.compare(Some(self.step))?;
        self.write(folder::LAST, None, observe)?;
        self.saved = Some(self.step);
        Ok(())
    }

    pub(super) fn write(&mut self, name: &str, measured: Option<(f64, bool)>, observe: Observe<'_>) -> Result<()> {
        const PHASE: &str = "checkpoint";
        let path = self.options.dir.join(name);
        let mut extra = Vec::new();
        if measured.is_none() {
            extra = self.window.tensors();
            extra.extend(self.stepper.errors(&mut self.session)?);
        }
        let Some(journal) = &self.journal else {
            // rank 0 writes; whoever goes on before it has, might lose more than one checkpoint
            return self.stepper.team().map_or(Ok(()), |team| team.barrier(PHASE));
        };
        let state = State {
            step: self.step,
            workers: self.config.workers.count as u64,
            epoch: self.step / self.epoch_steps,
            lines: journal.lines,
            validation_auc: measured.map(|(auc, _)| auc),
            provisional: measured.is_some_and(|(_, provisional)| provisional),
            shape: self.data.shape.clone(),
            extra,
        };
        if let Err(bad) = checkpoint::write(&path, &mut self.session, &state)? {
            let place = format!("`{}` (value {} is {})", bad.tensor, bad.index, bad.value);
            return Err(self.not_finite(self.step.saturating_sub(1), f32::NAN, Some(place)));
        }
        observe(&Event::Saved { path: &path, step: self.step });
        self.stepper.team().map_or(Ok(()), |team| team.barrier(PHASE))
    }

    /// Saves, and says how to go on.
    pub(super) fn interrupted(&mut self, observe: Observe<'_>) -> Error {
        if self.saved != Some(self.step)
            && let Err(error) = self.save(observe)
        {
            return error;
        }
        let dir = self.options.dir.display();
        let (step, steps) = (self.step, self.steps);
        if self.saved != Some(step) {
            return Error::Interrupted(format!(
                "interrupted after step {step} of {steps}; nothing is saved, as train.checkpoints is \"none\""
            ));
        }
        Error::Interrupted(format!("interrupted after step {step} of {steps}; everything is saved, go on with `dqrm train --resume {dir}`"))
    }

    /// The error for a loss or a weight that is not finite.
    pub(super) fn not_finite(&mut self, step: u64, loss: f32, buffer: Option<String>) -> Error {
        let last = self.last_batch.take();
        let found = || {
            pollster::block_on(self.session.history())?; // of the steps after the one that went wrong
            pollster::block_on(self.session.first_not_finite(last.as_ref()))
        };
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
}

/// What `best.safetensors` says of itself, unless it was only provisional; its step as `moved` says, which gets the step
/// and the number of workers.
pub(in crate::train) fn best_so_far(dir: &Path, moved: &dyn Fn(u64, u64) -> u64) -> Result<Option<(f64, u64)>> {
    let path = dir.join(folder::BEST);
    if !path.exists() {
        return Ok(None);
    }
    let header = Checkpoint::open(&path)?.header;
    Ok(header.validation_auc.filter(|_| !header.provisional).map(|auc| (auc, moved(header.step, header.workers))))
}
