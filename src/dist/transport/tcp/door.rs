//! The side that waits for others: a listener that strangers may knock at as they like.

use super::super::inbox::deadline;
use super::handshake::{Acceptor, LONGEST, Offer, Session, Stranger};
use super::link::Tally;
use super::party::{Party, Verdict, ranks, taken};
use super::pipe::Pipe;
use super::tls::End;
use std::collections::VecDeque;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How often the door looks who is there.
const LOOK: Duration = Duration::from_millis(5);

/// How long a job that cannot begin is there for those who come late, to tell them.
const LINGER: Duration = Duration::from_secs(1);

/// A worker of this job, connected.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) rank: usize,
    pub(super) pipe: Pipe,
    pub(super) session: Session,
    /// Where it accepts others.
    pub(super) listens: SocketAddr,
}

/// What became of a connection.
#[derive(Debug)]
enum Visit {
    Joined(Box<Joined>),
    /// Started wrongly, or late; the job cannot begin.
    Wrong,
    /// Of another job or attempt.
    Other(String),
    /// Nobody that this worker knows.
    Stranger(String),
}

/// What the threads that talk to visitors have in common.
#[derive(Debug)]
struct Door {
    party: Arc<Party>,
    /// Ranks that came in.
    taken: Mutex<Vec<bool>>,
    /// Why the job cannot begin.
    failed: OnceLock<String>,
    /// Connections of which nothing is known, the oldest first.
    unknown: Mutex<VecDeque<(u64, TcpStream)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a worker waits for others.
pub(super) struct Waiting<'a> {
    /// How long, ...
    pub(super) patience: Duration,
    /// ... which is until when.
    pub(super) deadline: Instant,
    /// Says why to stop, when there is a reason.
    pub(super) interrupted: &'a (dyn Fn() -> Option<String> + Sync),
}

impl<'a> Waiting<'a> {
    /// From now on.
    pub(super) fn new(patience: Duration, interrupted: &'a (dyn Fn() -> Option<String> + Sync)) -> Waiting<'a> {
        Waiting { patience, deadline: deadline(patience), interrupted }
    }
}

/// Lets in all ranks above this one, each once, and hands them on as they come.
///
/// # Errors
/// Why the job cannot begin: who is missing in the end, or who was started wrongly.
pub(super) fn let_in(
    listener: &TcpListener,
    party: &Arc<Party>,
    waiting: &Waiting<'_>,
    joined: &mut dyn FnMut(Joined) -> Result<(), String>,
) -> Result<(), String> {
    let door = Arc::new(Door {
        party: party.clone(),
        taken: Mutex::new(vec![false; party.world]),
        failed: OnceLock::new(),
        unknown: Mutex::default(),
    });
    let threads = Arc::new(Tally::default());
    let (results, visits) = channel();
    listener.set_nonblocking(true).map_err(|e| format!("cannot accept connections: {e}"))?;
    let end = wait(listener, &door, &threads, (&results, &visits), waiting, joined);
    for (_, socket) in lock(&door.unknown).drain(..) {
        let _ = socket.shutdown(Shutdown::Both);
    }
    threads.none_by(Instant::now() + Duration::from_secs(1));
    // Those who came last hear how it ended too.
    for visit in visits.try_iter() {
        if let Visit::Joined(one) = visit {
            joined(*one)?;
        }
    }
    end
}

fn wait(
    listener: &TcpListener,
    door: &Arc<Door>,
    threads: &Arc<Tally>,
    (results, visits): (&Sender<Visit>, &Receiver<Visit>),
    waiting: &Waiting<'_>,
    joined: &mut dyn FnMut(Joined) -> Result<(), String>,
) -> Result<(), String> {
    let party = &door.party;
    let mut refused = Refused::default();
    let (mut visitors, mut wanted) = (0, party.world - 1 - party.rank);
    let mut deadline = waiting.deadline;
    while wanted > 0 {
        if let Some(reason) = (waiting.interrupted)() {
            return Err(reason);
        }
        if Instant::now() >= deadline {
            let failed = door.failed.get().cloned();
            return Err(failed.unwrap_or_else(|| missing(party, &lock(&door.taken), waiting.patience, &refused)));
        }
        let mut pause = LOOK;
        if let Ok((socket, address)) = listener.accept() {
            visitors += 1;
            admit(door, threads, results, visitors, socket, address);
            pause = Duration::ZERO;
        }
        match visits.recv_timeout(pause) {
            Ok(Visit::Joined(one)) => {
                joined(*one)?;
                wanted -= 1;
            }
            // It was told, and so are those who come now.
            Ok(Visit::Wrong) => {
                deadline = deadline.min(Instant::now() + LINGER);
                wanted -= 1;
            }
            Ok(Visit::Other(reason)) => refused.others.note(reason),
            Ok(Visit::Stranger(reason)) => refused.strangers.note(reason),
            Err(_) => {}
        }
    }
    door.failed.get().cloned().map_or(Ok(()), Err)
}

/// Who was not let in.
#[derive(Debug, Default)]
struct Refused {
    others: Kept,
    strangers: Kept,
}

/// How many, and the first reason.
#[derive(Debug, Default)]
struct Kept(u64, String);

impl Kept {
    fn note(&mut self, reason: String) {
        if self.0 == 0 {
            self.1 = reason;
        }
        self.0 += 1;
    }
}

fn missing(party: &Party, taken: &[bool], waited: Duration, refused: &Refused) -> String {
    let missing: Vec<usize> = (party.rank + 1..party.world).filter(|&rank| !taken[rank]).collect();
    let place = if party.rank == 0 { String::new() } else { format!(" to rank {}", party.rank) };
    let mut text = format!("{} of {} did not come{place} within {} s", ranks(&missing), party.world, waited.as_secs_f32());
    for (kept, who) in [(&refused.others, "from other jobs or attempts"), (&refused.strangers, "from strangers")] {
        if let Kept(count @ 1.., first) = kept {
            text += &format!("; connections {who}: {count} (the first: {first})");
        }
    }
    text
}

/// Starts a thread that talks to a visitor. When there are too many of whom nothing is known, the oldest has to go: a
/// worker of this job makes itself known in no time.
fn admit(door: &Arc<Door>, threads: &Arc<Tally>, results: &Sender<Visit>, number: u64, socket: TcpStream, address: SocketAddr) {
    let most = 2 * door.party.world;
    let Ok(copy) = socket.try_clone() else { return };
    if threads.now() >= 2 * most {
        return;
    }
    {
        let mut unknown = lock(&door.unknown);
        unknown.push_back((number, copy));
        if unknown.len() > most
            && let Some((_, oldest)) = unknown.pop_front()
        {
            let _ = oldest.shutdown(Shutdown::Both);
        }
    }
    let (door, results, ticket) = (door.clone(), results.clone(), threads.ticket());
    let talk = move || {
        let visit = door.greet(number, socket, address.ip()).unwrap_or_else(|Stranger(reason)| Visit::Stranger(format!("it {reason}")));
        if let Visit::Stranger(reason) | Visit::Other(reason) = &visit {
            log::debug!("refused a connection from {address}: {reason}");
        }
        let _ = results.send(visit);
        door.known(number);
        drop(ticket);
    };
    if let Err(error) = std::thread::Builder::new().name("visitor".into()).spawn(talk) {
        log::debug!("refused a connection from {address}: {error}");
    }
}

impl Door {
    /// Takes a visitor off the list of those of whom nothing is known.
    fn known(&self, number: u64) {
        lock(&self.unknown).retain(|&(n, _)| n != number);
    }

