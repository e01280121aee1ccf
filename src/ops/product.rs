//! Matrix products on the CPU: the result is cut into blocks, one or a few for each thread, and a library computes each.

use block::Library;
use rayon::prelude::*;

mod block;

/// Multiplications below which one thread is quicker.
const FEW: usize = 1 << 18;
/// What packing a value costs, in multiplications: about as many as a core does meanwhile.
const PACKING: usize = 16;
/// Threads get blocks whose sides are multiples of this.
const SIDE: usize = 8;
/// Of blocks with more rows each thread gets two, in case it is held up in one.
const MANY: usize = 512;

/// A matrix in memory: element (r, c) at `r * row_stride + c * column_stride`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) values: &'a [f32],
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// What lies behind the element (`row`, `column`).
    fn from(&self, row: usize, column: usize) -> Matrix<'a> {
        Matrix { values: &self.values[row * self.row_stride + column * self.column_stride..], ..*self }
    }
}

/// What is done with results while they are still in a cache. A trait for the same reason as [`super::parallel::Row`].
pub(super) trait Finish: Sync {
    /// Changes the results from column `first` on of row number `row`.
    fn finish(&self, row: usize, first: usize, results: &mut [f32]);
}

/// Leaves results as they are.
pub(super) struct Keep;

impl Finish for Keep {
    #[inline(always)]
    fn finish(&self, _: usize, _: usize, _: &mut [f32]) {}
}

/// `out[m, n] = a[m, k] b[k, n]`, then `finish`; rows of `out` begin `stride` values apart, and what lies between them stays as it is. The
/// order of a sum's terms depends on `k` and on the strides of `a` and `b`, so neither on the number of threads nor on what other rows and columns there are.
pub(super) fn product<F: Finish>(out: &mut [f32], stride: usize, extents: [usize; 3], a: Matrix<'_>, b: Matrix<'_>, finish: &F) {
    product_by(Library::here(), out, stride, extents, a, b, finish);
}

fn product_by<F: Finish>(
    library: Library,
    out: &mut [f32],
    stride: usize,
    [m, n, k]: [usize; 3],
    a: Matrix<'_>,
    b: Matrix<'_>,
    finish: &F,
) {
    if m == 0 || n == 0 {
        return;
    }
    let last = |x: &Matrix<'_>, rows: usize, columns: usize| (rows - 1) * x.row_stride + (columns - 1) * x.column_stride;
    assert!(n <= stride && out.len() > (m - 1) * stride + (n - 1));
    assert!(k == 0 || a.values.len() > last(&a, m, k) && b.values.len() > last(&b, k, n));
    let threads = rayon::current_num_threads();
    let alone = threads == 1 || m == 1 || n == 1 || m * n * k < FEW; // `gemm` sums parts of a vector in another order than the whole
    let [rows, columns] = if alone { [m, n] } else { sides(m, n, threads) };
    let (down, across) = (m.div_ceil(rows), n.div_ceil(columns));
    let out = Blocks { library, start: out.as_mut_ptr(), stride, extent: [m, n], sides: [rows, columns] };
    let one = |i: usize| {
        let (row, column) = (i / across * rows, i % across * columns);
        let (a, b) = if k == 0 { (a, b) } else { (a.from(row, 0), b.from(0, column)) };
        out.make(row, column, k, a, b, finish);
    };
    match down * across {
        1 => one(0),
        blocks => (0..blocks).into_par_iter().with_max_len(1).for_each(one),
    }
}

/// Rows and columns of a block when `threads` share `m` x `n` results. Each block's rows of `a` and columns of `b` are packed anew, so blocks near a
/// square are best.
fn sides(m: usize, n: usize, threads: usize) -> [usize; 2] {
    let side = |extent: usize, parts: usize| extent.div_ceil(parts).next_multiple_of(SIDE).min(extent);
    let divisions = (1..=threads).filter(|down| threads.is_multiple_of(*down)).map(|down| [side(m, down), side(n, threads / down)]);
    let [rows, columns] = divisions.min_by_key(|[rows, columns]| rows * columns + PACKING * (rows + columns)).unwrap_or([m, n]);
    [if rows > MANY { side(rows, 2) } else { rows }, columns]
}

/// A result that is made block by block.
struct Blocks {
    library: Library,
    start: *mut f32,
    stride: usize,
    extent: [usize; 2],
    sides: [usize; 2],
}

#[expect(
    unsafe_code,
    reason = "blocks of columns are no slices, and rows alone would have each thread pack the whole weights: 9 % of a product at batch 128"
)]
// SAFETY: threads use it through `make` only, which touches one block, and blocks do not overlap.
unsafe impl Sync for Blocks {}

impl Blocks {
    /// Computes the block that begins at (`row`, `column`), a corner of the grid of blocks; `a` and `b` begin at its row and its column.
    fn make<F: Finish>(&self, row: usize, column: usize, k: usize, a: Matrix<'_>, b: Matrix<'_>, finish: &F) {
        let (rows, columns) = (self.sides[0].min(self.extent[0] - row), self.sides[1].min(self.extent[1] - column));
        #[expect(unsafe_code, reason = "as above; the libraries take pointers too, and are measured faster than safe crates")]
        // SAFETY: `product` asserted that the last element of `extent` lies inside `out`, which it borrows mutably while this lives, and that `a` and `b`
        // have the elements of this block's rows and columns; no other call has a corner inside this block.
        unsafe {
            let start = self.start.add(row * self.stride + column);
            block::multiply(self.library, start, self.stride, [rows, columns, k], &a, &b);
            pulp::Arch::new().dispatch(Finishing { start, stride: self.stride, rows, columns, row, column, finish });
        }
    }
}

