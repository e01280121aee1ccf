//! A part of a file as a body, read a piece at a time when the client is ready for it.

use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::fs::File;
use std::future::Future;
use std::io::{Error, ErrorKind, Read, Seek, SeekFrom};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::task::{JoinHandle, spawn_blocking};

/// Bytes of a piece.
const PIECE: u64 = 1 << 17;

type Read1 = std::io::Result<(File, Bytes)>;

/// What is left of a part of a file.
#[derive(Debug)]
pub(super) struct FileBody {
    left: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle(File),
    Reading(JoinHandle<Read1>),
    Over,
}

impl FileBody {
    /// Bytes `start .. start + len` of `file`.
    ///
    /// # Errors
    /// A file in which no place can be looked up.
    pub(super) fn new(mut file: File, start: u64, len: u64) -> std::io::Result<FileBody> {
        file.seek(SeekFrom::Start(start))?;
        Ok(FileBody { left: len, state: State::Idle(file) })
    }
}

fn read(mut file: File, len: u64) -> Read1 {
    let mut piece = Vec::with_capacity(len as usize);
    (&mut file).take(len).read_to_end(&mut piece)?;
    if (piece.len() as u64) < len {
        return Err(Error::new(ErrorKind::UnexpectedEof, "the file was cut short"));
    }
    Ok((file, piece.into()))
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut reading = match std::mem::replace(&mut self.state, State::Over) {
            State::Over => return Poll::Ready(None),
            State::Reading(reading) => reading,
            State::Idle(file) => {
                let len = self.left.min(PIECE);
                spawn_blocking(move || read(file, len))
            }
        };
        let Poll::Ready(outcome) = Pin::new(&mut reading).poll(cx) else {
            self.state = State::Reading(reading);
            return Poll::Pending;
        };
        let (file, piece) = match outcome.map_err(Error::other).flatten() {
            Ok(read) => read,
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        self.left -= piece.len() as u64;
        self.state = State::Idle(file);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
