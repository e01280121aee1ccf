//! What ranks do together outside of steps: meet, collect what each has, share what rank 0 has.

use super::{MEET, PIECE, Team, WAITING, Waiting};
use crate::dist::frame::{Frame, Kind};
use crate::error::{Error, Result};
use std::sync::Arc;
use std::time::Instant;

impl Team {
    /// Sends a frame of a collective to `peers`.
    fn say(&mut self, phase: &'static str, kind: Kind, part: u8, payload: Vec<u8>, peers: &[usize]) -> Result<()> {
        let (attempt, from, step) = (self.seat.attempt, self.seat.rank as u32, self.sequence);
        self.exchange.count_other(kind, payload.len(), peers.len(), false);
        let bytes: Arc<[u8]> = Frame { kind, part, attempt, from, step, payload }.encode().into();
        for &to in peers {
            if let Err(lost) = self.transport.send(to, &bytes) {
                return Err(self.unsendable(phase, lost));
            }
        }
        Ok(())
    }

    /// The next frame of a collective from `from`.
    fn hear(&mut self, phase: &'static str, kind: Kind, part: u8, from: usize) -> Result<Vec<u8>> {
        let began = Instant::now();
        // Rank 0 gives up first, so that what the others hear from it is who was late.
        let patience = if self.seat.rank == 0 { self.patience.long } else { self.patience.long.mul_f32(1.5) };
        loop {
            if let Some(place) = self.waiting.iter().position(|w| w.from == from) {
                let Some(Waiting { frame, .. }) = self.waiting.remove(place) else { continue };
                if (frame.kind, frame.part, frame.step) != (kind, part, self.sequence) {
                    let text = format!(
                        "is at another point of the job: it sent {:?} number {}, here {kind:?} number {} is due",
                        frame.kind, frame.step, self.sequence
                    );
                    return Err(self.peer(from, phase, text));
                }
                return Ok(frame.payload);
            }
            let left = patience.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(self.peer(from, phase, format!("did not answer within {} s", patience.as_secs_f32())));
            }
            self.receive(phase, left)?;
        }
    }

    pub(super) fn others(&self) -> Vec<usize> {
        (0..self.seat.world).filter(|&r| r != self.seat.rank).collect()
    }

    /// Waits until every rank has come here.
    pub fn barrier(&mut self, phase: &'static str) -> Result<()> {
        self.send_all(phase)?;
        let others = self.others();
        self.say(phase, Kind::Barrier, 0, Vec::new(), &others)?;
        for from in others {
            self.hear(phase, Kind::Barrier, 0, from)?;
        }
        self.sequence += 1;
        Ok(())
    }

    /// Every rank's bytes, at `root` or, without one, at every rank; elsewhere nothing. At most `most` bytes of each, and
    /// 32 MiB.
    pub fn gather(&mut self, phase: &'static str, mine: &[u8], root: Option<usize>, most: u64) -> Result<Vec<Vec<u8>>> {
        self.send_all(phase)?;
        let me = self.seat.rank;
        let to: Vec<usize> = self.others().into_iter().filter(|&r| root.is_none_or(|root| root == r)).collect();
        self.say(phase, Kind::Gather, 0, (mine.len() as u64).to_le_bytes().to_vec(), &to)?;
        if mine.len() > WAITING / 2 * PIECE {
            return Err(Error::Plan(format!("{} bytes are too much to gather at once", mine.len())));
        }
        let receives = root.is_none_or(|root| root == me);
        let others = if receives { self.others() } else { Vec::new() };
        let mut all = vec![Vec::new(); if receives { self.seat.world } else { 0 }];
        let mut left = vec![0u64; self.seat.world];
        for &from in &others {
            left[from] = length(&self.hear(phase, Kind::Gather, 0, from)?)
                .filter(|&n| n <= most)
                .ok_or_else(|| self.peer(from, phase, format!("wants to send more than the {most} bytes that are possible")))?;
        }
        for piece in mine.chunks(PIECE) {
            self.say(phase, Kind::Gather, 1, piece.to_vec(), &to)?;
        }
        for &from in &others {
            while left[from] > 0 {
                let piece = self.hear(phase, Kind::Gather, 1, from)?;
                if piece.is_empty() || piece.len() as u64 > left[from] {
                    return Err(self.peer(from, phase, "sent another number of bytes than it had said".into()));
                }
                left[from] -= piece.len() as u64;
                all[from].extend(piece);
            }
        }
        if receives {
            all[me] = mine.to_vec();
        }
        self.sequence += 1;
        Ok(all)
    }

    /// Every rank's bytes at `root`, slice by slice, however many there are; `most` is the same at every rank.
    pub fn gather_large(&mut self, phase: &'static str, mine: &[u8], root: usize, most: u64) -> Result<Vec<Vec<u8>>> {
        const SLICE: usize = 8 * PIECE;
        let mut all: Vec<Vec<u8>> = Vec::new();
        for slice in 0..most.div_ceil(SLICE as u64) as usize {
            let cut = |at: usize| mine.len().min(at * SLICE);
            let found = self.gather(phase, &mine[cut(slice)..cut(slice + 1)], Some(root), SLICE as u64)?;
            all.resize(found.len(), Vec::new());
            all.iter_mut().zip(found).for_each(|(all, slice)| all.extend(slice));
            self.barrier(phase)?;
        }
        Ok(all)
    }

    /// Bytes of rank 0 to all: there `Some`, elsewhere `None` and the most they may be.
    pub fn broadcast(&mut self, phase: &'static str, mine: Option<&[u8]>, most: u64) -> Result<Vec<u8>> {
        self.send_all(phase)?;
        let others = self.others();
        let (len, mut bytes) = match mine {
            Some(bytes) => {
                self.say(phase, Kind::Broadcast, 0, (bytes.len() as u64).to_le_bytes().to_vec(), &others)?;
                (bytes.len() as u64, bytes.to_vec())
            }
            None => {
                let len = length(&self.hear(phase, Kind::Broadcast, 0, 0)?).filter(|&n| n <= most);
                (len.ok_or_else(|| self.peer(0, phase, format!("wants to send more than the {most} bytes that are possible")))?, Vec::new())
            }
        };
        let pieces = len.div_ceil(PIECE as u64) as usize;
        for i in 0..pieces {
            match mine {
                Some(all) => self.say(phase, Kind::Broadcast, 1, all[i * PIECE..all.len().min((i + 1) * PIECE)].to_vec(), &others)?,
                None => {
                    let piece = self.hear(phase, Kind::Broadcast, 1, 0)?;
                    let wanted = (len as usize - i * PIECE).min(PIECE);
                    if piece.len() != wanted {
                        return Err(self.peer(0, phase, format!("sent a piece of {} bytes where {wanted} were due", piece.len())));
                    }
                    bytes.extend(piece);
                }
            }
            self.meet(phase)?;
        }
        self.sequence += 1;
        self.meet(phase)?;
        Ok(bytes)
    }

    /// Counts a piece that rank 0 sent to all; after some of them all wait for each other.
    fn meet(&mut self, phase: &'static str) -> Result<()> {
        self.pieces += 1;
        if self.pieces.is_multiple_of(MEET) { self.barrier(phase) } else { Ok(()) }
    }
}

fn length(payload: &[u8]) -> Option<u64> {
    payload.try_into().ok().map(u64::from_le_bytes)
}
