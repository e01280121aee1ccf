//! `dqrm bench`.

use super::comm::{aligned, size};
use super::kernels::{self, TimeArgs};
use super::live::{Live, grouped};
use super::options::choice;
use super::table::{bytes_per_second, flops_per_second, short};
use super::{note, print};
use crate::bench::infer::{self, InferReport, Ready};
use crate::bench::step::{self, BatchReport, StepOptions};
use crate::bench::{Ceiling, Machine, Spread, ceiling};
use crate::config::{Device, Model, Preset};
use crate::error::{Error, Result};
use crate::train::Event;
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

mod data;

use data::DataArgs;

const EXAMPLES: &str = "\
Examples:
  dqrm bench step                                      Kaggle's shape, FP32 against INT4, batch 128 and 2048
  dqrm bench step --device gpu --json step.json
  dqrm bench kernels matmul --device gpu
  dqrm bench data                                      made-up clicks, prepared in a temporary folder and loaded
  dqrm bench data --data day_0.gz --threads 1,2,4      what the loader gives of real clicks
  dqrm bench infer --model runs/mine/model.safetensors

Rates are medians of rounds, with the least and the largest. Rates of a device are held against what the same device gives for
a copy and for a large matrix product.";

/// Settings of `dqrm bench`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    /// What to measure
    #[command(subcommand)]
    pub what: What,
}

/// What there is to measure.
#[derive(Debug, Clone, Subcommand)]
pub enum What {
    /// Training steps: FP32 and INT4 in turns
    Step(StepArgs),
    /// Every kernel at real shapes, as shares of the ceilings (`dqrm kernels time`)
    Kernels(TimeArgs),
    /// The loader: prepared samples to batches, in order and shuffled, and its parts
    Data(DataArgs),
    /// Prediction from a packed model
    Infer(InferArgs),
}

/// How long to measure, and where the figures go.
#[derive(Debug, Clone, Args)]
pub struct Effort {
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub rounds: u64,
    /// Seconds of each measurement in a round
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds)]
    pub seconds: f64,
    /// Write all figures to this file too
    #[arg(long, value_name = "FILE.json")]
    pub json: Option<PathBuf>,
}

/// Settings of `dqrm bench step`.
#[derive(Debug, Clone, Args)]
pub struct StepArgs {
    /// tiny, kaggle, terabyte or mlperf
    #[arg(long, value_name = "NAME", value_parser = choice::<Preset>, default_value = "kaggle")]
    pub preset: Preset,
    /// No table gets more rows than this
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub max_rows: u64,
    /// Samples of a step, one or several numbers
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [128, 2048])]
    pub batch: Vec<usize>,
    /// auto (a real GPU, else the CPU), cpu, gpu (any adapter), or part of an adapter's name
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,
    /// How long, and where to
    #[command(flatten)]
    pub effort: Effort,
}

/// Settings of `dqrm bench infer`.
#[derive(Debug, Clone, Args)]
pub struct InferArgs {
    /// A packed model, as `dqrm pack` writes it
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// auto (a real GPU, else the CPU), cpu, gpu (any adapter), or part of an adapter's name
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,
    /// How long, and where to
    #[command(flatten)]
    pub effort: Effort,
}

fn seconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|e| format!("{e}"))?;
    if value > 0.0 && value <= 3600.0 { Ok(value) } else { Err("a number of seconds up to 3600 is needed".into()) }
}

fn sizes(name: &str, values: &[usize]) -> Result<()> {
    let bad = values.iter().find(|&&v| v == 0 || v > 1 << 20);
    bad.map_or(Ok(()), |v| Err(Error::Config(format!("--{name} {v}; numbers from 1 to 1048576 are possible"))))
}

/// Measures, prints a table and writes the figures.
pub(super) fn run(args: &BenchArgs) -> Result<()> {
    match &args.what {
        What::Step(args) => steps(args),
        What::Kernels(args) => kernels::time(args),
        What::Data(args) => data::run(args),
        What::Infer(args) => prediction(args),
    }
}

/// Writes figures where they were asked for.
fn write(path: Option<&Path>, figures: &impl serde::Serialize) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(figures).map_err(|e| Error::Data(format!("the figures cannot be written as JSON: {e}")))?;
    std::fs::write(path, text + "\n").map_err(Error::io("write", path.display().to_string()))?;
    note(&format!("wrote {}", path.display()));
    Ok(())
}

fn head(machine: &Machine) -> String {
    let m = machine;
    format!("dqrm {}, {}, {}\n{} ({}), {} threads of the CPU\n", m.version, m.date, m.system, m.engine, m.device, m.threads)
}

fn spread(s: &Spread) -> [String; 3] {
    [s.median, s.min, s.max].map(|v| grouped(v.round() as u64))
}

/// Figures of `dqrm bench step`.
#[derive(serde::Serialize)]
struct StepFigures<'a> {
    machine: Machine,
    preset: Preset,
    max_rows: u64,
    rows: u64,
    embedding_parameters: u64,
    mlp_parameters: u64,
    flops_of_a_sample: u64,
    seconds: f64,
    ceiling: Ceiling,
    batches: &'a [BatchReport],
}

