//! One block of a matrix product, on one thread, by a library.

use super::Matrix;

/// Terms of a sum that a library gets at once. `gemm` would divide more of them into blocks whose size depends on the other two extents.
const TERMS: usize = 512;
/// Of more terms that lie far apart in `a`, as in a gradient of weights, `gemm` is as quick as the kernels for AVX2 or up to a tenth quicker.
const FAR_TERMS: usize = 256;
/// Results of up to so many elements, and vectors, are summed by `gemm` in another order than larger ones where the terms lie one behind the
/// other; they are spread out for it.
const SMALL: usize = 256;

/// What multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Library {
    /// The crate `gemm`, on every processor.
    Gemm,
    /// The crate `private-gemm-x86`, faer's kernels, on processors with AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// The same crate's kernels for AVX-512.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Library {
    /// The fastest one that this processor runs.
    pub(super) fn here() -> Library {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            // Its kernels for AVX-512 clear registers by an instruction of AVX512DQ.
            if avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
                return Library::Avx512;
            }
            if avx2 {
                return Library::Avx2;
            }
        }
        Library::Gemm
    }

    /// All that this processor runs.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Library> {
        match Library::here() {
            Library::Gemm => vec![Library::Gemm],
            #[cfg(target_arch = "x86_64")]
            Library::Avx2 => vec![Library::Gemm, Library::Avx2],
            #[cfg(target_arch = "x86_64")]
            Library::Avx512 => vec![Library::Gemm, Library::Avx2, Library::Avx512],
        }
    }

    /// Which one sums `k` terms of `a`, and how many at once.
    fn suited(self, a: &Matrix<'_>, k: usize) -> (Library, usize) {
        let far = a.column_stride != 1 && k > FAR_TERMS;
        match self {
            #[cfg(target_arch = "x86_64")]
            Library::Avx2 if far => (Library::Gemm, TERMS),
            #[cfg(target_arch = "x86_64")]
            Library::Avx512 if far => (self, FAR_TERMS),
            _ => (self, TERMS),
        }
    }
}

/// `out[m, n] = a[m, k] b[k, n]`, rows of `out` `stride` values apart.
///
/// # Safety
/// `out` must point to memory that this thread alone uses and that has all rows; `a` and `b` must have all elements; the processor must have what the library
/// needs.
#[expect(unsafe_code, reason = "the libraries take pointers")]
pub(super) unsafe fn multiply(library: Library, out: *mut f32, stride: usize, [m, n, k]: [usize; 3], a: &Matrix<'_>, b: &Matrix<'_>) {
    if k == 0 {
        // nothing to sum: a worker without samples
        // SAFETY: as the caller promised
        return (0..m).for_each(|row| unsafe { std::slice::from_raw_parts_mut(out.add(row * stride), n) }.fill(0.0));
    }
    let (library, most) = library.suited(a, k);
    let apart;
    let (a, b) = match library == Library::Gemm && (m * n <= SMALL || m == 1 || n == 1) {
        false => (*a, *b),
        true if m <= n => {
            apart = spread(a, m, k);
            (Matrix { values: &apart, row_stride: 2 * k, column_stride: 2 }, *b)
        }
        true => {
            apart = spread(b, k, n);
            (*a, Matrix { values: &apart, row_stride: 2 * n, column_stride: 2 })
        }
    };
    let terms = k.div_ceil(k.div_ceil(most));
    for first in (0..k).step_by(terms) {
        let extents = [m, n, terms.min(k - first)];
        let (a, b) = (a.from(0, first), b.from(first, 0));
        // SAFETY: as the caller promised
        unsafe {
            match library {
                Library::Gemm => by_gemm(out, stride, extents, &a, &b, first > 0),
                #[cfg(target_arch = "x86_64")]
                Library::Avx2 => by_x86(private_gemm_x86::InstrSet::Avx256, out, stride, extents, &a, &b, first > 0),
                #[cfg(target_arch = "x86_64")]
                Library::Avx512 => by_x86(private_gemm_x86::InstrSet::Avx512, out, stride, extents, &a, &b, first > 0),
            }
        }
    }
}

/// The values row by row, with a place left free behind each.
fn spread(matrix: &Matrix<'_>, rows: usize, columns: usize) -> Vec<f32> {
    let mut values = vec![0.0; 2 * rows * columns];
    for (i, pair) in values.chunks_exact_mut(2).enumerate() {
        pair[0] = matrix.values[(i / columns) * matrix.row_stride + (i % columns) * matrix.column_stride];
    }
    values
}

#[expect(unsafe_code, reason = "as above")]
unsafe fn by_gemm(out: *mut f32, stride: usize, [m, n, k]: [usize; 3], a: &Matrix<'_>, b: &Matrix<'_>, add: bool) {
    let [stride, a_row, a_column, b_row, b_column] =
        [stride, a.row_stride, a.column_stride, b.row_stride, b.column_stride].map(|stride| stride as isize);
    let (a, b) = (a.values.as_ptr(), b.values.as_ptr());
    let keep = if add { 1.0 } else { 0.0 };
    // SAFETY: as the caller of `multiply` promised
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            1,
            stride,
            add,
            a,
            a_column,
            a_row,
            b,
            b_column,
            b_row,
            keep,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "as above")]
unsafe fn by_x86(
    kernels: private_gemm_x86::InstrSet,
    out: *mut f32,
    stride: usize,
    [m, n, k]: [usize; 3],
    a: &Matrix<'_>,
    b: &Matrix<'_>,
    add: bool,
) {
    use private_gemm_x86::{Accum, DType, DstKind, IType, gemm};
    use std::ptr::{from_ref, null};
    let [stride, a_row, a_column, b_row, b_column] =
        [stride, a.row_stride, a.column_stride, b.row_stride, b.column_stride].map(|stride| stride as isize);
    let (a, b) = (a.values.as_ptr().cast(), b.values.as_ptr().cast());
    let accumulate = if add { Accum::Add } else { Accum::Replace };
    let one = from_ref(&1.0_f32).cast();
    let all = DstKind::Full;
    // SAFETY: as the caller of `multiply` promised; without lists of rows and columns, and without a diagonal, nothing else is read
    unsafe {
        gemm(
            DType::F32,
            IType::U64,
            kernels,
            m,
            n,
            k,
            out.cast(),
            stride,
            1,
            null(),
            null(),
            all,
            accumulate,
            a,
            a_row,
            a_column,
            false,
            null(),
            0,
            b,
            b_row,
            b_column,
            false,
            one,
            1,
        );
    }
}
