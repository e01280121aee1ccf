//! The golden cases: `tests/golden/cases`, and those in the folder that `DQRM_GOLDEN` names, if any.

use crate::arrays::Values;
use crate::run::{self, Outcome};
use crate::texts::Texts;
use dqrm::config::Device;
use dqrm::ops::kernels;
use std::path::{Path, PathBuf};

/// The cases in a folder.
fn cases_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found: Vec<PathBuf> =
        entries.map(|entry| entry.expect("a readable folder").path()).filter(|path| path.join("case.json").is_file()).collect();
    found.sort();
    found
}

fn cases(test: &str) -> Vec<PathBuf> {
    let mut found = cases_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cases"));
    assert!(found.len() >= 10, "only {} of the repository's own golden cases are there", found.len());
    match std::env::var_os("DQRM_GOLDEN") {
        Some(folder) => {
            let more = cases_in(Path::new(&folder));
            assert!(!more.is_empty(), "DQRM_GOLDEN names {folder:?}, which holds no case");
            found.extend(more);
        }
        None => crate::skip(test, "the further cases (DQRM_GOLDEN names no folder); the repository's own are run"),
    }
    found
}

/// Runs every case on `device`. Shaders may divide less exactly than IEEE, so they may
/// also pass by the loose tolerances, which are made for that.
fn all(test: &str, device: Device, loose_allowed: bool) {
    if !crate::available(test, &device) {
        return;
    }
    let cases = cases(test);
    let mut misses = String::new();
    for dir in cases {
        let examine = |loose| run::examine(&dir, &device, Texts::Best, loose, false);
        let mut outcome = examine(false);
        if loose_allowed && matches!(&outcome, Ok(Outcome { report: Some(report), .. }) if !report.ok()) {
            outcome = examine(true);
        }
        match outcome {
            Err(error) => misses += &format!("{}: {error}\n", dir.display()),
            Ok(Outcome { device, computed, report, .. }) => {
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

/// Golden cases run with the text that was asked for and no other; every text that fits the smallest case agrees with it.
#[test]
fn golden_cases_run_the_texts_that_are_named() {
    let test = "golden_cases_run_the_texts_that_are_named";
    if !crate::available(test, &Device::Gpu) {
        return;
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cases/smallest");
    let examine = |texts| {
        let strict = run::examine(&dir, &Device::Gpu, texts, false, false).unwrap();
        let agrees = strict.report.as_ref().is_some_and(|r| r.ok());
        // Shaders may divide less exactly than IEEE.
        let agrees = agrees || run::examine(&dir, &Device::Gpu, texts, true, false).unwrap().report.unwrap().ok();
        assert!(agrees, "{texts:?} on {}\n{}", strict.device, strict.report.unwrap());
        strict.forced
    };
    let own = examine(Texts::Portable);
    assert_eq!(own.varied, 0);
    let fitting: Vec<_> = own.unfit.iter().filter(|(_, reason)| reason.is_none()).map(|(&name, _)| name).collect();
    assert!(fitting.len() >= 2, "{:?}", own.unfit);
    for variant in kernels().into_iter().flat_map(|k| k.variants) {
        let varied = if own.unfit.contains_key(variant.name) { examine(Texts::Only(variant)).varied } else { 0 };
        assert_eq!(varied > 0, fitting.contains(&variant.name), "{}", variant.name);
    }
    let error = run::examine(&dir, &Device::Cpu, Texts::Portable, false, false).unwrap_err();
    assert!(error.to_string().contains("graphics adapter"), "{error}");
}
