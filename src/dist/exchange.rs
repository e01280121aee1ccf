//! The exchange of gradients as a state machine: what a rank computed goes in, frames come out; frames of peers
//! go in, and when everything of a step is there, the sums come out. No sockets, no clocks, no threads: a
//! transport carries the frames, or a loop that plays all ranks.
//!
//! A step of one rank:
//! 1. [`Exchange::post_ids`], as soon as the batch is known: every rank learns the union of all rows.
//! 2. [`Exchange::post_part`] for each part of the MLPs and [`Exchange::post_rows`], as they are computed.
//! 3. [`Exchange::accept`] for every frame that comes; [`Exchange::outgoing`] after each call.
//! 4. [`Exchange::take`] gives the sums once nothing is missing.
//!
//! Sums are taken in the order of the ranks, in FP32, from what travelled, also by the rank that sent it.
//! So every rank ends with the same bits, and so does every transport.

use super::frame::{Frame, Kind, Limits};
use super::ids::{self, RowLists};
use super::layout::{Chunk, Layout, Part, bytes_in, groups_in};
use super::ledger::Ledger;
use super::mlps::{ChunkForm, elements};
use super::rows::{Coded, RowForm};
use super::union::Union;
use crate::config::{GradientScale, Workers};
use std::collections::BTreeMap;
use std::sync::Arc;

mod feedback;
mod owner;
mod published;
mod report;
mod state;

pub use published::Scaled;
pub use report::{Report, Times};
use state::Step;

/// Steps that a peer may be ahead: it sends ids of the next step before this one's sums are there.
const AHEAD: u64 = 2;

/// A frame to send.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// To this rank; to all others when `None`.
    pub to: Option<usize>,
    /// The encoded frame.
    pub bytes: Arc<[u8]>,
}

/// A peer whose frame cannot be used, and why, in words that go after "rank 3".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The peer.
    pub rank: usize,
    /// What is wrong.
    pub reason: String,
}

/// Who exchanges, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Seat {
    /// This rank.
    pub rank: usize,
    /// Ranks in all.
    pub world: usize,
    /// How often the job was started before.
    pub attempt: u32,
}

/// The sums of a step, the same at every rank.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Merged {
    /// Rows that some rank touched.
    pub rows: RowLists,
    /// Their gradients `[rows, D]`.
    pub row_gradients: Vec<f32>,
    /// Gradients of the MLPs, in the flat buffer's layout.
    pub mlps: Vec<f32>,
    /// What each rank said of the step.
    pub reports: Vec<Report>,
    /// Rows that each rank touched.
    pub touched: Vec<usize>,
}

/// The state machine.
#[derive(Debug)]
pub struct Exchange {
    seat: Seat,
    layout: Arc<Layout>,
    /// Rows of each table that one rank's batch may touch.
    most: Vec<u64>,
    row_form: RowForm,
    chunk_form: ChunkForm,
    sum_form: ChunkForm,
    owned: bool,
    published: bool,
    feedback: bool,
    chunks: [Vec<Chunk>; 2],
    /// What this rank left out of the sums that it owns, by part.
    errors: [Vec<f32>; 2],
    steps: BTreeMap<u64, Step>,
    /// Steps before this one are done.
    next: u64,
    out: Vec<Outgoing>,
    ledger: Ledger,
}

impl Exchange {
    /// A rank before step `first`. `most[k]` is the most rows of table k that one rank's batch may touch.
    pub fn new(seat: Seat, layout: Arc<Layout>, workers: &Workers, most: Vec<u64>, first: u64) -> Exchange {
        let [row_bits, mlp_bits] = [workers.row_bits, workers.mlp_bits].map(|b| b.width());
        let published = workers.scale == GradientScale::Average;
        let scaled = |bits: u32| bits < 32 && !published;
        let sum_bits = if published && mlp_bits < 32 { 16 } else { mlp_bits };
        let chunks = Part::ALL.map(|part| layout.chunks(part, seat.world, mlp_bits));
        let errors = Part::ALL.map(|p| vec![0.0; elements(&chunks[p as usize][seat.rank], layout.part(p))]);
        Exchange {
            row_form: RowForm { dim: layout.dim, bits: row_bits, scales: scaled(row_bits) },
            chunk_form: ChunkForm { bits: mlp_bits, scales: scaled(mlp_bits) },
            sum_form: ChunkForm { bits: sum_bits, scales: scaled(mlp_bits) },
            owned: workers.owned(),
            published,
            feedback: workers.keeps_errors() && !published,
            chunks,
            errors,
            steps: BTreeMap::new(),
            next: first,
            out: Vec::new(),
            ledger: Ledger::default(),
            seat,
            layout,
            most,
        }
    }

