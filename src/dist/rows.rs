//! Gradients of embedding rows as they travel: the scales of the tables that have rows in it, then the codes
//! of row after row. Which rows they are was said before ([`super::ids`]).

use super::ids::RowLists;
use std::ops::Range;

/// Gradients as codes, in bytes, and their scales; FP32 values and no scales where nothing is quantized.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Coded {
    /// One for each table, or for each group of an MLP part; empty in FP32.
    pub scales: Vec<f32>,
    /// Codes as in `quant::gradient`, or FP32 values, little-endian. Each tensor begins on a byte.
    pub bytes: Vec<u8>,
}

impl Coded {
    /// True unless a gradient was NaN or infinite, which shows in its scale.
    pub fn is_finite(&self) -> bool {
        self.scales.iter().all(|s| s.is_finite()) && (!self.scales.is_empty() || first_not_finite(&self.bytes).is_none())
    }
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowForm {
    /// Width of a row.
    pub dim: usize,
    /// Bits of a code; 32 is FP32.
    pub bits: u32,
    /// Scales travel with the codes. (They do not in FP32, and where all ranks know them.)
    pub scales: bool,
}

impl RowForm {
    /// Bytes of a row's codes.
    pub fn row_bytes(&self) -> usize {
        self.dim * self.bits as usize / 8
    }

    /// Bytes of the scales of a run.
    pub fn scale_bytes(&self, lists: &RowLists, run: &Range<usize>) -> usize {
        if self.scales { 4 * pieces(lists, run).count() } else { 0 }
    }

    /// Bytes of a run of rows.
    pub fn bytes(&self, lists: &RowLists, run: &Range<usize>) -> usize {
        self.scale_bytes(lists, run) + run.len() * self.row_bytes()
    }

    /// Writes a run of the rows of `lists`. `coded` holds all of them, with a scale for each table.
    pub fn write(&self, coded: &Coded, lists: &RowLists, run: &Range<usize>) -> Vec<u8> {
        let mut payload = Vec::with_capacity(self.bytes(lists, run));
        if self.scales {
            pieces(lists, run).for_each(|(table, _)| payload.extend_from_slice(&coded.scales[table].to_le_bytes()));
        }
        payload.extend_from_slice(&coded.bytes[run.start * self.row_bytes()..run.end * self.row_bytes()]);
        payload
    }

    /// Checks what a peer wrote of a run of its rows.
    ///
    /// # Errors
    /// What is wrong, in words that go after "rank 3".
    pub fn check(&self, payload: &[u8], lists: &RowLists, run: &Range<usize>) -> Result<(), String> {
        let wanted = self.bytes(lists, run);
        if payload.len() != wanted {
            return Err(format!("sent {} bytes for {} rows, which take {wanted}", payload.len(), run.len()));
        }
        for (i, (table, _)) in pieces(lists, run).enumerate().take_while(|_| self.scales) {
            let scale = float(payload, i);
            if !(scale.is_finite() && scale >= 0.0) {
                return Err(format!("sent the scale {scale} for table {table}"));
            }
        }
        if self.bits == 32
            && let Some(place) = first_not_finite(payload)
        {
            return Err(format!("sent a gradient that is not finite for its row {}", run.start + place / self.dim.max(1)));
        }
        Ok(())
    }

