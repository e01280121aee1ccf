//! One rank of several.

use super::{Ahead, Clock, Failure, Link, Stepped, gradients, stepped, timed};
use crate::data::Batch;
use crate::data::loader::Loader;
use crate::dist::exchange::{Exchange, Refused, Report, Scaled, Times};
use crate::dist::ledger::Ledger;
use crate::dist::team::Team;
use crate::error::{Error, Result};
use crate::session::{Session, StepResult};

/// One rank of several.
#[derive(Debug)]
pub(in crate::train) struct Rank {
    pub(in crate::train) team: Team,
    ahead: Option<Ahead>,
    times: Times,
    /// Bytes of the steps before.
    counted: Ledger,
}

struct RankLink<'a> {
    team: &'a mut Team,
}

impl Link for RankLink<'_> {
    fn exchange(&mut self) -> &mut Exchange {
        self.team.exchange()
    }
    fn refused(&self, refused: Refused) -> Error {
        self.team.refused("gradients", refused)
    }
    fn pump(&mut self) -> Result<()> {
        self.team.pump("gradients")
    }
    fn average(&mut self, step: u64, what: Scaled, own: &[f32]) -> Result<Option<Vec<f32>>> {
        let posted = self.team.exchange().post_scales(step, what, own);
        posted.map_err(|refused| self.team.refused("scales", refused))?;
        self.team.averaged(step, what).map(Some)
    }
}

impl Rank {
    pub(in crate::train) fn new(team: Team) -> Rank {
        Rank { team, ahead: None, times: Times::default(), counted: Ledger::default() }
    }

    /// Takes the batches of this rank; says which rows the first one touches.
    pub(in crate::train) fn begin(&mut self, session: &Session, batches: Loader, step: u64) -> Result<()> {
        let ahead = Ahead::new(batches)?;
        self.team.at_step(step);
        self.announce(session, step, ahead.next.as_ref())?;
        self.ahead = Some(ahead);
        Ok(())
    }

    fn announce(&mut self, session: &Session, step: u64, batch: Option<&Batch>) -> Result<()> {
        let Some(batch) = batch else { return Ok(()) };
        let posted = self.team.exchange().post_ids(step, session.touched_rows(batch));
        posted.map_err(|refused| self.team.refused("row ids", refused))?;
        self.team.pump("row ids")
    }

    pub(in crate::train) fn step(&mut self, session: &mut Session, step: u64, global: u64, stop: bool) -> Result<Stepped, Failure> {
        self.team.at_step(step);
        let Some(mut ahead) = self.ahead.take() else { return Err(Error::Plan("a step before its batches".into()).into()) };
        let batch = ahead.take(step)?;
        // The ids of the next step travel while this one is computed.
        self.announce(session, step + 1, ahead.next.as_ref())?;
        self.ahead = Some(ahead);
        let mut clock = Clock::default();
        let uniform = gradients(session, &mut RankLink { team: &mut self.team }, step, &batch, global, &mut clock)?;
        let result = pollster::block_on(session.history())?.pop().unwrap_or_else(|| StepResult { step, loss: 0.0, logits: Vec::new() });
        let report = Report { samples: batch.samples as u32, loss: result.loss, stop, times: self.times };
        let posted = self.team.exchange().post_report(step, report);
        posted.map_err(|refused| self.team.refused("reports", refused))?;
        let merging = self.team.merging();
        let merged = timed(&mut clock.wait, || self.team.merged(step))?;
        let merging = self.team.merging().saturating_sub(merging);
        clock.merge += merging;
        clock.wait = clock.wait.saturating_sub(merging);
        timed(&mut clock.compute, || session.apply(&merged, &uniform))?;
        self.times = clock.times();
        let counted = self.team.exchange().ledger();
        let bytes = counted.since(std::mem::replace(&mut self.counted, counted));
        Ok(stepped(&merged, result, &batch, bytes))
    }
}
