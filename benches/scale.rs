//! What a step costs by the size of the tables, the batch, the number of tables and the width of a row, with tables on the
//! device and on the host; and how long a model takes to be ready. Ids are drawn uniformly, so that hardly a
//! row is in a cache: the worst case. Batches are made before the clock starts; the refresh of scales every 200 steps counts.
//!
//! ```text
//! cargo bench --bench scale -- [--device cpu] [--rows 1e4,1e5,…] [--only rows,batch,tables,dim,start] [--seconds S]
//!                              [--rounds N] [--dir DIR] [--svg DIR]
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod common;

use clap::Parser;
use common::{Spread, seconds};
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
    /// Rows of all tables together, for the first curve.
    #[arg(long, value_delimiter = ',', default_values_t = [1e4, 1e5, 1e6, 1e7, 1e8])]
    rows: Vec<f64>,
    /// Which curves.
    #[arg(long, value_delimiter = ',', default_value = "rows,batch,tables,dim,start")]
    only: Vec<String>,
    /// Where the tables live: device, host or both.
    #[arg(long, value_delimiter = ',', default_value = "device,host")]
    places: Vec<String>,
    /// Seconds of a round.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rounds of each point.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Folder of the files of tables on the host.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Draw the curves in this folder.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Cargo passes this.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One point of a curve.
#[derive(Debug, Clone, Copy)]
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

    fn config(&self, device: &str, place: TablePlace) -> Config {
        let mut config = Config { device: Device::from(device.to_string()), ..Config::default() };
        config.model.tables = place;
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

/// A session with weights, and the seconds to load and to initialise it.
fn session(point: &Point, shape: &Shape, device: &str, place: TablePlace, dir: &Path) -> dqrm::Result<(Session, [f64; 2])> {
    let config = point.config(device, place);
    let bags = vec![1; shape.tables()];
    let began = Instant::now();
    let mut session = if place == TablePlace::Host {
        let store = HostTables::create(dir, RowLayout::of(shape, &config))?;
        block_on(Session::load_hosted(shape, &config, &bags, Box::new(store), false))?
    } else {
        block_on(Session::load(shape, &config, &bags))?
    };
    let loaded = began.elapsed().as_secs_f64();
    session.initialise(1, &mut |_, _| {})?;
    Ok((session, [loaded, began.elapsed().as_secs_f64() - loaded]))
}

/// Milliseconds a step.
fn step_time(args: &Args, point: &Point, place: TablePlace, dir: &Path) -> dqrm::Result<Spread> {
    let shape = point.shape()?;
    let (mut session, _) = session(point, &shape, &args.device, place, dir)?;
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
    let times: Vec<f64> = (0..args.rounds.max(1)).map(|_| run(args.seconds)).collect::<dqrm::Result<_>>()?;
    Ok(Spread::of(&times))
}

/// Name and points of a curve, with the value on its axis.
fn curves(args: &Args) -> Vec<(&'static str, Vec<(f64, Point)>)> {
    let of = |values: &[f64], make: &dyn Fn(f64) -> Point| values.iter().map(|&v| (v, make(v))).collect::<Vec<_>>();
    vec![
        ("rows", of(&args.rows, &|v| Point { rows: v as u64, ..BASE })),
        ("batch", of(&[32.0, 128.0, 512.0, 2048.0, 8192.0], &|v| Point { batch: v as usize, ..BASE })),
        ("tables", of(&[1.0, 4.0, 16.0, 64.0, 256.0], &|v| Point { tables: v as u64, ..BASE })),
        ("dim", of(&[4.0, 8.0, 16.0, 32.0, 64.0, 128.0], &|v| Point { dim: v as usize, ..BASE })),
    ]
}

fn draw(folder: &Path, name: &str, lines: &[(String, Vec<(f64, f64)>)]) -> Outcome<()> {
    let path = folder.join(format!("scale_{name}.svg"));
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
    for ((place, points), colour) in lines.iter().zip([RGBColor(200, 80, 40), RGBColor(20, 100, 170)]) {
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
            .label(format!("tables on the {place}"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        chart.draw_series(points.iter().map(|&p| Circle::new(p, 3, colour.filled())))?;
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).background_style(WHITE).border_style(BLACK.mix(0.3)).draw()?;
    root.present()?;
    Ok(())
}

fn place_named(name: &str) -> TablePlace {
    if name == "host" { TablePlace::Host } else { TablePlace::Device }
}

/// Time until the full Kaggle model can make its first step, and that step.
fn start_up(args: &Args, dir: &Path) -> Outcome<()> {
    println!(
        "\n| full Kaggle model, tables on the | buffers made, s | weights made, s | first step, s | ready for it after, s |\n|---|---|---|---|---|"
    );
    let shape = Model { preset: Preset::Kaggle, ..Model::default() }.shape(None, None)?;
    for place in &args.places {
        let mut all: [Vec<f64>; 4] = Default::default();
        for _ in 0..args.rounds.clamp(1, 3) {
            let (mut session, [load, fill]) = session(&BASE, &shape, &args.device, place_named(place), dir)?;
            let batch = BASE.batch(&shape, session.tables(), 0)?;
            let mut outcome = Ok(());
            let first = seconds(|| outcome = session.train_step(0, &batch).and_then(|()| block_on(session.history()).map(|_| ())));
            outcome?;
            [load, fill, first, load + fill].iter().zip(&mut all).for_each(|(s, list)| list.push(*s));
        }
        let medians = all.map(|list| format!("{:.2}", Spread::of(&list).median));
        println!("| {place} | {} |", medians.join(" | "));
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let args = Args::parse();
    let temporary = tempfile::tempdir()?;
    let dir = args.dir.clone().unwrap_or_else(|| temporary.path().into());
    println!("device {}, {BASE:?} where nothing else is said, INT4, P = {PERIOD}", args.device);
    if args.only.iter().any(|o| o == "start") {
        start_up(&args, &dir)?;
    }
    for (name, points) in curves(&args).into_iter().filter(|(name, _)| args.only.iter().any(|o| o == name)) {
        println!("\n| {name} | {} |", args.places.iter().map(|p| format!("ms a step, tables on the {p}")).collect::<Vec<_>>().join(" | "));
        println!("|---|{}", "---|".repeat(args.places.len()));
        let mut lines: Vec<(String, Vec<(f64, f64)>)> = args.places.iter().map(|p| (p.clone(), Vec::new())).collect();
        for (value, point) in points {
            let mut cells = Vec::new();
            for (place, line) in &mut lines {
                let t = step_time(&args, &point, place_named(place), &dir)?;
                line.push((value, t.median));
                cells.push(format!("{:.2} ({:.2} to {:.2})", t.median, t.min, t.max));
            }
            println!("| {value} | {} |", cells.join(" | "));
        }
        if let Some(folder) = &args.svg {
            std::fs::create_dir_all(folder)?;
            draw(folder, name, &lines)?;
        }
    }
    Ok(())
}
