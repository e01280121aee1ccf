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
    let value = |c: i32| (c as f32 + offset) * scale;
    match bits {
        Bits::B4 => {
            for (out, &byte) in values.chunks_mut(2).zip(row) {
                let pair = [value(i32::from((byte << 4) as i8 >> 4)), value(i32::from(byte as i8 >> 4))];
                out.copy_from_slice(&pair[..out.len()]);
            }
        }
        Bits::B8 => values.iter_mut().zip(row).for_each(|(out, &byte)| *out = value(i32::from(byte as i8))),
        Bits::B2 | Bits::B16 => (0..values.len()).for_each(|i| values[i] = value(code_at(row, bits, i))),
        Bits::None => {}
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
