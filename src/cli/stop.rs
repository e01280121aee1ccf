//! Ctrl-C: the first one asks the loop to stop and save, the second one ends the program.

use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit code of an interrupted run, as shells expect it.
pub(super) const INTERRUPTED: u8 = 130;

/// The loop shall stop.
pub(super) static STOP: AtomicBool = AtomicBool::new(false);
/// There is something to save: the first step may have been done.
pub(super) static SAVES: AtomicBool = AtomicBool::new(false);

/// Listens from now on.
pub(super) fn listen() -> Result<()> {
    let handler = || {
        if STOP.swap(true, Ordering::SeqCst) || !SAVES.load(Ordering::SeqCst) {
            super::note(if SAVES.load(Ordering::SeqCst) { "stopped at once" } else { "stopped; nothing had been trained yet" });
            std::process::exit(i32::from(INTERRUPTED));
        }
        super::note("stopping after this step (press Ctrl-C again to stop at once)");
    };
    ctrlc::set_handler(handler).map_err(|e| Error::Config(format!("cannot listen for Ctrl-C: {e}")))
}
