//! Reading records of prepared data: their bytes, checks, and what they say.

use super::Prepared;
use crate::data::ids::capped;
use crate::data::{Block, Samples};
use crate::error::{Error, Result};

/// Rows whose records are asked for before the first of them is decoded, so that memory works on all of them.
const TOGETHER: usize = 32;
/// Bytes that memory brings at once.
const LINE: usize = 64;

/// Reads a byte of every line of memory that `records` lie in. These loads do not wait for each other, and a loop over the
/// records for each line ends as is guessed.
fn touched(records: &[&[u8]]) -> u8 {
    let longest = records.iter().map(|record| record.len()).max().unwrap_or(0);
    let byte = |at: usize| records.iter().fold(0, |sum, record| sum ^ record.get(at).or(record.last()).copied().unwrap_or(0));
    (0..longest + LINE).step_by(LINE).fold(0, |sum, at| sum ^ byte(at))
}

impl Prepared {
    fn damaged(&self, row: u64) -> Error {
        Error::Data(format!("prepared data `{}`: row {row} is damaged; delete the folder and it is made again", self.path.display()))
    }

    /// The record of a row.
    fn record(&self, row: u64) -> Result<&[u8]> {
        if row >= self.meta.rows {
            return Err(Error::Data(format!("row {row} does not exist; there are {}", self.meta.rows)));
        }
        let (start, end) = match &self.index {
            None => {
                let record = 4 * (1 + self.meta.dense + self.mapper.tables());
                (row as usize * record, (row as usize + 1) * record)
            }
            Some(index) => {
                let places = index.as_chunks::<8>().0;
                let at = |row: u64| places.get(row as usize).map_or(u64::MAX, |place| u64::from_le_bytes(*place));
                let (start, end) = (at(row), at(row + 1));
                if start > end || end - start > self.meta.longest {
                    return Err(self.damaged(row));
                }
                (start as usize, end as usize)
            }
        };
        self.records.get(start..end).ok_or_else(|| self.damaged(row))
    }

    /// Appends a record to `block`; `None` when it is damaged.
    fn decode(&self, record: &[u8], block: &mut Block) -> Option<()> {
        let (words, rest) = record.as_chunks::<4>();
        let (label, words) = words.split_first()?;
        let (dense, words) = words.split_at_checked(self.meta.dense)?;
        let (sizes, words) = words.split_at_checked(self.meta.multi_hot)?;
        block.labels.push(f32::from_le_bytes(*label));
        block.dense.extend(dense.iter().map(|w| f32::from_le_bytes(*w)));
        let one_hot = self.mapper.tables() - self.meta.multi_hot;
        let (ids, mut words) = words.split_at_checked(one_hot)?;
        let first = block.ids.len() as u32 + 1;
        let seen = |word: &[u8; 4]| u32::from_le_bytes(*word);
        match (&self.known, &self.renumbering) {
            (None, _) => block.ids.extend(ids.iter().map(seen)),
            (Some(known), None) if self.max_rows.is_none() => {
                // a product, since a branch would be guessed wrongly where unknown categories are not rare
                block.ids.extend(ids.iter().zip(known).map(|(id, &known)| seen(id) * u32::from(seen(id) <= known)));
            }
            _ => block.ids.extend(ids.iter().enumerate().map(|(k, id)| self.row(k, seen(id)))),
        }
        block.offsets.extend(first..first + one_hot as u32);
        for (k, size) in (one_hot..).zip(sizes) {
            let size = u32::from_le_bytes(*size) as usize;
            if size > self.meta.max_bag[k] {
                return None;
            }
            let (ids, rest) = words.split_at_checked(size)?;
            words = rest;
            block.ids.extend(ids.iter().map(|id| self.row(k, seen(id))));
            block.end_bag();
        }
        block.samples += 1;
        (words.is_empty() && rest.is_empty()).then_some(())
    }

    /// The row of what a record says of table `k`: a row, or a category's place, which the training part may not know.
    fn row(&self, k: usize, seen: u32) -> u32 {
        match (&self.known, &self.renumbering) {
            (None, _) => seen,
            (_, Some(renumbering)) => renumbering.row(k, seen),
            (Some(known), None) if seen > known[k] => 0,
            _ => capped(seen, self.max_rows),
        }
    }
}

impl Samples for Prepared {
    fn len(&self) -> u64 {
        self.meta.rows
    }

    fn dense(&self) -> usize {
        self.meta.dense
    }

    fn rows(&self) -> &[u64] {
        self.renumbering.as_ref().map_or(self.mapper.rows(), |renumbering| renumbering.rows())
    }

    fn max_bag(&self) -> &[usize] {
        &self.meta.max_bag
    }

    fn fetch(&self, indices: &[u64], block: &mut Block) -> Result<()> {
        let tables = self.mapper.tables();
        block.labels.reserve(indices.len());
        block.dense.reserve(indices.len() * self.meta.dense);
        block.ids.reserve(indices.len() * tables);
        block.offsets.reserve(indices.len() * tables);
        let mut records: Vec<&[u8]> = Vec::with_capacity(TOGETHER);
        for group in indices.chunks(TOGETHER) {
            records.clear();
            for &row in group {
                records.push(self.record(row)?);
            }
            std::hint::black_box(touched(&records));
            for (&row, record) in group.iter().zip(&records) {
                self.decode(record, block).ok_or_else(|| self.damaged(row))?;
            }
        }
        Ok(())
    }
}
