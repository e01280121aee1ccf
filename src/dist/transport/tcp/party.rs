//! What a worker knows of its job when it meets another one, and what it thinks of that one.

use super::handshake::{Answer, Offer};
use super::settings::{Security, TcpSettings};
use super::tls::Configs;
use crate::error::{Error, Result};
use ring::hmac;
use std::net::IpAddr;
use std::time::Duration;

/// What a worker knows of its job.
#[derive(Debug)]
pub(super) struct Party {
    pub(super) rank: usize,
    pub(super) world: usize,
    pub(super) job: String,
    pub(super) attempt: u32,
    pub(super) facts: Vec<(String, String)>,
    pub(super) key: hmac::Key,
    /// How connections are made private.
    pub(super) tls: Option<Configs>,
    /// The longest acquaintance.
    pub(super) handshake: Duration,
}

/// What comes of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is this rank.
    Welcome(usize),
    /// It has nothing to do with this attempt of this job.
    Other { again: bool, reason: String },
    /// It belongs to this job and cannot: the job was started wrongly.
    Wrong(String),
}

impl Party {
    pub(super) fn new(settings: &TcpSettings) -> Result<Party> {
        let key = super::handshake::key(settings.secret.as_ref().map(|secret| secret.as_slice()), &settings.job);
        let party = Party {
            rank: settings.rank,
            world: settings.world,
            job: settings.job.clone(),
            attempt: settings.attempt,
            facts: settings.facts.clone(),
            key,
            tls: matches!(settings.security, Security::Tls).then(Configs::new).transpose()?,
            handshake: settings.handshake,
        };
        if !party.offer(None, 0).fits() {
            let text = "the job's name and what all workers must agree on are too long for a handshake of 8 KiB; use hashes".into();
            return Err(Error::Config(text));
        }
        Ok(party)
    }

    /// What this worker says of itself, with where it accepts others.
    pub(super) fn offer(&self, address: Option<IpAddr>, port: u16) -> Offer {
        let (rank, world) = (self.rank as u32, self.world as u32);
        Offer { job: self.job.clone(), attempt: self.attempt, rank, world, address, port, facts: self.facts.clone() }
    }

    /// What to make of an offer, but for whether its rank is there already. The reasons are read on both sides.
    pub(super) fn judge(&self, offer: &Offer) -> Verdict {
        let (me, peer) = (self.rank, offer.rank);
        let differs = |what: &str, mine: &str, other: &str| {
            format!("`{}` differs: `{}` at rank {me}, `{}` at rank {peer}", shown(what), shown(mine), shown(other))
        };
        if offer.job != self.job {
            return Verdict::Other { again: true, reason: differs("job", &self.job, &offer.job) };
        }
        if offer.attempt != self.attempt {
            let reason = differs("attempt", &self.attempt.to_string(), &offer.attempt.to_string());
            // Whoever is of an older attempt has been replaced; whoever is of a newer one waits for this one to go.
            return Verdict::Other { again: offer.attempt > self.attempt, reason };
        }
        if offer.world as usize != self.world {
            return Verdict::Wrong(differs("world size", &self.world.to_string(), &offer.world.to_string()));
        }
        let value = |facts: &[(String, String)], name: &str| facts.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        for (name, _) in self.facts.iter().chain(&offer.facts) {
            let (mine, other) = (value(&self.facts, name), value(&offer.facts, name));
            if mine != other {
                let missing = || "(nothing)".to_owned();
                return Verdict::Wrong(differs(name, &mine.unwrap_or_else(missing), &other.unwrap_or_else(missing)));
            }
        }
        let peer = peer as usize;
        if peer >= self.world {
            return Verdict::Wrong(format!("rank {peer} cannot be: there are {} workers, the last is rank {}", self.world, self.world - 1));
        }
        if peer == me {
            return Verdict::Wrong(taken(peer));
        }
        if peer < me {
            return Verdict::Wrong(format!("rank {peer} knocked at rank {me}; the higher one knocks"));
        }
        Verdict::Welcome(peer)
    }
}

/// Two workers have the same rank.
pub(super) fn taken(rank: usize) -> String {
    format!("rank {rank} was started twice; every worker needs a rank of its own")
}

impl Verdict {
    /// What the other side is told.
    pub(super) fn answer(&self, me: usize) -> Answer {
        match self {
            Verdict::Welcome(_) => Answer::Welcome(me as u32),
            Verdict::Other { again, reason } => Answer::Refused { again: *again, reason: reason.clone() },
            Verdict::Wrong(reason) => Answer::Refused { again: false, reason: reason.clone() },
        }
    }
}

/// A text of a peer, not too long and without what confuses a terminal.
fn shown(text: &str) -> String {
    let mut shown: String = super::super::printable(text.as_bytes()).chars().take(100).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// `rank 3`, `ranks 2 and 5`, `ranks 1, 2, 3 and 40 others`.
pub(super) fn ranks(list: &[usize]) -> String {
    const SHOWN: usize = 10;
    let words: Vec<String> = list.iter().take(SHOWN).map(usize::to_string).collect();
    match (words.as_slice(), list.len().saturating_sub(SHOWN)) {
        ([], _) => "no rank".into(),
        ([one], 0) => format!("rank {one}"),
        ([first @ .., last], 0) => format!("ranks {} and {last}", first.join(", ")),
        (all, more) => format!("ranks {} and {more} others", all.join(", ")),
    }
}
