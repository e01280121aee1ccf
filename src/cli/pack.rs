//! `dqrm pack`.

use super::eval::CheckpointArgs;
use super::live::{Live, grouped};
use super::options::bits;
use super::{note, print, print_json};
use crate::error::Result;
use crate::quant::Bits;
use crate::train::{self, Event, PackOptions, Packing};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  dqrm pack runs/mine                              runs/mine/model.safetensors and its card, model.md
  dqrm pack runs/mine --out int4.safetensors
  dqrm pack runs/fp32 --ptq --bits 8               a run that was trained in FP32
  dqrm predict runs/mine/model.safetensors --data new.tsv

The file holds everything that `dqrm predict` and `dqrm eval` need.";

/// Settings of `dqrm pack`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct PackArgs {
    /// The run's folder
    pub run: PathBuf,
    /// The file; its card gets the same name with .md [default: RUN/model.safetensors]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Bits of the tables' codes: 2, 4, 8 or 16 [default: as trained]
    #[arg(long, value_name = "BITS", value_parser = bits, help_heading = "Quantization")]
    pub bits: Option<Bits>,
    /// Bits of the MLPs' codes, or none [default: as trained; those of --bits when trained in FP32 with --ptq]
    #[arg(long, value_name = "BITS", value_parser = bits, help_heading = "Quantization")]
    pub mlp_bits: Option<Bits>,
    /// One scale for each table, or for each of its rows
    #[arg(long, value_name = "table|row", default_value = "table", help_heading = "Quantization")]
    pub scales: Scales,
    /// Quantize a run that was trained in FP32
    #[arg(long, help_heading = "Quantization")]
    pub ptq: bool,
    /// The checkpoint
    #[command(flatten)]
    pub checkpoint: CheckpointArgs,
    /// The result as JSON on standard output
    #[arg(long)]
    pub json: bool,
}

/// Granularity of the tables' scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scales {
    /// One for each table.
    Table,
    /// One for each row.
    Row,
}

/// Packs and says how small it became.
pub(super) fn run(args: &PackArgs) -> Result<()> {
    let options = PackOptions {
        which: args.checkpoint.which(),
        bits: args.bits,
        mlp_bits: args.mlp_bits,
        row_scales: args.scales == Scales::Row,
        ptq: args.ptq,
        out: args.out.clone(),
    };
    let mut live = Live::new();
    let packing = train::pack(&args.run, &options, &mut |done, total| live.event(&Event::Preparing { what: "packed tables", done, total }));
    live.end();
    let packing = packing?;
    for warning in &packing.warnings {
        note(&format!("warning: {warning}"));
    }
    if args.json { print_json(&packing) } else { print(&describe(&packing)) }
}

fn describe(p: &Packing) -> String {
    let w = &p.written;
    let row = |what: &str, bytes: u64| format!("{what:<11} {:>15} bytes\n", grouped(bytes));
    let mut text = format!("packed      {} (tables {}, MLPs {}, step {})\n", p.model.display(), p.bits, p.mlp_bits, p.step);
    text += &row("codes", w.code_bytes);
    text += &row("scales", w.scale_bytes);
    text += &row("MLPs", w.mlp_bytes);
    text += &row("ids", w.id_bytes);
    text += &row("file", w.bytes);
    text += &format!("in FP32     {:>15} bytes, {:.2} times as much as codes, scales and MLPs\n", grouped(p.fp32_bytes), ratio(p));
    text + &format!("card        {}\n", p.card.display())
}

fn ratio(p: &Packing) -> f64 {
    p.fp32_bytes as f64 / (p.written.code_bytes + p.written.scale_bytes + p.written.mlp_bytes) as f64
}
