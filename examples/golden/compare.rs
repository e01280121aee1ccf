//! Differences between what was computed and what was expected, and the table of them.

use crate::arrays::Arrays;
use crate::case::Tolerances;
use dqrm::{Error, Result};
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

/// All quantities of one case.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    /// Names in `expected.safetensors` that this program does not know.
    unknown: Vec<String>,
    /// Evaluation rows left out.
    left_out: usize,
}

/// One quantity.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) quantity: String,
    pub(crate) worst: f64,
    pub(crate) tolerance: f64,
    /// Where the worst difference lies.
    place: String,
}

impl Row {
    fn ok(&self) -> bool {
        self.worst <= self.tolerance
    }
}

impl Report {
    /// True when nothing lies outside its tolerance.
    pub(crate) fn ok(&self) -> bool {
        self.rows.iter().all(Row::ok)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {:<24} {:>11}  {:>11}", "quantity", "worst", "tolerance")?;
        for row in &self.rows {
            let verdict = if row.ok() { "ok".to_string() } else { format!("MISS  {}", row.place) };
            writeln!(f, "  {:<24} {:>11}  {:>11}  {verdict}", row.quantity, number(row.worst), number(row.tolerance))?;
        }
        if self.left_out > 0 {
            writeln!(f, "  {} evaluation rows with rounding ties were left out", self.left_out)?;
        }
        for name in &self.unknown {
            writeln!(f, "  `{name}` is not a known quantity of this case and was not compared")?;
        }
        Ok(())
    }
}

fn number(x: f64) -> String {
    if x == 0.0 || (x.fract() == 0.0 && x < 1e6) { format!("{x}") } else { format!("{x:.2e}") }
}

/// How a difference is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Measure {
    Absolute,
    Relative,
}

impl Measure {
    /// NaN against NaN and equal infinities do not differ; NaN against anything else differs without limit.
    fn difference(self, got: f64, expected: f64) -> f64 {
        if got == expected || (got.is_nan() && expected.is_nan()) {
            return 0.0;
        }
        let difference = match self {
            Measure::Absolute => (got - expected).abs(),
            Measure::Relative => (got - expected).abs() / expected.abs(),
        };
        if difference.is_nan() { f64::INFINITY } else { difference }
    }
}

/// Running figures over the elements of several arrays.
#[derive(Debug, Default)]
struct Figures {
    worst: f64,
    place: String,
    sum: f64,
    count: usize,
    differing: usize,
}

impl Figures {
    fn add(&mut self, name: &str, computed: &Arrays, expected: &Arrays, measure: Measure, left_out: &BTreeSet<usize>) {
        let (got, wanted) = (computed[name].wide(), expected[name].wide());
        for (i, (&g, &w)) in got.iter().zip(&wanted).enumerate().filter(|(i, _)| !left_out.contains(i)) {
            let difference = measure.difference(g, w);
            self.sum += difference;
            self.count += 1;
            self.differing += (difference > 0.0) as usize;
            if difference > self.worst {
                self.worst = difference;
                self.place = format!("{name}[{i}] is {g}, expected {w}");
            }
        }
    }
}

/// Fails when a quantity of the case is missing from `expected`, or when it is about another number of steps.
pub(crate) fn check_complete(path: &Path, expected: &Arrays, names: &BTreeSet<String>, steps: usize) -> Result<()> {
    let fail = |reason: String| Err(Error::Checkpoint { path: path.to_path_buf(), reason });
    if let Some(name) = names.iter().find(|name| !expected.contains_key(*name)) {
        return fail(format!("`{name}` is missing"));
    }
    match expected["losses"].len() {
        n if n == steps => Ok(()),
        n => fail(format!("`losses` holds {n} values, but the case trains for {steps} steps")),
    }
}

/// Compares everything that was computed.
pub(crate) fn compare(computed: &Arrays, expected: &Arrays, tolerances: &Tolerances) -> Result<Report> {
    for (name, array) in computed {
        let wanted = &expected[name];
        if wanted.len() != array.len() {
            return Err(Error::Data(format!("expected `{name}` has shape {:?}, but this case gives {:?}", wanted.shape, array.shape)));
        }
    }
    let mut rows = Vec::new();
    let left_out: BTreeSet<usize> = tolerances.left_out.iter().copied().collect();
    let none = BTreeSet::new();
    let figures = |starts: &[&str], measure: Measure| {
        let mut figures = Figures::default();
        let mut found = false;
        for name in computed.keys().filter(|name| starts.iter().any(|start| name.starts_with(start))) {
            let by_row = name.starts_with("logits_") || name.starts_with("probs_");
            figures.add(name, computed, expected, measure, if by_row { &left_out } else { &none });
            found = true;
        }
        found.then_some(figures)
    };
    let mut push = |quantity: &str, worst: f64, place: String, key: &str| -> Result<()> {
        rows.push(Row { quantity: quantity.to_string(), worst, tolerance: tolerances.get(key)?, place });
        Ok(())
    };
    for name in ["logits_init", "probs_init", "losses", "logits_final", "probs_final", "logits_packed", "probs_packed"] {
        if let Some(f) = figures(&[name], Measure::Absolute) {
            push(name, f.worst, f.place, &format!("{name}_abs"))?;
        }
    }
    if let Some(f) = figures(&["final.", "final_rows."], Measure::Absolute) {
        push("final weights, max", f.worst, f.place, "final_weights_max_abs")?;
        push("final weights, mean", f.sum / f.count.max(1) as f64, String::new(), "final_weights_mean_abs")?;
    }
    if let Some(f) = figures(&["final_delta_l2."], Measure::Relative) {
        push("final_delta_l2, relative", f.worst, f.place, "final_delta_l2_rel")?;
    }
    for name in ["scale_emb.init", "scale_emb.last_used", "scale_emb.final", "scale_lin.init", "scale_lin.final"] {
        if let Some(f) = figures(&[name], Measure::Relative) {
            push(name, f.worst, f.place, "scales_rel")?;
        }
    }
    if let Some(f) = figures(&["codes."], Measure::Absolute) {
        push("codes, largest step", f.worst, f.place, "codes_max_step")?;
        push("codes, differing", f.differing as f64, format!("of {}", f.count), "codes_mismatch_max")?;
    }
    let unknown = expected.keys().filter(|name| !computed.contains_key(*name)).cloned().collect();
    Ok(Report { rows, unknown, left_out: left_out.len() })
}
