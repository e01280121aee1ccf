//! Ranks as threads of one process. The same bytes travel as on a network, and they are checked in the same way.

use super::inbox::{Inbox, Parcel, deadline};
use super::network::{Network, Shaper};
use super::{Ends, Lost, Transport, finished};
use crate::dist::frame::{Frame, Kind, Limits, Reader};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// What travels.
#[derive(Debug)]
enum Content {
    Bytes(Arc<[u8]>),
    /// The sender's end was dropped.
    Dropped,
}

/// One rank's end.
#[derive(Debug)]
pub struct InProc {
    rank: usize,
    peers: Vec<Option<Sender<Parcel<Content>>>>,
    readers: Vec<Reader>,
    inbox: Inbox<Content>,
    link: Option<Shaper>,
    ends: Ends,
}

/// Connects `world` ranks; the i-th end is that of rank i.
pub fn mesh(world: usize, limits: &Limits, attempt: u32, network: Option<Network>) -> Vec<InProc> {
    let inboxes: Vec<Inbox<Content>> = (0..world).map(|_| Inbox::new(network)).collect();
    let senders: Vec<_> = inboxes.iter().map(Inbox::sender).collect();
    let end = |(rank, inbox)| InProc {
        rank,
        peers: senders.iter().enumerate().map(|(to, sender)| (to != rank).then(|| sender.clone())).collect(),
        readers: (0..world).map(|from| Reader::new(limits.clone(), from as u32, attempt)).collect(),
        inbox,
        link: network.map(Shaper::new),
        ends: Ends::new(world),
    };
    inboxes.into_iter().enumerate().map(end).collect()
}

impl InProc {
    /// Hands `content` to a peer. A peer that is gone has left a word in this end's inbox, which says more than a
    /// channel that is closed.
    fn hand_over(&mut self, to: usize, bytes: usize, content: Content) {
        let now = Instant::now();
        let arrives = self.link.as_mut().map_or(now, |link| link.sent(bytes, now));
        if let Some(peer) = self.peers.get(to).and_then(Option::as_ref) {
            let _ = peer.send(Parcel { from: self.rank, arrives, bytes, content });
        }
    }

    /// The frame of a parcel; `None` when there is nothing to tell.
    fn open(&mut self, parcel: Parcel<Content>) -> Result<Option<Frame>, String> {
        let Content::Bytes(bytes) = parcel.content else {
            return Err("ended without a word".into());
        };
        let reader = &mut self.readers[parcel.from];
        reader.push(&bytes);
        match reader.next_frame()? {
            Some(_) if !reader.is_empty() => Err("sent more than one frame at once".into()),
            Some(frame) if frame.kind == Kind::Alive => Ok(None),
            Some(frame) => Ok(Some(frame)),
            None => Err(format!("sent {} bytes that are no whole frame", bytes.len())),
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
        self.ends.check(self.rank, to)?;
        self.hand_over(to, frame.len(), Content::Bytes(frame.clone()));
        Ok(())
    }

    fn receive(&mut self, patience: Duration) -> Result<Option<(usize, Frame)>, Lost> {
        let deadline = deadline(patience);
        while let Some(parcel) = self.inbox.next(deadline) {
            let from = parcel.from;
            if self.ends.is_over(from) {
                continue;
            }
            let frame = match self.open(parcel) {
                Ok(Some(frame)) => finished(frame),
                Ok(None) => continue,
                Err(reason) => Err(Some(reason)),
            };
            match frame {
                Ok(frame) => return Ok(Some((from, frame))),
                Err(end) => self.ends.set(from, end)?,
            }
        }
        Ok(None)
    }

    /// What was sent is with its receiver at once.
    fn flush(&mut self, _patience: Duration) {}
}

impl Drop for InProc {
    fn drop(&mut self) {
        for to in 0..self.peers.len() {
            self.hand_over(to, 0, Content::Dropped);
        }
    }
}
