//! What preparation reads: rows in columns, in rounds that all cores parse together.

use super::text::RawBlock;
use crate::error::Result;
use serde::{Deserialize, Serialize};

/// Rows, column by column.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Parsed {
    /// Rows n.
    pub(super) rows: usize,
    /// Labels, 0 or 1, `[n]`.
    pub(super) labels: Vec<f32>,
    /// Dense features, transformed, `[n, D]`.
    pub(super) dense: Vec<f32>,
    /// One for each table.
    pub(super) tables: Vec<Keys>,
    /// Malformed lines left out, and the first few of them.
    pub(super) skipped: u64,
    pub(super) messages: Vec<String>,
}

/// The categories of one table.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Keys {
    /// Categories in each row, `[n]`; empty for a table with one in each.
    pub(super) sizes: Vec<u32>,
    /// The categories of all rows.
    pub(super) keys: Vec<u64>,
}

impl Parsed {
    /// No rows of `tables` tables.
    pub(super) fn new(tables: usize) -> Parsed {
        Parsed { tables: vec![Keys::default(); tables], ..Parsed::default() }
    }

    /// Appends rows; tables from `one_hot` on have bags.
    pub(super) fn append(&mut self, raw: &RawBlock, one_hot: usize) {
        let k_count = self.tables.len();
        self.rows += raw.samples;
        self.labels.extend(raw.labels.iter().map(|label| label.unwrap_or(0.0)));
        self.dense.extend_from_slice(&raw.dense);
        if one_hot == k_count {
            for (k, table) in self.tables.iter_mut().enumerate() {
                table.keys.extend(raw.keys.iter().skip(k).step_by(k_count));
            }
            return;
        }
        for (i, bag) in raw.offsets.windows(2).enumerate() {
            let table = &mut self.tables[i % k_count];
            table.keys.extend_from_slice(&raw.keys[bag[0] as usize..bag[1] as usize]);
            if i % k_count >= one_hot {
                table.sizes.push(bag[1] - bag[0]);
            }
        }
    }
}

/// Where a round begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    /// Which file.
    pub(super) file: usize,
    /// Where in it: bytes of its text, or rows.
    pub(super) at: u64,
    /// Number of the line there, the first is 1.
    pub(super) line: u64,
}

/// Rows of several files in order.
pub(super) trait Source: Send {
    /// The next rows, parsed by all cores; none at the end.
    ///
    /// # Errors
    /// What cannot be read, and malformed rows unless they are skipped: the first of the round.
    fn round(&mut self) -> Result<Vec<Parsed>>;

    /// Where the next round begins.
    fn place(&self) -> Place;

    /// Columns of a line with label, where the columns are numbered and all files read so far agree.
    fn width(&self) -> Option<usize> {
        None
    }

    /// Bytes read so far, as they stand in the files.
    fn bytes_read(&self) -> u64;
}
