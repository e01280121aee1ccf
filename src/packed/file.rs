//! Packed models on the disk, mapped into memory: pages are read when a row in them is looked up.

use super::{Packed, VERSION_KEY};
use crate::error::{Error, Result};
use crate::mapped;
use crate::tensor_file;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// Maps a packed model and checks everything but the tables' codes.
///
/// # Errors
/// A file that cannot be read, or is no packed model, or is damaged.
pub fn open(path: &Path) -> Result<Packed> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let size = file.metadata().map_err(Error::io("read", path))?.len();
    let fail = |reason| Error::Checkpoint { path: path.into(), reason };
    // Too short for any header, and an empty file cannot be mapped.
    tensor_file::header_len(&[0; 8][..size.min(8) as usize], size).map_err(fail)?;
    // No value of the codes is invalid, and everything else is copied and checked once.
    Packed::decode(Arc::new(mapped::open(path)?)).map_err(fail)
}

/// True when a file's header says that it is a packed model; false for everything else, readable or not.
pub fn is_packed(path: &Path) -> bool {
    let Ok(mut file) = File::open(path) else { return false };
    let size = file.metadata().map_or(0, |m| m.len());
    let mut prefix = Vec::new();
    if (&mut file).take(8).read_to_end(&mut prefix).is_err() {
        return false;
    }
    let Ok(len) = tensor_file::header_len(&prefix, size) else { return false };
    if file.take(len).read_to_end(&mut prefix).is_err() {
        return false;
    }
    tensor_file::decode(&prefix, size).is_ok_and(|frame| frame.notes.contains_key(VERSION_KEY))
}
