//! A rank among its peers: the exchange driven over a transport, with deadlines, and what ranks do together
//! outside of steps.

use super::exchange::{Exchange, Merged, Refused, Scaled, Seat};
use super::frame::{Frame, Kind, Limits};
use super::transport::{Lost, Transport};
use crate::error::{Error, Result};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

mod collectives;

/// The longest piece of something large.
const PIECE: usize = 1 << 20;
/// Pieces from rank 0 after which all ranks meet, so that none has to keep much.
const MEET: usize = 16;
/// Frames of one peer that may wait for their turn: a few collectives' worth.
const WAITING: usize = 4 * MEET;

/// How long to wait for peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// In a step.
    pub step: Duration,
    /// Around evaluations, checkpoints and the start, where one rank may have much to do; ranks above 0 wait half as
    /// long again.
    pub long: Duration,
}

impl Default for Patience {
    /// 30 seconds in a step, 10 minutes elsewhere. (A peer that is gone or silent is noticed by the transport.)
    fn default() -> Patience {
        Patience { step: Duration::from_secs(30), long: Duration::from_secs(600) }
    }
}

/// What a peer said outside of steps.
#[derive(Debug)]
struct Waiting {
    from: usize,
    frame: Frame,
}

/// A rank and its connections.
#[derive(Debug)]
pub struct Team {
    transport: Box<dyn Transport>,
    exchange: Exchange,
    seat: Seat,
    patience: Patience,
    waiting: VecDeque<Waiting>,
    /// Collectives so far; all ranks count alike.
    sequence: u64,
    step: u64,
    merging: Duration,
    /// Pieces that rank 0 has sent to all so far.
    pieces: usize,
    ended: bool,
}

/// The frames that a team exchanges, as limits for a transport.
pub fn limits(exchange: &Exchange) -> Limits {
    let mut limits = Limits::none();
    exchange.allow(&mut limits);
    limits.allow(Kind::Gather, PIECE as u64 + 8);
    limits.allow(Kind::Broadcast, PIECE as u64 + 8);
    limits
}

impl Team {
    /// A rank whose transport is connected.
    pub fn new(transport: Box<dyn Transport>, exchange: Exchange, seat: Seat, patience: Patience) -> Team {
        Team {
            transport,
            exchange,
            seat,
            patience,
            waiting: VecDeque::new(),
            sequence: 0,
            step: 0,
            merging: Duration::ZERO,
            pieces: 0,
            ended: false,
        }
    }

    /// Who this is.
    pub fn seat(&self) -> &Seat {
        &self.seat
    }

    /// The exchange, to post to.
    pub fn exchange(&mut self) -> &mut Exchange {
        &mut self.exchange
    }

    /// Time spent on decoding and summing so far.
    pub fn merging(&self) -> Duration {
        self.merging
    }

    /// Says which step is under way, for errors.
    pub fn at_step(&mut self, step: u64) {
        self.step = step;
    }

    fn peer(&self, rank: usize, phase: &'static str, reason: String) -> Error {
        Error::Peer { rank, reason, step: self.step, phase, kept: String::new() }
    }

