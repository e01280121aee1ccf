//! How a step is made: alone, as one rank of several, or as several logical workers one after another on one
//! device.

use super::ranks::{self, Ranks, Resumed};
use super::{Assembled, Start};
use crate::config::Config;
use crate::data::Batch;
use crate::data::loader::{Loader, Share};
use crate::dist::exchange::{Exchange, Merged, Refused, Scaled, Seat, Times};
use crate::dist::layout::{Layout, Part};
use crate::dist::ledger::Ledger;
use crate::dist::rows::Coded;
use crate::dist::team::Team;
use crate::error::{Error, Result};
use crate::session::{Session, Stage, StepResult};
use std::time::{Duration, Instant};

mod rank;
mod simulated;

use rank::Rank;
use simulated::Simulated;

/// What a step of workers left.
#[derive(Debug, Default)]
pub(super) struct Stepped {
    /// The mean loss of the global batch.
    pub(super) loss: f32,
    /// Samples of the global batch.
    pub(super) samples: u64,
    /// Logits and labels of this process's part of it.
    pub(super) logits: Vec<f32>,
    pub(super) labels: Vec<f32>,
    /// Some rank was asked to stop.
    pub(super) stop: bool,
    /// Rows that any rank touched, and the sum of what each touched.
    pub(super) union: u64,
    pub(super) touched: u64,
    /// Times of every rank's last step.
    pub(super) times: Vec<Times>,
    /// This process's bytes: of one rank, or of all logical workers.
    pub(super) bytes: Ledger,
}

/// A gradient that is not finite: what it is of.
#[derive(Debug)]
pub(super) struct BadGradient(pub(super) String);

/// Either kind of failure of a step.
#[derive(Debug)]
pub(super) enum Failure {
    /// Anything.
    Error(Error),
    /// This worker's own gradient is not finite.
    Gradient(BadGradient),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Error(error)
    }
}

/// Where a worker's gradients go, and the scales that it quantizes with come from.
trait Link {
    fn exchange(&mut self) -> &mut Exchange;
    /// A refusal as an error.
    fn refused(&self, refused: Refused) -> Error;
    /// Lets frames come and go, while there is other work to do.
    fn pump(&mut self) -> Result<()>;
    /// The mean of all ranks' scales; `None` when this pass is only for the scales.
    fn average(&mut self, step: u64, what: Scaled, own: &[f32]) -> Result<Option<Vec<f32>>>;
}

/// Where the time went.
#[derive(Debug, Default, Clone, Copy)]
struct Clock {
    compute: Duration,
    compress: Duration,
    wait: Duration,
    merge: Duration,
}

impl Clock {
    fn times(&self) -> Times {
        let micros = |d: Duration| u32::try_from(d.as_micros()).unwrap_or(u32::MAX);
        Times { compute: micros(self.compute), compress: micros(self.compress), wait: micros(self.wait), merge: micros(self.merge) }
    }
}

/// Adds the time that `work` takes.
fn timed<T>(place: &mut Duration, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let value = work();
    *place += began.elapsed();
    value
}

