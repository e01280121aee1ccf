//! `dqrm comm`.

use super::live::{Live, grouped};
use super::options::{TrainArgs, choice};
use super::{print, print_json};
use crate::config::{Config, Ids, OnBadRow, Preset};
use crate::dist::transport::network::Network;
use crate::error::Result;
use crate::train::{self, Comm, Event, MAX_PLAYED, Scheme};
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  dqrm comm                                                four workers, tiny model
  dqrm comm --preset kaggle --batch 128 --workers 4
  dqrm comm --preset kaggle --workers 16 --network 1Gbps,0.2ms
  dqrm comm --preset kaggle --data day_0.gz day_1.gz       the rows of real clicks
  dqrm comm my.toml --json

Batches are made as in training and their rows go through the real exchange, but nothing is trained and no table is
allocated. So it works for models that do not fit this computer.";

/// Workers where nothing says how many.
const WORKERS: usize = 4;

/// Settings of `dqrm comm`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct CommArgs {
    /// Settings in TOML; flags override them
    pub config: Option<PathBuf>,

    /// Workers that train together, 1 to 64 [default: the file's, else 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_PLAYED as u64))]
    pub workers: Option<u64>,
    /// Samples of a step at each worker [default: the file's, else 128]
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Steps to take the mean of
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub steps: u64,
    /// Times on links of this rate and latency, such as 1Gbps,0.2ms
    #[arg(long, value_name = "RATE[,LATENCY]", value_parser = network)]
    pub network: Option<Network>,
    /// Seed of the synthetic clicks and the order of the samples
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub seed: Option<u64>,
    /// The result as JSON on standard output
    #[arg(long)]
    pub json: bool,

    /// tiny, kaggle, terabyte or mlperf
    #[arg(long, value_name = "NAME", value_parser = choice::<Preset>, help_heading = "Model")]
    pub preset: Option<Preset>,
    /// No table gets more rows than this
    #[arg(long, value_name = "N", help_heading = "Model")]
    pub max_rows: Option<u64>,

    /// Files in time order, plain or .gz (Criteo TSV unless the TOML has a schema) [default: synthetic clicks]
    #[arg(long, value_name = "FILE", num_args = 1.., help_heading = "Data")]
    pub data: Vec<String>,
    /// How categories become rows
    #[arg(long, value_name = "dictionary|modulo|direct", value_parser = choice::<Ids>, help_heading = "Data")]
    pub ids: Option<Ids>,
    /// Rows of every table with --ids modulo
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub modulo: Option<u64>,
    /// What a malformed line does: stop, or be left out and counted
    #[arg(long, value_name = "error|skip", value_parser = choice::<OnBadRow>, help_heading = "Data")]
    pub on_bad_row: Option<OnBadRow>,
    /// Synthetic clicks to make, before the split
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub samples: Option<u64>,
}

fn network(text: &str) -> Result<Network, String> {
    text.parse()
}

impl CommArgs {
    /// The settings of the training that this is about.
    fn settings(&self) -> Result<Config> {
        let args = TrainArgs {
            config: self.config.clone(),
            batch: self.batch,
            seed: self.seed,
            preset: self.preset,
            max_rows: self.max_rows,
            data: self.data.clone(),
            ids: self.ids,
            modulo: self.modulo,
            on_bad_row: self.on_bad_row,
            samples: self.samples,
            ..TrainArgs::default()
        };
        let mut config = args.config()?;
        match self.workers {
            Some(n) => config.workers.count = n as usize,
            None if !config.workers.on() => config.workers.count = WORKERS,
            None => {}
        }
        Ok(config)
    }
}

/// Samples batches and prints what workers would send of them.
pub(super) fn run(args: &CommArgs) -> Result<()> {
    let mut live = Live::new();
    let config = args.settings()?;
    let comm = train::comm(&config, args.steps, args.network, &mut |what, done, total| live.event(&Event::Preparing { what, done, total }));
    live.end();
    let comm = comm?;
    if args.json { print_json(&comm) } else { print(&describe(&comm)) }
}

