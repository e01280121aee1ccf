//! The elements of a tensor that stands as an array in JSON, one after the other, as they are spelled.

use std::borrow::Cow;

/// One element.
#[derive(Debug, PartialEq)]
pub(super) enum Item<'a> {
    /// A number, as it is spelled.
    Number(&'a str),
    /// A text, without its quotes and escapes.
    Text(Cow<'a, str>),
}

/// What an element does not suit: a sentence that goes on from its name.
pub(super) type Reason = String;

/// Gives `each` the elements of `json`, which is valid JSON, with their places. The array is flat, or nested as `shape` says.
///
/// # Errors
/// Anything but an array of numbers and texts in that shape, and what `each` says of an element.
pub(super) fn elements<'a>(
    json: &'a str,
    shape: &[usize],
    each: &mut dyn FnMut(usize, Item<'a>) -> Result<(), Reason>,
) -> Result<(), Reason> {
    let (bytes, total) = (json.as_bytes(), shape.iter().product::<usize>());
    let otherwise = || format!("its data is nested otherwise than its shape {shape:?} says");
    // elements of each array that is open, and how deep elements stand
    let (mut open, mut leaves, mut found, mut at): (Vec<usize>, usize, usize, usize) = (Vec::new(), 0, 0, 0);
    while let Some(&c) = bytes.get(at) {
        let end = match c {
            b'[' | b']' | b',' | b' ' | b'\t' | b'\n' | b'\r' => at + 1,
            b'"' => at + text_end(&bytes[at..]),
            _ => at + bytes[at..].iter().position(|c| b",]} \t\r\n".contains(c)).unwrap_or(bytes.len() - at),
        };
        let token = &json[at..end];
        at = end;
        match c {
            b'[' => {
                if open.len() == shape.len() || (leaves > 0 && open.len() >= leaves) {
                    return Err(otherwise());
                }
                open.iter_mut().next_back().into_iter().for_each(|count| *count += 1);
                open.push(0);
            }
            b']' => {
                let count = open.pop().unwrap_or(0);
                let expected = if leaves <= 1 { total } else { shape[open.len()] };
                if count != expected {
                    return Err(format!("its data has {count} elements where its shape {shape:?} says {expected}"));
                }
            }
            b',' | b' ' | b'\t' | b'\n' | b'\r' => {}
            b'"' | b'-' | b'0'..=b'9' => {
                let depth = open.len();
                if depth == 0 || (leaves != 0 && leaves != depth) || (depth != 1 && depth != shape.len()) {
                    return Err(otherwise());
                }
                if found == total {
                    return Err(format!("its data has more than the {total} elements that its shape {shape:?} says"));
                }
                leaves = depth;
                open[depth - 1] += 1;
                let item = if c == b'"' { Item::Text(text(token)?) } else { Item::Number(token) };
                each(found, item).map_err(|reason| format!("element {found}: {reason}"))?;
                found += 1;
            }
            _ if open.is_empty() => return Err("its data is no array".into()),
            _ => return Err(format!("element {found} is neither a number nor a text")),
        }
    }
    Ok(())
}

/// Bytes of the text that `bytes` begins with, quotes included.
fn text_end(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn text(token: &str) -> Result<Cow<'_, str>, Reason> {
    if token.contains('\\') {
        return serde_json::from_str::<String>(token).map(Cow::Owned).map_err(|e| format!("a text cannot be read: {e}"));
    }
    Ok(Cow::Borrowed(token.trim_matches('"')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(json: &str, shape: &[usize]) -> Result<Vec<String>, String> {
        let value: &serde_json::value::RawValue = serde_json::from_str(json).unwrap();
        let mut found = Vec::new();
        elements(value.get(), shape, &mut |place, item| {
            assert_eq!(place, found.len());
            found.push(match item {
                Item::Number(text) => text.to_owned(),
                Item::Text(text) => format!("'{text}'"),
            });
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn elements_come_in_order_as_they_are_spelled() {
        assert_eq!(all("[1, -2.5e3,\n\t4E+1 ]", &[3]).unwrap(), ["1", "-2.5e3", "4E+1"]);
        let nested = all(r#"[[ "a\"]", "", "é\u00e9"],["\\","x,y","]["]]"#, &[2, 3]).unwrap();
        assert_eq!(nested, ["'a\"]'", "''", "'éé'", "'\\'", "'x,y'", "']['"]);
        assert_eq!(all("[1,2,3,4]", &[2, 2]).unwrap(), ["1", "2", "3", "4"], "flat");
        assert_eq!(all("[]", &[0]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn another_shape_is_refused() {
        for (json, shape, word) in [
            ("[1,2,3]", &[2][..], "more than the 2"),
            ("[1]", &[2], "has 1 elements"),
            ("[]", &[2], "has 0 elements"),
            ("[[1,2],[3,4],[5,6]]", &[2, 3], "has 2 elements"),
            ("[[1,2,3]]", &[2, 3], "has 1 elements"),
            ("[[1,2],3,4]", &[2, 2], "nested otherwise"),
            ("[1,[2,3,4]]", &[2, 2], "nested otherwise"),
            ("[[[1]]]", &[1, 1], "nested otherwise"),
            ("[[1]]", &[1], "nested otherwise"),
            ("[[],[]]", &[2, 2], "has 0 elements"),
            ("7", &[1], "nested otherwise"),
            ("null", &[1], "no array"),
            ("{\"a\":1}", &[1], "no array"),
            ("[null]", &[1], "neither a number nor a text"),
            ("[{\"a\":[1]}]", &[1], "neither a number nor a text"),
            ("[true]", &[1], "neither a number nor a text"),
            ("[\"\\ud800\"]", &[1], "cannot be read"),
        ] {
            let found = all(json, shape);
            assert!(found.as_ref().is_err_and(|e| e.contains(word)), "{json}: {found:?}");
        }
    }
}
