//! Samples: from text, from prepared files or from the generator, to batches a device can use.
//!
//! [`Block`] is what a source gives: dense features, labels and bags of row numbers.
//! [`Batch`] is what a step takes: the same with the touched rows listed once, sorted, and for
//! each of them the samples that used it. The update then needs no atomics and gives the same
//! bytes every time.

use crate::error::{Error, Result};
use crate::tables::Tables;
use unique::Lister;

#[cfg(feature = "cli")]
pub mod binary;
mod columns;
#[cfg(feature = "cli")]
pub mod dataset;
mod fields;
#[cfg(feature = "cli")]
mod folder;
pub mod ids;
#[cfg(feature = "cli")]
mod lines;
#[cfg(feature = "cli")]
pub mod loader;
#[cfg(feature = "cli")]
mod manifest;
pub mod order;
#[cfg(feature = "cli")]
pub mod parquet;
#[cfg(feature = "cli")]
mod pieces;
#[cfg(feature = "cli")]
mod prepare;
#[cfg(feature = "cli")]
mod progress;
pub mod pushed;
mod quick;
mod raw;
mod rows;
#[cfg(feature = "cli")]
mod source;
pub mod synthetic;
mod teacher;
#[cfg(feature = "cli")]
pub mod text;
#[cfg(feature = "cli")]
mod text_source;
mod transpose;
mod unique;
#[cfg(feature = "cli")]
pub mod values;
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

    /// Appends what samples `start..start + count` of `from` hold to predict from: everything but labels.
    ///
    /// # Panics
    /// When `from` has fewer samples.
    pub fn append(&mut self, from: &Block, start: usize, count: usize) {
        let samples = from.samples.max(1);
        let (dense, tables) = (from.dense.len() / samples, (from.offsets.len() - 1) / samples);
        let bags = &from.offsets[start * tables..=(start + count) * tables];
        let (first, last, shift) = (bags[0], bags[count * tables], self.ids.len() as u32);
        self.samples += count;
        self.dense.extend_from_slice(&from.dense[start * dense..(start + count) * dense]);
        self.ids.extend_from_slice(&from.ids[first as usize..last as usize]);
        self.offsets.extend(bags[1..].iter().map(|end| end - first + shift));
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
        Batch::with_scratch(block, tables, &mut Scratch::default())
    }

    /// The same, with memory that is used again.
    pub(crate) fn with_scratch(block: Block, tables: &Tables, scratch: &mut Scratch) -> Result<Batch> {
        let (n, k_count) = (block.samples, tables.count());
        let fits = block.offsets.len() == n * k_count + 1 && block.offsets.last().copied() == Some(block.ids.len() as u32);
        // not `all`, which ends early and so looks at one after the other
        let one_hot = block.ids.len() == n * k_count && block.offsets.iter().zip(0..).fold(true, |all, (&at, i)| all & (at == i));
        if !fits || (!one_hot && block.offsets.windows(2).any(|bag| bag[0] > bag[1])) {
            return Err(Error::Data(format!("{} bag offsets for {n} samples of {k_count} tables", block.offsets.len())));
        }
        let Block { samples, dense, labels, offsets, ids } = block;
        let touched = ids.len() / 2; // a guess
        let mut batch = Batch {
            cut: tables.fingerprint(),
            samples,
            dense,
            labels: if labels.is_empty() { vec![0.0; n] } else { labels },
            bag_rows: Vec::new(),
            bag_offsets: offsets,
            rows: Vec::with_capacity(touched),
            row_tables: Vec::with_capacity(touched),
            shard_offsets: vec![0; tables.shards() + 1],
            row_offsets: Vec::with_capacity(touched + 1),
            row_samples: vec![0; ids.len()],
        };
        batch.row_offsets.push(0);
        if one_hot {
            batch.add_one_hot(ids, tables, scratch)?
        } else {
            batch.add_bags(&ids, tables, &mut scratch.lister)?
        }
        for s in 0..tables.shards() {
            batch.shard_offsets[s + 1] += batch.shard_offsets[s];
        }
        Ok(batch)
    }

    /// Adds all tables of a batch whose bags hold one id each.
    fn add_one_hot(&mut self, mut ids: Vec<u32>, tables: &Tables, scratch: &mut Scratch) -> Result<()> {
        let (n, k_count) = (self.samples, tables.count());
        let Scratch { columns, places, lister } = scratch;
        columns.resize(ids.len(), 0);
        places.resize(ids.len(), 0);
        transpose::to_columns(&ids, k_count, columns);
        for table in 0..k_count {
            let column = table * n..(table + 1) * n;
            let places = &mut places[column.clone()];
            self.add_table(tables, table, &columns[column], lister, table * n, |occurrence, row| {
                places[occurrence] = row;
                occurrence as u32
            })?;
        }
        transpose::to_rows(places, n, &mut ids);
        self.bag_rows = ids;
        Ok(())
    }

    /// Adds all tables.
    fn add_bags(&mut self, ids: &[u32], tables: &Tables, lister: &mut Lister) -> Result<()> {
        let (k_count, mut filled) = (tables.count(), 0);
        let mut bag_rows = vec![0; ids.len()];
        // ids of a table, and (sample, place in `ids`) of each
        let (mut column, mut owners): (Vec<u32>, Vec<(u32, u32)>) = (Vec::new(), Vec::new());
        for table in 0..k_count {
            column.clear();
            owners.clear();
            for b in 0..self.samples {
                let bag = b * k_count + table;
                let places = self.bag_offsets[bag]..self.bag_offsets[bag + 1];
                column.extend_from_slice(&ids[places.start as usize..places.end as usize]);
                owners.extend(places.map(|place| (b as u32, place)));
            }
            self.add_table(tables, table, &column, lister, filled, |occurrence, row| {
                let (sample, place) = owners[occurrence];
                bag_rows[place as usize] = row;
                sample
            })?;
            filled += owners.len();
        }
        self.bag_rows = bag_rows;
        Ok(())
    }

    /// Adds one table's touched rows. `filled` occurrences stand before its own, `ids`; `owner` gets the number of an occurrence and
    /// its place in the list of touched rows, and gives the sample.
    fn add_table(
        &mut self,
        tables: &Tables,
        table: usize,
        ids: &[u32],
        lister: &mut Lister,
        filled: usize,
        mut owner: impl FnMut(usize, u32) -> u32,
    ) -> Result<()> {
        let rows = tables.rows()[table];
        if ids.is_empty() {
            return Ok(());
        }
        let largest = ids.iter().fold(0, |largest, &id| id.max(largest));
        if u64::from(largest) >= rows {
            return Err(Error::Data(format!("row {largest} of table {table} does not exist; the table has {rows} rows")));
        }
        let before = self.rows.len();
        let samples = &mut self.row_samples[filled..filled + ids.len()];
        lister.list(ids, largest, filled as u32, &mut self.rows, &mut self.row_offsets, |occurrence, place, at| {
            samples[at as usize] = owner(occurrence, before as u32 + place);
        });
        self.row_tables.resize(self.rows.len(), table as u32);
        // rows of the table become rows of its shards
        let mut left = &mut self.rows[before..];
        while let Some(&first) = left.first() {
            let (shard, inside) = tables.locate(table, u64::from(first));
            let end = u64::from(first) + tables.rows_in_shard(shard) - u64::from(inside);
            let (here, rest) = left.split_at_mut(left.partition_point(|&row| u64::from(row) < end));
            here.iter_mut().for_each(|row| *row = inside + (*row - first));
            self.shard_offsets[shard + 1] += here.len() as u32;
            left = rest;
        }
        Ok(())
    }

    /// Touched rows U.
    pub fn touched(&self) -> usize {
        self.rows.len()
    }
}

