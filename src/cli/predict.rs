//! `dqrm predict`.

use super::eval::{CheckpointArgs, left_out, open};
use super::options::DeviceArgs;
use super::{note, print_json};
use crate::config::OnBadRow;
use crate::error::{Error, Result};
use crate::metrics::sigmoid;
use crate::partial;
use clap::Args;
use serde::Serialize;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  dqrm predict runs/mine --data new.tsv --out p.csv
  dqrm predict model.safetensors --data new.tsv          a packed file
  zcat new.tsv.gz | dqrm predict runs/mine > p.csv

Lines may have a label (it is not used) or lack its column.";

/// Settings of `dqrm predict`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct PredictArgs {
    /// The run's folder, or a packed file
    pub run: PathBuf,
    /// Files in the run's layout, with or without labels; `-` or nothing for standard input
    #[arg(long, value_name = "FILE", num_args = 1.., help_heading = "Data")]
    pub data: Vec<String>,
    /// One probability a line, in the order of the rows [default: standard output]
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub out: Option<PathBuf>,
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

/// What was written, for machines.
#[derive(Debug, Serialize)]
struct Report {
    checkpoint: PathBuf,
    step: u64,
    samples: u64,
    skipped_rows: u64,
    out: Option<PathBuf>,
    /// The probabilities, when they were not written to a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    probabilities: Option<Vec<f32>>,
}

/// Predicts and writes.
pub(super) fn run(args: &PredictArgs) -> Result<()> {
    let mut model = open(&args.run, &args.checkpoint, args.verify, args.device.chosen())?;
    if let Some(on_bad_row) = args.on_bad_row {
        model.set_on_bad_row(on_bad_row);
    }
    if model.synthetic {
        note(
            "warning: the model was trained on synthetic clicks, whose ids have no text; those of the rows are taken modulo its tables' rows",
        );
    }
    let stdin = ["-".to_owned()];
    let files: &[String] = if args.data.is_empty() { &stdin } else { &args.data };
    let collect = args.device.json && args.out.is_none();
    let name = args.out.clone().unwrap_or_else(|| "standard output".into());
    // Devices and pipes take the lines as they come; a file appears when it is whole.
    let file = args.out.as_deref().filter(|path| std::fs::metadata(path).map_or(true, |found| found.is_file()));
    let place = file.map(partial::name).or(args.out.clone());
    let mut out: Box<dyn Write> = match &place {
        Some(place) => Box::new(BufWriter::new(File::create(place).map_err(Error::io("create", place))?)),
        None => Box::new(BufWriter::new(std::io::stdout().lock())),
    };
    let mut probabilities = Vec::new();
    let scored = model.score(files, false, &mut |logits, _| {
        let values = logits.iter().map(|&x| sigmoid(f64::from(x)) as f32);
        if collect {
            probabilities.extend(values);
            return Ok(());
        }
        values.into_iter().try_for_each(|p| writeln!(out, "{p}")).map_err(Error::io("write", &name))
    });
    let scored = scored.and_then(|scored| out.flush().map_err(Error::io("write", &name)).map(|()| scored));
    drop(out);
    let scored = if let Some(path) = file { partial::finish(path, scored)? } else { scored? };
    left_out(&scored);
    if !args.device.json {
        return Ok(());
    }
    print_json(&Report {
        checkpoint: model.path.clone(),
        step: model.step,
        samples: scored.samples,
        skipped_rows: scored.skipped,
        out: args.out.clone(),
        probabilities: collect.then_some(probabilities),
    })
}
