//! Training steps per second: the Kaggle shape, FP32 against INT4 (P = 200), taken in turns so that
//! both see the same machine. Batches are made before the clock starts; uploading them belongs to a step.
//!
//! ```text
//! cargo bench --bench step -- [--device cpu|gpu|NAME] [--rounds N] [--seconds S] [--batch B]
//!                             [--max-rows R] [--profile [--portable]]
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod common;

use common::{Options, Spread, seconds};
use dqrm::config::{Config, Device, Model, Preset, Quant, Shape, Synthetic, Train};
use dqrm::data::synthetic::Clicks;
use dqrm::data::{Batch, Block, Samples};
use dqrm::engine::Engine;
use dqrm::engine::cpu::CpuEngine;
use dqrm::engine::gpu::{GpuAdapter, GpuEngine, adapters};
use dqrm::model::Network;
use dqrm::plan::schedule::Schedule;
use dqrm::plan::variant::Choice;
use dqrm::plan::{StepUniform, View};
use dqrm::quant::Bits;
use dqrm::session::Session;
use dqrm::step::{self, phase};
use dqrm::tables::Tables;
use pollster::block_on;
use std::collections::BTreeMap;
use std::time::Instant;

const USAGE: &str = "use --device cpu|gpu|NAME, --rounds N, --seconds S, --batch B, --max-rows R, --profile, --portable";
/// Table scales are recomputed once in this many steps.
const PERIOD: u64 = 200;

/// A session and the number of its next step.
struct Runner {
    session: Session,
    step: u64,
}

impl Runner {
    fn new(shape: &Shape, config: &Config, max_bag: &[usize]) -> dqrm::Result<Runner> {
        let mut session = block_on(Session::load(shape, config, max_bag))?;
        session.initialise(1, &mut |_, _| {})?;
        Ok(Runner { session, step: 0 })
    }

    /// Steps in whole rounds of results until `limit` seconds have passed; gives samples per second, and seconds of
    /// all cores for a sample.
    /// Reading the results waits for the device, so all the steps counted are done.
    fn run(&mut self, batches: &[Batch], limit: f64) -> dqrm::Result<[f64; 2]> {
        let (start, busy, mut samples) = (Instant::now(), core_seconds(), 0);
        loop {
            for _ in 0..Session::RING {
                let batch = &batches[self.step as usize % batches.len()];
                self.session.train_step(self.step, batch)?;
                self.step += 1;
                samples += batch.samples;
                if start.elapsed().as_secs_f64() > limit {
                    break;
                }
            }
            let results = block_on(self.session.history())?;
            assert!(results.iter().all(|r| r.loss.is_finite()), "the loss is no number");
            let elapsed = start.elapsed().as_secs_f64();
            if elapsed >= limit {
                return Ok([samples as f64 / elapsed, (core_seconds() - busy) / samples as f64]);
            }
        }
    }
}

/// Seconds that all threads of this process have run; 0 where the system does not tell. On a busy machine this says
/// more than the clock.
fn core_seconds() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let run = |text: String| text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok());
    threads.filter_map(|t| std::fs::read_to_string(t.path().join("schedstat")).ok().and_then(run)).sum::<f64>() * 1e-9
}

/// Seconds by the clock and of all cores.
type Cost = [f64; 2];

/// What a closure costs.
fn cost(work: impl FnOnce()) -> Cost {
    let busy = core_seconds();
    let clock = seconds(work);
    [clock, core_seconds() - busy]
}

fn quant(bits: Bits) -> Quant {
    Quant { embedding_bits: bits, mlp_bits: bits, period: PERIOD, ..Quant::default() }
}

fn config(device: &Device, bits: Bits, batch: usize) -> Config {
    let train = Train { batch, eval_batch: batch, ..Train::default() };
    Config { device: device.clone(), quant: quant(bits), train, ..Config::default() }
}

/// `count` different batches.
fn batches(clicks: &Clicks, tables: &Tables, size: usize, count: usize) -> dqrm::Result<Vec<Batch>> {
    let mut block = Block::new();
    let one = |i: usize| {
        block.clear();
        clicks.fetch(&((i * size) as u64..((i + 1) * size) as u64).collect::<Vec<_>>(), &mut block)?;
        Batch::prepare(&block, tables)
    };
    (0..count).map(one).collect()
}

