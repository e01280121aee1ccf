//! The commands. The only part of the library that prints.

use crate::error::{Error, Result};
use clap::{Parser, Subcommand};
use std::io::{ErrorKind, Write};

mod bench;
mod comm;
mod devices;
mod dry_run;
mod eval;
mod export;
mod import;
mod kernels;
mod live;
mod options;
mod pack;
mod predict;
mod prepare;
mod profile;
mod ranks;
#[cfg(feature = "serve")]
mod serve;
mod stop;
mod summary;
mod table;
mod train;
mod workers;

pub use options::{DeviceArgs, TrainArgs};
pub use workers::{Local, WorkerArgs};

/// Trains quantized recommendation models, on any GPU or on the CPU.
#[derive(Debug, Parser)]
#[command(name = "dqrm", version, about, long_about = None, max_term_width = 110, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  dqrm train                                       a minute on synthetic clicks
  dqrm train --data day_0.gz day_1.gz --preset kaggle
  dqrm prepare day_0.gz day_1.gz --out prepared    once, for many runs with --data prepared
  dqrm eval runs/kaggle-int4-seed0 --data day_2.gz
  dqrm predict runs/kaggle-int4-seed0 --data new.tsv --out p.csv
  dqrm pack runs/kaggle-int4-seed0                 one file, an eighth of the size
  dqrm export runs/kaggle-int4-seed0/model.safetensors --format onnx
  dqrm comm --preset kaggle --workers 4            what workers would send each other
  dqrm kernels check --swap matmul=my_matmul.wgsl  a shader of your own against the twin
  dqrm bench step                                  training steps a second
  dqrm serve --model model.safetensors             a web page, and predictions over HTTP
  dqrm devices

`dqrm COMMAND --help` explains every setting.";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a model (on synthetic clicks when no data is given)
    Train(Box<TrainArgs>),
    /// Turn raw data into a folder that training reads at full speed
    Prepare(prepare::PrepareArgs),
    /// Measure a trained model on labelled data
    Eval(eval::EvalArgs),
    /// Write one click probability a line
    Predict(predict::PredictArgs),
    /// Pack a run's model into one small file
    Pack(pack::PackArgs),
    /// Make a run from the weights of a PyTorch DLRM
    Import(import::ImportArgs),
    /// Write a model as ONNX, or its weights for PyTorch
    Export(export::ExportArgs),
    /// Show what workers would send each other, without training
    Comm(Box<comm::CommArgs>),
    /// The shader lab: list kernels, compare them with their twins, time them, swap your own text in
    Kernels(kernels::KernelsArgs),
    /// Measure steps, loading and prediction on this computer
    Bench(Box<bench::BenchArgs>),
    /// Serve the web page and a packed model over HTTP
    #[cfg(feature = "serve")]
    Serve(Box<serve::ServeArgs>),
    /// List the adapters and which presets fit them
    Devices(devices::DevicesArgs),
}

/// Exit code when another worker did not come, is gone, silent or not to be understood.
const PEER: u8 = 4;
/// Exit code when the workers' replicas differ.
const REPLICA: u8 = 5;

/// Runs a command.
///
/// # Errors
/// Whatever the command says.
pub fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Train(args) => train::run(&args),
        Command::Prepare(args) => prepare::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Pack(args) => pack::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Comm(args) => comm::run(&args),
        Command::Kernels(args) => kernels::run(&args),
        Command::Bench(args) => bench::run(&args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(&args),
        Command::Devices(args) => devices::run(&args),
    }
}

/// Says on standard error what went wrong; gives the exit code.
pub fn report(error: &Error) -> u8 {
    // Whoever reads standard output has had enough: not worth a word.
    if is_broken_pipe(error) {
        return 0;
    }
    let prefix = if matches!(error, Error::Interrupted(_)) { "" } else { "error: " };
    note(&format!("{prefix}{error}"));
    match error {
        Error::Interrupted(_) => stop::INTERRUPTED,
        Error::Peer { .. } | Error::Rendezvous(_) => PEER,
        Error::Replica { .. } => REPLICA,
        _ => 1,
    }
}

fn is_broken_pipe(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::BrokenPipe)
}

/// A line on standard error. That it cannot be written is no reason to stop.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Text on standard output.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::io("write", "standard output"))
}

/// A value as indented JSON on standard output.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Data(format!("the result cannot be written as JSON: {e}")))?;
    print(&(text + "\n"))
}
