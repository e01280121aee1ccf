//! The model card beside a packed model: what it is, what it was trained on, how good it was, how large
//! it is, how to use it.

use super::{Packing, folder};
use crate::config::{Config, Format, Ids};
use crate::error::{Error, Result};
use crate::packed::WritePlan;
use std::fmt::Write;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// An evaluation is a line of at most this many bytes.
const MAX_LINE: u64 = 1 << 16;

/// The first line of a model's card.
fn title(model: &Path) -> String {
    format!("# {}", model.file_name().unwrap_or_default().to_string_lossy())
}

/// The card's place is free, or holds an earlier card of the same model.
pub(super) fn check(card: &Path, model: &Path) -> Result<()> {
    let shown = card.display();
    if card == model {
        return Err(Error::Config(format!(
            "`{shown}` would be the model and its card at once; give --out a name that does not end with .md"
        )));
    }
    let Ok(file) = File::open(card) else { return Ok(()) };
    let mut first = String::new();
    let read = std::io::Read::take(BufReader::new(file), MAX_LINE).read_line(&mut first);
    if read.is_ok() && first.trim_end() == title(model) {
        return Ok(());
    }
    Err(Error::Config(format!(
        "`{shown}` exists and is no card of `{}`; give another --out, the card gets its name with .md",
        model.display()
    )))
}

/// The card as Markdown.
pub(super) fn text(dir: &Path, config: &Config, plan: &WritePlan, p: &Packing) -> Result<String> {
    let m = &plan.manifest;
    let mut t = String::new();
    let name = p.model.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let _ = writeln!(t, "{}\n", title(&p.model));
    let _ = writeln!(
        t,
        "A DLRM that predicts clicks, trained with dqrm {} and packed: tables {}, MLPs {}, method `{}`.\n",
        env!("CARGO_PKG_VERSION"),
        p.bits,
        p.mlp_bits,
        p.method
    );
    let _ = writeln!(t, "## Data\n\n{}", data(config, plan));
    let _ = writeln!(t, "## Model\n");
    let s = &m.shape;
    let _ = writeln!(t, "| | |\n|---|---|");
    let _ = writeln!(t, "| tables | {} with {} rows of width {} |", s.tables(), s.rows.iter().sum::<u64>(), s.dim);
    let _ = writeln!(t, "| bottom MLP | {} |", widths(&s.bottom));
    let _ = writeln!(t, "| top MLP | {} |", widths(&s.top));
    let _ = writeln!(t, "| parameters | {} |", s.embedding_parameters() + s.mlp_parameters());
    let scales = if plan.row_scales { "one for each row" } else { "one for each table" };
    let _ = writeln!(t, "| scales of the tables | {scales} |\n");
    let _ = writeln!(t, "## Training\n\n{}", settings(config, p));
    let _ = writeln!(t, "## Quality\n\n{}", quality(dir, p.step)?);
    let _ = writeln!(t, "## Size\n\n| part | bytes |\n|---|---|");
    let w = &p.written;
    for (what, bytes) in [
        ("codes of the tables", w.code_bytes),
        ("scales of the tables", w.scale_bytes),
        ("MLPs", w.mlp_bytes),
        ("id mapping", w.id_bytes),
        ("whole file", w.bytes),
        ("the weights in FP32", p.fp32_bytes),
    ] {
        let _ = writeln!(t, "| {what} | {bytes} |");
    }
    let _ = writeln!(
        t,
        "\n## Use\n\n```sh\ndqrm predict {name} --data new.tsv      # one probability a line\ndqrm eval {name} --data labelled.tsv\n```\n"
    );
    t += "Other programs read the tensors with any safetensors library: `emb_l.K.weight.codes` holds two's-complement codes, \
          the first in the lowest bits; a weight is `(code + offset) * scale`, with the offset in the header's `dqrm.manifest`.\n";
    Ok(t)
}

fn widths(all: &[usize]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("-")
}

