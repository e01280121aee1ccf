//! How two workers learn that they belong to the same job. Bytes in, bytes out: no sockets, no clock.
//!
//! ```text
//! acceptor                                             connector
//!    hello:  "dqrmjoin", version, nonce           ─►
//!            ◄─  offer:  "dqrmjoin", version, nonce, job, attempt, rank, world, address, facts; proof
//!    answer: welcome with the rank, or a refusal; proof  ─►
//! ```
//!
//! A proof is an HMAC-SHA256 with the job's secret over what it is for, the channel's binding (a value that only
//! the two ends of one TLS connection know), the nonces, and the message. So a message of one connection proves
//! nothing on another, and what was sent one way proves nothing the other way. Whoever comes
//! to a worker's door without the secret learns nothing but a nonce. Whoever stands in rank 0's place learns an offer, which names
//! the job and holds hashes, and a proof to try guesses of the secret against: a secret has to be random, not a phrase.

use ring::{digest, hmac, rand};
use std::net::IpAddr;
use zeroize::Zeroizing;

/// First bytes of both sides.
const MAGIC: [u8; 8] = *b"dqrmjoin";
/// What this program speaks.
const VERSION: u8 = 1;
/// Bytes of a hello.
pub(super) const HELLO: usize = 8 + 1 + NONCE;
/// The longest offer or answer.
pub(super) const LONGEST: usize = 8192;
/// Bytes before a message, its length, and after it, its proof.
pub(super) const LENGTH: usize = 4;
/// Bytes of a proof.
pub(super) const PROOF: usize = digest::SHA256_OUTPUT_LEN;
const NONCE: usize = 32;

type Nonce = [u8; NONCE];
/// What ties a proof to one connection; zeros without TLS.
pub(super) type Binding = [u8; 32];

/// What a connector says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) job: String,
    pub(super) attempt: u32,
    pub(super) rank: u32,
    pub(super) world: u32,
    /// Where it accepts others: an address if it is not the one it is seen at, and a port.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
    /// What has to be equal: names and values.
    pub(super) facts: Vec<(String, String)>,
}

/// What an acceptor thinks of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Come in; this is rank so-and-so.
    Welcome(u32),
    /// No, and why. `again` if another acceptor may come up that says yes.
    Refused { again: bool, reason: String },
}

/// Nothing that a worker of this job would send; there is no answer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stranger(pub(super) String);

/// Proofs between two workers, on one connection.
#[derive(Debug, Clone)]
pub(super) struct Session {
    key: hmac::Key,
    binding: Binding,
    /// The acceptor's nonce, then the connector's.
    nonces: [Nonce; 2],
}

impl Session {
    /// Whatever both sides said so far goes into the proof.
    fn context(&self, what: &str, body: &[u8]) -> Vec<u8> {
        let mut context = Vec::with_capacity(16 + 3 * NONCE + body.len());
        context.extend_from_slice(&(what.len() as u64).to_le_bytes());
        context.extend_from_slice(what.as_bytes());
        context.extend_from_slice(&self.binding);
        self.nonces.iter().for_each(|nonce| context.extend_from_slice(nonce));
        context.extend_from_slice(body);
        context
    }

    /// A message with its length before and its proof behind it. `what` says what it is; no two kinds share a word.
    pub(super) fn seal(&self, what: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(hmac::sign(&self.key, &self.context(what, body)).as_ref());
        bytes
    }

    /// The message of `sealed`, a body and its proof, if the sender knows the secret.
    pub(super) fn open<'a>(&self, what: &str, sealed: &'a [u8]) -> Option<&'a [u8]> {
        let (body, proof) = sealed.split_at_checked(sealed.len().checked_sub(PROOF)?)?;
        // Takes the same time wherever the first difference is.
        hmac::verify(&self.key, &self.context(what, body), proof).ok().map(|()| body)
    }
}

/// The key of a job: its secret, or, where there is none, its name, which keeps jobs apart but protects nothing.
pub(super) fn key(secret: Option<&[u8]>, job: &str) -> hmac::Key {
    match secret {
        Some(secret) => hmac::Key::new(hmac::HMAC_SHA256, &Zeroizing::new([b"secret ", secret].concat())),
        None => hmac::Key::new(hmac::HMAC_SHA256, &[b"job ", job.as_bytes()].concat()),
    }
}

fn nonce() -> Result<Nonce, Stranger> {
    let random = rand::generate::<Nonce>(&rand::SystemRandom::new());
    random.map(rand::Random::expose).map_err(|_| Stranger("the operating system gives no random numbers".into()))
}

/// The side that waits for connections.
#[derive(Debug)]
pub(super) struct Acceptor(Session);

impl Acceptor {
    /// A new connection, and the hello to send.
    pub(super) fn new(key: &hmac::Key, binding: Binding) -> Result<(Acceptor, Vec<u8>), Stranger> {
        let mine = nonce()?;
        let hello = [&MAGIC[..], &[VERSION], &mine].concat();
        Ok((Acceptor(Session { key: key.clone(), binding, nonces: [mine, [0; NONCE]] }), hello))
    }

    /// Reads a sealed offer. An offer of a stranger is not worth an answer.
    pub(super) fn offer(&mut self, sealed: &[u8]) -> Result<Offer, Stranger> {
        let mut fields = Fields(sealed);
        fields.greeting()?;
        self.0.nonces[1] = *fields.array()?;
        let body = self.0.open("offer", sealed).ok_or_else(|| Stranger("does not know the secret of this job".into()))?;
        let mut fields = Fields(body.get(HELLO..).unwrap_or_default());
        let offer = fields.offer()?;
        fields.end().map(|()| offer)
    }

