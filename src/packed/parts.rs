//! A packed model that comes in pieces: everything but the tables' codes is kept, the codes are handed on as they come.

use super::{Memory, Outline, Packed};
use crate::tensor_file;
use std::ops::Range;
use xxhash_rust::xxh3::Xxh3;

/// What is there of a packed model.
pub struct Parts {
    size: usize,
    received: usize,
    /// Everything before the codes of the tables, as far as it is there.
    head: Vec<u8>,
    outline: Option<Outline>,
    hash: Box<Xxh3>,
    /// Everything behind the codes, as far as it is there.
    tail: Vec<u8>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Parts({} of {} bytes)", self.received, self.size)
    }
}

impl Parts {
    /// Nothing of a file of `size` bytes.
    pub fn new(size: usize) -> Parts {
        Parts { size, received: 0, head: Vec::new(), outline: None, hash: Box::new(Xxh3::new()), tail: Vec::new() }
    }

    /// Bytes that have come.
    pub fn received(&self) -> usize {
        self.received
    }

    /// What the header says, once it is there.
    pub fn outline(&self) -> Option<&Outline> {
        self.outline.as_ref()
    }

    /// Takes the next bytes. What they hold of the tables' codes is given back, as places in `piece`: it is not kept.
    ///
    /// # Errors
    /// A header that cannot be used, as soon as it is there, and more bytes than the file should have: one sentence that goes on
    /// from the file's name.
    pub fn push(&mut self, piece: &[u8]) -> Result<Range<usize>, String> {
        if piece.len() > self.size - self.received {
            return Err(format!("is longer than it should be: {} bytes were to come", self.size));
        }
        let first = self.received;
        let mut used = 0;
        if self.outline.is_none() {
            used = self.header(piece)?;
        }
        let Some(outline) = &self.outline else {
            self.received += piece.len();
            return Ok(0..0);
        };
        let codes = outline.codes();
        let inside = |place: usize| place.clamp(first + used, first + piece.len()) - first;
        let (start, end) = (inside(codes.start), inside(codes.end));
        self.head.extend_from_slice(&piece[used..start]);
        self.hash.update(&piece[start..end]);
        self.tail.extend_from_slice(&piece[end..]);
        self.received += piece.len();
        Ok(start..end)
    }

    /// Takes what belongs to the header, and gives the number of bytes that it took.
    fn header(&mut self, piece: &[u8]) -> Result<usize, String> {
        let mut used = 8usize.saturating_sub(self.head.len()).min(piece.len());
        self.head.extend_from_slice(&piece[..used]);
        if self.head.len() < 8 && self.received + piece.len() < self.size {
            return Ok(used);
        }
        let len = tensor_file::header_len(&self.head, self.size as u64)? as usize + 8;
        let rest = (len - self.head.len().min(len)).min(piece.len() - used);
        self.head.extend_from_slice(&piece[used..used + rest]);
        used += rest;
        if self.head.len() == len {
            self.outline = Some(Outline::decode(&self.head, self.size as u64)?);
        }
        Ok(used)
    }

    /// The model without the tables' codes, with both checksums compared.
    ///
    /// # Errors
    /// Bytes that are missing or were altered: one sentence that goes on from the file's name.
    pub fn finish(self) -> Result<Packed, String> {
        let Some(outline) = self.outline.filter(|_| self.received == self.size) else {
            return Err(format!("is truncated: {} of {} bytes came", self.received, self.size));
        };
        let (found, should) = (self.hash.digest(), outline.codes_checksum);
        if found != should {
            return Err(altered_codes(found, should));
        }
        let packed = Packed { memory: Memory::Around { head: self.head.into(), tail: self.tail.into() }, outline };
        packed.check_values()?;
        Ok(packed)
    }
}

/// Codes with another checksum than they should have.
pub(super) fn altered_codes(found: u64, should: u64) -> String {
    format!("has tables that were altered after they were written: their checksum is {found:016x}, it should be {should:016x}")
}
