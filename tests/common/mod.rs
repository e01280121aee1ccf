//! What several test files need.

use dqrm::engine::gpu::{GpuAdapter, adapters};
use std::io::Write;

/// The first adapter. Without one the test says that it is skipped, or fails when `DQRM_REQUIRE_GPU=1`.
pub(crate) fn gpu() -> Option<GpuAdapter> {
    let found = pollster::block_on(adapters()).into_iter().next();
    if found.is_none() {
        assert!(std::env::var("DQRM_REQUIRE_GPU").as_deref() != Ok("1"), "DQRM_REQUIRE_GPU=1, but there is no adapter");
        // past the capture of test output, so that it is seen
        writeln!(std::io::stderr(), "skipped: no graphics adapter").expect("stderr can be written");
    }
    found
}
