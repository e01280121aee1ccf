//! Text in pieces of whole lines, cut without looking at what the lines hold, so that many can be parsed at once.

use super::lines::{Input, Opened};
use super::raw::MAX_LINE;
use crate::error::{Error, Result};
use std::io::{BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, sync_channel};

/// Bytes of a piece; one has up to a line more.
pub(super) const PIECE: usize = 1 << 20;

/// Some lines of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Number of its first line, the first of the file is 1.
    pub(super) line: u64,
    /// Whole lines with their ends; `None` stands for one line that is too long.
    pub(super) text: Option<Vec<u8>>,
    /// Where the next piece begins, in bytes of the text.
    pub(super) end: u64,
    /// Number of its first line.
    pub(super) next_line: u64,
}

/// Cuts a file.
pub(super) struct Pieces {
    input: Opened,
    /// Begins a line that did not fit into the piece before.
    carry: Vec<u8>,
    end: u64,
    line: u64,
    /// Comes after the lines before it.
    failed: Option<Error>,
    done: bool,
}

impl Pieces {
    /// Opens a file at byte `from` of its text, where line `line` begins.
    pub(super) fn open(input: Input, bytes: Arc<AtomicU64>, from: u64, line: u64) -> Result<Pieces> {
        let mut input = Opened::new(input, bytes)?;
        let passed = std::io::copy(&mut (&mut input.reader).take(from), &mut std::io::sink());
        if passed.map_err(|e| input.broken(e, line))? < from {
            let reason = format!("has fewer than the {from} bytes that were read before");
            return Err(Error::Data(format!("`{}` {reason}; it has changed", input.name)));
        }
        Ok(Pieces { input, carry: Vec::new(), end: from, line, failed: None, done: false })
    }

    /// Appends up to about a piece to `text`; false at the end of the file.
    fn fill(&mut self, text: &mut Vec<u8>) -> bool {
        let before = text.len();
        text.reserve(PIECE + 1);
        if let Err(error) = (&mut self.input.reader).take(PIECE as u64).read_to_end(text) {
            // the lines before it are good
            let whole = memchr::memrchr(b'\n', text).map_or(0, |at| at + 1);
            let lines = memchr::memchr_iter(b'\n', &text[..whole]).count() as u64;
            self.failed = Some(self.input.broken(error, self.line + lines));
            text.truncate(whole);
            return false;
        }
        text.len() - before == PIECE
    }

    /// The next piece; `None` after the last.
    fn cut(&mut self) -> Result<Option<Piece>> {
        if self.done {
            return self.failed.take().map_or(Ok(None), Err);
        }
        let mut text = std::mem::take(&mut self.carry);
        loop {
            let more = self.fill(&mut text);
            let whole = memchr::memrchr(b'\n', &text).map(|at| at + 1);
            match whole {
                _ if !more => self.done = true,
                Some(whole) => {
                    self.carry = text[whole..].to_vec();
                    text.truncate(whole);
                }
                None if text.len() > MAX_LINE + 2 => return self.pass_over(text.len() as u64).map(Some),
                None => continue,
            }
            if text.is_empty() {
                return self.failed.take().map_or(Ok(None), Err);
            }
            let line = self.line;
            self.line += memchr::memchr_iter(b'\n', &text).count() as u64 + u64::from(text.last() != Some(&b'\n'));
            self.end += text.len() as u64;
            return Ok(Some(Piece { line, text: Some(text), end: self.end, next_line: self.line }));
        }
    }

    /// Passes over the rest of a line of which `read` bytes were read.
    fn pass_over(&mut self, read: u64) -> Result<Piece> {
        let (line, mut found) = (self.line, false);
        self.end += read;
        while !found {
            let buffer = match self.input.reader.fill_buf() {
                Ok(buffer) => buffer,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.input.broken(e, line)),
            };
            if buffer.is_empty() {
                self.done = true;
                break;
            }
            let at = memchr::memchr(b'\n', buffer);
            found = at.is_some();
            let used = at.map_or(buffer.len(), |at| at + 1);
            self.input.reader.consume(used);
            self.end += used as u64;
        }
        self.line += 1;
        Ok(Piece { line, text: None, end: self.end, next_line: self.line })
    }
}

impl Iterator for Pieces {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Result<Piece>> {
        let piece = self.cut().transpose();
        if matches!(piece, Some(Err(_))) {
            self.done = true;
        }
        piece
    }
}

/// Pieces that a thread of their own cuts (and decompresses), at most `ahead` of them before they are taken.
///
/// # Errors
/// A thread that cannot be started.
pub(super) fn ahead(open: impl FnOnce() -> Result<Pieces> + Send + 'static, ahead: usize) -> Result<Receiver<Result<Piece>>> {
    let (sender, receiver) = sync_channel(ahead);
    let work = move || match open() {
        // sending fails when nobody wants more
        Ok(pieces) => pieces.into_iter().map(|piece| sender.send(piece)).take_while(std::result::Result::is_ok).for_each(drop),
        Err(error) => drop(sender.send(Err(error))),
    };
    let thread = std::thread::Builder::new().name("reader".into()).spawn(work);
    thread.map_err(|e| Error::Data(format!("cannot start a thread to read with: {e}")))?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn pieces(text: &[u8], from: u64, line: u64) -> Vec<Piece> {
        let input = Input::stream("text", Box::new(Cursor::new(text.to_vec())));
        Pieces::open(input, Arc::default(), from, line).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn pieces_are_whole_lines_and_nothing_is_lost() {
        let text: Vec<u8> = (0..600_000u32).flat_map(|i| format!("{i}\n").into_bytes()).chain(*b"last").collect();
        let found = pieces(&text, 0, 1);
        assert!(found.len() >= 3);
        let joined: Vec<u8> = found.iter().flat_map(|p| p.text.clone().unwrap()).collect();
        assert!(joined == text);
        assert_eq!(found.last().map(|p| (p.end, p.next_line)), Some((text.len() as u64, 600_002)));
        for pair in found.windows(2) {
            assert_eq!((pair[0].next_line, pair[0].text.as_ref().unwrap().last()), (pair[1].line, Some(&b'\n')));
        }
        let rest = pieces(&text, found[0].end, found[0].next_line);
        let again: Vec<u8> = rest.iter().flat_map(|p| p.text.clone().unwrap()).collect();
        assert!(again == text[found[0].end as usize..]);
        assert_eq!(rest.last().map(|p| (p.end, p.next_line)), Some((text.len() as u64, 600_002)));
    }

    #[test]
    fn a_line_without_end_is_passed_over_in_bounded_memory() {
        let long = vec![b'x'; 3 * MAX_LINE];
        let text = [b"a\n", &long[..], b"\nb\n", &long, b"z"].concat();
        let found = pieces(&text, 0, 1);
        let lines: Vec<_> = found.iter().map(|p| (p.line, p.text.as_ref().map(Vec::len))).collect();
        assert_eq!(lines, [(1, Some(2)), (2, None), (3, Some(2)), (4, None)]);
        assert_eq!(found.last().map(|p| (p.end, p.next_line)), Some((text.len() as u64, 5)));
        assert!(pieces(b"", 0, 1).is_empty());
    }

    #[test]
    fn a_file_that_became_shorter_is_refused() {
        let input = Input::stream("text", Box::new(Cursor::new(b"short".to_vec())));
        assert!(Pieces::open(input, Arc::default(), 9, 2).err().unwrap().to_string().contains("it has changed"));
    }
}
