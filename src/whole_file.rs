//! Large files that are complete or absent, written piece by piece beside their final names.

use crate::error::{Error, Result};
use crate::partial::name as partial;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes files with `fill`, which gets one writer for each, and renames them in that order when all are
/// whole; leaves nothing behind otherwise.
pub(crate) fn write<T>(paths: &[&Path], fill: impl FnOnce(&mut [Output<'_>]) -> Result<T>) -> Result<T> {
    let outcome = write_partial(paths, fill);
    if outcome.is_err() {
        for path in paths {
            let _ = std::fs::remove_file(partial(path));
        }
    }
    outcome
}

fn write_partial<T>(paths: &[&Path], fill: impl FnOnce(&mut [Output<'_>]) -> Result<T>) -> Result<T> {
    let mut outputs = paths.iter().map(|path| Output::create(path)).collect::<Result<Vec<_>>>()?;
    let made = fill(&mut outputs)?;
    for output in outputs {
        let file = output.file.into_inner().map_err(|e| Error::io("write", output.path)(e.into_error()))?;
        file.sync_all().map_err(Error::io("write", output.path))?;
    }
    paths.iter().try_for_each(|path| std::fs::rename(partial(path), path).map_err(Error::io("write", *path)))?;
    Ok(made)
}

/// A file being written.
pub(crate) struct Output<'a> {
    file: BufWriter<File>,
    path: &'a Path,
}

impl<'a> Output<'a> {
    fn create(path: &'a Path) -> Result<Output<'a>> {
        let file = File::create(partial(path)).map_err(Error::io("create", path))?;
        Ok(Output { file: BufWriter::with_capacity(1 << 20, file), path })
    }

    /// Appends bytes.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io("write", self.path))
    }
}
