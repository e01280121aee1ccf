//! The largest magnitude of every table, kept up to date without looking at whole tables. Rows stand in blocks, each with its
//! largest magnitude. A row that gets a larger one raises its block's. Only when the row that held it gets a
//! smaller one does the block have to be looked at again, before somebody asks. So the cost grows with the rows that
//! change and not with the table, and the result is exactly that of a look at everything.

use std::ops::Range;

/// Rows of a block; the last of a table may have fewer.
pub(super) const BLOCK: u64 = 256;

/// Largest magnitudes as bits, in which order a NaN is larger than everything.
#[derive(Debug)]
pub(super) struct Largest {
    /// First row of each table, and the end.
    rows: Vec<u64>,
    /// First block of each table, and the end.
    blocks: Vec<usize>,
    /// Of each block; where it is unsure, not smaller than it should be.
    of_block: Vec<u32>,
    /// Which blocks are unsure.
    unsure: Vec<bool>,
}

impl Largest {
    /// Of tables that are all zero.
    pub(super) fn new(rows: &[u64]) -> Largest {
        let (mut first_row, mut first_block) = (vec![0], vec![0]);
        for (k, &n) in rows.iter().enumerate() {
            first_row.push(first_row[k] + n);
            first_block.push(first_block[k] + n.div_ceil(BLOCK) as usize);
        }
        let count = first_block[rows.len()];
        Largest { rows: first_row, blocks: first_block, of_block: vec![0; count], unsure: vec![false; count] }
    }

    /// First row of a table; that of the table after the last is the number of all rows.
    pub(super) fn first_row(&self, table: usize) -> u64 {
        self.rows[table]
    }

    /// The block of row `number`, which lies in `table`.
    fn block(&self, table: usize, number: u64) -> usize {
        self.blocks[table] + ((number - self.rows[table]) / BLOCK) as usize
    }

    /// The rows of a block of `table`.
    fn rows_of(&self, table: usize, block: usize) -> Range<u64> {
        let first = self.rows[table] + (block - self.blocks[table]) as u64 * BLOCK;
        first..(first + BLOCK).min(self.rows[table + 1])
    }

    /// The largest magnitude of row `number` of `table` goes from `old` to `new`.
    pub(super) fn row(&mut self, table: usize, number: u64, old: u32, new: u32) {
        let block = self.block(table, number);
        if new >= self.of_block[block] {
            (self.of_block[block], self.unsure[block]) = (new, false);
        } else if old >= self.of_block[block] {
            self.unsure[block] = true;
        }
    }

    /// Rows `rows` of `table` have new values whose largest magnitudes, block by block, are `of_pieces`.
    pub(super) fn run(&mut self, table: usize, rows: Range<u64>, of_pieces: &[u32]) {
        let first = self.block(table, rows.start);
        for (i, &largest) in of_pieces.iter().enumerate() {
            let all = self.rows_of(table, first + i);
            if rows.start <= all.start && all.end <= rows.end {
                (self.of_block[first + i], self.unsure[first + i]) = (largest, false);
            } else {
                self.of_block[first + i] = self.of_block[first + i].max(largest);
                self.unsure[first + i] = true;
            }
        }
    }

    /// Runs of rows of one table cut at the borders of its blocks.
    pub(super) fn pieces(&self, table: usize, rows: Range<u64>) -> Vec<Range<u64>> {
        if rows.is_empty() {
            return Vec::new();
        }
        let blocks = self.block(table, rows.start)..=self.block(table, rows.end - 1);
        blocks.map(|b| self.rows_of(table, b)).map(|all| all.start.max(rows.start)..all.end.min(rows.end)).collect()
    }

    /// The blocks to be looked at again, with their rows. They count as sure afterwards.
    pub(super) fn take_unsure(&mut self) -> Vec<(usize, Range<u64>)> {
        let mut found = Vec::new();
        for table in 0..self.rows.len() - 1 {
            let blocks = (self.blocks[table]..self.blocks[table + 1]).filter(|&b| self.unsure[b]);
            found.extend(blocks.map(|b| (b, self.rows_of(table, b))));
        }
        self.unsure.fill(false);
        found
    }

    /// What such a look found.
    pub(super) fn set(&mut self, block: usize, largest: u32) {
        self.of_block[block] = largest;
    }

    /// Of each table; no block may be unsure.
    pub(super) fn of_tables(&self) -> Vec<u32> {
        self.blocks.windows(2).map(|ends| self.of_block[ends[0]..ends[1]].iter().copied().max().unwrap_or(0)).collect()
    }
}
