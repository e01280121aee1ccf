//! The rows that a batch touches, as workers send them in each step.
//!
//! Table by table, nothing between the tables: a byte with the code, then
//!
//! | byte | code | holds |
//! |---|---|---|
//! | 0 | no row | |
//! | 1 | all rows of the table | |
//! | 2 | bitmap | count, then a bit for each row of the table, the first in the lowest bit |
//! | 3 | packed | count, then blocks of 128 deltas, the last one shorter: a byte with the width w, then w bits for each, the first in the lowest bits |
//! | 4 | varints | count, then a varint for each delta |
//!
//! A count is a varint and not 0. A varint is an LEB128 number without needless bytes, 5 at most. The
//! first delta is the first row, the others are the row minus the one before minus 1. A block's width is
//! that of its largest delta. A bitmap and a block end on a byte; bits that are left are 0. So each code
//! has one way to write a list, and [`encode`] takes the code of the fewest bytes, of equals the first:
//! the same lists are the same bytes on every rank.
//!
//! The codes are old ones; Lemire and Boytsov compare them ("Decoding billions of integers per second
//! through vectorization", arXiv 1209.2137).

use crate::data::Batch;
use crate::tables::Tables;

mod read;

pub use read::{decode, decode_into};

/// Deltas of a block.
const BLOCK: usize = 128;
/// Rows that numbers of 32 bits tell apart.
const MAX_ROWS: u64 = 1 << 32;
/// Bytes of the longest varint.
const MAX_VARINT: usize = 5;

/// The touched rows of K tables, strictly increasing inside each table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowLists {
    rows: Vec<u32>,
    offsets: Vec<usize>,
}

impl Default for RowLists {
    fn default() -> RowLists {
        RowLists::new()
    }
}

impl RowLists {
    /// Lists of no table.
    pub fn new() -> RowLists {
        RowLists { rows: Vec::new(), offsets: vec![0] }
    }

    /// The rows that a batch touches, each as its number inside its table.
    pub fn of(batch: &Batch, tables: &Tables) -> RowLists {
        let mut lists = RowLists::new();
        let mut rows = Vec::new();
        let (mut shard, mut next) = (0, 0);
        for table in 0..tables.count() {
            rows.clear();
            while next < batch.touched() && batch.row_tables[next] as usize == table {
                while batch.shard_offsets[shard + 1] as usize <= next {
                    shard += 1;
                }
                rows.push(tables.row_in_table(table, shard, batch.rows[next]));
                next += 1;
            }
            lists.push_table(&rows);
        }
        lists
    }

    /// Takes all tables out and keeps the memory.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.offsets.truncate(1);
    }

    /// Adds the rows of the next table.
    ///
    /// # Panics
    /// Rows that are not strictly increasing.
    pub fn push_table(&mut self, rows: &[u32]) {
        assert!(rows.is_sorted_by(|a, b| a < b), "rows of table {} are not strictly increasing", self.tables());
        self.rows.extend_from_slice(rows);
        self.offsets.push(self.rows.len());
    }

    /// Tables K.
    pub fn tables(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The rows of table `k`, which must be below [`RowLists::tables`].
    pub fn table(&self, k: usize) -> &[u32] {
        &self.rows[self.offsets[k]..self.offsets[k + 1]]
    }

    /// Rows in all tables together.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True when no table has a row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows of all tables, table by table.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Where each table's rows begin in [`RowLists::rows`], and the end, `[K + 1]`.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }
}

/// How the rows of one table are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Code {
    Empty,
    All,
    Bitmap,
    Packed,
    Varints,
}

impl Code {
    /// All codes, each at the place of its byte.
    const ALL: [Code; 5] = [Code::Empty, Code::All, Code::Bitmap, Code::Packed, Code::Varints];

    /// The codes that can write any list that has rows.
    const LISTS: [Code; 3] = [Code::Bitmap, Code::Packed, Code::Varints];
}

/// Bits of `value`; 0 for 0.
fn bits_of(value: u32) -> u32 {
    32 - value.leading_zeros()
}

/// Bytes of a delta as a varint.
fn varint_bytes(value: u32) -> u32 {
    1 + u32::from(value >= 1 << 7) + u32::from(value >= 1 << 14) + u32::from(value >= 1 << 21) + u32::from(value >= 1 << 28)
}

/// Bytes of `deltas` deltas of `width` bits.
fn packed_bytes(deltas: usize, width: u32) -> usize {
    (deltas * width as usize).div_ceil(8)
}

