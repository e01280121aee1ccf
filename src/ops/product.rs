//! Matrix products on the CPU: the `gemm` crate, rows of the result shared out among threads.

use super::parallel::{self, Row};
use rayon::prelude::*;

/// Multiplications below which one thread is quicker.
const FEW: usize = 1 << 18;
/// With fewer rows for each thread, `gemm` divides the work itself, by columns too.
const ROWS: usize = 32;
/// With more rows for each thread, it gets them in two portions, in case the other one is held up.
const MANY: usize = 512;
/// Terms of a sum that `gemm` gets at once; of more it would make blocks whose size depends on the other two extents.
const TERMS: usize = 512;

/// Results of up to so many elements, and vectors, are summed by `gemm` in another order than larger ones where the terms lie one behind the
/// other; they are spread out for it.
const SMALL: usize = 256;

/// A matrix in memory: element (r, c) at `r * row_stride + c * column_stride`.
pub(super) struct Matrix<'a> {
    pub(super) values: &'a [f32],
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows from `first` on.
    fn rows_from(&self, first: usize) -> Matrix<'a> {
        Matrix { values: &self.values[first * self.row_stride..], ..*self }
    }

    /// The values row by row, with a place left free behind each.
    fn spread(&self, rows: usize, columns: usize) -> Vec<f32> {
        let mut values = vec![0.0; 2 * rows * columns];
        for (i, pair) in values.chunks_exact_mut(2).enumerate() {
            pair[0] = self.values[(i / columns) * self.row_stride + (i % columns) * self.column_stride];
        }
        values
    }
}

/// `out[m, n] = a[m, k] b[k, n]`, each row then given to `finish`, while it is still in a cache; rows of `out`
/// begin `stride` values apart. A sum's order depends on `k` alone, so results do not depend on the number of threads.
pub(super) fn product<F: Row>(out: &mut [f32], stride: usize, [m, n, k]: [usize; 3], a: &Matrix<'_>, b: &Matrix<'_>, finish: &F) {
    if m == 0 || n == 0 {
        return;
    }
    let out = &mut out[..(m - 1) * stride + n];
    let threads = rayon::current_num_threads();
    let share = m.div_ceil(threads);
    if threads == 1 || m * n * k < FEW {
        multiply(out, stride, [m, n, k], a, b, gemm::Parallelism::None);
        parallel::in_turn(out, [stride, n], 0, finish);
    } else if share < ROWS {
        multiply(out, stride, [m, n, k], a, b, gemm::Parallelism::Rayon(0));
        parallel::in_turn(out, [stride, n], 0, finish);
    } else {
        let rows = if share < MANY { share } else { share.div_ceil(2) }.next_multiple_of(8);
        out.par_chunks_mut(rows * stride).enumerate().for_each(|(piece, out)| {
            let (first, rows) = (piece * rows, out.len().div_ceil(stride));
            multiply(out, stride, [rows, n, k], &a.rows_from(first), b, gemm::Parallelism::None);
            parallel::in_turn(out, [stride, n], first, finish);
        });
    }
}

fn multiply(out: &mut [f32], stride: usize, [m, n, k]: [usize; 3], a: &Matrix<'_>, b: &Matrix<'_>, threads: gemm::Parallelism) {
    if k == 0 {
        // nothing to sum: a worker without samples
        return out.chunks_mut(stride).for_each(|row| row[..n].fill(0.0));
    }
    let last = |x: &Matrix<'_>, rows: usize, columns: usize| (rows - 1) * x.row_stride + (columns - 1) * x.column_stride;
    assert!(n <= stride && out.len() >= (m - 1) * stride + n && a.values.len() > last(a, m, k) && b.values.len() > last(b, k, n));
    let apart;
    let (a, b) = match m * n <= SMALL || m == 1 || n == 1 {
        false => (a, b),
        true if m <= n => {
            apart = a.spread(m, k);
            (&Matrix { values: &apart, row_stride: 2 * k, column_stride: 2 }, b)
        }
        true => {
            apart = b.spread(k, n);
            (a, &Matrix { values: &apart, row_stride: 2 * n, column_stride: 2 })
        }
    };
    let terms = k.div_ceil(k.div_ceil(TERMS));
    for first in (0..k).step_by(terms) {
        #[expect(
            unsafe_code,
            reason = "gemm takes pointers; the assertion proves every element it touches lies inside its slice, and it is measured faster than the safe crates"
        )]
        // SAFETY: `out` is borrowed mutably and does not overlap the inputs; all extents were asserted.
        unsafe {
            gemm::gemm(
                m,
                n,
                terms.min(k - first),
                out.as_mut_ptr(),
                1,
                stride as isize,
                first > 0,
                a.values[first * a.column_stride..].as_ptr(),
                a.column_stride as isize,
                a.row_stride as isize,
                b.values[first * b.row_stride..].as_ptr(),
                b.column_stride as isize,
                b.row_stride as isize,
                if first > 0 { 1.0 } else { 0.0 },
                1.0,
                false,
                false,
                false,
                threads,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_rows_changes_no_bit() {
        let values = |n: usize, step: u32| -> Vec<f32> {
            (0..n as u32).map(|i| (i.wrapping_mul(step) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
        };
        let m = 300;
        for (n, k) in [(1, 3), (1, 64), (1, 1300), (2, 17), (7, 600), (24, 64), (33, 1), (257, 40)] {
            let (a, b) = (values(m * k, 2_654_435_761), values(k * n, 2_246_822_519));
            let b = Matrix { values: &b, row_stride: 1, column_stride: k };
            let some = |first: usize, rows: usize| {
                let a = Matrix { values: &a[first * k..], row_stride: k, column_stride: 1 };
                let mut out = vec![f32::NAN; rows * n];
                product(&mut out, n, [rows, n, k], &a, &b, &parallel::Keep);
                out.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            };
            let all = some(0, m);
            for rows in [1, 2, 5, 8, 9, 31, 64, 257] {
                let parts: Vec<u32> = (0..m).step_by(rows).flat_map(|first| some(first, rows.min(m - first))).collect();
                assert!(parts == all, "{n} columns of sums of {k}, {rows} rows at a time");
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let values = |n: usize, step: u32| -> Vec<f32> {
            (0..n as u32).map(|i| (i.wrapping_mul(step) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
        };
        // One row left over; more threads than rows for them; sums longer than gemm takes at once.
        for [m, n, k] in [[129, 40, 600], [48, 96, 64], [65, 1, 5000], [1030, 24, 1300]] {
            let (a, b) = (values(m * k, 2_654_435_761), values(k * n, 2_246_822_519));
            let a = Matrix { values: &a, row_stride: k, column_stride: 1 };
            let b = Matrix { values: &b, row_stride: n, column_stride: 1 };
            let on = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                let mut out = vec![f32::NAN; m * n];
                pool.install(|| product(&mut out, n, [m, n, k], &a, &b, &parallel::Keep));
                out.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            };
            let one = on(1);
            for threads in [2, 3, 4, 16] {
                assert!(on(threads) == one, "{m} x {n} x {k} on {threads} threads");
            }
        }
    }
}
