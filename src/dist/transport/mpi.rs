//! Ranks that MPI started, and frames as its messages.
//!
//! All calls of MPI are made by one thread, which waits for none of them: it starts sends, looks for messages, starts
//! receives, and asks which are done. A frame travels as messages of up to 1 MiB, so that MPI's counts suffice and
//! that few bytes are copied at a time. A message longer than any frame of this model is not received.
//!
//! MPI itself says nothing about a peer that is silent: that is for the caller's patience. When a process dies, the
//! launcher (`mpirun`, `srun -K`) ends the others. This end does the same when it is dropped without a good end: only
//! after an empty [`Kind::Bye`] to and from every peer (also to those that have finished) does it finalize MPI, which
//! waits for all ranks.

mod courier;

use super::{Lost, Transport};
use crate::dist::frame::{Frame, Kind, Limits};
use crate::error::{Error, Result};
use courier::{Command, Courier, Event};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// How long a good end waits for the other ranks to get there.
const GOOD_END: Duration = Duration::from_secs(600);
/// How long another end waits for the thread.
const BAD_END: Duration = Duration::from_secs(2);

/// What became of a peer that said a good [`Kind::Bye`].
const FINISHED: &str = "has finished";

/// One rank's end.
#[derive(Debug)]
pub struct Mpi {
    rank: usize,
    world: usize,
    commands: Sender<Command>,
    events: Receiver<Event>,
    /// Why nothing can be sent to a peer any more.
    ends: Vec<Option<String>>,
    /// A peer was lost, or told why this rank ends.
    failed: bool,
}

impl Mpi {
    /// Starts MPI, which waits for all ranks to do so, and takes rank and world size from it. A process can do this
    /// once. What [`Mpi::receive`](Transport::receive) calls the loss of this rank itself is a failure of MPI.
    ///
    /// # Errors
    /// MPI does not start, or allows no thread but the first to use it.
    pub fn start(limits: Limits, attempt: u32) -> Result<Mpi> {
        let wrong = |reason: String| Error::Config(format!("cannot use MPI: {reason}; start with mpirun, or use --transport tcp"));
        let ((commands, orders), (reports, events), (tell, told)) = (channel(), channel(), channel());
        let run = move || match Courier::new(limits, attempt, orders, reports) {
            Ok((courier, numbers)) => {
                let _ = tell.send(Ok(numbers));
                courier.run();
            }
            Err(reason) => drop(tell.send(Err(reason))),
        };
        std::thread::Builder::new().name("mpi".into()).spawn(run).map_err(|error| wrong(error.to_string()))?;
        let numbers = told.recv().unwrap_or_else(|_| Err("its thread ended".into()));
        let (rank, world) = numbers.map_err(wrong)?;
        Ok(Mpi { rank, world, commands, events, ends: vec![None; world], failed: false })
    }

    fn lose(&mut self, rank: usize, reason: String) -> Lost {
        self.failed = true;
        self.ends[rank] = Some(reason.clone());
        Lost { rank, reason }
    }

    /// What an event means to the caller.
    fn meaning(&mut self, event: Event) -> Result<Option<(usize, Frame)>, Lost> {
        match event {
            Event::Frame(from, _) if self.ends[from].is_some() => Ok(None),
            Event::Frame(from, frame) if frame.kind == Kind::Bye && frame.payload.is_empty() => {
                self.ends[from] = Some(FINISHED.into());
                Ok(None)
            }
            Event::Frame(from, frame) if frame.kind == Kind::Bye => {
                let text = String::from_utf8_lossy(&frame.payload).replace(char::is_control, " ");
                Err(self.lose(from, format!("ended: {text}")))
            }
            Event::Frame(_, frame) if frame.kind == Kind::Alive => Ok(None),
            Event::Frame(from, frame) => Ok(Some((from, frame))),
            Event::Lost(from, reason) => Err(self.lose(from, reason)),
        }
    }
}

impl Transport for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn send(&mut self, to: usize, frame: &Arc<[u8]>) -> Result<(), Lost> {
        let reason = match self.ends.get(to) {
            None => format!("does not exist (there are {})", self.world),
            Some(_) if to == self.rank => "is this worker itself".into(),
            // A good end takes a `Bye` in both directions, in whatever order.
            Some(Some(reason)) if reason != FINISHED || courier::is_bye(frame).is_none() => reason.clone(),
            Some(_) if self.ends[self.rank].is_some() => "cannot be reached, since MPI has failed here".into(),
            Some(_) => {
                self.failed |= courier::is_bye(frame) == Some(false);
                match self.commands.send(Command::Send(to, frame.clone())) {
                    Ok(()) => return Ok(()),
                    Err(_) => "cannot be reached, since MPI has ended here".into(),
                }
            }
        };
        Err(Lost { rank: to, reason })
    }

    fn receive(&mut self, patience: Duration) -> Result<Option<(usize, Frame)>, Lost> {
        let deadline = Instant::now() + patience.min(GOOD_END * 1000);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = match self.events.try_recv().or_else(|_| self.events.recv_timeout(left)) {
                Ok(event) => event,
                Err(_) => {
                    // The thread may be gone, which is no reason to come back early.
                    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
                    return Ok(None);
                }
            };
            if let Some(found) = self.meaning(event)? {
                return Ok(Some(found));
            }
        }
    }

    /// For a [`Kind::Bye`], "has left" means here that the peer has begun to receive it.
    fn flush(&mut self, patience: Duration) {
        let (done, is_done) = channel();
        if self.commands.send(Command::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(patience);
        }
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        let (done, is_done) = channel();
        if self.commands.send(Command::End(done)).is_ok() {
            let _ = is_done.recv_timeout(if self.failed { BAD_END } else { GOOD_END });
        }
    }
}
