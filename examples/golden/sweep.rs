//! Every text of the matrix products in turn, a line each.

use crate::name;
use crate::run::{self, Outcome};
use crate::texts::Texts;
use dqrm::config::Device;
use dqrm::ops::matmul;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What cases with one choice of texts gave.
#[derive(Debug, Default)]
struct Line {
    agree: usize,
    ran: usize,
    varied: usize,
    /// Codes that differ.
    codes: f64,
    /// The largest part of a tolerance that another quantity took, and which.
    closest: (f64, String),
    /// Reports and errors of the others.
    misses: String,
}

impl Line {
    fn add(&mut self, case: &str, outcome: dqrm::Result<Outcome>) {
        self.ran += 1;
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                self.misses += &format!("{case}: {error}\n");
                return;
            }
        };
        self.varied += outcome.forced.varied;
        let report = outcome.report.expect("compared, since expected values are not optional");
        for row in &report.rows {
            match row.quantity.as_str() {
                "codes, differing" => self.codes += row.worst,
                "codes, largest step" => {}
                quantity => {
                    let part = if row.worst == 0.0 { 0.0 } else { row.worst / row.tolerance };
                    if part > self.closest.0 {
                        self.closest = (part, format!("{quantity} of {case}"));
                    }
                }
            }
        }
        if report.ok() {
            self.agree += 1;
        } else {
            self.misses += &format!("{case}\n{report}");
        }
    }

    /// Prints it; true when all is well.
    fn print(&self, name: &str) -> bool {
        let Line { agree, ran, varied, codes, closest: (part, place), misses } = self;
        println!(
            "  {name:<32} {agree:>2} of {ran:>2} cases agree; {varied:>3} commands with variants; {codes} codes differ; at most {part:.3} of a tolerance: {place}"
        );
        print!("{misses}");
        agree == ran
    }
}

/// Runs `cases` with the kernels' own texts, with the best, and with each variant of the matrix products; true when all of
/// them agree. A variant runs the cases that have a command for it.
pub(crate) fn sweep(cases: &[PathBuf], device: &Device, loose: bool) -> bool {
    println!("{} cases, each text of the matrix products in turn", cases.len());
    // the reason that a text is unfit, and the cases for which it is not
    let mut variants: BTreeMap<&'static str, (Option<String>, Vec<&PathBuf>)> = BTreeMap::new();
    let mut line = Line::default();
    for dir in cases {
        let outcome = run::examine(dir, device, Texts::Portable, loose, false);
        for (&variant, reason) in outcome.iter().flat_map(|o| &o.forced.unfit) {
            let found = variants.entry(variant).or_default();
            match reason {
                None => found.1.push(dir),
                Some(reason) => found.0 = Some(reason.clone()),
            }
        }
        line.add(&name(dir), outcome);
    }
    let (mut texts, mut agree, mut skipped) = (1, usize::from(line.print("portable")), 0);
    let run = |name_of: &str, texts: Texts, dirs: &[&PathBuf]| {
        let mut line = Line::default();
        for dir in dirs {
            line.add(&name(dir), run::examine(dir, device, texts, loose, false));
        }
        line.print(name_of)
    };
    texts += 1;
    agree += usize::from(run("best", Texts::Best, &cases.iter().collect::<Vec<_>>()));
    for variant in matmul::KERNELS.iter().flat_map(|k| k.variants) {
        texts += 1;
        match variants.get(variant.name) {
            Some((_, dirs)) if !dirs.is_empty() => agree += usize::from(run(variant.name, Texts::Only(variant), dirs)),
            found => {
                let reason = found.and_then(|f| f.0.as_deref()).unwrap_or("no case has its kernel");
                println!("  {:<32} skipped: {reason}", variant.name);
                skipped += 1;
            }
        }
    }
    println!("{agree} of {texts} choices agree, {skipped} skipped");
    agree + skipped == texts
}
