//! Delimited text as rounds of rows: threads cut the files into pieces ahead of time, all cores parse them.

use super::lines::{Input, Line, Lines};
use super::pieces::{self, Piece, Pieces};
use super::raw::MAX_LINE;
use super::rows::{FileColumns, Rules};
use super::source::{Parsed, Place, Source};
use super::text::{Labels, MESSAGES, RawBlock};
use crate::config::{OnBadRow, Schema};
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;

/// Rows that are turned into columns at once, so that they stay in the cache.
const TURN: usize = 256;
/// Pieces of one file that wait to be parsed, at most.
const AHEAD: usize = 8;
/// Files that are read at the same time, at most.
const FILES: usize = 8;

/// The layout of one file.
#[derive(Debug)]
struct Layout {
    name: String,
    /// `None` when no line fits the schema.
    columns: Option<FileColumns>,
    /// The line that said so; those before it are malformed.
    from: u64,
}

/// What every thread needs to parse.
struct Parser {
    rules: Rules,
    /// Malformed lines are left out.
    skip: bool,
}

/// Rows of text files.
pub(super) struct TextSource {
    parser: Parser,
    files: Vec<String>,
    place: Place,
    /// The file at `place` and those after it that are being read already.
    open: VecDeque<Receiver<Result<Piece>>>,
    layout: Option<Arc<Layout>>,
    /// The different widths of the files so far, two at most.
    widths: Vec<usize>,
    bytes: Arc<AtomicU64>,
}

impl TextSource {
    /// Reads `files` from `place` on (`None` is their beginning); categories that are not below `limits` are malformed.
    ///
    /// # Errors
    /// A schema that contradicts itself; files before `place` that cannot be read any more.
    pub(super) fn new(
        files: &[String],
        schema: &Schema,
        on_bad_row: OnBadRow,
        limits: Option<&[u64]>,
        place: Option<Place>,
    ) -> Result<TextSource> {
        let mut rules = Rules::new(schema, Labels::Required)?;
        rules.limits = limits.map(<[u64]>::to_vec);
        let mut source = TextSource {
            parser: Parser { rules, skip: on_bad_row == OnBadRow::Skip },
            files: files.to_vec(),
            place: place.unwrap_or(Place { file: 0, at: 0, line: 1 }),
            open: VecDeque::new(),
            layout: None,
            widths: Vec::new(),
            bytes: Arc::default(),
        };
        for (number, file) in files.iter().enumerate().take(source.place.file) {
            let layout = source.determine(number)?;
            source.note_width(&layout);
            let bytes = std::fs::metadata(file).map_or(0, |m| m.len());
            source.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(source)
    }

    fn note_width(&mut self, layout: &Layout) {
        let width = layout.columns.as_ref().map(|columns| columns.with.width);
        self.widths.extend(width.filter(|width| self.widths.len() < 2 && !self.widths.contains(width)));
    }

    /// Finds the columns of a file from its first line, or the first that fits.
    fn determine(&self, file: usize) -> Result<Layout> {
        let name = self.files[file].clone();
        let (mut lines, mut line) = (Lines::open(Input::file(&name), Arc::default())?, Vec::new());
        loop {
            let (columns, number) = match lines.next(&mut line)? {
                Line::End => return Ok(Layout { name, columns: None, from: 1 }),
                Line::TooLong => (Err((0, too_long())), lines.number),
                Line::Whole => (self.parser.rules.columns(without_mark(&line, lines.number)), lines.number),
            };
            match columns {
                Ok(columns) => return Ok(Layout { name, columns: Some(columns), from: number }),
                Err((column, reason)) if !self.parser.skip || self.parser.rules.schema.header => {
                    return Err(Error::Row { file: name, line: number, column, reason });
                }
                Err(_) => {}
            }
        }
    }

    /// The next piece with the layout of its file; `None` at the end of the last.
    fn piece(&mut self) -> Result<Option<(Arc<Layout>, Piece)>> {
        loop {
            if self.place.file >= self.files.len() {
                return Ok(None);
            }
            let most = FILES.min(rayon::current_num_threads());
            while self.open.len() < most && self.place.file + self.open.len() < self.files.len() {
                let (file, bytes) = (self.place.file + self.open.len(), self.bytes.clone());
                let (at, line) = if self.open.is_empty() { (self.place.at, self.place.line) } else { (0, 1) };
                let input = Input::file(&self.files[file]);
                self.open.push_back(pieces::ahead(move || Pieces::open(input, bytes, at, line), AHEAD)?);
            }
            let layout = match &self.layout {
                Some(layout) => layout.clone(),
                None => self.layout.insert(Arc::new(self.determine(self.place.file)?)).clone(),
            };
            if let Some(piece) = self.open.front().and_then(|pieces| pieces.recv().ok()).transpose()? {
                (self.place.at, self.place.line) = (piece.end, piece.next_line);
                return Ok(Some((layout, piece)));
            }
            self.finish(&layout)?;
        }
    }

    /// Goes on to the next file.
    fn finish(&mut self, layout: &Layout) -> Result<()> {
        let reason = match self.place.line - 1 {
            0 => Some("the file is empty"),
            1 if self.parser.rules.schema.header => Some("the file ends after its header; there is no row"),
            _ => None,
        };
        if let Some(reason) = reason {
            return Err(Error::Row { file: layout.name.clone(), line: self.place.line, column: 0, reason: reason.into() });
        }
        self.note_width(layout);
        self.layout = None;
        self.open.pop_front();
        self.place = Place { file: self.place.file + 1, at: 0, line: 1 };
        Ok(())
    }
}

impl Parser {
    /// The rows of a piece.
    fn parse(&self, layout: &Layout, piece: &Piece) -> Result<Parsed> {
        let (schema, mut parsed, mut raw) = (&self.rules.schema, Parsed::new(self.rules.schema.tables()), RawBlock::new());
        let Some(text) = &piece.text else {
            self.malformed(layout, piece.line, (0, too_long()), &mut parsed)?;
            return Ok(parsed);
        };
        let (mut number, mut rest) = (piece.line, text.as_slice());
        while !rest.is_empty() {
            let line;
            (line, rest) = next_line(rest);
            let line = without_mark(line, number);
            if !(schema.header && number == 1) {
                let outcome = match &layout.columns {
                    _ if line.len() > MAX_LINE => Err((0, too_long())),
                    Some(columns) if number >= layout.from => self.rules.row(columns, line, &mut raw),
                    _ => Err(self.rules.columns(line).err().unwrap_or_default()),
                };
                if let Err(reason) = outcome {
                    self.malformed(layout, number, reason, &mut parsed)?;
                }
            }
            if raw.samples == TURN {
                parsed.append(&raw, schema.categorical.len());
                raw.clear();
            }
            number += 1;
        }
        parsed.append(&raw, schema.categorical.len());
        Ok(parsed)
    }

