//! Samples a second that loader threads make into batches, without a model. Nothing else takes part: what a training
//! run reaches beyond it, it waits for data. The two parts of that work are measured alone too, on one thread.

use super::Spread;
use crate::data::loader::{Loader, Order, Share};
use crate::data::{Batch, Block, Samples, Scratch};
use crate::error::Result;
use crate::tables::Tables;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Batches whose ids are counted.
const COUNTED: u64 = 8;

/// What is loaded, and how long each round of a measurement takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// The samples.
    pub range: Range<u64>,
    /// Width of the tables' rows.
    pub dim: usize,
    /// Samples of a batch.
    pub batch: usize,
    /// Rounds.
    pub rounds: usize,
    /// Seconds of a round.
    pub seconds: f64,
}

/// The rate at one batch size and number of threads.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct DataReport {
    /// Samples of a batch.
    pub batch: usize,
    /// Loader threads.
    pub threads: usize,
    /// In another order than they stand in.
    pub shuffled: bool,
    /// Samples a second of each round.
    pub rounds: Vec<f64>,
    /// The same in three numbers.
    pub samples_per_second: Spread,
    /// Ids a second at the median.
    pub ids_per_second: f64,
}

/// The rates of the parts, each alone on one thread.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PartsReport {
    /// Samples of a batch.
    pub batch: usize,
    /// In another order than they stand in.
    pub shuffled: bool,
    /// Samples a second that are found, read and decoded.
    pub read: Spread,
    /// Samples a second whose ids are sorted, with each row listed once.
    pub listed: Spread,
}

impl Load {
    fn order(&self, shuffled: bool) -> Order {
        Order { range: self.range.clone(), shuffle: shuffled.then_some(1), share: Share::default() }
    }

    /// Loads batches with `threads` threads.
    ///
    /// # Errors
    /// Samples that cannot be read.
    pub fn measure(&self, samples: &Arc<dyn Samples>, threads: usize, shuffled: bool) -> Result<DataReport> {
        let tables = Tables::new(samples.rows(), self.dim, u64::MAX)?;
        let (mut rates, mut ids, mut counted) = (Vec::new(), 0, 0);
        let mut first = 0;
        // The first round warms up.
        for round in 0..=self.rounds.max(1) {
            let mut loader = Loader::new(samples.clone(), self.order(shuffled), tables.clone(), self.batch, first..u64::MAX, threads)?;
            let (start, mut loaded) = (Instant::now(), 0u64);
            while let Some(batch) = loader.next().transpose()? {
                first += 1;
                loaded += batch.samples as u64;
                if first <= COUNTED {
                    ids += batch.row_samples.len() as u64;
                    counted += batch.samples as u64;
                }
                if start.elapsed().as_secs_f64() >= self.seconds {
                    break;
                }
            }
            if round > 0 {
                rates.push(loaded as f64 / start.elapsed().as_secs_f64());
            }
        }
        let samples_per_second = Spread::of(&rates);
        let ids_per_second = samples_per_second.median * ids as f64 / counted.max(1) as f64;
        Ok(DataReport { batch: self.batch, threads, shuffled, rounds: rates, samples_per_second, ids_per_second })
    }

    /// Does what a loader thread does, and takes the time of each part.
    ///
    /// # Errors
    /// Samples that cannot be read.
    pub fn parts(&self, samples: &dyn Samples, shuffled: bool) -> Result<PartsReport> {
        let tables = Tables::new(samples.rows(), self.dim, u64::MAX)?;
        let (order, mut scratch, mut step) = (self.order(shuffled), Scratch::default(), 0);
        let (mut read, mut listed) = (Vec::new(), Vec::new());
        for round in 0..=self.rounds.max(1) {
            let (start, mut times, mut loaded) = (Instant::now(), [Duration::ZERO; 2], 0);
            while loaded == 0 || start.elapsed().as_secs_f64() < self.seconds {
                let (began, mut block) = (Instant::now(), Block::new());
                samples.fetch(&order.indices(self.batch, step), &mut block)?;
                let fetched = Instant::now();
                loaded += block.samples;
                Batch::with_scratch(block, &tables, &mut scratch)?;
                times[0] += fetched - began;
                times[1] += fetched.elapsed();
                step += 1;
            }
            if round > 0 {
                let [a, b] = times.map(|time| loaded as f64 / time.as_secs_f64().max(1e-9));
                read.push(a);
                listed.push(b);
            }
        }
        Ok(PartsReport { batch: self.batch, shuffled, read: Spread::of(&read), listed: Spread::of(&listed) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Synthetic;
    use crate::data::synthetic::Clicks;

    #[test]
    fn rounds_go_on_where_the_last_one_ended() {
        let clicks = Clicks::new(&Synthetic { samples: 100, bag: 1, ..Synthetic::default() }, 1, 2, vec![9, 4]);
        let samples: Arc<dyn Samples> = Arc::new(clicks);
        let load = Load { range: 0..100, dim: 4, batch: 8, rounds: 3, seconds: 0.0 };
        for shuffled in [false, true] {
            let report = load.measure(&samples, 2, shuffled).unwrap();
            assert_eq!((report.rounds.len(), report.batch, report.threads, report.shuffled), (3, 8, 2, shuffled));
            let ratio = report.ids_per_second / report.samples_per_second.median;
            assert!((ratio - 2.0).abs() < 1e-9 && report.samples_per_second.min > 0.0, "{report:?}");
            let parts = load.parts(&*samples, shuffled).unwrap();
            assert!(parts.read.min > 0.0 && parts.listed.min > 0.0 && parts.shuffled == shuffled, "{parts:?}");
        }
    }
}
