//! A model loaded on an engine: the plans recorded, the buffers made, ready to step.

use crate::config::{Config, Shape};
use crate::data::Batch;
use crate::engine::gpu::GpuAdapter;
use crate::engine::{Clock, Engine, TimedRun, cpu};
use crate::error::{Error, Result};
use crate::plan::{StepUniform, View};
use crate::step::{Capacity, Recorded, phase};
use crate::tables::Tables;
use std::collections::BTreeMap;

pub(crate) mod devices;
mod diagnose;
mod host;
mod initial;
mod loading;
mod results;
mod scales;
mod tensors;
mod worker;

pub use devices::{Adapter, adapters};
pub use host::{RowLayout, RowStore, Rows};
pub use loading::Loading;
pub(crate) use loading::SOFTWARE_MAX_BATCH;
pub use results::StepResult;
pub use tensors::Tensor;
pub use worker::Stage;

/// What was chosen to run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// `cpu` or `gpu`.
    pub engine: &'static str,
    /// The adapter's name, or the number of threads.
    pub name: String,
    /// Why this one, when that deserves a word (`no GPU found, so …`).
    pub reason: String,
}

impl DeviceInfo {
    /// An adapter, or the CPU engine.
    pub(crate) fn of(adapter: Option<&GpuAdapter>, reason: String) -> DeviceInfo {
        match adapter {
            Some(a) => DeviceInfo { engine: "gpu", name: a.title(), reason },
            None => DeviceInfo { engine: "cpu", name: cpu::title(), reason },
        }
    }
}

/// A model on an engine.
#[derive(Debug)]
pub struct Session {
    config: Config,
    shape: Shape,
    tables: Tables,
    recorded: Recorded,
    engine: Box<dyn Engine>,
    device: DeviceInfo,
    tensors: Vec<tensors::Placed>,
    names: Vec<Tensor>,
    capacity: [Capacity; 2],
    results: results::Results,
    /// Which of the scales that are kept exist, by tensor.
    scaled: BTreeMap<String, Vec<bool>>,
    /// Steps below this one are in FP32.
    pretrain_steps: u64,
    /// A quantized step was made, in a run that begins in FP32.
    quantizing: bool,
    /// The tables, where they live on the host.
    hosted: Option<host::Hosted>,
}

/// One of the two capacities.
const TRAIN: usize = 0;
const EVALUATE: usize = 1;

impl Session {
    /// Steps whose results are kept until [`Session::settled`] or [`Session::history`] must be called.
    pub const RING: usize = 32;

    /// The device in use.
    pub fn device(&self) -> &DeviceInfo {
        &self.device
    }

    /// The shape it was loaded with.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The recorded plan, to print or to look at.
    pub fn plan(&self) -> &crate::plan::Plan {
        &self.recorded.plan
    }

    /// The tables' cut, which [`Batch::prepare`] needs.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Changes the base learning rates of the steps that follow; `tables` where it differs from that of the MLPs. Warm-up and decay go
    /// on from them.
    ///
    /// # Errors
    /// A rate that is negative or not a number in FP32.
    pub fn set_learning_rates(&mut self, mlps: f64, tables: Option<f64>) -> Result<()> {
        let mut config = self.config.clone();
        (config.optim.lr, config.optim.embedding_lr) = (mlps, tables);
        config.validate()?;
        self.config = config;
        Ok(())
    }

    /// One training step: scale refresh when due, gradients, update, update of learned scales. The batch may have any number of
    /// samples from 1 to the configured batch. Does not wait for the device.
    ///
    /// # Errors
    /// A batch beyond the capacity; more than [`Session::RING`] steps without [`Session::settled`] or [`Session::history`].
    pub fn train_step(&mut self, step: u64, batch: &Batch) -> Result<()> {
        self.train_step_by(step, batch, |engine, phases, uniform| engine.run(phases, uniform))
    }

    /// The same step, with the time of each of its commands; waits for the device. `clock` gives seconds.
    ///
    /// # Errors
    /// As [`Session::train_step`]; a session that was not loaded with [`Session::load_profiled`].
    pub fn train_step_timed(&mut self, step: u64, batch: &Batch, clock: Clock<'_>) -> Result<TimedRun> {
        self.train_step_by(step, batch, |engine, phases, uniform| engine.run_timed(phases, uniform, clock))
    }

