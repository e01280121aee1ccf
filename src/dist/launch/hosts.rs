//! Slurm's compressed lists: hosts (`gnode[10,20,25,37]`, `a[001-004,7]-x,b3`) and tasks of each node
//! (`2(x3),1`).

use super::environment::{digits, shown};
use crate::error::{Error, Result};

/// More hosts than any list may stand for.
pub const MAX_HOSTS: usize = 65_536;
/// Bytes of a list; more does not fit into an environment variable of Linux.
const MAX_LIST: usize = 128 * 1024;
/// Bytes of a host's name.
const MAX_NAME: usize = 253;

/// The hosts that a list stands for, in its order. Zeros at the front of a number stay, several brackets in
/// one name are all expanded, the last one fastest.
///
/// # Errors
/// No such list: empty, an empty name, a bracket that does not close or stands in another, a range that
/// goes down or has more than 9 digits, other characters than letters, digits, `-`, `_` and `.`; more than
/// [`MAX_HOSTS`] hosts.
pub fn expand(list: &str) -> Result<Vec<String>> {
    let wrong = |reason: String| Error::Config(format!("the host list `{}` {reason}", shown(list)));
    if list.len() > MAX_LIST {
        return Err(wrong(format!("is {} bytes long; at most {MAX_LIST} are possible", list.len())));
    }
    let mut hosts = Vec::new();
    let mut rest = Some(list);
    while let Some(text) = rest {
        let (name, more) = cut(text).map_err(wrong)?;
        rest = more;
        expand_name(name, &mut hosts).map_err(wrong)?;
    }
    Ok(hosts)
}

/// The first name, and what follows the comma after it.
fn cut(text: &str) -> Result<(&str, Option<&str>), String> {
    let mut open = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' if open => return Err("has a bracket in a bracket".into()),
            b']' if !open => return Err("closes a bracket that is not open".into()),
            b'[' | b']' => open = !open,
            b',' if !open => return Ok((&text[..at], Some(&text[at + 1..]))),
            _ => {}
        }
    }
    if open { Err("has a bracket that is not closed".into()) } else { Ok((text, None)) }
}

/// Appends the hosts of one name, whose brackets are known to be in pairs.
fn expand_name(name: &str, hosts: &mut Vec<String>) -> Result<(), String> {
    if name.is_empty() {
        return Err("has an empty name".into());
    }
    let room = MAX_HOSTS - hosts.len();
    let mut made = vec![String::new()];
    for (i, piece) in name.split(['[', ']']).enumerate() {
        let ends = if i % 2 == 1 { numbers(piece, room)? } else { vec![plain(piece)?.to_owned()] };
        if made.len() * ends.len() > room {
            return Err(format!("stands for more than {MAX_HOSTS} hosts"));
        }
        let longest = |names: &[String]| names.iter().map(String::len).max().unwrap_or(0);
        if longest(&made) + longest(&ends) > MAX_NAME {
            return Err(format!("has a name of more than {MAX_NAME} bytes"));
        }
        made = made.iter().flat_map(|start| ends.iter().map(move |end| format!("{start}{end}"))).collect();
    }
    hosts.append(&mut made);
    Ok(())
}

fn plain(piece: &str) -> Result<&str, String> {
    match piece.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
        Some(c) => Err(format!("has a name with `{}`", c.escape_debug())),
        None => Ok(piece),
    }
}

/// What stands in a bracket: `001-004,7`.
fn numbers(text: &str, room: usize) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for range in text.split(',') {
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| digits(text).filter(|_| text.len() <= 9);
        let (Some(first), Some(last)) = (number(low), number(high)) else {
            return Err(format!("has the range `{}`; numbers of 1 to 9 digits were expected", shown(range)));
        };
        if first > last {
            return Err(format!("has the range `{range}`, which goes down"));
        }
        if last - first >= (room - found.len().min(room)) as u64 {
            return Err(format!("stands for more than {MAX_HOSTS} hosts"));
        }
        found.extend((first..=last).map(|n| format!("{n:0width$}", width = low.len())));
    }
    Ok(found)
}

