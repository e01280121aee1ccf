//! Raw rows of files, in order, as blocks of samples.

use crate::config::{OnBadRow, Schema};
use crate::data::Block;
use crate::data::ids::Mapper;
use crate::data::text::{Input, Labels, RawBlock, Reader};
use crate::error::Result;

/// The rows of several files, one after the other; `-` is standard input.
#[derive(Debug)]
pub(super) struct Rows {
    reader: Reader,
    raw: RawBlock,
}

impl Rows {
    /// Files are opened when their turn comes.
    pub(super) fn new(files: &[String], schema: &Schema, mapper: &Mapper, labelled: bool, on_bad_row: OnBadRow) -> Result<Rows> {
        let input = |name: &String| match name.as_str() {
            "-" => Input::stream("standard input", Box::new(std::io::BufReader::new(std::io::stdin()))),
            path => Input::file(path),
        };
        let labels = if labelled { Labels::Required } else { Labels::Optional };
        let reader = Reader::new(files.iter().map(input).collect(), schema, labels, on_bad_row)?.limited(mapper.limits());
        Ok(Rows { reader, raw: RawBlock::new() })
    }

    /// Appends up to `limit` samples to `block`; none means that the files have ended.
    pub(super) fn fill(&mut self, mapper: &Mapper, limit: usize, block: &mut Block) -> Result<()> {
        self.raw.clear();
        self.reader.read(&mut self.raw, limit)?;
        mapper.map(&self.raw, block)
    }

    /// Malformed lines left out so far.
    pub(super) fn skipped(&self) -> u64 {
        self.reader.skipped()
    }

    /// The first few of them, one sentence each.
    pub(super) fn messages(&self) -> &[String] {
        self.reader.messages()
    }
}
