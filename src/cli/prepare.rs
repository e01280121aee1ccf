//! `dqrm prepare`.

use super::live::{duration, grouped};
use super::options::choice;
use super::{note, print, print_json, stop};
use crate::config::{Config, Ids, OnBadRow, Preset};
use crate::config_file;
use crate::data::Samples;
use crate::data::dataset::{self, Making, Prepared};
use crate::error::{Error, Result};
use crate::train;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::fmt::Write;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const EXAMPLES: &str = "\
Examples:
  dqrm prepare day_*.gz --out prepared                  Criteo's layout
  dqrm train --data prepared --preset kaggle
  dqrm prepare clicks.csv --config my.toml --out prepared       the columns of [data.schema]
  dqrm prepare day_*.gz --ids modulo --modulo 1000000 --out prepared
  dqrm prepare --verify prepared                        compares every byte with its checksum

When it is interrupted, the same command goes on where it stopped, and the result is the same to the last byte. The folder may
be moved. Memory: about 16 MB for each core, and 14 to 28 bytes for each distinct category (none with modulo).";

/// How often progress is said where there is no terminal.
const EVERY: Duration = Duration::from_secs(3);

/// Settings of `dqrm prepare`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct PrepareArgs {
    /// Files in time order, plain or .gz (Criteo TSV unless the TOML has a schema)
    #[arg(required_unless_present = "verify")]
    pub raw: Vec<String>,
    /// The folder to make
    #[arg(long, value_name = "DIR", required_unless_present = "verify")]
    pub out: Option<PathBuf>,
    /// Compare a prepared folder with its checksums instead
    #[arg(long, value_name = "DIR", conflicts_with_all = ["raw", "out", "config", "restart"])]
    pub verify: Option<PathBuf>,
    /// Settings in TOML, of which [data] and the rows of [model] count; flags override them
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How categories become rows
    #[arg(long, value_name = "dictionary|modulo|direct", value_parser = choice::<Ids>)]
    pub ids: Option<Ids>,
    /// Rows of every table with --ids modulo
    #[arg(long, value_name = "N")]
    pub modulo: Option<u64>,
    /// No table gets more rows than this
    #[arg(long, value_name = "N")]
    pub max_rows: Option<u64>,
    /// With --ids modulo, the rows of tables: kaggle, terabyte or mlperf
    #[arg(long, value_name = "NAME", value_parser = choice::<Preset>)]
    pub preset: Option<Preset>,
    /// Fractions of train, validation and test, in file order [default: 0.8,0.1,0.1]
    #[arg(long, value_name = "A,B,C", value_parser = split)]
    pub split: Option<[f64; 3]>,
    /// What a malformed line does: stop, or be left out and counted
    #[arg(long, value_name = "error|skip", value_parser = choice::<OnBadRow>)]
    pub on_bad_row: Option<OnBadRow>,
    /// Begin anew, whatever an earlier attempt left
    #[arg(long)]
    pub restart: bool,
    /// The result as JSON on standard output
    #[arg(long)]
    pub json: bool,
}

fn split(text: &str) -> Result<[f64; 3], String> {
    let parts: Vec<f64> =
        text.split(',').map(|part| part.trim().parse().map_err(|_| format!("`{part}` is not a number"))).collect::<Result<_, _>>()?;
    parts.try_into().map_err(|parts: Vec<f64>| format!("{} numbers were given; three are needed, as in 0.8,0.1,0.1", parts.len()))
}

/// What was made, or checked.
#[derive(Debug, Serialize)]
struct Report {
    dir: PathBuf,
    rows: u64,
    train: u64,
    validation: u64,
    test: u64,
    skipped_rows: u64,
    bytes: u64,
    /// Rows of each table.
    tables: Vec<u64>,
    /// Distinct categories of each table in all rows.
    distinct: Vec<u64>,
    seconds: f64,
    /// Megabytes of input (or, with --verify, of the folder) a second.
    megabytes_per_second: f64,
}

impl Report {
    fn new(prepared: &Prepared, read: u64, seconds: f64) -> Report {
        let parts = prepared.parts();
        let len = |range: std::ops::Range<u64>| range.end - range.start;
        Report {
            dir: prepared.path().into(),
            rows: prepared.len(),
            train: len(parts.train),
            validation: len(parts.validation),
            test: len(parts.test),
            skipped_rows: prepared.skipped(),
            bytes: prepared.bytes(),
            tables: prepared.rows().to_vec(),
            distinct: prepared.distinct().to_vec(),
            seconds,
            megabytes_per_second: read as f64 / 1e6 / seconds.max(1e-9),
        }
    }

