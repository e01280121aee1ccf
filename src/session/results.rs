//! What steps left on the device, and how it comes to the host without anybody waiting for it.
//!
//! A step writes its loss and its logits to its slot of two rings. A read of the slots in use is begun now and arrives
//! later; its copy lies between steps in the order of submissions, so the slots are free for the steps that follow at once.

use super::{Session, floats};
use crate::engine::{Engine, Reading};
use crate::error::{Error, Result};
use crate::plan::View;
use std::collections::VecDeque;

/// What a finished step left behind.
#[derive(Debug, Clone, PartialEq)]
pub struct StepResult {
    /// Step number.
    pub step: u64,
    /// Mean loss of its batch, before its update.
    pub loss: f32,
    /// Logits of its batch, before its update.
    pub logits: Vec<f32>,
}

/// Reads that may be under way before one of them is waited for.
const READS: usize = 2;

/// Number and samples of a step.
type Step = (u64, usize);

/// A read of the slots of some steps, from slot 0 on.
#[derive(Debug)]
struct UnderWay {
    steps: Vec<Step>,
    reading: Box<dyn Reading>,
}

/// Results from the step on that writes them until somebody takes them.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// Steps in the rings, by slot.
    pending: Vec<Step>,
    /// Reads, the oldest first.
    under_way: VecDeque<UnderWay>,
    /// In order.
    arrived: Vec<StepResult>,
}

impl Results {
    /// Whether the rings can take a step.
    pub(super) fn check_room(&self) -> Result<()> {
        match self.pending.len() < Session::RING {
            true => Ok(()),
            false => Err(Error::Plan(format!("{} steps without reading their results", Session::RING))),
        }
    }

    /// The slot of the next step.
    pub(super) fn slot(&self) -> u32 {
        self.pending.len() as u32
    }

    /// A step was submitted.
    pub(super) fn push(&mut self, step: u64, samples: usize) {
        self.pending.push((step, samples));
    }

    /// Steps whose results nobody has taken.
    pub(super) fn unread(&self) -> usize {
        self.pending.len() + self.under_way.iter().map(|read| read.steps.len()).sum::<usize>() + self.arrived.len()
    }

    /// Begins to read all slots in use.
    fn begin(&mut self, engine: &mut dyn Engine, losses: View, logits: View) -> Result<()> {
        if !self.pending.is_empty() {
            let (count, stride) = (self.pending.len(), logits.len / losses.len);
            let reading = engine.begin_read(&[View { len: count, ..losses }, View { len: count * stride, ..logits }])?;
            self.under_way.push_back(UnderWay { steps: std::mem::take(&mut self.pending), reading });
        }
        Ok(())
    }

    /// Whether the oldest read is there; false without one.
    fn is_there(&mut self) -> Result<bool> {
        self.under_way.front_mut().map_or(Ok(false), |read| read.reading.ready())
    }

    /// Takes in the oldest read, after waiting for it.
    async fn arrive(&mut self) -> Result<()> {
        let Some(UnderWay { steps, reading }) = self.under_way.front_mut() else { return Ok(()) };
        reading.wait().await?;
        let words = reading.words()?;
        let (losses, logits) = words.split_at(steps.len());
        let of_steps = steps.iter().zip(losses).zip(logits.chunks_exact(logits.len() / steps.len()));
        self.arrived.extend(of_steps.map(|((&(step, samples), &loss), logits)| StepResult {
            step,
            loss: f32::from_bits(loss),
            logits: floats(&logits[..samples]),
        }));
        self.under_way.pop_front();
        Ok(())
    }
}

impl Session {
    /// Results of all steps since the last ones that were given, in order. Waits for the device.
    ///
    /// # Errors
    /// A lost device, a command that it refused.
    pub async fn history(&mut self) -> Result<Vec<StepResult>> {
        self.results.begin(self.engine.as_mut(), self.recorded.loss_ring, self.recorded.logit_ring)?;
        while !self.results.under_way.is_empty() {
            self.results.arrive().await?;
        }
        Ok(std::mem::take(&mut self.results.arrived))
    }

    /// Results that are there, of the oldest steps since the last ones that were given, in order; the same that
    /// [`Session::history`] would give. Begins to read the steps' results once there are `least` of them (at most half of
    /// [`Session::RING`]), and waits only where two earlier reads are not there by then. So, called after each
    /// step, it gives a result at most one and a half times [`Session::RING`] steps late, with a smaller `least` at most 3 `least`.
    ///
    /// # Errors
    /// A lost device, a command that it refused.
    pub async fn settled(&mut self, least: usize) -> Result<Vec<StepResult>> {
        if self.results.pending.len() >= least.clamp(1, Session::RING / 2) {
            while self.results.under_way.len() >= READS {
                self.results.arrive().await?;
            }
            self.results.begin(self.engine.as_mut(), self.recorded.loss_ring, self.recorded.logit_ring)?;
        }
        while self.results.is_there()? {
            self.results.arrive().await?;
        }
        Ok(std::mem::take(&mut self.results.arrived))
    }
}