    /// The longest payloads that this exchange may see, to bound frames before they are read.
    pub fn allow(&self, limits: &mut Limits) {
        let rows: u64 = self.most.iter().fold(0, |sum, &m| sum.saturating_add(m));
        let values = |rows: u64| rows.saturating_mul(self.row_form.row_bytes() as u64).saturating_add(4 * self.layout.rows.len() as u64);
        limits.allow(Kind::Ids, ids::most_bytes(&self.layout.rows, &self.most));
        limits.allow(Kind::Rows, values(rows));
        if self.owned {
            // an owner has no more than its share of the union, which is at most `world` times these
            limits.allow(Kind::RowSums, values(rows.saturating_add(1)));
        }
        for part in Part::ALL {
            for chunk in &self.chunks[part as usize] {
                limits.allow(Kind::Chunk, (bytes_in(chunk) + self.chunk_form.scale_bytes(chunk)) as u64);
                limits.allow(Kind::ChunkSums, (4 * elements(chunk, self.layout.part(part)) + 4 * groups_in(chunk)) as u64);
            }
            limits.allow(Kind::Scales, 4 * self.layout.groups(part) as u64);
        }
        limits.allow(Kind::Scales, 4 * self.layout.rows.len() as u64);
        limits.allow(Kind::Report, Report::BYTES as u64);
    }

    /// The longest payload that this rank may have to send, in bytes; frames count theirs in 32 bits.
    pub fn longest(&self) -> u64 {
        let rows: u64 = self.most.iter().fold(0, |sum, &m| sum.saturating_add(m));
        let parts = Part::ALL.map(|p| 4 * self.layout.part(p).iter().map(|t| t.elements() as u64).sum::<u64>());
        rows.saturating_mul(4 * self.layout.dim as u64).max(parts[0]).max(parts[1])
    }

