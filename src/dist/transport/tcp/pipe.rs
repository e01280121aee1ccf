//! Bytes to and from a peer: a socket, and what makes it private.

use super::handshake::{Binding, Stranger};
use super::tls::{Configs, End, Session};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// The most that is read at once.
const PIECE: usize = 1 << 16;

/// Where bytes come from.
#[derive(Debug)]
pub(super) struct Source {
    socket: TcpStream,
    tls: Option<Session>,
    piece: Vec<u8>,
}

impl Source {
    /// Waits for bytes, at most for the socket's time-out, and appends what they say to `out`; false at the end of the
    /// stream.
    pub(super) fn read(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        let len = loop {
            match self.socket.read(&mut self.piece) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        match &self.tls {
            Some(tls) => tls.take(&self.piece[..len], out)?,
            None => out.extend_from_slice(&self.piece[..len]),
        }
        Ok(len > 0)
    }

    /// Ends the connection, in both directions.
    pub(super) fn close(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Where bytes go.
#[derive(Debug)]
pub(super) struct Sink {
    socket: TcpStream,
    tls: Option<Session>,
    /// What TLS makes of a piece.
    sealed: Vec<u8>,
}

impl Sink {
    /// Hands all bytes to the operating system. It may take as long as it likes, if each time-out of the socket sees
    /// some of them go.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(tls) = &self.tls else { return self.socket.write_all(bytes) };
        // No bytes: only what TLS itself has to say.
        let mut rest = bytes;
        loop {
            let (piece, next) = rest.split_at(rest.len().min(PIECE));
            self.sealed.clear();
            tls.give(piece, &mut self.sealed)?;
            self.socket.write_all(&self.sealed)?;
            rest = next;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Says that nothing more comes.
    pub(super) fn finish(&mut self) {
        if let Some(tls) = &self.tls {
            tls.end();
            let _ = self.write(&[]);
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Ends the connection, in both directions.
    pub(super) fn close(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// A connection while its two sides make each other's acquaintance: everything has to be done by a deadline.
#[derive(Debug)]
pub(super) struct Pipe {
    source: Source,
    sink: Sink,
    /// What was read and not yet taken.
    came: Vec<u8>,
    deadline: Instant,
}

impl Pipe {
    /// Of a connected socket; with `tls`, when both sides have agreed on keys.
    pub(super) fn new(socket: TcpStream, tls: Option<&Configs>, end: End, deadline: Instant) -> Result<Pipe> {
        // Where sockets of a listener that does not block are like it.
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        let tls = tls.map(|configs| configs.begin(end)).transpose()?;
        let source = Source { socket: socket.try_clone()?, tls: tls.clone(), piece: vec![0; PIECE] };
        let sink = Sink { socket, tls: tls.clone(), sealed: Vec::new() };
        let mut pipe = Pipe { source, sink, came: Vec::new(), deadline };
        while tls.as_ref().is_some_and(Session::is_handshaking) {
            pipe.send(&[])?;
            if tls.as_ref().is_some_and(Session::is_handshaking) {
                pipe.more()?;
            }
        }
        pipe.send(&[])?;
        Ok(pipe)
    }

    /// The time that is left, as a time-out.
    fn left(&self) -> Result<Option<Duration>> {
        match self.deadline.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => Ok(Some(left)),
            _ => Err(Error::from(ErrorKind::TimedOut)),
        }
    }

    /// Gives it time until `deadline`.
    pub(super) fn until(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// What ties proofs to this connection.
    pub(super) fn binding(&self) -> std::result::Result<Binding, Stranger> {
        let export = |tls: &Session| tls.binding().map_err(|e| Stranger(format!("cannot be recognized: {e}")));
        self.sink.tls.as_ref().map_or(Ok(Binding::default()), export)
    }

    /// Waits for bytes.
    fn more(&mut self) -> Result<()> {
        self.source.socket.set_read_timeout(self.left()?)?;
        match self.source.read(&mut self.came)? {
            true => Ok(()),
            false => Err(Error::from(ErrorKind::UnexpectedEof)),
        }
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> Result<Vec<u8>> {
        while self.came.len() < len {
            self.more()?;
        }
        Ok(self.came.drain(..len).collect())
    }

    /// The next message and its proof, if it is not longer than `longest`.
    pub(super) fn take_sealed(&mut self, longest: usize) -> Result<Vec<u8>> {
        let length = self.take(super::handshake::LENGTH)?;
        let length = length.iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
        if length > longest {
            return Err(Error::new(ErrorKind::InvalidData, format!("announced {length} bytes where {longest} are the most")));
        }
        self.take(length + super::handshake::PROOF)
    }

    /// Sends bytes.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.sink.socket.set_write_timeout(self.left()?)?;
        self.sink.write(bytes)
    }

    /// The socket.
    pub(super) fn socket(&self) -> &TcpStream {
        &self.sink.socket
    }

    /// The two directions, and what was read already. From now on `silence` is the time-out of each.
    pub(super) fn halves(self, silence: Duration) -> Result<(Source, Sink, Vec<u8>)> {
        let silence = Some(silence.max(Duration::from_millis(1)));
        self.source.socket.set_read_timeout(silence)?;
        self.sink.socket.set_write_timeout(silence)?;
        Ok((self.source, self.sink, self.came))
    }
}

/// Whether an error is a time-out; which of the two words is used depends on the operating system.
pub(super) fn is_timeout(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
