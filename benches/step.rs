//! Training steps per second: the Kaggle shape, FP32 against INT4 (P = 200), taken in turns so that both see the same
//! machine (`dqrm bench step` prints more of the same). With `--profile` the time of each command, for whole periods of
//! the scale refresh.
//!
//! ```text
//! cargo bench --bench step -- [--device cpu|gpu|NAME] [--rounds N] [--seconds S] [--batch B]
//!                             [--max-rows R] [--profile]
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod common;

use common::Options;
use dqrm::bench::ceiling;
use dqrm::bench::step::{PERIOD, StepOptions, batches, clicks, config, measure};
use dqrm::config::{Device, Model, Preset, Shape};
use dqrm::profile::{CommandProfile, HostTimes, Profile};
use dqrm::quant::Bits;
use dqrm::session::Session;
use pollster::block_on;
use std::time::Instant;

const USAGE: &str = "use --device cpu|gpu|NAME, --rounds N, --seconds S, --batch B, --max-rows R, --profile";

fn compare(shape: &Shape, options: &StepOptions) -> dqrm::Result<()> {
    let (device, reports) = measure(shape, options, &ceiling::measure(&options.device)?, &mut |_, _, _| {})?;
    for report in reports {
        let (different, rounds) = (report.different, report.ratios.len());
        println!(
            "\nbatch {}, {different} different batches, {rounds} rounds of {} s each, on {}",
            report.batch, options.seconds, device.name
        );
        println!("{:>12} {:>14} {:>14} {:>14} {:>10}", "", "samples/s", "min", "max", "ms/step");
        for v in &report.variants {
            let s = v.samples_per_second;
            println!("{:>12} {:>14.0} {:>14.0} {:>14.0} {:>10.3}", v.name, s.median, s.min, s.max, v.step_milliseconds);
        }
        let s = report.ratio;
        println!("{:>12} {:>14.3} {:>14.3} {:>14.3}", "INT4 / FP32", s.median, s.min, s.max);
    }
    Ok(())
}

fn print_shares(title: &str, parts: &[CommandProfile], profile: &Profile, most: usize) {
    let total = profile.commands_seconds();
    println!("\n{title}: {:.1} us per step in all", 1e6 * total / profile.steps as f64);
    for c in parts.iter().take(most) {
        let name = format!("{} {} {}", c.phase, c.kernel, c.label);
        println!("  {name:<48} {:>10.1} us {:>6.1} %", 1e6 * c.seconds / profile.steps as f64, 100.0 * c.seconds / total);
    }
}

/// Times every command, for whole periods of the scale refresh.
fn profile(shape: &Shape, device: &Device, size: usize, limit: f64) -> dqrm::Result<()> {
    let clicks = clicks(shape);
    for bits in [Bits::None, Bits::B4] {
        let mut session = block_on(Session::load_profiled(shape, &config(device, bits, size), dqrm::data::Samples::max_bag(&clicks)))?;
        session.initialise(1, &mut |_, _| {})?;
        let batches = batches(&clicks, session.tables(), size)?;
        let origin = Instant::now();
        let clock = || origin.elapsed().as_secs_f64();
        let mut profile = Profile::new(session.device().name.clone());
        let mut number = 0u64;
        let mut begun = clock();
        while clock() - begun < limit || !profile.steps.is_multiple_of(PERIOD) || profile.steps == 0 {
            let batch = &batches[number as usize % batches.len()];
            let begin = clock();
            let run = session.train_step_timed(number, batch, &clock)?;
            if number >= 5 {
                profile.push(session.plan(), number, batch, HostTimes { wait: begin, begin, end: clock() }, &run);
            } else {
                begun = clock();
            }
            number += 1;
            if number.is_multiple_of(Session::RING as u64) {
                block_on(session.history())?;
            }
        }
        println!("\n=== {bits}, batch {size}, {} steps, {}, {}", profile.steps, profile.device, profile.timer);
        println!("upload: {:.1} us per step", 1e6 * profile.upload / profile.steps as f64);
        print_shares("by kernel", &profile.kernels(), &profile, usize::MAX);
        let mut commands = profile.commands.clone();
        commands.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        print_shares("by command", &commands, &profile, 24);
    }
    Ok(())
}

fn run() -> dqrm::Result<()> {
    let values = ["--device", "--rounds", "--seconds", "--batch", "--max-rows"];
    let options = Options::parse(USAGE, &["--profile"], &values);
    let device = Device::from(options.value("--device", "cpu".to_string()));
    let (rounds, seconds) = (options.value("--rounds", 5usize).max(1), options.value("--seconds", 3.0));
    let model = Model { preset: Preset::Kaggle, max_rows: Some(options.value("--max-rows", 100_000)), ..Model::default() };
    let shape = model.shape(None, None)?;
    println!("{} rows in {} tables, {} MLP parameters", shape.rows.iter().sum::<u64>(), shape.tables(), shape.mlp_parameters());
    let sizes: Vec<usize> = options.text("--batch").map_or(vec![128, 2048], |_| vec![options.value("--batch", 128)]);
    if options.flag("--profile") {
        return sizes.into_iter().try_for_each(|size| profile(&shape, &device, size, seconds));
    }
    compare(&shape, &StepOptions { device, batches: sizes, rounds, seconds })
}

fn main() {
    if let Err(error) = run() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
