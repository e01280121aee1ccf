//! Rows in a file, those that changed lately held in memory.

use super::file::{PIECE, RowFile};
use super::held::Held;
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::ops::Range;
use std::path::Path;

/// Threads that read rows of the file. A row that is not in memory is waited for, and the disk serves that many at a time;
/// measured on a virtual disk: 3,328 rows took 340 ms with one thread, 146 with 8 and 106 with 32.
const READERS: usize = 16;
/// Rows that one of them reads at a time.
const ROWS: usize = 64;
/// Runs of rows that one of them reads at a time.
const RUNS: usize = 16;
/// Rows of one page are written together, with what stands between them.
const PAGE: u64 = 1 << 12;

/// Rows of a file.
pub(super) struct FileRows {
    width: usize,
    file: RowFile,
    held: Held,
    readers: rayon::ThreadPool,
}

/// Ascending rows cut into runs that are written in one call: rows closer than a page, up to the bytes that a call writes.
fn runs(numbers: &[u64], width: usize) -> Vec<&[u64]> {
    let bytes = |rows: u64| rows.saturating_mul(4 * width as u64);
    let (mut runs, mut first) = (Vec::new(), 0);
    for i in 1..=numbers.len() {
        let goes_on = numbers
            .get(i)
            .is_some_and(|&number| bytes(number - numbers[i - 1] - 1) < PAGE && bytes(number + 1 - numbers[first]) <= PIECE as u64);
        if !goes_on {
            runs.push(&numbers[first..i]);
            first = i;
        }
    }
    runs
}

impl FileRows {
    /// Makes the file for `rows` rows of `width` words, all zero; rows that wait to be written take at most `held` bytes of memory.
    pub(super) fn create(dir: &Path, rows: u64, width: usize, held: u64) -> Result<FileRows> {
        let file = RowFile::create(dir, rows.saturating_mul(width as u64))?;
        let readers = rayon::ThreadPoolBuilder::new().num_threads(READERS).thread_name(|i| format!("rows {i}")).build();
        let readers = readers.map_err(|e| Error::Device(format!("cannot start threads that read the tables: {e}")))?;
        Ok(FileRows { width, file, held: Held::new(rows, width, held), readers })
    }

    /// Where rows lie in the file, in words.
    fn span(&self, rows: Range<u64>) -> Range<usize> {
        rows.start as usize * self.width..rows.end as usize * self.width
    }

    /// A row, if it is held.
    pub(super) fn held(&self, number: u64) -> Option<&[u32]> {
        self.held.get(number)
    }

    /// A row.
    pub(super) fn row(&self, number: u64) -> &[u32] {
        self.held(number).unwrap_or_else(|| &self.file.words()[self.span(number..number + 1)])
    }

    /// A row to be changed.
    pub(super) fn row_mut(&mut self, number: u64) -> &mut [u32] {
        self.held.hold(number, &self.file.words()[number as usize * self.width..][..self.width])
    }

    /// Those of the rows that are not held, one after another, read by several threads at once.
    pub(super) fn fetch(&self, numbers: &[u64]) -> Vec<u32> {
        let missing: Vec<u64> = numbers.iter().copied().filter(|&number| self.held(number).is_none()).collect();
        let mut fetched = vec![0; missing.len() * self.width];
        let copy = |(numbers, out): (&[u64], &mut [u32])| {
            for (&number, row) in numbers.iter().zip(out.chunks_exact_mut(self.width)) {
                row.copy_from_slice(&self.file.words()[self.span(number..number + 1)]);
            }
        };
        if !missing.is_empty() {
            self.readers.install(|| missing.par_chunks(ROWS).zip(fetched.par_chunks_mut(ROWS * self.width)).for_each(copy));
        }
        fetched
    }

