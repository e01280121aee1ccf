//! A worker's step: gradients up to a point, their codes, and after the exchange the update.

use super::{Session, TRAIN};
use crate::data::Batch;
use crate::dist::exchange::{Merged, Scaled};
use crate::dist::ids::RowLists;
use crate::dist::layout::Part;
use crate::dist::rows::Coded;
use crate::error::{Error, Result};
use crate::plan::{StepUniform, View};
use crate::step::{Compressed, TensorBuffers, phase, touched_by_table};
use crate::tables::Tables;

/// What of the backward pass comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Gradients of the rows.
    Rows,
    /// Gradients of the bottom MLP.
    Bottom,
}

fn place(what: Scaled) -> usize {
    match what {
        Scaled::Part(part) => part as usize,
        Scaled::Rows => 2,
    }
}

impl Session {
    fn exchange(&self) -> Result<&Compressed> {
        self.recorded.exchange.as_ref().ok_or_else(|| Error::Plan("the session was loaded without workers (workers.count is 0)".into()))
    }

    /// The rows that a batch touches, as workers tell each other.
    pub fn touched_rows(&self, batch: &Batch) -> RowLists {
        RowLists::of(batch, &self.tables)
    }

    /// Begins training step `step` with this worker's part of a global batch of `global` samples: forward pass and
    /// backward pass through the top MLP.
    ///
    /// # Errors
    /// A session without workers; a batch beyond the capacity; more than [`Session::RING`] steps without
    /// [`Session::settled`] or [`Session::history`].
    pub fn begin_worker_step(&mut self, step: u64, batch: &Batch, global: u64) -> Result<StepUniform> {
        self.exchange()?;
        self.results.check_room()?;
        self.upload(batch, TRAIN)?;
        let phases = self.gradient_phases(step)?;
        let uniform = StepUniform { inv_batch: 1.0 / global.max(1) as f32, ..self.uniform(step, batch) };
        self.engine.run(&phases, &uniform)?;
        self.results.push(step, batch.samples);
        Ok(uniform)
    }

    /// Goes on with the backward pass of the step that was begun.
    pub fn worker_stage(&mut self, step: u64, stage: Stage, uniform: &StepUniform) -> Result<()> {
        let name = match (stage, self.in_full_precision(step)) {
            (Stage::Rows, false) => phase::ROWS,
            (Stage::Rows, true) => phase::FULL_ROWS,
            (Stage::Bottom, false) => phase::BOTTOM,
            (Stage::Bottom, true) => phase::FULL_BOTTOM,
        };
        let phase = self.phase(name)?;
        self.engine.run(&[phase], uniform)
    }

    fn quantized(&self, what: Scaled) -> bool {
        let workers = &self.config.workers;
        if what == Scaled::Rows { workers.row_bits.quantized() } else { workers.mlp_bits.quantized() }
    }

    /// Computes the scales of gradients, after error feedback. Nothing is done in FP32.
    pub fn gradient_scales(&mut self, what: Scaled, uniform: &StepUniform) -> Result<()> {
        if !self.quantized(what) {
            return Ok(());
        }
        let phase = self.phase(phase::SCALES[place(what)])?;
        self.engine.run(&[phase], uniform)
    }

    /// Quantizes gradients with the scales on the device. Nothing is done in FP32.
    pub fn gradient_codes(&mut self, what: Scaled, uniform: &StepUniform) -> Result<()> {
        if !self.quantized(what) {
            return Ok(());
        }
        let phase = self.phase(phase::CODES[place(what)])?;
        self.engine.run(&[phase], uniform)
    }

    fn tensors_of(&self, part: Part) -> Result<Vec<TensorBuffers>> {
        Ok(self.exchange()?.parts[part as usize].clone())
    }

    fn scale_views(&self, what: Scaled) -> Result<Vec<View>> {
        Ok(match what {
            Scaled::Rows => self.exchange()?.row_scales.into_iter().collect(),
            Scaled::Part(part) => self.tensors_of(part)?.iter().filter_map(|t| t.scales).collect(),
        })
    }

    /// The scales on the device: a table's, or a group's of a part of the MLPs. None in FP32.
    pub async fn read_gradient_scales(&mut self, what: Scaled) -> Result<Vec<f32>> {
        let scales = self.read_all(&self.scale_views(what)?).await?;
        Ok(scales.concat().into_iter().map(f32::from_bits).collect())
    }

    /// Reads views of one buffer, with a single wait.
    async fn read_all(&mut self, views: &[View]) -> Result<Vec<Vec<u32>>> {
        let (Some(start), Some(end)) = (views.iter().map(|v| v.offset).min(), views.iter().map(|v| v.offset + v.len).max()) else {
            return Ok(Vec::new());
        };
        let words = self.engine.read(View { offset: start, len: end - start, ..views[0] }).await?;
        Ok(views.iter().map(|v| words[v.offset - start..v.offset - start + v.len].to_vec()).collect())
    }

    /// Replaces them.
    pub fn write_gradient_scales(&mut self, what: Scaled, scales: &[f32]) -> Result<()> {
        let mut rest = scales;
        for view in self.scale_views(what)? {
            let (now, later) = rest.split_at(view.len.min(rest.len()));
            self.engine.write(view, bytemuck::cast_slice(now))?;
            rest = later;
        }
        Ok(())
    }

