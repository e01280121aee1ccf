//! Lengths of texts as differences (`DELTA_BINARY_PACKED`), read to know what memory texts will take before they are made.

/// Where bytes are read.
struct Bytes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bytes<'_> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 127).checked_shl(shift)?;
            if byte < 128 {
                return Some(value);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }
}

/// `width` bits from bit `at` on, the first in the lowest place.
fn bits(bytes: &[u8], at: u64, width: u32) -> Option<u32> {
    let mut value = 0u64;
    let first = (at / 8) as usize;
    let last = (at + u64::from(width)).div_ceil(8) as usize;
    for (i, byte) in bytes.get(first..last)?.iter().enumerate() {
        value |= u64::from(*byte) << (8 * i);
    }
    Some(((value >> (at % 8)) & ((1u64 << width) - 1)) as u32)
}

/// The number of lengths, at most `most`, their sum and the bytes that they take; `None` when they are more or damaged.
pub(super) fn lengths(bytes: &[u8], most: u64) -> Option<(u64, u64, usize)> {
    let mut bytes = Bytes { bytes, at: 0 };
    let (block, parts, count) = (bytes.varint()?, bytes.varint()?, bytes.varint()?);
    let first = bytes.zigzag()?;
    let values = block.checked_div(parts)?;
    if count > most || !block.is_multiple_of(128) || values == 0 || !values.is_multiple_of(32) || block != values * parts {
        return None;
    }
    let (mut last, mut left, mut sum) = (i32::try_from(first).ok()?, count, 0u64);
    if left > 0 {
        sum += u64::try_from(last).ok()?;
        left -= 1;
    }
    while left > 0 {
        let least = i32::try_from(bytes.zigzag()?).ok()?;
        let widths = bytes.at..bytes.at.checked_add(usize::try_from(parts).ok()?)?;
        let widths = bytes.bytes.get(widths)?;
        bytes.at += widths.len();
        for &width in widths {
            if left == 0 {
                break;
            }
            let packed = bytes.bytes.get(bytes.at..)?;
            if width > 32 {
                return None;
            }
            for i in 0..left.min(values) {
                let delta = bits(packed, i.checked_mul(u64::from(width))?, u32::from(width))?;
                last = last.wrapping_add(least).wrapping_add(delta as i32);
                sum = sum.checked_add(u64::try_from(last).ok()?)?;
            }
            left -= left.min(values);
            bytes.at = bytes.at.checked_add(usize::try_from(values.checked_mul(u64::from(width))? / 8).ok()?)?;
        }
    }
    Some((count, sum, bytes.at))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 128 values a block in 4 parts: 7, then 40 differences of 3, 5, 3, 5, …
    fn written() -> Vec<u8> {
        let mut bytes = vec![0x80, 1, 4, 41, 14, 6, 2, 2, 0, 0];
        bytes.extend([0b1000_1000; 16]);
        bytes
    }

    #[test]
    fn lengths_are_added_up() {
        let values: Vec<u64> = (0..41).map(|i| 7 + 4 * i - i % 2).collect();
        assert_eq!(lengths(&written(), 41), Some((41, values.iter().sum(), 26)));
        assert_eq!(lengths(&[0x80, 1, 4, 0, 0], 9), Some((0, 0, 5)));
        assert_eq!(lengths(&[0x80, 1, 4, 1, 10], 9), Some((1, 5, 5)));
    }

    #[test]
    fn lies_are_refused() {
        assert_eq!(lengths(&written(), 40), None, "more than the page has");
        assert_eq!(lengths(&[0x80, 1, 4, 0xff, 0xff, 0xff, 0xff, 0x7f, 0], 1000), None, "2^35 lengths");
        assert_eq!(lengths(&[0x80, 1, 4, 1, 9], 9), None, "a negative one");
        assert_eq!(lengths(&[0x80, 1, 0, 1, 10], 9), None, "no parts");
        assert_eq!(lengths(&[&[0x80, 1, 4, 3, 10, 0, 33, 0, 0, 0][..], &[0; 200]].concat(), 9), None, "33 bits");
        assert!(lengths(&[&[0x80, 1, 4, 3, 10, 0, 32, 0, 0, 0][..], &[0; 200]].concat(), 9).is_some(), "32 bits");
        for end in 0..written().len() - 8 {
            assert_eq!(lengths(&written()[..end], 41), None, "ends after {end} bytes");
        }
    }
}
