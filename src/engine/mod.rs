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

/// How the time of a command is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// The clock before and after it.
    Clock,
    /// The device's timestamps between the commands of one pass.
    InPass,
    /// The device's timestamps around a pass for each command.
    Passes,
    /// The clock around a submission for each command, which includes what a submission costs.
    Submissions,
}

impl std::fmt::Display for Timer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Timer::Clock => "clock around each command",
            Timer::InPass => "timestamps between the commands of one pass",
            Timer::Passes => "timestamps around a pass for each command",
            Timer::Submissions => "clock around a submission for each command; its cost is included",
        })
    }
}

/// Gives seconds since any moment; called from threads of the engine's.
pub type Clock<'a> = &'a (dyn Fn() -> f64 + Sync);

/// One command of a run that was timed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CommandTime {
    /// Its phase in the plan.
    pub phase: usize,
    /// Its place in the phase.
    pub command: usize,
    /// When it began, in seconds after [`TimedRun::start`].
    pub start: f64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// A run whose commands were timed.
#[derive(Debug, Clone, PartialEq)]
pub struct TimedRun {
    /// How.
    pub timer: Timer,
    /// When it began, by the clock that was given; uploads were done by then.
    pub start: f64,
    /// Seconds until the last command had finished, by the same clock.
    pub seconds: f64,
    /// In the order of the run.
    pub commands: Vec<CommandTime>,
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

    /// Runs phases as [`Engine::run`] does, measures every command and waits for the last. The
    /// first call may find out that the device's timestamps cannot be trusted; later ones then use another [`Timer`].
    ///
    /// # Errors
    /// An engine that was not loaded for it; a lost device.
    fn run_timed(&mut self, phases: &[usize], step: &StepUniform, clock: Clock<'_>) -> Result<TimedRun>;

    /// Begins to read views, of one element at least, as they are now: what runs later may change them at once. Does not wait.
    fn begin_read(&mut self, views: &[View]) -> Result<Box<dyn Reading>>;

    /// Reads a view once everything submitted has finished.
    fn read(&mut self, view: View) -> Local<'_, Result<Vec<u32>>> {
        Box::pin(async move {
            let mut reading = self.begin_read(&[view])?;
            reading.wait().await?;
            reading.words()
        })
    }
}

/// A read that was begun. It may be dropped at any time, and may outlive its engine; then it is an error.
pub trait Reading: std::fmt::Debug {
    /// Whether the words are there (or are known never to come, which [`Reading::words`] then says). Does not wait. In a
    /// browser nothing arrives before the event loop has run.
    ///
    /// # Errors
    /// A lost device, a command that it refused.
    fn ready(&mut self) -> Result<bool>;

    /// Waits until the words are there, for what was submitted before them alone. May be dropped and called again.
    ///
    /// # Errors
    /// A lost device, a command that it refused.
    fn wait(&mut self) -> Local<'_, Result<()>>;

    /// The words of all views, one view after another; they are given once.
    ///
    /// # Errors
    /// Words that are not there; a lost device.
    fn words(&mut self) -> Result<Vec<u32>>;
}
