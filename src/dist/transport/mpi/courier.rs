//! The thread that calls MPI.

use crate::dist::frame::{Frame, HEADER, Kind, Limits, Reader};
use crate::dist::launch::MAX_WORLD;
use ferrompi::{Communicator, Mpi, PersistentRequest, Source, ThreadLevel};
use std::collections::VecDeque;
use std::mem::forget;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::{Duration, Instant};

/// Bytes of the longest message.
const PIECE: usize = 1 << 20;
/// Messages to one peer that are under way at the same time.
const SENDING: usize = 4;
/// Messages that are being received at the same time.
const RECEIVING: usize = 64;
/// How long what was sent before a bad end may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(1);
const TAG: i32 = 1;
/// Rounds without anything to do after which the thread sleeps between rounds, ...
const PATIENT_ROUNDS: u32 = 200;
/// ... for so long.
const NAP: Duration = Duration::from_micros(50);

/// What the caller wants.
#[derive(Debug)]
pub(super) enum Command {
    /// A frame for a peer.
    Send(usize, Arc<[u8]>),
    /// A word when everything has left.
    Flush(Sender<()>),
    /// The end; a word when it is there.
    End(Sender<()>),
}

/// What the caller is told.
#[derive(Debug)]
pub(super) enum Event {
    /// A peer's frame, also [`Kind::Bye`].
    Frame(usize, Frame),
    /// A peer that cannot be understood; when MPI fails, this rank itself.
    Lost(usize, String),
}

/// Whether an encoded frame is a [`Kind::Bye`]: `Some(true)` for a good one, `Some(false)` for one with a reason.
pub(super) fn is_bye(frame: &[u8]) -> Option<bool> {
    (frame.get(5) == Some(&(Kind::Bye as u8))).then_some(frame.len() == HEADER)
}

/// One peer.
struct Peer {
    /// Frames to send, each with what has left of it.
    queue: VecDeque<(Arc<[u8]>, usize)>,
    sending: VecDeque<PersistentRequest<u8>>,
    receiving: VecDeque<PersistentRequest<u8>>,
    reader: Reader,
    /// A good [`Kind::Bye`] was sent, came.
    said_bye: bool,
    heard_bye: bool,
}

/// All of MPI.
pub(super) struct Courier {
    mpi: Mpi,
    world: Communicator,
    me: usize,
    peers: Vec<Peer>,
    commands: Receiver<Command>,
    events: Sender<Event>,
    /// Bytes of the longest message of this model.
    most: usize,
    flushes: Vec<Sender<()>>,
    end: Option<(Sender<()>, Instant)>,
    /// There will be no good end.
    failed: bool,
    /// Nothing more is received.
    deaf: bool,
    /// MPI is not called any more.
    broken: bool,
}

impl Courier {
    /// Starts MPI on this thread, which is the one to use it then; also gives rank and world size.
    pub(super) fn new(
        limits: Limits,
        attempt: u32,
        commands: Receiver<Command>,
        events: Sender<Event>,
    ) -> Result<(Courier, (usize, usize)), String> {
        let mpi = Mpi::init_thread(ThreadLevel::Funneled).map_err(|error| error.to_string())?;
        if mpi.thread_level() < ThreadLevel::Funneled {
            return Err("it allows no threads".into());
        }
        let world = mpi.world();
        let (Ok(me), Ok(size)) = (usize::try_from(world.rank()), usize::try_from(world.size())) else {
            return Err(format!("it gives rank {} of {}", world.rank(), world.size()));
        };
        if me >= size || size as u64 > MAX_WORLD {
            return Err(format!("it gives rank {me} of {size}; at most {MAX_WORLD} are possible"));
        }
        let longest = Kind::ALL.into_iter().map(|kind| limits.of(kind)).max().unwrap_or(0);
        let peer = |from| Peer {
            queue: VecDeque::new(),
            sending: VecDeque::new(),
            receiving: VecDeque::new(),
            reader: Reader::new(limits.clone(), from as u32, attempt),
            said_bye: false,
            heard_bye: false,
        };
        let courier = Courier {
            world,
            me,
            peers: (0..size).map(peer).collect(),
            commands,
            events,
            most: PIECE.min(HEADER + longest as usize),
            flushes: Vec::new(),
            end: None,
            failed: false,
            deaf: false,
            broken: false,
            mpi,
        };
        Ok((courier, (me, size)))
    }

    /// Works until the caller wants to end. After a good end MPI is finalized, which waits for all ranks. After another
    /// one neither MPI nor its open requests are waited for: the process ends so, and the launcher ends the others.
    pub(super) fn run(mut self) {
        let mut idle = 0;
        while !self.is_over() {
            match self.round() {
                Ok(true) => idle = 0,
                Ok(false) => idle += 1,
                Err(error) => {
                    self.give_up(self.me, format!("cannot use MPI any more: {error}"));
                    self.broken = true;
                }
            }
            if self.broken || self.is_empty() {
                self.flushes.drain(..).for_each(|done| done.send(()).unwrap_or_default());
            }
            if idle > 0 || self.broken {
                self.wait(idle > PATIENT_ROUNDS || self.broken);
            }
        }
        let well = self.is_well();
        let Courier { mpi, end, peers, .. } = self;
        if well {
            drop(peers);
            drop(mpi);
        } else {
            // Dropping a request would wait for its peer.
            forget((peers, mpi));
        }
        if let Some((done, _)) = end {
            let _ = done.send(());
        }
    }

