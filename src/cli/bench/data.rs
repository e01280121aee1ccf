//! `dqrm bench data`.

use super::{Effort, head, sizes, spread, write};
use crate::bench::Machine;
use crate::bench::data::{DataReport, Load, PartsReport};
use crate::cli::comm::aligned;
use crate::cli::live::{Live, grouped};
use crate::cli::options::choice;
use crate::cli::print;
use crate::config::{Config, Data, Format, Ids, Preset, Schema};
use crate::data::{dataset, synthetic};
use crate::error::{Error, Result};
use crate::session::DeviceInfo;
use crate::train::{self, Event, Preparing};
use clap::Args;
use std::path::Path;
use std::time::Instant;

/// Lines of text that are made up at once.
const PIECE: u64 = 20_000;

/// Settings of `dqrm bench data`.
#[derive(Debug, Clone, Args)]
pub struct DataArgs {
    /// Files in time order, plain or .gz, or a folder from `dqrm prepare` [default: text that is made up]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub data: Vec<String>,
    /// How categories become rows
    #[arg(long, value_name = "dictionary|modulo|direct", value_parser = choice::<Ids>)]
    pub ids: Option<Ids>,
    /// Rows of every table with --ids modulo
    #[arg(long, value_name = "N")]
    pub modulo: Option<u64>,
    /// Lines to make up without --data: a label, 13 counts and 26 categories each
    #[arg(long, value_name = "N", default_value_t = 400_000, value_parser = clap::value_parser!(u64).range(1000..=100_000_000))]
    pub lines: u64,
    /// tiny, kaggle, terabyte or mlperf: instead of files, clicks with such tables that are made up while they are loaded
    #[arg(long, value_name = "NAME", value_parser = choice::<Preset>, conflicts_with_all = ["data", "lines"])]
    pub preset: Option<Preset>,
    /// Samples of a batch, one or several numbers
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [2048])]
    pub batch: Vec<usize>,
    /// Loader threads, one or several numbers
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 2])]
    pub threads: Vec<usize>,
    /// How long, and where to
    #[command(flatten)]
    pub effort: Effort,
}

/// Figures of `dqrm bench data`.
#[derive(serde::Serialize)]
struct Figures {
    machine: Machine,
    source: String,
    samples: u64,
    tables: usize,
    seconds: f64,
    prepared: Option<Making>,
    opened_seconds: f64,
    parts: Vec<PartsReport>,
    rates: Vec<DataReport>,
}

/// How long it took to prepare text that was made up.
#[derive(serde::Serialize)]
struct Making {
    text_bytes: u64,
    seconds: f64,
}

/// Makes text up in `folder` and prepares it there; gives the prepared folder.
fn made_up(folder: &Path, args: &DataArgs, preparing: &mut Preparing<'_>) -> Result<(String, Making)> {
    let (text, out) = (folder.join("text.tsv"), folder.join("prepared"));
    let mut file = std::fs::File::create(&text).map_err(Error::io("create", &text))?;
    for first in (0..args.lines).step_by(PIECE as usize) {
        preparing("made-up text", first, args.lines);
        let lines = synthetic::criteo_text(1, first..args.lines.min(first + PIECE));
        std::io::Write::write_all(&mut file, &lines).map_err(Error::io("write", &text))?;
    }
    let text_bytes = file.metadata().map_err(Error::io("read", &text))?.len();
    let data =
        Data { files: vec![text.display().to_string()], format: Format::Criteo, ids: args.ids.unwrap_or_default(), ..Data::default() };
    let schema = Schema::criteo(13, 26);
    let moduli = args.modulo.map(|rows| vec![rows; schema.tables()]);
    let start = Instant::now();
    let mut watch = |done, total, _| preparing("data", done, total);
    let making = dataset::Making { stop: None, restart: false, mark_every: None, watch: &mut watch };
    dataset::to_folder(&data, &schema, moduli.as_deref(), None, &out, making)?;
    let seconds = start.elapsed().as_secs_f64();
    std::fs::remove_file(&text).map_err(Error::io("remove", &text))?;
    Ok((out.display().to_string(), Making { text_bytes, seconds }))
}

