//! Delimited text that comes in pieces of any length, as a page reads a file: raw rows, and nothing kept but the line that a
//! piece broke off in. The layout and what counts as malformed are those of the files that training reads.

use super::fields::Reason;
use super::raw::MESSAGES;
use super::rows::{FileRows, Rules};
use crate::config::{OnBadRow, Schema};
use crate::error::{Error, Result};

pub use super::raw::{Labels, MAX_LINE, RawBlock};

/// The rows of one text.
#[derive(Debug)]
pub struct PushedRows {
    name: String,
    rules: Rules,
    on_bad_row: OnBadRow,
    rows: FileRows,
    /// The beginning of a line whose end has not come yet.
    rest: Vec<u8>,
    /// The rest of a line that is too long is passed over.
    too_long: bool,
    lines: u64,
    skipped: u64,
    messages: Vec<String>,
}

impl PushedRows {
    /// Rows of a text called `name` in messages; with `limits`, a category that is not below its table's is malformed.
    ///
    /// # Errors
    /// A schema that contradicts itself.
    pub fn new(name: &str, schema: &Schema, labels: Labels, on_bad_row: OnBadRow, limits: Option<&[u64]>) -> Result<PushedRows> {
        let mut rules = Rules::new(schema, labels)?;
        rules.limits = limits.map(<[u64]>::to_vec);
        Ok(PushedRows {
            name: name.into(),
            rules,
            on_bad_row,
            rows: FileRows::default(),
            rest: Vec::new(),
            too_long: false,
            lines: 0,
            skipped: 0,
            messages: Vec::new(),
        })
    }

    /// Appends the rows that `piece` completes to `block`.
    ///
    /// # Errors
    /// Malformed lines, unless they are skipped; a header that lacks a column.
    pub fn push(&mut self, mut piece: &[u8], block: &mut RawBlock) -> Result<()> {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            let (line, after) = (&piece[..end], &piece[end + 1..]);
            if self.rest.is_empty() && !self.too_long {
                self.line(line, block)?;
            } else {
                self.keep(line);
                let whole = std::mem::take(&mut self.rest);
                self.line(&whole, block)?;
            }
            piece = after;
        }
        self.keep(piece);
        Ok(())
    }

    /// Ends the text: its last line needs no end.
    ///
    /// # Errors
    /// As [`PushedRows::push`]; a text without rows.
    pub fn finish(&mut self, block: &mut RawBlock) -> Result<()> {
        if !self.rest.is_empty() || self.too_long {
            let whole = std::mem::take(&mut self.rest);
            self.line(&whole, block)?;
        }
        self.rows.finish(&self.rules, self.lines).map_err(|reason| self.error(self.lines + 1, 0, reason))
    }

    /// Malformed lines left out so far.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The first few malformed lines left out, one sentence each.
    pub fn messages(&self) -> &[String] {
        &self.messages
    }

    /// Keeps the beginning of a line, as far as a line may be long.
    fn keep(&mut self, part: &[u8]) {
        // A carriage return at the end does not count.
        if self.too_long || self.rest.len() + part.len() > MAX_LINE + 1 {
            self.too_long = true;
            self.rest.clear();
        } else {
            self.rest.extend_from_slice(part);
        }
    }

    fn line(&mut self, line: &[u8], block: &mut RawBlock) -> Result<()> {
        self.lines += 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let outcome = if std::mem::take(&mut self.too_long) || line.len() > MAX_LINE {
            Err((0, format!("the line is longer than {MAX_LINE} bytes")))
        } else {
            self.rows.line(&self.rules, self.lines, line, block)
        };
        let Err((column, reason)) = outcome else { return Ok(()) };
        let error = self.error(self.lines, column, reason);
        if self.on_bad_row == OnBadRow::Error || !self.rows.may_skip(&self.rules) {
            return Err(error);
        }
        self.skipped += 1;
        if self.messages.len() < MESSAGES {
            self.messages.push(error.to_string());
        }
        Ok(())
    }

    fn error(&self, line: u64, column: usize, reason: Reason) -> Error {
        Error::Row { file: self.name.clone(), line, column, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(on_bad_row: OnBadRow) -> PushedRows {
        PushedRows::new("scores.tsv", &Schema::criteo(1, 2), Labels::Optional, on_bad_row, None).unwrap()
    }

    /// All of a text, in pieces of `piece` bytes.
    fn read(text: &[u8], piece: usize, on_bad_row: OnBadRow) -> Result<(RawBlock, PushedRows)> {
        let (mut rows, mut block) = (rows(on_bad_row), RawBlock::new());
        text.chunks(piece).try_for_each(|piece| rows.push(piece, &mut block))?;
        rows.finish(&mut block)?;
        Ok((block, rows))
    }

    #[test]
    fn pieces_of_any_length_give_the_same_rows() {
        let text = b"\xef\xbb\xbf1\t3\tff\t0a\r\n0\t\t1\t\n7\tab\tcd\n\n1\t2\tzz\t1\n0\t5\t2\t3";
        let (whole, told) = read(text, text.len(), OnBadRow::Skip).unwrap();
        assert_eq!((whole.samples, told.skipped()), (4, 2));
        assert_eq!(whole.labels, [Some(1.0), Some(0.0), None, Some(0.0)]);
        assert_eq!(whole.keys, [0xff, 0x0a, 1, 0, 0xab, 0xcd, 2, 3]);
        assert!(told.messages()[1].contains("line 5") && told.messages()[1].contains("column 3"), "{:?}", told.messages());
        for piece in 1..text.len() {
            assert_eq!(read(text, piece, OnBadRow::Skip).unwrap().0, whole, "in pieces of {piece}");
        }
    }

    #[test]
    fn errors_name_the_line() {
        let fail = |text: &[u8]| read(text, 3, OnBadRow::Error).unwrap_err().to_string();
        assert!(fail(b"").contains("scores.tsv, line 1, column 0: the file is empty"), "{}", fail(b""));
        assert!(fail(b"1\t2\t3\t4\n1\t2\t3\t4\n1\tx\t3\t4\n").contains("line 3, column 2"));
        let (mut header, mut block) = (Schema::criteo(1, 2), RawBlock::new());
        header.header = true;
        let mut rows = PushedRows::new("a", &header, Labels::Required, OnBadRow::Skip, None).unwrap();
        rows.push(b"label\ta\tb\tc\n", &mut block).unwrap();
        assert!(rows.finish(&mut block).unwrap_err().to_string().contains("ends after its header"));
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let (mut rows, mut block) = (rows(OnBadRow::Skip), RawBlock::new());
        for _ in 0..64 {
            rows.push(&[b'1'; 1 << 18], &mut block).unwrap();
            assert!(rows.rest.capacity() <= 4 * MAX_LINE);
        }
        rows.push(b"\n1\t2\t3\t4\n", &mut block).unwrap();
        rows.finish(&mut block).unwrap();
        assert_eq!((rows.skipped(), block.samples), (1, 1));
    }

    #[test]
    fn rows_that_do_not_exist_are_malformed() {
        let mut rows = PushedRows::new("a", &Schema::criteo(1, 2), Labels::Optional, OnBadRow::Error, Some(&[4, 4])).unwrap();
        let mut block = RawBlock::new();
        rows.push(b"1\t1\t3\t3\n", &mut block).unwrap();
        assert!(rows.push(b"1\t1\t3\t4\n", &mut block).unwrap_err().to_string().contains("row 4 of table 1 does not exist"));
    }
}