fn data(config: &Config, plan: &WritePlan) -> String {
    let d = &config.data;
    let mut t = String::new();
    match d.format {
        Format::Synthetic => {
            let _ = writeln!(
                t,
                "Made-up clicks (seed {}, {} samples): this model is good for trying things out only.",
                config.seed, d.synthetic.samples
            );
        }
        Format::Criteo | Format::Text | Format::Binary | Format::Parquet => {
            let names: Vec<String> =
                d.files.iter().map(|f| format!("`{}`", Path::new(f).file_name().unwrap_or_default().to_string_lossy())).collect();
            let layout = match d.format {
                Format::Criteo => "Criteo's layout",
                Format::Binary => "MLPerf's binary rows",
                _ => "the layout in the header's schema",
            };
            let _ = writeln!(t, "Trained on {} ({layout}), split {:?} in file order.", names.join(", "), d.split);
            let ids = match d.ids {
                Ids::Dictionary => "in the order they were first seen; unseen ones share row 0. The mapping is part of the file",
                Ids::Direct => "by their number, which is the row",
                Ids::Modulo => "by their number modulo the table's rows",
            };
            let _ = writeln!(t, "Categories become rows {ids}.");
        }
    }
    let schema = &plan.manifest.input.schema;
    let log = if schema.dense_log { "ln(max(x, 0) + 1)" } else { "as they are" };
    let _ = writeln!(t, "Dense values are taken {log}; a label counts as a click from {} on.", schema.label_threshold);
    t
}

fn settings(config: &Config, p: &Packing) -> String {
    let (q, o, c) = (&config.quant, &config.optim, &config.train);
    let mut t = String::from("| | |\n|---|---|\n");
    let _ = writeln!(t, "| steps | {} of {} samples, seed {} |", p.step, c.batch, config.seed);
    let name = |v: &dyn std::fmt::Debug| format!("{v:?}").to_lowercase();
    let _ = writeln!(t, "| optimizer | {} (tables), {} (MLPs), learning rate {} |", name(&o.embedding), name(&o.dense), o.lr);
    let _ = writeln!(
        t,
        "| quantization while training | method `{}`, tables {}, MLPs {}{} |",
        q.method,
        q.embedding_bits,
        q.mlp_bits,
        q.refresh_every().map_or(String::new(), |p| format!(", scales refreshed every {p} steps"))
    );
    if q.pretrains() {
        let _ = writeln!(t, "| before that | {} epochs in FP32 |", q.pretrain_epochs);
    }
    for warning in &p.warnings {
        let _ = writeln!(t, "| note | {warning} |");
    }
    t
}

/// The evaluations that the run made of these very weights.
fn quality(dir: &Path, step: u64) -> Result<String> {
    let path = dir.join(folder::METRICS);
    let Ok(file) = File::open(&path) else { return Ok("The run has no record of evaluations.\n".into()) };
    let mut reader = BufReader::new(file);
    let mut rows = Vec::new();
    loop {
        let mut line = Vec::new();
        let read = std::io::Read::take(&mut reader, MAX_LINE).read_until(b'\n', &mut line).map_err(Error::io("read", &path))?;
        if read == 0 {
            break;
        }
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(&line) else { continue };
        if value["kind"] != "evaluation" || value["step"] != step {
            continue;
        }
        let number = |key: &str| value[key].as_f64().map_or("-".into(), |v| format!("{v:.4}"));
        let part = value["part"].as_str().unwrap_or("?").replace('|', "/");
        let row = format!("| {part} | {} | {} | {} | {} |\n", value["samples"], number("auc"), number("log_loss"), number("accuracy"));
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    if rows.is_empty() {
        return Ok("The run was not evaluated at this step.\n".into());
    }
    let head = "Measured by the run, in full precision with quantized values and with the scales it had last used. This file's \
                scales are those of the final weights, which moves the figures a little:\n\n| part | samples | AUC | log loss | accuracy |\n|---|---|---|---|---|\n";
    Ok(head.to_owned() + &rows.concat())
}
