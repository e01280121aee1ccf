//! What `dqrm train --profile` prints and writes.

use super::comm::aligned;
use super::live::grouped;
use super::table::short;
use crate::error::{Error, Result};
use crate::profile::{CommandProfile, Profile};
use std::path::{Path, PathBuf};

/// Name of the timeline in a run's folder.
pub(super) const TIMELINE: &str = "profile.json";
/// Single commands that are listed.
const LISTED: usize = 24;

/// The file of `--profile FILE`.
pub(super) fn file(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.ends_with(".json") {
        return Ok(PathBuf::from(text));
    }
    Err("the timeline is a file with the ending .json; a settings file goes before --profile".into())
}

/// Writes the timeline and gives the table.
pub(super) fn finish(profile: &Profile, path: &Path) -> Result<String> {
    if profile.steps == 0 {
        return Ok("profile   no step was left to profile after the first; train for more steps\n".into());
    }
    std::fs::write(path, profile.trace()).map_err(Error::io("write", path.display().to_string()))?;
    let timeline = format!("\ntimeline  {} (open it at ui.perfetto.dev or chrome://tracing)\n", path.display());
    Ok(table(profile) + &timeline)
}

/// The times, by kernel and by command.
pub(super) fn table(p: &Profile) -> String {
    let per_step = |seconds: f64| 1e3 * seconds / p.steps as f64;
    let commands = p.commands_seconds();
    let mut text =
        format!("profile   {} steps, {} samples each, on {}\n          {}\n", p.steps, grouped(p.samples / p.steps), p.device, p.timer);
    text += &format!(
        "          ms a step: {:.3} waiting for the loader, {:.3} upload, {:.3} commands ({:.3} by the clock)\n\n",
        per_step(p.wait),
        per_step(p.upload),
        per_step(commands),
        per_step(p.run)
    );
    let head = |what: &str| [what, "calls a step", "ms a step", "share", "GB/s", "GFLOP/s"].map(String::from).to_vec();
    let row = |name: String, c: &CommandProfile| {
        let rate = |amount: u64| match amount {
            0 => String::new(),
            amount => short(amount as f64 / c.seconds.max(1e-12) / 1e9),
        };
        let calls = c.calls as f64 / p.steps as f64;
        let calls = if calls.fract() == 0.0 { format!("{calls:.0}") } else { format!("{calls:.2}") };
        let share = format!("{:.1} %", 100.0 * c.seconds / commands.max(1e-12));
        vec![name, calls, format!("{:.4}", per_step(c.seconds)), share, rate(c.cost.bytes), rate(c.cost.flops)]
    };
    let mut rows = vec![head("kernel")];
    rows.extend(p.kernels().iter().map(|c| row(format!("{}: {}", c.phase, c.kernel), c)));
    text += &aligned(&rows);
    let mut sorted: Vec<&CommandProfile> = p.commands.iter().collect();
    sorted.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let mut rows = vec![head("command")];
    rows.extend(sorted.iter().take(LISTED).map(|c| row(format!("{}: {} {}", c.phase, c.kernel, c.label), c)));
    if let Some((first, rest)) = sorted.get(LISTED..).and_then(|rest| rest.split_first()) {
        let mut sum = CommandProfile { label: String::new(), ..(*first).clone() };
        for command in rest {
            sum.calls += command.calls;
            sum.seconds += command.seconds;
            sum.cost += command.cost;
        }
        rows.push(row(format!("{} others", rest.len() + 1), &sum));
    }
    text + "\n" + &aligned(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settings_file_is_not_taken_for_a_timeline() {
        assert_eq!(file("a.json"), Ok("a.json".into()));
        assert_eq!(file(""), Ok(PathBuf::new()));
        assert!(file("my.toml").unwrap_err().contains("before --profile"));
    }
}
