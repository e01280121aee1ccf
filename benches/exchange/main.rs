//! What workers do to send and to understand each other's part of a step, without the network: bytes and time.
//! The batches are the generator's, in the Kaggle shape; everything runs on the CPU.
//!
//! ```text
//! cargo bench --bench exchange -- [--only ids|codec|step] [--runs N] [--steps N] [--max-rows R]
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

#[path = "../common/mod.rs"]
mod common;

mod codec;
mod ids;
mod step;

use common::Options;
use dqrm::config::{Model, Preset, Shape, Synthetic};
use dqrm::data::synthetic::Clicks;

const USAGE: &str = "use --only ids|codec|step, --runs N, --steps N, --max-rows R";
/// Different batches of each size.
const BATCHES: usize = 16;
/// Samples of a batch on one worker.
const SIZES: [usize; 2] = [128, 2048];
/// Rows of a table at most where whole steps are made, so that the model is loaded quickly.
const STEP_ROWS: u64 = 100_000;

/// The Kaggle shape and its clicks.
fn kaggle(max_rows: Option<u64>) -> dqrm::Result<(Shape, Clicks)> {
    let shape = Model { preset: Preset::Kaggle, max_rows, ..Model::default() }.shape(None, None)?;
    let synthetic = Synthetic { samples: (BATCHES * SIZES[SIZES.len() - 1]) as u64, ..Synthetic::default() };
    let clicks = Clicks::new(&synthetic, 1, shape.dense, shape.rows.clone());
    println!("\n{} rows in {} tables", shape.rows.iter().sum::<u64>(), shape.tables());
    Ok((shape, clicks))
}

fn run() -> dqrm::Result<()> {
    let options = Options::parse(USAGE, &[], &["--only", "--runs", "--steps", "--max-rows"]);
    let (runs, steps) = (options.value("--runs", 101usize).max(1), options.value("--steps", 30usize).max(1));
    let max_rows = options.text("--max-rows").map(|_| options.value("--max-rows", 0));
    let only = options.text("--only");
    if let Some(other) = only.filter(|o| !["ids", "codec", "step"].contains(o)) {
        return Err(dqrm::Error::Config(format!("--only {other} is none of ids, codec, step")));
    }
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    if wanted("ids") {
        let (shape, clicks) = kaggle(max_rows)?;
        ids::print(&shape, &clicks, runs)?;
    }
    if wanted("codec") {
        codec::print(runs);
    }
    if wanted("step") {
        let (shape, clicks) = kaggle(max_rows.or(Some(STEP_ROWS)))?;
        step::print(&shape, &clicks, steps)?;
    }
    Ok(())
}

fn main() {
    if let Err(error) = run() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
