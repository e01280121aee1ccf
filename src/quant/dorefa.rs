//! DoReFa's grid for weights (Zhou et al. 2016, arXiv 1606.06160 section 2.3), which arXiv 2410.20046 compares
//! with under the name PACT: `2 quant_k(tanh w / (2 max |tanh w|) + 1/2) - 1` with
//! `quant_k(x) = round((2^k - 1) x) / (2^k - 1)`. All values lie in -1..=1 and none is zero.

/// The grid of a group of weights. With `n = 2^(k-1) - 1`, the code of `w` is
/// `c = round((2n + 1) (tanh w / (2 tanh max_abs) + 1/2)) - (n + 1)`, from `-n - 1` to `n`, and its value is
/// `(2c + 1) / (2n + 1) = (c + 1/2) spacing`.
///
/// ```
/// let grid = dqrm::quant::dorefa::Grid::new(0.3, 7);
/// assert_eq!((grid.code(-0.3), grid.code(0.3), grid.code(0.0)), (-8.0, 7.0, 0.0)); // 7.5 rounds to 8
/// assert!((grid.value(0.3) - 1.0).abs() < 1e-6);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// `1 / (2 tanh max_abs)`
    half: f32,
    /// n
    max_code: f32,
    spacing: f32,
}

impl Grid {
    /// The grid of weights whose largest magnitude is `max_abs` (at least 1e-8 is taken; a NaN stays a NaN).
    #[inline(always)]
    pub fn new(max_abs: f32, max_code: u32) -> Grid {
        let floor = if max_abs < 1e-8 { 1e-8 } else { max_abs };
        Grid { half: 0.5 / tanh(floor), max_code: max_code as f32, spacing: spacing(max_code) }
    }

    /// The code of `w` as a float; NaN gives NaN. Weights beyond `max_abs` get the outermost codes.
    #[inline(always)]
    pub fn code(&self, w: f32) -> f32 {
        let steps = 2.0 * self.max_code + 1.0;
        let t = steps * (tanh(w) * self.half + 0.5);
        super::round_half_even(t.clamp(0.0, steps)) - (self.max_code + 1.0)
    }

    /// The value that the forward pass uses instead of `w`.
    #[inline(always)]
    pub fn value(&self, w: f32) -> f32 {
        (self.code(w) + 0.5) * self.spacing
    }
}

/// The distance of two values: `2 / (2^k - 1)`.
#[inline(always)]
pub fn spacing(max_code: u32) -> f32 {
    2.0 / (2 * max_code + 1) as f32
}

/// tanh as a quotient of two polynomials, the fit that Eigen and XLA use, with plain operations only: shaders
/// compute it in the same way (their own `tanh` may be off by 1e-5) and compilers vectorise it.
/// Within 5e-7 of the true value, relative. NaN gives NaN.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let c = x.clamp(-7.905_311, 7.905_311);
    let x2 = c * c;
    let mut p = -2.760_768_4e-16 * x2 + 2.000_188e-13;
    for a in [-8.604_672e-11, 5.122_297_3e-8, 1.485_722_35e-5, 6.372_619_5e-4, 4.893_524_6e-3] {
        p = p * x2 + a;
    }
    let mut q = 1.198_258_4e-6 * x2 + 1.185_347_1e-4;
    for b in [2.268_434_7e-3, 4.893_525e-3] {
        q = q * x2 + b;
    }
    if c.abs() < 4e-4 { c } else { c * p / q }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tanh_is_close_everywhere_and_odd() {
        for i in -200_000..=200_000 {
            let x = i as f32 * 5e-5;
            let exact = f64::from(x).tanh();
            assert!((f64::from(tanh(x)) - exact).abs() <= 5e-7 * exact.abs(), "{x}: {} instead of {exact}", tanh(x));
            assert_eq!(tanh(-x), -tanh(x));
        }
        assert!((tanh(f32::INFINITY) - 1.0).abs() < 1e-6 && (tanh(-1e30) + 1.0).abs() < 1e-6);
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn the_grid_is_even_and_has_no_zero() {
        for n in [1u32, 7, 127, 32_767] {
            let grid = Grid::new(0.5, n);
            assert_eq!((grid.code(-0.5), grid.code(0.5)), (-(n as f32) - 1.0, n as f32));
            assert_eq!((grid.code(-9.0), grid.code(9.0)), (-(n as f32) - 1.0, n as f32), "beyond the range");
            let (low, high) = (grid.value(-0.5), grid.value(0.5));
            assert!((low + 1.0).abs() < 2e-7 && (high - 1.0).abs() < 2e-7, "{low} {high}");
            assert!(grid.value(1e-9).abs() > 0.0);
        }
        assert!(Grid::new(f32::NAN, 7).value(0.1).is_nan() && Grid::new(0.1, 7).value(f32::NAN).is_nan());
        assert!(Grid::new(0.0, 7).value(0.0).is_finite());
    }
}
