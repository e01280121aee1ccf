//! Ranks as threads of one process. The same bytes travel as on a network, and are checked in the same way.

use super::network::{Network, Shaper};
use super::{Lost, Transport};
use crate::dist::frame::{Frame, HEADER, Kind, Limits, Reader};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

/// What travels.
#[derive(Debug)]
enum Message {
    /// A frame, and when it has reached the receiver's link.
    Frame { from: usize, bytes: Arc<[u8]>, due: Option<Instant> },
    /// The sender is gone.
    Gone { from: usize },
}

/// One rank's end.
#[derive(Debug)]
pub struct InProc {
    rank: usize,
    peers: Vec<Option<Sender<Message>>>,
    inbox: Receiver<Message>,
    readers: Vec<Reader>,
    /// Peers that said farewell.
    ended: Vec<bool>,
    shaper: Option<Shaper>,
    /// What came before it was due.
    held: Option<(usize, Arc<[u8]>, Instant)>,
}

/// Connects `world` ranks; the i-th end is rank i's.
pub fn mesh(world: usize, limits: &Limits, attempt: u32, network: Option<Network>) -> Vec<InProc> {
    let (senders, inboxes): (Vec<_>, Vec<_>) = (0..world).map(|_| channel()).unzip();
    let end = |(rank, inbox)| InProc {
        rank,
        peers: senders.iter().enumerate().map(|(to, sender)| (to != rank).then(|| sender.clone())).collect(),
        inbox,
        readers: (0..world).map(|from| Reader::new(limits.clone(), from as u32, attempt)).collect(),
        ended: vec![false; world],
        shaper: network.map(Shaper::new),
        held: None,
    };
    inboxes.into_iter().enumerate().map(end).collect()
}

impl InProc {
    /// The bytes of a peer as a frame; a farewell is kept from the caller or becomes an error.
    fn frame(&mut self, from: usize, bytes: &[u8]) -> Result<Option<(usize, Frame)>, Lost> {
        let lost = |reason| Lost { rank: from, reason };
        self.readers[from].push(bytes);
        let frame = self.readers[from].next_frame().map_err(lost)?;
        match frame {
            Some(frame) if frame.kind == Kind::Bye => {
                self.ended[from] = true;
                match frame.payload.as_slice() {
                    [] => Ok(None),
                    text => Err(lost(format!("ended: {}", String::from_utf8_lossy(text)))),
                }
            }
            Some(frame) if frame.kind == Kind::Alive => Ok(None),
            Some(frame) => Ok(Some((from, frame))),
            None => Err(lost(format!("sent {} bytes that are no whole frame", bytes.len().max(HEADER)))),
        }
    }

    /// The next message that is due by `deadline`.
    fn message(&mut self, deadline: Instant) -> Result<Option<(usize, Arc<[u8]>)>, Lost> {
        loop {
            if let Some((from, bytes, due)) = self.held.take() {
                if due > deadline {
                    self.held = Some((from, bytes, due));
                    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
                    return Ok(None);
                }
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                return Ok(Some((from, bytes)));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let message = if left.is_zero() {
                match self.inbox.try_recv() {
                    Ok(message) => message,
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => return Ok(None),
                }
            } else {
                match self.inbox.recv_timeout(left) {
                    Ok(message) => message,
                    Err(RecvTimeoutError::Timeout) => return Ok(None),
                    // nobody is left, and all said farewell: there is nothing to wait for
                    Err(RecvTimeoutError::Disconnected) => {
                        std::thread::sleep(left);
                        return Ok(None);
                    }
                }
            };
            match message {
                Message::Gone { from } if self.ended[from] => {}
                Message::Gone { from } => return Err(Lost { rank: from, reason: "ended without a word".into() }),
                Message::Frame { from, bytes, due } => match (&self.shaper, due) {
                    (Some(shaper), Some(arrival)) => self.held = Some((from, bytes.clone(), shaper.received(bytes.len(), arrival))),
                    _ => return Ok(Some((from, bytes))),
                },
            }
        }
    }
}

impl Transport for InProc {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.peers.len()
    }

    fn send(&mut self, to: usize, frame: &Arc<[u8]>) -> Result<(), Lost> {
        let due = self.shaper.as_ref().map(|shaper| shaper.sent(frame.len(), Instant::now()));
        let message = Message::Frame { from: self.rank, bytes: frame.clone(), due };
        let gone = || Lost { rank: to, reason: "has ended".into() };
        self.peers.get(to).and_then(Option::as_ref).ok_or_else(gone)?.send(message).map_err(|_| gone())
    }

    fn receive(&mut self, patience: Duration) -> Result<Option<(usize, Frame)>, Lost> {
        let deadline = Instant::now() + patience;
        loop {
            let Some((from, bytes)) = self.message(deadline)? else { return Ok(None) };
            if let Some(frame) = self.frame(from, &bytes)? {
                return Ok(Some(frame));
            }
        }
    }

    fn flush(&mut self, _patience: Duration) {}
}

impl Drop for InProc {
    fn drop(&mut self) {
        for peer in self.peers.iter().flatten() {
            // whoever is gone already needs no notice
            let _ = peer.send(Message::Gone { from: self.rank });
        }
    }
}