/// Measures, prints a table and writes the figures.
pub(super) fn run(args: &DataArgs) -> Result<()> {
    sizes("batch", &args.batch)?;
    sizes("threads", &args.threads)?;
    let mut live = Live::new();
    let figures = figures(args, &mut |what, done, total| live.event(&Event::Preparing { what, done, total }));
    live.end();
    let figures = figures?;
    print(&text(&figures))?;
    write(args.effort.json.as_deref(), &figures)
}

fn figures(args: &DataArgs, preparing: &mut Preparing<'_>) -> Result<Figures> {
    let place = tempfile::tempdir().map_err(Error::io("create", "a temporary folder"))?;
    let (mut config, mut prepared) = (Config::default(), None);
    let source = match (args.preset, &args.data[..]) {
        (Some(preset), _) => {
            config.model.preset = preset;
            "synthetic clicks, made while they are loaded".into()
        }
        (None, []) => {
            let (folder, making) = made_up(place.path(), args, preparing)?;
            config.data.files = vec![folder];
            prepared = Some(making);
            "made-up text, prepared".into()
        }
        (None, files) => {
            config.data = Data { files: files.to_vec(), ids: args.ids.unwrap_or_default(), modulo: args.modulo, ..config.data };
            files.join(", ")
        }
    };
    let config = train::resolve(&config)?;
    config.validate()?;
    let start = Instant::now();
    let found = train::assemble(&config, preparing)?;
    let opened_seconds = start.elapsed().as_secs_f64();
    let (mut rates, mut parts) = (Vec::new(), Vec::new());
    let all = 2 * (args.batch.len() * (args.threads.len() + 1)) as u64;
    for &batch in &args.batch {
        let (rounds, seconds) = (args.effort.rounds as usize, args.effort.seconds);
        let load = Load { range: found.parts.train.clone(), dim: found.shape.dim, batch, rounds, seconds };
        for shuffled in [false, true] {
            preparing("rates", (rates.len() + parts.len()) as u64, all);
            parts.push(load.parts(&*found.samples, shuffled)?);
            for &threads in &args.threads {
                preparing("rates", (rates.len() + parts.len()) as u64, all);
                rates.push(load.measure(&found.samples, threads, shuffled)?);
            }
        }
    }
    let device = DeviceInfo { engine: "cpu", name: "loader threads".into(), reason: String::new() };
    let (samples, tables) = (found.samples.len(), found.shape.tables());
    Ok(Figures {
        machine: Machine::now(&device),
        source,
        samples,
        tables,
        seconds: args.effort.seconds,
        prepared,
        opened_seconds,
        parts,
        rates,
    })
}

fn text(f: &Figures) -> String {
    let mut text = head(&f.machine);
    text += &format!("{}, {} samples, {} tables; ready after {:.2} s\n", f.source, grouped(f.samples), f.tables, f.opened_seconds);
    if let Some(Making { text_bytes, seconds }) = f.prepared {
        let megabytes = text_bytes as f64 / 1e6;
        text += &format!("{megabytes:.0} MB of text prepared in {seconds:.2} s, {:.0} MB/s\n", megabytes / seconds.max(1e-9));
    }
    let order = |shuffled| if shuffled { "shuffled" } else { "in order" };
    let mut rows = vec![["batch", "order", "what", "samples/s", "least", "most", "ids/s"].map(String::from).to_vec()];
    let mut line = |batch: usize, shuffled: bool, what: String, rate: &crate::bench::Spread, ids: String| {
        let [median, min, max] = spread(rate);
        rows.push(vec![batch.to_string(), order(shuffled).into(), what, median, min, max, ids]);
    };
    for p in &f.parts {
        line(p.batch, p.shuffled, "read alone".into(), &p.read, String::new());
        line(p.batch, p.shuffled, "ids listed alone".into(), &p.listed, String::new());
        for r in f.rates.iter().filter(|r| (r.batch, r.shuffled) == (p.batch, p.shuffled)) {
            let threads = if r.threads == 1 { "1 thread".into() } else { format!("{} threads", r.threads) };
            line(r.batch, r.shuffled, threads, &r.samples_per_second, grouped(r.ids_per_second as u64));
        }
    }
    text + "\n"
        + &aligned(&rows)
        + "\nread alone: records found, read and decoded by one thread. ids listed alone: sorted by one thread, each row once, with\nits samples. threads: both, by loader threads.\n"
}