    /// Finds out who a visitor is, and tells it what comes of that.
    fn greet(&self, number: u64, socket: TcpStream, address: IpAddr) -> Result<Visit, Stranger> {
        let broken = |e: std::io::Error| Stranger(format!("broke off: {e}"));
        let mut pipe = Pipe::new(socket, self.party.tls.as_ref(), End::Acceptor, Instant::now() + self.party.handshake).map_err(broken)?;
        let (mut acceptor, hello) = Acceptor::new(&self.party.key, pipe.binding()?)?;
        pipe.send(&hello).map_err(broken)?;
        let offer = acceptor.offer(&pipe.take_sealed(LONGEST).map_err(broken)?)?;
        self.known(number);
        let verdict = self.verdict(&offer);
        let (answer, session) = acceptor.answer(&verdict.answer(self.party.rank));
        if let Err(error) = pipe.send(&answer) {
            if let Verdict::Welcome(rank) = verdict {
                // It may come again.
                lock(&self.taken)[rank] = false;
            }
            return Err(broken(error));
        }
        Ok(match verdict {
            Verdict::Welcome(rank) => {
                let listens = SocketAddr::new(offer.address.unwrap_or(address), offer.port);
                Visit::Joined(Box::new(Joined { rank, pipe, session, listens }))
            }
            Verdict::Wrong(_) => Visit::Wrong,
            Verdict::Other { reason, .. } => Visit::Other(reason),
        })
    }

    fn verdict(&self, offer: &Offer) -> Verdict {
        let mut there = lock(&self.taken);
        let verdict = match (self.party.judge(offer), self.failed.get()) {
            (Verdict::Welcome(_), Some(reason)) => Verdict::Wrong(reason.clone()),
            (Verdict::Welcome(rank), None) if std::mem::replace(&mut there[rank], true) => Verdict::Wrong(taken(rank)),
            (other, _) => other,
        };
        if let Verdict::Wrong(reason) = &verdict {
            let _ = self.failed.set(reason.clone());
        }
        verdict
    }
}
