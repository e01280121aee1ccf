//! Which phases a step and an evaluation consist of: when weights are quantized, and when scales are made.

use super::Session;
use crate::config::Method;
use crate::error::{Error, Result};
use crate::plan::StepUniform;
use crate::step::phase;

impl Session {
    /// Steps below `steps` train in FP32, the others quantized. Needed where `quant.pretrain_epochs` is not 0,
    /// since a session does not know how many steps an epoch has; without it every step quantizes.
    ///
    /// # Errors
    /// A session whose settings do not begin in FP32.
    pub fn set_pretrain_steps(&mut self, steps: u64) -> Result<()> {
        if steps > 0 && !self.config.quant.pretrains() {
            return Err(Error::Config(format!(
                "{steps} steps in FP32 were asked for, but quant.pretrain_epochs is 0 or nothing is quantized"
            )));
        }
        self.pretrain_steps = steps;
        Ok(())
    }

    /// True in a run that begins in FP32 until its first quantized step. Evaluations are in FP32 until then.
    pub fn pretraining(&self) -> bool {
        self.config.quant.pretrains() && !self.quantizing
    }

    /// Some scale that is kept does not exist yet.
    fn lacks_scales(&self) -> bool {
        self.scaled.values().flatten().any(|known| !known)
    }

    /// The refresh, with what it needs from the host in its place.
    fn refresh_phase(&mut self) -> Result<usize> {
        self.upload_largest()?;
        self.phase(phase::REFRESH)
    }

    fn mark_scaled(&mut self) {
        self.scaled.values_mut().for_each(|known| known.fill(true));
    }

    /// What training step number `step` runs.
    pub(super) fn step_phases(&mut self, step: u64) -> Result<Vec<usize>> {
        let mut phases = self.gradient_phases(step)?;
        phases.push(self.phase(phase::UPDATE)?);
        phases.extend(self.phase(phase::LEARN).ok().filter(|_| !self.in_full_precision(step)));
        Ok(phases)
    }

    /// True for the steps that train in FP32 before quantization begins.
    pub(super) fn in_full_precision(&self, step: u64) -> bool {
        step < self.pretrain_steps
    }

    /// The part of it up to the first gradients.
    pub(super) fn gradient_phases(&mut self, step: u64) -> Result<Vec<usize>> {
        if self.in_full_precision(step) {
            return Ok(vec![self.phase(phase::FULL_GRADIENTS)?]);
        }
        if let Some(view) = self.recorded.quantizing.filter(|_| !self.quantizing) {
            self.engine.write(view, &[1f32.to_bits()])?;
            self.quantizing = true;
        }
        let mut phases = Vec::new();
        if self.config.quant.refresh_every().is_some_and(|period| step.is_multiple_of(period)) || self.lacks_scales() {
            phases.push(self.refresh_phase()?);
            self.mark_scaled();
        }
        phases.push(self.phase(phase::GRADIENTS)?);
        Ok(phases)
    }

    /// Quantizes the MLPs from the current weights for the evaluations that follow. Table scales stay those
    /// of the last training step; they are computed only if none exists yet, and always in method `ptq`.
    /// Nothing is quantized while [`Session::pretraining`].
    pub fn begin_evaluation(&mut self) -> Result<()> {
        if self.pretraining() {
            return Ok(());
        }
        let quant = &self.config.quant;
        let fresh = quant.method == Method::Ptq && quant.has_table_scales();
        let mut phases = Vec::new();
        if fresh || self.lacks_scales() {
            phases.push(self.refresh_phase()?);
            self.mark_scaled();
        }
        phases.push(self.phase(phase::QUANTIZE)?);
        self.engine.run(&phases, &StepUniform::evaluate(1, 0))
    }

    /// Recomputes the tables' scales from the current weights, whatever the period says. Scales that are
    /// learned, and those of rows, stay as they are; first ones are made where there are none.
    pub fn refresh_scales(&mut self) -> Result<()> {
        let quant = &self.config.quant;
        let due = if quant.method == Method::Lsq { self.lacks_scales() } else { quant.has_table_scales() };
        if due {
            let phase = self.refresh_phase()?;
            self.engine.run(&[phase], &StepUniform::evaluate(1, 0))?;
            self.mark_scaled();
        }
        Ok(())
    }
}
