//! The short way from a line of Criteo's layout to a row: one pass, eight hexadecimal digits at a time, small
//! logarithms from a table. Whatever is not the usual case is left to the general way, which also words the
//! messages; what both take is the same.

use super::columns::Columns;
use super::fields;
use super::raw::RawBlock;
use crate::config::Schema;
use std::sync::LazyLock;

/// Integers whose logarithm stands in a table.
const TABLE: usize = 2048;

/// ln(i + 1), as [`fields::dense`] computes it.
static LOGS: LazyLock<Vec<f32>> = LazyLock::new(|| (0..TABLE).map(|i| fields::log(i as f32)).collect());

/// Lines of a label, `dense` integers and `tables` hexadecimal categories.
#[derive(Debug)]
pub(super) struct Quick {
    dense: usize,
    tables: usize,
    logs: &'static [f32],
}

impl Quick {
    /// `None` where the file has another layout.
    pub(super) fn new(schema: &Schema, columns: &Columns) -> Option<Quick> {
        let (dense, tables) = (schema.dense.len(), schema.categorical.len());
        let plain = Schema { header: schema.header, width: schema.width, ..Schema::criteo(dense, tables) };
        let fits = *schema == plain && tables > 0 && columns.width == 1 + dense + tables;
        fits.then(|| Quick { dense, tables, logs: &LOGS })
    }

    /// Appends the row of `line`; false when it needs the general way, with part of it left in `block`.
    pub(super) fn row(&self, line: &[u8], block: &mut RawBlock) -> bool {
        let label = match line {
            [b'0', b'\t', ..] => 0.0,
            [b'1', b'\t', ..] => 1.0,
            _ => return false,
        };
        let mut at = 2;
        for _ in 0..self.dense {
            let Some((value, next)) = self.integer(line, at) else { return false };
            block.dense.push(value);
            at = next;
        }
        for _ in 1..self.tables {
            let Some((key, next)) = category(line, at) else { return false };
            if line.get(next) != Some(&b'\t') {
                return false;
            }
            block.keys.push(key);
            at = next + 1;
        }
        match category(line, at) {
            Some((key, end)) if end == line.len() => block.keys.push(key),
            _ => return false,
        }
        let first = block.keys.len() as u32 - self.tables as u32;
        block.offsets.extend((1..=self.tables as u32).map(|k| first + k));
        block.labels.push(Some(label));
        block.samples += 1;
        true
    }

    /// The dense value of the integer at `at`, and the place behind the tab that follows it.
    fn integer(&self, line: &[u8], at: usize) -> Option<(f32, usize)> {
        let negative = *line.get(at)? == b'-';
        let first = at + usize::from(negative);
        let (mut n, mut end) = (0u32, first);
        loop {
            let digit = line.get(end)?.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            n = n.wrapping_mul(10).wrapping_add(u32::from(digit));
            end += 1;
        }
        // a lone sign is no number; ten digits may not fit
        if line[end] != b'\t' || end - first > 9 || (negative && end == first) {
            return None;
        }
        let value = match n {
            _ if negative => 0.0,
            n if (n as usize) < TABLE => self.logs[n as usize],
            n => fields::log(n as f32),
        };
        Some((value, end + 1))
    }
}

/// The category at `at`, eight digits or none, and the place behind it.
fn category(line: &[u8], at: usize) -> Option<(u64, usize)> {
    if let Some(word) = line.get(at..).and_then(|rest| rest.first_chunk::<8>())
        && let Some(value) = eight_digits(u64::from_le_bytes(*word))
    {
        return Some((u64::from(value), at + 8));
    }
    match line.get(at) {
        None | Some(b'\t') => Some((0, at)),
        _ => short(line, at),
    }
}

/// Up to seven digits.
#[cold]
fn short(line: &[u8], at: usize) -> Option<(u64, usize)> {
    let digits = line[at..].iter().take(8).take_while(|&&c| c != b'\t').count();
    (digits < 8).then_some(())?;
    let value = fields::hex(&line[at..at + digits]).ok()?;
    Some((value, at + digits))
}

