//! From one line of text to the values of a row.

use super::columns::{self, Columns};
use super::fields::{self, Reason};
use super::quick::Quick;
use super::raw::{Labels, RawBlock};
use crate::config::Schema;
use crate::error::Result;

/// What the schema says about every line.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) schema: Schema,
    separator: u8,
    bag_separator: u8,
    pub(super) labels: Labels,
    /// Categories of each table that exist; any when there is no limit.
    pub(super) limits: Option<Vec<u64>>,
}

/// The lines of one file, one after another.
#[derive(Debug, Default)]
pub(super) struct FileRows {
    /// `None` before the first line.
    columns: Option<FileColumns>,
    /// There was a row, good or bad.
    any: bool,
}

impl FileRows {
    /// Takes line number `number`, the first is 1; true when it gave a row, false for a header.
    ///
    /// # Errors
    /// Why it is malformed, with its column (0 for the whole line); `block` is then as before.
    pub(super) fn line(&mut self, rules: &Rules, number: u64, line: &[u8], block: &mut RawBlock) -> Result<bool, (usize, Reason)> {
        let line = if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        let columns = match &self.columns {
            Some(columns) => columns,
            None => {
                let columns = self.columns.insert(rules.columns(line)?);
                if rules.schema.header {
                    return Ok(false);
                }
                columns
            }
        };
        rules.row(columns, line, block)?;
        self.any = true;
        Ok(true)
    }

    /// May the file go on after a malformed line? Not when it was the header.
    pub(super) fn may_skip(&mut self, rules: &Rules) -> bool {
        self.any = true;
        !rules.schema.header || self.columns.is_some()
    }

    /// Columns of a line with label, once there was a line.
    #[cfg(feature = "cli")]
    pub(super) fn width(&self) -> Option<usize> {
        self.columns.as_ref().map(|columns| columns.with.width)
    }

    /// Ends a file of `lines` lines.
    ///
    /// # Errors
    /// There was no row.
    pub(super) fn finish(&self, rules: &Rules, lines: u64) -> Result<(), Reason> {
        match (lines, self.any) {
            (0, _) => Err("the file is empty".into()),
            (_, false) if rules.schema.header => Err("the file ends after its header; there is no row".into()),
            _ => Ok(()),
        }
    }
}

/// The columns of one file.
#[derive(Debug)]
pub(super) struct FileColumns {
    /// Of a line with the label, and without.
    pub(super) with: Columns,
    without: Columns,
    /// The short way for lines of Criteo's layout.
    quick: Option<Quick>,
}

impl Rules {
    /// # Errors
    /// A schema that contradicts itself.
    pub(super) fn new(schema: &Schema, labels: Labels) -> Result<Rules> {
        columns::check(schema)?;
        let separator = columns::separator(&schema.separator, "separator")?;
        let bag_separator = schema.multi_hot_separator.bytes().next().unwrap_or(b',');
        Ok(Rules { schema: schema.clone(), separator, bag_separator, labels, limits: None })
    }

    /// The category, where its table has it.
    fn existing(&self, table: usize, key: u64) -> Result<u64, Reason> {
        match self.limits.as_ref().and_then(|limits| limits.get(table)) {
            Some(&rows) if key >= rows => Err(format!("row {key} of table {table} does not exist; the table has {rows} rows")),
            _ => Ok(key),
        }
    }

    /// The columns of a file whose first line is `line`.
    ///
    /// # Errors
    /// Why it does not fit, with its column (0 for the whole line).
    pub(super) fn columns(&self, line: &[u8]) -> Result<FileColumns, (usize, Reason)> {
        let fields: Vec<&[u8]> = line.split(|&c| c == self.separator).collect();
        let with = Columns::new(&self.schema, &fields, self.labels == Labels::Optional)?;
        let quick = if self.limits.is_none() { Quick::new(&self.schema, &with) } else { None };
        Ok(FileColumns { without: with.without_label(), with, quick })
    }

    /// Appends the row of `line` to `block`.
    ///
    /// # Errors
    /// Why it is malformed, with its column (0 for the whole line); `block` is then as before.
    pub(super) fn row(&self, columns: &FileColumns, line: &[u8], block: &mut RawBlock) -> Result<(), (usize, Reason)> {
        let (samples, dense, keys, offsets) = (block.samples, block.dense.len(), block.keys.len(), block.offsets.len());
        if let Some(quick) = &columns.quick {
            if quick.row(line, block) {
                return Ok(());
            }
            block.truncate(samples, dense, keys, offsets);
        }
        let outcome = self.any_row(columns, line, block);
        match &outcome {
            Ok(()) => block.samples += 1,
            Err(_) => block.truncate(samples, dense, keys, offsets),
        }
        outcome
    }

    /// The same for every layout; a refused row leaves its first values behind.
    fn any_row(&self, columns: &FileColumns, line: &[u8], block: &mut RawBlock) -> Result<(), (usize, Reason)> {
        let FileColumns { with, without, .. } = columns;
        let fields: Vec<&[u8]> = memchr::memchr_iter(self.separator, line)
            .chain([line.len()])
            .scan(0, |start, end| {
                let field = &line[*start..end];
                *start = end + 1;
                Some(field)
            })
            .collect();
        let optional = self.labels == Labels::Optional;
        let columns = match fields.len() {
            n if n == with.width => with,
            n if n == without.width && optional => without,
            n => {
                let expected =
                    if optional && with != without { format!("{} (or {})", with.width, without.width) } else { with.width.to_string() };
                return Err((0, format!("{n} columns, but {expected} are expected")));
            }
        };
        for &c in &columns.dense {
            block.dense.push(fields::dense(fields[c], self.schema.dense_log).map_err(|e| (c + 1, e))?);
        }
        for (table, &c) in columns.categorical.iter().enumerate() {
            let key = fields::key(fields[c], self.schema.id_text).and_then(|key| self.existing(table, key));
            block.keys.push(key.map_err(|e| (c + 1, e))?);
            block.offsets.push(block.keys.len() as u32);
        }
        for (table, &c) in (columns.categorical.len()..).zip(&columns.multi_hot) {
            if !fields[c].is_empty() {
                self.bag(table, fields[c], block).map_err(|e| (c + 1, e))?;
            }
            block.offsets.push(block.keys.len() as u32);
        }
        let threshold = self.schema.label_threshold;
        let label = columns.label.map(|c| fields::label(fields[c], threshold).map_err(|e| (c + 1, e))).transpose()?;
        block.labels.push(label);
        Ok(())
    }

    fn bag(&self, table: usize, field: &[u8], block: &mut RawBlock) -> Result<(), Reason> {
        let most = self.schema.multi_hot_max;
        for (i, item) in field.split(|&c| c == self.bag_separator).enumerate() {
            if i >= most {
                return Err(format!("{} has more than {most} categories (data.schema.multi_hot_max)", fields::shown(field)));
            }
            if item.is_empty() {
                return Err(format!("{} has an empty category", fields::shown(field)));
            }
            block.keys.push(fields::key(item, self.schema.id_text).and_then(|key| self.existing(table, key))?);
        }
        Ok(())
    }
}
