//! `dqrm kernels time`.

use super::super::{note, print};
use super::{Bench, LabArgs, check, replacement};
use crate::bench::ceiling::{self, Ceiling};
use crate::engine::Clock;
use crate::error::{Error, Result};
use crate::lab::swap::Swap;
use crate::lab::timing::{self, Contestant, Timing};
use crate::lab::{self, describe};
use crate::ops::{self, Case};
use crate::plan::variant::Choice;
use crate::plan::{Kernel, Variant};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

const EXAMPLES: &str = "\
Examples:
  dqrm kernels time matmul
  dqrm kernels time --swap matmul_nt=tiled.wgsl --seconds 2
  dqrm kernels time --device cpu --json cpu.json
  dqrm kernels time matmul --variants                every text that the adapter can run

A kernel is run again and again in one submission, between two looks at the clock, and the last
run is waited for; nothing is subtracted. The time is the median of such timings, and ± is half
of what the middle four fifths of them span. Original and replacement take turns.

GB/s and GFLOP/s count what the formula has to move and to compute, whatever an implementation does
(of tables the touched rows). The ceiling is measured first: a large copy, and a product of large
square matrices with the crate's own kernels. Its share is the time that bytes
or operations would take at that speed, whichever is longer, by the time measured. What lies in
caches, and a better matrix product, may be above 100 %.";

const METHOD: &str = "median wall-clock time of a run, many runs in one submission, the last waited for";

/// Settings of `dqrm kernels time`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct TimeArgs {
    /// Kernels, device, replacements
    #[command(flatten)]
    pub lab: LabArgs,
    /// Seconds for each kernel and shape
    #[arg(long, value_name = "S", default_value = "0.5", value_parser = seconds)]
    pub seconds: f64,
    /// Time the variants that the adapter can run, too, whomever they are made for
    #[arg(long, conflicts_with = "swap")]
    pub variants: bool,
    /// Write the results to a file as JSON too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.001..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("it is a number of seconds, 0.001 to 3600".into()),
    }
}

/// All that is written as JSON.
#[derive(Debug, Serialize)]
struct Report {
    device: String,
    method: &'static str,
    copy_bytes_per_second: f64,
    product_flops_per_second: f64,
    results: Vec<Row>,
}

/// A text of a kernel at a shape.
#[derive(Debug, Serialize)]
struct Row {
    kernel: &'static str,
    shape: String,
    /// `original`, the file, or the variant's name.
    text: String,
    /// Median, in seconds.
    seconds: f64,
    seconds_low: f64,
    seconds_high: f64,
    timings: usize,
    runs_per_timing: usize,
    bytes: u64,
    /// 0 when not counted.
    flops: u64,
    bytes_per_second: f64,
    flops_per_second: f64,
    share_of_ceiling: f64,
    /// The original's time by this one's.
    times_as_fast: f64,
}

/// Times kernels, and replacements beside them.
pub(super) fn run(bench: &Bench, args: &TimeArgs, swaps: &[Swap]) -> Result<()> {
    print(&bench.title(swaps))?;
    warn(bench, swaps)?;
    let start = Instant::now();
    let clock = || start.elapsed().as_secs_f64();
    let ceiling = ceiling::measure_on(bench.adapter.as_ref())?;
    let (bytes, flops) = (ceiling.bytes_per_second, ceiling.flops_per_second);
    let head = format!("{:<20} {:<40} {:>10} {:>6} {:>9} {:>9} {:>8}", "kernel", "shape", "time", "±", "GB/s", "GFLOP/s", "ceiling");
    print(&format!("ceiling  copy {:.2} GB/s, matrix product {:.2} GFLOP/s\n\n{head}\n", bytes / 1e9, flops / 1e9))?;
    let mut report = Report {
        device: bench.device(),
        method: METHOD,
        copy_bytes_per_second: bytes,
        product_flops_per_second: flops,
        results: Vec::new(),
    };
    let kernels: Vec<&'static Kernel> = bench.kernels(swaps).collect();
    let mut op = "";
    for kernel in &kernels {
        if kernel.op == op {
            continue; // its shapes were walked for the first of its kernels
        }
        op = kernel.op;
        for shape in ops::shapes(op) {
            let case = shape();
            for kernel in kernels.iter().filter(|k| k.op == op && describe::runs(&case, k)) {
                let rows = race(bench, args, swaps, &case, kernel, &ceiling, &clock)?;
                rows.iter().try_for_each(|row| print(&shown(row)))?;
                report.results.extend(rows);
            }
        }
    }
    match &args.json {
        Some(path) => {
            let text =
                serde_json::to_string_pretty(&report).map_err(|e| Error::Data(format!("the result cannot be written as JSON: {e}")))?;
            std::fs::write(path, text + "\n").map_err(Error::io("write", path))
        }
        None => Ok(()),
    }
}

