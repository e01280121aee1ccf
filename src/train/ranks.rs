//! A run's place among others: alone, one rank of several, or all of several on one device.

use super::{Assembled, Start};
use crate::checkpoint::{CHUNK, State, Store};
use crate::config::{Config, Workers};
use crate::data::Block;
use crate::dist::exchange::{Exchange, Seat};
use crate::dist::frame::Limits;
use crate::dist::layout::Layout;
use crate::dist::team::{self, Patience, Team};
use crate::dist::transport::Transport;
use crate::dist::transport::network::Network;
use crate::error::{Error, Result};
use crate::session::Session;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Names and values that must be the same at every rank.
pub type Terms = Vec<(String, String)>;

/// Connects a rank to its peers: gets what all must agree on and how long frames may be.
pub type Connect = Box<dyn FnOnce(Terms, Limits) -> Result<Box<dyn Transport>> + Send>;

/// A run's place among others.
#[derive(Default)]
pub enum Ranks {
    /// Without workers.
    #[default]
    Alone,
    /// One rank of several; `workers.count` of the settings is the world size.
    Rank {
        /// Which one.
        seat: Seat,
        /// How long it waits for the others.
        patience: Patience,
        /// How it reaches them.
        connect: Connect,
    },
    /// All `workers.count` logical workers, one after another, with the arithmetic of real ones.
    Simulated {
        /// The network whose time is added to what a step would take.
        network: Option<Network>,
    },
}

impl std::fmt::Debug for Ranks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ranks::Alone => f.write_str("Alone"),
            Ranks::Rank { seat, .. } => write!(f, "{seat:?}"),
            Ranks::Simulated { .. } => f.write_str("Simulated"),
        }
    }
}

impl Ranks {
    /// True for whoever keeps the run's folder.
    pub(super) fn leads(&self) -> bool {
        !matches!(self, Ranks::Rank { seat, .. } if seat.rank > 0)
    }

    /// Whether the settings belong to such a place.
    pub(super) fn check(&self, workers: &Workers) -> Result<()> {
        let fits = match self {
            Ranks::Alone => !workers.on(),
            Ranks::Rank { seat, .. } => seat.world == workers.count && seat.rank < seat.world,
            Ranks::Simulated { .. } => workers.on(),
        };
        if fits { Ok(()) } else { Err(Error::Config(format!("workers.count is {}, but this run is {self:?}", workers.count))) }
    }
}

/// Where a run goes on that was made by another number of workers: the step before which as much of the epoch was
/// done. `samples` are those of an epoch, `batch` those of a worker's step.
pub(super) fn moved_step(step: u64, samples: u64, batch: u64, from: u64, to: u64) -> u64 {
    let [old, new] = [from, to].map(|workers| batch.saturating_mul(workers.max(1)));
    let (epoch_steps, left) = (samples.div_ceil(old).max(1), step % samples.div_ceil(old).max(1));
    let (epochs, done) = (step / epoch_steps, left.saturating_mul(old));
    epochs.saturating_mul(samples.div_ceil(new)).saturating_add(done / new)
}

/// The exchange of one rank of a run that begins at step `first`.
///
/// # Errors
/// Gradients too long for a frame.
pub(super) fn exchange(seat: Seat, session: &Session, config: &Config, data: &Assembled, first: u64) -> Result<Exchange> {
    let layout = Arc::new(Layout::new(&data.shape));
    let exchange = Exchange::new(seat, layout, &config.workers, session.most_touched(data.samples.max_bag()), first);
    match exchange.longest() {
        bytes if bytes < u64::from(u32::MAX) => Ok(exchange),
        bytes => Err(Error::Config(format!(
            "gradients of up to {bytes} bytes are more than workers can send at once, 4 GiB; use smaller batches (--batch)"
        ))),
    }
}

