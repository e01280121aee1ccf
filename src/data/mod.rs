//! Samples: from text, from prepared files or from the generator, to batches a device can use.
//!
//! [`Block`] is what a source gives: dense features, labels and bags of row numbers.
//! [`Batch`] is what a step takes: the same with the touched rows listed once, sorted, and for
//! each of them the samples that used it. The update then needs no atomics and gives the same
//! bytes every time.

use crate::error::{Error, Result};
use crate::tables::Tables;
use unique::Sorter;

#[cfg(feature = "cli")]
pub mod binary;
#[cfg(feature = "cli")]
mod columns;
#[cfg(feature = "cli")]
pub mod dataset;
#[cfg(feature = "cli")]
mod fields;
#[cfg(feature = "cli")]
mod folder;
#[cfg(feature = "cli")]
pub mod ids;
#[cfg(feature = "cli")]
mod lines;
#[cfg(feature = "cli")]
pub mod loader;
#[cfg(feature = "cli")]
mod manifest;
#[cfg(feature = "cli")]
pub mod parquet;
#[cfg(feature = "cli")]
mod pieces;
#[cfg(feature = "cli")]
mod prepare;
#[cfg(feature = "cli")]
mod progress;
#[cfg(feature = "cli")]
mod quick;
#[cfg(feature = "cli")]
mod rows;
#[cfg(feature = "cli")]
mod source;
pub mod synthetic;
mod teacher;
#[cfg(feature = "cli")]
pub mod text;
#[cfg(feature = "cli")]
mod text_source;
mod unique;
#[cfg(feature = "cli")]
mod writer;
mod zipf;

/// Samples with their ids as row numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Block {
    /// Samples n.
    pub samples: usize,
    /// Dense features, transformed, `[n, D]`.
    pub dense: Vec<f32>,
    /// Labels, 0 or 1 (or any target for `mse`), `[n]`; empty when the data has none.
    pub labels: Vec<f32>,
    /// Where each bag begins in `ids`, sample by sample, and the end: `[n * K + 1]`, bag (b, k) at `b * K + k`.
    pub offsets: Vec<u32>,
    /// Row numbers inside their table.
    pub ids: Vec<u32>,
}

impl Block {
    /// A block without samples.
    pub fn new() -> Block {
        Block { offsets: vec![0], ..Block::default() }
    }

    /// Takes all samples out and keeps the memory.
    pub fn clear(&mut self) {
        self.samples = 0;
        self.dense.clear();
        self.labels.clear();
        self.offsets.clear();
        self.offsets.push(0);
        self.ids.clear();
    }

    /// Ends a bag: the ids pushed since the last call belong to it.
    pub fn end_bag(&mut self) {
        self.offsets.push(self.ids.len() as u32);
    }
}

/// A collection of samples that can be read in any order.
pub trait Samples: Send + Sync {
    /// Samples in all.
    fn len(&self) -> u64;
    /// True when there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Dense features D.
    fn dense(&self) -> usize;
    /// Rows of each table: every id given by `fetch` lies below.
    fn rows(&self) -> &[u64];
    /// The most ids one bag of each table may have.
    fn max_bag(&self) -> &[usize];
    /// Appends the samples numbered `indices` to `block`, in that order.
    fn fetch(&self, indices: &[u64], block: &mut Block) -> Result<()>;
}

/// Samples as a step takes them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// [`Tables::fingerprint`] of the cut that it was prepared for.
    pub cut: u64,
    /// Samples n.
    pub samples: usize,
    /// Dense features `[n, D]`.
    pub dense: Vec<f32>,
    /// Labels `[n]`; zeros when the data has none.
    pub labels: Vec<f32>,
    /// Where each bag begins in `bag_rows`, `[n * K + 1]`, bag (b, k) at `b * K + k`.
    pub bag_offsets: Vec<u32>,
    /// For each id of each bag, its place in the list of touched rows.
    pub bag_rows: Vec<u32>,
    /// Touched rows, each once, by table and row: the row inside its shard, `[U]`.
    pub rows: Vec<u32>,
    /// The table of each touched row, `[U]`.
    pub row_tables: Vec<u32>,
    /// Where each shard's rows begin in `rows`, and the end, `[S + 1]`.
    pub shard_offsets: Vec<u32>,
    /// Where each touched row's samples begin in `row_samples`, and the end, `[U + 1]`.
    pub row_offsets: Vec<u32>,
    /// The samples that used a row, in order, twice when an id stands twice in a bag.
    pub row_samples: Vec<u32>,
}

impl Batch {
    /// Sorts and deduplicates the ids of `block`.
    ///
    /// # Errors
    /// A row number outside its table, or lengths that do not fit the number of tables.
    pub fn prepare(block: &Block, tables: &Tables) -> Result<Batch> {
        Batch::from_block(block.clone(), tables)
    }