    /// The gradients of a part of the MLPs as they travel.
    pub async fn coded_part(&mut self, part: Part) -> Result<Coded> {
        let mut coded = Coded { scales: self.read_gradient_scales(Scaled::Part(part)).await?, bytes: Vec::new() };
        let bits = self.config.workers.mlp_bits.width() as usize;
        let tensors = self.tensors_of(part)?;
        let views: Vec<View> = tensors.iter().map(|t| t.codes.unwrap_or(t.values)).collect();
        for (tensor, words) in tensors.iter().zip(self.read_all(&views).await?) {
            let bytes: &[u8] = bytemuck::cast_slice(&words);
            coded.bytes.extend_from_slice(&bytes[..(tensor.values.len * bits).div_ceil(8)]);
        }
        Ok(coded)
    }

    /// The gradients of the `touched` rows of the step's batch as they travel.
    pub async fn coded_rows(&mut self, touched: usize) -> Result<Coded> {
        let scales = self.read_gradient_scales(Scaled::Rows).await?;
        if touched == 0 {
            return Ok(Coded { scales, bytes: Vec::new() });
        }
        let exchange = self.exchange()?;
        let bytes = (touched * self.shape.dim * self.config.workers.row_bits.width() as usize).div_ceil(8);
        let view = exchange.row_codes.unwrap_or(exchange.row_gradients);
        let words = self.engine.read(View { len: bytes.div_ceil(4), ..view }).await?;
        Ok(Coded { scales, bytes: bytemuck::cast_slice::<u32, u8>(&words)[..bytes].to_vec() })
    }

    /// Updates the model with the sums of all workers' gradients.
    ///
    /// # Errors
    /// Sums of another model.
    pub fn apply(&mut self, merged: &Merged, uniform: &StepUniform) -> Result<()> {
        let exchange = self.exchange()?.clone();
        let (rows, offsets) = placed(&merged.rows, &self.tables);
        let fits = merged.mlps.len() == exchange.gradients.len
            && merged.row_gradients.len() == rows.len() * self.shape.dim
            && rows.len() <= exchange.union_rows.len;
        if !fits {
            return Err(Error::Plan(format!("sums of {} rows and {} parameters do not fit the model", rows.len(), merged.mlps.len())));
        }
        self.engine.write(exchange.gradients, bytemuck::cast_slice(&merged.mlps))?;
        self.engine.write(exchange.union_offsets, &offsets)?;
        if !rows.is_empty() {
            self.engine.write(exchange.union_rows, &rows)?;
            self.engine.write(exchange.union_gradients, bytemuck::cast_slice(&merged.row_gradients))?;
        }
        let phase = self.phase(phase::UPDATE)?;
        self.engine.run(&[phase], uniform)
    }

    /// What was not sent yet of this worker's MLP gradients, in the flat buffer's layout; `None` where nothing is kept.
    pub async fn gradient_errors(&mut self) -> Result<Option<Vec<f32>>> {
        let Some(view) = self.exchange()?.errors else { return Ok(None) };
        Ok(Some(super::floats(&self.engine.read(view).await?)))
    }

    /// Replaces it.
    pub fn set_gradient_errors(&mut self, errors: &[f32]) -> Result<()> {
        match self.exchange()?.errors {
            Some(view) if view.len == errors.len() => self.engine.write(view, bytemuck::cast_slice(errors)),
            _ => Err(Error::Plan(format!("{} values of error feedback do not fit the session", errors.len()))),
        }
    }

    /// The most rows of each table that one worker's training step touches.
    pub fn most_touched(&self, max_bag: &[usize]) -> Vec<u64> {
        touched_by_table(self.config.train.batch, &self.shape.rows, max_bag)
    }
}

/// Rows by their shards: the row inside its shard, and where each shard's rows begin, `[S + 1]`.
fn placed(lists: &RowLists, tables: &Tables) -> (Vec<u32>, Vec<u32>) {
    let mut rows = Vec::with_capacity(lists.len());
    let mut offsets = vec![0u32; tables.shards() + 1];
    for table in 0..lists.tables() {
        for &row in lists.table(table) {
            let (shard, row) = tables.locate(table, row as u64);
            rows.push(row);
            offsets[shard + 1] += 1;
        }
    }
    (1..offsets.len()).for_each(|s| offsets[s] += offsets[s - 1]);
    (rows, offsets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Block;

    #[test]
    fn rows_travel_by_their_number_in_the_table() {
        let tables = Tables::new(&[3, 5, 1, 4], 1, 8).unwrap(); // shards of two rows
        let ids = vec![2, 4, 0, 3, 0, 0, 0, 3];
        let block = Block { samples: 2, dense: vec![0.0; 2], labels: vec![1.0, 0.0], offsets: (0..=8).collect(), ids };
        let batch = Batch::prepare(&block, &tables).unwrap();
        let lists = RowLists::of(&batch, &tables);
        let found: Vec<&[u32]> = (0..4).map(|k| lists.table(k)).collect();
        assert_eq!(found, [&[0u32, 2][..], &[0, 4], &[0], &[3]]);
        assert_eq!(placed(&lists, &tables), (batch.rows, batch.shard_offsets));
    }
}
