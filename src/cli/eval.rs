//! `dqrm eval`.

use super::live::grouped;
use super::options::DeviceArgs;
use super::{note, print, print_json};
use crate::config::{Device, OnBadRow};
use crate::error::{Error, Result};
use crate::metrics::Summary;
use crate::packed;
use crate::train::{Scored, Trained, Which};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  dqrm eval runs/mine --data day_23.gz
  dqrm eval runs/mine --last --json
  dqrm eval model.safetensors --data day_23.gz           a packed file
  zcat day_23.gz | dqrm eval runs/mine --data -";

/// Settings of `dqrm eval`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct EvalArgs {
    /// The run's folder, or a packed file
    pub run: PathBuf,
    /// Labelled files in the run's layout, `-` for standard input [default: the test part of the run's own data]
    #[arg(long, value_name = "FILE", num_args = 1.., help_heading = "Data")]
    pub data: Vec<String>,
    /// What a malformed line does: stop, or be left out and counted [default: as in the run]
    #[arg(long, value_name = "error|skip", value_parser = super::options::choice::<OnBadRow>, help_heading = "Data")]
    pub on_bad_row: Option<OnBadRow>,
    /// Read all of a packed file first and compare it with its checksum
    #[arg(long, help_heading = "Model")]
    pub verify: bool,
    /// The checkpoint
    #[command(flatten)]
    pub checkpoint: CheckpointArgs,
    /// Device and output
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Which checkpoint of a run.
#[derive(Debug, Clone, Default, Args)]
pub struct CheckpointArgs {
    /// The weights with the best AUC on the validation part [default when there are any]
    #[arg(long, conflicts_with = "last", help_heading = "Model")]
    pub best: bool,
    /// The newest weights
    #[arg(long, help_heading = "Model")]
    pub last: bool,
}

/// Loads a run's checkpoint or a packed file, whose tables are compared with their checksum if asked for.
pub(super) fn open(path: &Path, checkpoint: &CheckpointArgs, verify: bool, device: Option<Device>) -> Result<Trained> {
    if verify && path.is_file() {
        packed::open(path)?.verify().map_err(|reason| Error::Checkpoint { path: path.into(), reason })?;
    }
    Trained::open(path, checkpoint.which(), device)
}

impl CheckpointArgs {
    /// The one asked for.
    pub(super) fn which(&self) -> Option<Which> {
        if self.best { Some(Which::Best) } else { self.last.then_some(Which::Last) }
    }
}

/// The result.
#[derive(Debug, Serialize)]
struct Report {
    checkpoint: PathBuf,
    step: u64,
    device: String,
    skipped_rows: u64,
    #[serde(flatten)]
    summary: Summary,
}

/// Evaluates and prints.
pub(super) fn run(args: &EvalArgs) -> Result<()> {
    let mut model = open(&args.run, &args.checkpoint, args.verify, args.device.chosen())?;
    if let Some(on_bad_row) = args.on_bad_row {
        model.set_on_bad_row(on_bad_row);
    }
    let (summary, skipped_rows) = if args.data.is_empty() { own(&mut model)? } else { files(&mut model, &args.data)? };
    let device = format!("{} ({})", model.device().engine, model.device().name);
    let report = Report { checkpoint: model.path.clone(), step: model.step, device, skipped_rows, summary };
    if args.device.json { print_json(&report) } else { print(&describe(&report)) }
}

/// The test part of the run's own data.
fn own(model: &mut Trained) -> Result<(Summary, u64)> {
    let data = model.own_data(&mut |_, _, _| {})?;
    let test = data.parts.test.clone();
    if test.is_empty() {
        return Err(Error::Data("the run has no test part; name labelled files with --data".into()));
    }
    Ok((model.evaluate(&data, test)?, data.skipped))
}

fn files(model: &mut Trained, files: &[String]) -> Result<(Summary, u64)> {
    if model.synthetic {
        note(
            "warning: the model was trained on synthetic clicks, whose ids have no text; those of the files are taken modulo its tables' rows",
        );
    }
    let (mut logits, mut labels) = (Vec::new(), Vec::new());
    let scored = model.score(files, true, &mut |x, y| {
        logits.extend_from_slice(x);
        labels.extend_from_slice(y);
        Ok(())
    })?;
    left_out(&scored);
    if scored.samples == 0 {
        return Err(Error::Data(format!("no samples in {}", files.join(", "))));
    }
    Ok((Summary::from_logits(&logits, &labels), scored.skipped))
}

/// Says which lines were left out.
pub(super) fn left_out(scored: &Scored) {
    for message in &scored.messages {
        note(&format!("warning: left out: {message}"));
    }
    if scored.skipped > scored.messages.len() as u64 {
        note(&format!("warning: {} malformed lines were left out in all", grouped(scored.skipped)));
    }
}

fn describe(r: &Report) -> String {
    let s = &r.summary;
    let auc = s.auc.map_or("none (one class only)".into(), |auc| format!("{auc:.4}"));
    let skipped = if r.skipped_rows > 0 { format!(" ({} malformed lines left out)", grouped(r.skipped_rows)) } else { String::new() };
    format!(
        "checkpoint  {} (step {})\nsamples     {}{skipped}\nAUC         {auc}\nlog loss    {:.4}\naccuracy    {:.4}\n",
        r.checkpoint.display(),
        r.step,
        grouped(s.samples),
        s.log_loss,
        s.accuracy
    )
}
