//! The ways to quantize side by side: the Kaggle model on clicks in Criteo's layout, one run for each row of a
//! Markdown table. Test figures stand for the weights at the end of the run and for those with the best
//! validation AUC.
//!
//! `cargo bench --bench methods -- train.tsv.gz --epochs 3`
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use clap::Parser;
use dqrm::config::{Config, Device, Format, Method, Preset, ScalePer};
use dqrm::quant::Bits;
use dqrm::train::{self, Evaluation, Options, Outcome, Ranks, Start};
use std::sync::atomic::AtomicBool;

/// Trains the Kaggle model with each method, on the same data with the same seed.
#[derive(Parser)]
struct Args {
    /// Clicks in Criteo's layout, in time order.
    files: Vec<String>,
    /// Passes over the training part.
    #[arg(long, default_value_t = 3)]
    epochs: u64,
    /// Learning rate of plain SGD.
    #[arg(long, default_value_t = 1.0)]
    lr: f64,
    /// Samples per step.
    #[arg(long, default_value_t = 128)]
    batch: usize,
    /// Bits of embeddings and MLPs.
    #[arg(long, default_value = "4")]
    bits: String,
    /// Seed of the weights and the order.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Device.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Only rows whose method is one of these (fp32, ptq, lsq, pact, hawq, dqrm).
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Cargo passes this.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One row of the table.
struct Row {
    /// None is FP32.
    method: Option<Method>,
    mlp_bits: Bits,
    scale: ScalePer,
}

impl Row {
    fn method(&self) -> String {
        self.method.map_or("fp32".into(), |m| m.to_string())
    }

    fn mlp(&self) -> String {
        match (self.mlp_bits.quantized(), self.scale) {
            (false, _) => "FP32".into(),
            (true, ScalePer::Channel) if self.method != Some(Method::Pact) => format!("{}, channel", self.mlp_bits),
            _ => format!("{}, matrix", self.mlp_bits),
        }
    }
}

fn rows(bits: Bits) -> Vec<Row> {
    let mut rows = vec![Row { method: None, mlp_bits: Bits::None, scale: ScalePer::Channel }];
    for method in [Method::Ptq, Method::Lsq, Method::Pact, Method::Hawq, Method::Dqrm] {
        let row = |mlp_bits, scale| Row { method: Some(method), mlp_bits, scale };
        rows.extend([row(Bits::None, ScalePer::Channel), row(bits, ScalePer::Matrix)]);
        if method != Method::Pact {
            rows.push(row(bits, ScalePer::Channel)); // pact has one scale per matrix only
        }
    }
    rows
}

fn run(args: &Args, bits: Bits, row: &Row) -> dqrm::Result<Outcome> {
    let folder = tempfile::tempdir().map_err(dqrm::Error::io("create", "a temporary folder"))?;
    let mut config = Config { seed: args.seed, device: Device::from(args.device.clone()), ..Config::default() };
    config.model.preset = Preset::Kaggle;
    config.data.files = args.files.clone();
    config.data.format = Format::Criteo;
    config.data.cache = std::env::temp_dir().join("dqrm-methods").to_string_lossy().into_owned();
    config.quant.method = row.method.unwrap_or_default();
    config.quant.embedding_bits = if row.method.is_some() { bits } else { Bits::None };
    config.quant.mlp_bits = row.mlp_bits;
    config.quant.mlp_scale = row.scale;
    config.optim.lr = args.lr;
    config.train.batch = args.batch;
    config.train.epochs = args.epochs;
    let options = Options {
        dir: folder.path().join("run"),
        start: Start::Fresh,
        stop: &AtomicBool::new(false),
        ranks: Ranks::Alone,
        profile: 0,
        tuning: Default::default(),
    };
    train::run(&config, options, &mut |_| ())
}

/// AUC, accuracy and log loss.
fn cells(evaluation: Option<&Evaluation>) -> String {
    evaluation.map_or("- | - | -".into(), |e| {
        let s = &e.summary;
        format!("{:.4} | {:.2} % | {:.4}", s.auc.unwrap_or(f64::NAN), 100.0 * s.accuracy, s.log_loss)
    })
}

fn main() -> dqrm::Result<()> {
    let args = Args::parse();
    if args.files.is_empty() {
        println!("skipped: no data file given; cargo bench --bench methods -- train.tsv.gz");
        return Ok(());
    }
    let bits: Bits = args.bits.parse()?;
    println!(
        "| method | MLP | AUC, end | accuracy | log loss | AUC, best validation | accuracy | log loss | after epoch | bytes | ms per step |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for row in rows(bits).iter().filter(|row| args.only.is_empty() || args.only.contains(&row.method())) {
        let head = format!("| {} | {} |", row.method(), row.mlp());
        match run(&args, bits, row) {
            Ok(o) => println!(
                "{head} {} | {} | {} | {} | {:.2} |",
                cells(o.end.as_ref()),
                cells(o.best.as_ref()),
                o.best.as_ref().map_or("-".into(), |b| format!("{:.0}", b.epoch)),
                o.packed_bytes,
                1e3 * args.batch as f64 / o.samples_per_second
            ),
            Err(error @ dqrm::Error::NotFinite { .. }) => println!("{head} did not converge: {error} |"),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
