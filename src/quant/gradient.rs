//! Gradients as codes: what workers send each other (arXiv 2410.20046 section 3.3 and appendix B). The code of
//! `g` on the grid of `scale` is `clamp(round_half_even(g / scale), -n-1, n)` with `n = 2^(bits-1) - 1`; its
//! value is `scale code`. Widths are 4, 8 and 16 bits. In bytes the first code lies in the lowest bits, two's
//! complement, low byte first, so these are the bytes of the words that shaders write
//! (`shaders/gradient_codes.wgsl`). A NaN has the code 0; a group that holds one has a NaN for a scale, so
//! whoever multiplies sees it.

use super::{code, pack};
use pulp::NullaryFnOnce;

/// Codes that are made at a time: a whole number of bytes and words at every width.
pub(crate) const BLOCK: usize = 256;

/// The largest code of a width: n = 2^(bits-1) - 1.
pub fn max_code(bits: u32) -> u32 {
    (1 << (bits - 1)) - 1
}

/// Bytes of `len` codes.
pub fn bytes(len: usize, bits: u32) -> usize {
    (len * bits as usize).div_ceil(8)
}

/// Appends the codes of `values` on the grid of `scale`, [`bytes`](fn@bytes) of them; what is left of the last byte is
/// zero.
///
/// ```
/// use dqrm::quant::gradient;
/// let mut codes = Vec::new();
/// gradient::quantize(&[0.7, -0.8, 0.26], 0.1, 4, &mut codes);
/// assert_eq!(codes, [0x87, 0x03]); // 7, -8 and 3, the first in the low half of its byte
/// let mut sums = [1.0, 1.0, 1.0];
/// gradient::add_scaled(&codes, 4, 0.5, &mut sums);
/// assert_eq!(sums, [4.5, -3.0, 2.5]);
/// ```
pub fn quantize(values: &[f32], scale: f32, bits: u32, out: &mut Vec<u8>) {
    let first = out.len();
    out.resize(first + bytes(values.len(), bits), 0);
    pulp::Arch::new().dispatch(Quantize { values, inverse: 1.0 / scale, bits, out: &mut out[first..] });
}

/// `sums[i] += scale code[i]`, rounded after the product and after the sum. `codes` has
/// [`bytes`](fn@bytes)`(sums.len(), bits)` bytes; callers have checked that.
pub fn add_scaled(codes: &[u8], bits: u32, scale: f32, sums: &mut [f32]) {
    pulp::Arch::new().dispatch(Accumulate { codes, bits, add: Scaled(scale), sums });
}

/// `sums[i] += code[i]`; 65,536 workers fit. `codes` has [`bytes`](fn@bytes)`(sums.len(), bits)` bytes; callers have
/// checked that.
pub fn add_codes(codes: &[u8], bits: u32, sums: &mut [i32]) {
    pulp::Arch::new().dispatch(Accumulate { codes, bits, add: Whole, sums });
}

/// The largest magnitude; NaN counts as the largest of all, and 0 is that of nothing.
pub fn max_abs(values: &[f32]) -> f32 {
    pulp::Arch::new().dispatch(MaxAbs { values })
}

// Structs with `#[inline(always)]` methods and not closures: `ops::parallel::Row` says why.

struct Quantize<'a> {
    values: &'a [f32],
    inverse: f32,
    bits: u32,
    out: &'a mut [u8],
}

impl NullaryFnOnce for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (values, out) in self.values.chunks(BLOCK).zip(self.out.chunks_mut(bytes(BLOCK, self.bits))) {
            let mut codes = [0; BLOCK];
            encode(values, self.inverse, self.bits, &mut codes);
            write(&codes, self.bits, out);
        }
    }
}

/// The codes of `values`, one in each of the first `values.len()` places.
#[inline(always)]
pub(crate) fn encode(values: &[f32], inverse: f32, bits: u32, codes: &mut [i16]) {
    match bits {
        4 => encode_width::<4>(values, inverse, codes),
        8 => encode_width::<8>(values, inverse, codes),
        _ => encode_width::<16>(values, inverse, codes),
    }
}

#[inline(always)]
fn encode_width<const BITS: u32>(values: &[f32], inverse: f32, codes: &mut [i16]) {
    let n = ((1 << (BITS - 1)) - 1) as f32;
    for (out, &v) in codes.iter_mut().zip(values) {
        let t = code(v, inverse, n);
        // Adding 1.5 * 2^23 leaves the code in the lowest bits; a conversion would not become vectors.
        let bits = (t + 12_582_912.0).to_bits() as i16;
        *out = if t.is_nan() { 0 } else { bits };
    }
}

