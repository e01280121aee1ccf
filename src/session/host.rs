//! Tables on the host: a store keeps their rows, and a step's rows go to the device and come back.

use super::Session;
use crate::config::{Config, Shape, TablePlace};
use crate::data::Batch;
use crate::error::Result;
use crate::ops::row_update::state_per_row;
use crate::plan::View;
use crate::plan::schedule::Limits;
use crate::tables::Tables;

/// What a store keeps. The rows of all tables form one sequence, table 0 first; a row's number in it is its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowLayout {
    /// Rows of each table.
    pub rows: Vec<u64>,
    /// Weights of a row, D.
    pub dim: usize,
    /// Values of optimizer state of a row, S.
    pub state: usize,
}

impl RowLayout {
    /// What a model of this shape needs with these settings.
    pub fn of(shape: &Shape, config: &Config) -> RowLayout {
        RowLayout { rows: shape.rows.clone(), dim: shape.dim, state: state_per_row(config.optim.embedding, shape.dim) }
    }

    /// Rows of all tables.
    pub fn total_rows(&self) -> u64 {
        self.rows.iter().fold(0, |sum, &rows| sum.saturating_add(rows))
    }

    /// Values of a row, weights and state.
    pub fn width(&self) -> usize {
        self.dim.saturating_add(self.state)
    }
}

/// Some rows with their values, as bits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// Numbers of the rows, ascending, `[n]`.
    pub numbers: Vec<u64>,
    /// `[n, D]`
    pub weights: Vec<u32>,
    /// `[n, S]`
    pub state: Vec<u32>,
}

/// Where tables on the host are kept. Rows read are as if everything written before were in its place; announcing
/// rows makes reading them quicker and changes nothing else.
pub trait RowStore: std::fmt::Debug + Send {
    /// What it keeps.
    fn layout(&self) -> &RowLayout;

    /// Where, in words: `memory`, `a file`.
    fn place(&self) -> &'static str;

    /// These rows will be read next, after what is written until then.
    fn announce(&mut self, numbers: Vec<u64>) -> Result<()>;

    /// Reads rows, whose numbers ascend.
    fn read(&mut self, numbers: Vec<u64>) -> Result<Rows>;

    /// Replaces rows. They may be written later, while other work is done.
    fn write(&mut self, rows: Rows) -> Result<()>;

    /// The largest magnitude of each table's weights, as bits, `[K]`.
    fn largest(&mut self) -> Result<Vec<u32>>;

    /// Sets rows `first..first + count` of a table to what `make` gives for (first value's place in the table, values),
    /// and their state to 0. `make` gets whole rows and is called from several threads.
    fn fill(&mut self, table: usize, first: u64, count: u64, make: &(dyn Fn(u64, &mut [f32]) + Sync)) -> Result<()>;

    /// Values of a table's weights or state from `start` on.
    fn read_values(&mut self, table: usize, state: bool, start: u64, values: &mut [f32]) -> Result<()>;

    /// Replaces them.
    fn write_values(&mut self, table: usize, state: bool, start: u64, values: &[f32]) -> Result<()>;
}

/// Tables on the host.
#[derive(Debug)]
pub(super) struct Hosted {
    store: Box<dyn RowStore>,
    /// Rows on the device.
    uploaded: Vec<u64>,
    /// A step changes them there.
    changed: bool,
    /// Rows to announce as soon as those of the next upload are read.
    next: Option<Vec<u64>>,
}

impl Session {
    /// The tables' cut for a device; no binding holds tables on the host.
    pub(crate) fn cut(shape: &Shape, config: &Config, limits: &Limits, max_binding: u64) -> Result<Tables> {
        let of_device = max_binding.min(limits.max_binding).min(limits.max_buffer);
        Tables::new(&shape.rows, shape.dim, if config.model.tables == TablePlace::Host { u64::MAX } else { of_device })
    }

    /// Takes the tables of `store`. Uploads what never changes: a step's rows are numbered through.
    pub(super) fn host(&mut self, store: Box<dyn RowStore>) -> Result<()> {
        let places: Vec<u32> = (0..self.recorded.batch.rows.len as u32).collect();
        self.engine.write(self.recorded.batch.rows, &places)?;
        self.hosted = Some(Hosted { store, uploaded: Vec::new(), changed: false, next: None });
        Ok(())
    }

    /// True when the tables live on the host.
    pub fn has_host_tables(&self) -> bool {
        self.hosted.is_some()
    }

