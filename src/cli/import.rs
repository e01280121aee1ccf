//! `dqrm import`.

use super::live::{Live, grouped};
use super::{print, print_json};
use crate::config::{Ids, Loss};
use crate::error::{Error, Result};
use crate::import::shape::Join;
use crate::quant::Bits;
use crate::train::{Event, Imported, LAST, Wanted, free_name, import};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  dqrm import dlrm.pt                               makes runs/dlrm
  dqrm import dlrm.pt --bits 4 --out runs/int4      the same model, evaluated and trained in INT4
  dqrm eval runs/dlrm --data day_23.gz
  dqrm train runs/int4/config.toml --init runs/int4/last.safetensors --data day_0.gz

In PyTorch, `torch.save(model.state_dict(), \"dlrm.pt\")` saves a state dict. Checkpoints of dlrm_s_pytorch.py \
and of the published DQRM code are read too. Nothing in a .pt file is executed: tensors and plain values are \
read, anything else is refused by name.

As in DLRM, a raw category (hex digits) has the row that is its value modulo the table's rows. Where the weights \
were trained with another numbering, give the ids.bin of a run of dqrm with --ids.";

/// Settings of `dqrm import`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ImportArgs {
    /// A state dict or checkpoint of a PyTorch DLRM: .pt (torch.save) or .safetensors
    pub file: PathBuf,
    /// The folder to make [default: runs/ and the file's name, numbered when it exists]
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    pub out: Option<PathBuf>,
    /// Bits of the embedding rows: 2, 4, 8, 16 or none [default: none]
    #[arg(long, value_name = "BITS", value_parser = bits, help_heading = "Quantization")]
    pub bits: Option<Bits>,
    /// Bits of the MLP weights [default: those of --bits]
    #[arg(long, value_name = "BITS", value_parser = bits, help_heading = "Quantization")]
    pub mlp_bits: Option<Bits>,
    /// The loss, for later training [default: bce]
    #[arg(long, value_name = "bce|mse", value_parser = super::options::choice::<Loss>, help_heading = "Model")]
    pub loss: Option<Loss>,
    /// How the vectors meet; needed only where the top MLP's width fits several ways
    #[arg(long, value_name = "dot|diagonal|cat", value_parser = super::options::choice::<Join>, help_heading = "Model")]
    pub interaction: Option<Join>,
    /// ids.bin of a run with the same tables (Criteo's layout), in place of ids modulo the tables' rows
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub ids: Option<PathBuf>,
    /// The result as JSON on standard output
    #[arg(long, help_heading = "Run")]
    pub json: bool,
}

fn bits(text: &str) -> Result<Bits, String> {
    text.parse().map_err(|e: Error| e.to_string())
}

/// What was made, for machines.
#[derive(Debug, Serialize)]
struct Report<'a> {
    dir: &'a Path,
    checkpoint: PathBuf,
    dense: usize,
    dim: usize,
    bottom: &'a [usize],
    top: &'a [usize],
    rows: &'a [u64],
    interaction: Join,
    other_interactions: &'a [Join],
    ids: Ids,
    embedding_bits: Bits,
    mlp_bits: Bits,
    parameters: u64,
    types: Vec<&'static str>,
    ignored: &'a [String],
}

/// Imports, and says what was found.
pub(super) fn run(args: &ImportArgs) -> Result<()> {
    let dir = match (&args.out, args.file.file_stem()) {
        (Some(dir), _) => dir.clone(),
        (None, Some(stem)) => free_name(&Path::new("runs").join(stem)),
        (None, None) => return Err(Error::Config(format!("`{}` is no file", args.file.display()))),
    };
    let wanted = Wanted {
        embedding_bits: args.bits,
        mlp_bits: args.mlp_bits,
        loss: args.loss.unwrap_or_default(),
        interaction: args.interaction,
        ids: args.ids.clone(),
    };
    let mut live = Live::new();
    let imported = import(&args.file, &dir, &wanted, &mut |done, total| live.event(&Event::Preparing { what: "weights", done, total }));
    live.end();
    let imported = imported?;
    if args.json { print_json(&report(&dir, &imported)) } else { print(&describe(&args.file, &dir, &imported)) }
}

