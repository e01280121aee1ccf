//! How embedding tables are cut into bindings. All rows of all tables form one sequence (table 0
//! first); the sequence is cut into equal shards, as large as one storage binding may be. A table
//! may begin or end anywhere inside a shard and may cover several. Rows are floats while training and
//! packed codes when a finished model predicts.

use crate::error::{Error, Result};

/// No shard is larger, in bytes, even where memory is the only limit: kernels count elements in 32 bits.
const MAX_SHARD: u64 = 1 << 33;

/// The same for packed rows: kernels count their bytes in 32 bits.
const MAX_PACKED_SHARD: u64 = 1 << 31;

/// The cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// Rows of each table.
    rows: Vec<u64>,
    /// First row of each table in the sequence, and the total at the end.
    base: Vec<u64>,
    /// Width of a row, in floats.
    dim: usize,
    /// Bytes of a row.
    row_bytes: usize,
    /// Rows of every shard but the last.
    shard_rows: u64,
}

/// A run of rows of one table inside one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The table.
    pub table: usize,
    /// The first row inside the table.
    pub table_row: u64,
    /// The shard.
    pub shard: usize,
    /// The first row inside the shard.
    pub shard_row: u64,
    /// Rows in the run.
    pub count: u64,
}

/// First row of each table in the sequence, and the total.
fn bases(rows: &[u64]) -> Vec<u64> {
    let sums = rows.iter().scan(0u64, |sum, &r| {
        *sum = sum.saturating_add(r);
        Some(*sum)
    });
    std::iter::once(0).chain(sums).collect()
}

impl Tables {
    /// Cuts tables of `rows` rows of `dim` floats so that no shard is larger than `max_binding` bytes.
    ///
    /// # Errors
    /// A row larger than a binding.
    pub fn new(rows: &[u64], dim: usize, max_binding: u64) -> Result<Tables> {
        let shard_rows = max_binding.min(MAX_SHARD) / (dim.max(1) as u64).saturating_mul(4);
        if shard_rows == 0 {
            return Err(Error::Config(format!("a row of {dim} floats is larger than one binding of {max_binding} bytes")));
        }
        Ok(Tables { rows: rows.to_vec(), base: bases(rows), dim, row_bytes: 4 * dim, shard_rows })
    }

    /// Cuts tables of packed rows, `row_bytes` bytes for `dim` codes. Every shard begins at a multiple
    /// of four bytes, and a float for each of its rows fits a binding too.
    ///
    /// # Errors
    /// Four rows larger than a binding.
    pub fn packed(rows: &[u64], dim: usize, row_bytes: usize, max_binding: u64) -> Result<Tables> {
        let shard_rows = max_binding.min(MAX_PACKED_SHARD) / row_bytes.max(4) as u64 / 4 * 4;
        if shard_rows == 0 {
            return Err(Error::Config(format!("four rows of {row_bytes} bytes are larger than one binding of {max_binding} bytes")));
        }
        Ok(Tables { rows: rows.to_vec(), base: bases(rows), dim, row_bytes, shard_rows })
    }

    /// The same tables in one piece, whatever its size: for rows that are numbered through and lie in no binding.
    pub(crate) fn in_one_piece(&self) -> Tables {
        Tables { shard_rows: u64::MAX, ..self.clone() }
    }

    /// A number that two cuts share only when they put every row in the same place: a batch that was
    /// prepared for one cut is refused by another.
    pub fn fingerprint(&self) -> u64 {
        let words = [self.shard_rows.min(self.total_rows())].into_iter().chain(self.rows.iter().copied());
        xxhash_rust::xxh3::xxh3_64(&words.flat_map(u64::to_le_bytes).collect::<Vec<u8>>())
    }

    /// Tables K.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// Rows of each table.
    pub fn rows(&self) -> &[u64] {
        &self.rows
    }

    /// Width of a row, in floats.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Rows of all tables.
    pub fn total_rows(&self) -> u64 {
        self.base[self.rows.len()]
    }

    /// Shards S.
    pub fn shards(&self) -> usize {
        self.total_rows().div_ceil(self.shard_rows) as usize
    }

    /// Rows in one shard.
    pub fn rows_in_shard(&self, shard: usize) -> u64 {
        (self.total_rows() - shard as u64 * self.shard_rows).min(self.shard_rows)
    }

    /// Where a shard begins in the sequence, in rows.
    pub fn first_row_of_shard(&self, shard: usize) -> u64 {
        shard as u64 * self.shard_rows
    }

    /// Shard and row inside it of `row` of `table`.
    pub fn locate(&self, table: usize, row: u64) -> (usize, u32) {
        let at = self.base[table] + row;
        ((at / self.shard_rows) as usize, (at % self.shard_rows) as u32)
    }

    /// The row inside `table` of a row inside a shard; the opposite of [`Tables::locate`].
    pub fn row_in_table(&self, table: usize, shard: usize, row: u32) -> u32 {
        (shard as u64 * self.shard_rows + row as u64 - self.base[table]) as u32
    }

    /// The pieces that rows `start..start + count` of `table` lie in, in order.
    pub fn segments(&self, table: usize, start: u64, count: u64) -> Vec<Segment> {
        let mut segments = Vec::new();
        let mut row = start;
        while row < start + count {
            let (shard, shard_row) = self.locate(table, row);
            let count = (start + count - row).min(self.shard_rows - shard_row as u64);
            segments.push(Segment { table, table_row: row, shard, shard_row: shard_row as u64, count });
            row += count;
        }
        segments
    }

    /// The pieces of all tables.
    pub fn all_segments(&self) -> Vec<Segment> {
        (0..self.count()).flat_map(|k| self.segments(k, 0, self.rows[k])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_lies_in_exactly_one_place() {
        let t = Tables::new(&[3, 25, 1, 7], 4, 10 * 16).unwrap();
        assert_eq!((t.shards(), t.rows_in_shard(3)), (4, 6));
        let mut seen = std::collections::HashSet::new();
        for s in t.all_segments() {
            for i in 0..s.count {
                assert_eq!(t.locate(s.table, s.table_row + i), (s.shard, (s.shard_row + i) as u32));
                assert!(seen.insert((s.shard, s.shard_row + i)));
            }
        }
        assert_eq!(seen.len(), 36);
        assert_eq!(t.segments(1, 0, 25).len(), 3, "table 1 lies over three shards");
    }

    #[test]
    fn elements_of_a_shard_are_counted_in_32_bits() {
        let t = Tables::new(&[40_000_000, 40_000_000], 128, u64::MAX).unwrap();
        assert!((0..t.shards()).all(|s| t.rows_in_shard(s) * 128 <= 1 << 31));
        assert_eq!(t.shards(), 5);
    }

    #[test]
    fn packed_shards_begin_on_words() {
        let t = Tables::packed(&[3, 50, 1, 7], 5, 3, 100).unwrap();
        assert_eq!((t.shards(), t.rows_in_shard(0), t.rows_in_shard(2)), (3, 24, 13));
        assert!((0..t.shards()).all(|s| (t.first_row_of_shard(s) * 3).is_multiple_of(4)));
        assert_eq!(Tables::packed(&[10_131_227], 16, 8, 128 << 20).unwrap().shards(), 1, "Kaggle's largest table fits llvmpipe's binding");
        assert!(Tables::packed(&[3], 5, 3, 15).is_err());
    }

    #[test]
    fn a_row_larger_than_a_binding_is_refused() {
        assert!(Tables::new(&[3], 1024, 4095).is_err());
        assert!(Tables::new(&[3], 1 << 62, u64::MAX).is_err());
    }
}