/// A worker's gradients of one step, as they are computed: the top MLP's, the rows', the bottom MLP's. Each is on its
/// way while the next is computed.
fn gradients(
    session: &mut Session,
    link: &mut dyn Link,
    step: u64,
    batch: &Batch,
    global: u64,
    clock: &mut Clock,
) -> Result<crate::plan::StepUniform, Failure> {
    let uniform = timed(&mut clock.compute, || session.begin_worker_step(step, batch, global))?;
    for what in [Scaled::Part(Part::Top), Scaled::Rows, Scaled::Part(Part::Bottom)] {
        match what {
            Scaled::Rows => timed(&mut clock.compute, || session.worker_stage(step, Stage::Rows, &uniform))?,
            Scaled::Part(Part::Bottom) => timed(&mut clock.compute, || session.worker_stage(step, Stage::Bottom, &uniform))?,
            Scaled::Part(Part::Top) => {}
        }
        timed(&mut clock.compress, || session.gradient_scales(what, &uniform))?;
        if link.exchange().averages(what) {
            let own = pollster::block_on(session.read_gradient_scales(what))?;
            if own.iter().any(|s| !s.is_finite()) {
                return Err(Failure::Gradient(BadGradient(name_of(what).into())));
            }
            let Some(scales) = timed(&mut clock.wait, || link.average(step, what, &own))? else { continue };
            session.write_gradient_scales(what, &scales)?;
        }
        let coded = timed(&mut clock.compress, || -> Result<Coded> {
            session.gradient_codes(what, &uniform)?;
            match what {
                Scaled::Rows => pollster::block_on(session.coded_rows(batch.touched())),
                Scaled::Part(part) => pollster::block_on(session.coded_part(part)),
            }
        })?;
        if !coded.is_finite() {
            return Err(Failure::Gradient(BadGradient(name_of(what).into())));
        }
        let posted = timed(&mut clock.compress, || match what {
            Scaled::Rows => link.exchange().post_rows(step, coded),
            Scaled::Part(part) => link.exchange().post_part(step, part, &coded),
        });
        posted.map_err(|refused| link.refused(refused))?;
        timed(&mut clock.merge, || link.pump())?;
    }
    Ok(uniform)
}

fn name_of(what: Scaled) -> &'static str {
    match what {
        Scaled::Rows => "gradients of embedding rows",
        Scaled::Part(Part::Top) => "gradients of the top MLP",
        Scaled::Part(Part::Bottom) => "gradients of the bottom MLP",
    }
}

/// The batches of one worker, one step ahead.
#[derive(Debug)]
struct Ahead {
    batches: Loader,
    next: Option<Batch>,
}

impl Ahead {
    fn new(mut batches: Loader) -> Result<Ahead> {
        let next = batches.next().transpose()?;
        Ok(Ahead { batches, next })
    }

    /// The batch of this step; the one after it is fetched.
    fn take(&mut self, step: u64) -> Result<Batch> {
        let batch = self.next.take().ok_or_else(|| Error::Data(format!("the samples ended at step {step}")))?;
        self.next = self.batches.next().transpose()?;
        Ok(batch)
    }
}

/// What of a step's result stands in the merged sums.
fn stepped(merged: &Merged, result: StepResult, batch: &Batch, bytes: Ledger) -> Stepped {
    Stepped {
        loss: merged.reports.iter().map(|r| r.loss).sum(),
        samples: merged.reports.iter().map(|r| r.samples as u64).sum(),
        logits: result.logits,
        labels: batch.labels.clone(),
        stop: merged.reports.iter().any(|r| r.stop),
        union: merged.rows.len() as u64,
        touched: merged.touched.iter().map(|&n| n as u64).sum(),
        times: merged.reports.iter().map(|r| r.times).collect(),
        bytes,
    }
}

/// How the steps of a run are made.
#[derive(Debug)]
pub(super) enum Stepper {
    /// Without workers; results are fetched later.
    Alone,
    /// As one of several.
    Rank(Box<Rank>),
    /// As all of several.
    Simulated(Box<Simulated>),
}

impl Stepper {
    /// Connects a rank and gives it what rank 0 loaded (`loaded` weights, `saved` state). Gives the state to go on from.
    pub(super) fn new(
        ranks: Ranks,
        session: &mut Session,
        config: &Config,
        data: &Assembled,
        start: &Start,
        loaded: bool,
        mut saved: Option<Resumed>,
    ) -> Result<(Stepper, Option<Resumed>)> {
        let world = config.workers.count;
        match ranks {
            Ranks::Alone => Ok((Stepper::Alone, saved)),
            Ranks::Rank { seat, patience, connect } => {
                let mut team = ranks::connect(seat, patience, connect, session, config, data, start)?;
                let shared = ranks::share_start(&mut team, session, config, data, loaded, saved);
                let saved = shared.inspect_err(|e| team.end(Some(&e.to_string())))?;
                Ok((Stepper::Rank(Box::new(Rank::new(team))), saved))
            }
            Ranks::Simulated { network } => {
                let step = saved.as_ref().map_or(0, |s| s.state.step);
                let seat = |rank| Seat { rank, world, attempt: 0 };
                let mut exchanges: Vec<Exchange> =
                    (0..world).map(|r| ranks::exchange(seat(r), session, config, data, step)).collect::<Result<_>>()?;
                let kept = saved.as_mut().and_then(|s| ranks::take_errors(&mut s.state, world));
                let mut errors = Vec::new();
                if config.workers.keeps_errors() {
                    let len = Layout::new(&data.shape).flat_len;
                    let (ranks, sums) = kept.unwrap_or_else(|| (vec![vec![0.0; len]; world], vec![0.0; len]));
                    if ranks.iter().chain([&sums]).any(|values| values.len() != len) {
                        return Err(Error::Data("the checkpoint's error feedback does not fit the model".into()));
                    }
                    exchanges.iter_mut().for_each(|e| e.set_owner_errors(&sums));
                    errors = ranks;
                }
                Ok((Stepper::Simulated(Box::new(Simulated::new(exchanges, errors, network))), saved))
            }
        }
    }