/// What all ranks must agree on.
pub(super) fn terms(config: &Config, data: &Assembled, start: &Start) -> Result<Terms> {
    let hash = |what: &str, text: Result<String, serde_json::Error>| -> Result<(String, String)> {
        let text = text.map_err(|e| Error::Config(format!("the settings cannot be compared: {e}")))?;
        Ok((what.to_owned(), format!("{:016x}", xxh3_64(text.as_bytes()))))
    };
    let mut train = config.train.clone();
    train.loader_threads = 0;
    let ids = data.ids.as_ref().map_or(0, |ids| xxh3_64(ids));
    let mut synthetic = config.data.clone();
    (synthetic.files, synthetic.cache) = (Vec::new(), String::new());
    let parts = (data.samples.len(), &data.parts, ids, data.skipped);
    Ok(vec![
        ("version".into(), env!("CARGO_PKG_VERSION").into()),
        ("start".into(), if *start == Start::Fresh { "fresh" } else { "from a file" }.into()),
        ("seed".into(), config.seed.to_string()),
        ("batch".into(), config.train.batch.to_string()),
        ("samples".into(), data.samples.len().to_string()),
        hash("model", serde_json::to_string(&data.shape))?,
        hash("data", serde_json::to_string(&(format!("{parts:?}"), &synthetic)))?,
        hash("quantization", serde_json::to_string(&config.quant))?,
        hash("optimizer", serde_json::to_string(&config.optim))?,
        hash("loop", serde_json::to_string(&train))?,
        hash("exchange", serde_json::to_string(&config.workers))?,
        ("rows".into(), format!("{:016x}", sampled(data)?)),
    ])
}

/// Where a run goes on, as rank 0 tells the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Beginning {
    /// Weights follow.
    weights: bool,
    /// The loop's state stood in a checkpoint of this step.
    step: Option<u64>,
    /// Error feedback follows: of each rank, and of the sums.
    errors: bool,
    /// The bits of the best AUC on the validation part so far (all ranks must decide alike by it), and its step.
    best: Option<(u64, u64)>,
}

/// What a checkpoint says of a run that goes on.
#[derive(Debug, Clone)]
pub(super) struct Resumed {
    /// Step, reports, error feedback.
    pub(super) state: State,
    /// The best AUC on the validation part so far, and its step.
    pub(super) best: Option<(f64, u64)>,
}

/// Names of the error feedback in a checkpoint: of each rank's gradients, and of the sums of all owners.
pub(super) const ERRORS: &str = "dqrm.errors.";
const SUMS: &str = "dqrm.errors.sums";

/// Error feedback as it stands in a checkpoint, fitted to `world` ranks: of each rank, and of the sums. `None` when
/// there is none. Another world size than the checkpoint's gets all that was not sent at rank 0.
pub(super) fn take_errors(state: &mut State, world: usize) -> Option<(Vec<Vec<f32>>, Vec<f32>)> {
    let (errors, others): (Vec<_>, Vec<_>) = std::mem::take(&mut state.extra).into_iter().partition(|(name, _)| name.starts_with(ERRORS));
    state.extra = others;
    let sums = errors.iter().find(|(name, _)| name == SUMS)?.1.clone();
    let mut ranks: Vec<(usize, Vec<f32>)> =
        errors.into_iter().filter_map(|(name, values)| Some((name.strip_prefix(ERRORS)?.parse().ok()?, values))).collect();
    ranks.sort_by_key(|(rank, _)| *rank);
    if ranks.len() == world {
        return Some((ranks.into_iter().map(|(_, values)| values).collect(), sums));
    }
    let mut all = vec![vec![0.0; sums.len()]; world];
    for (_, values) in &ranks {
        all[0].iter_mut().zip(values).for_each(|(sum, v)| *sum += v);
    }
    Some((all, sums))
}

/// Error feedback as tensors of a checkpoint.
pub(super) fn error_tensors(ranks: Vec<Vec<f32>>, sums: Vec<f32>) -> Vec<(String, Vec<f32>)> {
    let ranks = ranks.into_iter().enumerate().map(|(rank, values)| (format!("{ERRORS}{rank}"), values));
    ranks.chain([(SUMS.to_owned(), sums)]).collect()
}

/// A hash of samples from all over the data: other files with as many rows have another one.
fn sampled(data: &Assembled) -> Result<u64> {
    const SAMPLES: u64 = 64;
    let n = data.samples.len();
    let numbers: Vec<u64> = (0..SAMPLES.min(n)).map(|i| (u128::from(i) * u128::from(n) / u128::from(SAMPLES.min(n))) as u64).collect();
    let mut block = Block::new();
    data.samples.fetch(&numbers, &mut block)?;
    let floats = [block.dense, block.labels].concat();
    Ok(xxh3_64(
        &[bytemuck::cast_slice::<f32, u8>(&floats), bytemuck::cast_slice(&block.ids), bytemuck::cast_slice(&block.offsets)].concat(),
    ))
}

const START: &str = "start";

