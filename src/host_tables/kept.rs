//! What memory or the file holds, in rows and tables.

use super::file_rows::FileRows;
use super::largest::Largest;
use super::place::Place;
use crate::error::Result;
use crate::session::{RowLayout, Rows};
use rayon::prelude::*;
use std::ops::Range;
use std::path::Path;

/// Rows with their state, and the tables' largest magnitudes.
pub(super) struct Kept {
    layout: RowLayout,
    place: Place,
    largest: Largest,
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
        let place = Place::in_memory(layout.total_rows(), layout.width())?;
        Ok(Kept { largest: Largest::new(&layout.rows), layout: layout.clone(), place })
    }

    /// Makes the file; rows that wait to be written take at most `held` bytes of memory.
    pub(super) fn in_file(dir: &Path, layout: &RowLayout, held: u64) -> Result<Kept> {
        let place = Place::File(FileRows::create(dir, layout.total_rows(), layout.width(), held)?);
        Ok(Kept { largest: Largest::new(&layout.rows), layout: layout.clone(), place })
    }

    /// Where rows are, for people.
    pub(super) fn place(&self) -> &'static str {
        match self.place {
            Place::Memory { .. } => "memory",
            Place::File(_) => "a file",
        }
    }

    /// Where they are.
    #[cfg(test)]
    pub(super) fn place_mut(&mut self) -> &mut Place {
        &mut self.place
    }

    /// Copies rows out.
    pub(super) fn read(&self, numbers: Vec<u64>) -> Rows {
        let (dim, width, state) = (self.layout.dim, self.layout.width(), self.layout.state);
        let fetched = self.place.fetch(&numbers);
        let mut fetched = fetched.chunks_exact(width);
        let (mut weights, mut states) = (Vec::with_capacity(numbers.len() * dim), Vec::with_capacity(numbers.len() * state));
        for row in numbers.iter().filter_map(|&number| self.place.at_hand(number).or_else(|| fetched.next())) {
            weights.extend_from_slice(&row[..dim]);
            states.extend_from_slice(&row[dim..]);
        }
        Rows { numbers, weights, state: states }
    }

    /// Copies rows in. [`Kept::settle`] is to follow.
    pub(super) fn write(&mut self, rows: &Rows) {
        let (dim, state) = (self.layout.dim, self.layout.state);
        let mut table = 0;
        for (i, &number) in rows.numbers.iter().enumerate() {
            while number >= self.largest.first_row(table + 1) {
                table += 1;
            }
            let row = self.place.row_mut(number);
            let new = &rows.weights[i * dim..(i + 1) * dim];
            let (before, after) = (max_abs(&row[..dim]), max_abs(new));
            row[..dim].copy_from_slice(new);
            row[dim..].copy_from_slice(&rows.state[i * state..(i + 1) * state]);
            self.largest.row(table, number, before, after);
        }
    }

    /// Brings rows that were written to the file, where too many wait for it.
    ///
    /// # Errors
    /// A disk that cannot be written. No row is lost: those that were not written wait on.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.place.settle()
    }

    /// The largest magnitude of each table.
    pub(super) fn largest(&mut self) -> Vec<u32> {
        let (dim, unsure) = (self.layout.dim, self.largest.take_unsure());
        let of_rows = |rows: Range<u64>| rows.map(|number| max_abs(&self.place.row(number)[..dim])).max().unwrap_or(0);
        let look = |(block, rows): &(usize, Range<u64>)| (*block, of_rows(rows.clone()));
        let found: Vec<(usize, u32)> = self.place.look(|| unsure.par_iter().map(look).collect());
        found.into_iter().for_each(|(block, largest)| self.largest.set(block, largest));
        self.largest.of_tables()
    }

    /// Sets rows of a table to what `make` gives, and their state to 0.
    pub(super) fn fill(&mut self, table: usize, first: u64, count: u64, make: &(dyn Fn(u64, &mut [f32]) + Sync)) -> Result<()> {
        let (dim, width, base) = (self.layout.dim, self.layout.width(), self.largest.first_row(table));
        let rows = base + first..base + first + count;
        let pieces = self.largest.pieces(table, rows.clone());
        let words_of = |piece: &Range<u64>| (piece.end - piece.start) as usize * width;
        let start_of = |piece: &Range<u64>| (piece.start - base) * dim as u64;
        let found: Vec<u32> = match &mut self.place {
            Place::Memory { .. } => {
                let mut rest = self.place.run_mut(rows.clone())?;
                let cut = |piece| rest.split_off_mut(..words_of(piece)).map(|words| (start_of(piece), words));
                let cut: Vec<(u64, &mut [u32])> = pieces.iter().filter_map(cut).collect();
                cut.into_par_iter().map(|(start, words)| make_rows(words, width, dim, start, make)).collect()
            }
            Place::File(file) => {
                file.flush(rows.clone())?;
                let file = &*file;
                let one = |words: &mut Vec<u32>, piece: &Range<u64>| -> Result<u32> {
                    words.resize(words_of(piece), 0);
                    let largest = make_rows(words, width, dim, start_of(piece), make);
                    file.write_free(piece.start, words)?;
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
        let base = self.largest.first_row(table);
        if wide == width {
            self.place.write_all(base * width as u64 + start, bytemuck::cast_slice(values))?;
        } else {
            let skipped = (start - (rows.start - base) * wide as u64) as usize;
            let words = self.place.run_mut(rows.clone())?.chunks_exact_mut(width).flat_map(|row| &mut row[offset..offset + wide]);
            words.skip(skipped).zip(values).for_each(|(w, v)| *w = v.to_bits());
        }
        if !state {
            let words: &[u32] = self.place.run_mut(rows.clone())?;
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