    /// The answer as bytes, and the session for what follows a welcome.
    pub(super) fn answer(self, answer: &Answer) -> (Vec<u8>, Session) {
        let body = match answer {
            Answer::Welcome(rank) => [&[0], &rank.to_le_bytes()[..]].concat(),
            Answer::Refused { again, reason } => {
                let cut = (0..=reason.len().min(LONGEST / 2)).rev().find(|&n| reason.is_char_boundary(n)).unwrap_or(0);
                [&[1 + u8::from(*again)], &reason.as_bytes()[..cut]].concat()
            }
        };
        (self.0.seal("answer", &body), self.0)
    }
}

/// The side that connects.
#[derive(Debug)]
pub(super) struct Connector(Session);

impl Connector {
    /// Reads the hello and makes an offer. An offer that is too long has too many facts.
    pub(super) fn offer(key: &hmac::Key, binding: Binding, hello: &[u8], offer: &Offer) -> Result<(Connector, Vec<u8>), Stranger> {
        let mut fields = Fields(hello);
        fields.greeting()?;
        let session = Session { key: key.clone(), binding, nonces: [*fields.array()?, nonce()?] };
        let body = [&MAGIC[..], &[VERSION], &session.nonces[1], &offer.encode()].concat();
        let sealed = session.seal("offer", &body);
        Ok((Connector(session), sealed))
    }

    /// Reads the answer.
    pub(super) fn answer(self, sealed: &[u8]) -> Result<(Answer, Session), Stranger> {
        let body = self.0.open("answer", sealed).ok_or_else(|| Stranger("does not know the secret of this job".into()))?;
        let mut fields = Fields(body);
        let answer = match fields.byte()? {
            0 => {
                let rank = fields.number()?;
                fields.end()?;
                Answer::Welcome(rank)
            }
            kind @ 1..=2 => Answer::Refused { again: kind == 2, reason: super::super::printable(fields.0) },
            kind => return Err(Stranger(format!("gave an answer of an unknown kind ({kind})"))),
        };
        Ok((answer, self.0))
    }
}

impl Offer {
    fn encode(&self) -> Vec<u8> {
        fn text(text: &str, bytes: &mut Vec<u8>) {
            // Longer texts are longer than an offer may be, which is refused.
            bytes.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        let mut bytes = Vec::new();
        text(&self.job, &mut bytes);
        [self.attempt, self.rank, self.world].iter().for_each(|n| bytes.extend_from_slice(&n.to_le_bytes()));
        match self.address {
            None => bytes.push(0),
            Some(address) => put_address(address, &mut bytes),
        }
        bytes.extend_from_slice(&self.port.to_le_bytes());
        bytes.extend_from_slice(&u16::try_from(self.facts.len()).unwrap_or(u16::MAX).to_le_bytes());
        for (name, value) in &self.facts {
            text(name, &mut bytes);
            text(value, &mut bytes);
        }
        bytes
    }

    /// Whether it fits into a message.
    pub(super) fn fits(&self) -> bool {
        HELLO + self.encode().len() <= LONGEST
    }
}

/// Appends an address: 4 or 6, and its bytes.
pub(super) fn put_address(address: IpAddr, bytes: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            bytes.push(4);
            bytes.extend_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            bytes.push(6);
            bytes.extend_from_slice(&address.octets());
        }
    }
}

/// The fields of a message, one after another.
#[derive(Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Stranger> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(|| Stranger("sent a message that is cut off".into()))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Stranger> {
        let taken = self.take(N)?;
        taken.first_chunk().ok_or_else(|| Stranger("sent a message that is cut off".into()))
    }

    pub(super) fn byte(&mut self) -> Result<u8, Stranger> {
        self.array::<1>().map(|bytes| bytes[0])
    }

    pub(super) fn short(&mut self) -> Result<u16, Stranger> {
        self.array().map(|bytes| u16::from_le_bytes(*bytes))
    }

    fn number(&mut self) -> Result<u32, Stranger> {
        self.array().map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn text(&mut self) -> Result<String, Stranger> {
        let len = self.short()?;
        let text = std::str::from_utf8(self.take(len.into())?).map_err(|_| Stranger("sent text that is not UTF-8".into()))?;
        Ok(text.to_owned())
    }

    /// An address, or that there is none.
    pub(super) fn address(&mut self) -> Result<Option<IpAddr>, Stranger> {
        match self.byte()? {
            0 => Ok(None),
            4 => self.array::<4>().map(|octets| Some(IpAddr::from(*octets))),
            6 => self.array::<16>().map(|octets| Some(IpAddr::from(*octets))),
            kind => Err(Stranger(format!("sent an address of an unknown kind ({kind})"))),
        }
    }

    /// What both sides begin with.
    fn greeting(&mut self) -> Result<(), Stranger> {
        let magic: &[u8; 8] = self.array()?;
        if *magic != MAGIC {
            return Err(Stranger(format!("is no dqrm worker (its first bytes are {magic:02x?})")));
        }
        match self.byte()? {
            VERSION => Ok(()),
            other => Err(Stranger(format!("speaks version {other} of the handshake, this program version {VERSION}"))),
        }
    }

    fn offer(&mut self) -> Result<Offer, Stranger> {
        let job = self.text()?;
        let (attempt, rank, world) = (self.number()?, self.number()?, self.number()?);
        let (address, port) = (self.address()?, self.short()?);
        let count = self.short()?;
        let facts = (0..count).map(|_| Ok((self.text()?, self.text()?))).collect::<Result<_, Stranger>>()?;
        Ok(Offer { job, attempt, rank, world, address, port, facts })
    }

    pub(super) fn end(&self) -> Result<(), Stranger> {
        if self.0.is_empty() { Ok(()) } else { Err(Stranger(format!("sent {} bytes too many", self.0.len()))) }
    }
}