/// Connects a rank.
pub(super) fn connect(
    seat: Seat,
    patience: Patience,
    connect: Connect,
    session: &Session,
    config: &Config,
    data: &Assembled,
    start: &Start,
) -> Result<Team> {
    let exchange = exchange(seat.clone(), session, config, data, 0)?;
    let terms = terms(config, data, start)?;
    let transport = connect(terms.clone(), team::limits(&exchange))?;
    let mut team = Team::new(transport, exchange, seat, patience);
    let agreed = agree(&mut team, &terms);
    agreed.inspect_err(|e| team.end(Some(&e.to_string()))).map(|()| team)
}

/// Compares the terms of all ranks, whatever their transport asked.
fn agree(team: &mut Team, mine: &Terms) -> Result<()> {
    const MOST: u64 = 1 << 16;
    let text = serde_json::to_vec(mine).map_err(|e| Error::Data(format!("the terms cannot be told: {e}")))?;
    let all = team.gather(START, &text, None, MOST)?;
    for (rank, text) in all.iter().enumerate() {
        let theirs: Terms =
            serde_json::from_slice(text).map_err(|e| Error::Data(format!("rank {rank} told terms that cannot be read: {e}")))?;
        let names = |terms: &Terms| terms.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        if names(&theirs) != names(mine) {
            return Err(Error::Rendezvous(format!("rank {rank} is another version of this program")));
        }
        if let Some(((name, theirs), (_, mine))) = theirs.iter().zip(mine).find(|(a, b)| a != b) {
            return Err(Error::Rendezvous(format!(
                "rank {rank} has another {name}: `{theirs}` there, `{mine}` here; all ranks need the same settings and data"
            )));
        }
    }
    Ok(())
}

/// Gives every rank what rank 0 loaded: weights, the step, error feedback. Gives the state that the run goes on from.
pub(super) fn share_start(
    team: &mut Team,
    session: &mut Session,
    config: &Config,
    data: &Assembled,
    loaded: bool,
    mut saved: Option<Resumed>,
) -> Result<Option<Resumed>> {
    let (me, world) = (team.seat().rank, team.seat().world);
    let errors = saved.as_mut().and_then(|s| take_errors(&mut s.state, world)).filter(|_| config.workers.keeps_errors());
    let best = saved.as_ref().and_then(|s| s.best).map(|(auc, step)| (auc.to_bits(), step));
    let mine = Beginning { weights: loaded, step: saved.as_ref().map(|s| s.state.step), errors: errors.is_some(), best };
    let text = serde_json::to_vec(&mine).map_err(|e| Error::Data(format!("the start cannot be told: {e}")))?;
    let text = team.broadcast(START, (me == 0).then_some(&text), 1000)?;
    let beginning: Beginning =
        serde_json::from_slice(&text).map_err(|e| Error::Data(format!("rank 0 told a start that cannot be read: {e}")))?;
    if beginning.weights {
        share_tensors(team, session, START)?;
    }
    if let Some(step) = beginning.step {
        *team.exchange() = exchange(team.seat().clone(), session, config, data, step)?;
    }
    if beginning.errors {
        let len = Layout::new(&data.shape).flat_len as u64;
        let (ranks, sums) = errors.unwrap_or_default();
        for rank in 0..world {
            let values = share_floats(team, ranks.get(rank).map(Vec::as_slice), len)?;
            if rank == me {
                session.set_gradient_errors(&values)?;
            }
        }
        let sums = share_floats(team, (me == 0).then_some(sums.as_slice()), len)?;
        team.exchange().set_owner_errors(&sums);
    }
    let state = |step| State {
        step,
        workers: world as u64,
        epoch: 0,
        lines: 0,
        validation_auc: None,
        provisional: false,
        shape: data.shape.clone(),
        extra: super::window::Window::default().tensors(),
    };
    let resumed = |step| Resumed { state: state(step), best: beginning.best.map(|(auc, step)| (f64::from_bits(auc), step)) };
    // Whoever has everything begins to talk of the first step, which the others understand only now.
    team.barrier(START)?;
    Ok(if me == 0 { saved } else { beginning.step.map(resumed) })
}

fn share_floats(team: &mut Team, mine: Option<&[f32]>, len: u64) -> Result<Vec<f32>> {
    let bytes = team.broadcast(START, mine.map(bytemuck::cast_slice), 4 * len)?;
    if bytes.len() as u64 != 4 * len {
        return Err(Error::Data(format!("rank 0 sent {} bytes of error feedback, {} are due", bytes.len(), 4 * len)));
    }
    Ok(bytemuck::pod_collect_to_vec(&bytes))
}

