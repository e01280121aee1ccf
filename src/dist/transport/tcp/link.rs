//! A connection with one peer: a thread that reads, a thread that writes. Neither waits for the worker: what came and what
//! is to go is queued, so that all ranks may send before any receives. How much that is follows from the model: a
//! frame has a limit, and a rank is never more than a step ahead of those it waits for.

use super::super::inbox::Parcel;
use super::pipe::{Pipe, Sink, Source, is_timeout};
use crate::dist::frame::{Frame, HEADER, Kind, Reader};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A frame, or why there are no more.
pub(super) type Content = Result<Frame, String>;

/// Counts what is not yet done.
#[derive(Debug, Default)]
pub(super) struct Tally {
    count: Mutex<usize>,
    fewer: Condvar,
}

impl Tally {
    fn count(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, until the ticket is dropped.
    pub(super) fn ticket(self: &Arc<Self>) -> Ticket {
        *self.count() += 1;
        Ticket(self.clone())
    }

    /// How many there are.
    pub(super) fn now(&self) -> usize {
        *self.count()
    }

    /// Waits until there are none; false if there are some at `deadline`.
    pub(super) fn none_by(&self, deadline: Instant) -> bool {
        let mut count = self.count();
        while *count > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            count = self.fewer.wait_timeout(count, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// One of what a [`Tally`] counts.
#[derive(Debug)]
pub(super) struct Ticket(Arc<Tally>);

impl Drop for Ticket {
    fn drop(&mut self) {
        *self.0.count() -= 1;
        self.0.fewer.notify_all();
    }
}

/// What all links of a worker have in common.
#[derive(Debug, Clone)]
pub(super) struct Common {
    pub(super) rank: usize,
    pub(super) attempt: u32,
    /// Silence after which a peer is lost.
    pub(super) silence: Duration,
    /// How often to say that this one is alive.
    pub(super) heartbeat: Duration,
    /// Where frames go.
    pub(super) inbox: Sender<Parcel<Content>>,
    /// Frames that are not yet with the operating system.
    pub(super) unsent: Arc<Tally>,
    /// Threads that have not ended.
    pub(super) threads: Arc<Tally>,
    /// Set when the worker wants to end.
    pub(super) ending: Arc<OnceLock<()>>,
    /// The first peer that was lost, and how.
    pub(super) lost: Arc<OnceLock<String>>,
}

impl Common {
    /// Notes that a peer is lost.
    fn note(&self, peer: usize, reason: &str) {
        let _ = self.lost.set(format!("rank {peer} {reason}"));
    }
}

/// What waits to be written.
#[derive(Debug)]
struct Outgoing {
    bytes: Arc<[u8]>,
    due: Option<Instant>,
    _unsent: Ticket,
}

/// The end of a connection.
#[derive(Debug)]
pub(super) struct Link {
    queue: Sender<Outgoing>,
    unsent: Arc<Tally>,
    socket: TcpStream,
    threads: [JoinHandle<()>; 2],
}

impl Link {
    /// Starts the threads of a connection with rank `peer`.
    pub(super) fn start(pipe: Pipe, peer: usize, reader: Reader, common: &Common) -> std::io::Result<Link> {
        let socket = pipe.socket().try_clone()?;
        let (source, sink, came) = pipe.halves(common.silence)?;
        let (queue, outgoing) = channel();
        let reading = Reading { source, reader, peer, common: common.clone() };
        let writing = Writing { sink, outgoing, peer, common: common.clone() };
        let tickets = [common.threads.ticket(), common.threads.ticket()];
        let [first, second] = tickets;
        let from = std::thread::Builder::new().name(format!("from rank {peer}")).spawn(move || {
            let _ticket = first;
            reading.run(came);
        })?;
        let to = std::thread::Builder::new().name(format!("to rank {peer}")).spawn(move || {
            let _ticket = second;
            writing.run();
        });
        match to {
            Ok(to) => Ok(Link { queue, unsent: common.unsent.clone(), socket, threads: [from, to] }),
            Err(error) => {
                let _ = socket.shutdown(Shutdown::Both);
                let _ = from.join();
                Err(error)
            }
        }
    }

    /// Queues bytes; they are written when they are due. Those for a peer that is gone are dropped: what became of
    /// it is in the inbox.
    pub(super) fn send(&self, bytes: Arc<[u8]>, due: Option<Instant>) {
        let _ = self.queue.send(Outgoing { bytes, due, _unsent: self.unsent.ticket() });
    }

    /// Lets the writing thread end when it has written everything.
    pub(super) fn close(self) -> Closing {
        Closing { socket: self.socket, threads: self.threads }
    }
}

/// A link whose threads are about to end.
#[derive(Debug)]
pub(super) struct Closing {
    socket: TcpStream,
    threads: [JoinHandle<()>; 2],
}

impl Closing {
    /// Ends them.
    pub(super) fn end(self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// The thread that reads.
#[derive(Debug)]
struct Reading {
    source: Source,
    reader: Reader,
    peer: usize,
    common: Common,
}

impl Reading {
    fn run(mut self, came: Vec<u8>) {
        let end = self.frames(came);
        if let Err(reason) = end {
            tell(&self.common, self.peer, reason);
        } else {
            // After the last frame there is nothing to come but the end of the stream.
            while let Ok(true) = self.source.read(&mut Vec::new()) {}
        }
        self.source.close();
    }

    /// Passes frames on until the last one.
    fn frames(&mut self, mut bytes: Vec<u8>) -> Result<(), String> {
        loop {
            self.reader.push(&bytes);
            bytes.clear();
            while let Some(frame) = self.reader.next_frame()? {
                let (last, text) = (frame.kind == Kind::Bye, !frame.payload.is_empty());
                if last && text {
                    self.common.note(self.peer, &format!("ended: {}", super::super::printable(&frame.payload)));
                }
                if frame.kind != Kind::Alive {
                    self.pass(frame);
                }
                if last {
                    return Ok(());
                }
            }
            match self.source.read(&mut bytes) {
                Ok(true) => {}
                Ok(false) if self.reader.is_empty() => return Err("closed the connection".into()),
                Ok(false) => return Err("closed the connection in the middle of a frame".into()),
                Err(e) if is_timeout(&e) => return Err(format!("said nothing for {} s", self.common.silence.as_secs_f32())),
                Err(e) => return Err(format!("cannot be heard any more: {e}")),
            }
        }
    }

    fn pass(&self, frame: Frame) {
        let bytes = HEADER + frame.payload.len();
        let _ = self.common.inbox.send(Parcel { from: self.peer, arrives: Instant::now(), bytes, content: Ok(frame) });
    }
}

/// Reports the loss of a peer.
fn tell(common: &Common, peer: usize, reason: String) {
    common.note(peer, &reason);
    let _ = common.inbox.send(Parcel { from: peer, arrives: Instant::now(), bytes: 0, content: Err(reason) });
}

/// The thread that writes.
#[derive(Debug)]
struct Writing {
    sink: Sink,
    outgoing: Receiver<Outgoing>,
    peer: usize,
    common: Common,
}

impl Writing {
    fn run(mut self) {
        match self.frames() {
            Err(e) if is_timeout(&e) => {
                tell(&self.common, self.peer, format!("took nothing for {} s", self.common.silence.as_secs_f32()));
                self.sink.close();
            }
            // The peer is gone; the thread that reads says how.
            Err(_) | Ok(()) => self.sink.finish(),
        }
    }

    /// Writes what is queued, and now and then that this worker is alive, until the queue is closed.
    fn frames(&mut self) -> std::io::Result<()> {
        let (attempt, from) = (self.common.attempt, self.common.rank as u32);
        let alive = Frame { kind: Kind::Alive, part: 0, attempt, from, step: 0, payload: Vec::new() }.encode();
        loop {
            match self.outgoing.recv_timeout(self.common.heartbeat) {
                Ok(next) => {
                    self.wait(next.due, &alive)?;
                    self.sink.write(&next.bytes)?;
                }
                Err(RecvTimeoutError::Timeout) => self.sink.write(&alive)?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Waits until something is due; there is a network to be imitated.
    fn wait(&mut self, due: Option<Instant>, alive: &[u8]) -> std::io::Result<()> {
        const SLICE: Duration = Duration::from_millis(20);
        let Some(due) = due else { return Ok(()) };
        let mut said = Instant::now();
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if self.common.ending.get().is_some() {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            std::thread::sleep(left.min(SLICE));
            if said.elapsed() >= self.common.heartbeat {
                self.sink.write(alive)?;
                said = Instant::now();
            }
        }
    }
}