    /// The same, from a block that is not needed any more.
    ///
    /// # Errors
    /// As [`Batch::prepare`].
    pub fn from_block(block: Block, tables: &Tables) -> Result<Batch> {
        let (n, k_count) = (block.samples, tables.count());
        let fits = block.offsets.len() == n * k_count + 1 && block.offsets.last().copied() == Some(block.ids.len() as u32);
        if !fits || block.offsets.windows(2).any(|bag| bag[0] > bag[1]) {
            return Err(Error::Data(format!("{} bag offsets for {n} samples of {k_count} tables", block.offsets.len())));
        }
        let Block { samples, dense, labels, offsets, ids } = block;
        let touched = ids.len() / 2; // a guess
        let mut batch = Batch {
            cut: tables.fingerprint(),
            samples,
            dense,
            labels: if labels.is_empty() { vec![0.0; n] } else { labels },
            bag_rows: vec![0; ids.len()],
            bag_offsets: offsets,
            rows: Vec::with_capacity(touched),
            row_tables: Vec::with_capacity(touched),
            shard_offsets: vec![0; tables.shards() + 1],
            row_offsets: Vec::with_capacity(touched + 1),
            row_samples: Vec::with_capacity(ids.len()),
        };
        let one_hot = ids.len() == n * k_count && batch.bag_offsets.iter().zip(0..).all(|(&offset, i)| offset == i);
        let mut sorter = Sorter::default();
        for table in 0..k_count {
            batch.add_table(&ids, tables, table, one_hot, &mut sorter)?;
        }
        for s in 0..tables.shards() {
            batch.shard_offsets[s + 1] += batch.shard_offsets[s];
        }
        batch.row_offsets.push(batch.row_samples.len() as u32);
        Ok(batch)
    }

    /// Appends one table's touched rows. With `one_hot`, every bag of the batch holds one id.
    fn add_table(&mut self, ids: &[u32], tables: &Tables, table: usize, one_hot: bool, sorter: &mut Sorter) -> Result<()> {
        let (k_count, rows) = (tables.count(), tables.rows()[table]);
        // (sample, place in `ids`) of each occurrence, where they do not follow from its number
        let mut owners: Vec<(u32, u32)> = Vec::new();
        sorter.ids.clear();
        if one_hot {
            sorter.ids.extend(ids.iter().skip(table).step_by(k_count));
        } else {
            for b in 0..self.samples {
                let bag = b * k_count + table;
                let places = self.bag_offsets[bag]..self.bag_offsets[bag + 1];
                sorter.ids.extend_from_slice(&ids[places.start as usize..places.end as usize]);
                owners.extend(places.map(|place| (b as u32, place)));
            }
        }
        if let Some(id) = sorter.ids.iter().find(|&&id| u64::from(id) >= rows) {
            return Err(Error::Data(format!("row {id} of table {table} does not exist; the table has {rows} rows")));
        }
        // the shard of the last row, and the rows of the table that lie in it
        let (mut shard, mut first, mut inside, mut end) = (0, 0, 0, 0);
        sorter.sorted(rows, |id, occurrence, new| {
            if new {
                if u64::from(id) >= end {
                    first = u64::from(id);
                    (shard, inside) = tables.locate(table, first);
                    end = first + tables.rows_in_shard(shard) - u64::from(inside);
                }
                self.row_offsets.push(self.row_samples.len() as u32);
                self.rows.push(inside + (u64::from(id) - first) as u32);
                self.row_tables.push(table as u32);
                self.shard_offsets[shard + 1] += 1;
            }
            let (sample, place) = match owners.get(occurrence as usize) {
                Some(&owner) => owner,
                None => (occurrence, occurrence * k_count as u32 + table as u32),
            };
            self.row_samples.push(sample);
            self.bag_rows[place as usize] = self.rows.len() as u32 - 1;
        });
        Ok(())
    }

    /// Touched rows U.
    pub fn touched(&self) -> usize {
        self.rows.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> Block {
        // two samples, two tables; table 0: {2}, {0, 2, 2}; table 1: {}, {1}
        Block { samples: 2, dense: vec![0.0; 2], labels: vec![1.0, 0.0], offsets: vec![0, 1, 1, 4, 5], ids: vec![2, 0, 2, 2, 1] }
    }

    #[test]
    fn rows_are_listed_once_with_their_samples_in_order() {
        let tables = Tables::new(&[3, 2], 1, 8).unwrap(); // shards of two rows
        let batch = Batch::prepare(&block(), &tables).unwrap();
        assert_eq!(batch.rows, [0, 0, 0]);
        assert_eq!(batch.row_tables, [0, 0, 1]);
        assert_eq!(batch.shard_offsets, [0, 1, 2, 3]);
        assert_eq!(batch.row_offsets, [0, 1, 4, 5]);
        assert_eq!(batch.row_samples, [1, 0, 1, 1, 1]);
        assert_eq!(batch.bag_rows, [1, 0, 1, 1, 2]);
    }

    #[test]
    fn an_id_outside_its_table_is_an_error() {
        let tables = Tables::new(&[2, 2], 1, 8).unwrap();
        assert!(Batch::prepare(&block(), &tables).unwrap_err().to_string().contains("row 2 of table 0"));
    }
}
