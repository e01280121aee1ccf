//! What runs a schedule: [`gpu`] through wgpu, or [`cpu`] with the twins. Load once, then only
//! write, run and read.

use crate::error::Result;
use crate::plan::{StepUniform, View};
use std::future::Future;
use std::pin::Pin;

pub mod cpu;
pub mod gpu;

/// A future on one thread; browsers have no other.
pub type Local<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A loaded schedule.
pub trait Engine: std::fmt::Debug {
    /// Copies `words` to the buffer from the view's start on; takes effect before the next `run`.
    fn write(&mut self, view: View, words: &[u32]) -> Result<()>;

    /// Runs phases one after another, in one submission, with one `step` uniform. Does not wait.
    fn run(&mut self, phases: &[usize], step: &StepUniform) -> Result<()>;

    /// Runs one command alone, to look between two commands.
    fn run_command(&mut self, phase: usize, command: usize, step: &StepUniform) -> Result<()>;

    /// Reads a view once everything submitted has finished.
    fn read(&mut self, view: View) -> Local<'_, Result<Vec<u32>>>;
}
