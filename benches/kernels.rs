//! Time of every case of every op, on the CPU engine and on each adapter. The data of a case is small
//! enough to stay in caches, so this compares kernels with themselves, before and after a change.
//!
//! ```text
//! cargo bench --bench kernels -- [--device cpu|gpu|NAME] [--filter TEXT] [--quick]
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod common;

use common::{Options, Spread, seconds};
use dqrm::engine::Engine;
use dqrm::engine::cpu::CpuEngine;
use dqrm::engine::gpu::{GpuAdapter, GpuEngine, adapters};
use dqrm::ops::{Case, cases};
use dqrm::plan::View;
use dqrm::plan::schedule::Schedule;
use pollster::block_on;

const USAGE: &str = "use --device cpu|gpu|NAME, --filter TEXT, --quick";

/// How often and how long a case runs.
struct Effort {
    /// Timings of a case.
    runs: usize,
    /// Seconds one timing should take; a case is repeated to fill them.
    fill: f64,
}

fn engine(case: &Case, adapter: Option<&GpuAdapter>) -> dqrm::Result<Box<dyn Engine>> {
    let mut engine: Box<dyn Engine> = match adapter {
        None => Box::new(CpuEngine::load(Schedule::new(case.plan.clone(), &CpuEngine::limits(None))?)),
        Some(a) => Box::new(block_on(GpuEngine::load(a, Schedule::new(case.plan.clone(), &a.limits)?))?),
    };
    case.inputs.iter().try_for_each(|(view, words)| engine.write(*view, words))?;
    Ok(engine)
}

/// Runs the case `repeats` times and waits until the last run is done.
fn repeat(case: &Case, engine: &mut dyn Engine, repeats: usize) -> dqrm::Result<()> {
    (0..repeats).try_for_each(|_| engine.run(&[0], &case.step))?;
    let (first, _) = case.checks[0];
    block_on(engine.read(View { len: 1, ..first })).map(|_| ())
}

/// Seconds of one run of the case.
fn time(case: &Case, engine: &mut dyn Engine, effort: &Effort) -> dqrm::Result<Spread> {
    repeat(case, engine, 2)?;
    let mut outcome = Ok(());
    let once = seconds(|| outcome = repeat(case, engine, 1));
    outcome?;
    let repeats = ((effort.fill / once.max(1e-7)) as usize).clamp(1, 10_000);
    let mut timings = Vec::new();
    for _ in 0..effort.runs {
        let mut outcome = Ok(());
        timings.push(seconds(|| outcome = repeat(case, engine, repeats)) / repeats as f64);
        outcome?;
    }
    Ok(Spread::of(&timings))
}

fn run() -> dqrm::Result<()> {
    let options = Options::parse(USAGE, &["--quick"], &["--device", "--filter"]);
    let effort = if options.flag("--quick") { Effort { runs: 3, fill: 0.01 } } else { Effort { runs: 11, fill: 0.1 } };
    let (device, filter) = (options.value("--device", "all".to_string()).to_lowercase(), options.value("--filter", String::new()));
    let mut engines: Vec<Option<GpuAdapter>> = block_on(adapters()).into_iter().map(Some).collect();
    engines.insert(0, None);
    engines.retain(|engine| match engine {
        None => device == "all" || device == "cpu",
        Some(a) => device == "all" || device == "gpu" || a.name.to_lowercase().contains(&device),
    });
    let cases: Vec<Case> = cases().into_iter().filter(|c| c.name.to_lowercase().contains(&filter.to_lowercase())).collect();
    if engines.is_empty() || cases.is_empty() {
        eprintln!("nothing to run: {} engines for `{device}`, {} cases for `{filter}`", engines.len(), cases.len());
        std::process::exit(2);
    }
    println!(
        "{} timings each, microseconds for one run of a case, forward and backward; a run on an adapter includes its submission",
        effort.runs
    );
    println!("{:<52} {:<24} {:>11} {:>11} {:>11} {:>9}", "case", "engine", "median", "min", "max", "GFLOP/s");
    for case in &cases {
        for adapter in &engines {
            let name: String = adapter.as_ref().map_or("cpu", |a| &a.name).chars().take(24).collect();
            let s = time(case, &mut *engine(case, adapter.as_ref())?, &effort)?;
            let rate = if case.flops > 0 { format!("{:.2}", case.flops as f64 / s.median / 1e9) } else { String::new() };
            println!("{:<52} {name:<24} {:>11.1} {:>11.1} {:>11.1} {rate:>9}", case.name, 1e6 * s.median, 1e6 * s.min, 1e6 * s.max);
        }
    }
    Ok(())
}

fn main() {
    if let Err(error) = run() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
