//! The CPU engine's memory: zeros from the system, on large pages where that pays.

use crate::error::{Error, Result};
use std::ops::{Deref, DerefMut};

/// So many bytes share a large page.
#[cfg(all(feature = "cli", target_os = "linux"))]
const LARGE_PAGE: usize = 2 << 20;
/// Bytes of buffers that lie on large pages: a step reads and writes all of these, so that pages of 4 KiB are more than a processor remembers the places
/// of. Smaller ones would leave most of a large page empty. Larger ones are tables, of which a step touches some rows; to clear them is
/// what a program's start takes longest for, and it takes longer yet where a virtual machine has to get large pages from its host.
#[cfg(all(feature = "cli", target_os = "linux"))]
const ON_LARGE_PAGES: std::ops::RangeInclusive<usize> = 1 << 20..=256 << 20;

/// Words of a buffer.
#[derive(Debug)]
pub(super) enum Memory {
    /// On pages of the usual size.
    Usual(Vec<u32>),
    /// So many words on large pages, if the system has some to give.
    #[cfg(all(feature = "cli", target_os = "linux"))]
    Large(memmap2::MmapMut, usize),
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::Usual(Vec::new())
    }
}

impl Memory {
    /// `len` zeros; without memory for them the program ends, as with a vector.
    pub(super) fn zeros(len: usize) -> Memory {
        #[cfg(all(feature = "cli", target_os = "linux"))]
        if let Some(large) = large(len) {
            return large;
        }
        Memory::Usual(vec![0; len]) // from the system, which gives zeros when they are first touched
    }

    /// `len` zeros.
    ///
    /// # Errors
    /// When there is no memory for them: of a size that no address reaches, there is not.
    pub(super) fn try_zeros(len: usize) -> Result<Memory> {
        let room = Vec::<u32>::new().try_reserve_exact(len);
        room.map_err(|e| {
            Error::Device(format!("there is too little memory for a buffer of {} bytes on the CPU engine ({e})", 4 * len as u64))
        })?;
        Ok(Memory::zeros(len))
    }
}

/// Zeros on large pages, where that pays and the system does it.
#[cfg(all(feature = "cli", target_os = "linux"))]
fn large(len: usize) -> Option<Memory> {
    let bytes = len.checked_mul(4).filter(|bytes| ON_LARGE_PAGES.contains(bytes))?;
    let map = memmap2::MmapMut::map_anon(bytes.next_multiple_of(LARGE_PAGE)).ok()?;
    map.advise(memmap2::Advice::HugePage).ok()?;
    Some(Memory::Large(map, len))
}

impl Deref for Memory {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        match self {
            Memory::Usual(words) => words,
            #[cfg(all(feature = "cli", target_os = "linux"))]
            Memory::Large(map, len) => &bytemuck::cast_slice(map)[..*len],
        }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u32] {
        match self {
            Memory::Usual(words) => words,
            #[cfg(all(feature = "cli", target_os = "linux"))]
            Memory::Large(map, len) => &mut bytemuck::cast_slice_mut(map)[..*len],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_any_size_are_zeros_that_keep_what_is_written() {
        for len in [0, 1, (1 << 18) - 1, 1 << 18, (1 << 19) + 77, (64 << 20) + 1] {
            let mut memory = Memory::zeros(len);
            assert_eq!(memory.len(), len);
            assert!(memory.iter().step_by(509).all(|&word| word == 0), "{len} words");
            for at in [0, len / 2, len.saturating_sub(1)] {
                if let Some(word) = memory.get_mut(at) {
                    *word = at as u32 + 7;
                }
                assert_eq!(memory.get(at).copied(), (at < len).then_some(at as u32 + 7));
            }
        }
        assert!(Memory::default().is_empty());
        let error = Memory::try_zeros(usize::MAX / 4).unwrap_err().to_string();
        assert!(error.contains("too little memory for a buffer of"), "{error}");
    }

    #[cfg(all(feature = "cli", target_os = "linux"))]
    #[test]
    fn only_buffers_that_a_step_goes_through_lie_on_large_pages() {
        let is_large = |bytes: usize| matches!(Memory::zeros(bytes / 4), Memory::Large(..));
        assert!(!is_large(4096) && !is_large((1 << 20) - 4) && !is_large((256 << 20) + 4));
        // A system without large pages says so, and then all are usual.
        let possible = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
        assert_eq!([is_large(1 << 20), is_large(5 << 20), is_large(256 << 20)], [possible; 3]);
    }
}