/// Memory that one batch after another is made with.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Ids table by table.
    columns: Vec<u32>,
    /// Their places in the list of touched rows.
    places: Vec<u32>,
    lister: Lister,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    /// What a batch says, from its definition.
    fn by_hand(block: &Block, tables: &Tables) -> Batch {
        let k_count = tables.count();
        let mut uses: std::collections::BTreeMap<(usize, u32), Vec<(u32, usize)>> = std::collections::BTreeMap::new();
        for (bag, places) in block.offsets.windows(2).enumerate() {
            for place in places[0]..places[1] {
                let list = uses.entry((bag % k_count, block.ids[place as usize])).or_default();
                list.push(((bag / k_count) as u32, place as usize));
            }
        }
        let mut batch = Batch {
            cut: tables.fingerprint(),
            samples: block.samples,
            dense: block.dense.clone(),
            labels: block.labels.clone(),
            bag_offsets: block.offsets.clone(),
            bag_rows: vec![0; block.ids.len()],
            ..Batch::default()
        };
        let mut shards = vec![0u32; tables.shards()];
        for (row, (&(table, id), list)) in uses.iter().enumerate() {
            let (shard, inside) = tables.locate(table, u64::from(id));
            shards[shard] += 1;
            batch.rows.push(inside);
            batch.row_tables.push(table as u32);
            batch.row_offsets.push(batch.row_samples.len() as u32);
            for &(sample, place) in list {
                batch.row_samples.push(sample);
                batch.bag_rows[place] = row as u32;
            }
        }
        batch.row_offsets.push(batch.row_samples.len() as u32);
        batch.shard_offsets = std::iter::once(0)
            .chain(shards.iter().scan(0, |sum, n| {
                *sum += n;
                Some(*sum)
            }))
            .collect();
        batch
    }

    #[test]
    fn batches_of_every_size_are_what_their_definition_says() {
        let rows = [3, 5000, 1, 70_000];
        for (case, (samples, most)) in (0u64..).zip([(1, 1), (7, 1), (700, 1), (1, 3), (300, 3), (64, 9)]) {
            let s = Stream::new(3, case);
            let mut block = Block::new();
            for b in 0..samples {
                for (k, &n) in (0u64..).zip(&rows) {
                    let size = if most == 1 { 1 } else { s.below(b * 8 + k, most + 1) };
                    let few = if b % 2 == 0 { n } else { n.min(5) };
                    block.ids.extend((0..size).map(|i| s.sub(1 + k).below(b * 16 + i, few) as u32));
                    block.end_bag();
                }
                block.dense.push(b as f32);
                block.labels.push(1.0);
                block.samples += 1;
            }
            for binding in [8 * 4, 4096, 1 << 30] {
                let tables = Tables::new(&rows, 1, binding).unwrap();
                assert!(Batch::prepare(&block, &tables).unwrap() == by_hand(&block, &tables), "{samples} samples, bags of {most}");
            }
        }
    }

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
