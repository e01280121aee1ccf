//! How the workers of a job find each other. Rank 0 waits for all others and tells each where they are; then each
//! connects to those below it.

use super::super::inbox::deadline;
use super::door::{Joined, Waiting, let_in};
use super::handshake::{Fields, Stranger, put_address};
use super::knock::until_let_in;
use super::party::Party;
use super::pipe::is_timeout;
use super::settings::{Security, TcpSettings, resolve};
use super::{Tcp, start};
use crate::error::{Error, Result};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The first byte of what rank 0 tells when all have come: where they are, ...
const ROSTER: u8 = 0;
/// ... or why the job does not begin.
const FAILED: u8 = 1;
/// Bytes of a roster for each rank, at most.
const ENTRY: usize = 1 + 16 + 2;
/// How much longer the others wait than rank 0, which tells them what happened.
const GRACE: Duration = Duration::from_secs(5);

fn failed(reason: String) -> Error {
    Error::Rendezvous(reason)
}

/// Connects rank 0 with all others.
pub(super) fn host(settings: &mut TcpSettings, party: &Arc<Party>, tcp: &mut Tcp) -> Result<()> {
    let waiting = Waiting::new(settings.connect, &|| None);
    let listener = match settings.listener.take() {
        Some(listener) => listener,
        None => listen(settings)?,
    };
    let mut all = Vec::new();
    let end = let_in(&listener, party, &waiting, &mut |joined| {
        all.push(joined);
        Ok(())
    });
    let place = listener.local_addr();
    drop(listener);
    if let Err(mut reason) = end {
        if let Some(place) = place.ok().filter(|place| place.ip().is_loopback() && all.len() < party.world - 1) {
            reason += &format!(" (rank 0 listened at {place}, where only its own host can come)");
        }
        tell(&mut all, &[&[FAILED], reason.as_bytes()].concat(), Duration::from_secs(1));
        return Err(failed(reason));
    }
    all.sort_by_key(|one| one.rank);
    let mut message = vec![ROSTER];
    for one in &all {
        put_address(one.listens.ip(), &mut message);
        message.extend_from_slice(&one.listens.port().to_le_bytes());
    }
    tell(&mut all, &message, settings.handshake);
    all.into_iter().try_for_each(|one| tcp.add(one)).map_err(failed)
}

/// Tells something to all who came. Whoever does not hear it is gone, which its link will show.
fn tell(joined: &mut [Joined], message: &[u8], patience: Duration) {
    for one in joined {
        one.pipe.until(Instant::now() + patience);
        let sealed = one.session.seal("roster", message);
        if let Err(error) = one.pipe.send(&sealed) {
            log::debug!("rank {} cannot be told where the others are: {error}", one.rank);
        }
    }
}

/// Binds the first port that is free.
fn listen(settings: &TcpSettings) -> Result<TcpListener> {
    let (host, ports) = &settings.rendezvous;
    let mut last = String::new();
    for &port in ports {
        let places = resolve(host, port)
            .map_err(|e| failed(format!("the host `{host}`, where rank 0 is to listen, is not known: {e}; give its address")))?;
        for place in places {
            let bound = match TcpListener::bind(place) {
                // An address that leads here without being one of this host. Behind it TLS keeps strangers out.
                Err(e) if e.kind() == ErrorKind::AddrNotAvailable && settings.security == Security::Tls => {
                    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
                }
                other => other,
            };
            match bound {
                Ok(listener) => return Ok(listener),
                Err(error) => last = format!("{place}: {error}"),
            }
        }
    }
    Err(failed(format!(
        "rank 0 can listen at no port of {} at `{host}` ({last}); give another port, or the host that rank 0 runs on",
        list(ports)
    )))
}

