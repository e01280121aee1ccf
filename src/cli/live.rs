//! What is shown while a run goes on: a bar on a terminal, a plain line every few seconds elsewhere.
//! Both on standard error.

use super::note;
use crate::train::{Evaluation, Event, Facts, Milliseconds, Progress, Traffic};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two plain lines.
const EVERY: Duration = Duration::from_secs(3);

/// The display.
#[derive(Debug)]
pub(super) struct Live {
    bar: ProgressBar,
    terminal: bool,
    last: Option<Instant>,
    preparing: Option<String>,
    /// What workers exchanged, as last reported.
    traffic: String,
}

impl Live {
    /// Nothing is shown yet.
    pub(super) fn new() -> Live {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(
            None,
            if terminal { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() },
        );
        Live { bar, terminal, last: None, preparing: None, traffic: String::new() }
    }

    /// A whole line, above the bar.
    fn say(&self, text: &str) {
        if self.terminal {
            self.bar.suspend(|| note(text));
        } else {
            note(text);
        }
    }

    /// True every few seconds.
    fn due(&mut self) -> bool {
        let due = self.last.is_none_or(|at| at.elapsed() >= EVERY);
        if due {
            self.last = Some(Instant::now());
        }
        due
    }

    /// Shows what happened.
    pub(super) fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Preparing { what, done, total } => self.preparing(what, *done, *total),
            Event::Ready(facts) => self.ready(facts),
            Event::Progress(progress) => self.progress(progress),
            Event::Evaluated(evaluation) => self.say(&evaluated(evaluation)),
            Event::Saved { path, step } => log::debug!("step {step}: wrote `{}`", path.display()),
            Event::Profiled(_) => {}
            Event::Warning(text) => self.say(&format!("warning: {text}")),
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }

    fn preparing(&mut self, what: &str, done: u64, total: u64) {
        if self.preparing.as_deref() != Some(what) {
            self.preparing = Some(what.into());
            self.last = Some(Instant::now());
            style(&self.bar, "preparing {msg} {bar:30} {percent}%");
            self.bar.set_message(what.to_owned());
        }
        self.bar.set_length(total.max(done).max(1));
        self.bar.set_position(done);
        if !self.terminal && self.due() {
            let share = if total > 0 { format!("{:.0} %", 100.0 * done as f64 / total as f64) } else { grouped(done) };
            note(&format!("preparing {what}: {share}"));
        }
    }

    fn ready(&mut self, facts: &Facts) {
        let (device, shape) = (&facts.device, &facts.shape);
        self.say(&format!("device   {} ({}): {}", device.engine, device.name, device.reason));
        self.say(&format!(
            "model    {} dense features, {} tables, {} rows of width {}, {} parameters",
            shape.dense,
            shape.tables(),
            grouped(shape.rows.iter().sum()),
            shape.dim,
            grouped(shape.embedding_parameters() + shape.mlp_parameters())
        ));
        if let Some(place) = facts.host_tables {
            self.say(&format!("tables   on the host, in {place}"));
        }
        if let Some((workers, global)) = facts.workers {
            self.say(&format!("workers  {workers}, {} samples a step together", grouped(global)));
        }
        let skipped = if facts.skipped > 0 { format!(", {} malformed lines left out", grouped(facts.skipped)) } else { String::new() };
        let [train, validation, test] = [facts.train, facts.validation, facts.test].map(grouped);
        self.say(&format!("samples  {train} train, {validation} validation, {test} test{skipped}"));
        let resumed = if facts.first_step > 0 { format!(", resumed at step {}", facts.first_step) } else { String::new() };
        self.say(&format!("run      {}, {} steps{resumed}", facts.dir.display(), grouped(facts.steps)));
        self.last = Some(Instant::now());
        style(&self.bar, "{wide_bar} {pos}/{len}  {msg}");
        self.bar.set_message("");
        self.bar.set_length(facts.steps);
        self.bar.set_position(facts.first_step);
    }

    fn progress(&mut self, p: &Progress) {
        let auc = p.auc.map_or(String::new(), |auc| format!("  auc {auc:.4}"));
        let text =
            format!("loss {:.4}{auc}  {} samples/s  {} left", p.loss, grouped(p.samples_per_second as u64), duration(p.seconds_left));
        if let Some(traffic) = &p.exchange {
            self.traffic = exchanged(traffic);
        }
        let text = text + &self.traffic;
        self.bar.set_position(p.step);
        self.bar.set_message(text.clone());
        if !self.terminal && self.due() {
            note(&format!("step {}/{} (epoch {})  {text}", p.step, p.steps, p.epoch + 1));
        }
    }
}

/// "  gradient 508.9 kB (ids 1.6, …), 1/4250 of dense, 79 % of rows unique, ms compute 16.3 …".
fn exchanged(t: &Traffic) -> String {
    let g = &t.gradient;
    let kb = |bytes: u64| format!("{:.1}", bytes as f64 / 1e3);
    let worst = t.ranks.iter().fold(Milliseconds::default(), |m, r| Milliseconds {
        compute: m.compute.max(r.compute),
        compress: m.compress.max(r.compress),
        wait: m.wait.max(r.wait),
        merge: m.merge.max(r.merge),
    });
    let projected = t.projected.map_or(String::new(), |ms| format!(", {ms:.1} ms a step on that network"));
    format!(
        "  gradient {} kB (ids {}, rows {}, mlps {}, scales {}, framing {}), 1/{:.0} of dense, {:.0} % of rows unique, ms compute {:.1} compress {:.1} wait {:.1} merge {:.1}{projected}",
        kb(g.step()),
        kb(g.ids),
        kb(g.rows),
        kb(g.mlps),
        kb(g.scales),
        kb(g.framing),
        t.factor,
        100.0 * t.unique_rows,
        worst.compute,
        worst.compress,
        worst.wait,
        worst.merge
    )
}

fn style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
}

/// "epoch 1.00  validation  auc 0.7381 …".
fn evaluated(e: &Evaluation) -> String {
    let s = &e.summary;
    let auc = s.auc.map_or("none (one class only)".into(), |auc| format!("{auc:.4}"));
    format!("epoch {:.2} (step {}): {} auc {auc}, log loss {:.4}, accuracy {:.4}", e.epoch, e.step, e.part, s.log_loss, s.accuracy)
}

/// 1234567 as "1,234,567".
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// "1 h 02 min", "3 min 20 s", "12 s".
pub(super) fn duration(seconds: f64) -> String {
    let s = seconds.clamp(0.0, 1e9).round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.4, 61.0, 3720.0].map(duration), ["0 s", "1 min 01 s", "1 h 02 min"]);
    }
}