fn describe(c: &Comm) -> String {
    let mut text = format!(
        "model      {} tables, {} rows of width {}, {} parameters of MLPs\n",
        c.tables,
        grouped(c.rows),
        c.dim,
        grouped(c.mlp_parameters)
    );
    let workers = if c.workers == 1 { "1 worker".into() } else { format!("{} workers", c.workers) };
    let steps = if c.steps == 1 { "one step".into() } else { format!("the mean of {} steps", c.steps) };
    text += &format!("step       {workers} with {} samples each, {steps}\n", grouped(c.batch as u64));
    text += &format!(
        "rows       {} of one worker, {} of all together ({:.3} of their sum)\n\n",
        grouped(c.worker_rows),
        grouped(c.union_rows),
        c.ratio
    );
    let mut head = vec!["gradient of one worker", "embeddings", "MLPs", "ids", "scales", "framing", "total", "factor", "sent", "received"];
    if c.network.is_some() {
        head.push("ms");
    }
    let head: Vec<String> = head.into_iter().map(String::from).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(c.schemes.iter().map(cells)).collect();
    text += &aligned(&rows);
    text += "\nfactor: all parameters in FP32 over the total. sent, received: what crosses one worker's link, sums included.\n";
    text += "The first two lines are computed, the MLPs (and in the first line everything) summed in a ring.\n";
    if let Some(network) = &c.network {
        text += &format!(
            "ms: the busiest worker's link at {network}, its bytes one way and the latency twice; nothing overlaps with computing.\n"
        );
    }
    text
}

fn cells(s: &Scheme) -> Vec<String> {
    let g = &s.gradient;
    let bytes = [g.embeddings, g.mlps, g.ids, g.scales, g.framing, s.total].map(size);
    let factor = if s.factor < 100.0 { format!("{:.1}", s.factor) } else { grouped(s.factor.round() as u64) };
    let ms = s.milliseconds.map(|ms| if ms < 100.0 { format!("{ms:.2}") } else { grouped(ms.round() as u64) });
    [s.name.clone()].into_iter().chain(bytes).chain([factor, size(s.sent), size(s.received)]).chain(ms).collect()
}

/// Columns as wide as they must be, the first one left, numbers right.
pub(super) fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (i, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            line += &if i == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Bytes for people, three digits or more: "0", "640 B", "61.2 kB", "2.16 GB".
pub(super) fn size(bytes: u64) -> String {
    let scaled = |unit: f64, name: &str| {
        let value = bytes as f64 / unit;
        let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
        format!("{value:.digits$} {name}")
    };
    match bytes {
        0 => "0".into(),
        1..1_000 => format!("{bytes} B"),
        1_000..999_500 => scaled(1e3, "kB"),
        999_500..999_500_000 => scaled(1e6, "MB"),
        _ => scaled(1e9, "GB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::GradientBytes;

    fn comm(network: Option<&str>) -> Comm {
        let scheme = |name: &str, total: u64| Scheme {
            name: name.into(),
            counted: true,
            gradient: GradientBytes { embeddings: total - 10, ids: 10, ..GradientBytes::default() },
            total,
            factor: 2e6 / total as f64,
            sent: 3 * total,
            received: 3 * total,
            busiest: 3 * total,
            milliseconds: network.map(|_| 1.5),
        };
        let schemes = vec![scheme("wide", 2_000_000), scheme("a longer name", 999)];
        Comm {
            workers: 4,
            batch: 2048,
            steps: 8,
            tables: 3,
            rows: 1_234_567,
            dim: 4,
            mlp_parameters: 1000,
            ids: 6144,
            worker_rows: 1500,
            union_rows: 4500,
            ratio: 0.75,
            network: network.map(String::from),
            schemes,
        }
    }

    #[test]
    fn columns_are_aligned() {
        let text = describe(&comm(Some("1Gbps,0.2ms")));
        let table: Vec<&str> = text.lines().skip_while(|l| !l.starts_with("gradient of")).take(3).collect();
        assert_eq!(table[0], "gradient of one worker  embeddings  MLPs   ids  scales  framing    total  factor     sent  received    ms");
        assert_eq!(table[1], "wide                       2.00 MB     0  10 B       0        0  2.00 MB     1.0  6.00 MB   6.00 MB  1.50");
        assert_eq!(table[2], "a longer name                989 B     0  10 B       0        0    999 B   2,002  3.00 kB   3.00 kB  1.50");
        assert!(text.contains("rows       1,500 of one worker, 4,500 of all together (0.750 of their sum)"), "{text}");
        assert!(text.contains("nothing overlaps with computing"), "{text}");
        let text = describe(&comm(None));
        assert!(!text.contains(" ms") && !text.contains("overlaps"), "{text}");
    }

    #[test]
    fn bytes_have_three_digits() {
        let found = [0, 7, 999, 1_000, 9_994, 9_996, 61_249, 99_960, 999_499, 999_500, 2_162_708_868].map(size);
        let wanted = ["0", "7 B", "999 B", "1.00 kB", "9.99 kB", "10.0 kB", "61.2 kB", "100 kB", "999 kB", "1.00 MB", "2.16 GB"];
        assert_eq!(found, wanted);
    }
}