    /// A malformed line is counted, or an error.
    fn malformed(&self, layout: &Layout, line: u64, (column, reason): (usize, String), parsed: &mut Parsed) -> Result<()> {
        let error = Error::Row { file: layout.name.clone(), line, column, reason };
        if !self.skip {
            return Err(error);
        }
        parsed.skipped += 1;
        if parsed.messages.len() < MESSAGES {
            parsed.messages.push(error.to_string());
        }
        Ok(())
    }
}

fn too_long() -> String {
    format!("the line is longer than {MAX_LINE} bytes")
}

/// The first line of `text` without its end, and what follows it.
fn next_line(text: &[u8]) -> (&[u8], &[u8]) {
    let Some(end) = memchr::memchr(b'\n', text) else { return (text, &[]) };
    let line = &text[..end];
    (line.strip_suffix(b"\r").unwrap_or(line), &text[end + 1..])
}

/// A line without the byte order mark that may begin a file.
fn without_mark(line: &[u8], number: u64) -> &[u8] {
    if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line }
}

impl Source for TextSource {
    fn round(&mut self) -> Result<Vec<Parsed>> {
        let (mut pieces, mut failed) = (Vec::new(), None);
        while pieces.len() < 2 * rayon::current_num_threads() {
            match self.piece() {
                Ok(Some(piece)) => pieces.push(piece),
                Ok(None) => break,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let parser = &self.parser;
        let parsed: Vec<Result<Parsed>> = pieces.par_iter().map(|(layout, piece)| parser.parse(layout, piece)).collect();
        let parsed = parsed.into_iter().collect::<Result<Vec<_>>>()?;
        failed.map_or(Ok(parsed), Err)
    }

    fn place(&self) -> Place {
        self.place
    }

    fn width(&self) -> Option<usize> {
        if let ([width], true) = (self.widths.as_slice(), self.parser.rules.schema.numbered()) { Some(*width) } else { None }
    }

    fn bytes_read(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Column;
    use crate::data::text::Reader;
    use crate::rng::Stream;

    /// All rows by the parallel way, or why not.
    fn rounds(files: &[String], schema: &Schema, bad: OnBadRow) -> Result<(Parsed, Option<usize>)> {
        let mut source = TextSource::new(files, schema, bad, None, None)?;
        let mut all = Parsed::new(schema.tables());
        loop {
            let round = source.round()?;
            if round.is_empty() {
                return Ok((all, source.width()));
            }
            for part in round {
                all.rows += part.rows;
                all.labels.extend(part.labels);
                all.dense.extend(part.dense);
                all.skipped += part.skipped;
                all.messages.extend(part.messages);
                for (table, keys) in all.tables.iter_mut().zip(part.tables) {
                    table.sizes.extend(keys.sizes);
                    table.keys.extend(keys.keys);
                }
            }
        }
    }

    /// The same one line after another.
    fn one_by_one(files: &[String], schema: &Schema, bad: OnBadRow) -> Result<(Parsed, Option<usize>)> {
        let mut reader = Reader::new(files.iter().map(Input::file).collect(), schema, Labels::Required, bad)?;
        let (mut all, mut raw) = (Parsed::new(schema.tables()), RawBlock::new());
        while reader.read(&mut raw, 100)? > 0 {
            all.append(&raw, schema.categorical.len());
            raw.clear();
        }
        all.skipped = reader.skipped();
        all.messages = reader.messages().to_vec();
        Ok((all, reader.width()))
    }

    #[test]
    fn pieces_in_parallel_give_what_lines_one_by_one_give() {
        let folder = tempfile::tempdir().unwrap();
        let with_bags = Schema {
            dense: vec![Column::Number(2)],
            categorical: vec![Column::Number(4)],
            multi_hot: vec![Column::Number(3)],
            ..Schema::default()
        };
        let named = Schema {
            header: true,
            label: Column::Name("a".into()),
            dense: vec![Column::Name("b".into())],
            categorical: vec![Column::Name("c".into())],
            ..Schema::default()
        };
        let mut outcomes = [0, 0];
        let schemas = [Schema::criteo(2, 1), with_bags, named];
        for case in 0..240u64 {
            let s = Stream::new(9, case);
            let schema = &schemas[case as usize % 3];
            let file = |f: u64| {
                let s = s.sub(f);
                let mut text = [&b""[..], b"\xef\xbb\xbf", b"a\tb\tc\td\n", b"x\n"][s.below(0, 4) as usize].to_vec();
                for i in 0..s.below(1, 400) {
                    let bag = ["", "1,2,3", "4"][s.below(10 * i + 2, 3) as usize];
                    text.extend(format!("{}\t{}\t{bag}\t{:x}", i % 2, s.below(10 * i + 3, 3000), s.bits(i) >> 40).bytes());
                    text.extend([&b"\n"[..], b"\r\n"][s.below(10 * i + 4, 2) as usize]);
                }
                for i in 0..s.below(5, 3) {
                    let at = s.below(100 + i, text.len() as u64 + 1) as usize;
                    text.splice(at..at, [&b"\n"[..], b"\t", b"x"][s.below(200 + i, 3) as usize].iter().copied());
                }
                if case % 40 == 7 {
                    text.extend([vec![b'y'; MAX_LINE + 1], b"\n1\t2\t3\t4\n".to_vec(), vec![b'z'; 3 * MAX_LINE]].concat());
                }
                let path = folder.path().join(format!("{case}-{f}"));
                std::fs::write(&path, text).unwrap();
                path.to_str().unwrap().to_owned()
            };
            let files = [file(1), file(2)];
            for bad in [OnBadRow::Error, OnBadRow::Skip] {
                match (rounds(&files, schema, bad), one_by_one(&files, schema, bad)) {
                    (Ok((mut found, width)), Ok(wanted)) => {
                        found.messages.truncate(MESSAGES);
                        assert!((&found, width) == (&wanted.0, wanted.1), "case {case}: {found:?} is not {wanted:?}");
                        outcomes[0] += 1;
                    }
                    (Err(found), Err(wanted)) => {
                        assert_eq!(found.to_string(), wanted.to_string(), "case {case}");
                        outcomes[1] += 1;
                    }
                    (found, wanted) => panic!("case {case}: {found:?} is not {wanted:?}"),
                }
            }
        }
        assert!(outcomes.iter().all(|&n| n > 40), "{outcomes:?}");
    }
}
