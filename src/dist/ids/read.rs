//! Reading what [`encode`](super::encode) wrote, and nothing else.

use super::{BLOCK, Code, MAX_ROWS, MAX_VARINT, RowLists, bits_of, packed_bytes};

/// Bytes of the longest block.
const MAX_BLOCK: usize = 4 * BLOCK;

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        let cut = || format!("{count} bytes are needed, {} are left", self.0.len());
        let (taken, rest) = usize::try_from(count).ok().and_then(|n| self.0.split_at_checked(n)).ok_or_else(cut)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// A number below 2^35.
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for (i, &byte) in self.0.iter().enumerate().take(MAX_VARINT) {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                if byte == 0 && i > 0 {
                    return Err(format!("the varint of {value} has {} bytes, which are too many", i + 1));
                }
                self.0 = &self.0[i + 1..];
                return Ok(value);
            }
        }
        Err(match self.0.len() {
            0..MAX_VARINT => format!("the bytes end inside a varint, after {} of its bytes", self.0.len()),
            _ => format!("a varint has more than {MAX_VARINT} bytes"),
        })
    }
}

/// The lists that [`encode`](super::encode) wrote for the same tables; at most `most[k]` rows of table k can be touched.
/// A code that is not the shortest is accepted.
///
/// # Errors
/// Bytes that are anything else, in words that go after "rank 3". No memory is taken for more rows than
/// are allowed.
///
/// # Panics
/// Another number of limits than of tables.
pub fn decode(bytes: &[u8], table_rows: &[u64], most: &[u64]) -> Result<RowLists, String> {
    let mut lists = RowLists::new();
    decode_into(bytes, table_rows, most, &mut lists)?;
    Ok(lists)
}

/// Like [`decode`], in place of what `lists` held. After an error it holds no table.
///
/// # Errors
/// As [`decode`].
///
/// # Panics
/// As [`decode`].
pub fn decode_into(bytes: &[u8], table_rows: &[u64], most: &[u64], lists: &mut RowLists) -> Result<(), String> {
    assert_eq!(table_rows.len(), most.len(), "limits on rows do not fit the tables");
    lists.clear();
    let mut input = Input(bytes);
    let read = |(k, (&rows, &most)): (usize, (&u64, &u64))| {
        let what = |what| format!("sent bad rows of table {k}: {what}");
        read_table(&mut input, rows.min(MAX_ROWS), most, &mut lists.rows).map_err(what)?;
        lists.offsets.push(lists.rows.len());
        Ok(())
    };
    let outcome = table_rows.iter().zip(most).enumerate().try_for_each(read);
    let outcome = outcome.and_then(|()| match input.0.len() {
        0 => Ok(()),
        left => Err(format!("sent {left} bytes after the rows of all {} tables", table_rows.len())),
    });
    if outcome.is_err() {
        lists.clear();
    }
    outcome
}

/// Appends the rows of one table.
fn read_table(input: &mut Input, extent: u64, most: u64, rows: &mut Vec<u32>) -> Result<(), String> {
    let byte = input.byte()?;
    let Some(&code) = Code::ALL.get(usize::from(byte)) else { return Err(format!("there is no code {byte}")) };
    let count = match code {
        Code::Empty => 0,
        Code::All => extent,
        _ => input.varint()?,
    };
    if count > most.min(extent) {
        return Err(format!("{count} rows of {extent}; a batch touches at most {most}"));
    }
    if count == 0 && code != Code::Empty {
        return Err(format!("no row, as {code:?}"));
    }
    match code {
        Code::Empty => {}
        Code::All => {
            reserve(rows, count)?;
            rows.extend((0..extent).map(|row| row as u32));
        }
        Code::Bitmap => read_bitmap(input.take(extent.div_ceil(8))?, extent, count, rows)?,
        Code::Packed => read_packed(input, extent, count, rows)?,
        Code::Varints => read_varints(input, extent, count, rows)?,
    }
    Ok(())
}

fn reserve(rows: &mut Vec<u32>, count: u64) -> Result<(), String> {
    let reserved = usize::try_from(count).ok().and_then(|n| rows.try_reserve(n).ok());
    reserved.ok_or_else(|| format!("there is no memory for {count} rows"))
}

/// True when a bit of the last byte is set that does not belong to the first `bits` bits.
fn longer_than(bytes: &[u8], bits: u64) -> bool {
    let used = bits % 8;
    used > 0 && bytes.last().is_some_and(|&byte| byte >> used > 0)
}

fn read_bitmap(bitmap: &[u8], extent: u64, count: u64, rows: &mut Vec<u32>) -> Result<(), String> {
    let (words, rest) = bitmap.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = || words.iter().chain([&last]).map(|word| u64::from_le_bytes(*word));
    let found: u64 = words().map(|word| u64::from(word.count_ones())).sum();
    if found != count {
        return Err(format!("{count} rows announced, {found} in the bitmap"));
    }
    if longer_than(bitmap, extent) {
        return Err("bits are set after the end of the bitmap".into());
    }
    reserve(rows, count)?;
    for (i, mut word) in words().enumerate() {
        while word > 0 {
            rows.push((64 * i as u64 + u64::from(word.trailing_zeros())) as u32);
            word &= word - 1;
        }
    }
    Ok(())
}

fn read_packed(input: &mut Input, extent: u64, count: u64, rows: &mut Vec<u32>) -> Result<(), String> {
    let blocks = count.div_ceil(BLOCK as u64);
    if blocks > input.0.len() as u64 {
        return Err(format!("{count} rows announced, which are {blocks} blocks, in {} bytes", input.0.len()));
    }
    reserve(rows, count)?;
    let (mut left, mut next) = (count as usize, 0u64);
    // Seven bytes more than the longest block: each delta is read with the seven bytes after its first.
    let mut block = [0; MAX_BLOCK + 7];
    while left > 0 {
        let deltas = left.min(BLOCK);
        let width = u32::from(input.byte()?);
        if width > 32 {
            return Err(format!("deltas of {width} bits"));
        }
        let bytes = input.take(packed_bytes(deltas, width) as u64)?;
        block[..bytes.len()].copy_from_slice(bytes);
        let mask = (1u64 << width) - 1;
        let (mut at, mut union) = (0, 0);
        for _ in 0..deltas {
            let word = u64::from_le_bytes(block[at / 8..].first_chunk().copied().unwrap_or_default());
            let delta = word >> (at % 8) & mask;
            union |= delta;
            // 128 deltas below 2^32 on top of a row below 2^32: the sum is far from 2^64.
            next += delta;
            rows.push(next as u32);
            next += 1;
            at += width as usize;
        }
        if next > extent {
            return Err(format!("row {} of {extent}", next - 1));
        }
        let needed = bits_of(union as u32);
        if needed != width {
            return Err(format!("deltas of {needed} bits in {width}"));
        }
        if longer_than(bytes, at as u64) {
            return Err("bits are set after the end of a block".into());
        }
        left -= deltas;
    }
    Ok(())
}

fn read_varints(input: &mut Input, extent: u64, count: u64, rows: &mut Vec<u32>) -> Result<(), String> {
    if count > input.0.len() as u64 {
        return Err(format!("{count} rows announced in {} bytes", input.0.len()));
    }
    reserve(rows, count)?;
    let mut next = 0;
    for _ in 0..count {
        let row = next + input.varint()?;
        if row >= extent {
            return Err(format!("row {row} of {extent}"));
        }
        rows.push(row as u32);
        next = row + 1;
    }
    Ok(())
}
