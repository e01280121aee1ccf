//! Validation AUC by epoch, FP32 against a quantized model, over several seeds: does the coarse
//! model resist overfitting? Prints a table and, if asked, draws it.
//!
//! `cargo bench --bench overfit -- train.tsv.gz --epochs 6 --seeds 0,1,2 --svg docs/auc.svg`
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use clap::Parser;
use dqrm::config::{Config, Device, Format, Preset};
use dqrm::quant::Bits;
use dqrm::train::{self, Event, Options, Ranks, Start};
use plotters::prelude::*;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// Trains the Kaggle model in FP32 and quantized, with the same data and seeds.
#[derive(Parser)]
struct Args {
    /// Clicks in Criteo's layout, in time order.
    files: Vec<String>,
    /// Passes over the training part.
    #[arg(long, default_value_t = 6)]
    epochs: u64,
    /// Seeds.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1, 2])]
    seeds: Vec<u64>,
    /// Learning rate of plain SGD.
    #[arg(long, default_value_t = 1.0)]
    lr: f64,
    /// Bits of embeddings and MLPs of the quantized model.
    #[arg(long, default_value = "4")]
    bits: String,
    /// Device.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Draw the curves here.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Cargo passes this.
    #[arg(long, hide = true)]
    bench: bool,
}

/// AUC and training loss after each epoch.
type Curve = Vec<f64>;

fn curve(args: &Args, bits: Bits, seed: u64) -> dqrm::Result<Curve> {
    let folder = tempfile::tempdir().map_err(dqrm::Error::io("create", "a temporary folder"))?;
    let mut config = Config { seed, device: Device::from(args.device.clone()), ..Config::default() };
    config.model.preset = Preset::Kaggle;
    config.data.files = args.files.clone();
    config.data.format = Format::Criteo;
    config.data.cache = std::env::temp_dir().join("dqrm-overfit").to_string_lossy().into_owned();
    config.quant.embedding_bits = bits;
    config.quant.mlp_bits = bits;
    config.optim.lr = args.lr;
    config.train.epochs = args.epochs;
    let mut aucs = Vec::new();
    let options = Options {
        dir: folder.path().join("run"),
        start: Start::Fresh,
        stop: &AtomicBool::new(false),
        ranks: Ranks::Alone,
        profile: 0,
        tuning: Default::default(),
    };
    train::run(&config, options, &mut |event| {
        if let Event::Evaluated(e) = event
            && e.part == "validation"
        {
            aucs.push(e.summary.auc.unwrap_or(f64::NAN));
        }
    })?;
    Ok(aucs)
}

fn mean(curves: &[Curve]) -> Curve {
    (0..curves[0].len()).map(|e| curves.iter().map(|c| c[e]).sum::<f64>() / curves.len() as f64).collect()
}

fn print_row(name: &str, seed: &str, curve: &Curve) {
    let cells: Vec<String> = curve.iter().map(|a| format!("{a:.4}")).collect();
    println!("| {name} | {seed} | {} |", cells.join(" | "));
}

fn draw(path: &PathBuf, all: &[(Bits, Vec<Curve>)]) -> Result<(), Box<dyn std::error::Error>> {
    let flat = || all.iter().flat_map(|(_, curves)| curves.iter().flatten().copied());
    let (low, high) = (flat().fold(1.0, f64::min) - 0.005, flat().fold(0.0, f64::max) + 0.005);
    let epochs = all[0].1[0].len();
    let root = SVGBackend::new(path, (760, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("Validation AUC by epoch", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(1.0..epochs as f64, low..high)?;
    chart
        .configure_mesh()
        .x_desc("epoch")
        .y_desc("AUC")
        .x_labels(epochs)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .light_line_style(WHITE)
        .draw()?;
    for ((bits, curves), colour) in all.iter().zip([RGBColor(200, 80, 40), RGBColor(20, 100, 170)]) {
        let points = |c: &Curve| c.iter().enumerate().map(|(e, a)| (e as f64 + 1.0, *a)).collect::<Vec<_>>();
        for c in curves {
            chart.draw_series(LineSeries::new(points(c), colour.mix(0.3)))?;
        }
        chart
            .draw_series(LineSeries::new(points(&mean(curves)), colour.stroke_width(3)))?
            .label(format!("{bits}, mean of {} seeds", curves.len()))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(3)));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::LowerLeft).background_style(WHITE).border_style(BLACK.mix(0.3)).draw()?;
    root.present()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    if args.files.is_empty() {
        println!("skipped: no data file given; cargo bench --bench overfit -- train.tsv.gz");
        return Ok(());
    }
    let quantized: Bits = args.bits.parse()?;
    let header: Vec<String> = (1..=args.epochs).map(|e| e.to_string()).collect();
    println!("| weights | seed | {} |\n|---|---|{}", header.join(" | "), "---|".repeat(header.len()));
    let mut all = vec![(Bits::None, Vec::new()), (quantized, Vec::new())];
    for &seed in &args.seeds {
        for (bits, curves) in &mut all {
            let curve = curve(&args, *bits, seed)?;
            print_row(&bits.to_string(), &seed.to_string(), &curve);
            curves.push(curve);
        }
    }
    for (bits, curves) in &all {
        print_row(&bits.to_string(), "mean", &mean(curves));
    }
    if let Some(path) = &args.svg {
        draw(path, &all)?;
        println!("drawn: {}", path.display());
    }
    Ok(())
}