fn compare(shape: &Shape, clicks: &Clicks, device: &Device, size: usize, count: usize, rounds: usize, limit: f64) -> dqrm::Result<()> {
    let load = |bits| Runner::new(shape, &config(device, bits, size), clicks.max_bag());
    let (mut fp32, mut int4) = (load(Bits::None)?, load(Bits::B4)?);
    let batches = batches(clicks, fp32.session.tables(), size, count)?;
    for runner in [&mut fp32, &mut int4] {
        runner.run(&batches, limit / 4.0)?;
    }
    let (mut rates, mut busy) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..rounds {
        for (r, runner) in [&mut fp32, &mut int4].into_iter().enumerate() {
            let [rate, cores] = runner.run(&batches, limit)?;
            rates[r].push(rate);
            busy[r].push(cores);
        }
    }
    let ratios: Vec<f64> = rates[1].iter().zip(&rates[0]).map(|(a, b)| a / b).collect();
    println!("\nbatch {size}, {} different batches, {rounds} rounds of {limit} s each, on {}", batches.len(), fp32.session.device().name);
    println!("{:>12} {:>14} {:>14} {:>14} {:>10} {:>14}", "", "samples/s", "min", "max", "ms/step", "core ms/step");
    for ((name, rates), busy) in ["FP32", "INT4"].iter().zip(&rates).zip(&busy) {
        let (s, cores) = (Spread::of(rates), 1e3 * size as f64 * Spread::of(busy).median);
        println!("{name:>12} {:>14.0} {:>14.0} {:>14.0} {:>10.3} {cores:>14.3}", s.median, s.min, s.max, 1e3 * size as f64 / s.median);
    }
    let s = Spread::of(&ratios);
    println!("{:>12} {:>14.3} {:>14.3} {:>14.3}", "INT4 / FP32", s.median, s.min, s.max);
    Ok(())
}

/// The plan of a step on a bare engine, with the weights of a fresh session.
struct Bench {
    engine: Box<dyn Engine>,
    recorded: step::Recorded,
    /// What running nothing and waiting for it costs.
    idle: Cost,
}

impl Bench {
    fn new(shape: &Shape, config: &Config, max_bag: &[usize], choice: Choice<'_>) -> dqrm::Result<Bench> {
        let mut session = Runner::new(shape, config, max_bag)?.session;
        let recorded = step::record(shape, config, session.tables(), max_bag, Session::RING);
        let mut engine: Box<dyn Engine> = match adapter(&config.device) {
            None => Box::new(CpuEngine::load(Schedule::new(recorded.plan.clone(), &CpuEngine::limits(None))?)),
            Some(a) => Box::new(block_on(GpuEngine::load_with(&a, Schedule::new(recorded.plan.clone(), &a.limits)?, choice))?),
        };
        let mut row = 0;
        for (k, &rows) in shape.rows.iter().enumerate() {
            let values = block_on(session.read(&format!("emb_l.{k}.weight"), 0, rows as usize * shape.dim))?;
            engine.write(View { offset: row, len: values.len(), ..recorded.shards[0] }, bytemuck::cast_slice(&values))?;
            row += values.len();
        }
        for layer in Network::new(shape).layers() {
            for (part, view) in [("weight", layer.weight(recorded.weights)), ("bias", layer.bias(recorded.weights))] {
                let values = block_on(session.read(&format!("{}.{part}", layer.name), 0, view.len))?;
                engine.write(view, bytemuck::cast_slice(&values))?;
            }
        }
        let mut bench = Bench { engine, recorded, idle: [0.0; 2] };
        let idle: Vec<Cost> = (0..20).map(|_| cost(|| bench.wait().expect("reading back works"))).collect();
        bench.idle = [0, 1].map(|i| Spread::of(&idle.iter().map(|c| c[i]).collect::<Vec<_>>()).median);
        Ok(bench)
    }

    /// Waits until the engine has done everything.
    fn wait(&mut self) -> dqrm::Result<()> {
        block_on(self.engine.read(View { len: 1, ..self.recorded.loss_ring })).map(|_| ())
    }

    fn upload(&mut self, batch: &Batch) -> dqrm::Result<()> {
        let r = &self.recorded;
        self.engine.write(r.dense, bytemuck::cast_slice(&batch.dense))?;
        self.engine.write(r.labels, bytemuck::cast_slice(&batch.labels))?;
        let lists = [
            (r.batch.bag_offsets, &batch.bag_offsets),
            (r.batch.bag_rows, &batch.bag_rows),
            (r.batch.rows, &batch.rows),
            (r.batch.row_tables, &batch.row_tables),
            (r.batch.shard_offsets, &batch.shard_offsets),
            (r.batch.row_offsets, &batch.row_offsets),
            (r.batch.row_samples, &batch.row_samples),
        ];
        lists.into_iter().try_for_each(|(view, words)| self.engine.write(view, words))
    }

    /// Runs a step command by command and adds up the seconds by (phase, kernel, label).
    fn step(&mut self, number: u64, batch: &Batch, times: &mut BTreeMap<[String; 3], Cost>) -> dqrm::Result<()> {
        let add = |times: &mut BTreeMap<[String; 3], Cost>, key: [&str; 3], more: Cost| {
            times.entry(key.map(String::from)).or_default().iter_mut().zip(more).for_each(|(sum, s)| *sum += s);
        };
        let mut outcome = Ok(());
        let s = cost(|| outcome = self.upload(batch));
        outcome?;
        add(times, ["upload", "", ""], s);
        let last = View { len: 1, ..self.recorded.loss_ring };
        let uniform = StepUniform { lr: 0.01, lr_rows: 0.01, ..StepUniform::evaluate(batch.samples, batch.touched()) };
        for (p, phase) in self.recorded.plan.phases.iter().enumerate() {
            let due = match phase.name {
                phase::REFRESH => number.is_multiple_of(PERIOD),
                name => name == phase::GRADIENTS || name == phase::UPDATE,
            };
            for (c, command) in phase.commands.iter().enumerate().filter(|_| due) {
                let mut outcome = Ok(());
                let s =
                    cost(|| outcome = self.engine.run_command(p, c, &uniform).and_then(|()| block_on(self.engine.read(last)).map(|_| ())));
                outcome?;
                add(times, [phase.name, command.kernel.name, &command.label], [s[0] - self.idle[0], s[1] - self.idle[1]]);
            }
        }
        Ok(())
    }
}

