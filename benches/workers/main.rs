//! What workers cost and what they give, on clicks in Criteo's layout: bytes, time and quality of the ways to exchange
//! gradients. Kaggle preset, ids from the file's dictionary, INT4 weights, SGD. Prints Markdown; progress goes to
//! standard error. The tables are those of arXiv 2410.20046: 4 (bytes, time, quality), 6 (which gradients are
//! quantized), 10 (2, 4, 8 workers).
//!
//! ```text
//! cargo bench --bench workers -- train.tsv.gz [--table 4|6|10|all] [--epochs N] [--seeds 0,1,2] [--steps N] [--rounds N]
//!                                [--batch B] [--workers N] [--lr X] [--lr-rule none|linear|sqrt]
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

#[path = "../common/mod.rs"]
mod common;

mod cost;
mod estimate;
mod quality;
mod runs;

use clap::Parser;
use dqrm::config::LrRule;
use runs::Runs;

/// Measures workers that train the Kaggle model together.
#[derive(Parser, Debug, Clone)]
struct Args {
    /// Clicks in Criteo's layout, in time order.
    files: Vec<String>,
    /// Which table.
    #[arg(long, default_value = "all", value_parser = ["4", "6", "10", "all"])]
    table: String,
    /// Passes over the training part where quality is measured; 0 leaves it out.
    #[arg(long, default_value_t = 3)]
    epochs: u64,
    /// Seeds of the weights and the order.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1, 2])]
    seeds: Vec<u64>,
    /// Steps of each timing; 0 leaves time and bytes out.
    #[arg(long, default_value_t = 300)]
    steps: u64,
    /// Timings of each kind, taken in turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Samples of a worker's step.
    #[arg(long, default_value_t = 128)]
    batch: usize,
    /// Workers of tables 4 and 6; table 10 shares their samples among 2, 4 and 8.
    #[arg(long, default_value_t = 4)]
    workers: usize,
    /// Learning rate of plain SGD.
    #[arg(long, default_value_t = 1.0)]
    lr: f64,
    /// What the learning rate is multiplied with: none (1), linear (the workers) or sqrt (their root).
    #[arg(long, default_value = "none", value_parser = rule)]
    lr_rule: LrRule,
    /// Device.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Cargo passes this.
    #[arg(long, hide = true)]
    bench: bool,
}

fn rule(text: &str) -> Result<LrRule, String> {
    match text {
        "none" => Ok(LrRule::None),
        "linear" => Ok(LrRule::Linear),
        "sqrt" => Ok(LrRule::Sqrt),
        _ => Err("use none, linear or sqrt".into()),
    }
}

/// Says what is measured, and with which command.
fn print_head(args: &Args, runs: &Runs) {
    let (shape, parts) = (&runs.data.shape, &runs.data.parts);
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    println!("```sh\ncargo bench --bench workers -- {}\n```\n", words.join(" "));
    println!(
        "Kaggle preset on {} training samples ({} rows in {} tables, {} MLP parameters), INT4 weights with P = 200, SGD with learning \
         rate {} times {}, device {}, {} threads.",
        parts.train.end - parts.train.start,
        shape.rows.iter().sum::<u64>(),
        shape.tables(),
        shape.mlp_parameters(),
        args.lr,
        match args.lr_rule {
            LrRule::None => "1 (lr_rule none)",
            LrRule::Linear => "the workers (lr_rule linear)",
            LrRule::Sqrt => "the root of the workers (lr_rule sqrt)",
        },
        args.device,
        rayon::current_num_threads()
    );
}

fn measure(args: Args) -> dqrm::Result<()> {
    let wanted = |table: &str| args.table == "all" || args.table == table;
    let global = args.workers * args.batch;
    if wanted("10") && !global.is_multiple_of(8) {
        let text =
            format!("table 10 shares {global} samples of a step among 2, 4 and 8 workers; make --workers times --batch a multiple of 8");
        return Err(dqrm::Error::Config(text));
    }
    let mut runs = Runs::new(args.clone())?;
    estimate::print(&mut runs)?;
    print_head(&args, &runs);
    if wanted("4") {
        if args.steps > 0 && args.rounds > 0 {
            cost::print(&runs)?;
        }
        if args.epochs > 0 {
            quality::print_4(&mut runs)?;
        }
    }
    if wanted("6") && args.epochs > 0 {
        quality::print_6(&mut runs)?;
    }
    if wanted("10") && args.epochs > 0 {
        quality::print_10(&mut runs)?;
    }
    Ok(())
}

fn main() {
    let args = Args::parse();
    if args.files.is_empty() {
        println!("skipped: no data file given; cargo bench --bench workers -- train.tsv.gz");
        return;
    }
    if let Err(error) = measure(args) {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