/// Finishes a block of `rows` rows, `stride` apart.
struct Finishing<'a, F> {
    start: *mut f32,
    stride: usize,
    rows: usize,
    columns: usize,
    row: usize,
    column: usize,
    finish: &'a F,
}

impl<F: Finish> pulp::NullaryFnOnce for Finishing<'_, F> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for i in 0..self.rows {
            #[expect(unsafe_code, reason = "as above")]
            // SAFETY: it is made in `Blocks::make` only, of a block that nobody else touches and that was written just now.
            let results = unsafe { std::slice::from_raw_parts_mut(self.start.add(i * self.stride), self.columns) };
            self.finish.finish(self.row + i, self.column, results);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, step: u32) -> Vec<f32> {
        (0..n as u32).map(|i| (i.wrapping_mul(step) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|v| v.to_bits()).collect()
    }

    fn on<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool").install(f)
    }

    #[test]
    fn the_number_of_rows_changes_no_bit() {
        let m = 300;
        for (n, k) in [(1, 3), (1, 64), (1, 1300), (2, 17), (7, 600), (24, 64), (33, 1), (257, 40), (300, 367)] {
            let (a, b) = (values(m * k, 2_654_435_761), values(k * n, 2_246_822_519));
            let b = Matrix { values: &b, row_stride: 1, column_stride: k };
            for library in Library::all() {
                let some = |first: usize, rows: usize| {
                    let a = Matrix { values: &a[first * k..], row_stride: k, column_stride: 1 };
                    let mut out = vec![f32::NAN; rows * n];
                    product_by(library, &mut out, n, [rows, n, k], a, b, &Keep);
                    bits(&out)
                };
                let all = some(0, m);
                for rows in [1, 2, 5, 8, 9, 31, 64, 257] {
                    let parts: Vec<u32> = (0..m).step_by(rows).flat_map(|first| some(first, rows.min(m - first))).collect();
                    assert!(parts == all, "{library:?}: {n} columns of sums of {k}, {rows} rows at a time");
                }
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        // One row left over; more threads than rows for them; sums longer than a library takes at once; far more columns than rows.
        for [m, n, k] in [[129, 40, 600], [48, 96, 64], [65, 1, 5000], [1030, 24, 1300], [5, 4000, 70]] {
            let (left, right) = (values(m * k, 2_654_435_761), values(k * n, 2_246_822_519));
            let b = Matrix { values: &right, row_stride: n, column_stride: 1 };
            for (row_stride, column_stride) in [(k, 1), (1, m)] {
                let a = Matrix { values: &left, row_stride, column_stride };
                for library in Library::all() {
                    let with = |threads| {
                        let mut out = vec![f32::NAN; m * n];
                        on(threads, || product_by(library, &mut out, n, [m, n, k], a, b, &Keep));
                        bits(&out)
                    };
                    let one = with(1);
                    for threads in [2, 3, 4, 16] {
                        assert!(with(threads) == one, "{library:?}: {m} x {n} x {k} on {threads} threads");
                    }
                }
            }
        }
    }

    /// Adds the number of the result to it.
    struct Number {
        width: usize,
    }

    impl Finish for Number {
        fn finish(&self, row: usize, first: usize, results: &mut [f32]) {
            results.iter_mut().enumerate().for_each(|(i, v)| *v += (row * self.width + first + i) as f32);
        }
    }

    #[test]
    fn every_result_is_its_sum_and_finished_once() {
        // What lies between the rows of `out` must stay; all ways in which a layer's matrices lie in memory; no terms at all.
        for [m, n, k] in [[1, 1, 1], [3, 5, 0], [130, 70, 33], [17, 515, 300], [700, 9, 530], [256, 512, 128]] {
            let (left, right) = (values(m * k, 2_654_435_761), values(k * n, 2_246_822_519));
            for (a_strides, b_strides) in [((k, 1), (1, k)), ((k, 1), (n, 1)), ((1, m), (n, 1))] {
                let a = Matrix { values: &left, row_stride: a_strides.0, column_stride: a_strides.1 };
                let b = Matrix { values: &right, row_stride: b_strides.0, column_stride: b_strides.1 };
                for (library, threads) in Library::all().into_iter().flat_map(|library| [1, 2, 5].map(|threads| (library, threads))) {
                    let stride = n + 3;
                    let mut out = vec![f32::NEG_INFINITY; (m - 1) * stride + n];
                    on(threads, || product_by(library, &mut out, stride, [m, n, k], a, b, &Number { width: n }));
                    for (i, &found) in out.iter().enumerate() {
                        let (row, column) = (i / stride, i % stride);
                        if column >= n {
                            assert!(found == f32::NEG_INFINITY, "{library:?}, {threads} threads: written between rows");
                            continue;
                        }
                        let term = |t: usize| {
                            f64::from(left[row * a.row_stride + t * a.column_stride])
                                * f64::from(right[t * b.row_stride + column * b.column_stride])
                        };
                        let expected = (0..k).map(term).sum::<f64>() + (row * n + column) as f64;
                        let room = 2e-6 * (k as f64 + expected.abs());
                        assert!(
                            (f64::from(found) - expected).abs() <= room,
                            "{library:?}, {threads} threads, {m} x {n} x {k}: ({row}, {column}) is {found}, not {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn blocks_are_even_and_near_squares() {
        assert_eq!(sides(128, 512, 2), [128, 256]);
        assert_eq!(sides(512, 128, 2), [256, 128]);
        assert_eq!(sides(128, 256, 2), [128, 128]);
        assert_eq!(sides(2048, 512, 2), [512, 512]); // two blocks for each thread
        assert_eq!(sides(512, 512, 4), [256, 256]);
        assert_eq!(sides(3, 1, 4), [3, 1]);
    }
}
