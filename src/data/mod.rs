//! Samples: from text, from prepared files or from the generator, to batches a device can use.
//!
//! [`Block`] is what a source gives: dense features, labels and bags of row numbers.
//! [`Batch`] is what a step takes: the same with the touched rows listed once, sorted, and for
//! each of them the samples that used it. The update then needs no atomics and gives the same
//! bytes every time.

use crate::error::{Error, Result};
use crate::tables::Tables;

#[cfg(feature = "cli")]
mod columns;
#[cfg(feature = "cli")]
pub mod dataset;
#[cfg(feature = "cli")]
mod fields;
#[cfg(feature = "cli")]
pub mod ids;
#[cfg(feature = "cli")]
mod lines;
#[cfg(feature = "cli")]
pub mod loader;
#[cfg(feature = "cli")]
mod prepare;
pub mod synthetic;
mod teacher;
#[cfg(feature = "cli")]
pub mod text;
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
        let (n, k_count) = (block.samples, tables.count());
        if block.offsets.len() != n * k_count + 1 || block.offsets.last().copied() != Some(block.ids.len() as u32) {
            return Err(Error::Data(format!("{} bag offsets for {n} samples of {k_count} tables", block.offsets.len())));
        }
        let labels = if block.labels.is_empty() { vec![0.0; n] } else { block.labels.clone() };
        let mut batch = Batch {
            cut: tables.fingerprint(),
            samples: n,
            dense: block.dense.clone(),
            labels,
            bag_offsets: block.offsets.clone(),
            bag_rows: vec![0; block.ids.len()],
            shard_offsets: vec![0; tables.shards() + 1],
            row_samples: Vec::with_capacity(block.ids.len()),
            ..Batch::default()
        };
        let mut keys: Vec<u64> = Vec::new();
        let mut owners: Vec<u32> = Vec::new();
        for table in 0..k_count {
            keys.clear();
            owners.clear();
            for b in 0..n {
                let bag = b * k_count + table;
                for place in block.offsets[bag]..block.offsets[bag + 1] {
                    let id = block.ids[place as usize];
                    if id as u64 >= tables.rows()[table] {
                        return Err(Error::Data(format!(
                            "row {id} of table {table} does not exist; the table has {} rows",
                            tables.rows()[table]
                        )));
                    }
                    keys.push((id as u64) << 32 | owners.len() as u64);
                    owners.push(b as u32);
                }
            }
            keys.sort_unstable();
            batch.add_table(block, tables, table, &keys, &owners);
        }
        for s in 0..tables.shards() {
            batch.shard_offsets[s + 1] += batch.shard_offsets[s];
        }
        batch.row_offsets.push(batch.row_samples.len() as u32);
        Ok(batch)
    }

    /// Appends one table's touched rows; `keys` are (id, occurrence) in order, `owners` the sample of each occurrence.
    fn add_table(&mut self, block: &Block, tables: &Tables, table: usize, keys: &[u64], owners: &[u32]) {
        let k_count = tables.count();
        let mut places = Vec::with_capacity(owners.len());
        for b in 0..self.samples {
            let bag = b * k_count + table;
            places.extend(block.offsets[bag]..block.offsets[bag + 1]);
        }
        let mut last = None;
        for &key in keys {
            let (id, occurrence) = ((key >> 32) as u32, key as u32 as usize);
            if last != Some(id) {
                let (shard, row) = tables.locate(table, id as u64);
                self.row_offsets.push(self.row_samples.len() as u32);
                self.rows.push(row);
                self.row_tables.push(table as u32);
                self.shard_offsets[shard + 1] += 1;
                last = Some(id);
            }
            self.row_samples.push(owners[occurrence]);
            self.bag_rows[places[occurrence] as usize] = self.rows.len() as u32 - 1;
        }
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
