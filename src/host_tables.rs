//! Tables on the host: every row with its optimizer state in this computer's memory, or in one memory-mapped file, so that a model
//! may be larger than the device's memory and than this computer's. A step reads and writes its rows only; they are fetched
//! by a thread of their own while the step before is computed. Rows that change are held in memory for a while before they go to the file.
//!
//! The rows of all tables stand one after another, each as D weights and S values of state, FP32, in this computer's byte
//! order. The file has no name and vanishes with the process.

use crate::computer;
use crate::error::{Error, Result};
use crate::session::{RowLayout, RowStore, Rows};
use kept::Kept;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

mod file;
mod file_rows;
mod held;
mod kept;
mod largest;
mod place;

/// Bytes of memory that the largest magnitudes of tables of so many rows take.
pub(crate) fn bytes_of_largest(rows: &[u64]) -> u64 {
    rows.iter().map(|rows| rows.div_ceil(largest::BLOCK).saturating_mul(5)).fold(0, u64::saturating_add)
}

/// Bytes that rows which wait for the file may always take.
const HELD_AT_LEAST: u64 = 64 << 20;
/// Their share of the memory that can be had, and of the tables: with one row in so many of a page's held, a row that changes
/// costs the disk at most a few times its own bytes.
const HELD_SHARE: u64 = 8;

/// Bytes of memory that rows of such tables in a file may take while they wait to be written, where `available` bytes can be had.
pub(crate) fn bytes_held(layout: &RowLayout, available: Option<u64>) -> u64 {
    let all = layout.total_rows().saturating_mul(held::bytes_of_row(layout.width()));
    let share = (all / HELD_SHARE).max(HELD_AT_LEAST).min(all);
    share.min(available.map_or(HELD_AT_LEAST, |bytes| bytes / HELD_SHARE))
}

/// Work for the thread: these rows are written, then those are read.
struct Job {
    write: Vec<Rows>,
    read: Vec<u64>,
}

/// Tables in memory or in a file.
pub struct HostTables {
    layout: RowLayout,
    place: &'static str,
    kept: Arc<Mutex<Kept>>,
    /// Written, but not given to the thread yet.
    unwritten: Vec<Rows>,
    /// Numbers of the rows that the thread is reading or has read.
    announced: Option<Vec<u64>>,
    /// These rows, once it is known that it has.
    ready: Option<Rows>,
    jobs: Option<Sender<Job>>,
    done: Receiver<Result<Rows>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for HostTables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostTables").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl HostTables {
    /// Makes the file, all zero, in `dir`, which is made too if need be. The disk's space is taken at once. Rows that changed wait in
    /// memory before they are written: they take at most an eighth of what can be had now, and of the tables where that is more than
    /// 64 MiB.
    ///
    /// # Errors
    /// A disk without room, a folder that cannot be written, a thread that cannot be started.
    pub fn create(dir: &Path, layout: RowLayout) -> Result<HostTables> {
        let held = bytes_held(&layout, computer::available());
        HostTables::create_holding(dir, layout, held)
    }

    /// [`HostTables::create`] with the bytes of memory that rows may take while they wait to be written; with 0, none waits for
    /// longer than a step.
    ///
    /// # Errors
    /// As there.
    pub fn create_holding(dir: &Path, layout: RowLayout, bytes: u64) -> Result<HostTables> {
        HostTables::start(Kept::in_file(dir, &layout, bytes)?, layout)
    }

    /// Keeps them in memory, all zero. Rows then cost the disk nothing.
    ///
    /// # Errors
    /// More than can be counted or than the system gives, a thread that cannot be started.
    pub fn in_memory(layout: RowLayout) -> Result<HostTables> {
        HostTables::start(Kept::in_memory(&layout)?, layout)
    }