    fn train_step_by<T>(
        &mut self,
        step: u64,
        batch: &Batch,
        run: impl FnOnce(&mut dyn Engine, &[usize], &StepUniform) -> Result<T>,
    ) -> Result<T> {
        self.results.check_room()?;
        if self.recorded.exchange.is_some() {
            return Err(Error::Plan("a worker's step goes through the exchange, not through `train_step`".into()));
        }
        self.upload(batch, TRAIN)?;
        let phases = self.step_phases(step)?;
        let uniform = self.uniform(step, batch);
        let outcome = run(self.engine.as_mut(), &phases, &uniform)?;
        self.rows_change();
        self.results.push(step, batch.samples);
        Ok(outcome)
    }

    fn phase(&self, name: &str) -> Result<usize> {
        self.recorded.plan.phase_index(name)
    }

    fn uniform(&self, step: u64, batch: &Batch) -> StepUniform {
        let (optim, factor) = (&self.config.optim, self.config.workers.lr_factor());
        let correction = |beta: f64| (1.0 / (1.0 - beta.powf((step + 1) as f64))) as f32;
        StepUniform {
            slot: self.results.slot(),
            lr: (optim.lr_at(step) * factor) as f32,
            lr_rows: (optim.embedding_lr_at(step) * factor) as f32,
            adam_1: correction(optim.adam_betas[0]),
            adam_2: correction(optim.adam_betas[1]),
            ..StepUniform::evaluate(batch.samples, batch.touched())
        }
    }

    fn upload(&mut self, batch: &Batch, which: usize) -> Result<()> {
        let capacity = self.capacity[which];
        let found = Capacity { samples: batch.samples, ids: batch.bag_rows.len(), touched: batch.touched() };
        let too_much = || Err(Error::Data(format!("a batch of {found:?} does not fit the plan's {capacity:?}")));
        // A worker may have nothing left at the end of an epoch.
        let too_few = found.samples == 0 && self.recorded.exchange.is_none();
        if too_few || found.samples > capacity.samples {
            return too_much();
        }
        let expected = [found.samples * self.shape.dense, found.samples, found.touched + 1, found.ids];
        let lengths = [batch.dense.len(), batch.labels.len(), batch.row_offsets.len(), batch.row_samples.len()];
        if batch.cut != self.tables.fingerprint() || expected != lengths {
            let text = "the batch was prepared for another model; prepare it with this session's `tables()` and dense features";
            return Err(Error::Data(text.into()));
        }
        if found.ids > capacity.ids || found.touched > capacity.touched {
            return too_much();
        }
        let whole = [0, found.touched as u32];
        let placed: [&[u32]; 2] = if self.upload_rows(batch)? { [&[], &whole] } else { [&batch.rows, &batch.shard_offsets] };
        let r = &self.recorded;
        self.engine.write(r.dense, bytemuck::cast_slice(&batch.dense))?;
        self.engine.write(r.labels, bytemuck::cast_slice(&batch.labels))?;
        let lists = [
            (r.batch.bag_offsets, batch.bag_offsets.as_slice()),
            (r.batch.bag_rows, &batch.bag_rows),
            (r.batch.rows, placed[0]),
            (r.batch.row_tables, &batch.row_tables),
            (r.batch.shard_offsets, placed[1]),
            (r.batch.row_offsets, &batch.row_offsets),
            (r.batch.row_samples, &batch.row_samples),
        ];
        lists.into_iter().filter(|(_, words)| !words.is_empty()).try_for_each(|(view, words)| self.engine.write(view, words))
    }

    /// Logits of a batch of at most `eval_batch` samples, without learning. Call
    /// [`Session::begin_evaluation`] once after training steps.
    pub async fn logits(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        self.upload(batch, EVALUATE)?;
        let (phase, logits) = match self.recorded.full_logits.filter(|_| self.pretraining()) {
            Some(logits) => (self.phase(phase::FULL_EVALUATE)?, logits),
            None => (self.phase(phase::EVALUATE)?, self.recorded.logits),
        };
        self.engine.run(&[phase], &StepUniform::evaluate(batch.samples, batch.touched()))?;
        let words = self.engine.read(View { len: batch.samples, ..logits }).await?;
        Ok(floats(&words))
    }
}

fn floats(words: &[u32]) -> Vec<f32> {
    bytemuck::cast_slice(words).to_vec()
}