    /// The part of each global batch that this process makes batches of: one for each worker it plays.
    pub(super) fn shares(&self) -> Vec<Share> {
        match self {
            Stepper::Alone => vec![Share::default()],
            Stepper::Rank(rank) => vec![Share { rank: rank.team.seat().rank, world: rank.team.seat().world }],
            Stepper::Simulated(all) => (0..all.exchanges.len()).map(|rank| Share { rank, world: all.exchanges.len() }).collect(),
        }
    }

    /// Tells the others why this rank ends.
    pub(super) fn end(&mut self, error: &Error) {
        if let Some(team) = self.team() {
            team.end(Some(&error.to_string()));
        }
    }

    /// The team, where there is one.
    pub(super) fn team(&mut self) -> Option<&mut Team> {
        if let Stepper::Rank(rank) = self { Some(&mut rank.team) } else { None }
    }

    /// Takes the batches of each share, and says which rows the first ones touch.
    pub(super) fn begin(&mut self, session: &Session, mut batches: Vec<Loader>, step: u64) -> Result<()> {
        match (self, batches.pop()) {
            (Stepper::Rank(rank), Some(loader)) => rank.begin(session, loader, step),
            (Stepper::Simulated(all), Some(last)) => {
                batches.push(last);
                all.begin(batches)
            }
            _ => Ok(()),
        }
    }

    /// Error feedback for a checkpoint: tensors at the rank that writes it, nothing elsewhere or where nothing is kept.
    pub(super) fn errors(&mut self, session: &mut Session) -> Result<Vec<(String, Vec<f32>)>> {
        const PHASE: &str = "checkpoint";
        match self {
            Stepper::Alone => Ok(Vec::new()),
            Stepper::Rank(rank) => {
                let Some(mine) = pollster::block_on(session.gradient_errors())? else { return Ok(Vec::new()) };
                let sums = rank.team.exchange().owner_errors();
                let most = 4 * mine.len() as u64;
                let ranks = rank.team.gather_large(PHASE, bytemuck::cast_slice(&mine), 0, most)?;
                let sums = rank.team.gather_large(PHASE, bytemuck::cast_slice(&sums), 0, most)?;
                if rank.team.seat().rank > 0 {
                    return Ok(Vec::new());
                }
                if ranks.iter().chain(&sums).any(|bytes| bytes.len() as u64 != most) {
                    return Err(Error::Data("a rank sent error feedback of another model".into()));
                }
                let floats = |bytes: &Vec<u8>| bytemuck::pod_collect_to_vec::<u8, f32>(bytes);
                let sums = sums.iter().map(floats).reduce(added).unwrap_or_default();
                Ok(ranks::error_tensors(ranks.iter().map(floats).collect(), sums))
            }
            Stepper::Simulated(all) if all.errors.is_empty() => Ok(Vec::new()),
            Stepper::Simulated(all) => {
                let sums = all.exchanges.iter().map(Exchange::owner_errors).reduce(added).unwrap_or_default();
                Ok(ranks::error_tensors(all.errors.clone(), sums))
            }
        }
    }
}

fn added(mut sums: Vec<f32>, others: Vec<f32>) -> Vec<f32> {
    sums.iter_mut().zip(others).for_each(|(sum, v)| *sum += v);
    sums
}
