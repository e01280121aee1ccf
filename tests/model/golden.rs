//! The golden cases: `../shared/golden` beside the repository and `tests/golden/cases` in it.

use crate::arrays::Values;
use crate::run::{self, Outcome};
use dqrm::config::Device;
use std::path::{Path, PathBuf};

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in [root.join("../shared/golden"), root.join("tests/golden/cases")] {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        found.extend(entries.map(|entry| entry.expect("a readable folder").path()).filter(|path| path.join("case.json").is_file()));
    }
    found.sort();
    found
}

/// Runs every case on `device`. Shaders may divide less exactly than IEEE, so they may
/// also pass by the loose tolerances, which are made for that.
fn all(test: &str, device: Device, loose_allowed: bool) {
    let cases = cases();
    if cases.is_empty() {
        return crate::skip(test, "no golden cases beside the repository");
    }
    if !crate::available(test, &device) {
        return;
    }
    let mut misses = String::new();
    for dir in cases {
        let examine = |loose| run::examine(&dir, &device, loose, false);
        let mut outcome = examine(false);
        if loose_allowed && matches!(&outcome, Ok(Outcome { report: Some(report), .. }) if !report.ok()) {
            outcome = examine(true);
        }
        match outcome {
            Err(error) => misses += &format!("{}: {error}\n", dir.display()),
            Ok(Outcome { device, computed, report }) => {
                let finite = |values: &Values| matches!(values, Values::Float(v) if v.iter().all(|x| x.is_finite()));
                assert!(finite(&computed["losses"].values), "{}: a loss is not finite", dir.display());
                let report = report.expect("expected values are there");
                if !report.ok() {
                    misses += &format!("{} on {device}\n{report}\n", dir.display());
                }
            }
        }
    }
    assert!(misses.is_empty(), "{misses}");
}

#[test]
fn golden_cases_on_the_cpu() {
    all("golden_cases_on_the_cpu", Device::Cpu, false);
}

#[test]
fn golden_cases_on_a_gpu() {
    all("golden_cases_on_a_gpu", Device::Gpu, true);
}