/// The tasks of node `node` (the first is 0) in a list such as `2(x3),1`; `None` when the list is shorter.
///
/// # Errors
/// No such list.
pub(super) fn tasks_of(list: &str, node: u64) -> Result<Option<u64>> {
    let wrong = || Error::Config(format!("the tasks of each node are `{}`; a list such as `2(x3),1` was expected", shown(list)));
    let mut before = 0u64;
    for item in list.split(',') {
        let (tasks, times) = match item.split_once("(x") {
            Some((tasks, times)) => (tasks, times.strip_suffix(')').ok_or_else(wrong)?),
            None => (item, "1"),
        };
        let (tasks, times) = (digits(tasks).ok_or_else(wrong)?, digits(times).ok_or_else(wrong)?);
        before = before.saturating_add(times);
        if node < before {
            return Ok(Some(tasks));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(list: &str) -> String {
        expand(list).unwrap().join(" ")
    }

    fn refused(list: &str) -> String {
        expand(list).unwrap_err().to_string()
    }

    #[test]
    fn lists_of_all_shapes() {
        for (list, expected) in [
            ("node", "node"),
            ("gnode[10,20,25,37]", "gnode10 gnode20 gnode25 gnode37"),
            ("a[001-004,7]-x,b3", "a001-x a002-x a003-x a004-x a7-x b3"),
            ("n[8-11]", "n8 n9 n10 n11"),
            ("n[098-101]", "n098 n099 n100 n101"),
            ("r[1-2]n[00-01]", "r1n00 r1n01 r2n00 r2n01"),
            ("b2,a1", "b2 a1"),
            ("a.example.org,b_1", "a.example.org b_1"),
            ("[1-2]", "1 2"),
            ("n[5]", "n5"),
            ("n[5-5]", "n5"),
            ("n[2,1]", "n2 n1"),
        ] {
            assert_eq!(hosts(list), expected, "{list}");
        }
        assert_eq!(expand("n[0-65535]").unwrap().len(), MAX_HOSTS);
        assert_eq!(expand("r[0-255]n[0-255]").unwrap().last().unwrap(), "r255n255");
    }

    #[test]
    fn lists_that_are_none() {
        for (list, reason) in [
            ("", "the host list `` has an empty name"),
            (",", "has an empty name"),
            ("a,,b", "has an empty name"),
            ("a,", "has an empty name"),
            ("a[1", "the host list `a[1` has a bracket that is not closed"),
            ("a]1[", "closes a bracket that is not open"),
            ("a[1]]", "closes a bracket that is not open"),
            ("a[[1]]", "a bracket in a bracket"),
            ("a[]", "has the range ``; numbers of 1 to 9 digits"),
            ("a[1,]", "has the range ``"),
            ("a[5-1]", "has the range `5-1`, which goes down"),
            ("a[1-2-3]", "has the range `1-2-3`"),
            ("a[-1]", "has the range `-1`"),
            ("a[+1]", "has the range `+1`"),
            ("a[1-]", "has the range `1-`"),
            ("a[x]", "has the range `x`"),
            ("[9999999999]", "has the range `9999999999`; numbers of 1 to 9 digits"),
            ("a[0-99999999999999999999999]", "numbers of 1 to 9 digits"),
            ("a[0-65536]", "stands for more than 65536 hosts"),
            ("a[0-999999999]", "stands for more than 65536 hosts"),
            ("a[0-65535],b", "stands for more than 65536 hosts"),
            ("a[0-40000,0-40000]", "stands for more than 65536 hosts"),
            ("a[0-256]b[0-255]", "stands for more than 65536 hosts"),
            ("a b", "has a name with ` `"),
            ("a\nb", "the host list `a\\nb` has a name with `\\n`"),
            ("ä", "has a name with `ä`"),
            ("a[ä]", "has the range `ä`"),
            ("a;rm", "has a name with `;`"),
        ] {
            assert!(refused(list).contains(reason), "`{list}`: {}", refused(list));
        }
        assert!(refused(&"x".repeat(254)).contains("name of more than 253 bytes"));
        assert!(refused(&"[0-1]".repeat(60)).contains("more than 65536 hosts"));
    }

    #[test]
    fn ten_megabytes_are_refused_before_they_are_read() {
        let commas = refused(&",".repeat(10 << 20));
        assert!(commas.contains("is 10485760 bytes long; at most 131072 are possible") && commas.len() < 300, "{commas}");
        assert!(refused(&"[".repeat(10 << 20)).contains("10485760 bytes"));
        assert!(refused(&"a[0-65535]".repeat(13_000)).contains("more than 65536 hosts"));
        assert!(refused(&"a,".repeat(65_536)).contains("an empty name"));
    }

    #[test]
    fn tasks_of_each_node() {
        for (node, tasks) in [(0, Some(2)), (2, Some(2)), (3, Some(1)), (4, None)] {
            assert_eq!(tasks_of("2(x3),1", node).unwrap(), tasks);
        }
        assert_eq!(tasks_of("4", 0).unwrap(), Some(4));
        assert_eq!(tasks_of("1(x18446744073709551615),2(x18446744073709551615)", u64::MAX).unwrap(), None);
        for list in ["", "2(x3", "2(3)", "(x2)", "x", "2(x-1)", "1,"] {
            assert!(tasks_of(list, 9).unwrap_err().to_string().contains("a list such as `2(x3),1` was expected"), "{list}");
        }
    }
}
