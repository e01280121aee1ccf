//! Long runs of words, zero at first: the CPU engine's buffers and tables on the host. Large ones ask for large pages, which
//! the system zeroes quicker and finds quicker when rows are read here and there. It is advice only.

use std::ops::{Deref, DerefMut};

/// From this many words on, memory is asked for by itself.
#[cfg(feature = "cli")]
const LARGE: usize = 1 << 20;

/// Words in memory.
#[derive(Debug)]
pub(crate) struct Words(Memory);

#[derive(Debug)]
enum Memory {
    Small(Vec<u32>),
    #[cfg(feature = "cli")]
    Large(memmap2::MmapMut),
}

impl Words {
    /// That many words, all zero. Memory is taken when they are touched.
    pub(crate) fn zeroed(len: usize) -> Words {
        #[cfg(feature = "cli")]
        if let Some(bytes) = len.checked_mul(4).filter(|_| len >= LARGE)
            && let Ok(map) = memmap2::MmapMut::map_anon(bytes)
        {
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            return Words(Memory::Large(map));
        }
        Words(Memory::Small(vec![0; len]))
    }
}

impl Default for Words {
    fn default() -> Words {
        Words(Memory::Small(Vec::new()))
    }
}

impl Deref for Words {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        match &self.0 {
            Memory::Small(words) => words,
            #[cfg(feature = "cli")]
            Memory::Large(map) => bytemuck::cast_slice(map),
        }
    }
}

impl DerefMut for Words {
    fn deref_mut(&mut self) -> &mut [u32] {
        match &mut self.0 {
            Memory::Small(words) => words,
            #[cfg(feature = "cli")]
            Memory::Large(map) => bytemuck::cast_slice_mut(map),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_zero_until_they_are_written_whatever_their_number() {
        for len in [0, 5, (1 << 20) - 1, 1 << 20, (1 << 20) + 3] {
            let mut words = Words::zeroed(len);
            assert!(words.len() == len && words.iter().all(|&w| w == 0));
            words.iter_mut().zip(7..).for_each(|(w, i)| *w = i);
            assert!(words.iter().zip(7..).all(|(&w, i)| w == i));
        }
        assert!(Words::default().is_empty());
    }
}
