//! From the bytes of one field to a number or a key.

use crate::config::IdText;
use xxhash_rust::xxh3::xxh3_64;

/// Why a field was refused: what was found and what was expected.
pub(super) type Reason = String;

/// A field as messages show it: escaped, at most 40 bytes.
pub(super) fn shown(field: &[u8]) -> String {
    let end = if field.len() > 40 { "…" } else { "" };
    format!("`{}{end}`", field[..field.len().min(40)].escape_ascii())
}

fn parsed<T: std::str::FromStr>(field: &[u8]) -> Option<T> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// A small whole number, the usual case.
fn small_int(field: &[u8]) -> Option<i32> {
    let (digits, sign) = match field {
        [b'-', rest @ ..] => (rest, -1),
        _ => (field, 1),
    };
    if digits.is_empty() || digits.len() > 9 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(sign * digits.iter().fold(0, |n, d| 10 * n + (d - b'0') as i32))
}

/// A dense feature. Empty is 0; with `log`, negative numbers become 0 and then x becomes ln(x + 1).
pub(super) fn dense(field: &[u8], log: bool) -> Result<f32, Reason> {
    if field.is_empty() {
        return Ok(0.0);
    }
    let value = match small_int(field) {
        Some(int) => int as f32,
        None => parsed::<f32>(field).ok_or_else(|| format!("{} is not a number", shown(field)))?,
    };
    if !value.is_finite() {
        return Err(format!("{} is not a finite 32-bit number", shown(field)));
    }
    Ok(if log { self::log(value) } else { value })
}

/// ln(x + 1), of 0 for negative numbers.
pub(super) fn log(value: f32) -> f32 {
    (value.max(0.0) + 1.0).ln()
}

/// A label: 1 when the number is at least `threshold`, else 0.
pub(super) fn label(field: &[u8], threshold: f64) -> Result<f32, Reason> {
    let value = match small_int(field) {
        Some(int) => int as f64,
        None => parsed::<f64>(field).ok_or_else(|| format!("the label {} is not a number", shown(field)))?,
    };
    if !value.is_finite() {
        return Err(format!("the label {} is not a finite number", shown(field)));
    }
    Ok(f32::from(value >= threshold))
}

/// A category. Empty is 0, or the empty text.
pub(super) fn key(field: &[u8], id_text: IdText) -> Result<u64, Reason> {
    match id_text {
        IdText::Text => Ok(xxh3_64(field)),
        IdText::Hex => hex(field),
        IdText::Int => int(field),
    }
}

pub(super) fn hex(field: &[u8]) -> Result<u64, Reason> {
    if field.len() > 16 {
        return Err(format!("{} has {} hexadecimal digits; at most 16 are possible", shown(field), field.len()));
    }
    field.iter().try_fold(0u64, |n, &c| match (c as char).to_digit(16) {
        Some(digit) => Ok(n << 4 | digit as u64),
        None => Err(format!("{} is not a hexadecimal number", shown(field))),
    })
}

fn int(field: &[u8]) -> Result<u64, Reason> {
    field.iter().try_fold(0u64, |n, &c| {
        if !c.is_ascii_digit() {
            return Err(format!("{} is not a decimal number without sign", shown(field)));
        }
        n.checked_mul(10)
            .and_then(|n| n.checked_add((c - b'0') as u64))
            .ok_or_else(|| format!("{} is more than {}, the largest possible category", shown(field), u64::MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_values_follow_the_rule() {
        for (text, log, value) in [
            ("", true, 0.0),
            ("", false, 0.0),
            ("-2", true, 0.0),
            ("-2", false, -2.0),
            ("0", true, 0.0),
            ("7", true, 8f32.ln()),
            ("123456789", false, 123_456_789f32),
            ("12345678901", false, 12_345_678_901f32),
            ("1.5e1", true, 16f32.ln()),
            ("-0.25", false, -0.25),
        ] {
            assert_eq!(dense(text.as_bytes(), log), Ok(value), "{text}");
        }
        for text in ["nan", "inf", "-inf", "1e39", " 1", "1 ", "x", "-", "--1", "0x1", "1,5", "\u{ff11}"] {
            assert!(dense(text.as_bytes(), true).is_err(), "{text}");
        }
        assert_eq!(dense(b"\xff\xfe", true).unwrap_err(), "`\\xff\\xfe` is not a number");
    }

    #[test]
    fn labels_are_compared_with_the_threshold() {
        assert_eq!(["0", "1", "0.4", "4", "-1"].map(|t| label(t.as_bytes(), 0.5).unwrap()), [0.0, 1.0, 0.0, 1.0, 0.0]);
        assert_eq!(["3", "4", "5"].map(|t| label(t.as_bytes(), 4.0).unwrap()), [0.0, 1.0, 1.0]);
        assert!(["", "nan", "inf", "yes"].iter().all(|t| label(t.as_bytes(), 0.5).is_err()));
    }

    #[test]
    fn categories_are_exact_or_refused() {
        assert_eq!(key(b"", IdText::Hex), Ok(0));
        assert_eq!(key(b"68fd1e64", IdText::Hex), Ok(0x68fd_1e64));
        assert_eq!(key(b"FFFFFFFFFFFFFFFF", IdText::Hex), Ok(u64::MAX));
        assert_eq!(key(b"18446744073709551615", IdText::Int), Ok(u64::MAX));
        assert_eq!(key(b"", IdText::Int), Ok(0));
        assert_eq!(key(b"caf\xe9", IdText::Text), Ok(xxh3_64(b"caf\xe9")));
        assert_eq!(key(b"", IdText::Text), Ok(xxh3_64(b"")));
        for (text, kind) in [
            ("00000000000000000", IdText::Hex),
            ("0x1", IdText::Hex),
            ("-1", IdText::Hex),
            ("18446744073709551616", IdText::Int),
            ("99999999999999999999999", IdText::Int),
            ("-1", IdText::Int),
            ("+1", IdText::Int),
            ("1.0", IdText::Int),
        ] {
            assert!(key(text.as_bytes(), kind).is_err(), "{text}");
        }
        assert_eq!(shown(&[b'a'; 50]), format!("`{}…`", "a".repeat(40)));
    }
}