    /// The caller wants to end, and nothing is left to wait for.
    fn is_over(&self) -> bool {
        self.end.as_ref().is_some_and(|(_, began)| match self.failed {
            true => self.broken || self.is_empty() || began.elapsed() > LAST_WORDS,
            false => self.is_well() || began.elapsed() > super::GOOD_END,
        })
    }

    /// Everybody said, and heard, that this is a good end.
    fn is_well(&self) -> bool {
        !self.failed && self.is_empty() && self.others().all(|peer| peer.said_bye && peer.heard_bye)
    }

    /// Everything has left.
    fn is_empty(&self) -> bool {
        self.peers.iter().all(|peer| peer.queue.is_empty() && peer.sending.is_empty())
    }

    fn others(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().enumerate().filter(|&(rank, _)| rank != self.me).map(|(_, peer)| peer)
    }

    /// Does what can be done at once; false when there was nothing.
    fn round(&mut self) -> ferrompi::Result<bool> {
        let mut busy = false;
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.obey(command),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.abandon();
                    break;
                }
            }
            busy = true;
        }
        if self.broken {
            return Ok(busy);
        }
        busy |= self.send()?;
        busy |= self.receive()?;
        Ok(busy)
    }

    /// Sleeps a little, or until the next command; or only lets others run.
    fn wait(&mut self, nap: bool) {
        if !nap {
            return std::thread::yield_now();
        }
        match self.commands.recv_timeout(NAP) {
            Ok(command) => self.obey(command),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.abandon(),
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Send(to, frame) => {
                match is_bye(&frame) {
                    Some(true) => self.peers[to].said_bye = true,
                    Some(false) => self.failed = true,
                    None => {}
                }
                self.peers[to].queue.push_back((frame, 0));
            }
            Command::Flush(done) => self.flushes.push(done),
            Command::End(done) => {
                // Who has not said goodbye will not do so any more.
                let silent = self.others().any(|peer| !peer.said_bye);
                self.failed |= silent;
                self.end = Some((done, Instant::now()));
            }
        }
    }

    /// The caller is gone without a word.
    fn abandon(&mut self) {
        self.failed = true;
        self.end.get_or_insert_with(|| (std::sync::mpsc::channel().0, Instant::now()));
    }

    fn send(&mut self) -> ferrompi::Result<bool> {
        let mut busy = false;
        for (to, peer) in self.peers.iter_mut().enumerate() {
            while let Some(first) = peer.sending.front_mut() {
                if first.test()?.is_none() {
                    break;
                }
                peer.sending.pop_front();
                busy = true;
            }
            while peer.sending.len() < SENDING {
                let Some((frame, sent)) = peer.queue.front_mut() else { break };
                let piece = frame[*sent..frame.len().min(*sent + PIECE)].to_vec();
                *sent += piece.len();
                // A last word has left when it was heard, for nothing is promised of what MPI still holds at the end.
                let mut request = match is_bye(frame) {
                    Some(_) => self.world.ssend_init(piece, to as i32, TAG)?,
                    None => self.world.send_init(piece, to as i32, TAG)?,
                };
                request.start()?;
                peer.sending.push_back(request);
                if *sent == frame.len() {
                    peer.queue.pop_front();
                }
                busy = true;
            }
        }
        Ok(busy)
    }

    fn receive(&mut self) -> ferrompi::Result<bool> {
        let mut busy = false;
        while !self.deaf && self.peers.iter().map(|peer| peer.receiving.len()).sum::<usize>() < RECEIVING {
            let Some(found) = self.world.iprobe::<u8>(Source::Any, TAG)? else { break };
            busy = true;
            let from = match found.source {
                Source::Rank(rank) => rank as usize,
                _ => break,
            };
            match found.count {
                Some(len) if len <= self.most => {
                    let mut request = self.world.recv_init(vec![0u8; len], found.source, TAG)?;
                    request.start()?;
                    self.peers[from].receiving.push_back(request);
                }
                len => {
                    let len = len.map_or("too many".into(), |len| len.to_string());
                    self.give_up(from, format!("sent a message of {len} bytes; this model allows {}", self.most));
                }
            }
        }
        for from in 0..self.peers.len() {
            // In the order in which they were sent: a short one may be here before a long one that it follows.
            while let Some(first) = self.peers[from].receiving.front_mut() {
                if first.test()?.is_none() {
                    break;
                }
                busy = true;
                if let Some(request) = self.peers[from].receiving.pop_front() {
                    self.read(from, &request.into_buffer()?);
                }
            }
        }
        Ok(busy)
    }

    /// Makes frames of bytes.
    fn read(&mut self, from: usize, bytes: &[u8]) {
        let peer = &mut self.peers[from];
        peer.reader.push(bytes);
        loop {
            match peer.reader.next_frame() {
                Ok(Some(frame)) => {
                    if frame.kind == Kind::Bye {
                        peer.heard_bye |= frame.payload.is_empty();
                        self.failed |= !frame.payload.is_empty();
                    }
                    let _ = self.events.send(Event::Frame(from, frame));
                }
                Ok(None) => return,
                Err(reason) => return self.give_up(from, reason),
            }
        }
    }

    /// A peer cannot be understood, or MPI cannot be used: nothing more is received.
    fn give_up(&mut self, rank: usize, reason: String) {
        if !self.deaf {
            let _ = self.events.send(Event::Lost(rank, reason));
        }
        (self.failed, self.deaf) = (true, true);
    }
}