    /// Where tables on the host are kept, in words.
    pub fn host_tables(&self) -> Option<&'static str> {
        self.hosted.as_ref().map(|hosted| hosted.store.place())
    }

    /// The numbers of the rows that a batch touches.
    fn numbers(&self, batch: &Batch) -> Vec<u64> {
        let shards = batch.shard_offsets.windows(2).enumerate();
        let numbers = shards.flat_map(|(s, ends)| {
            let first = self.tables.first_row_of_shard(s);
            batch.rows[ends[0] as usize..ends[1] as usize].iter().map(move |&row| first + row as u64)
        });
        numbers.collect()
    }

    /// Says which batch comes after the next one, so that its rows are read while the next one is computed. Does nothing
    /// where tables live on the device, or for a batch of another model.
    pub fn announce(&mut self, batch: &Batch) {
        if self.hosted.is_some() && batch.cut == self.tables.fingerprint() {
            let numbers = self.numbers(batch);
            self.hosted.iter_mut().for_each(|h| h.next = Some(numbers.clone()));
        }
    }

    /// Takes back the rows that a step changed.
    fn settle(&mut self) -> Result<()> {
        let Some(hosted) = self.hosted.as_mut().filter(|h| h.changed) else { return Ok(()) };
        let (n, layout) = (hosted.uploaded.len(), hosted.store.layout());
        let part = |view: &View, width: usize| View { len: n * width, ..*view };
        let state = self.recorded.shard_states.first().map(|view| part(view, layout.state));
        let views: Vec<View> = std::iter::once(part(&self.recorded.shards[0], layout.dim)).chain(state).collect();
        let mut reading = self.engine.begin_read(&views)?;
        pollster::block_on(reading.wait())?;
        let mut weights = reading.words()?;
        let state = weights.split_off(views[0].len);
        hosted.changed = false;
        hosted.store.write(Rows { numbers: std::mem::take(&mut hosted.uploaded), weights, state })
    }

    /// Uploads the rows that a batch touches; false where tables live on the device.
    pub(super) fn upload_rows(&mut self, batch: &Batch) -> Result<bool> {
        if self.hosted.is_none() {
            return Ok(false);
        }
        self.settle()?;
        let numbers = self.numbers(batch);
        let Some(hosted) = &mut self.hosted else { return Ok(false) };
        let rows = hosted.store.read(numbers)?;
        if let Some(next) = hosted.next.take() {
            hosted.store.announce(next)?;
        }
        if !rows.weights.is_empty() {
            self.engine.write(self.recorded.shards[0], &rows.weights)?;
        }
        // an evaluation may touch more rows than there is room for the state of
        if let Some(&view) = self.recorded.shard_states.first().filter(|v| !rows.state.is_empty() && rows.state.len() <= v.len) {
            self.engine.write(view, &rows.state)?;
        }
        hosted.uploaded = rows.numbers;
        Ok(true)
    }

    /// The step that was begun changes the rows that were uploaded.
    pub(super) fn rows_change(&mut self) {
        self.hosted.iter_mut().for_each(|h| h.changed = !h.uploaded.is_empty());
    }

    /// Gives the device the tables' largest magnitudes, where the host knows them.
    pub(super) fn upload_largest(&mut self) -> Result<()> {
        self.settle()?;
        if let (Some(hosted), Some(view)) = (&mut self.hosted, self.recorded.largest) {
            self.engine.write(view, &hosted.store.largest()?)?;
        }
        Ok(())
    }

    pub(super) async fn read_hosted(&mut self, table: usize, state: bool, start: u64, len: usize) -> Result<Vec<f32>> {
        self.settle()?;
        let mut values = vec![0.0; len];
        if let Some(hosted) = &mut self.hosted {
            hosted.store.read_values(table, state, start, &mut values)?;
        }
        Ok(values)
    }

    pub(super) fn write_hosted(&mut self, table: usize, state: bool, start: u64, values: &[f32]) -> Result<()> {
        self.settle()?;
        self.hosted.as_mut().map_or(Ok(()), |h| h.store.write_values(table, state, start, values))
    }

    /// Sets rows of a table on the host; false where tables live on the device.
    pub(super) fn fill_hosted(&mut self, table: usize, first: u64, count: u64, make: &(dyn Fn(u64, &mut [f32]) + Sync)) -> Result<bool> {
        self.settle()?;
        let Some(hosted) = &mut self.hosted else { return Ok(false) };
        hosted.store.fill(table, first, count, make).map(|()| true)
    }
}
