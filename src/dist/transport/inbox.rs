//! What came from all peers, in the order in which it arrived; with a [`Network`], not before it would have come in.

use super::network::{Network, Shaper};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Something on its way to a worker.
#[derive(Debug)]
pub(super) struct Parcel<T> {
    /// The rank that sent it.
    pub(super) from: usize,
    /// When its last byte reaches the link of this worker.
    pub(super) arrives: Instant,
    /// How much of the link it takes.
    pub(super) bytes: usize,
    /// What it is.
    pub(super) content: T,
}

/// A parcel with its number among all that came.
#[derive(Debug)]
struct Numbered<T>(u64, Parcel<T>);

impl<T> Numbered<T> {
    fn key(&self) -> (Instant, u64) {
        (self.1.arrives, self.0)
    }
}

impl<T> PartialEq for Numbered<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Numbered<T> {}

impl<T> PartialOrd for Numbered<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Numbered<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// Where all parcels for one worker end.
#[derive(Debug)]
pub(super) struct Inbox<T> {
    receiver: Receiver<Parcel<T>>,
    /// Keeps the channel open, also when no peer is left.
    sender: Sender<Parcel<T>>,
    /// With a network: its link, ...
    link: Option<Shaper>,
    /// ... what is on its way, ...
    under_way: BinaryHeap<Reverse<Numbered<T>>>,
    /// ... and what the link is busy with, until when.
    coming: Option<(Instant, Parcel<T>)>,
    count: u64,
}

impl<T> Inbox<T> {
    /// An empty one.
    pub(super) fn new(network: Option<Network>) -> Inbox<T> {
        let (sender, receiver) = channel();
        Inbox { receiver, sender, link: network.map(Shaper::new), under_way: BinaryHeap::new(), coming: None, count: 0 }
    }

    /// Where peers put what they send.
    pub(super) fn sender(&self) -> Sender<Parcel<T>> {
        self.sender.clone()
    }

    /// The next parcel; `None` when there is none until `deadline`. With a deadline that has passed: one that is there.
    pub(super) fn next(&mut self, deadline: Instant) -> Option<Parcel<T>> {
        if self.link.is_none() {
            return self.receiver.try_recv().ok().or_else(|| self.receiver.recv_timeout(left(deadline)).ok());
        }
        loop {
            while let Ok(parcel) = self.receiver.try_recv() {
                self.put(parcel);
            }
            let now = Instant::now();
            if let Some(parcel) = self.due(now) {
                return Some(parcel);
            }
            if now >= deadline {
                return None;
            }
            let coming = self.coming.as_ref().map(|&(at, _)| at);
            let first = self.under_way.peek().map(|Reverse(first)| first.1.arrives);
            let wake = coming.or(first).map_or(deadline, |at| at.min(deadline));
            match self.receiver.recv_timeout(left(wake)) {
                Ok(parcel) => self.put(parcel),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    fn put(&mut self, parcel: Parcel<T>) {
        self.under_way.push(Reverse(Numbered(self.count, parcel)));
        self.count += 1;
    }

    /// A parcel that has come in by `now`. Whatever arrives before `now` was handed over by then, so that the link
    /// takes parcels in the order of their arrival.
    fn due(&mut self, now: Instant) -> Option<Parcel<T>> {
        if self.coming.is_none() && self.under_way.peek().is_some_and(|Reverse(first)| first.1.arrives <= now) {
            let Reverse(Numbered(_, parcel)) = self.under_way.pop()?;
            let at = self.link.as_mut().map_or(now, |link| link.received(parcel.bytes, parcel.arrives));
            self.coming = Some((at, parcel));
        }
        let (_, parcel) = self.coming.take_if(|(at, _)| *at <= now)?;
        Some(parcel)
    }
}

/// The time until `deadline`.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// The end of `patience`; a year from now if it is longer than that.
pub(super) fn deadline(patience: Duration) -> Instant {
    Instant::now() + patience.min(Duration::from_secs(365 * 24 * 3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_takes_parcels_in_the_order_of_their_arrival() {
        let mut inbox = Inbox::new(Some(Network { bits_per_second: 8e6, latency: Duration::ZERO }));
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut put = |from, ms, bytes| inbox.put(Parcel { from, arrives: at(ms), bytes, content: () });
        // Rank 1 has much to send, rank 2 speaks up a little later.
        put(1, 10, 10_000);
        put(1, 20, 10_000);
        put(1, 20, 0);
        put(2, 12, 10_000);
        let due = |inbox: &mut Inbox<()>, ms| inbox.due(at(ms)).map(|parcel| parcel.from);
        assert_eq!(due(&mut inbox, 9), None);
        assert_eq!(due(&mut inbox, 10), Some(1));
        assert_eq!(due(&mut inbox, 19), None);
        assert_eq!(due(&mut inbox, 20), Some(2), "12 ms, but the link is busy until 20 ms");
        assert_eq!(due(&mut inbox, 29), None);
        assert_eq!(due(&mut inbox, 30), Some(1));
        assert_eq!(due(&mut inbox, 30), Some(1));
        assert_eq!(due(&mut inbox, 99), None);
    }
}
