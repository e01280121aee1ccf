//! Codes in memory and in files: a row of D codes of b bits takes ceil(D b / 8) bytes, the first code in
//! the lowest bits, two's complement; 16-bit codes low byte first. A row begins on a byte, so no code
//! crosses a word of four bytes where rows do not either. The value of a code is `(code + offset) scale`.

use super::{Bits, code};

/// Bytes of a row of `dim` codes.
pub fn row_bytes(bits: Bits, dim: usize) -> usize {
    (dim * bits.width() as usize).div_ceil(8)
}

/// Writes the codes of finite `values` on the grid of `scale`: `clamp(round_half_even(v / scale), -n-1, n)`.
/// `row` has [`row_bytes`] bytes; what is left of its last byte becomes zero.
#[inline(always)]
pub fn quantize_row(values: &[f32], scale: f32, bits: Bits, row: &mut [u8]) {
    let (inverse, n) = (1.0 / scale, bits.max_code() as f32);
    if bits != Bits::B4 {
        return encode_row(values.iter().map(|&v| code(v, inverse, n) as i32), bits, row);
    }
    // Adding 1.5 * 2^23 rounds half to even and leaves the code in the lowest bits.
    let nibble = |v: f32| ((v * inverse).clamp(-n - 1.0, n) + 12_582_912.0).to_bits() as u8 & 15;
    let (pairs, rest) = values.as_chunks::<2>();
    for (out, pair) in row.iter_mut().zip(pairs) {
        *out = nibble(pair[0]) | nibble(pair[1]) << 4;
    }
    if let (Some(out), Some(&v)) = (row.get_mut(pairs.len()), rest.first()) {
        *out = nibble(v);
    }
}

/// Writes codes, the first in the lowest bits.
pub fn encode_row(codes: impl Iterator<Item = i32>, bits: Bits, row: &mut [u8]) {
    row.fill(0);
    match bits {
        Bits::B16 => codes.zip(row.chunks_exact_mut(2)).for_each(|(c, out)| out.copy_from_slice(&(c as i16).to_le_bytes())),
        Bits::B2 | Bits::B4 | Bits::B8 => {
            let width = bits.width() as usize;
            let (per_byte, mask) = (8 / width, ((1u32 << width) - 1) as i32);
            for (i, c) in codes.enumerate().take(row.len() * per_byte) {
                row[i / per_byte] |= ((c & mask) << (i % per_byte * width)) as u8;
            }
        }
        Bits::None => {}
    }
}

/// The code number `i` of a row.
pub fn code_at(row: &[u8], bits: Bits, i: usize) -> i32 {
    match bits {
        Bits::B2 => i32::from((row[i / 4] << (6 - i % 4 * 2)) as i8 >> 6),
        Bits::B4 => i32::from((row[i / 2] << (4 - i % 2 * 4)) as i8 >> 4),
        Bits::B8 => i32::from(row[i] as i8),
        Bits::B16 => i32::from(i16::from_le_bytes([row[2 * i], row[2 * i + 1]])),
        Bits::None => 0,
    }
}

/// The values of a row: `(code + offset) * scale`, `values.len()` of them.
///
/// ```
/// use dqrm::quant::{Bits, pack};
/// let mut row = [0; 2];
/// pack::quantize_row(&[0.7, -0.8, 0.26], 0.1, Bits::B4, &mut row);
/// assert_eq!(row, [0x87, 0x03]); // 7, -8 and 3, the first in the low half of its byte
/// let mut values = [0.0; 3];
/// pack::decode_row(&row, Bits::B4, 0.1, 0.0, &mut values);
/// assert_eq!(values, [0.7, -0.8, 0.3].map(|v: f32| (v / 0.1).round() * 0.1));
/// ```
#[inline(always)]
pub fn decode_row(row: &[u8], bits: Bits, scale: f32, offset: f32, values: &mut [f32]) {
    let done = match bits {
        Bits::B2 => decode_words::<2, 16>(row, scale, offset, values),
        Bits::B4 => decode_words::<4, 8>(row, scale, offset, values),
        Bits::B8 => decode_words::<8, 4>(row, scale, offset, values),
        Bits::B16 => decode_words::<16, 2>(row, scale, offset, values),
        Bits::None => values.len(),
    };
    for (i, out) in values.iter_mut().enumerate().skip(done) {
        *out = (code_at(row, bits, i) as f32 + offset) * scale;
    }
}

/// The whole words of a row, `N` codes each; gives the number of values.
#[inline(always)]
fn decode_words<const BITS: u32, const N: usize>(row: &[u8], scale: f32, offset: f32, values: &mut [f32]) -> usize {
    let (groups, _) = values.as_chunks_mut::<N>();
    let (words, _) = row.as_chunks::<4>();
    for (out, word) in groups.iter_mut().zip(words) {
        let codes = unpack::<BITS, N>(*word);
        for (out, code) in out.iter_mut().zip(codes) {
            *out = (code + offset) * scale;
        }
    }
    N * groups.len().min(words.len())
}

/// The codes of a word as floats.
#[inline(always)]
fn unpack<const BITS: u32, const N: usize>(word: [u8; 4]) -> [f32; N] {
    codes_of::<BITS, N>(word).map(|code| code as f32)
}