fn print_shares(title: &str, parts: impl Iterator<Item = (String, Cost)>, steps: u64, most: usize) {
    let mut sums: BTreeMap<String, Cost> = BTreeMap::new();
    parts.for_each(|(name, cost)| sums.entry(name).or_default().iter_mut().zip(cost).for_each(|(sum, s)| *sum += s));
    let total = [0, 1].map(|i| sums.values().map(|c| c[i]).sum::<f64>());
    let mut sorted: Vec<_> = sums.into_iter().collect();
    sorted.sort_by(|a, b| b.1[1].total_cmp(&a.1[1]).then(b.1[0].total_cmp(&a.1[0])));
    let us = |s: f64| 1e6 * s / steps as f64;
    println!("\n{title}: {:.1} us per step in all, {:.1} us of cores", us(total[0]), us(total[1]));
    for (name, [clock, cores]) in sorted.iter().take(most) {
        println!("  {name:<48} {:>10.1} us {:>6.1} % {:>10.1} us of cores", us(*clock), 100.0 * clock / total[0], us(*cores));
    }
}

/// The adapter that a device means; none is the CPU engine.
fn adapter(device: &Device) -> Option<GpuAdapter> {
    let name = match device {
        Device::Auto | Device::Cpu => return None,
        Device::Gpu => String::new(),
        Device::Named(name) => name.to_lowercase(),
    };
    block_on(adapters()).into_iter().find(|a| a.name.to_lowercase().contains(&name))
}

/// Times every command alone, for whole periods of the scale refresh on the CPU engine. On an adapter each is a
/// submission of its own, less what an empty one takes.
fn profile(
    shape: &Shape,
    clicks: &Clicks,
    device: &Device,
    choice: Choice<'static>,
    size: usize,
    count: usize,
    limit: f64,
) -> dqrm::Result<()> {
    for bits in [Bits::None, Bits::B4] {
        let config = config(device, bits, size);
        let mut bench = Bench::new(shape, &config, clicks.max_bag(), choice)?;
        let batches = batches(clicks, &Tables::new(&shape.rows, shape.dim, u64::MAX)?, size, count)?;
        for number in 0..5 {
            bench.step(number, &batches[number as usize % count], &mut BTreeMap::new())?;
        }
        let (mut times, mut steps, start) = (BTreeMap::new(), 0u64, Instant::now());
        let whole = *device == Device::Cpu;
        while start.elapsed().as_secs_f64() < limit || whole && !steps.is_multiple_of(PERIOD) {
            bench.step(steps, &batches[steps as usize % count], &mut times)?;
            steps += 1;
        }
        println!("\n=== {bits}, batch {size}, {steps} steps, {device:?}, {} threads", rayon::current_num_threads());
        print_shares("by kernel", times.iter().map(|([p, k, _], s)| (format!("{p} {k}"), *s)), steps, usize::MAX);
        print_shares("by command", times.iter().map(|([p, k, l], s)| (format!("{p} {k} {l}"), *s)), steps, 24);
    }
    Ok(())
}

fn run() -> dqrm::Result<()> {
    let values = ["--device", "--rounds", "--seconds", "--batch", "--max-rows"];
    let options = Options::parse(USAGE, &["--profile", "--portable"], &values);
    let device = Device::from(options.value("--device", "cpu".to_string()));
    let (rounds, limit) = (options.value("--rounds", 5usize).max(1), options.value("--seconds", 3.0));
    let model = Model { preset: Preset::Kaggle, max_rows: Some(options.value("--max-rows", 100_000)), ..Model::default() };
    let shape = model.shape(None, None)?;
    let synthetic = Synthetic { samples: 1 << 20, ..Synthetic::default() };
    let clicks = Clicks::new(&synthetic, 1, shape.dense, shape.rows.clone());
    println!("{} rows in {} tables, {} MLP parameters", shape.rows.iter().sum::<u64>(), shape.tables(), shape.mlp_parameters());
    let choice = if options.flag("--portable") { Choice::Portable } else { Choice::Best };
    let sizes: Vec<usize> = options.text("--batch").map_or(vec![128, 2048], |_| vec![options.value("--batch", 128)]);
    for size in sizes {
        let count = (8192usize / size.max(1)).max(10).min((1 << 20) / size.max(1)).max(1); // 64 batches of 128, 10 of 2048
        if options.flag("--profile") {
            profile(&shape, &clicks, &device, choice, size, count, limit)?;
        } else {
            compare(&shape, &clicks, &device, size, count, rounds, limit)?;
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
