//! Floats in two halves of f16, for products on cooperative matrices: the twin of `shaders/variants/matmul_halves.wgsl`.
//!
//! `x 2^e = high + low / 2^11`, where both have the 11 bits of f16 and `2^e` brings the largest magnitude of x's row into
//! 2^14..2^15. So f16 never overflows. What the halves leave out of x is at most 2^-23 of it, or 2^-39 of the largest in its row.
//! The product of two halved values leaves out that of the low halves, too: at most 2^-22 of it. After Ootomo and Yokota,
//! "Recovering single precision accuracy from Tensor Cores while surpassing the FP32 theoretical peak performance"
//! (arXiv 2203.03341), who scale by 2^11 likewise, but leave the range of f16 to the caller.

/// What low halves are multiplied by.
const LOW: f32 = 2048.0;
/// Bits of an infinity; those of NaN are larger.
const INFINITY: u32 = 0x7f80_0000;
/// Bits of 2^-14, the smallest magnitude that f16 holds with all of its bits.
const LEAST: u32 = 0x3880_0000;

/// The bits of |x|, which are in the order of the magnitudes, those of NaN last.
pub fn abs_bits(x: f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}

/// The exponent e for a row whose largest magnitude has the bits `most`. Both 2^e and its inverse are floats with all bits.
pub fn exponent(most: u32) -> i32 {
    (141 - (most >> 23) as i32).clamp(-113, 126)
}

/// 2^e, for e in -126..=127.
pub fn power(e: i32) -> f32 {
    f32::from_bits(((e + 127) as u32) << 23)
}

/// Rounded to 11 bits, half to even; below 2^-14 zero.
fn half(v: f32) -> f32 {
    let bits = v.to_bits();
    if abs_bits(v) < LEAST { 0.0 } else { f32::from_bits((bits + 0xfff + (bits >> 13 & 1)) & 0xffff_e000) }
}

/// The halves (high, low) of an element of a row whose largest magnitude has the bits `most`; zeros when it is not finite.
pub fn split(x: f32, most: u32) -> (f32, f32) {
    if most >= INFINITY {
        return (0.0, 0.0);
    }
    let scaled = x * power(exponent(most));
    let high = half(scaled);
    (high, half((scaled - high) * LOW))
}

/// The bits of the largest magnitude of a row, those of NaN when there is one.
pub fn largest(row: &[f32]) -> u32 {
    row.iter().map(|&x| abs_bits(x)).max().unwrap_or(0)
}

