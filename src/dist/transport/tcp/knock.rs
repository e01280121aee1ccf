//! The side that goes to others.

use super::door::{Joined, Waiting};
use super::handshake::{Answer, Connector, HELLO, LONGEST, Offer, Stranger};
use super::party::Party;
use super::pipe::Pipe;
use super::tls::End;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The pause after the first failure, ...
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// ... and the longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long one connection attempt may take, since a packet may get lost.
const ATTEMPT: Duration = Duration::from_secs(3);

/// Why a worker was not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum No {
    /// Never.
    Final(String),
    /// Not now or not here. The larger number says more about the job.
    Later(u8, String),
}

impl No {
    /// In words: `mine` could not join rank `rank` at `place` in the time it had.
    pub(super) fn words(self, mine: usize, rank: usize, place: &str, waited: Duration) -> String {
        match self {
            No::Final(reason) => reason,
            No::Later(_, reason) => {
                format!("rank {mine} could not join rank {rank} at {place} within {} s: {reason}", waited.as_secs_f32())
            }
        }
    }
}

/// Tries the addresses in turn until rank `rank` lets this worker in. `places` gives them anew each time: names may
/// become known late. `offer` says, for the local address of a connection, what this worker says of itself.
///
/// # Errors
/// Why it did not in time, or never will.
pub(super) fn until_let_in(
    party: &Party,
    rank: usize,
    places: &dyn Fn() -> std::io::Result<Vec<SocketAddr>>,
    offer: &mut dyn FnMut(IpAddr) -> std::io::Result<Offer>,
    waiting: &Waiting<'_>,
) -> Result<Joined, No> {
    let mut best = (0, "there was no time to try".to_owned());
    let mut pause = FIRST_PAUSE;
    loop {
        let places = places().unwrap_or_else(|error| {
            best = best_of(std::mem::take(&mut best), (1, format!("its name is not known: {error}")));
            Vec::new()
        });
        for place in places {
            match knock(party, rank, place, offer, waiting.deadline) {
                Ok(joined) => return Ok(joined),
                Err(No::Final(reason)) => return Err(No::Final(reason)),
                Err(No::Later(weight, reason)) => best = best_of(std::mem::take(&mut best), (weight, reason)),
            }
        }
        if let Some(reason) = (waiting.interrupted)() {
            return Err(No::Final(reason));
        }
        let left = waiting.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(No::Later(best.0, best.1));
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

/// What to tell of two failures: the later one, unless the earlier one says more.
fn best_of(earlier: (u8, String), later: (u8, String)) -> (u8, String) {
    if later.0 >= earlier.0 { later } else { earlier }
}

fn knock(
    party: &Party,
    rank: usize,
    place: SocketAddr,
    offer: &mut dyn FnMut(IpAddr) -> std::io::Result<Offer>,
    deadline: Instant,
) -> Result<Joined, No> {
    let now = Instant::now();
    let left = deadline.saturating_duration_since(now).max(Duration::from_millis(1));
    let later = |weight: u8, what: &str, error: std::io::Error| No::Later(weight, format!("{place} {what}: {error}"));
    let socket = TcpStream::connect_timeout(&place, left.min(ATTEMPT)).map_err(|e| later(2, "cannot be reached", e))?;
    let local = socket.local_addr().map_err(|e| later(2, "cannot be reached", e))?;
    if local == place {
        // A port that nobody listens at, chosen by the system for this very connection.
        return Err(No::Later(2, format!("{place} cannot be reached: nobody listens there")));
    }
    let stranger = |Stranger(reason): Stranger| No::Later(3, format!("{place} {reason}"));
    let pipe = Pipe::new(socket, party.tls.as_ref(), End::Connector, now + party.handshake.min(left));
    let mut pipe = pipe.map_err(|e| match &party.tls {
        Some(_) => later(3, "does not speak TLS as this worker does, or broke off", e),
        None => later(2, "broke off", e),
    })?;
    let nothing = "accepted a connection and said nothing: it is no dqrm worker, or it uses TLS, or too many knock";
    let hello = pipe.take(HELLO).map_err(|e| later(3, nothing, e))?;
    let offer = offer(local.ip()).map_err(|e| No::Final(format!("cannot listen at {}: {e}", local.ip())))?;
    let (connector, sealed) = Connector::offer(&party.key, pipe.binding().map_err(stranger)?, &hello, &offer).map_err(stranger)?;
    let proven = |e| later(4, "broke off when this worker had said who it is (is it the same job with the same secret?)", e);
    pipe.send(&sealed).map_err(proven)?;
    let answer = pipe.take_sealed(LONGEST).map_err(proven)?;
    match connector.answer(&answer).map_err(stranger)? {
        (Answer::Welcome(found), session) if found as usize == rank => Ok(Joined { rank, pipe, session, listens: place }),
        (Answer::Welcome(found), _) => Err(No::Final(format!("{place} is rank {found}, not rank {rank}"))),
        (Answer::Refused { again: true, reason }, _) => Err(No::Later(5, reason)),
        (Answer::Refused { again: false, reason }, _) => Err(No::Final(reason)),
    }
}