fn list(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

/// Connects another rank with all others.
pub(super) fn guest(settings: &TcpSettings, party: &Arc<Party>, tcp: &mut Tcp) -> Result<()> {
    let waiting = Waiting::new(settings.connect, &|| None);
    let (host, ports) = &settings.rendezvous;
    let places = || {
        let all: std::io::Result<Vec<_>> = ports.iter().map(|&port| resolve(host, port)).collect();
        all.map(|all| all.concat())
    };
    // Others come to the address that this worker is seen at, which is known when it is connected.
    let mut listener: Option<(IpAddr, TcpListener)> = None;
    let mut offer = |local: IpAddr| {
        if listener.as_ref().is_none_or(|(address, _)| *address != local) {
            listener = None;
        }
        let (_, listener) = match &mut listener {
            Some(found) => found,
            none => none.insert((local, TcpListener::bind((local, 0))?)),
        };
        Ok(party.offer(settings.advertise, listener.local_addr()?.port()))
    };
    let zero = until_let_in(party, 0, &places, &mut offer, &waiting);
    let mut zero = zero.map_err(|no| failed(no.words(party.rank, 0, &format!("`{host}`, port {},", list(ports)), settings.connect)))?;
    let roster = hear(&mut zero, party, settings.connect)?;
    let Some((_, listener)) = listener else { return Err(failed("there is no listener for the other ranks".into())) };
    let linked = tcp.add(zero).and_then(|()| link_up(party, listener, &roster, settings.connect, tcp));
    linked.map_err(|reason| {
        tcp.say_why(&reason);
        failed(reason)
    })
}

/// Waits for rank 0 to say where the ranks from 1 on are.
fn hear(zero: &mut Joined, party: &Party, patience: Duration) -> Result<Vec<SocketAddr>> {
    zero.pipe.until(deadline(patience.saturating_add(GRACE)));
    let longest = (1 + ENTRY * party.world).max(super::handshake::LONGEST);
    let sealed = zero.pipe.take_sealed(longest).map_err(|e| {
        failed(match e.kind() {
            ErrorKind::UnexpectedEof => "rank 0 closed the connection before all ranks had come".into(),
            _ if is_timeout(&e) => format!("rank 0 did not say within {} s that all ranks have come", patience.as_secs_f32()),
            _ => format!("rank 0 was lost before all ranks had come: {e}"),
        })
    })?;
    let body = zero.session.open("roster", &sealed).ok_or_else(|| failed("rank 0 sent a list of ranks that it did not prove".into()))?;
    roster(body, party.world).unwrap_or_else(|Stranger(reason)| Err(format!("rank 0 {reason}"))).map_err(failed)
}

fn roster(body: &[u8], world: usize) -> Result<Result<Vec<SocketAddr>, String>, Stranger> {
    let mut fields = Fields(body);
    if fields.byte()? == FAILED {
        return Ok(Err(format!("rank 0 ended: {}", super::super::printable(fields.0))));
    }
    let mut places = Vec::new();
    for _ in 1..world {
        let address = fields.address()?.ok_or_else(|| Stranger("sent a list of ranks without an address".into()))?;
        places.push(SocketAddr::new(address, fields.short()?));
    }
    fields.end()?;
    Ok(Ok(places))
}

/// Connects to the ranks between 0 and this one, and lets in those above it. The threads of a connection start at once:
/// from now on, silence is noticed.
fn link_up(party: &Arc<Party>, listener: TcpListener, roster: &[SocketAddr], patience: Duration, tcp: &mut Tcp) -> Result<(), String> {
    const OTHER: &str = "another connection failed";
    let stop = AtomicBool::new(false);
    let (limits, common) = (tcp.limits.clone(), tcp.common.clone());
    let interrupted = || match common.lost.get() {
        Some(reason) => Some(reason.clone()),
        None => stop.load(Ordering::Relaxed).then(|| OTHER.to_owned()),
    };
    let waiting = Waiting::new(patience, &interrupted);
    let mut links = Vec::new();
    let (below, above) = std::thread::scope(|scope| {
        let below = scope.spawn(|| {
            let mut links = Vec::new();
            let end = (1..party.rank).try_for_each(|rank| {
                links.push((rank, start(go(party, rank, roster, &waiting)?, &limits, &common)?));
                Ok(())
            });
            stop.fetch_or(end.is_err(), Ordering::Relaxed);
            (end, links)
        });
        let above = let_in(&listener, party, &waiting, &mut |joined| {
            let rank = joined.rank;
            links.push((rank, start(joined, &limits, &common)?));
            Ok(())
        });
        stop.fetch_or(above.is_err(), Ordering::Relaxed);
        let panicked = |_| (Err("the thread that connects to other ranks panicked".to_owned()), Vec::new());
        (below.join().unwrap_or_else(panicked), above)
    });
    let (below, lower) = below;
    for (rank, link) in links.into_iter().chain(lower) {
        tcp.links[rank] = Some(link);
    }
    match (below, above) {
        // Of two failures the one that is no consequence of the other.
        (Err(below), Err(above)) => Err(if below == OTHER { above } else { below }),
        (below, above) => below.and(above),
    }
}

fn go(party: &Party, rank: usize, roster: &[SocketAddr], waiting: &Waiting<'_>) -> Result<Joined, String> {
    let place = *roster.get(rank - 1).ok_or_else(|| format!("rank 0 did not say where rank {rank} is"))?;
    let mut offer = |_| Ok(party.offer(None, 0));
    until_let_in(party, rank, &|| Ok(vec![place]), &mut offer, waiting)
        .map_err(|no| no.words(party.rank, rank, &place.to_string(), waiting.patience))
}