/// The codes of a word. Shifts by constants, so that compilers make one or two vectors of it.
#[inline(always)]
pub(super) fn codes_of<const BITS: u32, const N: usize>(word: [u8; 4]) -> [i32; N] {
    let word = u32::from_le_bytes(word);
    std::array::from_fn(|j| (word << (32 - BITS - BITS * j as u32)) as i32 >> (32 - BITS))
}

/// `Σ x[i] code[i]` over a row, without writing the codes out first.
#[inline(always)]
pub fn dot_row(row: &[u8], bits: Bits, x: &[f32]) -> f32 {
    let (sum, done) = match bits {
        Bits::B2 => dot_words::<2, 16>(row, x),
        Bits::B4 => dot_words::<4, 8>(row, x),
        Bits::B8 => dot_words::<8, 4>(row, x),
        Bits::B16 => dot_words::<16, 2>(row, x),
        Bits::None => (0.0, x.len()),
    };
    sum + x.iter().enumerate().skip(done).map(|(i, x)| x * code_at(row, bits, i) as f32).sum::<f32>()
}

/// The whole words of a row; gives the sum and the number of values. Four sums that do not wait for each other.
#[inline(always)]
fn dot_words<const BITS: u32, const N: usize>(row: &[u8], x: &[f32]) -> (f32, usize) {
    let (groups, _) = x.as_chunks::<N>();
    let (words, _) = row.as_chunks::<4>();
    // A last word that is full in the row but not in `x` is left to the caller.
    let count = groups.len().min(words.len());
    let (groups, words) = (&groups[..count], &words[..count]);
    let mut sums = [[0f32; N]; 4];
    let ((fours, rest), (four_words, rest_words)) = (groups.as_chunks::<4>(), words.as_chunks::<4>());
    for (x, words) in fours.iter().zip(four_words) {
        for ((sum, x), word) in sums.iter_mut().zip(x).zip(words) {
            add_word::<BITS, N>(sum, x, *word);
        }
    }
    let mut last = [0f32; N];
    for (x, word) in rest.iter().zip(rest_words) {
        add_word::<BITS, N>(&mut last, x, *word);
    }
    (sums.iter().chain([&last]).flatten().sum(), N * count)
}

#[inline(always)]
fn add_word<const BITS: u32, const N: usize>(sums: &mut [f32; N], x: &[f32; N], word: [u8; 4]) {
    let codes = unpack::<BITS, N>(word);
    for j in 0..N {
        sums[j] += x[j] * codes[j];
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake_quant;
    use super::*;

    #[test]
    fn codes_come_back_at_every_width_and_length() {
        for bits in [Bits::B2, Bits::B4, Bits::B8, Bits::B16] {
            let n = bits.max_code() as i32;
            for dim in 1..40 {
                let codes: Vec<i32> = (0..dim as i32).map(|i| (i * 7919) % (2 * n + 2) - n - 1).collect();
                let mut row = vec![0xaa; row_bytes(bits, dim)];
                encode_row(codes.iter().copied(), bits, &mut row);
                let mut values = vec![f32::NAN; dim];
                decode_row(&row, bits, 0.5, 0.25, &mut values);
                for (i, &c) in codes.iter().enumerate() {
                    assert_eq!((code_at(&row, bits, i), values[i]), (c, (c as f32 + 0.25) * 0.5), "{bits}, {dim} codes, number {i}");
                }
                let used = dim * bits.width() as usize % 8;
                assert!(used == 0 || row[row.len() - 1] >> used == 0, "what is left of the last byte is zero");
            }
        }
    }

    #[test]
    fn a_dot_product_is_the_sum_over_the_codes() {
        for bits in [Bits::B2, Bits::B4, Bits::B8, Bits::B16] {
            for dim in [1, 7, 31, 32, 33, 64, 100, 367] {
                let codes: Vec<i32> = (0..dim as i32).map(|i| (i * 7919) % 4 - 2).collect();
                let mut row = vec![0; row_bytes(bits, dim)];
                encode_row(codes.iter().copied(), bits, &mut row);
                // Small whole numbers: every order of summation is exact.
                let x: Vec<f32> = (0..dim).map(|i| (i % 13) as f32 - 6.0).collect();
                let exact: f32 = codes.iter().zip(&x).map(|(&c, x)| c as f32 * x).sum();
                assert_eq!(dot_row(&row, bits, &x), exact, "{bits}, {dim} codes");
            }
        }
    }

    #[test]
    fn packing_gives_the_values_of_fake_quantization() {
        let values: Vec<f32> = (0..101).map(|i| (i as f32 - 50.0) * 0.0173).collect();
        for bits in [Bits::B2, Bits::B4, Bits::B8, Bits::B16] {
            let (scale, n) = (super::super::scale(0.5, bits.max_code()), bits.max_code() as f32);
            let mut row = vec![0; row_bytes(bits, values.len())];
            quantize_row(&values, scale, bits, &mut row);
            let mut back = vec![0.0; values.len()];
            decode_row(&row, bits, scale, 0.0, &mut back);
            for (v, b) in values.iter().zip(&back) {
                assert_eq!(*b, fake_quant(*v, scale, 1.0 / scale, n), "{v} at {bits}");
            }
        }
    }
}