    /// Runs `work` where it may wait for the disk at many places at once.
    pub(super) fn waiting<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.readers.install(work)
    }

    /// Writes rows where too many are held. Those that cannot be written stay.
    pub(super) fn settle(&mut self) -> Result<()> {
        let due = self.held.due();
        self.write(&due)
    }

    /// Writes the held ones of some rows; none of them is held afterwards.
    pub(super) fn flush(&mut self, rows: Range<u64>) -> Result<()> {
        let mut numbers: Vec<u64> = self.held.among(rows).map(|(number, _)| number).collect();
        numbers.sort_unstable();
        self.write(&numbers)
    }

    /// Writes held rows, whose numbers ascend, to the file.
    fn write(&mut self, numbers: &[u64]) -> Result<()> {
        if numbers.is_empty() {
            return Ok(());
        }
        let runs = runs(numbers, self.width);
        let whole = |run: &&[u64]| {
            let (first, last) = (run[0], run[run.len() - 1]);
            // brings its pages to memory too, which the system would otherwise do one after the other
            let mut words = self.file.words()[self.span(first..last + 1)].to_vec();
            for &number in *run {
                let row = &mut words[(number - first) as usize * self.width..][..self.width];
                self.held.get(number).into_iter().for_each(|new| row.copy_from_slice(new));
            }
            words
        };
        let words: Vec<Vec<u32>> = self.readers.install(|| runs.par_iter().with_min_len(RUNS).map(whole).collect());
        for (run, words) in runs.iter().zip(&words) {
            self.file.write_rows(run[0] * self.width as u64, words)?;
        }
        self.held.release(numbers);
        Ok(())
    }

    /// Some rows, none of which is held any longer, to change single words of them.
    pub(super) fn run_mut(&mut self, rows: Range<u64>) -> Result<&mut [u32]> {
        self.flush(rows.clone())?;
        let span = self.span(rows);
        Ok(&mut self.file.words_mut()[span])
    }

    /// Replaces a run of words.
    pub(super) fn write_all(&mut self, first: u64, words: &[u32]) -> Result<()> {
        let width = self.width as u64;
        self.flush(first / width..(first + words.len() as u64).div_ceil(width))?;
        self.file.write_all(first, words)
    }

    /// Replaces whole rows of which none is held; may be called from several threads at once.
    pub(super) fn write_free(&self, first: u64, words: &[u32]) -> Result<()> {
        self.file.write_all(first * self.width as u64, words)
    }

    /// Reads a run of words.
    pub(super) fn read_all(&self, first: u64, words: &mut [u32]) -> Result<()> {
        self.file.read_all(first, words)?;
        let (width, end) = (self.width as u64, first + words.len() as u64);
        for (number, row) in self.held.among(first / width..end.div_ceil(width)) {
            let begin = number * width;
            let (from, to) = (begin.max(first), (begin + width).min(end));
            let new = &row[(from - begin) as usize..(to - begin) as usize];
            words[(from - first) as usize..(to - first) as usize].copy_from_slice(new);
        }
        Ok(())
    }

    /// How many are held.
    #[cfg(test)]
    pub(super) fn held_rows(&self) -> usize {
        self.held.len()
    }

    /// The file can no longer be written.
    #[cfg(all(test, unix))]
    pub(super) fn break_file(&mut self) {
        self.file.break_file();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_written_together_where_they_share_pages() {
        assert_eq!(runs(&[], 16), Vec::<&[u64]>::new());
        let numbers: Vec<u64> = [0, 1, 64, 129, 193, 194].into();
        assert_eq!(runs(&numbers, 16), [&[0, 1, 64][..], &[129, 193, 194]], "64 rows between two is a page");
        let numbers: Vec<u64> = (7..600).collect();
        assert_eq!(runs(&numbers, 16).iter().map(|run| run.len()).collect::<Vec<_>>(), [256, 256, 81]);
        assert_eq!(runs(&[3, 4], 5000), [[3], [4]], "a row may be longer than a call writes");
    }

    #[test]
    fn what_is_read_and_written_in_runs_is_as_if_nothing_were_held() {
        let dir = tempfile::tempdir().unwrap();
        let mut rows = FileRows::create(dir.path(), 1000, 3, 1 << 20).unwrap();
        let words: Vec<u32> = (0..3000).collect();
        rows.write_all(0, &words).unwrap();
        for number in [0, 4, 999] {
            rows.row_mut(number)[1] = 7;
        }
        let mut expected = words.clone();
        [1, 13, 2998].into_iter().for_each(|at| expected[at] = 7);
        for (first, len) in [(0, 3000), (1, 2), (2, 2996), (13, 1), (14, 0), (2998, 2)] {
            let mut back = vec![0; len];
            rows.read_all(first as u64, &mut back).unwrap();
            assert_eq!(back, expected[first..first + len], "{first} {len}");
        }
        assert_eq!((rows.file.words(), rows.row(4)), (&words[..], &[12, 7, 14][..]), "held, so the file has the old values");
        assert_eq!(rows.fetch(&[0, 3, 4, 998]), [9, 10, 11, 2994, 2995, 2996]);
        rows.flush(0..5).unwrap();
        expected[2998] = 2998;
        assert_eq!((rows.file.words(), rows.held(4), rows.row(999)), (&expected[..], None, &[2997, 7, 2999][..]));
    }
}
