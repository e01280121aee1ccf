//! What a step costs by the size of the tables, the batch, the number of tables and the width of a row, with tables on the
//! device, on the host in memory and on the host in a file; and how long a model takes to be ready. Ids are drawn uniformly, so that
//! hardly a row is in a cache: the worst case. Batches are made before the clock starts; the refresh of scales every 200 steps
//! counts. Processor seconds are those of all threads, the system's part of them by itself.
//!
//! ```text
//! cargo bench --bench scale -- [--device cpu] [--only rows,batch,tables,dim,start] [--places device,host,file] [--rows 1e4,1e5,…]
//!                              [--batches 128,2048,…] [--tables 1,4,…] [--dims 4,8,…] [--batch 128,2048,…] [--seconds S]
//!                              [--rounds N] [--dir DIR] [--held BYTES] [--json FILE] [--svg DIR]
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod common;

use clap::Parser;
use common::{Spread, seconds, usage};
use dqrm::config::{Config, Device, Model, Preset, Quant, Shape, TablePlace, Train};
use dqrm::data::{Batch, Block};
use dqrm::host_tables::HostTables;
use dqrm::rng::Stream;
use dqrm::session::{RowLayout, Session};
use dqrm::tables::Tables;
use plotters::prelude::*;
use pollster::block_on;
use std::path::{Path, PathBuf};
use std::time::Instant;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Measures steps over the size of a model.
#[derive(Parser)]
struct Args {
    /// cpu, gpu or part of an adapter's name.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Which curves.
    #[arg(long, value_delimiter = ',', default_value = "rows,batch,tables,dim,start")]
    only: Vec<String>,
    /// Where the tables live: device, host (in memory), file.
    #[arg(long, value_delimiter = ',', default_value = "device,host,file", value_parser = ["device", "host", "file"])]
    places: Vec<String>,
    /// Rows of all tables together, for the curve by rows.
    #[arg(long, value_delimiter = ',', default_values_t = [1e4, 1e5, 1e6, 1e7, 1e8])]
    rows: Vec<f64>,
    /// Samples of a step, for the curve by batch.
    #[arg(long, value_delimiter = ',', default_values_t = [32.0, 128.0, 512.0, 2048.0, 8192.0])]
    batches: Vec<f64>,
    /// Numbers of tables, for their curve.
    #[arg(long, value_delimiter = ',', default_values_t = [1.0, 4.0, 16.0, 64.0, 256.0])]
    tables: Vec<f64>,
    /// Widths of a row, for their curve.
    #[arg(long, value_delimiter = ',', default_values_t = [4.0, 8.0, 16.0, 32.0, 64.0, 128.0])]
    dims: Vec<f64>,
    /// Samples of a step in the other curves; each is measured by itself.
    #[arg(long, value_delimiter = ',', default_values_t = [128])]
    batch: Vec<usize>,
    /// Seconds of a round.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rounds of each point.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Folder of the files of tables on the host.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Bytes of memory for rows that wait to be written to such a file; as `dqrm train` has it where it is left out.
    #[arg(long)]
    held: Option<u64>,
    /// Write all figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draw the curves in this folder.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Cargo passes this.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One point of a curve.
#[derive(Debug, Clone, Copy, serde::Serialize)]
struct Point {
    rows: u64,
    tables: u64,
    dim: usize,
    batch: usize,
}

const BASE: Point = Point { rows: 1_000_000, tables: 26, dim: 16, batch: 128 };
/// Steps between two refreshes of the scales.
const PERIOD: u64 = 200;

impl Point {
    fn shape(&self) -> dqrm::Result<Shape> {
        let each = self.rows.div_ceil(self.tables).max(1);
        let bottom = Some(vec![512, 256, 64, self.dim]);
        Model { preset: Preset::Kaggle, dim: Some(self.dim), bottom, rows: Some(vec![each; self.tables as usize]), ..Model::default() }
            .shape(None, None)
    }

    fn config(&self, device: &str, place: &str) -> Config {
        let mut config = Config { device: Device::from(device.to_string()), ..Config::default() };
        config.model.tables = if place == "device" { TablePlace::Device } else { TablePlace::Host };
        config.quant = Quant { period: PERIOD, ..Quant::default() };
        config.train = Train { batch: self.batch, eval_batch: self.batch, ..Train::default() };
        config
    }

