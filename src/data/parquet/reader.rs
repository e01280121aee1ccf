//! Rows one after another, for evaluation and prediction.

use super::*;

/// Reads the rows of several files in order, as [`text::Reader`](crate::data::text::Reader) does those of text.
pub struct Reader {
    source: ParquetSource,
    labelled: bool,
    part: Parsed,
    /// Rows of `part` that were taken, and keys of each of its tables.
    taken: usize,
    keys: Vec<usize>,
    skipped: u64,
    messages: Vec<String>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("files", &self.source.files).finish_non_exhaustive()
    }
}

impl Reader {
    /// A reader of `files`; categories that are not below `limits` are malformed. With [`Labels::Optional`], the first file may
    /// lack the label's column; then no label is given.
    ///
    /// # Errors
    /// A schema without names, a first file that cannot be read.
    pub fn new(files: &[String], schema: &Schema, labels: Labels, on_bad_row: OnBadRow, limits: Option<&[u64]>) -> Result<Reader> {
        let source = ParquetSource::new(files, schema, labels, on_bad_row, limits, None)?;
        let labelled = match files.first() {
            Some(file) if labels == Labels::Optional => {
                columns::find(open(file)?.metadata().file_metadata().schema_descr(), schema, Labels::Required).is_ok()
            }
            _ => true,
        };
        let part = Parsed::new(schema.tables());
        Ok(Reader { source, labelled, part, taken: 0, keys: vec![0; schema.tables()], skipped: 0, messages: Vec::new() })
    }

    /// Appends up to `limit` rows to `block` and gives their number; 0 means that no row is left (when `limit` is not 0).
    ///
    /// # Errors
    /// A file that cannot be read, and malformed rows unless they are skipped.
    pub fn read(&mut self, block: &mut RawBlock, limit: usize) -> Result<usize> {
        let mut found = 0;
        while found < limit {
            if self.taken == self.part.rows {
                let Some(part) = self.source.round()?.pop() else { break };
                self.skipped += part.skipped;
                let room = MESSAGES.saturating_sub(self.messages.len());
                self.messages.extend(part.messages.iter().take(room).cloned());
                (self.part, self.taken) = (part, 0);
                self.keys.fill(0);
                continue;
            }
            let (row, d) = (self.taken, self.source.schema.dense.len());
            block.labels.push(self.labelled.then(|| self.part.labels[row]));
            block.dense.extend_from_slice(&self.part.dense[row * d..(row + 1) * d]);
            for (table, next) in self.part.tables.iter().zip(&mut self.keys) {
                let size = table.sizes.get(row).map_or(1, |&size| size as usize);
                block.keys.extend_from_slice(&table.keys[*next..*next + size]);
                block.offsets.push(block.keys.len() as u32);
                *next += size;
            }
            block.samples += 1;
            self.taken += 1;
            found += 1;
        }
        Ok(found)
    }

    /// Malformed rows left out so far.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The first few of them, one sentence each.
    pub fn messages(&self) -> &[String] {
        &self.messages
    }
}
