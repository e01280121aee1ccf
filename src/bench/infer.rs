//! Predictions a second from a packed file, from row numbers to probabilities: sorting the ids, gathering, both MLPs.
//! Rows are drawn uniformly from every table, so large tables are read cold.

use super::Spread;
use crate::config::Device;
use crate::data::{Batch, Block};
use crate::error::{Error, Result};
use crate::metrics::sigmoid;
use crate::packed::{self, Packed};
use crate::predictor::Predictor;
use crate::rng::Stream;
use crate::session::DeviceInfo;
use pollster::block_on;
use std::path::Path;
use std::time::Instant;

/// Samples predicted at a time.
pub const BATCHES: [usize; 3] = [1, 128, 2048];

/// The rate at one batch size.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct InferReport {
    /// Samples predicted at a time.
    pub batch: usize,
    /// Samples a second of each round.
    pub rounds: Vec<f64>,
    /// The same in three numbers.
    pub samples_per_second: Spread,
    /// Milliseconds of a call, from row numbers to probabilities, at the median.
    pub call_milliseconds: f64,
}

/// A packed model that is ready.
#[derive(Debug)]
pub struct Ready {
    packed: Packed,
    /// What predicts.
    pub predictor: Predictor,
    /// Milliseconds until the file was mapped and checked, until the model was loaded, until the first prediction was made.
    pub milliseconds: [f64; 3],
}

impl Ready {
    /// Opens and loads `model`.
    ///
    /// # Errors
    /// A file that is no packed model, a device that cannot take it.
    pub fn load(model: &Path, device: &Device) -> Result<Ready> {
        let start = Instant::now();
        let packed = packed::open(model)?;
        let opened = start.elapsed();
        let mut predictor = block_on(Predictor::load(&packed, device, BATCHES[BATCHES.len() - 1]))?;
        let loaded = start.elapsed();
        let first = blocks(&packed, 1, 1);
        let before = start.elapsed();
        rate(&mut predictor, &first, 0.0)?;
        let predicted = loaded + (start.elapsed() - before);
        Ok(Ready { packed, predictor, milliseconds: [opened, loaded, predicted].map(|d| d.as_secs_f64() * 1e3) })
    }

    /// The device in use.
    pub fn device(&self) -> &DeviceInfo {
        self.predictor.device()
    }

    /// Bytes of the packed codes.
    pub fn code_bytes(&self) -> usize {
        self.packed.codes().len()
    }

    /// Blocks to predict `batch` samples at a time.
    pub fn blocks(&self, batch: usize) -> Vec<Block> {
        blocks(&self.packed, batch.min(self.predictor.batch()), if batch == 1 { 4096 } else { 64 })
    }

    /// Measures one batch size.
    ///
    /// # Errors
    /// A lost device.
    pub fn measure(&mut self, batch: usize, rounds: usize, seconds: f64) -> Result<InferReport> {
        let blocks = self.blocks(batch);
        rate(&mut self.predictor, &blocks, seconds / 10.0)?;
        let rates: Vec<f64> = (0..rounds.max(1)).map(|_| rate(&mut self.predictor, &blocks, seconds)).collect::<Result<_>>()?;
        let samples_per_second = Spread::of(&rates);
        let samples = blocks[0].samples;
        let call_milliseconds = 1e3 * samples as f64 / samples_per_second.median;
        Ok(InferReport { batch: samples, rounds: rates, samples_per_second, call_milliseconds })
    }
}

/// Samples with one uniform row of every table.
fn blocks(packed: &Packed, samples: usize, count: usize) -> Vec<Block> {
    let shape = &packed.manifest().shape;
    let stream = Stream::new(7, samples as u64);
    let mut n = 0u64;
    let mut next = || {
        n += 1;
        stream.uniform(n)
    };
    let one = |_| {
        let mut block = Block::new();
        block.samples = samples;
        for _ in 0..samples {
            block.dense.extend((0..shape.dense).map(|_| next() as f32));
            for &rows in &shape.rows {
                block.ids.push((next() * rows as f64) as u32);
                block.end_bag();
            }
        }
        block
    };
    (0..count).map(one).collect()
}

/// Probabilities of the blocks in turn until `limit` seconds have passed; gives samples per second.
///
/// # Errors
/// A probability that is not a number, a lost device.
pub fn rate(predictor: &mut Predictor, blocks: &[Block], limit: f64) -> Result<f64> {
    let (start, mut samples, mut sum) = (Instant::now(), 0, 0.0);
    for block in blocks.iter().cycle() {
        let batch = Batch::prepare(block, predictor.tables())?;
        sum += block_on(predictor.logits(&batch))?.iter().map(|&x| sigmoid(f64::from(x))).sum::<f64>();
        samples += block.samples;
        if start.elapsed().as_secs_f64() > limit {
            break;
        }
    }
    if !sum.is_finite() {
        return Err(Error::Data("a probability is not a number".into()));
    }
    Ok(samples as f64 / start.elapsed().as_secs_f64())
}
