//! All ranks of a job as threads of this process.

use super::{Assembled, Event, Options, Outcome, Ranks, Start, run_on};
use crate::config::Config;
use crate::dist::exchange::Seat;
use crate::dist::frame::Limits;
use crate::dist::team::Patience;
use crate::dist::transport::Transport;
use crate::dist::transport::inproc::{InProc, mesh};
use crate::dist::transport::network::Network;
use crate::error::{Error, Result};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// The ends of a mesh, made by the first rank that asks, since it needs to know how long frames may be.
#[derive(Debug, Default)]
struct Mesh {
    ends: Option<Vec<Option<InProc>>>,
    /// Ranks that ended before there was a mesh.
    gone: Vec<usize>,
}

type Ends = Arc<Mutex<Mesh>>;

/// Lets the others know that a rank has ended, even if it never connected.
struct Leaving {
    ends: Ends,
    rank: usize,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut mesh = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut mesh.ends {
            // its end, if nobody took it, tells them when it is dropped
            Some(ends) => drop(ends.get_mut(self.rank).and_then(Option::take)),
            None => mesh.gone.push(self.rank),
        }
    }
}

fn connect(ends: &Ends, rank: usize, world: usize, limits: &Limits, network: Option<Network>) -> Result<Box<dyn Transport>> {
    let mut shared = ends.lock().unwrap_or_else(PoisonError::into_inner);
    let Mesh { ends, gone } = &mut *shared;
    let all = ends.get_or_insert_with(|| mesh(world, limits, 0, network).into_iter().map(Some).collect());
    gone.drain(..).for_each(|rank| drop(all.get_mut(rank).and_then(Option::take)));
    match all.get_mut(rank).and_then(Option::take) {
        Some(end) => Ok(Box::new(end)),
        None => Err(Error::Plan(format!("rank {rank} connects twice"))),
    }
}

/// Like [`run_on`] with `config.workers.count` ranks in threads, each with a replica on the same device. `options` are those of
/// rank 0, which alone is observed and keeps the run's folder.
///
/// # Errors
/// What rank 0 ended with, or when only another rank failed, that.
pub fn run_in_process(
    config: &Config,
    data: Assembled,
    mut options: Options<'_>,
    patience: Patience,
    network: Option<Network>,
    observe: &mut dyn FnMut(&Event<'_>),
) -> Result<Outcome> {
    let world = config.workers.count;
    let ends: Ends = Arc::default();
    let place = |rank: usize| {
        let ends = ends.clone();
        let connect = move |_, limits| connect(&ends, rank, world, &limits, network);
        Ranks::Rank { seat: Seat { rank, world, attempt: 0 }, patience, connect: Box::new(connect) }
    };
    let memory = super::memory().map(|all| all / world.max(1) as u64);
    super::memory::check(&data.shape, config, data.samples.max_bag(), memory)?;
    let mut leaving: Vec<Leaving> = (0..world).map(|rank| Leaving { ends: ends.clone(), rank }).collect();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for rank in (1..world).rev() {
            let (data, ranks, stop) = (data.clone(), place(rank), options.stop);
            // Whether weights come from a file is for rank 0 to say.
            let start = if options.start == Start::Fresh { Start::Fresh } else { Start::Resume };
            let leaves = leaving.pop();
            let work = move || {
                let _leaves = leaves;
                run_on(
                    config,
                    data,
                    Options { dir: PathBuf::new(), start, stop, ranks, profile: 0, tuning: Default::default() },
                    &mut |_| {},
                )
            };
            let thread = std::thread::Builder::new().name(format!("rank {rank}")).spawn_scoped(scope, work);
            threads.push(thread.map_err(|e| Error::Device(format!("cannot start a thread for rank {rank}: {e}")))?);
        }
        options.ranks = place(0);
        let outcome = run_on(config, data, options, observe);
        leaving.clear();
        threads.reverse();
        let others: Vec<Result<Outcome>> = threads
            .into_iter()
            .enumerate()
            .map(|(i, thread)| thread.join().unwrap_or_else(|_| Err(Error::Device(format!("the thread of rank {} panicked", i + 1)))))
            .collect();
        match (outcome, others.into_iter().find_map(Result::err)) {
            // whoever failed for a reason of its own says more than whoever lost it
            (Err(Error::Peer { .. }), Some(cause)) if !matches!(cause, Error::Peer { .. }) => Err(cause),
            (outcome, None) => outcome,
            (Ok(_), Some(error)) => Err(error),
            (error, Some(_)) => error,
        }
    })
}
