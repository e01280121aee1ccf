//! Files that are complete or absent: written beside their final name, then renamed.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// `last.safetensors` is written as `last.safetensors.partial` first.
pub(crate) fn name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    path.with_file_name(name)
}

/// Writes a whole file.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = name(path);
    let outcome = std::fs::write(&partial, bytes).map_err(Error::io("write", &partial));
    finish(path, outcome)
}

/// Gives the partial file of `path` its name when all went well, else removes it.
pub(crate) fn finish<T>(path: &Path, outcome: Result<T>) -> Result<T> {
    let partial = name(path);
    let outcome = outcome.and_then(|value| std::fs::rename(&partial, path).map_err(Error::io("write", path)).map(|()| value));
    if outcome.is_err() {
        // the first error is the one to tell
        let _ = std::fs::remove_file(&partial);
    }
    outcome
}
