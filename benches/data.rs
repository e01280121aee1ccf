//! Speed of data: text parsed, prepared, and loaded as batches.
//!
//! ```text
//! cargo bench --bench data -- [--file FILE.tsv | --lines N | --prepared DIR] [--batch N] [--threads N] [--rounds N] [--seconds S]
//!     [--folder DIR]
//! ```
//!
//! Without `--file` it reads Criteo-like text that it makes up. Rates are also given for a second of processor time, which
//! other programs on the machine disturb less. `--folder` keeps the prepared data; `--prepared` loads such a folder and measures nothing else.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod common;

use common::{Options, Spread};
use dqrm::config::{Data, Format, OnBadRow, Schema};
use dqrm::data::loader::{Loader, Order, Share, fetch_batch};
use dqrm::data::synthetic::criteo_text;
use dqrm::data::text::parse_all;
use dqrm::data::{Batch, Block, Samples, dataset};
use dqrm::tables::Tables;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const USAGE: &str = "use --file FILE, --lines N, --prepared DIR, --batch N, --threads N, --rounds N, --seconds S, --folder DIR";

/// Seconds of processor time of this process; 0 where the system does not tell.
fn cpu_seconds() -> f64 {
    let [user, system, _] = common::usage();
    user + system
}

/// The most memory this process had, in MB; 0 where the system does not tell.
fn peak_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).map_or(0.0, |kb| kb / 1e3)
}

/// Runs `work`, which says how many units it did, for about `seconds` a round; prints units a second of both kinds.
fn measure(name: &str, unit: &str, rounds: usize, seconds: f64, mut work: impl FnMut() -> dqrm::Result<f64>) -> dqrm::Result<()> {
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (start, before, mut units) = (Instant::now(), cpu_seconds(), 0.0);
        while start.elapsed().as_secs_f64() < seconds {
            units += work()?;
        }
        wall.push(units / start.elapsed().as_secs_f64());
        cpu.push(units / (cpu_seconds() - before).max(1e-9));
    }
    let (wall, cpu) = (Spread::of(&wall), Spread::of(&cpu));
    println!(
        "{name:<34} {:>8.2} {unit}/s ({:.2} to {:.2}), {:>8.2} for a second of one core ({:.2} to {:.2})",
        wall.median, wall.min, wall.max, cpu.median, cpu.min, cpu.max
    );
    Ok(())
}

fn main() -> dqrm::Result<()> {
    let options =
        Options::parse(USAGE, &[], &["--file", "--lines", "--prepared", "--batch", "--threads", "--rounds", "--seconds", "--folder"]);
    let (rounds, seconds) = (options.value("--rounds", 5), options.value("--seconds", 1.0));
    let (batch, threads) = (options.value("--batch", 2048), options.value("--threads", 2));
    if let Some(folder) = options.text("--prepared") {
        return load(Arc::new(dataset::open_folder(Path::new(folder))?), batch, threads, rounds, seconds);
    }
    let place = tempfile::tempdir().map_err(dqrm::Error::io("create", "a temporary folder"))?;
    let path = match options.text("--file") {
        Some(path) => path.to_owned(),
        None => {
            let path = place.path().join("text.tsv");
            std::fs::write(&path, criteo_text(1, 0..options.value("--lines", 500_000))).map_err(dqrm::Error::io("write", &path))?;
            path.display().to_string()
        }
    };
    let schema = Schema::criteo(13, 26);
    let bytes = std::fs::metadata(&path).map_err(dqrm::Error::io("read", &path))?.len() as f64 / 1e6;
    println!("{path}: {bytes:.0} MB");
    measure("parse, one thread", "MB", rounds, seconds, || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(|e| dqrm::Error::Data(e.to_string()))?;
        pool.install(|| parse_all(std::slice::from_ref(&path), &schema, OnBadRow::Error)).map(|_| bytes)
    })?;
    measure("parse, all cores", "MB", rounds, seconds, || parse_all(std::slice::from_ref(&path), &schema, OnBadRow::Error).map(|_| bytes))?;
    let data = Data { files: vec![path.clone()], format: Format::Criteo, ..Data::default() };
    let mut number = 0;
    let mut prepare = |out: Option<&str>| {
        number += 1;
        let out = out.map_or_else(|| place.path().join(format!("out-{number}")), |out| Path::new(out).to_owned());
        let making = dataset::Making { stop: None, restart: true, mark_every: None, watch: &mut |_, _, _| {} };
        dataset::to_folder(&data, &schema, None, None, &out, making)
    };
    measure("prepare, all cores", "MB", rounds, seconds, || {
        let made = prepare(None)?;
        std::fs::remove_dir_all(made.path()).map_err(dqrm::Error::io("remove", made.path()))?;
        Ok(bytes)
    })?;
    let prepared = prepare(options.text("--folder"))?;
    println!("{} rows, {:.0} MB, at most {:.0} MB of memory so far", prepared.len(), prepared.bytes() as f64 / 1e6, peak_memory());
    load(Arc::new(prepared), batch, threads, rounds, seconds)
}

/// The parts of loading, one thread each, and all of it.
fn load(samples: Arc<dyn Samples>, batch: usize, threads: usize, rounds: usize, seconds: f64) -> dqrm::Result<()> {
    let tables = Tables::new(samples.rows(), 16, 1 << 30)?;
    let n = samples.len();
    for (kind, shuffle) in [("in order", None), ("shuffled", Some(1))] {
        let order = Order { range: 0..n, shuffle, share: Share::default() };
        let steps = (n / batch as u64).max(1);
        let mut step = 0;
        let mut next = || {
            step += 1;
            (step - 1) % steps
        };
        let mut block = Block::new();
        measure(&format!("fetch, {kind}"), "M rows", rounds, seconds, || {
            block.clear();
            samples.fetch(&order.indices(batch, next()), &mut block)?;
            Ok(block.samples as f64 / 1e6)
        })?;
        measure(&format!("unique rows, {kind}"), "M rows", rounds, seconds, || {
            Batch::prepare(&block, &tables).map(|batch| batch.samples as f64 / 1e6)
        })?;
        measure(&format!("both, {kind}"), "M rows", rounds, seconds, || {
            fetch_batch(&*samples, &order, &tables, batch, next()).map(|batch| batch.samples as f64 / 1e6)
        })?;
        let mut loader = Loader::new(samples.clone(), order.clone(), tables.clone(), batch, 0..u64::MAX, threads)?;
        measure(&format!("loader, {threads} threads, {kind}"), "M rows", rounds, seconds, || match loader.next() {
            Some(batch) => batch.map(|batch| batch.samples as f64 / 1e6),
            None => Ok(0.0),
        })?;
    }
    Ok(())
}
