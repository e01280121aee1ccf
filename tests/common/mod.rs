//! What several test files need.

use dqrm::engine::gpu::{GpuAdapter, adapters};
use std::io::Write;

/// The first adapter. Without one the test says that it is skipped (past the test harness's capture), or
/// fails when `DQRM_REQUIRE_GPU=1`.
pub(crate) fn gpu() -> Option<GpuAdapter> {
    let found = pollster::block_on(adapters()).into_iter().next();
    if found.is_none() {
        assert!(std::env::var("DQRM_REQUIRE_GPU").as_deref() != Ok("1"), "DQRM_REQUIRE_GPU=1, but there is no adapter");
        writeln!(std::io::stderr(), "skipped: no graphics adapter").expect("standard error is open");
    }
    found
}
