//! `dqrm export`.

use super::eval::CheckpointArgs;
use super::live::{Live, grouped};
use super::{note, print, print_json};
use crate::error::Result;
use crate::train::{self, Event, ExportFormat, ExportOptions, Exported};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  dqrm pack runs/mine
  dqrm export runs/mine/model.safetensors --format onnx      tables stay packed; predicts what `dqrm predict` does
  dqrm export runs/mine --format onnx --external-data        FP32 weights, tables in runs/mine/fp32.onnx.data
  dqrm export runs/mine --format safetensors --out w.safetensors
                                                             a state dict for PyTorch's DLRM

A run's folder gives the FP32 weights of its checkpoint, bit for bit; a packed file gives the quantized model.
Inputs and outputs of the ONNX model are described in its own notes (metadata_props) and in docs/FORMATS.md.";

/// Settings of `dqrm export`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExportArgs {
    /// A packed file, or a run's folder for its FP32 weights
    pub source: PathBuf,
    /// What to write: the model as ONNX (opset 18), or FP32 weights under PyTorch's names
    #[arg(long)]
    pub format: Kind,
    /// The file [default: the packed file's name with .onnx or .fp32.safetensors, or RUN/fp32.onnx or .safetensors]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long)]
    pub force: bool,
    /// ONNX: large tensors in a file of their own, OUT.data [default: only for models of 2 GiB or more]
    #[arg(long)]
    pub external_data: bool,
    /// The checkpoint
    #[command(flatten)]
    pub checkpoint: CheckpointArgs,
    /// The result as JSON on standard output
    #[arg(long)]
    pub json: bool,
}

/// Formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The whole model for any ONNX runtime.
    Onnx,
    /// Weights for PyTorch.
    Safetensors,
}

/// Exports and says what was written.
pub(super) fn run(args: &ExportArgs) -> Result<()> {
    let options = ExportOptions {
        format: if args.format == Kind::Onnx { ExportFormat::Onnx } else { ExportFormat::Safetensors },
        which: args.checkpoint.which(),
        out: args.out.clone(),
        force: args.force,
        external_data: args.external_data,
    };
    let mut live = Live::new();
    let exported = train::export(&args.source, &options, &mut |done, total| live.event(&Event::Preparing { what: "export", done, total }));
    live.end();
    let exported = exported?;
    for warning in &exported.warnings {
        note(&format!("warning: {warning}"));
    }
    if args.json { print_json(&exported) } else { print(&describe(&exported)) }
}

fn describe(e: &Exported) -> String {
    let mut text = format!("exported  {} (tables {}, MLPs {}, step {})\n", e.source.display(), e.bits, e.mlp_bits, e.step);
    text += &format!("file      {} ({} bytes)\n", e.file.display(), grouped(e.written.bytes));
    if let Some(data) = &e.written.data {
        text += &format!("data      {} ({} bytes; keep it beside the file)\n", data.display(), grouped(e.written.data_bytes));
    }
    text
}
