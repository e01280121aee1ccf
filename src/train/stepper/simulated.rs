//! Several logical workers on one device, one after another.

use super::{Ahead, Clock, Failure, Link, Stepped, gradients, stepped, timed};
use crate::data::Batch;
use crate::data::loader::Loader;
use crate::dist::exchange::{Exchange, Refused, Report, Scaled, Times};
use crate::dist::frame::Limits;
use crate::dist::hub;
use crate::dist::ledger::Ledger;
use crate::dist::team;
use crate::dist::transport::network::Network;
use crate::error::{Error, Result};
use crate::session::{Session, StepResult};

/// Several logical workers on one device, with the arithmetic of real ones.
#[derive(Debug)]
pub(in crate::train) struct Simulated {
    pub(super) exchanges: Vec<Exchange>,
    limits: Limits,
    /// What each worker did not send yet of its MLP gradients.
    pub(in crate::train) errors: Vec<Vec<f32>>,
    ahead: Vec<Ahead>,
    times: Vec<Times>,
    /// The network that is asked about.
    pub(in crate::train) network: Option<Network>,
}

struct SimulatedLink<'a> {
    exchange: &'a mut Exchange,
    /// Only scales are collected in this pass.
    scales_only: bool,
}

impl Link for SimulatedLink<'_> {
    fn exchange(&mut self) -> &mut Exchange {
        self.exchange
    }
    fn refused(&self, refused: Refused) -> Error {
        refused_among_ourselves(refused)
    }
    fn pump(&mut self) -> Result<()> {
        Ok(())
    }
    fn average(&mut self, step: u64, what: Scaled, own: &[f32]) -> Result<Option<Vec<f32>>> {
        if self.scales_only {
            self.exchange.post_scales(step, what, own).map_err(refused_among_ourselves)?;
            return Ok(None);
        }
        Ok(self.exchange.averaged(step, what))
    }
}

fn refused_among_ourselves(refused: Refused) -> Error {
    Error::Plan(format!("logical worker {} {}", refused.rank, refused.reason))
}

impl Simulated {
    pub(in crate::train) fn new(exchanges: Vec<Exchange>, errors: Vec<Vec<f32>>, network: Option<Network>) -> Simulated {
        let times = vec![Times::default(); exchanges.len()];
        let limits = exchanges.first().map_or_else(Limits::none, team::limits);
        Simulated { exchanges, limits, errors, ahead: Vec::new(), times, network }
    }

    /// Takes the batches of each worker.
    pub(in crate::train) fn begin(&mut self, batches: Vec<Loader>) -> Result<()> {
        self.ahead = batches.into_iter().map(Ahead::new).collect::<Result<_>>()?;
        Ok(())
    }

    /// Carries frames between the workers until nobody has anything to say.
    fn deliver(&mut self, clocks: &mut [Clock]) -> Result<()> {
        let accept = |exchange: &mut Exchange, to: usize, from, frame| timed(&mut clocks[to].merge, || exchange.accept(from, frame));
        hub::deliver(&mut self.exchanges, &self.limits, accept).map_err(refused_among_ourselves)
    }

    pub(in crate::train) fn step(&mut self, session: &mut Session, step: u64, global: u64, stop: bool) -> Result<Stepped, Failure> {
        let world = self.exchanges.len();
        let before: Vec<Ledger> = self.exchanges.iter().map(Exchange::ledger).collect();
        let batches: Vec<Batch> = self.ahead.iter_mut().map(|ahead| ahead.take(step)).collect::<Result<_>>()?;
        for (exchange, batch) in self.exchanges.iter_mut().zip(&batches) {
            exchange.post_ids(step, session.touched_rows(batch)).map_err(refused_among_ourselves)?;
        }
        let mut clocks = vec![Clock::default(); world];
        self.deliver(&mut clocks)?;
        let mut uniform = None;
        let mut logits = Vec::new();
        // In the published mode nobody can quantize before all scales are known: what was computed is computed again.
        let passes: &[bool] = if self.exchanges[0].is_published() { &[true, false] } else { &[false] };
        for &scales_only in passes {
            logits.clear();
            for rank in 0..world {
                if let Some(errors) = self.errors.get(rank) {
                    session.set_gradient_errors(errors)?;
                }
                let mut link = SimulatedLink { exchange: &mut self.exchanges[rank], scales_only };
                uniform = Some(gradients(session, &mut link, step, &batches[rank], global, &mut clocks[rank])?);
                let result = pollster::block_on(session.history())?.pop();
                let result = result.unwrap_or_else(|| StepResult { step, loss: 0.0, logits: Vec::new() });
                if !scales_only {
                    if let Some(errors) = self.errors.get_mut(rank) {
                        *errors = pollster::block_on(session.gradient_errors())?.unwrap_or_default();
                    }
                    let report = Report { samples: batches[rank].samples as u32, loss: result.loss, stop, times: self.times[rank] };
                    self.exchanges[rank].post_report(step, report).map_err(refused_among_ourselves)?;
                }
                logits.extend(result.logits);
            }
            self.deliver(&mut clocks)?;
        }
        let mut first = None;
        for (exchange, clock) in self.exchanges.iter_mut().zip(&mut clocks) {
            let merged = timed(&mut clock.merge, || exchange.take(step)).map_err(refused_among_ourselves)?;
            let merged = merged.ok_or_else(|| Error::Plan("a logical worker lacks gradients".into()))?;
            match &first {
                None => first = Some(merged),
                Some(first) if *first == merged => {}
                Some(_) => return Err(Error::Plan("logical workers came to different sums".into()).into()),
            }
        }
        let (Some(merged), Some(uniform)) = (first, uniform) else { return Err(Error::Plan("no logical workers".into()).into()) };
        timed(&mut clocks[0].compute, || session.apply(&merged, &uniform))?;
        self.times = clocks.iter().map(Clock::times).collect();
        let bytes = self.exchanges.iter().zip(before).map(|(e, b)| e.ledger().since(b)).fold(Ledger::default(), Ledger::plus);
        let mut done = stepped(&merged, StepResult { step, loss: 0.0, logits }, &batches[0], bytes);
        done.labels = batches.into_iter().flat_map(|b| b.labels).collect();
        Ok(done)
    }
}
