//! What runs a schedule: [`gpu`] through wgpu, or [`cpu`] with the twins. Load once, then only
//! write, run and read.

use crate::error::Result;
use crate::plan::{StepUniform, View};
use rayon::prelude::*;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

pub mod cpu;
pub mod gpu;

/// A future on one thread; browsers have no other.
pub type Local<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Memory that somebody else made and keeps as it is: a mapped file, the bytes of a download.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Words inside such memory, for a buffer that no command writes.
#[derive(Clone)]
pub struct Shared {
    memory: Bytes,
    range: Range<usize>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({:?})", self.range)
    }
}

impl Shared {
    /// `words` words from byte `start` on; nothing when they do not lie inside the memory on a multiple of four.
    pub fn new(memory: Bytes, start: usize, words: usize) -> Option<Shared> {
        let end = words.checked_mul(4)?.checked_add(start)?;
        let bytes = (*memory).as_ref().get(start..end)?;
        bytemuck::try_cast_slice::<u8, u32>(bytes).ok()?;
        Some(Shared { memory, range: start..end })
    }

    /// The words.
    pub fn words(&self) -> &[u32] {
        bytemuck::cast_slice(&(*self.memory).as_ref()[self.range.clone()])
    }
}

/// Words made at a time for a device.
const FILLED: usize = 1 << 20;

/// Calls `make` for pieces of `words`, the first of which has the place `start`, in parallel.
fn fill_words(words: &mut [u32], start: usize, make: &(dyn Fn(usize, &mut [u32]) + Sync)) {
    const PIECE: usize = 1 << 14;
    words.par_chunks_mut(PIECE).enumerate().for_each(|(i, piece)| make(start + i * PIECE, piece));
}

/// A loaded schedule.
pub trait Engine: std::fmt::Debug {
    /// Copies `words` to the buffer from the view's start on; takes effect before the next `run`.
    fn write(&mut self, view: View, words: &[u32]) -> Result<()>;

    /// Sets the words of a view to what `make` gives for (place of the first one in the view, words); `make` is called from
    /// several threads.
    fn fill(&mut self, view: View, make: &(dyn Fn(usize, &mut [u32]) + Sync)) -> Result<()> {
        let mut words = vec![0; view.len.min(FILLED)];
        for start in (0..view.len).step_by(FILLED) {
            let now = &mut words[..(view.len - start).min(FILLED)];
            fill_words(now, start, make);
            self.write(View { offset: view.offset + start, len: now.len(), ..view }, now)?;
        }
        Ok(())
    }

    /// Runs phases one after another, in one submission, with one `step` uniform. Does not wait.
    fn run(&mut self, phases: &[usize], step: &StepUniform) -> Result<()>;

    /// Runs one command alone, to look between two commands.
    fn run_command(&mut self, phase: usize, command: usize, step: &StepUniform) -> Result<()>;

    /// Reads a view once everything submitted has finished.
    fn read(&mut self, view: View) -> Local<'_, Result<Vec<u32>>>;
}
