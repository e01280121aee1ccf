//! Where all rows lie.

use super::file_rows::FileRows;
use crate::error::{Error, Result};
use std::ops::Range;

/// Memory or a file.
pub(super) enum Place {
    /// This computer's memory, mapped too: the system may refuse it without ending the program.
    Memory {
        /// Words of a row.
        width: usize,
        /// All rows.
        map: memmap2::MmapMut,
    },
    /// A file.
    File(FileRows),
}

fn words_of(map: &memmap2::MmapMut, first: usize, len: usize) -> &[u32] {
    &bytemuck::cast_slice(map)[first..first + len]
}

fn words_of_mut(map: &mut memmap2::MmapMut, first: usize, len: usize) -> &mut [u32] {
    &mut bytemuck::cast_slice_mut(map)[first..first + len]
}

impl Place {
    /// Memory for `rows` rows of `width` words, all zero; the system finds each page when it is first written.
    pub(super) fn in_memory(rows: u64, width: usize) -> Result<Place> {
        let words = rows.saturating_mul(width as u64);
        let bytes = words.checked_mul(4).and_then(|bytes| isize::try_from(bytes).ok());
        let bytes = bytes.ok_or_else(|| Error::Config(format!("tables of {words} values are larger than any memory")))?;
        let refused = |e| Error::Device(format!("the system refuses {bytes} bytes of memory for the tables on the host: {e}"));
        memmap2::MmapMut::map_anon(bytes.unsigned_abs()).map(|map| Place::Memory { width, map }).map_err(refused)
    }

    /// A row that is in memory for certain.
    pub(super) fn at_hand(&self, number: u64) -> Option<&[u32]> {
        match self {
            Place::Memory { width, map } => Some(words_of(map, number as usize * width, *width)),
            Place::File(rows) => rows.held(number),
        }
    }

    /// Those of the rows that are not in memory for certain, one after another.
    pub(super) fn fetch(&self, numbers: &[u64]) -> Vec<u32> {
        match self {
            Place::Memory { .. } => Vec::new(),
            Place::File(rows) => rows.fetch(numbers),
        }
    }

    /// A row.
    pub(super) fn row(&self, number: u64) -> &[u32] {
        match self {
            Place::Memory { width, map } => words_of(map, number as usize * width, *width),
            Place::File(rows) => rows.row(number),
        }
    }

    /// A row to be changed.
    pub(super) fn row_mut(&mut self, number: u64) -> &mut [u32] {
        match self {
            Place::Memory { width, map } => words_of_mut(map, number as usize * *width, *width),
            Place::File(rows) => rows.row_mut(number),
        }
    }

    /// Brings rows that changed to the file, where too many wait for it.
    pub(super) fn settle(&mut self) -> Result<()> {
        match self {
            Place::Memory { .. } => Ok(()),
            Place::File(rows) => rows.settle(),
        }
    }

    /// Some rows, all of them in their places, to change single words.
    pub(super) fn run_mut(&mut self, numbers: Range<u64>) -> Result<&mut [u32]> {
        match self {
            Place::Memory { width, map } => {
                Ok(words_of_mut(map, numbers.start as usize * *width, (numbers.end - numbers.start) as usize * *width))
            }
            Place::File(rows) => rows.run_mut(numbers),
        }
    }

    /// Runs `work`, which looks at rows from several threads.
    pub(super) fn look<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match self {
            Place::Memory { .. } => work(),
            Place::File(rows) => rows.waiting(work),
        }
    }

    /// Reads a run of words.
    pub(super) fn read_all(&self, first: u64, words: &mut [u32]) -> Result<()> {
        match self {
            Place::Memory { map, .. } => {
                words.copy_from_slice(words_of(map, first as usize, words.len()));
                Ok(())
            }
            Place::File(rows) => rows.read_all(first, words),
        }
    }

    /// Replaces a run of words.
    pub(super) fn write_all(&mut self, first: u64, words: &[u32]) -> Result<()> {
        match self {
            Place::Memory { map, .. } => {
                words_of_mut(map, first as usize, words.len()).copy_from_slice(words);
                Ok(())
            }
            Place::File(rows) => rows.write_all(first, words),
        }
    }
}
