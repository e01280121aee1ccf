//! Training steps a second: FP32 and INT4 (scales refreshed each 200 steps) in turns, so that both see the same machine.
//! Batches are made before the clock starts; their upload belongs to a step.

use super::predict::{Predicted, StepCost, predict, step_cost};
use super::{Ceiling, Spread};
use crate::config::{Config, Device, Interaction, Quant, Shape, Synthetic, Train};
use crate::data::synthetic::Clicks;
use crate::data::{Batch, Block, Samples};
use crate::error::{Error, Result};
use crate::model::Network;
use crate::quant::Bits;
use crate::session::{DeviceInfo, Session};
use crate::tables::Tables;
use pollster::block_on;
use std::time::Instant;

/// Steps between two refreshes of the tables' scales.
pub const PERIOD: u64 = 200;
/// Synthetic clicks that batches are taken from.
const SAMPLES: usize = 1 << 20;

/// How much to measure.
#[derive(Debug, Clone)]
pub struct StepOptions {
    /// Where.
    pub device: Device,
    /// Samples of a step.
    pub batches: Vec<usize>,
    /// Rounds; each runs both models once.
    pub rounds: usize,
    /// Seconds of a model in a round.
    pub seconds: f64,
}

/// One model at one batch size.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Variant {
    /// `FP32` or `INT4`.
    pub name: &'static str,
    /// Samples a second of each round.
    pub rounds: Vec<f64>,
    /// The same in three numbers.
    pub samples_per_second: Spread,
    /// Milliseconds of a step at the median.
    pub step_milliseconds: f64,
    /// Operations a second by the formula of [`flops_of_sample`], at the median.
    pub flops_per_second: f64,
    /// The share of the ceiling.
    pub flops_share: f64,
    /// Bytes of embedding rows a second that are looked up and updated, at the median.
    pub row_bytes_per_second: f64,
    /// The share of the ceiling.
    pub row_bytes_share: f64,
    /// What its plan moves and computes in a step.
    pub cost: StepCost,
    /// How long a step should take by the ceilings.
    pub predicted: Predicted,
}

/// Both models at one batch size.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct BatchReport {
    /// Samples of a step.
    pub batch: usize,
    /// Different batches.
    pub different: usize,
    /// Rows that a batch touches, on average.
    pub touched: f64,
    /// FP32, then INT4.
    pub variants: Vec<Variant>,
    /// INT4 over FP32, each round.
    pub ratios: Vec<f64>,
    /// The same in three numbers.
    pub ratio: Spread,
}

/// Operations of a training step for each sample by the formula that rates are quoted with, forward and twice as much
/// backward: `3 (2 Σ inputs outputs + 2 P D)`, with the P pairs of the dot interaction of K + 1 vectors of width D.
pub fn flops_of_sample(shape: &Shape) -> u64 {
    let layers: u64 = Network::new(shape).layers().map(|l| (l.linear.inputs * l.linear.outputs) as u64).sum();
    let vectors = shape.tables() as u64 + 1;
    let pairs = match (shape.interaction, shape.diagonal) {
        (Interaction::Dot, false) => vectors * (vectors - 1) / 2,
        (Interaction::Dot, true) => vectors * (vectors + 1) / 2,
        (Interaction::Cat, _) => 0,
    };
    3 * (2 * layers + 2 * pairs * shape.dim as u64)
}

/// A session and the number of its next step.
#[derive(Debug)]
pub struct Runner {
    /// The model.
    pub session: Session,
    /// The next step.
    pub step: u64,
}

impl Runner {
    /// A model with first weights.
    ///
    /// # Errors
    /// As [`Session::load`].
    pub fn new(shape: &Shape, config: &Config, max_bag: &[usize]) -> Result<Runner> {
        let mut session = block_on(Session::load(shape, config, max_bag))?;
        session.initialise(1, &mut |_, _| {})?;
        Ok(Runner { session, step: 0 })
    }

    /// Steps until `limit` seconds have passed; gives samples per second. Nothing is waited for but at the end, the results of
    /// all steps: so all that are counted are done.
    ///
    /// # Errors
    /// A loss that is not a number.
    pub fn run(&mut self, batches: &[Batch], limit: f64) -> Result<f64> {
        let (start, mut samples) = (Instant::now(), 0);
        loop {
            let batch = &batches[self.step as usize % batches.len()];
            self.session.train_step(self.step, batch)?;
            self.step += 1;
            samples += batch.samples;
            let last = start.elapsed().as_secs_f64() >= limit;
            let results =
                block_on(async { if last { self.session.history().await } else { self.session.settled(Session::RING / 2).await } })?;
            if let Some(bad) = results.iter().find(|r| !r.loss.is_finite()) {
                return Err(Error::Data(format!("the loss of step {} is {}", bad.step, bad.loss)));
            }
            if last {
                return Ok(samples as f64 / start.elapsed().as_secs_f64());
            }
        }
    }
}

/// Settings of a model whose weights have `bits`, for steps of `batch` samples.
pub fn config(device: &Device, bits: Bits, batch: usize) -> Config {
    let quant = Quant { embedding_bits: bits, mlp_bits: bits, period: PERIOD, ..Quant::default() };
    let train = Train { batch, eval_batch: batch, ..Train::default() };
    Config { device: device.clone(), quant, train, ..Config::default() }
}

/// Synthetic clicks for a shape.
pub fn clicks(shape: &Shape) -> Clicks {
    Clicks::new(&Synthetic { samples: SAMPLES as u64, ..Synthetic::default() }, 1, shape.dense, shape.rows.clone())
}

