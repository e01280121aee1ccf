//! Lines of plain or gzip files, in bounded memory.

use super::raw::MAX_LINE;
use crate::error::{Error, Result};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const BUFFER: usize = 1 << 18;

/// Where text comes from: a file, or a stream with a name for messages. Gzip is recognised by its
/// first two bytes in both.
pub struct Input {
    name: String,
    source: Source,
}

enum Source {
    File(PathBuf),
    Stream(Box<dyn BufRead + Send>),
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Input {
    /// A file; it is opened when its turn comes.
    pub fn file(path: impl Into<PathBuf>) -> Input {
        let path = path.into();
        Input { name: path.display().to_string(), source: Source::File(path) }
    }

    /// An open stream, named `name` in messages (`standard input`).
    pub fn stream(name: impl Into<String>, reader: Box<dyn BufRead + Send>) -> Input {
        Input { name: name.into(), source: Source::Stream(reader) }
    }
}

/// Counts bytes as they are read, before decompression.
struct Counted<R> {
    inner: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.bytes.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// An input being read, decompressed.
pub(super) struct Opened {
    /// As the user named it.
    pub(super) name: String,
    pub(super) reader: Box<dyn BufRead + Send>,
    gzip: bool,
    path: PathBuf,
}

impl Opened {
    /// Opens `input`; `bytes` counts what is read from it.
    pub(super) fn new(input: Input, bytes: Arc<AtomicU64>) -> Result<Opened> {
        let (name, path) = (input.name, PathBuf::new());
        let (mut raw, path): (Box<dyn Read + Send>, PathBuf) = match input.source {
            Source::File(path) => (Box::new(File::open(&path).map_err(Error::io("read", &path))?), path),
            Source::Stream(reader) => (Box::new(reader), path.join(&name)),
        };
        let mut magic = Vec::with_capacity(2);
        (&mut raw).take(2).read_to_end(&mut magic).map_err(Error::io("read", &path))?;
        bytes.fetch_add(magic.len() as u64, Ordering::Relaxed);
        let gzip = magic == GZIP;
        let raw = BufReader::with_capacity(BUFFER, Cursor::new(magic).chain(Counted { inner: raw, bytes }));
        let reader: Box<dyn BufRead + Send> =
            if gzip { Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(raw))) } else { Box::new(raw) };
        Ok(Opened { name, reader, gzip, path })
    }

    /// Why reading failed in line `line`.
    pub(super) fn broken(&self, source: std::io::Error, line: u64) -> Error {
        if self.gzip && source.raw_os_error().is_none() {
            let reason = format!("the gzip data is cut short or damaged ({source}); get the file again");
            return Error::Row { file: self.name.clone(), line, column: 0, reason };
        }
        Error::Io { action: "read", path: self.path.clone(), source }
    }
}

/// The lines of one input.
pub(super) struct Lines {
    input: Opened,
    /// Number of the line last read, the first is 1.
    pub number: u64,
}

/// What [`Lines::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line, in the buffer, without its end.
    Whole,
    /// A line longer than [`MAX_LINE`]; it was passed over.
    TooLong,
    /// No line is left.
    End,
}

impl Lines {
    /// Opens `input`; `bytes` counts what is read from it.
    pub(super) fn open(input: Input, bytes: Arc<AtomicU64>) -> Result<Lines> {
        Ok(Lines { input: Opened::new(input, bytes)?, number: 0 })
    }

    /// As the user named the input.
    pub(super) fn name(&self) -> &str {
        &self.input.name
    }

    /// Reads the next line into `line`, without `\n` or `\r\n`.
    pub(super) fn next(&mut self, line: &mut Vec<u8>) -> Result<Line> {
        line.clear();
        let n = self.read_until(line)?;
        if n == 0 {
            return Ok(Line::End);
        }
        self.number += 1;
        let ended = line.last() == Some(&b'\n');
        if ended {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        if line.len() <= MAX_LINE {
            return Ok(Line::Whole);
        }
        let mut more = !ended;
        while more {
            line.clear();
            let n = self.read_until(line)?;
            more = n > 0 && line.last() != Some(&b'\n');
        }
        line.clear();
        Ok(Line::TooLong)
    }

    fn read_until(&mut self, line: &mut Vec<u8>) -> Result<usize> {
        let read = (&mut self.input.reader).take(MAX_LINE as u64 + 2).read_until(b'\n', line);
        read.map_err(|e| self.input.broken(e, self.number + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn lines(bytes: &[u8]) -> Result<Vec<(Line, Vec<u8>)>> {
        let count = Arc::new(AtomicU64::new(0));
        let input = Input::stream("standard input", Box::new(Cursor::new(bytes.to_vec())));
        let mut lines = Lines::open(input, count.clone())?;
        let (mut found, mut line) = (Vec::new(), Vec::new());
        loop {
            match lines.next(&mut line)? {
                Line::End => break,
                kind => found.push((kind, line.clone())),
            }
        }
        assert_eq!((count.load(Ordering::Relaxed), lines.number), (bytes.len() as u64, found.len() as u64));
        Ok(found)
    }

    fn texts(bytes: &[u8]) -> Vec<Vec<u8>> {
        lines(bytes).unwrap().into_iter().map(|(kind, text)| (kind == Line::Whole, text).1).collect()
    }

    #[test]
    fn line_ends_of_both_kinds_and_none() {
        assert_eq!(texts(b"a\tb\r\n\n \r\r\nlast"), [&b"a\tb"[..], b"", b" \r", b"last"]);
        assert!(texts(b"").is_empty());
        assert_eq!(texts(b"\x1f"), [b"\x1f"]);
    }

    #[test]
    fn gzip_is_recognised_with_several_members() {
        let members = [gzip(b"one\ntw"), gzip(b"o\nthree\n")].concat();
        assert_eq!(texts(&members), [&b"one"[..], b"two", b"three"]);
    }

    #[test]
    fn damaged_gzip_is_an_error_at_a_line() {
        let text: Vec<u8> = (0..5000u32).flat_map(|i| format!("{}\n", i.wrapping_mul(2_654_435_761)).into_bytes()).collect();
        let whole = gzip(&text);
        for cut in [3, 12, whole.len() / 2, whole.len() - 4] {
            let error = lines(&whole[..cut]).unwrap_err().to_string();
            assert!(error.starts_with("standard input, line ") && error.contains("cut short or damaged"), "{cut}: {error}");
        }
        let mut altered = whole.clone();
        let at = altered.len() - 6;
        altered[at] ^= 1;
        assert!(lines(&altered).is_err(), "checksum");
        assert!(lines(&[whole, b"tail".to_vec()].concat()).is_err());
    }

    #[test]
    fn long_lines_are_passed_over_in_bounded_memory() {
        let longest = vec![b'x'; MAX_LINE];
        let text = [&longest[..], b"\r\n", &longest, b"y\n", &longest, &longest, &longest, b"\nshort\n", &longest, b"yy"].concat();
        let found = lines(&text).unwrap();
        let kinds: Vec<bool> = found.iter().map(|(kind, _)| *kind == Line::Whole).collect();
        assert_eq!(kinds, [true, false, false, true, false]);
        assert!(found.iter().all(|(_, text)| text.capacity() <= 3 * MAX_LINE));
    }
}
