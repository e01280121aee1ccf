//! The whole model against published and golden figures, on every engine.

#[path = "../../examples/golden/arrays.rs"]
mod arrays;
#[path = "../../examples/golden/case.rs"]
mod case;
#[path = "../../examples/golden/compare.rs"]
mod compare;
#[path = "../../examples/golden/data.rs"]
mod data;
#[path = "../../examples/golden/run.rs"]
mod run;

mod golden;
mod published;

use std::io::Write;

/// Says on the terminal, past the capture of test output, that a test was skipped. Where the
/// environment sets `DQRM_REQUIRE_GPU=1`, a missing adapter is a failure instead.
fn skip(test: &str, reason: &str) {
    writeln!(std::io::stderr(), "{test} skipped: {reason}").expect("stderr can be written");
}

/// [`skip`] for a missing adapter.
fn skip_adapter(test: &str, reason: &str) {
    assert!(std::env::var_os("DQRM_REQUIRE_GPU").is_none_or(|v| v != "1"), "DQRM_REQUIRE_GPU=1, but {reason}");
    skip(test, &format!("no adapter ({reason})"));
}
