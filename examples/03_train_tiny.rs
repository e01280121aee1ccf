//! A whole training run with the library: synthetic clicks, an INT4 model, steps, AUC.
//!
//! ```text
//! cargo run --release --example 03_train_tiny -- [auto|cpu|gpu|part of an adapter's name]
//! ```
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use dqrm::Result;
use dqrm::config::{Config, Device, Synthetic, Train};
use dqrm::data::synthetic::Clicks;
use dqrm::data::{Batch, Block, Samples};
use dqrm::metrics::{self, Summary};
use dqrm::session::Session;

const BATCH: u64 = 256;
const STEPS: u64 = 1500;
const HELD_OUT: u64 = 8192;

/// The samples `start..start + count` as a step takes them, and their labels.
fn batch(clicks: &Clicks, session: &Session, start: u64, count: u64) -> Result<(Batch, Vec<f32>)> {
    let mut block = Block::new();
    clicks.fetch(&(start..start + count).collect::<Vec<_>>(), &mut block)?;
    Ok((Batch::prepare(&block, session.tables())?, block.labels))
}

async fn run(device: Device) -> Result<()> {
    // the default model is the `tiny` preset, its weights fake-quantized to INT4
    let train = Train { batch: BATCH as usize, eval_batch: HELD_OUT as usize, ..Train::default() };
    let config = Config { device, train, ..Config::default() };
    let shape = config.model.shape(None, None)?;
    let synthetic = Synthetic { samples: BATCH * STEPS + HELD_OUT, ..Synthetic::default() };
    let clicks = Clicks::new(&synthetic, config.seed, shape.dense, shape.rows.clone());

    let mut session = Session::load(&shape, &config, clicks.max_bag()).await?;
    session.initialise(config.seed, &mut |_, _| {})?;
    println!("{} parameters on {}", shape.embedding_parameters() + shape.mlp_parameters(), session.device().name);

    let report = Session::RING as u64;
    for step in 0..STEPS {
        let (batch, _) = batch(&clicks, &session, step * BATCH, BATCH)?;
        session.train_step(step, &batch)?;
        if (step + 1) % report == 0 {
            let results = session.history().await?;
            let loss = results.iter().map(|r| r.loss).sum::<f32>() / results.len() as f32;
            if (step + 1) % (10 * report) == 0 {
                println!("step {:5}  mean loss of the last {report}: {loss:.4}", step + 1);
            }
        }
    }

    let (held_out, labels) = batch(&clicks, &session, BATCH * STEPS, HELD_OUT)?;
    session.begin_evaluation()?;
    let learned = Summary::from_logits(&session.logits(&held_out).await?, &labels);
    // the generator draws each label with a probability that it knows: the best any model can do
    let known: Vec<f64> = (BATCH * STEPS..).take(HELD_OUT as usize).map(|i| clicks.teacher_probability(i)).collect();
    let best = metrics::auc(&known, &labels).unwrap_or(f64::NAN);
    let auc = learned.auc.unwrap_or(f64::NAN);
    println!("{HELD_OUT} clicks never trained on: log loss {:.4}, AUC {auc:.4} (at best {best:.4})", learned.log_loss);
    println!("{} bytes in FP32, {} packed", shape.fp32_bytes(), shape.packed_bytes(&config.quant));
    Ok(())
}

fn main() -> Result<()> {
    let device = std::env::args().nth(1).unwrap_or_default();
    pollster::block_on(run(if device.is_empty() { Device::Auto } else { Device::from(device) }))
}
