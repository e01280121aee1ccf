//! The published mode: the ranks first agree on the mean of their scales, then quantize with it, and
//! integers are summed (`sgd_quantized_gradients_parallel_comm.py` of the published code). Values of a
//! rank whose scale lies above the mean are clipped.

use super::{Exchange, Refused};
use crate::dist::frame::Kind;
use crate::dist::layout::{Layout, Part};

/// What has scales of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scaled {
    /// A part of the MLPs, with a scale for each group.
    Part(Part),
    /// Rows, with a scale for each table.
    Rows,
}

impl Scaled {
    pub(super) fn place(self) -> usize {
        match self {
            Scaled::Part(part) => part as usize,
            Scaled::Rows => 2,
        }
    }
}

/// The scales of all ranks, and their mean once all are there.
#[derive(Debug, Default)]
pub(super) struct Averaged {
    ranks: Vec<Option<Vec<f32>>>,
    pub(super) average: Option<Vec<f32>>,
}

impl Averaged {
    /// For `world` ranks; 0 where scales are not exchanged.
    pub(super) fn new(world: usize) -> Averaged {
        Averaged { ranks: vec![None; world], average: None }
    }

    /// Takes one rank's scales.
    pub(super) fn store(&mut self, from: usize, payload: &[u8], layout: &Layout, place: usize) -> Result<(), String> {
        let count = if place < 2 { layout.groups(Part::ALL[place]) } else { layout.rows.len() };
        if self.ranks.is_empty() {
            return Err("sent scales, which travel with the values in this job".into());
        }
        if self.ranks[from].is_some() {
            return Err("sent scales twice in one step".into());
        }
        if payload.len() != 4 * count {
            return Err(format!("sent {} bytes of scales where {} are due", payload.len(), 4 * count));
        }
        let scales: Vec<f32> = payload.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        if let Some(bad) = scales.iter().find(|s| !(s.is_finite() && **s >= 0.0)) {
            return Err(format!("sent the scale {bad}"));
        }
        self.ranks[from] = Some(scales);
        Ok(())
    }

    fn finish(&mut self) {
        if self.average.is_some() || self.ranks.is_empty() || self.ranks.iter().any(Option::is_none) {
            return;
        }
        let world = self.ranks.len() as f32;
        let mut sums = vec![0.0; self.ranks[0].as_ref().map_or(0, Vec::len)];
        for scales in self.ranks.iter().flatten() {
            sums.iter_mut().zip(scales).for_each(|(sum, scale)| *sum += scale);
        }
        self.average = Some(sums.into_iter().map(|sum: f32| sum / world).collect());
    }
}

impl Exchange {
    /// This rank's scales, in the published mode, before it quantizes.
    pub fn post_scales(&mut self, step: u64, what: Scaled, scales: &[f32]) -> Result<(), Refused> {
        let payload: Vec<u8> = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
        let (bytes, me, layout) = (payload.len(), self.seat.rank, self.layout.clone());
        self.ledger.gradient.count(Kind::Scales, bytes, bytes);
        let stored = self.step(step).scales[what.place()].store(me, &payload, &layout, what.place());
        stored.map_err(|reason| Refused { rank: me, reason })?;
        self.send(None, Kind::Scales, what.place() as u8, step, payload, bytes);
        self.average_scales(step)
    }

    /// The mean of all ranks' scales, to quantize with, once all are there.
    pub fn averaged(&mut self, step: u64, what: Scaled) -> Option<Vec<f32>> {
        self.steps.get(&step)?.scales[what.place()].average.clone()
    }

    pub(super) fn average_scales(&mut self, step: u64) -> Result<(), Refused> {
        self.step(step).scales.iter_mut().for_each(Averaged::finish);
        Ok(())
    }
}
