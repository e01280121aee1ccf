//! Number formats of the quantized model: range, scale, rounding. This file is what shaders,
//! twins and files obey. Symmetric, zero point 0, round half to even
//! (arXiv 2410.20046 section 3; `quant_utils.py` of the published code for the constants).

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

pub mod dorefa;
pub mod gradient;
pub mod pack;

/// Width of a quantized weight, or none at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Bits {
    /// FP32, not quantized.
    None,
    /// 2 bits: codes -2..=1.
    B2,
    /// 4 bits: codes -8..=7. The method's own width.
    #[default]
    B4,
    /// 8 bits: codes -128..=127.
    B8,
    /// 16 bits: codes -32768..=32767.
    B16,
}

impl Bits {
    /// The width in bits; 32 for FP32.
    pub fn width(self) -> u32 {
        match self {
            Bits::None => 32,
            Bits::B2 => 2,
            Bits::B4 => 4,
            Bits::B8 => 8,
            Bits::B16 => 16,
        }
    }

    /// The largest positive code n = 2^(b-1) - 1; 0 for FP32.
    pub fn max_code(self) -> u32 {
        if self == Bits::None { 0 } else { (1 << (self.width() - 1)) - 1 }
    }

    /// True unless FP32.
    pub fn quantized(self) -> bool {
        self != Bits::None
    }

    /// Bytes of `rows` rows of `dim` codes when packed (rows start on a byte).
    pub fn packed_bytes(self, rows: u64, dim: u64) -> u64 {
        rows.saturating_mul(dim.saturating_mul(self.width() as u64).div_ceil(8))
    }
}

impl std::str::FromStr for Bits {
    type Err = Error;
    fn from_str(text: &str) -> Result<Bits> {
        match text.trim().to_ascii_lowercase().as_str() {
            "none" | "32" | "fp32" => Ok(Bits::None),
            "2" => Ok(Bits::B2),
            "4" => Ok(Bits::B4),
            "8" => Ok(Bits::B8),
            "16" => Ok(Bits::B16),
            other => Err(Error::Config(format!("`{other}` is not a bit width; use 2, 4, 8, 16 or none"))),
        }
    }
}

impl std::fmt::Display for Bits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.quantized() { write!(f, "INT{}", self.width()) } else { f.write_str("FP32") }
    }
}

impl Serialize for Bits {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if self.quantized() { s.serialize_u32(self.width()) } else { s.serialize_str("none") }
    }
}

impl<'de> Deserialize<'de> for Bits {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Bits, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Number(i64),
            Text(String),
        }
        let text = match Raw::deserialize(d)? {
            Raw::Number(n) => n.to_string(),
            Raw::Text(t) => t,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The scale of a group whose largest magnitude is `max_abs`: `max(max_abs, 1e-8) / n`.
/// A NaN stays a NaN.
pub fn scale(max_abs: f32, max_code: u32) -> f32 {
    let floor = if max_abs < 1e-8 { 1e-8 } else { max_abs };
    floor / max_code as f32
}

/// Rounds half to even for |x| < 2^22, in two additions that every compiler vectorises
/// (`f32::round_ties_even` is a library call where the target lacks SSE4.1).
#[inline(always)]
pub fn round_half_even(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23
    (x + MAGIC) - MAGIC
}

/// The code of `w`: `clamp(round_half_even(w * inverse), -n-1, n)` as a float. NaN gives NaN.
#[inline(always)]
pub fn code(w: f32, inverse: f32, n: f32) -> f32 {
    round_half_even((w * inverse).clamp(-n - 1.0, n))
}

/// Quantizes and dequantizes: the value the forward pass uses instead of `w`.
///
/// ```
/// let s = dqrm::quant::scale(0.7, 7);
/// let n = 7.0;
/// assert!((dqrm::quant::fake_quant(0.26, s, 1.0 / s, n) - 0.3).abs() < 1e-6);
/// assert!((dqrm::quant::fake_quant(-9.0, s, 1.0 / s, n) + 0.8).abs() < 1e-6); // clamps at -8 steps
/// ```
#[inline(always)]
pub fn fake_quant(w: f32, scale: f32, inverse: f32, n: f32) -> f32 {
    code(w, inverse, n) * scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_agrees_with_the_standard_library() {
        for i in -70_000..70_000 {
            let x = i as f32 * 0.25;
            assert_eq!(round_half_even(x), x.round_ties_even(), "{x}");
        }
    }

    #[test]
    fn ties_go_to_even_and_the_range_is_lopsided() {
        assert_eq!([0.5, 1.5, 2.5, -0.5, -2.5, 99.0, -99.0].map(|x| code(x, 1.0, 7.0)), [0.0, 2.0, 2.0, -0.0, -2.0, 7.0, -8.0]);
        assert!(code(f32::NAN, 1.0, 7.0).is_nan());
        assert!(scale(f32::NAN, 7).is_nan());
        assert_eq!(scale(0.0, 7), 1e-8 / 7.0);
    }

    #[test]
    fn kaggle_tables_pack_to_the_published_size() {
        assert_eq!(Bits::B4.packed_bytes(33_762_577, 16), 270_100_616);
        assert_eq!(Bits::B4.packed_bytes(49_113_849, 64), 1_571_643_168);
    }

    #[test]
    fn widths_are_read_from_text() {
        assert_eq!("4".parse::<Bits>().unwrap(), Bits::B4);
        assert_eq!("none".parse::<Bits>().unwrap(), Bits::None);
        assert!("5".parse::<Bits>().unwrap_err().to_string().contains("2, 4, 8, 16"));
    }
}
