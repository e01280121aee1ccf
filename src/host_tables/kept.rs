//! What memory or the file holds, in rows and tables.

use super::file::RowFile;
use super::largest::Largest;
use super::place::Place;
use crate::error::{Error, Result};
use crate::session::{RowLayout, Rows};
use rayon::prelude::*;
use std::ops::Range;
use std::path::Path;

/// Threads that read rows of a file. A row that is not in memory is waited for, and the disk serves that many at a time;
/// measured on a virtual disk: 3,328 rows took 340 ms with one thread, 146 with 8 and 106 with 32.
const READERS: usize = 16;
/// Rows that one of them reads at a time.
const ROWS: usize = 64;

/// Rows with their state, and the tables' largest magnitudes.
pub(super) struct Kept {
    layout: RowLayout,
    place: Place,
    largest: Largest,
    /// Of a file.
    readers: Option<rayon::ThreadPool>,
}

/// The largest magnitude, as bits.
fn max_abs(words: &[u32]) -> u32 {
    words.iter().fold(0, |m, w| m.max(w & 0x7fff_ffff))
}

/// The largest magnitude among the weights of rows of `width` words.
fn max_abs_rows(words: &[u32], width: usize, dim: usize) -> u32 {
    if width == dim { max_abs(words) } else { words.chunks_exact(width).map(|row| max_abs(&row[..dim])).max().unwrap_or(0) }
}

/// Makes the weights of whole rows, from the table's value `start` on; their state is 0. Gives the largest magnitude.
fn make_rows(words: &mut [u32], width: usize, dim: usize, start: u64, make: &(dyn Fn(u64, &mut [f32]) + Sync)) -> u32 {
    let values: &mut [f32] = bytemuck::cast_slice_mut(words);
    if width == dim {
        make(start, values);
    } else {
        for (row, place) in values.chunks_exact_mut(width).zip((start..).step_by(dim)) {
            make(place, &mut row[..dim]);
            row[dim..].fill(0.0);
        }
    }
    max_abs_rows(words, width, dim)
}

impl Kept {
    /// Takes memory.
    pub(super) fn in_memory(layout: &RowLayout) -> Result<Kept> {
        let place = Place::in_memory(layout.total_rows().saturating_mul(layout.width() as u64))?;
        Ok(Kept { largest: Largest::new(&layout.rows), layout: layout.clone(), place, readers: None })
    }

    /// Makes the file.
    pub(super) fn in_file(dir: &Path, layout: &RowLayout) -> Result<Kept> {
        let place = Place::File(RowFile::create(dir, layout.total_rows().saturating_mul(layout.width() as u64))?);
        let readers = rayon::ThreadPoolBuilder::new().num_threads(READERS).thread_name(|i| format!("rows {i}")).build();
        let readers = readers.map_err(|e| Error::Device(format!("cannot start threads that read the tables: {e}")))?;
        Ok(Kept { largest: Largest::new(&layout.rows), layout: layout.clone(), place, readers: Some(readers) })
    }

