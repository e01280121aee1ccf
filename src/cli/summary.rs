//! The table at the end of a run.

use super::live::grouped;
use crate::config::Config;
use crate::metrics::Summary;
use crate::train::Outcome;
use std::fmt::Write;

/// The result of a run, for people.
pub(super) fn table(config: &Config, o: &Outcome) -> String {
    let mut text = String::new();
    if o.end.is_some() {
        text += "                          AUC   log loss   accuracy\n";
        for (name, evaluation) in [("test, end of run", &o.end), ("test, best validation", &o.best)] {
            if let Some(e) = evaluation {
                text += &row(name, &e.summary);
            }
        }
        if let Some(auc) = o.teacher_auc {
            let _ = writeln!(text, "{:<22} {auc:>6.4}   (the best that can be reached on these clicks)", "teacher");
        }
        text.push('\n');
    }
    let (full, packed) = (grouped(o.fp32_bytes), grouped(o.packed_bytes));
    let (rows, mlps) = (config.quant.embedding_bits, config.quant.mlp_bits);
    let bits = if rows == mlps { rows.to_string() } else { format!("{rows} (tables) and {mlps} (MLPs)") };
    let _ = match o.packed_bytes < o.fp32_bytes {
        true => writeln!(
            text,
            "model      {full} bytes in FP32, {packed} in {bits} ({:.2} times smaller)",
            o.fp32_bytes as f64 / o.packed_bytes as f64
        ),
        false => writeln!(text, "model      {full} bytes in FP32"),
    };
    if o.samples_per_second > 0.0 {
        let _ = writeln!(text, "speed      {} samples/s on {}", grouped(o.samples_per_second as u64), o.device);
    }
    if o.samples_per_second > 0.0 {
        let share = 100.0 * o.data_wait_share;
        let _ = writeln!(text, "data       a step waited {:.3} ms for its batch, {share:.1} % of the training time", o.data_wait_ms);
    }
    if o.skipped_rows > 0 {
        let _ = writeln!(text, "skipped    {} malformed lines", grouped(o.skipped_rows));
    }
    let dir = o.dir.display();
    let _ = writeln!(text, "run        {dir}");
    text + "\n" + &next(config, &dir.to_string())
}

fn row(name: &str, s: &Summary) -> String {
    let auc = s.auc.map_or("-".into(), |auc| format!("{auc:.4}"));
    format!("{name:<22} {auc:>6}   {:>8.4}   {:>8.4}\n", s.log_loss, s.accuracy)
}

/// What to try next.
fn next(config: &Config, dir: &str) -> String {
    let mut text = String::from("Next:\n");
    // As it was started: `dqrm` when installed, `target/release/dqrm` through cargo.
    let program = std::env::args().next().unwrap_or_else(|| "dqrm".into());
    let mut line = |command: &str, why: &str| {
        let _ = writeln!(text, "  {program} {command:<52} {why}");
    };
    let (other, name) = if config.quant.embedding_bits.quantized() { ("none", "FP32") } else { ("4", "INT4") };
    line(&format!("train {dir}/config.toml --bits {other}"), &format!("the same in {name}, to compare"));
    if config.quant.embedding_bits.quantized() {
        line(&format!("pack {dir}"), "one small file to predict from");
    }
    if config.data.files.is_empty() {
        line("train --data train.tsv.gz --preset kaggle", "your own clicks (Criteo's layout)");
    } else {
        line(&format!("predict {dir} --data new.tsv"), "one probability a line");
    }
    line(&format!("train --resume {dir} --epochs {}", config.train.epochs.saturating_add(1)), "go on for another epoch");
    line("devices", "what could make it faster");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_epochs_are_no_reason_to_panic() {
        let mut config = Config::default();
        config.train.epochs = u64::MAX;
        assert!(next(&config, "run").contains("--epochs 18446744073709551615"));
    }
}