    fn start(kept: Kept, layout: RowLayout) -> Result<HostTables> {
        let place = kept.place();
        let kept = Arc::new(Mutex::new(kept));
        let (jobs, work) = channel::<Job>();
        let (finished, done) = channel();
        let shared = kept.clone();
        let run = move || {
            for job in work {
                let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
                job.write.iter().for_each(|rows| kept.write(rows));
                let rows = kept.settle().map(|()| kept.read(job.read));
                if finished.send(rows).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("host tables".into()).spawn(run);
        let thread = thread.map_err(|e| Error::Device(format!("cannot start the thread of the tables on the host: {e}")))?;
        Ok(HostTables {
            layout,
            place,
            kept,
            unwritten: Vec::new(),
            announced: None,
            ready: None,
            jobs: Some(jobs),
            done,
            thread: Some(thread),
        })
    }

    /// Waits until the thread has read what was announced.
    fn wait(&mut self) -> Result<()> {
        if self.announced.is_some() && self.ready.is_none() {
            let done = self.done.recv().map_err(|_| stopped())?;
            self.ready = Some(done.inspect_err(|_| self.announced = None)?);
        }
        Ok(())
    }

    /// Everything in its place.
    fn settled(&mut self) -> Result<MutexGuard<'_, Kept>> {
        self.wait()?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for rows in self.unwritten.drain(..) {
            kept.write(&rows);
            self.ready.iter_mut().for_each(|ready| patch(ready, &rows, &self.layout));
        }
        kept.settle()?;
        Ok(kept)
    }

    /// Everything in its place, and nothing announced.
    fn idle(&mut self) -> Result<MutexGuard<'_, Kept>> {
        self.wait()?;
        (self.announced, self.ready) = (None, None);
        self.settled()
    }
}

fn stopped() -> Error {
    Error::Device("the thread of the tables on the host stopped early".into())
}

/// Replaces those rows of `rows` that stand in `newer` too.
fn patch(rows: &mut Rows, newer: &Rows, layout: &RowLayout) {
    let mut at = 0;
    for (i, number) in newer.numbers.iter().enumerate() {
        at += rows.numbers[at..].iter().take_while(|n| *n < number).count();
        if rows.numbers.get(at) != Some(number) {
            continue;
        }
        for (to, from, width) in [(&mut rows.weights, &newer.weights, layout.dim), (&mut rows.state, &newer.state, layout.state)] {
            to[at * width..(at + 1) * width].copy_from_slice(&from[i * width..(i + 1) * width]);
        }
    }
}

impl RowStore for HostTables {
    fn layout(&self) -> &RowLayout {
        &self.layout
    }

    fn place(&self) -> &'static str {
        self.place
    }

    fn announce(&mut self, numbers: Vec<u64>) -> Result<()> {
        self.wait()?;
        let job = Job { write: std::mem::take(&mut self.unwritten), read: numbers.clone() };
        (self.announced, self.ready) = (Some(numbers), None);
        self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok()).then_some(()).ok_or_else(stopped)
    }

    fn read(&mut self, numbers: Vec<u64>) -> Result<Rows> {
        if self.announced.as_ref() != Some(&numbers) {
            return Ok(self.idle()?.read(numbers));
        }
        self.wait()?;
        self.announced = None;
        let mut rows = self.ready.take().ok_or_else(stopped)?;
        self.unwritten.iter().for_each(|newer| patch(&mut rows, newer, &self.layout));
        Ok(rows)
    }

    fn write(&mut self, rows: Rows) -> Result<()> {
        self.unwritten.push(rows);
        Ok(())
    }

    fn largest(&mut self) -> Result<Vec<u32>> {
        Ok(self.settled()?.largest())
    }

    fn fill(&mut self, table: usize, first: u64, count: u64, make: &(dyn Fn(u64, &mut [f32]) + Sync)) -> Result<()> {
        self.idle()?.fill(table, first, count, make)
    }

    fn read_values(&mut self, table: usize, state: bool, start: u64, values: &mut [f32]) -> Result<()> {
        self.settled()?.read_values(table, state, start, values)
    }

    fn write_values(&mut self, table: usize, state: bool, start: u64, values: &[f32]) -> Result<()> {
        self.idle()?.write_values(table, state, start, values)
    }
}

impl Drop for HostTables {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // a panic was already reported by `fetched`
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