    /// Adds a run of rows that was checked to `sums` `[rows, D]`: the i-th one to row `places[i]`, times its scale if
    /// that travelled.
    pub fn add(&self, payload: &[u8], lists: &RowLists, run: &Range<usize>, places: impl Fn(usize) -> usize, sums: &mut [f32]) {
        let (scales, codes) = payload.split_at(self.scale_bytes(lists, run));
        let (dim, width) = (self.dim, self.row_bytes());
        for (i, (_, piece)) in pieces(lists, run).enumerate() {
            let scale = if self.scales { float(scales, i) } else { 1.0 };
            for row in piece {
                let codes = &codes[(row - run.start) * width..][..width];
                let at = places(row) * dim;
                add_row(codes, self.bits, scale, &mut sums[at..at + dim]);
            }
        }
    }
}

/// The tables that have rows in a run, and which.
fn pieces(lists: &RowLists, run: &Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let run = run.clone();
    let offsets = lists.offsets();
    (0..lists.tables())
        .map(move |table| (table, offsets[table].max(run.start)..offsets[table + 1].min(run.end)))
        .filter(|(_, rows)| rows.start < rows.end)
}

/// The table of each row of a run, with the rows.
pub fn tables_in(lists: &RowLists, run: &Range<usize>) -> Vec<(usize, Range<usize>)> {
    pieces(lists, run).collect()
}

fn float(bytes: &[u8], i: usize) -> f32 {
    f32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
}

/// The place of the first of these FP32 values that is not finite.
pub fn first_not_finite(bytes: &[u8]) -> Option<usize> {
    const INFINITY: u32 = 0x7f80_0000;
    let magnitude = |b: &[u8; 4]| u32::from_le_bytes(*b) & 0x7fff_ffff;
    let (values, _) = bytes.as_chunks::<4>();
    // Nearly always all are finite: one pass without branches says so.
    let largest = values.iter().fold(0, |largest, b| magnitude(b).max(largest));
    if largest < INFINITY { None } else { values.iter().position(|b| magnitude(b) >= INFINITY) }
}

#[inline]
fn add_row(codes: &[u8], bits: u32, scale: f32, sums: &mut [f32]) {
    match bits {
        4 => sums.chunks_exact_mut(2).zip(codes).for_each(|(pair, &code)| {
            pair[0] += scale * f32::from((code as i8) << 4 >> 4);
            pair[1] += scale * f32::from(code as i8 >> 4);
        }),
        8 => sums.iter_mut().zip(codes).for_each(|(sum, &code)| *sum += scale * f32::from(code as i8)),
        16 => sums
            .iter_mut()
            .zip(codes.chunks_exact(2))
            .for_each(|(sum, code)| *sum += scale * f32::from(i16::from_le_bytes([code[0], code[1]]))),
        _ => sums.iter_mut().zip(codes.chunks_exact(4)).for_each(|(sum, v)| *sum += f32::from_le_bytes([v[0], v[1], v[2], v[3]])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists() -> RowLists {
        let mut lists = RowLists::default();
        [&[3u32, 5][..], &[], &[0, 1, 2]].iter().for_each(|rows| lists.push_table(rows));
        lists
    }

    #[test]
    fn rows_come_back_where_they_belong() {
        let form = RowForm { dim: 2, bits: 8, scales: true };
        let coded = Coded { scales: vec![0.5, 9.0, 2.0], bytes: vec![1, 2, 3, 4, 255, 6, 7, 8, 9, 128] };
        let payload = form.write(&coded, &lists(), &(1..4));
        assert_eq!(payload.len(), 2 * 4 + 3 * 2, "two tables have rows in the run");
        form.check(&payload, &lists(), &(1..4)).unwrap();
        let mut sums = vec![1.0; 12];
        form.add(&payload, &lists(), &(1..4), |row| row + 1, &mut sums);
        assert_eq!(sums, [1.0, 1.0, 1.0, 1.0, 2.5, 3.0, -1.0, 13.0, 15.0, 17.0, 1.0, 1.0]);
    }

    #[test]
    fn every_width_is_read_as_it_was_written() {
        let value = [-3.0f32, 7.0];
        for (bits, bytes) in
            [(4u32, vec![0x7d]), (8, vec![253, 7]), (16, vec![253, 255, 7, 0]), (32, value.iter().flat_map(|v| v.to_le_bytes()).collect())]
        {
            let mut sums = [0.0; 2];
            add_row(&bytes, bits, 1.0, &mut sums);
            assert_eq!(sums, value, "{bits} bits");
        }
    }

    #[test]
    fn lies_about_rows_are_refused() {
        let form = RowForm { dim: 2, bits: 8, scales: true };
        let coded = Coded { scales: vec![0.5, 9.0, f32::NAN], bytes: vec![0; 10] };
        let payload = form.write(&coded, &lists(), &(0..5));
        assert!(form.check(&payload, &lists(), &(0..5)).unwrap_err().contains("the scale NaN for table 2"));
        assert!(form.check(&payload[1..], &lists(), &(0..5)).unwrap_err().contains("17 bytes for 5 rows, which take 18"));
        let form = RowForm { dim: 2, bits: 32, scales: false };
        let values = [0.0, 1.0, 2.0, f32::INFINITY].iter().flat_map(|v: &f32| v.to_le_bytes()).collect::<Vec<u8>>();
        assert!(form.check(&values, &lists(), &(0..2)).unwrap_err().contains("row 1"));
    }
}