fn report<'a>(dir: &'a Path, imported: &'a Imported) -> Report<'a> {
    let (shape, quant) = (&imported.inferred.shape, &imported.config.quant);
    Report {
        dir,
        checkpoint: dir.join(LAST),
        dense: shape.dense,
        dim: shape.dim,
        bottom: &shape.bottom,
        top: &shape.top,
        rows: &shape.rows,
        interaction: imported.inferred.join,
        other_interactions: &imported.inferred.others,
        ids: imported.config.data.ids,
        embedding_bits: quant.embedding_bits,
        mlp_bits: quant.mlp_bits,
        parameters: shape.embedding_parameters() + shape.mlp_parameters(),
        types: imported.elements.iter().map(|e| e.name()).collect(),
        ignored: &imported.ignored,
    }
}

fn describe(file: &Path, dir: &Path, imported: &Imported) -> String {
    let (shape, quant) = (&imported.inferred.shape, &imported.config.quant);
    let mut text = String::new();
    let types = imported.elements.iter().map(|e| e.name()).collect::<Vec<_>>().join(", ");
    let _ = writeln!(text, "read         {} ({types})", file.display());
    let _ = writeln!(
        text,
        "tables       {} of width {}, {} rows, {} in the largest",
        shape.tables(),
        shape.dim,
        grouped(shape.rows.iter().sum()),
        grouped(shape.rows.iter().copied().max().unwrap_or(0))
    );
    let widths = |all: &[usize]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("-");
    let _ = writeln!(text, "bottom MLP   {}", widths(&shape.bottom));
    let _ = writeln!(text, "top MLP      {}", widths(&shape.top));
    let others = match imported.inferred.others.as_slice() {
        [] => String::new(),
        others => format!("; {} would fit too (--interaction)", others.iter().map(|j| j.name()).collect::<Vec<_>>().join(" and ")),
    };
    let _ = writeln!(
        text,
        "interaction  {}, from the {} inputs of the top MLP{others}",
        imported.inferred.join.name(),
        shape.top.first().unwrap_or(&0)
    );
    let _ = writeln!(text, "computes in  {} (tables), {} (MLPs)", quant.embedding_bits, quant.mlp_bits);
    let ids = if imported.dictionary {
        "the dictionary of the ids given"
    } else {
        "the value modulo the table's rows, as in DLRM (another numbering: --ids)"
    };
    let _ = writeln!(text, "rows of ids  {ids}");
    if !imported.ignored.is_empty() {
        let _ = writeln!(text, "not used     {}", listed(&imported.ignored));
    }
    let shown = dir.display();
    let _ = writeln!(text, "run          {shown}\n\nNext:");
    let layout = if shape.dense == 13 && shape.tables() == 26 {
        "Criteo's layout".into()
    } else {
        format!("label, {} integers, {} categories in hex digits, tab separated", shape.dense, shape.tables())
    };
    // As it was started: `dqrm` when installed, `target/release/dqrm` through cargo.
    let program = std::env::args().next().unwrap_or_else(|| "dqrm".into());
    let _ = writeln!(text, "  {program} predict {shown} --data new.tsv       {layout}");
    let _ = writeln!(text, "  {program} eval {shown} --data labelled.tsv");
    if !imported.dictionary {
        let _ = writeln!(text, "  {program} train {shown}/config.toml --init {shown}/{LAST} --data train.tsv");
    }
    text
}

/// Names, those that differ only in numbers once: "emb_l.*.now_iteration (26), epoch".
fn listed(names: &[String]) -> String {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for name in names {
        let kind = name.split('.').map(|s| if s.parse::<u32>().is_ok() { "*" } else { s }).collect::<Vec<_>>().join(".");
        *kinds.entry(kind.escape_debug().to_string()).or_default() += 1;
    }
    let count = kinds.len();
    let mut shown: Vec<String> = kinds.into_iter().take(20).map(|(kind, n)| if n > 1 { format!("{kind} ({n})") } else { kind }).collect();
    if count > shown.len() {
        shown.push(format!("and {} more", count - shown.len()));
    }
    shown.join(", ")
}
