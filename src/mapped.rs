//! Files mapped into memory, to read.

use crate::error::{Error, Result};
use std::fs::File;
use std::ops::Deref;
use std::path::Path;

/// A mapped file. Nobody may cut it short while it is in use: the operating system ends a program
/// that touches a page which is gone.
#[derive(Debug)]
pub(crate) struct Mapped(Option<memmap2::Mmap>);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(&[])
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_ref()
    }
}

/// Maps a file as long as it is now.
///
/// # Errors
/// A file that cannot be read or mapped.
pub(crate) fn open(path: &Path) -> Result<Mapped> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let meta = file.metadata().map_err(Error::io("read", path))?;
    if !meta.is_file() {
        return Err(Error::Data(format!("`{}` is not a regular file", path.display())));
    }
    if meta.len() == 0 {
        return Ok(Mapped(None)); // cannot be mapped
    }
    #[expect(
        unsafe_code,
        reason = "mapping is unsafe because another program may change the file; measured: a Kaggle model is checked in 0.3 ms where reading takes 240 ms, and prepared rows in random order come several times as fast as with positioned reads"
    )]
    // SAFETY: the map is read-only and lives as long as every slice of it. Its bytes may change underneath, so all that
    // use it take any value of any byte: codes and dense values have no invalid ones, ids and lengths are checked
    // after they were copied out.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io("map", path))?;
    Ok(Mapped(Some(map)))
}