/// Different batches of `size` samples: 64 of 128, 10 of 2048.
///
/// # Errors
/// More samples than there are.
pub fn batches(clicks: &Clicks, tables: &Tables, size: usize) -> Result<Vec<Batch>> {
    let count = (8192 / size.max(1)).max(10).min(SAMPLES / size.max(1)).max(1);
    let mut block = Block::new();
    let one = |i: usize| {
        block.clear();
        clicks.fetch(&((i * size) as u64..((i + 1) * size) as u64).collect::<Vec<_>>(), &mut block)?;
        Batch::prepare(&block, tables)
    };
    (0..count).map(one).collect()
}

/// Measures every batch size. `progress` gets (what, done, of).
///
/// # Errors
/// No such device, a model that does not fit it.
pub fn measure(
    shape: &Shape,
    options: &StepOptions,
    ceiling: &Ceiling,
    progress: &mut dyn FnMut(&str, u64, u64),
) -> Result<(DeviceInfo, Vec<BatchReport>)> {
    let clicks = clicks(shape);
    let mut device = None;
    let mut reports = Vec::new();
    for &size in &options.batches {
        let what = format!("batch {size}");
        progress(&what, 0, options.rounds as u64);
        let load = |bits| Runner::new(shape, &config(&options.device, bits, size), clicks.max_bag());
        let mut runners = [load(Bits::None)?, load(Bits::B4)?];
        let batches = batches(&clicks, runners[0].session.tables(), size)?;
        for runner in &mut runners {
            runner.run(&batches, options.seconds / 4.0)?;
        }
        let mut rates = [Vec::new(), Vec::new()];
        for round in 0..options.rounds.max(1) {
            for (runner, rates) in runners.iter_mut().zip(&mut rates) {
                rates.push(runner.run(&batches, options.seconds)?);
            }
            progress(&what, round as u64 + 1, options.rounds as u64);
        }
        let ratios: Vec<f64> = rates[1].iter().zip(&rates[0]).map(|(a, b)| a / b).collect();
        let variants = ["FP32", "INT4"].into_iter().zip(&runners).zip(rates);
        reports.push(BatchReport {
            batch: size,
            different: batches.len(),
            touched: batches.iter().map(|b| b.touched() as f64).sum::<f64>() / batches.len() as f64,
            variants: variants.map(|((name, runner), rates)| variant(name, &runner.session, &batches[0], rates, ceiling)).collect(),
            ratio: Spread::of(&ratios),
            ratios,
        });
        device = Some(runners[0].session.device().clone());
    }
    let device = device.ok_or_else(|| Error::Config("no batch size was given".into()))?;
    Ok((device, reports))
}

fn variant(name: &'static str, session: &Session, batch: &Batch, rounds: Vec<f64>, ceiling: &Ceiling) -> Variant {
    let samples_per_second = Spread::of(&rounds);
    let cost = step_cost(session.plan(), batch, None);
    let steps = samples_per_second.median / batch.samples as f64;
    let flops_per_second = samples_per_second.median * flops_of_sample(session.shape()) as f64;
    let row_bytes_per_second = steps * cost.row_bytes as f64;
    Variant {
        name,
        rounds,
        samples_per_second,
        step_milliseconds: 1e3 / steps,
        flops_per_second,
        flops_share: flops_per_second / ceiling.flops_per_second,
        row_bytes_per_second,
        row_bytes_share: row_bytes_per_second / ceiling.bytes_per_second,
        cost,
        predicted: predict(session.plan(), batch, None, (name == "INT4").then_some(PERIOD), ceiling),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Model, Preset};

    #[test]
    fn the_formula_counts_kaggle() {
        // bottom 13-512-256-64-16, top 367-512-256-1, 27 vectors of width 16
        let shape = Model { preset: Preset::Kaggle, ..Model::default() }.shape(None, None).unwrap();
        let layers = 13 * 512 + 512 * 256 + 256 * 64 + 64 * 16 + 367 * 512 + 512 * 256 + 256;
        assert_eq!(flops_of_sample(&shape), 3 * (2 * layers + 2 * 351 * 16));
    }

    #[test]
    fn both_models_run_in_turns() {
        let shape = Model { rows: Some(vec![50, 3]), ..Model::default() }.shape(None, None).unwrap();
        let options = StepOptions { device: Device::Cpu, batches: vec![4], rounds: 2, seconds: 0.0 };
        let ceiling = Ceiling {
            bytes_per_second: 1e9,
            flops_per_second: 1e9,
            side: 1,
            copied: 1,
            dispatch_seconds: 0.0,
            submission_seconds: 0.0,
            upload_bytes_per_second: 1e9,
        };
        let mut told = 0;
        let (device, reports) = measure(&shape, &options, &ceiling, &mut |_, _, _| told += 1).unwrap();
        assert_eq!((device.engine, reports.len(), told), ("cpu", 1, 3));
        let report = &reports[0];
        assert_eq!(report.variants.iter().map(|v| (v.name, v.rounds.len())).collect::<Vec<_>>(), [("FP32", 2), ("INT4", 2)]);
        assert!(report.ratios.len() == 2 && report.variants.iter().all(|v| v.samples_per_second.median > 0.0), "{report:?}");
        assert!(report.variants[1].cost.dispatches > report.variants[0].cost.dispatches, "INT4 quantizes");
        assert!(report.variants[0].predicted.refresh == 0.0 && report.variants[1].predicted.refresh > 0.0);
    }
}
