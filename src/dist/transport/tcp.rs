//! Ranks as processes, on one host or several: a TCP connection for each pair, a thread for each direction of each.
//!
//! 1. [`settings`]: what a worker has to know.
//! 2. `rendezvous`: how the workers find each other; `door` lets others in, `knock` goes to them.
//! 3. `handshake`: how two of them know that they belong together; `party` is what one makes of the other.
//! 4. `pipe`: bytes to and from a peer, through `tls` or not. `link`: its threads.

mod door;
mod handshake;
mod knock;
mod link;
mod party;
mod pipe;
mod rendezvous;
pub mod settings;
mod tls;

#[cfg(test)]
mod handshake_tests;
#[cfg(test)]
mod tests;

pub use settings::{Security, TcpSettings, default_security};

use super::inbox::{Inbox, deadline};
use super::network::Shaper;
use super::{Ends, Lost, Transport, finished};
use crate::dist::frame::{Frame, Kind, Limits, Reader};
use crate::error::Result;
use door::Joined;
use link::{Common, Content, Link};
use party::Party;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the end of a worker waits for what it sent last.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// One rank's end.
#[derive(Debug)]
pub struct Tcp {
    rank: usize,
    links: Vec<Option<Link>>,
    limits: Limits,
    common: Common,
    inbox: Inbox<Content>,
    shaper: Option<Shaper>,
    ends: Ends,
}

/// Connects this worker with all others.
///
/// # Errors
/// Settings that cannot be used; ranks that did not come in time; workers that do not belong together, with what
/// differs.
pub fn connect(mut settings: TcpSettings) -> Result<Tcp> {
    settings.check()?;
    let party = Arc::new(Party::new(&settings)?);
    let mut tcp = Tcp::new(&settings);
    match (settings.rank, settings.world) {
        (_, 1) => {}
        (0, _) => rendezvous::host(&mut settings, &party, &mut tcp)?,
        _ => rendezvous::guest(&settings, &party, &mut tcp)?,
    }
    Ok(tcp)
}

/// Starts the threads of a connection.
fn start(joined: Joined, limits: &Limits, common: &Common) -> Result<Link, String> {
    let reader = Reader::new(limits.clone(), joined.rank as u32, common.attempt);
    Link::start(joined.pipe, joined.rank, reader, common)
        .map_err(|e| format!("cannot start threads for the connection with rank {}: {e}", joined.rank))
}

impl Tcp {
    /// Without connections.
    fn new(settings: &TcpSettings) -> Tcp {
        let inbox = Inbox::new(settings.network);
        let common = Common {
            rank: settings.rank,
            attempt: settings.attempt,
            silence: settings.silence,
            heartbeat: settings.heartbeat,
            inbox: inbox.sender(),
            unsent: Arc::default(),
            threads: Arc::default(),
            ending: Arc::default(),
            lost: Arc::default(),
        };
        Tcp {
            rank: settings.rank,
            links: (0..settings.world).map(|_| None).collect(),
            limits: settings.limits.clone(),
            common,
            inbox,
            shaper: settings.network.map(Shaper::new),
            ends: Ends::new(settings.world),
        }
    }

    /// Takes over a connection.
    fn add(&mut self, joined: Joined) -> Result<(), String> {
        let rank = joined.rank;
        let link = start(joined, &self.limits, &self.common)?;
        self.links[rank] = Some(link);
        Ok(())
    }

    /// Tells all who are connected why this worker ends.
    fn say_why(&mut self, reason: &str) {
        let cut = (0..=reason.len().min(1000)).rev().find(|&n| reason.is_char_boundary(n)).unwrap_or(0);
        let (attempt, from) = (self.common.attempt, self.rank as u32);
        let payload = reason.as_bytes()[..cut].to_vec();
        let bytes: Arc<[u8]> = Frame { kind: Kind::Bye, part: 0, attempt, from, step: 0, payload }.encode().into();
        self.links.iter().flatten().for_each(|link| link.send(bytes.clone(), None));
    }
}

impl Transport for Tcp {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.links.len()
    }

    fn send(&mut self, to: usize, frame: &Arc<[u8]>) -> Result<(), Lost> {
        self.ends.check(self.rank, to)?;
        let due = self.shaper.as_mut().map(|link| link.sent(frame.len(), Instant::now()));
        if let Some(link) = self.links.get(to).and_then(Option::as_ref) {
            link.send(frame.clone(), due);
        }
        Ok(())
    }

    fn receive(&mut self, patience: Duration) -> Result<Option<(usize, Frame)>, Lost> {
        let deadline = deadline(patience);
        while let Some(parcel) = self.inbox.next(deadline) {
            let from = parcel.from;
            if self.ends.is_over(from) {
                continue;
            }
            match parcel.content.map_err(Some).and_then(finished) {
                Ok(frame) => return Ok(Some((from, frame))),
                Err(end) => self.ends.set(from, end)?,
            }
        }
        Ok(None)
    }

    fn flush(&mut self, patience: Duration) {
        self.common.unsent.none_by(deadline(patience));
    }
}

impl Drop for Tcp {
    /// Sends what is queued, for two seconds at most, and ends all threads.
    fn drop(&mut self) {
        let deadline = Instant::now() + LAST_WORDS;
        self.common.unsent.none_by(deadline);
        let _ = self.common.ending.set(());
        let closing: Vec<_> = self.links.iter_mut().filter_map(Option::take).map(Link::close).collect();
        // Those who were told close their ends too. Without waiting for that, what they sent last would reach a closed
        // socket, and the answer to it may overtake the farewell.
        self.common.threads.none_by(deadline);
        closing.into_iter().for_each(|link| link.end());
    }
}
