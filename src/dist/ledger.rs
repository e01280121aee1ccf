//! Counts every byte that workers exchange, by what it is.

use super::frame::{HEADER, Kind};
use serde::Serialize;

/// Bytes by what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Bytes {
    /// Which rows were touched.
    pub ids: u64,
    /// Values of embedding rows.
    pub rows: u64,
    /// Values of MLP gradients.
    pub mlps: u64,
    /// Scales of both.
    pub scales: u64,
    /// Headers of frames, and reports of losses and times.
    pub framing: u64,
    /// Everything outside of steps: evaluations, checkpoints, comparisons of replicas.
    pub other: u64,
}

impl Bytes {
    /// Bytes that belong to steps.
    pub fn step(&self) -> u64 {
        self.ids + self.rows + self.mlps + self.scales + self.framing
    }

    /// Counts a frame of `payload` bytes, `scales` of which are scales.
    pub fn count(&mut self, kind: Kind, payload: usize, scales: usize) {
        let values = (payload - scales) as u64;
        match kind {
            Kind::Ids => self.ids += values,
            Kind::Rows | Kind::RowSums => self.rows += values,
            Kind::Chunk | Kind::ChunkSums => self.mlps += values,
            Kind::Scales => {}
            Kind::Report => self.framing += values,
            _ => {
                self.other += (HEADER + payload) as u64;
                return;
            }
        }
        self.scales += scales as u64;
        self.framing += HEADER as u64;
    }

    /// Some of the bytes of rows turned out to be scales.
    pub fn were_scales(&mut self, bytes: usize) {
        self.rows -= bytes as u64;
        self.scales += bytes as u64;
    }

    /// The sum.
    pub fn plus(self, other: Bytes) -> Bytes {
        self.combined(other, u64::saturating_add)
    }

    /// What was counted since `before`.
    pub fn since(self, before: Bytes) -> Bytes {
        self.combined(before, u64::saturating_sub)
    }

    /// The mean of `n` such.
    pub fn over(self, n: u64) -> Bytes {
        self.mapped(|b| b / n.max(1))
    }

    fn mapped(self, f: impl Fn(u64) -> u64) -> Bytes {
        let Bytes { ids, rows, mlps, scales, framing, other } = self;
        Bytes { ids: f(ids), rows: f(rows), mlps: f(mlps), scales: f(scales), framing: f(framing), other: f(other) }
    }

    fn combined(self, other: Bytes, f: fn(u64, u64) -> u64) -> Bytes {
        Bytes {
            ids: f(self.ids, other.ids),
            rows: f(self.rows, other.rows),
            mlps: f(self.mlps, other.mlps),
            scales: f(self.scales, other.scales),
            framing: f(self.framing, other.framing),
            other: f(self.other, other.other),
        }
    }
}

/// The bytes of one rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Ledger {
    /// The rank's gradients, each value once however often it is sent: what the literature calls the size of
    /// a gradient. Its own chunk of the MLPs counts, though it never travels.
    pub gradient: Bytes,
    /// What left the rank, once for each peer it went to.
    pub sent: Bytes,
    /// What came to the rank.
    pub received: Bytes,
}

impl Ledger {
    /// The sum.
    pub fn plus(self, other: Ledger) -> Ledger {
        Ledger {
            gradient: self.gradient.plus(other.gradient),
            sent: self.sent.plus(other.sent),
            received: self.received.plus(other.received),
        }
    }

    /// What was counted since `before`.
    pub fn since(self, before: Ledger) -> Ledger {
        Ledger {
            gradient: self.gradient.since(before.gradient),
            sent: self.sent.since(before.sent),
            received: self.received.since(before.received),
        }
    }
}
