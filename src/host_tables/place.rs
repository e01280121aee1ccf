//! Where the words of all rows lie.

use super::file::RowFile;
use crate::error::Result;

/// Memory or a file.
#[derive(Debug)]
pub(super) enum Place {
    /// This computer's memory.
    Memory(Vec<u32>),
    /// A mapped file.
    File(RowFile),
}

impl Place {
    /// All words.
    pub(super) fn words(&self) -> &[u32] {
        match self {
            Place::Memory(words) => words,
            Place::File(file) => file.words(),
        }
    }

    /// All words, to change single ones.
    pub(super) fn words_mut(&mut self) -> &mut [u32] {
        match self {
            Place::Memory(words) => words,
            Place::File(file) => file.words_mut(),
        }
    }

    /// Reads a run of words.
    pub(super) fn read_all(&self, first: u64, words: &mut [u32]) -> Result<()> {
        match self {
            Place::Memory(all) => {
                words.copy_from_slice(&all[first as usize..first as usize + words.len()]);
                Ok(())
            }
            Place::File(file) => file.read_all(first, words),
        }
    }

    /// Replaces a run of words.
    pub(super) fn write_all(&mut self, first: u64, words: &[u32]) -> Result<()> {
        match self {
            Place::Memory(all) => {
                all[first as usize..first as usize + words.len()].copy_from_slice(words);
                Ok(())
            }
            Place::File(file) => file.write_all(first, words),
        }
    }
}