/// Says when a replacement computes something else: its time means little.
fn warn(bench: &Bench, swaps: &[Swap]) -> Result<()> {
    if swaps.is_empty() {
        return Ok(());
    }
    let kernels: Vec<&Kernel> = bench.kernels(swaps).collect();
    let mut wrong = 0;
    let cases = describe::cases_of(&kernels, ops::cases());
    for case in &cases {
        wrong += usize::from(!check::verdict(bench, case, swaps)?.faults.is_empty());
    }
    match wrong {
        0 => print(&format!("check    {} cases: all as the twins say\n", cases.len())),
        _ => {
            print(&format!("check    {wrong} of {} cases WRONG\n", cases.len()))?;
            note("the replacement computes something else (`dqrm kernels check` says what), so its time means little");
            Ok(())
        }
    }
}

/// Times one kernel at one shape: the original, and its replacement when there is one, or variants.
fn race(
    bench: &Bench,
    args: &TimeArgs,
    swaps: &[Swap],
    case: &Case,
    kernel: &'static Kernel,
    ceiling: &Ceiling,
    clock: Clock<'_>,
) -> Result<Vec<Row>> {
    let Some(original) = timing::plan(case, kernel) else { return Ok(Vec::new()) };
    let mut texts = vec![("original".to_string(), original.clone(), Choice::Portable)];
    if let Some(file) = replacement(swaps, kernel) {
        let mut plan = original.clone();
        swaps.iter().for_each(|swap| swap.apply(&mut plan));
        texts.push((file.to_string(), plan, Choice::Portable));
    }
    if let Some(adapter) = bench.adapter.as_ref().filter(|_| args.variants) {
        let fits = |v: &Variant| {
            original.phases.iter().flat_map(|p| &p.commands).filter(|c| c.kernel == kernel).all(|c| v.can_run(&adapter.traits, c))
        };
        texts.extend(kernel.variants.iter().filter(|v| fits(v)).map(|v| (v.name.to_string(), original.clone(), Choice::Only(v.name))));
    }
    let timings = pollster::block_on(async {
        let mut contestants = Vec::new();
        for (_, plan, choice) in &texts {
            contestants.push(Contestant::new(lab::load_text(bench.adapter.as_ref(), plan.clone(), *choice).await?, case).await?);
        }
        timing::race(&mut contestants, args.seconds, clock).await
    })?;
    let first = timings[0].median;
    let row = |((text, ..), timing): (&(String, _, _), &Timing)| row(case, kernel, text, timing, ceiling, first);
    Ok(texts.iter().zip(&timings).map(row).collect())
}

fn row(case: &Case, kernel: &'static Kernel, text: &str, timing: &Timing, ceiling: &Ceiling, original: f64) -> Row {
    let work = case.work(kernel);
    Row {
        kernel: kernel.name,
        shape: case.name.clone(),
        text: text.into(),
        seconds: timing.median,
        seconds_low: timing.low,
        seconds_high: timing.high,
        timings: timing.timings,
        runs_per_timing: timing.runs,
        bytes: work.bytes,
        flops: work.flops,
        bytes_per_second: work.bytes as f64 / timing.median,
        flops_per_second: work.flops as f64 / timing.median,
        share_of_ceiling: ceiling.seconds(work) / timing.median,
        times_as_fast: original / timing.median,
    }
}

fn shown(row: &Row) -> String {
    let spread = 50.0 * (row.seconds_high - row.seconds_low) / row.seconds;
    let flops = if row.flops == 0 { "-".into() } else { format!("{:.2}", row.flops_per_second / 1e9) };
    let (kernel, shape, ratio) = match row.text.as_str() {
        "original" => (row.kernel, row.shape.as_str(), String::new()),
        file => ("", file, format!("  {:.2} times as fast", row.times_as_fast)),
    };
    let (bytes, share) = (row.bytes_per_second / 1e9, 100.0 * row.share_of_ceiling);
    let time = duration(row.seconds);
    format!("{kernel:<20} {shape:<40} {time:>10} {spread:>4.0} % {bytes:>9.2} {flops:>9} {share:>6.0} %{ratio}\n")
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.2} µs", 1e6 * s),
        s if s < 1.0 => format!("{:.2} ms", 1e3 * s),
        s => format!("{s:.2} s"),
    }
}