    fn text(&self, done: &str) -> String {
        let mut text = format!("{done}   {}\n", self.dir.display());
        let skipped =
            if self.skipped_rows > 0 { format!(", {} malformed lines left out", grouped(self.skipped_rows)) } else { String::new() };
        let _ = writeln!(
            text,
            "rows       {} ({} train, {} validation, {} test){skipped}",
            grouped(self.rows),
            grouped(self.train),
            grouped(self.validation),
            grouped(self.test)
        );
        let total = |values: &[u64]| grouped(values.iter().sum());
        let _ = writeln!(
            text,
            "tables     {} with {} rows, {} categories in all data",
            self.tables.len(),
            total(&self.tables),
            total(&self.distinct)
        );
        let _ =
            writeln!(text, "size       {} bytes, {:.0} MB/s, {}", grouped(self.bytes), self.megabytes_per_second, duration(self.seconds));
        text
    }
}

impl PrepareArgs {
    fn settings(&self) -> Result<Config> {
        let mut c = self.config.as_ref().map_or_else(|| Ok(Config::default()), |path| config_file::read(path))?;
        c.data.files.clone_from(&self.raw);
        c.data.ids = self.ids.unwrap_or(c.data.ids);
        c.data.modulo = self.modulo.or(c.data.modulo);
        c.data.split = self.split.unwrap_or(c.data.split);
        c.data.on_bad_row = self.on_bad_row.unwrap_or(c.data.on_bad_row);
        c.model.preset = self.preset.unwrap_or(c.model.preset);
        c.model.max_rows = self.max_rows.or(c.model.max_rows);
        c.validate()?;
        train::resolve(&c)
    }
}

/// A bar on a terminal, a line every few seconds elsewhere.
struct Meter {
    bar: ProgressBar,
    terminal: bool,
    start: Instant,
    said: Instant,
    /// Bytes done before this attempt, and by it.
    first: Option<u64>,
    done: u64,
}

impl Meter {
    fn new() -> Meter {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent}%  {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Meter { bar, terminal, start: Instant::now(), said: Instant::now(), first: None, done: 0 }
    }

    fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    fn at(&mut self, done: u64, total: u64, rows: Option<u64>) {
        let first = *self.first.get_or_insert(done);
        self.done = done.saturating_sub(first);
        let rate = self.done as f64 / self.seconds().max(1e-9);
        let left = duration(total.saturating_sub(done) as f64 / rate.max(1.0));
        let rows = rows.map_or(String::new(), |rows| format!("{} rows, ", grouped(rows)));
        let text = format!("{rows}{:.0} MB/s, {left} left", rate / 1e6);
        self.bar.set_length(total.max(1));
        self.bar.set_position(done);
        self.bar.set_message(text.clone());
        if !self.terminal && self.said.elapsed() >= EVERY {
            self.said = Instant::now();
            note(&format!("{:.0} %  {text}", 100.0 * done as f64 / total.max(1) as f64));
        }
    }
}

/// Prepares, or verifies.
pub(super) fn run(args: &PrepareArgs) -> Result<()> {
    if let Some(path) = &args.verify {
        return verify(args, path);
    }
    let Some(out) = &args.out else { return Err(Error::Config("--out names the folder to make".into())) };
    let config = args.settings()?;
    stop::listen()?;
    let mut meter = Meter::new();
    let mut watch = |done: u64, total: u64, rows: u64| meter.at(done, total, Some(rows));
    let making = Making { stop: Some(&stop::STOP), restart: args.restart, mark_every: None, watch: &mut watch };
    stop::SAVES.store(true, std::sync::atomic::Ordering::SeqCst);
    let made = train::prepare(&config, out, making);
    meter.bar.finish_and_clear();
    let prepared = made.map_err(|error| match error {
        Error::Interrupted(text) => Error::Interrupted(format!("{text}; the same command goes on from here")),
        error => error,
    })?;
    for message in prepared.messages() {
        note(&format!("warning: left out: {message}"));
    }
    say(args, &Report::new(&prepared, meter.done, meter.seconds()), "prepared")
}

fn verify(args: &PrepareArgs, path: &std::path::Path) -> Result<()> {
    let meter = Mutex::new(Meter::new());
    let prepared = dataset::open_folder(path)?;
    prepared.verify(&|done, total| {
        if let Ok(mut meter) = meter.lock() {
            meter.at(done, total, None);
        }
    })?;
    let seconds = meter.into_inner().map_or(0.0, |meter| {
        meter.bar.finish_and_clear();
        meter.seconds()
    });
    say(args, &Report::new(&prepared, prepared.bytes(), seconds), "verified")
}

fn say(args: &PrepareArgs, report: &Report, done: &str) -> Result<()> {
    if args.json { print_json(report) } else { print(&report.text(done)) }
}
