//! Samples a second that loader threads make into batches, without a model. Nothing else takes part: what a training
//! run reaches beyond it, it waits for data.

use super::Spread;
use crate::data::Samples;
use crate::data::loader::{Loader, Order, Share};
use crate::error::Result;
use crate::tables::Tables;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Batches whose ids are counted.
const COUNTED: u64 = 8;

/// The rate at one batch size and number of threads.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct DataReport {
    /// Samples of a batch.
    pub batch: usize,
    /// Loader threads.
    pub threads: usize,
    /// Samples a second of each round.
    pub rounds: Vec<f64>,
    /// The same in three numbers.
    pub samples_per_second: Spread,
    /// Ids a second at the median.
    pub ids_per_second: f64,
}

/// Loads shuffled batches of samples `range` for `rounds` rounds of `seconds` seconds, with tables of width `dim`.
///
/// # Errors
/// Samples that cannot be read.
pub fn measure(
    samples: &Arc<dyn Samples>,
    range: Range<u64>,
    dim: usize,
    batch: usize,
    threads: usize,
    rounds: usize,
    seconds: f64,
) -> Result<DataReport> {
    let tables = Tables::new(samples.rows(), dim, u64::MAX)?;
    let order = Order { range, shuffle: Some(1), share: Share::default() };
    let (mut rates, mut ids, mut counted) = (Vec::new(), 0, 0);
    let mut first = 0;
    // The first round warms up.
    for round in 0..=rounds.max(1) {
        let mut loader = Loader::new(samples.clone(), order.clone(), tables.clone(), batch, first..u64::MAX, threads)?;
        let (start, mut loaded) = (Instant::now(), 0u64);
        while let Some(batch) = loader.next().transpose()? {
            first += 1;
            loaded += batch.samples as u64;
            if first <= COUNTED {
                ids += batch.row_samples.len() as u64;
                counted += batch.samples as u64;
            }
            if start.elapsed().as_secs_f64() >= seconds {
                break;
            }
        }
        if round > 0 {
            rates.push(loaded as f64 / start.elapsed().as_secs_f64());
        }
    }
    let samples_per_second = Spread::of(&rates);
    let ids_per_second = samples_per_second.median * ids as f64 / counted.max(1) as f64;
    Ok(DataReport { batch, threads, rounds: rates, samples_per_second, ids_per_second })
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
        let report = measure(&samples, 0..100, 4, 8, 2, 3, 0.0).unwrap();
        assert_eq!((report.rounds.len(), report.batch, report.threads), (3, 8, 2));
        let ratio = report.ids_per_second / report.samples_per_second.median;
        assert!((ratio - 2.0).abs() < 1e-9 && report.samples_per_second.min > 0.0, "{report:?}");
    }
}