    fn lost(&self, phase: &'static str) -> impl Fn(Lost) -> Error + '_ {
        move |lost| self.peer(lost.rank, phase, lost.reason)
    }

    /// The error for a peer that takes nothing any more: its last word says more than the closed door.
    fn unsendable(&mut self, phase: &'static str, lost: Lost) -> Error {
        const LAST_WORD: Duration = Duration::from_millis(200);
        let began = Instant::now();
        while let Some(left) = LAST_WORD.checked_sub(began.elapsed()) {
            match self.transport.receive(left) {
                Err(said) => return self.peer(said.rank, phase, said.reason),
                Ok(Some(_)) => {}
                Ok(None) => break,
            }
        }
        self.peer(lost.rank, phase, lost.reason)
    }

    /// The error for something a peer sent.
    pub fn refused(&self, phase: &'static str, refused: Refused) -> Error {
        self.peer(refused.rank, phase, refused.reason)
    }

    /// Sends what the exchange has to say.
    fn send_all(&mut self, phase: &'static str) -> Result<()> {
        for out in self.exchange.outgoing() {
            let all = 0..self.seat.world;
            let peers = match out.to {
                Some(to) => to..to + 1,
                None => all,
            };
            for to in peers.filter(|&to| to != self.seat.rank) {
                if let Err(lost) = self.transport.send(to, &out.bytes) {
                    return Err(self.unsendable(phase, lost));
                }
            }
        }
        Ok(())
    }

    /// Takes at most one frame, waiting up to `patience` for it; false when none came.
    fn receive(&mut self, phase: &'static str, patience: Duration) -> Result<bool> {
        let Some((from, frame)) = self.transport.receive(patience).map_err(self.lost(phase))? else { return Ok(false) };
        let (bytes, began) = (frame.payload.len(), Instant::now());
        let accepted = self.exchange.accept(from, frame);
        self.merging += began.elapsed();
        match accepted {
            Ok(None) => {}
            Ok(Some(frame)) => {
                self.exchange.count_other(frame.kind, bytes, 0, true);
                if self.waiting.iter().filter(|w| w.from == from).count() >= WAITING {
                    return Err(self.peer(from, phase, format!("sent more {:?} than can be used", frame.kind)));
                }
                self.waiting.push_back(Waiting { from, frame });
            }
            Err(refused) => return Err(self.refused(phase, refused)),
        }
        Ok(true)
    }

    /// Sends what is to be sent and takes what has come, without waiting.
    pub fn pump(&mut self, phase: &'static str) -> Result<()> {
        self.send_all(phase)?;
        while self.receive(phase, Duration::ZERO)? {
            self.send_all(phase)?;
        }
        Ok(())
    }

    /// Pumps until `ready` gives something.
    fn wait<T>(&mut self, phase: &'static str, mut ready: impl FnMut(&mut Exchange) -> Result<Option<T>, Refused>) -> Result<T> {
        let began = Instant::now();
        loop {
            self.send_all(phase)?;
            let began_merging = Instant::now();
            let found = ready(&mut self.exchange);
            self.merging += began_merging.elapsed();
            match found {
                Ok(Some(value)) => return Ok(value),
                Ok(None) => {}
                Err(refused) => return Err(self.refused(phase, refused)),
            }
            let left = self.patience.step.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(self.late(phase));
            }
            self.receive(phase, left)?;
        }
    }

    /// The error for a peer that is alive but did not send what is due.
    fn late(&mut self, phase: &'static str) -> Error {
        let missing = self.exchange.missing(self.step);
        let me = self.seat.rank;
        let found = missing.iter().find_map(|(what, ranks)| ranks.iter().find(|&&r| r != me).map(|&r| (*what, r, ranks.len())));
        let (what, rank, count) = found.unwrap_or((phase, usize::from(me == 0), 1));
        let others = if count > 1 { format!(" (nor did {} others)", count - 1) } else { String::new() };
        self.peer(rank, phase, format!("did not send its {what} within {} s{others}", self.patience.step.as_secs_f32()))
    }

    /// The mean of all ranks' scales, in the published mode.
    pub fn averaged(&mut self, step: u64, what: Scaled) -> Result<Vec<f32>> {
        self.wait("scales", |exchange| Ok(exchange.averaged(step, what)))
    }

    /// The sums of a step.
    ///
    /// # Errors
    /// A peer that is gone, silent, late, or sent what cannot be used.
    pub fn merged(&mut self, step: u64) -> Result<Merged> {
        self.wait("gradients", |exchange| exchange.take(step))
    }

    /// The last word: finished, or why this rank ends.
    pub fn end(&mut self, reason: Option<&str>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let text = reason.unwrap_or_default();
        let cut = (0..=text.len().min(1000)).rev().find(|&n| text.is_char_boundary(n)).unwrap_or(0);
        for to in self.others() {
            let frame = Frame {
                kind: Kind::Bye,
                part: 0,
                attempt: self.seat.attempt,
                from: self.seat.rank as u32,
                step: self.step,
                payload: text.as_bytes()[..cut].to_vec(),
            };
            // whoever is gone already needs no farewell
            let _ = self.transport.send(to, &frame.encode().into());
        }
        self.transport.flush(Duration::from_secs(2));
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.end(Some("stopped before the job was done"));
    }
}