    /// Where rows are, for people.
    pub(super) fn place(&self) -> &'static str {
        match self.place {
            Place::Memory(_) => "memory",
            Place::File(_) => "a file",
        }
    }

    /// Where rows lie, in words.
    fn span(&self, rows: Range<u64>) -> Range<usize> {
        let width = self.layout.width();
        rows.start as usize * width..rows.end as usize * width
    }

    /// Copies rows out.
    pub(super) fn read(&self, numbers: Vec<u64>) -> Rows {
        let (dim, width, all) = (self.layout.dim, self.layout.width(), self.place.words());
        let copy = |from: usize, to: usize| {
            let wide = to - from;
            let mut out = vec![0; numbers.len() * wide];
            if wide > 0 {
                let some = |(numbers, out): (&[u64], &mut [u32])| {
                    for (&number, row) in numbers.iter().zip(out.chunks_exact_mut(wide)) {
                        let at = number as usize * width;
                        row.copy_from_slice(&all[at + from..at + to]);
                    }
                };
                match &self.readers {
                    Some(readers) => {
                        readers.install(|| numbers.par_chunks(ROWS).zip(out.par_chunks_mut(ROWS * wide)).for_each(some));
                    }
                    None => some((&numbers, &mut out)),
                }
            }
            out
        };
        let (weights, state) = (copy(0, dim), copy(dim, width));
        Rows { numbers, weights, state }
    }

    /// Copies rows in.
    pub(super) fn write(&mut self, rows: &Rows) {
        let (dim, width, state) = (self.layout.dim, self.layout.width(), self.layout.state);
        let mut table = 0;
        for (i, &number) in rows.numbers.iter().enumerate() {
            while number >= self.largest.first_row(table + 1) {
                table += 1;
            }
            let place = self.span(number..number + 1);
            let row = &mut self.place.words_mut()[place];
            let new = &rows.weights[i * dim..(i + 1) * dim];
            let (before, after) = (max_abs(&row[..dim]), max_abs(new));
            row[..dim].copy_from_slice(new);
            row[dim..width].copy_from_slice(&rows.state[i * state..(i + 1) * state]);
            self.largest.row(table, number, before, after);
        }
    }

    /// The largest magnitude of each table.
    pub(super) fn largest(&mut self) -> Vec<u32> {
        let (dim, width) = (self.layout.dim, self.layout.width());
        let unsure = self.largest.take_unsure();
        let look = |(block, rows): &(usize, Range<u64>)| (*block, max_abs_rows(&self.place.words()[self.span(rows.clone())], width, dim));
        let look_at_all = || unsure.par_iter().map(look).collect();
        let found: Vec<(usize, u32)> = match &self.readers {
            Some(readers) => readers.install(look_at_all),
            None => look_at_all(),
        };
        found.into_iter().for_each(|(block, largest)| self.largest.set(block, largest));
        self.largest.of_tables()
    }

    /// Sets rows of a table to what `make` gives, and their state to 0.
    pub(super) fn fill(&mut self, table: usize, first: u64, count: u64, make: &(dyn Fn(u64, &mut [f32]) + Sync)) -> Result<()> {
        let (dim, width, base) = (self.layout.dim, self.layout.width(), self.largest.first_row(table));
        let rows = base + first..base + first + count;
        let (pieces, span) = (self.largest.pieces(table, rows.clone()), self.span(rows.clone()));
        let words_of = |piece: &Range<u64>| (piece.end - piece.start) as usize * width;
        let start_of = |piece: &Range<u64>| (piece.start - base) * dim as u64;
        let found: Vec<u32> = match &mut self.place {
            Place::Memory(map) => {
                let mut rest: &mut [u32] = &mut bytemuck::cast_slice_mut(map)[span];
                let cut = |piece| rest.split_off_mut(..words_of(piece)).map(|words| (start_of(piece), words));
                let cut: Vec<(u64, &mut [u32])> = pieces.iter().filter_map(cut).collect();
                cut.into_par_iter().map(|(start, words)| make_rows(words, width, dim, start, make)).collect()
            }
            Place::File(file) => {
                let one = |words: &mut Vec<u32>, piece: &Range<u64>| -> Result<u32> {
                    words.resize(words_of(piece), 0);
                    let largest = make_rows(words, width, dim, start_of(piece), make);
                    file.write_all(piece.start * width as u64, words)?;
                    Ok(largest)
                };
                pieces.par_iter().map_init(Vec::new, one).collect::<Result<_>>()?
            }
        };
        self.largest.run(table, rows, &found);
        Ok(())
    }

    /// Width and first word of a table's weights or state inside a row.
    fn part(&self, state: bool) -> (usize, usize) {
        if state { (self.layout.state, self.layout.dim) } else { (self.layout.dim, 0) }
    }

    /// The rows that hold values `start..start + len` of a table's weights or state.
    fn rows_with(&self, table: usize, wide: usize, start: u64, len: usize) -> Range<u64> {
        let base = self.largest.first_row(table);
        base + start / wide as u64..base + (start + len as u64).div_ceil(wide as u64)
    }

    /// Values of a table's weights or state.
    pub(super) fn read_values(&self, table: usize, state: bool, start: u64, values: &mut [f32]) -> Result<()> {
        let ((wide, offset), width) = (self.part(state), self.layout.width());
        if values.is_empty() || wide == 0 {
            return Ok(());
        }
        let base = self.largest.first_row(table);
        if wide == width {
            return self.place.read_all(base * width as u64 + start, bytemuck::cast_slice_mut(values));
        }
        let rows = self.rows_with(table, wide, start, values.len());
        let mut words = vec![0; (rows.end - rows.start) as usize * width];
        self.place.read_all(rows.start * width as u64, &mut words)?;
        let skipped = (start - (rows.start - base) * wide as u64) as usize;
        let found = words.chunks_exact(width).flat_map(|row| &row[offset..offset + wide]).skip(skipped);
        values.iter_mut().zip(found).for_each(|(v, &w)| *v = f32::from_bits(w));
        Ok(())
    }

    /// Replaces them.
    pub(super) fn write_values(&mut self, table: usize, state: bool, start: u64, values: &[f32]) -> Result<()> {
        let ((wide, offset), (dim, width)) = (self.part(state), (self.layout.dim, self.layout.width()));
        if values.is_empty() || wide == 0 {
            return Ok(());
        }
        let rows = self.rows_with(table, wide, start, values.len());
        let (base, span) = (self.largest.first_row(table), self.span(rows.clone()));
        if wide == width {
            self.place.write_all(base * width as u64 + start, bytemuck::cast_slice(values))?;
        } else {
            let skipped = (start - (rows.start - base) * wide as u64) as usize;
            let words = self.place.words_mut()[span.clone()].chunks_exact_mut(width).flat_map(|row| &mut row[offset..offset + wide]);
            words.skip(skipped).zip(values).for_each(|(w, v)| *w = v.to_bits());
        }
        if !state {
            let words = &self.place.words()[span];
            let of_piece = |piece: &Range<u64>| {
                let at = |row: u64| (row - rows.start) as usize * width;
                max_abs_rows(&words[at(piece.start)..at(piece.end)], width, dim)
            };
            let found: Vec<u32> = self.largest.pieces(table, rows.clone()).iter().map(of_piece).collect();
            self.largest.run(table, rows, &found);
        }
        Ok(())
    }
}
