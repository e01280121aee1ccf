//! Once, or again whenever a file changes.

use super::super::print;
use super::{LabArgs, text};
use crate::error::Result;
use crate::lab::swap::Swap;
use std::io::IsTerminal;
use std::time::Duration;

/// How often files are looked at.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs `work` with the replacements; with --watch again and again, whatever it says.
pub(super) fn run(args: &LabArgs, mut work: impl FnMut(&[Swap]) -> Result<()>) -> Result<()> {
    if !args.watch {
        return work(&args.swaps()?);
    }
    // The text itself, not its time: an editor may write twice in a moment, or put another file in its place.
    let texts = || args.swap.iter().map(|spec| text(&spec.file)).collect::<Result<Vec<String>>>();
    let mut seen = texts()?;
    let files = args.swap.iter().map(|spec| spec.file.display().to_string()).collect::<Vec<_>>().join(", ");
    loop {
        if std::io::stdout().is_terminal() {
            print("\x1b[2J\x1b[3J\x1b[H")?;
        }
        match args.swaps().and_then(|swaps| work(&swaps)) {
            // Whoever read the output is gone.
            Err(error) if super::super::is_broken_pipe(&error) => return Err(error),
            Err(error) => print(&format!("error: {error}\n"))?,
            Ok(()) => {}
        }
        print(&format!("\nwaiting for a change of {files} (Ctrl-C ends)\n"))?;
        loop {
            std::thread::sleep(PAUSE);
            // A file that cannot be read is being written.
            if let Ok(now) = texts()
                && now != seen
            {
                seen = now;
                break;
            }
        }
    }
}