/// Writes as many codes as fit in `bytes`, the first in the lowest bits.
#[inline(always)]
pub(crate) fn write(codes: &[i16; BLOCK], bits: u32, bytes: &mut [u8]) {
    match bits {
        4 => {
            for (out, pair) in bytes.iter_mut().zip(codes.as_chunks::<2>().0) {
                *out = (pair[0] & 15 | pair[1] << 4) as u8;
            }
        }
        8 => bytes.iter_mut().zip(codes).for_each(|(out, code)| *out = *code as u8),
        _ => bytes.as_chunks_mut::<2>().0.iter_mut().zip(codes).for_each(|(out, code)| *out = code.to_le_bytes()),
    }
}

/// How a code is added to a sum.
trait Add<T> {
    fn add(&self, sum: &mut T, code: i32);
}

struct Scaled(f32);

impl Add<f32> for Scaled {
    #[inline(always)]
    fn add(&self, sum: &mut f32, code: i32) {
        *sum += self.0 * code as f32;
    }
}

struct Whole;

impl Add<i32> for Whole {
    #[inline(always)]
    fn add(&self, sum: &mut i32, code: i32) {
        *sum += code;
    }
}

struct Accumulate<'a, T, A> {
    codes: &'a [u8],
    bits: u32,
    add: A,
    sums: &'a mut [T],
}

impl<T, A: Add<T>> NullaryFnOnce for Accumulate<'_, T, A> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Accumulate { codes, bits, add, sums } = self;
        debug_assert_eq!(codes.len(), bytes(sums.len(), bits));
        match bits {
            4 => {
                let (words, _) = codes.as_chunks::<4>();
                let (eights, _) = sums.as_chunks_mut::<8>();
                for (sums, word) in eights.iter_mut().zip(words) {
                    let codes = pack::codes_of::<4, 8>(*word);
                    sums.iter_mut().zip(codes).for_each(|(sum, code)| add.add(sum, code));
                }
                let whole = sums.len() / 8 * 8;
                for (i, sum) in sums.iter_mut().enumerate().skip(whole) {
                    add.add(sum, pack::code_at(codes, super::Bits::B4, i));
                }
            }
            8 => sums.iter_mut().zip(codes).for_each(|(sum, code)| add.add(sum, i32::from(*code as i8))),
            _ => {
                let (codes, _) = codes.as_chunks::<2>();
                sums.iter_mut().zip(codes).for_each(|(sum, code)| add.add(sum, i32::from(i16::from_le_bytes(*code))));
            }
        }
    }
}

struct MaxAbs<'a> {
    values: &'a [f32],
}

