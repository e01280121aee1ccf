//! Frames: everything that workers say to each other once they know each other. A header of 32 bytes,
//! little-endian, then the payload:
//!
//! | byte | holds |
//! |---|---|
//! | 0 | `dqrm` |
//! | 4 | protocol version, 1 |
//! | 5 | kind |
//! | 6 | part: which of several of its kind |
//! | 7 | 0 |
//! | 8 | attempt, `u32`: how often the job was started |
//! | 12 | the sender's rank, `u32` |
//! | 16 | step, `u64` |
//! | 24 | bytes of the payload, `u32` |
//! | 28 | low 32 bits of the XXH3 of bytes 0 to 27 and the payload |
//!
//! A [`Reader`] takes bytes as they come and gives whole frames. It knows how long a frame of each kind
//! may be ([`Limits`], from the model's shape) and reserves no memory for a longer one.

use xxhash_rust::xxh3::Xxh3;

/// Bytes before the payload.
pub const HEADER: usize = 32;

/// First bytes of every frame.
const MAGIC: [u8; 4] = *b"dqrm";
/// What this program speaks.
pub const VERSION: u8 = 1;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The rows that the sender's batch touches.
    Ids = 1,
    /// Gradients of rows, to everybody or to the rows' owner.
    Rows,
    /// An owner's sums of rows.
    RowSums,
    /// Gradients of MLP parameters, to their owner.
    Chunk,
    /// An owner's sums of MLP gradients.
    ChunkSums,
    /// Scales that are averaged before anything is quantized with them.
    Scales,
    /// Loss, samples and times of a step; a wish to stop.
    Report,
    /// Not used (hashes of tensors are gathered like anything else); the number stays taken.
    Hashes,
    /// One rank's piece of something that all ranks collect.
    Gather,
    /// A piece of something that rank 0 has and all ranks need.
    Broadcast,
    /// The sender is there too.
    Barrier,
    /// The sender is alive. Transports keep these to themselves.
    Alive,
    /// The last frame of a rank: it has finished (no payload), or why it ends (UTF-8).
    Bye,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 13] = [
        Kind::Ids,
        Kind::Rows,
        Kind::RowSums,
        Kind::Chunk,
        Kind::ChunkSums,
        Kind::Scales,
        Kind::Report,
        Kind::Hashes,
        Kind::Gather,
        Kind::Broadcast,
        Kind::Barrier,
        Kind::Alive,
        Kind::Bye,
    ];

    fn from_byte(byte: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|&k| k as u8 == byte)
    }
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: Kind,
    /// Which of several of its kind in one step.
    pub part: u8,
    /// How often the job was started before.
    pub attempt: u32,
    /// The sender's rank.
    pub from: u32,
    /// The step it belongs to.
    pub step: u64,
    /// What is carried.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The frame as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.payload.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, self.kind as u8, self.part, 0]);
        bytes.extend_from_slice(&self.attempt.to_le_bytes());
        bytes.extend_from_slice(&self.from.to_le_bytes());
        bytes.extend_from_slice(&self.step.to_le_bytes());
        bytes.extend_from_slice(&(self.payload.len() as u32).to_le_bytes());
        let check = check(&bytes, &self.payload);
        bytes.extend_from_slice(&check.to_le_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

fn check(header: &[u8], payload: &[u8]) -> u32 {
    let mut hash = Xxh3::new();
    hash.update(header);
    hash.update(payload);
    hash.digest() as u32
}

/// The longest payload of each kind, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits([u32; Kind::ALL.len()]);

/// Text of a [`Kind::Bye`].
const MAX_BYE: u32 = 4096;

impl Limits {
    /// No payloads but the text of a [`Kind::Bye`].
    pub fn none() -> Limits {
        let mut limits = Limits([0; Kind::ALL.len()]);
        limits.allow(Kind::Bye, MAX_BYE as u64);
        limits
    }

    /// Allows payloads of up to `bytes` bytes, if not more are allowed already.
    pub fn allow(&mut self, kind: Kind, bytes: u64) {
        let place = &mut self.0[kind as usize - 1];
        *place = (*place).max(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// The longest payload of a kind.
    pub fn of(&self, kind: Kind) -> u32 {
        self.0[kind as usize - 1]
    }
}

/// Turns the bytes of one peer into frames.
#[derive(Debug)]
pub struct Reader {
    limits: Limits,
    from: u32,
    attempt: u32,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were given out already.
    taken: usize,
}

impl Reader {
    /// Frames of rank `from` in attempt `attempt`.
    pub fn new(limits: Limits, from: u32, attempt: u32) -> Reader {
        Reader { limits, from, attempt, buffer: Vec::new(), taken: 0 }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// True between two frames: nothing but whole frames came.
    pub fn is_empty(&self) -> bool {
        self.buffer.len() == self.taken
    }

    /// The next whole frame; `None` until more bytes come. After an error the peer cannot be understood
    /// any more.
    ///
    /// # Errors
    /// What is wrong, in words that go after "rank 3".
    pub fn next_frame(&mut self) -> Result<Option<Frame>, String> {
        let bytes = &self.buffer[self.taken..];
        let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if header[..4] != MAGIC {
            return Err(format!("sent bytes that are no frame (they begin with {:02x?})", &header[..4]));
        }
        if header[4] != VERSION {
            return Err(format!("speaks protocol {}, here it is {VERSION}", header[4]));
        }
        let Some(kind) = Kind::from_byte(header[5]).filter(|_| header[7] == 0) else {
            return Err(format!("sent a frame of an unknown kind ({}, {})", header[5], header[7]));
        };
        let (attempt, from, len) = (word(8), word(12), word(24));
        if attempt != self.attempt {
            return Err(format!("belongs to attempt {attempt} of the job, here it is {}", self.attempt));
        }
        if from != self.from {
            return Err(format!("sent a frame that says it is from rank {from}"));
        }
        if len > self.limits.of(kind) {
            return Err(format!("announced {len} bytes of {kind:?}; this model allows {}", self.limits.of(kind)));
        }
        let end = HEADER + len as usize;
        if bytes.len() < end {
            return Ok(None);
        }
        let payload = &bytes[HEADER..end];
        if check(&header[..28], payload) != word(28) {
            return Err(format!("sent a damaged frame of {kind:?} (its checksum does not fit)"));
        }
        let step = u64::from_le_bytes([16, 17, 18, 19, 20, 21, 22, 23].map(|i| header[i]));
        let frame = Frame { kind, part: header[6], attempt, from, step, payload: payload.to_vec() };
        self.taken += end;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame { kind: Kind::Rows, part: 2, attempt: 1, from: 3, step: 77, payload: vec![5; 100] }
    }

    fn reader() -> Reader {
        let mut limits = Limits::none();
        limits.allow(Kind::Rows, 100);
        Reader::new(limits, 3, 1)
    }

    fn refused(bytes: &[u8]) -> String {
        let mut reader = reader();
        reader.push(bytes);
        reader.next_frame().unwrap_err()
    }

    #[test]
    fn frames_survive_being_cut_anywhere() {
        let bytes = [frame().encode(), frame().encode()].concat();
        for cut in 0..bytes.len() {
            let mut reader = reader();
            let mut found = Vec::new();
            for piece in [&bytes[..cut], &bytes[cut..]] {
                reader.push(piece);
                while let Some(frame) = reader.next_frame().unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, [frame(), frame()]);
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = frame().encode();
        for bit in 0..8 * good.len() {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut reader = reader();
            reader.push(&bytes);
            assert!(!matches!(reader.next_frame(), Ok(Some(_))), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_longer_than_the_model_allows_is_refused_before_it_comes() {
        let long = Frame { payload: vec![0; 101], ..frame() }.encode();
        assert!(refused(&long[..HEADER]).contains("announced 101 bytes of Rows; this model allows 100"));
        let other = Frame { kind: Kind::Ids, payload: vec![0], ..frame() }.encode();
        assert!(refused(&other).contains("announced 1 bytes of Ids"));
    }

    #[test]
    fn strangers_and_survivors_are_refused() {
        assert!(refused(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").contains("no frame"));
        assert!(refused(&Frame { attempt: 0, ..frame() }.encode()).contains("attempt 0 of the job, here it is 1"));
        assert!(refused(&Frame { from: 9, ..frame() }.encode()).contains("from rank 9"));
    }
}
