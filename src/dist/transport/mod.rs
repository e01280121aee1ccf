//! How frames get from rank to rank. Three ways, one trait, the same bytes.

#[cfg(feature = "mpi")]
pub mod mpi;

use super::frame::Frame;
use std::sync::Arc;
use std::time::Duration;

pub mod inproc;
pub mod network;

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
