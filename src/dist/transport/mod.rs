//! How frames get from rank to rank. Three ways, one trait, the same bytes.

pub mod inproc;
pub mod network;
pub mod tcp;

#[cfg(test)]
mod conformance;
mod inbox;

use super::frame::{Frame, Kind};
use std::sync::Arc;
use std::time::Duration;

/// A peer that is gone, silent, or not to be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The peer.
    pub rank: usize,
    /// What happened, in words that go after "rank 3": `closed the connection`.
    pub reason: String,
}

/// Frames between the ranks of a job. Frames from one rank to another arrive in the order they were
/// sent; nothing is said about frames of different ranks.
pub trait Transport: Send + std::fmt::Debug {
    /// This rank.
    fn rank(&self) -> usize;

    /// Ranks in all.
    fn world(&self) -> usize;

    /// Queues an encoded frame for rank `to`, which is another one. Does not wait for the network.
    ///
    /// # Errors
    /// The peer is known to be gone.
    fn send(&mut self, to: usize, frame: &Arc<[u8]>) -> Result<(), Lost>;

    /// The next frame that any peer sent; `None` when none came within `patience` (zero: only what has come
    /// already).
    ///
    /// # Errors
    /// A peer that closed its end before a [`super::frame::Kind::Bye`], was silent for too long, or sent what is no
    /// frame. A `Bye` with a text counts: its sender ended because of that.
    fn receive(&mut self, patience: Duration) -> Result<Option<(usize, Frame)>, Lost>;

    /// Waits until everything that was sent has left this process, at most `patience`.
    fn flush(&mut self, patience: Duration);
}

/// What became of each peer, as far as the caller was told.
#[derive(Debug)]
struct Ends(Vec<Option<String>>);

impl Ends {
    /// All peers are there.
    fn new(world: usize) -> Ends {
        Ends(vec![None; world])
    }

    /// True when nothing more of `rank` is of interest.
    fn is_over(&self, rank: usize) -> bool {
        self.0[rank].is_some()
    }

    /// Notes that `rank` has ended, with a reason if it was no good end; gives that as an error.
    fn set(&mut self, rank: usize, reason: Option<String>) -> Result<(), Lost> {
        self.0[rank] = Some(reason.clone().unwrap_or_else(|| "has finished".into()));
        reason.map_or(Ok(()), |reason| Err(Lost { rank, reason }))
    }

    /// Whether rank `me` can send to `rank`.
    fn check(&self, me: usize, rank: usize) -> Result<(), Lost> {
        let reason = match self.0.get(rank) {
            None => format!("does not exist (there are {})", self.0.len()),
            Some(_) if rank == me => "is this worker itself".into(),
            Some(None) => return Ok(()),
            Some(Some(reason)) => reason.clone(),
        };
        Err(Lost { rank, reason })
    }
}

/// A frame, or for a [`Kind::Bye`] what it means: nothing, or a reason.
fn finished(frame: Frame) -> Result<Frame, Option<String>> {
    match frame.kind {
        Kind::Bye if frame.payload.is_empty() => Err(None),
        Kind::Bye => Err(Some(format!("ended: {}", printable(&frame.payload)))),
        _ => Ok(frame),
    }
}

/// Text of a peer, without what could confuse a terminal.
fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