/// Calls `take` with the deltas of each block of `rows`.
fn each_block(rows: &[u32], mut take: impl FnMut(&[u32])) {
    let mut deltas = [0; BLOCK];
    let mut next = 0;
    for block in rows.chunks(BLOCK) {
        deltas[0] = block[0] - next;
        for (delta, pair) in deltas[1..].iter_mut().zip(block.windows(2)) {
            *delta = pair[1] - pair[0] - 1;
        }
        next = block[block.len() - 1].wrapping_add(1); // after row 2^32 - 1 there is no block
        take(&deltas[..block.len()]);
    }
}

/// The bits that any of `deltas` has.
fn union(deltas: &[u32]) -> u32 {
    deltas.iter().fold(0, |all, delta| all | delta)
}

/// Bytes after the count for each of [`Code::LISTS`], for `rows` of a table of `extent` rows.
fn sizes(rows: &[u32], extent: u64) -> [u64; 3] {
    let (mut packed, mut varints) = (0, 0);
    each_block(rows, |deltas| {
        packed += 1 + packed_bytes(deltas.len(), bits_of(union(deltas))) as u64;
        varints += u64::from(deltas.iter().map(|&delta| varint_bytes(delta)).sum::<u32>());
    });
    [extent.div_ceil(8), packed, varints]
}

/// The code of the fewest bytes.
fn choose(rows: &[u32], extent: u64) -> Code {
    if rows.is_empty() {
        return Code::Empty;
    }
    if rows.len() as u64 == extent {
        return Code::All;
    }
    let sizes = sizes(rows, extent);
    (0..3).min_by_key(|&i| sizes[i]).map_or(Code::Bitmap, |i| Code::LISTS[i])
}

/// Appends `lists`, which are of tables with `table_rows` rows (2^32 count where there are more), to `out`.
///
/// # Panics
/// Another number of tables, or a row outside its table.
pub fn encode(lists: &RowLists, table_rows: &[u64], out: &mut Vec<u8>) {
    assert_eq!(lists.tables(), table_rows.len(), "lists of rows do not fit the tables");
    for (k, extent) in table_rows.iter().map(|&rows| rows.min(MAX_ROWS)).enumerate() {
        let rows = lists.table(k);
        assert!(rows.last().is_none_or(|&row| u64::from(row) < extent), "table {k} has {extent} rows, not row {:?}", rows.last());
        write(rows, extent, choose(rows, extent), out);
    }
}

/// Writes the rows of one table in `code`, which can hold them.
fn write(rows: &[u32], extent: u64, code: Code, out: &mut Vec<u8>) {
    out.push(code as u8);
    if Code::LISTS.contains(&code) {
        write_varint(rows.len() as u64, out);
    }
    match code {
        Code::Empty | Code::All => {}
        Code::Bitmap => {
            let start = out.len();
            out.resize(start + extent.div_ceil(8) as usize, 0);
            let bitmap = &mut out[start..];
            rows.iter().for_each(|&row| bitmap[row as usize / 8] |= 1 << (row % 8));
        }
        Code::Packed => each_block(rows, |deltas| {
            let width = bits_of(union(deltas));
            out.push(width as u8);
            pack(deltas, width, out);
        }),
        Code::Varints => each_block(rows, |deltas| deltas.iter().for_each(|&delta| write_varint(u64::from(delta), out))),
    }
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes `width` bits of each delta, in words of 32 bits as long as they are full.
fn pack(deltas: &[u32], width: u32, out: &mut Vec<u8>) {
    let (mut word, mut used) = (0u64, 0);
    for &delta in deltas {
        word |= u64::from(delta) << used;
        used += width;
        if used >= 32 {
            out.extend_from_slice(&(word as u32).to_le_bytes());
            word >>= 32;
            used -= 32;
        }
    }
    out.extend_from_slice(&word.to_le_bytes()[..used.div_ceil(8) as usize]);
}

/// A bound on the bytes that [`encode`] writes, whatever the lists, where at most `most[k]` of the
/// `table_rows[k]` rows of table k are touched.
///
/// # Panics
/// Another number of limits than of tables.
pub fn most_bytes(table_rows: &[u64], most: &[u64]) -> u64 {
    assert_eq!(table_rows.len(), most.len(), "limits on rows do not fit the tables");
    let of_table = |(&rows, &most): (&u64, &u64)| {
        let extent = rows.min(MAX_ROWS);
        let most = most.min(extent);
        if most == 0 {
            return 1;
        }
        // No delta is larger than the table's last row, and no code shrinks when a delta or the count grows.
        let largest = (extent - 1) as u32;
        let block = |deltas: u64| u64::from(deltas > 0) + packed_bytes(deltas as usize, bits_of(largest)) as u64;
        let packed = most / BLOCK as u64 * block(BLOCK as u64) + block(most % BLOCK as u64);
        let varints = most * u64::from(varint_bytes(largest));
        1 + MAX_VARINT as u64 + extent.div_ceil(8).min(packed).min(varints)
    };
    table_rows.iter().zip(most).map(of_table).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests;