/// Makes every rank's tensors those of rank 0.
pub(super) fn share_tensors(team: &mut Team, session: &mut Session, phase: &'static str) -> Result<()> {
    let leads = team.seat().rank == 0;
    for tensor in session.tensors().to_vec() {
        let mut start = 0;
        while start < tensor.len() {
            let len = (tensor.len() - start).min(CHUNK as u64) as usize;
            let mine = if leads { Some(Store::read(session, &tensor.name, start, len)?) } else { None };
            let bytes = team.broadcast(phase, mine.as_deref().map(bytemuck::cast_slice), 4 * len as u64)?;
            if bytes.len() != 4 * len {
                return Err(Error::Data(format!("rank 0 sent {} bytes of `{}`, {} are due", bytes.len(), tensor.name, 4 * len)));
            }
            if !leads {
                Store::write(session, &tensor.name, start, &bytemuck::pod_collect_to_vec::<u8, f32>(&bytes))?;
            }
            start += len as u64;
        }
    }
    Ok(())
}

/// Values of each tensor that are compared between two ends of epochs: a window that moves through it.
const WINDOW: u64 = 1 << 18;

/// Compares the replicas: hashes of every tensor, or of a window of each that moves with `round`.
///
/// # Errors
/// [`Error::Replica`] with the first tensor and rank that differ.
pub(super) fn compare(team: &mut Team, session: &mut Session, step: u64, round: Option<u64>) -> Result<()> {
    const PHASE: &str = "comparison of replicas";
    let tensors = session.tensors().to_vec();
    let mut hashes = Vec::with_capacity(8 * tensors.len());
    for tensor in &tensors {
        let range = match round.filter(|_| tensor.len() > WINDOW) {
            Some(round) => {
                let start = (round % tensor.len().div_ceil(WINDOW)) * WINDOW;
                start..(start + WINDOW).min(tensor.len())
            }
            None => 0..tensor.len(),
        };
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        let mut start = range.start;
        while start < range.end {
            let len = (range.end - start).min(CHUNK as u64) as usize;
            hash.update(bytemuck::cast_slice(&Store::read(session, &tensor.name, start, len)?));
            start += len as u64;
        }
        hashes.extend_from_slice(&hash.digest().to_le_bytes());
    }
    let all = team.gather(PHASE, &hashes, None, hashes.len() as u64)?;
    for (k, tensor) in tensors.iter().enumerate() {
        let of = |rank: usize| all[rank].get(8 * k..8 * k + 8);
        if let Some(rank) = (1..all.len()).find(|&rank| of(rank) != of(0)) {
            // All have seen it before the first one leaves.
            team.barrier(PHASE)?;
            return Err(Error::Replica { step, tensor: tensor.name.clone(), rank, kept: String::new() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_number_of_workers_goes_on_at_the_same_place_of_the_epoch() {
        // 1000 samples in batches of 10: 100 steps alone, 25 with four workers, 34 with three
        assert_eq!(moved_step(25, 1000, 10, 4, 4), 25);
        assert_eq!(moved_step(10, 1000, 10, 4, 2), 20);
        assert_eq!(moved_step(35, 1000, 10, 4, 0), 140);
        assert_eq!(moved_step(25, 1000, 10, 4, 3), 34, "a whole epoch");
        assert_eq!(moved_step(7, 1000, 10, 0, 4), 1, "rather some samples twice than never");
        assert_eq!(moved_step(0, 1000, 10, 1, 64), 0);
    }

    #[test]
    fn error_feedback_of_other_ranks_is_not_lost() {
        let errors = error_tensors(vec![vec![1.0, 2.0], vec![3.0, 4.0], vec![0.5, 0.25]], vec![9.0, 8.0]);
        let shape = crate::config::Model::default().shape(None, None).unwrap();
        let window = ("dqrm.window.losses".to_owned(), vec![0.0]);
        let state = || State {
            step: 0,
            workers: 3,
            epoch: 0,
            lines: 0,
            validation_auc: None,
            provisional: false,
            shape: shape.clone(),
            extra: [vec![window.clone()], errors.clone()].concat(),
        };
        let mut same = state();
        assert_eq!(take_errors(&mut same, 3), Some((vec![vec![1.0, 2.0], vec![3.0, 4.0], vec![0.5, 0.25]], vec![9.0, 8.0])));
        assert_eq!(same.extra, std::slice::from_ref(&window));
        assert_eq!(take_errors(&mut state(), 2), Some((vec![vec![4.5, 6.25], vec![0.0, 0.0]], vec![9.0, 8.0])));
        assert_eq!(take_errors(&mut same, 3), None);
    }
}
