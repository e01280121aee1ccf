//! Raw rows of files, in order, as blocks of samples.

use crate::config::{Format, OnBadRow, Schema};
use crate::data::Block;
use crate::data::ids::Mapper;
use crate::data::parquet;
use crate::data::text::{Input, Labels, RawBlock, Reader};
use crate::error::{Error, Result};

/// The rows of several files, one after the other; `-` is standard input.
#[derive(Debug)]
pub(super) struct Rows {
    source: Source,
    raw: RawBlock,
}

#[derive(Debug)]
enum Source {
    Text(Box<Reader>),
    Parquet(Box<parquet::Reader>),
}

/// How files are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct How<'a> {
    pub(super) format: Format,
    pub(super) schema: &'a Schema,
    pub(super) on_bad_row: OnBadRow,
    /// Every row must have a label.
    pub(super) labelled: bool,
}

impl Rows {
    /// Files are opened when their turn comes.
    pub(super) fn new(files: &[String], how: How<'_>, mapper: &Mapper) -> Result<Rows> {
        let input = |name: &String| match name.as_str() {
            "-" => Input::stream("standard input", Box::new(std::io::BufReader::new(std::io::stdin()))),
            path => Input::file(path),
        };
        let labels = if how.labelled { Labels::Required } else { Labels::Optional };
        let source = if how.format == Format::Parquet {
            if files.iter().any(|file| file == "-") {
                return Err(Error::Config("Parquet cannot be read from standard input; name files or folders with --data".into()));
            }
            let files = parquet::expand(files)?.0;
            Source::Parquet(Box::new(parquet::Reader::new(&files, how.schema, labels, how.on_bad_row, mapper.limits())?))
        } else {
            let reader = Reader::new(files.iter().map(input).collect(), how.schema, labels, how.on_bad_row)?;
            Source::Text(Box::new(reader.limited(mapper.limits())))
        };
        Ok(Rows { source, raw: RawBlock::new() })
    }

    /// Appends up to `limit` samples to `block`; none means that the files have ended.
    pub(super) fn fill(&mut self, mapper: &Mapper, limit: usize, block: &mut Block) -> Result<()> {
        self.raw.clear();
        match &mut self.source {
            Source::Text(reader) => reader.read(&mut self.raw, limit)?,
            Source::Parquet(reader) => reader.read(&mut self.raw, limit)?,
        };
        mapper.map(&self.raw, block)
    }

    /// Malformed lines left out so far.
    pub(super) fn skipped(&self) -> u64 {
        match &self.source {
            Source::Text(reader) => reader.skipped(),
            Source::Parquet(reader) => reader.skipped(),
        }
    }

    /// The first few of them, one sentence each.
    pub(super) fn messages(&self) -> &[String] {
        match &self.source {
            Source::Text(reader) => reader.messages(),
            Source::Parquet(reader) => reader.messages(),
        }
    }
}
