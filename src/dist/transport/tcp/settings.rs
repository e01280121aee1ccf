//! What a worker has to know to find the others.

use super::super::network::Network;
use crate::dist::frame::Limits;
use crate::error::{Error, Result};
use std::net::{IpAddr, TcpListener, ToSocketAddrs};
use std::time::Duration;
use zeroize::Zeroizing;

/// What a worker has to know to find the others.
pub struct TcpSettings {
    /// This worker's number.
    pub rank: usize,
    /// Workers in all.
    pub world: usize,
    /// Where rank 0 listens: a name or address, and ports of which it takes the first that is free.
    pub rendezvous: (String, Vec<u16>),
    /// Name of the job, the same on all ranks.
    pub job: String,
    /// How often the job was started before, the same on all ranks.
    pub attempt: u32,
    /// What else must be the same on all ranks: names and values, 8 KiB in all.
    pub facts: Vec<(String, String)>,
    /// What only workers of this job know, the same on all ranks. Without one, whoever knows the job's name is believed.
    pub secret: Option<Zeroizing<Vec<u8>>>,
    /// How connections are protected.
    pub security: Security,
    /// How long workers wait for each other at the start.
    pub connect: Duration,
    /// How long two workers take to get to know each other.
    pub handshake: Duration,
    /// Silence after which a peer is lost.
    pub silence: Duration,
    /// How often a worker with nothing to say says that it is there.
    pub heartbeat: Duration,
    /// A slower network to imitate.
    pub network: Option<Network>,
    /// How long frames may be.
    pub limits: Limits,
    /// The address at which the other ranks can reach this one, if it is not the one that rank 0 sees.
    pub advertise: Option<IpAddr>,
    /// For rank 0: a listener to use instead of a new one at `rendezvous`.
    pub listener: Option<TcpListener>,
}

/// How connections are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Not at all: whoever is on the way can read and change everything. With a secret, strangers can at least not
    /// join.
    Plain,
    /// TLS 1.3; with the job's secret, which it needs, only workers of the job can read or change anything.
    Tls,
}

/// TLS, unless the host has only addresses that nobody else can reach.
pub fn default_security(host: &str) -> Security {
    match resolve(host, 0) {
        Ok(places) if !places.is_empty() && places.iter().all(|place| place.ip().is_loopback()) => Security::Plain,
        _ => Security::Tls,
    }
}

impl TcpSettings {
    /// Settings with 60 s to connect, 5 s for a handshake, 2 s between heartbeats, 10 s of silence; attempt 0 of the job
    /// `dqrm`; with TLS if [`default_security`] says so, which looks the host up.
    pub fn new(rank: usize, world: usize, host: &str, ports: Vec<u16>, limits: Limits) -> TcpSettings {
        TcpSettings {
            rank,
            world,
            rendezvous: (host.to_owned(), ports),
            job: "dqrm".into(),
            attempt: 0,
            facts: Vec::new(),
            secret: None,
            security: default_security(host),
            connect: Duration::from_secs(60),
            handshake: Duration::from_secs(5),
            silence: Duration::from_secs(10),
            heartbeat: Duration::from_secs(2),
            network: None,
            limits,
            advertise: None,
            listener: None,
        }
    }

    /// Refuses what cannot be meant.
    pub(super) fn check(&self) -> Result<()> {
        let fail = |text: String| Err(Error::Config(text));
        if self.rank >= self.world {
            return fail(format!("rank {} of {} workers: ranks begin with 0", self.rank, self.world));
        }
        if u16::try_from(self.world).is_err() {
            return fail(format!("{} workers are too many, 65535 are the most", self.world));
        }
        if self.world > 1 && self.rendezvous.1.is_empty() && self.listener.is_none() {
            return fail(format!("no port for rank 0 at `{}`", self.rendezvous.0));
        }
        if self.secret.as_ref().is_some_and(|secret| secret.is_empty()) {
            return fail("the secret of the job is empty; leave it out or give every worker the same one".into());
        }
        if self.security == Security::Tls && self.secret.is_none() && self.world > 1 {
            return fail(format!(
                "workers that meet at `{}` need a secret, without which anybody could join: give all of them the same one, \
                 in the variable DQRM_SECRET or in a file; or, if nobody else can reach that network, ask for --insecure-network",
                self.rendezvous.0
            ));
        }
        if self.heartbeat.is_zero() || self.heartbeat * 2 > self.silence {
            return fail(format!(
                "a heartbeat every {:?} is too rare or too frequent to notice a silence of {:?}",
                self.heartbeat, self.silence
            ));
        }
        Ok(())
    }
}

impl std::fmt::Debug for TcpSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpSettings")
            .field("rank", &self.rank)
            .field("world", &self.world)
            .field("rendezvous", &self.rendezvous)
            .field("job", &self.job)
            .field("attempt", &self.attempt)
            .field("facts", &self.facts)
            .field("secret", &self.secret.as_ref().map(|_| "…"))
            .field("security", &self.security)
            .finish_non_exhaustive()
    }
}

/// The addresses of a host and port.
pub(super) fn resolve(host: &str, port: u16) -> std::io::Result<Vec<std::net::SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.collect())
}
