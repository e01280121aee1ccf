//! A kernel's text as it is compiled, and what can be seen in a text without understanding it.

use super::describe::shared_file;
use super::finding::Place;
use crate::plan::Kernel;
use std::ops::Range;

/// A kernel's whole text and the files it was put together from.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) wgsl: String,
    /// File, and where its text ends.
    parts: Vec<(String, usize)>,
}

impl Text {
    pub(super) fn new(kernel: &Kernel, file: &str) -> Text {
        let mut parts = vec![(file.to_string(), kernel.source.len() + 1)];
        for text in kernel.shared {
            let end = parts[parts.len() - 1].1 + text.len() + 1;
            parts.push((shared_file(text).to_string(), end));
        }
        Text { wgsl: kernel.wgsl(), parts }
    }

    /// The file of the kernel's own part.
    #[cfg(feature = "lab")]
    pub(super) fn file(&self) -> &str {
        &self.parts[0].0
    }

    /// The place of some bytes of the text.
    pub(super) fn place(&self, range: Range<usize>, label: &str) -> Option<Place> {
        let start = range.start.min(self.wgsl.len());
        let part = self.parts.iter().position(|(_, end)| start < *end).unwrap_or(self.parts.len() - 1);
        let begin = if part == 0 { 0 } else { self.parts[part - 1].1 };
        let before = self.wgsl.get(begin..start)?;
        let line_start = begin + before.rfind('\n').map_or(0, |at| at + 1);
        let rest = &self.wgsl[line_start..];
        let text = rest.lines().next().unwrap_or("");
        let end = range.end.clamp(start, line_start + text.len().max(start - line_start));
        Some(Place {
            file: self.parts[part].0.clone(),
            line: before.matches('\n').count() + 1,
            column: self.wgsl[line_start..start].chars().count() + 1,
            width: self.wgsl.get(start..end).map_or(1, |meant| meant.chars().count()).max(1),
            text: text.to_string(),
            label: label.to_string(),
        })
    }

    /// The place of some characters of a line; the first line and the first column are 1.
    pub(super) fn line(&self, line: usize, column: usize, width: usize, label: &str) -> Option<Place> {
        let begin = self.wgsl.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum::<usize>();
        let rest = self.wgsl.get(begin..)?.lines().next()?;
        let place = |column: usize| begin + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at);
        let start = column.saturating_sub(1);
        self.place(place(start)..place(start + width), label)
    }
}

/// Names that a text declares: functions, structs, constants and variables at the beginning of a line.
pub(super) fn declared(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let words = ["fn ", "struct ", "const ", "alias ", "var<private> ", "var<workgroup> ", "var<uniform> "];
        // A variable's attributes stand before it.
        let bare = if line.starts_with('@') { line.rsplit(") ").next().unwrap_or(line) } else { line };
        let rest = words.iter().find_map(|word| bare.strip_prefix(word))?;
        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())
    })
}

/// The text with comments as spaces.
fn bare(text: &str) -> String {
    let mut left = String::with_capacity(text.len());
    let (mut rest, mut depth) = (text, 0);
    while let Some(c) = rest.chars().next() {
        let (taken, shown) = match (depth, rest) {
            (0, r) if r.starts_with("//") => (r.find('\n').unwrap_or(r.len()), false),
            (_, r) if r.starts_with("/*") => {
                depth += 1;
                (2, false)
            }
            (1.., r) if r.starts_with("*/") => {
                depth -= 1;
                (2, false)
            }
            _ => (c.len_utf8(), depth == 0),
        };
        if shown {
            left.push(c);
        } else {
            left.push(' ');
        }
        rest = &rest[taken..];
    }
    left
}

/// Entry points of a text with the sizes of their workgroups, where these are numbers or constants that are numbers.
pub(super) fn entry_points(text: &str) -> Vec<(String, Option<[u32; 3]>)> {
    let bare = bare(text);
    let mut found = Vec::new();
    for item in bare.split(['}', ';']) {
        let Some((attributes, rest)) = item.split_once("fn ") else { continue };
        if !attributes.contains("@compute") {
            continue;
        }
        let name: String = rest.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let sizes = attributes.split_once("@workgroup_size").and_then(|(_, after)| after.trim_start().strip_prefix('('));
        let sizes = sizes.and_then(|after| after.split_once(')')).map(|(list, _)| list.split(',').filter(|s| !s.trim().is_empty()));
        let sizes: Option<Vec<u32>> = sizes.and_then(|list| list.map(|size| number(&bare, size.trim())).collect());
        let sizes = sizes.filter(|list| (1..=3).contains(&list.len()));
        found.push((name, sizes.map(|list| std::array::from_fn(|i| list.get(i).copied().unwrap_or(1)))));
    }
    found
}

/// A number, or a constant of that name.
fn number(text: &str, word: &str) -> Option<u32> {
    let literal = |word: &str| word.trim().trim_end_matches(['u', 'i']).parse().ok();
    literal(word).or_else(|| {
        let constants = text.split([';', '}']).filter_map(|item| item.trim_start().strip_prefix("const "));
        let mut named = constants.filter_map(|item| item.split_once('='));
        let (_, value) = named.find(|(name, _)| name.split(':').next().is_some_and(|name| name.trim() == word))?;
        literal(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;

    #[test]
    fn entry_points_of_the_own_texts_are_found_with_their_workgroups() {
        for kernel in ops::kernels() {
            let found = entry_points(&kernel.wgsl());
            assert!(found.contains(&(kernel.name.to_string(), Some(kernel.workgroup))), "{}: {found:?}", kernel.name);
        }
    }

    #[test]
    fn comments_count_for_nothing_and_sizes_may_be_constants() {
        let text = "
            // @compute @workgroup_size(1) fn gone() {}
            /* @compute /* nested */ @workgroup_size(2) fn gone() {} */
            const X: u32 = 8u; const Y = 4;
            @compute /* why */ @workgroup_size( X , Y , 2u,)
            fn a() {}
            @workgroup_size(64) @compute fn b() { }
            @compute @workgroup_size(X * 2) fn c() {}
            fn helper() {}";
        let found = entry_points(text);
        let expected = [("a", Some([8, 4, 2])), ("b", Some([64, 1, 1])), ("c", None)];
        assert_eq!(found, expected.map(|(name, size)| (name.to_string(), size)));
        for broken in ["", "@compute fn", "/*", "@compute @workgroup_size( fn x", "@compute @workgroup_size(1,2,3,4) fn x() {}", "//"] {
            assert!(entry_points(broken).iter().all(|(_, size)| size.is_none()), "{broken}");
        }
    }

    #[test]
    fn lines_are_those_of_the_file_they_come_from() {
        let kernel = ops::kernels().into_iter().find(|k| !k.shared.is_empty()).unwrap();
        let text = Text::new(kernel, "my.wgsl");
        let own = kernel.source.lines().count();
        let place = text.line(own, 1, 1, "").unwrap();
        assert_eq!((place.file.as_str(), place.line, place.column), ("my.wgsl", own, 1));
        assert_eq!(place.text, kernel.source.lines().last().unwrap());
        let behind = text.line(kernel.source.matches('\n').count() + 2, 3, 1, "").unwrap();
        assert_eq!((behind.file.as_str(), behind.line, behind.column), (shared_file(kernel.shared[0]), 1, 3));
        assert_eq!((text.line(0, 1, 1, ""), text.line(1_000_000, 1, 1, "")), (None, None));
    }
}
