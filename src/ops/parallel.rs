//! Loops over rows for the twins: in parallel when there is enough to do, with the widest vector
//! instructions the machine has.

use rayon::prelude::*;

/// Values below which one thread is quicker.
pub(crate) const SMALL: usize = 1 << 14;

/// Calls `f(row number, row)` for each row of `width` values. Rows do not depend on each other, so
/// the result is the same for any number of threads.
#[inline(always)]
pub(crate) fn rows<F: Fn(usize, &mut [f32]) + Sync + Send>(out: &mut [f32], width: usize, f: F) {
    let arch = pulp::Arch::new();
    if out.len() < SMALL || rayon::current_num_threads() == 1 {
        return arch.dispatch(|| out.chunks_exact_mut(width).enumerate().for_each(|(i, row)| f(i, row)));
    }
    let per_piece = (out.len() / width).div_ceil(4 * rayon::current_num_threads()).max(1);
    out.par_chunks_mut(per_piece * width).enumerate().for_each(|(piece, rows)| {
        arch.dispatch(|| rows.chunks_exact_mut(width).enumerate().for_each(|(i, row)| f(piece * per_piece + i, row)));
    });
}

/// What is done with one row. A trait and not a closure, because `#[inline(always)]` on the method makes
/// sure that it is compiled with the caller's vector instructions (a closure was not: fake
/// quantization took four times as long).
pub(crate) trait Row<T = f32>: Sync {
    /// Computes row number `i`.
    fn row(&self, i: usize, out: &mut [T]);

    /// Computes rows of `width` values from number `first` on; for those that share memory.
    #[inline(always)]
    fn rows(&self, first: usize, out: &mut [T], width: usize) {
        for (i, row) in out.chunks_exact_mut(width).enumerate() {
            self.row(first + i, row);
        }
    }
}

/// Like [`rows`], for the hot loops.
pub(crate) fn each<T: Send, R: Row<T>>(out: &mut [T], width: usize, op: &R) {
    let piece = |first: usize, rows: &mut [T]| {
        pulp::Arch::new().dispatch(Piece { first, rows, width, op });
    };
    if out.len() < SMALL {
        return piece(0, out);
    }
    // As many pieces for one thread as for another.
    let (rows, threads) = (out.len() / width, rayon::current_num_threads());
    let pieces = out.len().div_ceil(SMALL).next_multiple_of(threads);
    let per_piece = rows.div_ceil(pieces).max(1);
    out.par_chunks_mut(per_piece * width).enumerate().for_each(|(p, rows)| piece(p * per_piece, rows));
}

struct Piece<'a, T, R> {
    first: usize,
    rows: &'a mut [T],
    width: usize,
    op: &'a R,
}

impl<T, R: Row<T>> pulp::NullaryFnOnce for Piece<'_, T, R> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.op.rows(self.first, self.rows, self.width);
    }
}

/// Calls `f(first index, values)` for consecutive pieces of `out`.
#[inline(always)]
pub(crate) fn pieces<F: Fn(usize, &mut [f32]) + Sync + Send>(out: &mut [f32], f: F) {
    let arch = pulp::Arch::new();
    if out.len() < 2 * SMALL || rayon::current_num_threads() == 1 {
        return arch.dispatch(|| f(0, out));
    }
    out.par_chunks_mut(SMALL).enumerate().for_each(|(i, piece)| arch.dispatch(|| f(i * SMALL, piece)));
}

/// The largest magnitude as bits (NaN counts as the largest of all), like `abs_bits` in WGSL.
pub(crate) fn max_abs_bits(values: &[u32]) -> u32 {
    pulp::Arch::new().dispatch(|| values.iter().fold(0, |m, v| m.max(v & 0x7fff_ffff)))
}