/// The number that eight hexadecimal digits spell, the first in the lowest byte; `None` when one is no digit.
fn eight_digits(word: u64) -> Option<u32> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let letters = (word >> 6) & ONES;
    // 0x3_ for digits, 0x4_ or 0x6_ for letters
    let high = (word | letters << 5) & (0xf0 * ONES);
    let value = (word & (0x0f * ONES)) + 9 * letters;
    // digits are at most 9, letters at least 10 and at most 15
    let large = ((value + 6 * ONES) >> 4) & ONES;
    if high != 0x30 * ONES + 0x30 * letters || large != letters || value & (0xf0 * ONES) != 0 {
        return None;
    }
    let x = value.swap_bytes();
    let x = (x | x >> 4) & 0x00ff_00ff_00ff_00ff;
    let x = (x | x >> 8) & 0x0000_ffff_0000_ffff;
    Some((x | x >> 16) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::raw::Labels;
    use crate::data::rows::Rules;
    use crate::rng::Stream;

    #[test]
    fn eight_digits_are_exact_or_refused() {
        for (text, value) in [("00000000", 0), ("68fd1e64", 0x68fd_1e64), ("FFffFFff", u32::MAX), ("abcdefAB", 0xabcd_efab)] {
            assert_eq!(eight_digits(u64::from_le_bytes(text.as_bytes().try_into().unwrap())), Some(value), "{text}");
        }
        for c in 0..=255u8 {
            for place in 0..8 {
                let mut text = *b"1a2b3c4d";
                text[place] = c;
                assert_eq!(eight_digits(u64::from_le_bytes(text)).is_some(), c.is_ascii_hexdigit(), "{c:#x} at {place}");
            }
        }
    }

    /// A line like Criteo's, with damage in every third.
    fn line(s: &Stream, i: u64) -> Vec<u8> {
        let draw = |j: u64, n: u64| s.below(i * 100 + j, n);
        let mut line = vec![b'0' + draw(0, 2) as u8];
        for j in 1..4 {
            let text = ["", "0", "7", "-1", "2047", "2048", "123456789", "1234567890", "1.5", "-", "99999999999"];
            line.extend(format!("\t{}", text[draw(j, text.len() as u64) as usize]).bytes());
        }
        for j in 4..7 {
            let digits = ["", "68fd1e64", "ABCDEF01", "1", "1234567", "123456789", "0123456789abcdef", "x", "68fd1e6g"];
            line.extend(format!("\t{}", digits[draw(j, digits.len() as u64) as usize]).bytes());
        }
        if draw(7, 3) == 0 {
            let at = draw(8, line.len() as u64) as usize;
            line[at] = [b'\t', b'g', b'-', 0xff, b' '][draw(9, 5) as usize];
        }
        line
    }

    #[test]
    fn both_ways_take_the_same_lines_and_give_the_same_rows() {
        let schema = Schema::criteo(3, 3);
        let rules = Rules::new(&schema, Labels::Required).unwrap();
        // a limit that nothing reaches leaves only the general way
        let mut general = Rules::new(&schema, Labels::Required).unwrap();
        general.limits = Some(vec![u64::MAX; 3]);
        let first = b"0\t\t\t\t\t\t";
        let (fast, slow) = (rules.columns(first).unwrap(), general.columns(first).unwrap());
        let quick = Quick::new(&schema, &fast.with).unwrap();
        let (s, mut taken) = (Stream::new(1, 2), 0);
        for i in 0..20_000 {
            let line = line(&s, i);
            let (mut a, mut b, mut c) = (RawBlock::new(), RawBlock::new(), RawBlock::new());
            let outcome = general.row(&slow, &line, &mut b);
            assert_eq!(rules.row(&fast, &line, &mut a), outcome, "{}", line.escape_ascii());
            assert_eq!(a, b, "{}", line.escape_ascii());
            if quick.row(&line, &mut c) {
                assert_eq!((c, true), (b, outcome.is_ok()), "{}", line.escape_ascii());
                taken += 1;
            }
        }
        assert!(taken > 300, "{taken}");
    }
}