    /// Frames that must be sent now, in this order.
    pub fn outgoing(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.out)
    }

    /// The bytes so far.
    pub fn ledger(&self) -> Ledger {
        self.ledger
    }

    /// Counts a frame that is not part of a step, sent to `peers` ranks or received.
    pub fn count_other(&mut self, kind: Kind, payload: usize, sent_to: usize, received: bool) {
        (0..sent_to).for_each(|_| self.ledger.sent.count(kind, payload, 0));
        if received {
            self.ledger.received.count(kind, payload, 0);
        }
    }

    /// The published mode exchanges scales before anything is quantized.
    pub fn is_published(&self) -> bool {
        self.published
    }

    /// True when this must be quantized with the mean of all ranks' scales.
    pub fn averages(&self, what: Scaled) -> bool {
        let bits = if what == Scaled::Rows { self.row_form.bits } else { self.chunk_form.bits };
        self.published && bits < 32
    }

    /// Says which rows this rank's batch of `step` touches. May be called one step ahead.
    pub fn post_ids(&mut self, step: u64, lists: RowLists) -> Result<(), Refused> {
        let mut payload = Vec::new();
        ids::encode(&lists, &self.layout.rows, &mut payload);
        self.ledger.gradient.count(Kind::Ids, payload.len(), 0);
        self.send(None, Kind::Ids, 0, step, payload, 0);
        let me = self.seat.rank;
        self.step(step).ids[me] = Some(lists);
        self.advance(step)
    }

    /// The gradients of this rank's rows, with a scale for each table.
    pub fn post_rows(&mut self, step: u64, coded: Coded) -> Result<(), Refused> {
        let me = self.seat.rank;
        let form = self.row_form;
        if self.owned {
            self.step(step).own_rows = Some(coded);
            return self.advance(step);
        }
        let state = self.step(step);
        let Some(lists) = &state.ids[me] else {
            return Err(self.refused(me, "posts rows before its ids"));
        };
        let run = 0..lists.len();
        let (payload, scales) = (form.write(&coded, lists, &run), form.scale_bytes(lists, &run));
        self.ledger.gradient.count(Kind::Rows, payload.len(), scales);
        self.send(None, Kind::Rows, 0, step, payload.clone(), scales);
        self.step(step).rows[me] = Some(payload);
        self.advance(step)
    }

    /// The gradients of a part of the MLPs.
    pub fn post_part(&mut self, step: u64, part: Part, coded: &Coded) -> Result<(), Refused> {
        let p = part as usize;
        for owner in 0..self.seat.world {
            let chunk = &self.chunks[p][owner];
            let (payload, scales) = (self.chunk_form.write(coded, chunk), self.chunk_form.scale_bytes(chunk));
            self.ledger.gradient.count(Kind::Chunk, payload.len(), scales);
            if owner == self.seat.rank {
                self.step(step).parts[p].chunks[owner] = Some(payload);
            } else {
                self.send(Some(owner), Kind::Chunk, part as u8, step, payload, scales);
            }
        }
        self.advance(step)
    }

    /// What this rank says of its step.
    pub fn post_report(&mut self, step: u64, report: Report) -> Result<(), Refused> {
        let payload = report.encode();
        self.ledger.gradient.count(Kind::Report, payload.len(), 0);
        self.send(None, Kind::Report, 0, step, payload, 0);
        let me = self.seat.rank;
        self.step(step).reports[me] = Some(report);
        self.advance(step)
    }

    /// Takes a frame of a step; gives back what belongs to something else.
    ///
    /// # Errors
    /// A frame that does not fit the model, the step or what the peer said before.
    pub fn accept(&mut self, from: usize, frame: Frame) -> Result<Option<Frame>, Refused> {
        let kinds = [Kind::Ids, Kind::Rows, Kind::RowSums, Kind::Chunk, Kind::ChunkSums, Kind::Scales, Kind::Report];
        if !kinds.contains(&frame.kind) {
            return Ok(Some(frame));
        }
        let (kind, step) = (frame.kind, frame.step);
        if step < self.next || step > self.next + AHEAD {
            let text = format!("sent {kind:?} of step {step}, while step {} is under way here", self.next);
            return Err(self.refused(from, text));
        }
        self.store(from, frame).map_err(|reason| Refused { rank: from, reason })?;
        self.advance(step)?;
        Ok(None)
    }

    /// Puts a frame into its place.
    fn store(&mut self, from: usize, frame: Frame) -> Result<(), String> {
        let (kind, part, bytes) = (frame.kind, frame.part, frame.payload.len());
        let scales = match kind {
            Kind::Scales => bytes,
            Kind::Chunk if part < 2 => self.chunk_form.scale_bytes(&self.chunks[part as usize][self.seat.rank]).min(bytes),
            Kind::ChunkSums if part < 2 => self.sum_form.scale_bytes(&self.chunks[part as usize][from]).min(bytes),
            _ => 0,
        };
        let (layout, most) = (self.layout.clone(), std::mem::take(&mut self.most));
        let state = self.step(frame.step);
        let stored = state.store(from, frame, &layout, &most);
        self.most = most;
        if stored.is_ok() {
            self.ledger.received.count(kind, bytes, scales);
        }
        stored
    }

    /// Does what has become possible in a step.
    fn advance(&mut self, step: u64) -> Result<(), Refused> {
        let me = self.seat.rank;
        let state = self.step(step);
        if state.union.is_none() && state.ids.iter().all(Option::is_some) {
            let lists: Vec<&RowLists> = state.ids.iter().flatten().collect();
            state.union = Some(Union::new(&lists));
        }
        self.average_scales(step)?;
        self.advance_rows(step)?;
        for part in Part::ALL {
            let state = self.step(step);
            let chunks = &state.parts[part as usize];
            if chunks.sums[me].is_none() && chunks.chunks.iter().all(Option::is_some) {
                self.sum_chunk(step, part)?;
            }
        }
        Ok(())
    }

    /// Sums the chunk that this rank owns, and sends the sums.
    fn sum_chunk(&mut self, step: u64, part: Part) -> Result<(), Refused> {
        let (p, me, layout) = (part as usize, self.seat.rank, self.layout.clone());
        let (chunk, tensors) = (&self.chunks[p][me], layout.part(part));
        let Some(state) = self.steps.get(&step) else { return Ok(()) };
        let mut sums = vec![0.0; elements(chunk, tensors)];
        for (rank, payload) in state.parts[p].chunks.iter().enumerate() {
            let payload = payload.as_deref().unwrap_or_default();
            self.chunk_form.check(payload, chunk, tensors).map_err(|reason| Refused { rank, reason })?;
            self.chunk_form.add(payload, chunk, tensors, &mut sums);
        }
        let errors = &mut self.errors[p];
        if self.feedback {
            sums.iter_mut().zip(errors.iter()).for_each(|(sum, error)| *sum += error);
        }
        let payload = self.sum_form.quantize(&sums, chunk, tensors, errors);
        let scales = self.sum_form.scale_bytes(chunk);
        self.send(None, Kind::ChunkSums, part as u8, step, payload.clone(), scales);
        self.step(step).parts[p].sums[me] = Some(payload);
        Ok(())
    }

    /// The sums of the step that is under way, once nothing is missing.
    ///
    /// # Errors
    /// A peer whose values cannot be used.
    pub fn take(&mut self, step: u64) -> Result<Option<Merged>, Refused> {
        if step != self.next || !self.missing(step).is_empty() {
            return Ok(None);
        }
        let Some(state) = self.steps.remove(&step) else { return Ok(None) };
        self.next = step + 1;
        let mut mlps = vec![0.0; self.layout.flat_len];
        for part in Part::ALL {
            let tensors = self.layout.part(part);
            let known = state.scales[part as usize].average.as_deref();
            for (owner, payload) in state.parts[part as usize].sums.iter().enumerate() {
                let chunk = &self.chunks[part as usize][owner];
                let payload = payload.as_deref().unwrap_or_default();
                self.sum_form.check(payload, chunk, tensors).map_err(|reason| Refused { rank: owner, reason })?;
                self.sum_form.add_flat(payload, chunk, tensors, known, &mut mlps);
            }
        }
        let row_gradients = self.row_sums(&state)?;
        self.count_row_scales(&state);
        let touched = state.ids.iter().flatten().map(RowLists::len).collect();
        let rows = state.union.map_or_else(RowLists::default, |u| u.lists);
        Ok(Some(Merged { rows, row_gradients, mlps, reports: state.reports.into_iter().flatten().collect(), touched }))
    }

    /// What is still missing of a step: what, and from whom.
    pub fn missing(&mut self, step: u64) -> Vec<(&'static str, Vec<usize>)> {
        let (me, owned) = (self.seat.rank, self.owned);
        if step < self.next { Vec::new() } else { self.step(step).missing(me, owned) }
    }

    fn step(&mut self, step: u64) -> &mut Step {
        let (world, published) = (self.seat.world, self.published);
        let forms = [self.row_form.bits, self.chunk_form.bits];
        self.steps.entry(step).or_insert_with(|| Step::new(world, published, forms))
    }

    fn refused(&self, rank: usize, reason: impl Into<String>) -> Refused {
        Refused { rank, reason: reason.into() }
    }

    /// Queues a frame and counts it.
    fn send(&mut self, to: Option<usize>, kind: Kind, part: u8, step: u64, payload: Vec<u8>, scales: usize) {
        let peers = if to.is_some() { 1 } else { self.seat.world - 1 };
        (0..peers).for_each(|_| self.ledger.sent.count(kind, payload.len(), scales));
        if peers > 0 {
            let frame = Frame { kind, part, attempt: self.seat.attempt, from: self.seat.rank as u32, step, payload };
            self.out.push(Outgoing { to, bytes: frame.encode().into() });
        }
    }
}

#[cfg(test)]
mod tests;