/// The sum of products of two rows, from their halves; NaN when one of them holds a value that is not finite.
pub fn dot(left: &[f32], right: &[f32]) -> f32 {
    let (left_most, right_most) = (largest(left), largest(right));
    let worst = left_most.max(right_most);
    if worst >= INFINITY {
        return f32::from_bits(worst | 0x0040_0000);
    }
    let (mut high, mut low) = (0.0f32, 0.0f32);
    for (&l, &r) in left.iter().zip(right) {
        let ((lh, ll), (rh, rl)) = (split(l, left_most), split(r, right_most));
        high += lh * rh;
        low += lh * rl + ll * rh;
    }
    let e = -exponent(left_most) - exponent(right_most);
    (high + low / LOW) * power(e / 2) * power(e - e / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::case::random;

    /// A value of f16 with all of its bits, or zero.
    fn fits(v: f32) -> bool {
        v == 0.0 || (abs_bits(v) >= LEAST && v.abs() <= 65_504.0 && v.to_bits() & 0x1fff == 0)
    }

    /// What the halves stand for.
    fn value((high, low): (f32, f32), most: u32) -> f64 {
        (f64::from(high) + f64::from(low) / f64::from(LOW)) / f64::from(power(exponent(most)))
    }

    /// Random magnitudes from 2^least to 2^most, with signs.
    fn spread(name: &str, len: usize, least: f32, most: f32) -> Vec<f32> {
        let exponents = random(&format!("{name} exponents"), len);
        random(name, len).iter().zip(exponents).map(|(&v, e)| v.signum() * (least + (e + 1.0) / 2.0 * (most - least)).exp2()).collect()
    }

    #[test]
    fn halves_are_f16_and_leave_out_at_most_their_bound() {
        for (least, most) in [(-3.0, 0.0), (-24.0, -20.0), (-30.0, 10.0), (-100.0, 100.0), (-126.0, -100.0), (100.0, 127.9)] {
            let row = spread("row", 4000, least, most);
            let bits = largest(&row);
            let top = f64::from(f32::from_bits(bits));
            for &x in &row {
                let halves = split(x, bits);
                assert!(fits(halves.0) && fits(halves.1), "{x:e}: {halves:?}");
                let left_out = (value(halves, bits) - f64::from(x)).abs();
                let bound = f64::from(x.abs()) * 2f64.powi(-23) + top * 2f64.powi(-39);
                assert!(left_out <= bound, "{x:e} beside {top:e}: {left_out:e} left out, at most {bound:e}");
            }
        }
    }

    #[test]
    fn the_ends_of_the_range_are_kept() {
        for x in [f32::MAX, -f32::MAX, f32::MIN_POSITIVE, 1e-7, -1e-7, 65_504.0, 65_520.0, 1.0, -0.0, 0.0] {
            let halves = split(x, abs_bits(x));
            assert!(fits(halves.0) && fits(halves.1), "{x:e}: {halves:?}");
            let error = (value(halves, abs_bits(x)) - f64::from(x)).abs();
            assert!(error <= 2f64.powi(-23) * f64::from(x.abs()), "{x:e}: {error:e}");
        }
        // Below the smallest plain float what is left out is below it, too.
        let tiny = f32::from_bits(77);
        assert!((value(split(tiny, 77), 77) - f64::from(tiny)).abs() < 2f64.powi(-140));
        for i in -126..=127 {
            assert_eq!(power(i), 2f32.powi(i));
        }
        for most in [0, 1, abs_bits(f32::MIN_POSITIVE), abs_bits(1.0), abs_bits(f32::MAX)] {
            let e = exponent(most);
            assert!((-126..=126).contains(&e) && (-126..=126).contains(&-e), "{e}");
            assert!(f32::from_bits(most) * power(e) < 32_768.0);
        }
    }

    #[test]
    fn sums_of_gradients_that_f16_cannot_hold_keep_their_bits() {
        for scale in [1.0f32, 1e-7, 3e-12, 1e30, 1e-36] {
            for terms in [1, 13, 367, 2048] {
                let left: Vec<f32> = random("dz", terms).iter().map(|v| v * scale).collect();
                let right = random("weights", terms);
                let exact: f64 = left.iter().zip(&right).map(|(l, r)| f64::from(*l) * f64::from(*r)).sum();
                let size: f64 = left.iter().zip(&right).map(|(l, r)| f64::from((l * r).abs())).sum();
                let error = (f64::from(dot(&left, &right)) - exact).abs();
                assert!(error <= 1e-6 * size, "{terms} terms of {scale:e}: {error:e} beside {size:e}");
            }
        }
    }

    #[test]
    fn extreme_rows_neither_overflow_nor_vanish_on_the_way() {
        let close = |found: f32, expected: f32| (found - expected).abs() <= 2f32.powi(-21) * expected;
        assert!(close(dot(&[1e-38], &[1e38]), 1.0));
        assert!(close(dot(&[f32::MAX / 4.0; 2], &[1.0; 2]), f32::MAX / 2.0));
        assert!(close(dot(&[f32::MAX], &[1e-38]), f32::MAX * 1e-38));
        assert_eq!(dot(&[f32::MAX], &[2.0]), f32::INFINITY);
        assert_eq!(dot(&[1.0, 0.0], &[0.0, 1.0]), 0.0);
        assert_eq!(dot(&[0.0; 5], &[0.0; 5]), 0.0);
        assert_eq!(dot(&[], &[]), 0.0);
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut row = random("row", 20);
            row[7] = bad;
            assert!(dot(&row, &random("other", 20)).is_nan() && dot(&random("other", 20), &row).is_nan() && dot(&row, &[0.0; 20]).is_nan());
        }
    }
}