impl NullaryFnOnce for MaxAbs<'_> {
    type Output = f32;

    #[inline(always)]
    fn call(self) -> f32 {
        // Magnitudes in the order of their bits; they fit in i32, whose largest is one instruction everywhere.
        f32::from_bits(self.values.iter().fold(0, |most: i32, v| most.max((v.to_bits() & 0x7fff_ffff) as i32)) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTHS: [u32; 3] = [4, 8, 16];
    const LENGTHS: [usize; 14] = [0, 1, 2, 3, 7, 8, 9, 31, 32, 33, 255, 256, 257, 1003];

    /// The code as the formula says.
    fn naive(v: f32, scale: f32, bits: u32) -> i32 {
        let n = max_code(bits) as f32;
        let t = v * (1.0 / scale);
        if t.is_nan() { 0 } else { t.round_ties_even().max(-n - 1.0).min(n) as i32 }
    }

    /// Bit by bit.
    fn naive_bytes(codes: &[i32], bits: u32) -> Vec<u8> {
        let mut out = vec![0; (codes.len() * bits as usize).div_ceil(8)];
        for (i, code) in codes.iter().enumerate() {
            for b in 0..bits as usize {
                let at = i * bits as usize + b;
                out[at / 8] |= ((code >> b & 1) as u8) << (at % 8);
            }
        }
        out
    }

    /// Values on, between and beyond the steps of the grid of `scale`, ties among them.
    fn values(len: usize, scale: f32, bits: u32) -> Vec<f32> {
        let span = 2 * (max_code(bits) as i64 + 2);
        (0..len as i64).map(|i| ((i * 7919 % (4 * span)) - 2 * span) as f32 * 0.25 * scale).collect()
    }

    #[test]
    fn codes_and_bytes_are_those_of_the_formula() {
        for bits in WIDTHS {
            for len in LENGTHS {
                for scale in [1.0, 0.125, 0.013] {
                    let values = values(len, scale, bits);
                    let codes: Vec<i32> = values.iter().map(|&v| naive(v, scale, bits)).collect();
                    let mut out = vec![0xaa];
                    quantize(&values, scale, bits, &mut out);
                    assert_eq!(out[0], 0xaa);
                    assert_eq!(out[1..], naive_bytes(&codes, bits), "{bits} bits, {len} values, scale {scale}");
                }
            }
        }
    }

    #[test]
    fn every_call_begins_a_new_byte() {
        let mut out = Vec::new();
        quantize(&[1.0, 2.0, 3.0], 1.0, 4, &mut out);
        quantize(&[-1.0], 1.0, 4, &mut out);
        assert_eq!(out, [0x21, 0x03, 0x0f]);
    }

    #[test]
    fn ties_go_to_even_and_the_range_is_lopsided() {
        for bits in WIDTHS {
            let n = max_code(bits) as f32;
            let values = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.0, -0.0, 9.0 * n, -9.0 * n, f32::INFINITY, f32::NEG_INFINITY];
            let mut codes = Vec::new();
            quantize(&values, 1.0, bits, &mut codes);
            let mut sums = [0; 12];
            add_codes(&codes, bits, &mut sums);
            let n = n as i32;
            assert_eq!(sums, [0, 2, 2, 0, -2, -2, 0, 0, n, -n - 1, n, -n - 1], "{bits} bits");
        }
    }

    #[test]
    fn on_its_own_scale_no_code_is_below_minus_n() {
        for bits in WIDTHS {
            let n = max_code(bits);
            for i in 1..2000 {
                let largest = i as f32 * 0.37e-3;
                let scale = super::super::scale(max_abs(&[largest, -largest]), n);
                let mut codes = Vec::new();
                quantize(&[largest, -largest], scale, bits, &mut codes);
                let mut sums = [0; 2];
                add_codes(&codes, bits, &mut sums);
                assert_eq!(sums, [n as i32, -(n as i32)], "{bits} bits, {largest}");
            }
        }
    }

    #[test]
    fn nan_has_the_code_zero_whatever_its_bits() {
        for bits in WIDTHS {
            for nan in [f32::NAN, -f32::NAN, f32::from_bits(0x7fff_ffff), f32::from_bits(0xffc0_1235)] {
                let (mut codes, mut sums) = (Vec::new(), [0; 3]);
                quantize(&[nan, 1.0, nan], 1.0, bits, &mut codes);
                add_codes(&codes, bits, &mut sums);
                assert_eq!(sums, [0, 1, 0], "{bits} bits");
            }
            // The scales of a group with a NaN and of one with an infinity.
            for scale in [f32::NAN, f32::INFINITY] {
                let mut codes = Vec::new();
                quantize(&[1.0, f32::NAN, f32::INFINITY], scale, bits, &mut codes);
                assert!(codes.iter().all(|&b| b == 0), "{bits} bits, scale {scale}");
                let mut sums = [1.0; 3];
                add_scaled(&codes, bits, scale, &mut sums);
                assert!(sums.iter().all(|s| s.is_nan()), "whoever multiplies sees it");
            }
        }
    }

    #[test]
    fn sums_are_those_of_a_loop() {
        for bits in WIDTHS {
            for len in LENGTHS {
                // Every code, the lowest too.
                let n = max_code(bits) as i64;
                let codes: Vec<i32> = (0..len as i64).map(|i| ((i * 7919 + 3) % (2 * n + 2) - n - 1) as i32).collect();
                let packed = naive_bytes(&codes, bits);
                let start: Vec<f32> = (0..len).map(|i| (i as f32 - 3.0) * 0.7).collect();
                let mut sums = start.clone();
                add_scaled(&packed, bits, 0.0131, &mut sums);
                for i in 0..len {
                    let product = 0.0131 * codes[i] as f32;
                    assert_eq!(sums[i].to_bits(), (start[i] + product).to_bits(), "{bits} bits, {len} codes, number {i}");
                }
                let mut whole: Vec<i32> = (0..len as i32).collect();
                add_codes(&packed, bits, &mut whole);
                assert!((0..len).all(|i| whole[i] == i as i32 + codes[i]), "{bits} bits, {len} codes");
            }
        }
    }

    #[test]
    fn the_largest_magnitude_is_found_wherever_it_lies() {
        assert_eq!(max_abs(&[]), 0.0);
        for len in LENGTHS.into_iter().filter(|&len| len > 0) {
            for at in [0, len / 2, len - 1] {
                let mut values = vec![-0.5; len];
                values[at] = -3.0;
                assert_eq!(max_abs(&values), 3.0);
                values[at] = f32::NEG_INFINITY;
                assert_eq!(max_abs(&values), f32::INFINITY);
                values[len / 3] = -f32::NAN;
                assert!(max_abs(&values).is_nan(), "a NaN wins against {}", values[at]);
            }
        }
    }
}
