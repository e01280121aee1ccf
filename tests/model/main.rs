//! The whole model against published and golden figures, on every engine.

#[path = "../../examples/golden/arrays.rs"]
mod arrays;
#[path = "../../examples/golden/case.rs"]
mod case;
#[path = "../../examples/golden/compare.rs"]
mod compare;
#[path = "../../examples/golden/data.rs"]
mod data;
#[path = "../../examples/golden/packed.rs"]
mod packed;
#[path = "../../examples/golden/run.rs"]
mod run;
#[path = "../../examples/golden/texts.rs"]
mod texts;

mod golden;
mod published;

use dqrm::config::Device;
use std::io::Write;

/// Says on the terminal, past the capture of test output, that a test was skipped.
fn skip(test: &str, reason: &str) {
    writeln!(std::io::stderr(), "{test} skipped: {reason}").expect("stderr can be written");
}

/// False, and said, when `device` needs an adapter and there is none; a failure where
/// `DQRM_REQUIRE_GPU=1`. An adapter that refuses to work is not a missing one.
fn available(test: &str, device: &Device) -> bool {
    let found = *device == Device::Cpu || pollster::block_on(dqrm::session::adapters()).iter().any(|a| a.backend != "cpu");
    if !found {
        assert!(std::env::var_os("DQRM_REQUIRE_GPU").is_none_or(|v| v != "1"), "DQRM_REQUIRE_GPU=1, but there is no adapter");
        skip(test, "no adapter");
    }
    found
}