    /// Batch `number`: one uniform id for each table.
    fn batch(&self, shape: &Shape, tables: &Tables, number: u64) -> dqrm::Result<Batch> {
        let draws = Stream::new(number, 7);
        let mut block = Block::new();
        block.samples = self.batch;
        block.dense = (0..self.batch * shape.dense).map(|i| draws.uniform(i as u64) as f32).collect();
        block.labels = (0..self.batch).map(|i| (draws.uniform((1 << 40) + i as u64) < 0.25) as u8 as f32).collect();
        for bag in 0..self.batch * shape.tables() {
            block.ids.push(draws.below((1 << 41) + bag as u64, shape.rows[bag % shape.tables()]) as u32);
            block.end_bag();
        }
        Batch::prepare(&block, tables)
    }
}

/// What was measured.
#[derive(Debug, Clone, serde::Serialize)]
struct Figures {
    curve: String,
    place: String,
    point: Point,
    /// Bytes of all rows.
    table_bytes: u64,
    milliseconds: Spread,
    /// Processor milliseconds of a step: the program's and the system's.
    processor: [f64; 2],
    /// Pages that a step waited for or was given.
    faults: f64,
}

/// A session with weights, and the seconds to load and to initialise it.
fn session(point: &Point, shape: &Shape, args: &Args, place: &str, dir: &Path) -> dqrm::Result<(Session, [f64; 2])> {
    let config = point.config(&args.device, place);
    let (bags, layout) = (vec![1; shape.tables()], RowLayout::of(shape, &config));
    let began = Instant::now();
    let mut session = match place {
        "device" => block_on(Session::load(shape, &config, &bags))?,
        _ => {
            let store = match (place, args.held) {
                ("file", Some(bytes)) => HostTables::create_holding(dir, layout, bytes)?,
                ("file", None) => HostTables::create(dir, layout)?,
                _ => HostTables::in_memory(layout)?,
            };
            block_on(Session::load_hosted(shape, &config, &bags, Box::new(store), false))?
        }
    };
    let loaded = began.elapsed().as_secs_f64();
    session.initialise(1, &mut |_, _| {})?;
    Ok((session, [loaded, began.elapsed().as_secs_f64() - loaded]))
}

fn step_time(args: &Args, curve: &str, point: Point, place: &str, dir: &Path) -> dqrm::Result<Figures> {
    let shape = point.shape()?;
    let (mut session, _) = session(&point, &shape, args, place, dir)?;
    let count = (65_536 / point.batch as u64).clamp(16, 512);
    let batches: Vec<Batch> = (0..count).map(|n| point.batch(&shape, session.tables(), n)).collect::<dqrm::Result<_>>()?;
    let mut step = 0u64;
    let mut run = |limit: f64| -> dqrm::Result<f64> {
        let (began, first) = (Instant::now(), step);
        while began.elapsed().as_secs_f64() < limit || !step.is_multiple_of(PERIOD) {
            session.announce(&batches[(step + 1) as usize % batches.len()]);
            session.train_step(step, &batches[step as usize % batches.len()])?;
            step += 1;
            if step.is_multiple_of(Session::RING as u64 / 2) {
                block_on(session.history())?;
            }
            if limit == 0.0 && step > 64 {
                break;
            }
        }
        block_on(session.history())?;
        Ok(1e3 * began.elapsed().as_secs_f64() / (step - first) as f64)
    };
    run(0.0)?;
    let before = usage();
    let mut steps = 0.0;
    let mut times = Vec::new();
    for _ in 0..args.rounds.max(1) {
        let began = Instant::now();
        times.push(run(args.seconds)?);
        steps += 1e3 * began.elapsed().as_secs_f64() / times[times.len() - 1];
    }
    let [user, system, faults] = std::array::from_fn(|i| (usage()[i] - before[i]) / steps);
    let table_bytes = 4 * (point.dim as u64) * shape.rows.iter().sum::<u64>();
    let (curve, place, milliseconds) = (curve.into(), place.into(), Spread::of(&times));
    Ok(Figures { curve, place, point, table_bytes, milliseconds, processor: [1e3 * user, 1e3 * system], faults })
}

/// Name and points of the curves, with the value on their axes.
fn curves(args: &Args) -> Vec<(String, Vec<(f64, Point)>)> {
    let mut all = Vec::new();
    let mut add = |name: &str, base: Point, values: &[f64], make: &dyn Fn(f64) -> Point| {
        if args.only.iter().any(|o| o == name) {
            let name = if base.batch == BASE.batch { name.into() } else { format!("{name}, batch {}", base.batch) };
            all.push((name, values.iter().map(|&v| (v, make(v))).collect()));
        }
    };
    for &batch in &args.batch {
        let base = Point { batch, ..BASE };
        add("rows", base, &args.rows, &|v| Point { rows: v as u64, ..base });
        add("tables", base, &args.tables, &|v| Point { tables: v as u64, ..base });
        add("dim", base, &args.dims, &|v| Point { dim: v as usize, ..base });
    }
    add("batch", BASE, &args.batches, &|v| Point { batch: v as usize, ..BASE });
    all
}

fn draw(folder: &Path, name: &str, lines: &[(String, Vec<(f64, f64)>)]) -> Outcome<()> {
    let path = folder.join(format!("scale_{}.svg", name.replace(", ", "_").replace(' ', "_")));
    let all = || lines.iter().flat_map(|(_, points)| points);
    let range = |pick: &dyn Fn(&(f64, f64)) -> f64| {
        let (low, high) = all().map(pick).fold((f64::MAX, 0.0f64), |(l, h), v| (l.min(v), h.max(v)));
        low * 0.8..high * 1.25
    };
    let root = SVGBackend::new(&path, (640, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("milliseconds a step by {name}"), ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(range(&|p| p.0).log_scale(), range(&|p| p.1).log_scale())?;
    chart.configure_mesh().x_desc(name).y_desc("ms").light_line_style(WHITE).draw()?;
    for ((place, points), colour) in lines.iter().zip([RGBColor(200, 80, 40), RGBColor(20, 100, 170), RGBColor(60, 140, 60)]) {
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
            .label(format!("tables on the {}", long(place)))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        chart.draw_series(points.iter().map(|&p| Circle::new(p, 3, colour.filled())))?;
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).background_style(WHITE).border_style(BLACK.mix(0.3)).draw()?;
    root.present()?;
    Ok(())
}

fn long(place: &str) -> &str {
    if place == "file" { "host, in a file" } else { place }
}

/// Time until the full Kaggle model can make its first step, and that step.
fn start_up(args: &Args, dir: &Path) -> Outcome<Vec<serde_json::Value>> {
    println!(
        "\n| full Kaggle model, tables on the | buffers made, s | weights made, s | ready after, s | processor seconds until then, user + system | \
         first step, s |\n|---|---|---|---|---|---|"
    );
    let shape = Model { preset: Preset::Kaggle, ..Model::default() }.shape(None, None)?;
    let mut found = Vec::new();
    for place in &args.places {
        let mut all: [Vec<f64>; 6] = Default::default();
        for _ in 0..args.rounds.max(1) {
            let before = usage();
            let (mut session, [load, fill]) = session(&BASE, &shape, args, place, dir)?;
            let [user, system] = std::array::from_fn(|i| usage()[i] - before[i]);
            let batch = BASE.batch(&shape, session.tables(), 0)?;
            let mut outcome = Ok(());
            let first = seconds(|| outcome = session.train_step(0, &batch).and_then(|()| block_on(session.history()).map(|_| ())));
            outcome?;
            [load, fill, load + fill, user, system, first].iter().zip(&mut all).for_each(|(s, list)| list.push(*s));
        }
        let spreads = all.map(|list| Spread::of(&list));
        let [load, fill, ready, user, system, first] = spreads.map(|s| format!("{:.2}", s.median));
        println!("| {} | {load} | {fill} | {ready} | {user} + {system} | {first} |", long(place));
        let [load, fill, ready, user, system, first] = spreads;
        found.push(serde_json::json!({
            "place": place, "load": load, "fill": fill, "ready": ready, "user": user, "system": system, "first_step": first
        }));
    }
    Ok(found)
}

fn main() -> Outcome<()> {
    let args = Args::parse();
    let temporary = tempfile::tempdir()?;
    let dir = args.dir.clone().unwrap_or_else(|| temporary.path().into());
    println!("device {}, {BASE:?} where nothing else is said, INT4, P = {PERIOD}", args.device);
    let start = if args.only.iter().any(|o| o == "start") { start_up(&args, &dir)? } else { Vec::new() };
    let mut found: Vec<Figures> = Vec::new();
    for (name, points) in curves(&args) {
        println!(
            "\n| {name} | {} |",
            args.places.iter().map(|p| format!("ms a step, tables on the {}", long(p))).collect::<Vec<_>>().join(" | ")
        );
        println!("|---|{}", "---|".repeat(args.places.len()));
        let mut lines: Vec<(String, Vec<(f64, f64)>)> = args.places.iter().map(|p| (p.clone(), Vec::new())).collect();
        for (value, point) in points {
            let mut cells = Vec::new();
            for (place, line) in &mut lines {
                let f = step_time(&args, &name, point, place, &dir)?;
                let (t, [user, system]) = (&f.milliseconds, f.processor);
                line.push((value, t.median));
                cells.push(format!("{:.2} ({:.2} to {:.2}; processor {user:.1} + {system:.1})", t.median, t.min, t.max));
                found.push(f);
            }
            println!("| {value} | {} |", cells.join(" | "));
        }
        if let Some(folder) = &args.svg {
            std::fs::create_dir_all(folder)?;
            draw(folder, &name, &lines)?;
        }
    }
    if let Some(path) = &args.json {
        let all = serde_json::json!({ "device": args.device, "start": start, "steps": found });
        std::fs::write(path, serde_json::to_string_pretty(&all)?)?;
    }
    Ok(())
}
