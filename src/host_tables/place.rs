//! Where the words of all rows lie.

use super::file::RowFile;
use crate::error::{Error, Result};

/// Memory or a file.
#[derive(Debug)]
pub(super) enum Place {
    /// This computer's memory, mapped too: the system may refuse it without ending the program.
    Memory(memmap2::MmapMut),
    /// A mapped file.
    File(RowFile),
}

impl Place {
    /// Memory for `words` words, all zero; the system finds each page when it is first written.
    pub(super) fn in_memory(words: u64) -> Result<Place> {
        let bytes = words.checked_mul(4).and_then(|bytes| isize::try_from(bytes).ok());
        let bytes = bytes.ok_or_else(|| Error::Config(format!("tables of {words} values are larger than any memory")))?;
        let refused = |e| Error::Device(format!("the system refuses {bytes} bytes of memory for the tables on the host: {e}"));
        memmap2::MmapMut::map_anon(bytes.unsigned_abs()).map(Place::Memory).map_err(refused)
    }

    /// All words.
    pub(super) fn words(&self) -> &[u32] {
        match self {
            Place::Memory(map) => bytemuck::cast_slice(map),
            Place::File(file) => file.words(),
        }
    }

    /// All words, to change single ones.
    pub(super) fn words_mut(&mut self) -> &mut [u32] {
        match self {
            Place::Memory(map) => bytemuck::cast_slice_mut(map),
            Place::File(file) => file.words_mut(),
        }
    }

    /// Reads a run of words.
    pub(super) fn read_all(&self, first: u64, words: &mut [u32]) -> Result<()> {
        match self {
            Place::Memory(_) => {
                words.copy_from_slice(&self.words()[first as usize..first as usize + words.len()]);
                Ok(())
            }
            Place::File(file) => file.read_all(first, words),
        }
    }

    /// Replaces a run of words.
    pub(super) fn write_all(&mut self, first: u64, words: &[u32]) -> Result<()> {
        match self {
            Place::Memory(_) => {
                self.words_mut()[first as usize..first as usize + words.len()].copy_from_slice(words);
                Ok(())
            }
            Place::File(file) => file.write_all(first, words),
        }
    }
}
