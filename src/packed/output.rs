//! The bytes of a packed file on their way to the disk or into memory.

use super::{CHECKSUM_KEY, CODES_CHECKSUM_KEY};
use crate::error::{Error, Result};
use crate::tensor_file::{checksum_place, checksum_text};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// The file being written, and its two checksums.
pub(super) struct Output<'a, W> {
    sink: W,
    hash: Xxh3,
    codes: Xxh3,
    /// The sink's name, for messages.
    path: &'a Path,
    /// Bytes written so far.
    pub(super) bytes: u64,
}

/// What bytes belong to.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Part {
    Header,
    Codes,
    Rest,
}

impl<'a, W: Write + Seek> Output<'a, W> {
    pub(super) fn new(sink: W, path: &'a Path) -> Output<'a, W> {
        Output { sink, hash: Xxh3::new(), codes: Xxh3::new(), path, bytes: 0 }
    }

    pub(super) fn put(&mut self, bytes: &[u8], part: Part) -> Result<()> {
        match part {
            Part::Header => {}
            Part::Codes => self.codes.update(bytes),
            Part::Rest => self.hash.update(bytes),
        }
        self.bytes += bytes.len() as u64;
        self.sink.write_all(bytes).map_err(Error::io("write", self.path))
    }

    /// Leaves a hole of zeros among the codes, which their checksum then does not cover.
    #[cfg(test)]
    pub(super) fn skip(&mut self, bytes: u64) -> Result<()> {
        self.bytes += bytes;
        self.sink.seek(SeekFrom::Current(bytes as i64)).map(|_| ()).map_err(Error::io("write", self.path))
    }

    /// Fills the checksums into the header; gives the length and the sink.
    pub(super) fn finish(mut self, mut header: Vec<u8>) -> Result<(u64, W)> {
        let mut fill = |key: &str, sum: u64| {
            let place = checksum_place(&header, key).ok_or_else(|| Error::Data(format!("the header has no `{key}`")))?;
            header[place..place + 16].copy_from_slice(checksum_text(sum).as_bytes());
            Ok::<_, Error>(header.clone())
        };
        let zeroed = fill(CODES_CHECKSUM_KEY, self.codes.digest())?;
        self.hash.update(&zeroed);
        let filled = fill(CHECKSUM_KEY, self.hash.digest())?;
        let failed = || Error::io("write", self.path);
        self.sink.seek(SeekFrom::Start(0)).map_err(failed())?;
        self.sink.write_all(&filled).map_err(failed())?;
        self.sink.flush().map_err(failed())?;
        Ok((self.bytes, self.sink))
    }
}