fn steps(args: &StepArgs) -> Result<()> {
    sizes("batch", &args.batch)?;
    let shape = Model { preset: args.preset, max_rows: Some(args.max_rows), ..Model::default() }.shape(None, None)?;
    let device = Device::from(args.device.clone());
    let mut live = Live::new();
    live.event(&Event::Preparing { what: "ceilings of the device", done: 0, total: 1 });
    let ceiling = ceiling::measure(&device);
    let options = StepOptions { device, batches: args.batch.clone(), rounds: args.effort.rounds as usize, seconds: args.effort.seconds };
    let measured = ceiling.and_then(|ceiling| {
        let mut progress = |what: &str, done, total| live.event(&Event::Preparing { what, done, total });
        step::measure(&shape, &options, &ceiling, &mut progress).map(|found| (ceiling, found))
    });
    live.end();
    let (ceiling, (device, batches)) = measured?;
    let figures = StepFigures {
        machine: Machine::now(&device),
        preset: args.preset,
        max_rows: args.max_rows,
        rows: shape.rows.iter().sum(),
        embedding_parameters: shape.embedding_parameters(),
        mlp_parameters: shape.mlp_parameters(),
        flops_of_a_sample: step::flops_of_sample(&shape),
        seconds: args.effort.seconds,
        ceiling,
        batches: &batches,
    };
    print(&step_text(&figures))?;
    write(args.effort.json.as_deref(), &figures)
}

fn step_text(f: &StepFigures<'_>) -> String {
    let preset = format!("{:?}", f.preset).to_lowercase();
    let c = &f.ceiling;
    let mut text = head(&f.machine);
    text += &format!("ceilings: copy {}, product {}\n", bytes_per_second(c.bytes_per_second), flops_per_second(c.flops_per_second));
    text += &format!(
        "{preset}, tables of at most {} rows: {} rows, {} MLP parameters, {} operations a sample and step\n",
        grouped(f.max_rows),
        grouped(f.rows),
        grouped(f.mlp_parameters),
        grouped(f.flops_of_a_sample)
    );
    for b in f.batches {
        text += &format!(
            "\nbatch {}, {} different, {} rows touched, {} rounds of {} s\n",
            b.batch,
            b.different,
            grouped(b.touched as u64),
            b.ratios.len(),
            f.seconds
        );
        let titles = ["", "samples/s", "least", "most", "ms a step", "predicted", "GFLOP/s", "of ceiling", "rows GB/s", "of ceiling"];
        let mut rows = vec![titles.map(String::from).to_vec()];
        for v in &b.variants {
            let [median, min, max] = spread(&v.samples_per_second);
            let share = |share: f64| format!("{:.1} %", 100.0 * share);
            let giga = |rate: f64| short(rate / 1e9);
            rows.push(vec![
                v.name.into(),
                median,
                min,
                max,
                format!("{:.3}", v.step_milliseconds),
                format!("{:.3}", 1e3 * v.predicted.seconds()),
                giga(v.flops_per_second),
                share(v.flops_share),
                giga(v.row_bytes_per_second),
                share(v.row_bytes_share),
            ]);
        }
        text += &aligned(&rows);
        text += &format!("INT4 / FP32  {:.3} (from {:.3} to {:.3})\n", b.ratio.median, b.ratio.min, b.ratio.max);
    }
    text + "\nGFLOP/s: 3 (2 Σ inputs outputs + 2 pairs D) a sample. rows: embedding rows looked up and updated. predicted: each command\nat a ceiling, and what dispatches and the upload cost.\n"
}

/// Figures of `dqrm bench infer`.
#[derive(serde::Serialize)]
struct InferFigures {
    machine: Machine,
    model: String,
    code_bytes: usize,
    device_bytes: u64,
    mapped_milliseconds: f64,
    loaded_milliseconds: f64,
    first_prediction_milliseconds: f64,
    seconds: f64,
    rates: Vec<InferReport>,
}

fn prediction(args: &InferArgs) -> Result<()> {
    let mut ready = Ready::load(&args.model, &Device::from(args.device.clone()))?;
    let mut live = Live::new();
    let mut rates = Vec::new();
    for batch in infer::BATCHES {
        live.event(&Event::Preparing { what: "rates", done: rates.len() as u64, total: infer::BATCHES.len() as u64 });
        rates.push(ready.measure(batch, args.effort.rounds as usize, args.effort.seconds)?);
    }
    live.end();
    let [mapped, loaded, first] = ready.milliseconds;
    let figures = InferFigures {
        machine: Machine::now(ready.device()),
        model: args.model.display().to_string(),
        code_bytes: ready.code_bytes(),
        device_bytes: ready.predictor.device_bytes(),
        mapped_milliseconds: mapped,
        loaded_milliseconds: loaded,
        first_prediction_milliseconds: first,
        seconds: args.effort.seconds,
        rates,
    };
    print(&infer_text(&figures))?;
    write(args.effort.json.as_deref(), &figures)
}

fn infer_text(f: &InferFigures) -> String {
    let mut text = head(&f.machine);
    text += &format!("{}, {} of codes, {} of buffers\n", f.model, size(f.code_bytes as u64), size(f.device_bytes));
    text += &format!(
        "mapped and checked after {:.1} ms, loaded {:.1} ms, first prediction {:.1} ms\n\n",
        f.mapped_milliseconds, f.loaded_milliseconds, f.first_prediction_milliseconds
    );
    let mut rows = vec![["batch", "samples/s", "least", "most", "ms a call"].map(String::from).to_vec()];
    for r in &f.rates {
        let [median, min, max] = spread(&r.samples_per_second);
        rows.push(vec![r.batch.to_string(), median, min, max, format!("{:.3}", r.call_milliseconds)]);
    }
    text + &aligned(&rows)
}
