//! Delimited text, plain or gzip, as raw rows: labels, dense features, categories as 64-bit keys.
//!
//! * A column's place follows the [`Schema`]; fields are not trimmed and not quoted, lines end
//!   with `\n` or `\r\n`.
//! * Every line of a file must have as many columns as the schema's `width` says, else as the first
//!   (Criteo: exactly the layout's).
//! * Empty fields: dense 0, category 0 (the hash of the empty text for `id_text = "text"`),
//!   multi-hot no category at all. A category that is empty inside a longer bag is malformed.
//! * With [`Labels::Optional`], a line with exactly one column fewer has no label, and the columns
//!   right of the label's stand one further left; a header may also leave the label's name out.
//!
//! Memory is bounded by the longest line ([`MAX_LINE`]) and the rows asked for at once.

use super::fields::Reason;
pub use super::lines::Input;
use super::lines::{Line, Lines};
pub(super) use super::raw::MESSAGES;
pub use super::raw::{Labels, MAX_LINE, RawBlock};
use super::rows::{FileRows, Rules};
use super::source::Source;
use super::text_source::TextSource;
use crate::config::{OnBadRow, Schema};
use crate::error::{Error, Result};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The file being read.
struct Current {
    lines: Lines,
    rows: FileRows,
}

/// Reads the rows of several inputs in order.
pub struct Reader {
    rules: Rules,
    on_bad_row: OnBadRow,
    inputs: VecDeque<Input>,
    current: Option<Current>,
    line: Vec<u8>,
    /// The different widths of the files read so far, two at most.
    widths: Vec<usize>,
    bytes: Arc<AtomicU64>,
    skipped: u64,
    messages: Vec<String>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("rules", &self.rules).field("inputs", &self.inputs).finish_non_exhaustive()
    }
}

impl Reader {
    /// A reader of `inputs`; each is opened when its turn comes.
    ///
    /// # Errors
    /// A schema that contradicts itself.
    pub fn new(inputs: Vec<Input>, schema: &Schema, labels: Labels, on_bad_row: OnBadRow) -> Result<Reader> {
        Ok(Reader {
            rules: Rules::new(schema, labels)?,
            on_bad_row,
            inputs: inputs.into(),
            current: None,
            line: Vec::new(),
            widths: Vec::new(),
            bytes: Arc::default(),
            skipped: 0,
            messages: Vec::new(),
        })
    }

    /// Makes every category that is not below its table's limit malformed.
    pub fn limited(mut self, limits: Option<&[u64]>) -> Reader {
        self.rules.limits = limits.map(<[u64]>::to_vec);
        self
    }

    /// Columns of a line with label, where the columns are numbered and all files read so far agree.
    pub fn width(&self) -> Option<usize> {
        if let ([width], true) = (self.widths.as_slice(), self.rules.schema.numbered()) { Some(*width) } else { None }
    }

    /// Malformed lines left out so far.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The first few malformed lines left out, one sentence each.
    pub fn messages(&self) -> &[String] {
        &self.messages
    }

    /// Bytes read so far, as they stand in the files (compressed ones compressed).
    pub fn bytes_read(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Appends up to `limit` rows to `block` and gives their number; 0 means that no row is left
    /// (when `limit` is not 0).
    ///
    /// # Errors
    /// A file that cannot be read or is empty, damaged gzip, and malformed lines unless they are
    /// skipped.
    pub fn read(&mut self, block: &mut RawBlock, limit: usize) -> Result<usize> {
        let mut found = 0;
        while found < limit {
            if self.current.is_none() {
                let Some(input) = self.inputs.pop_front() else { break };
                self.current = Some(Current { lines: Lines::open(input, self.bytes.clone())?, rows: FileRows::default() });
            }
            let Some(current) = &mut self.current else { break };
            let line = current.lines.next(&mut self.line)?;
            if line == Line::End {
                current.rows.finish(&self.rules, current.lines.number).map_err(|reason| {
                    let (file, line) = (current.lines.name().to_owned(), current.lines.number + 1);
                    Error::Row { file, line, column: 0, reason }
                })?;
                let width = current.rows.width();
                self.widths.extend(width.filter(|width| self.widths.len() < 2 && !self.widths.contains(width)));
                self.current = None;
                continue;
            }
            let result = if line == Line::TooLong {
                Err((0, format!("the line is longer than {MAX_LINE} bytes")))
            } else {
                current.rows.line(&self.rules, current.lines.number, &self.line, block)
            };
            match result {
                Ok(row) => found += usize::from(row),
                Err((column, reason)) => self.malformed(column, reason)?,
            }
        }
        Ok(found)
    }

    fn malformed(&mut self, column: usize, reason: Reason) -> Result<()> {
        let Some(Current { lines, rows }) = &mut self.current else { return Ok(()) };
        let error = Error::Row { file: lines.name().to_owned(), line: lines.number, column, reason };
        if self.on_bad_row == OnBadRow::Error || !rows.may_skip(&self.rules) {
            return Err(error);
        }
        self.skipped += 1;
        if self.messages.len() < MESSAGES {
            self.messages.push(error.to_string());
        }
        Ok(())
    }
}

/// Parses all rows of `files` with all cores of the current thread pool, and drops them; gives their number. For
/// measurements.
///
/// # Errors
/// As [`Reader::read`].
pub fn parse_all(files: &[String], schema: &Schema, on_bad_row: OnBadRow) -> Result<u64> {
    let mut source = TextSource::new(files, schema, on_bad_row, None, None)?;
    let mut rows = 0;
    loop {
        let round = source.round()?;
        if round.is_empty() {
            return Ok(rows);
        }
        rows += round.iter().map(|part| part.rows as u64).sum::<u64>();
    }
}

#[cfg(test)]
mod tests;
