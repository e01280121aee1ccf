//! Which samples a step takes: a batch is a function of (order, step) alone.

use super::{Batch, Block, Samples, Scratch};
use crate::error::Result;
use crate::rng::{Permutation, Stream};
use crate::tables::Tables;
use std::ops::Range;

/// Number of the stream that orders samples.
const ORDER: u64 = 0x004f_5244_4552;

/// Which samples are taken, and in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The samples.
    pub range: Range<u64>,
    /// A seed shuffles them, another order each epoch; `None` takes them as they stand.
    pub shuffle: Option<u64>,
    /// Which part of each global batch is taken.
    pub share: Share,
}

/// One rank's part of each global batch: the batch is cut into `world` runs of nearly equal length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which run.
    pub rank: usize,
    /// How many there are.
    pub world: usize,
}

impl Default for Share {
    /// All of it.
    fn default() -> Share {
        Share { rank: 0, world: 1 }
    }
}

impl Order {
    /// Samples of one epoch.
    pub fn samples(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// Samples of a global batch when each rank takes `batch`.
    fn global(&self, batch: usize) -> u64 {
        (batch as u64).saturating_mul(self.share.world as u64).max(1)
    }

    /// Steps of one epoch: the last batch may be smaller.
    pub fn steps_per_epoch(&self, batch: usize) -> u64 {
        self.samples().div_ceil(self.global(batch))
    }

    /// Samples that all ranks together take at `step`.
    pub fn global_samples(&self, batch: usize, step: u64) -> u64 {
        let (n, global) = (self.samples(), self.global(batch));
        if n == 0 { 0 } else { global.min(n - step % n.div_ceil(global) * global) }
    }

    /// The samples of `step`, counted on through the epochs; none when the order has none.
    pub fn indices(&self, batch: usize, step: u64) -> Vec<u64> {
        let (n, global) = (self.samples(), self.global(batch));
        if n == 0 {
            return Vec::new();
        }
        let (epoch, place) = (step / n.div_ceil(global), step % n.div_ceil(global));
        let (first, count) = (place * global, self.global_samples(batch, step));
        let Share { rank, world } = self.share;
        let border = |rank: usize| first + count * rank as u64 / world as u64;
        let places = border(rank)..border(rank + 1);
        let permutation = self.shuffle.map(|seed| Permutation::new(n, Stream::new(seed, ORDER).sub(epoch)));
        let mut indices: Vec<u64> = places.collect();
        if let Some(permutation) = permutation {
            permutation.apply_all(&mut indices);
        }
        indices.iter_mut().for_each(|i| *i += self.range.start);
        indices
    }
}

/// The batch of `step`.
///
/// # Errors
/// Samples that cannot be read, or that do not fit `tables`.
pub fn fetch_batch(samples: &dyn Samples, order: &Order, tables: &Tables, batch: usize, step: u64) -> Result<Batch> {
    fetch(samples, order, tables, batch, step, &mut Scratch::default())
}

pub(super) fn fetch(
    samples: &dyn Samples,
    order: &Order,
    tables: &Tables,
    batch: usize,
    step: u64,
    scratch: &mut Scratch,
) -> Result<Batch> {
    let mut block = Block::new();
    samples.fetch(&order.indices(batch, step), &mut block)?;
    Batch::with_scratch(block, tables, scratch)
}
