//! A model loaded on an engine: the plans recorded, the buffers made, ready to step.

use crate::config::{Config, Shape, TablePlace};
use crate::data::Batch;
use crate::engine::cpu::CpuEngine;
use crate::engine::gpu::{GpuAdapter, GpuEngine};
use crate::engine::{Clock, Engine, TimedRun};
use crate::error::{Error, Result};
use crate::plan::schedule::Schedule;
use crate::plan::variant::Choice;
use crate::plan::{StepUniform, View};
use crate::step::{self, Capacity, Recorded, phase};
use crate::tables::Tables;
use std::collections::BTreeMap;

pub(crate) mod devices;
mod diagnose;
mod host;
mod initial;
mod scales;
mod tensors;
mod worker;

pub use devices::{Adapter, adapters};
pub use host::{RowLayout, RowStore, Rows};
pub use tensors::Tensor;
pub use worker::Stage;

/// What a finished step left behind.
#[derive(Debug, Clone, PartialEq)]
pub struct StepResult {
    /// Step number.
    pub step: u64,
    /// Mean loss of its batch, before its update.
    pub loss: f32,
    /// Logits of its batch, before its update.
    pub logits: Vec<f32>,
}

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
            Some(a) => DeviceInfo { engine: "gpu", name: format!("{} ({}, {})", a.name, a.backend, a.driver), reason },
            None => DeviceInfo { engine: "cpu", name: format!("{} threads", rayon::current_num_threads()), reason },
        }
    }
}

/// Batches of more samples would run into the loop limit of software adapters (llvmpipe ends an
/// invocation silently after 65,535 loop iterations, about half of that with bounded loops).
pub(crate) const SOFTWARE_MAX_BATCH: usize = 30_000;

/// No step has more ids, and the rows that it touches have no more values: far beyond any device, and
/// small enough to count in bytes.
const MAX_STEP: usize = (isize::MAX >> 15) as usize;

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
    pending: Vec<(u64, usize)>,
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
    /// Steps whose results are kept until [`Session::history`] must be called.
    pub const RING: usize = 32;

    /// Records, checks and loads the plans on the device that `config` asks for. `max_bag` is the
    /// most ids a bag of each table may have. Weights are zero until [`Session::initialise`] or
    /// [`Session::write`].
    ///
    /// # Errors
    /// No such device, a shape that does not fit it, too little memory.
    pub async fn load(shape: &Shape, config: &Config, max_bag: &[usize]) -> Result<Session> {
        Session::load_cut(shape, config, max_bag, u64::MAX).await
    }

    /// Like [`Session::load`], with tables that live in `store` (`model.tables` is `host`); with `profile` ready for
    /// [`Session::train_step_timed`].
    ///
    /// # Errors
    /// As [`Session::load`]; a store of other tables.
    pub async fn load_hosted(
        shape: &Shape,
        config: &Config,
        max_bag: &[usize],
        store: Box<dyn RowStore>,
        profile: bool,
    ) -> Result<Session> {
        let wanted = RowLayout::of(shape, config);
        if config.model.tables != TablePlace::Host || *store.layout() != wanted {
            let found = store.layout();
            return Err(Error::Config(format!("a store of {found:?} does not fit a model of {wanted:?} on the {:?}", config.model.tables)));
        }
        let mut session = Session::load_anywhere(shape, config, max_bag, u64::MAX, profile).await?;
        session.host(store)?;
        Ok(session)
    }

    /// Like [`Session::load`], with tables cut into bindings of at most `max_binding` bytes even
    /// where the device allows more.
    ///
    /// # Errors
    /// As [`Session::load`].
    pub async fn load_cut(shape: &Shape, config: &Config, max_bag: &[usize], max_binding: u64) -> Result<Session> {
        Session::refuse_host(config)?;
        Session::load_anywhere(shape, config, max_bag, max_binding, false).await
    }

    /// Like [`Session::load`], ready for [`Session::train_step_timed`].
    ///
    /// # Errors
    /// As [`Session::load`].
    pub async fn load_profiled(shape: &Shape, config: &Config, max_bag: &[usize]) -> Result<Session> {
        Session::refuse_host(config)?;
        Session::load_anywhere(shape, config, max_bag, u64::MAX, true).await
    }

    fn refuse_host(config: &Config) -> Result<()> {
        let text = "tables on the host need a file for their rows: use `Session::load_hosted`, or model.tables = \"device\"";
        if config.model.tables == TablePlace::Host { Err(Error::Config(text.into())) } else { Ok(()) }
    }

    async fn load_anywhere(shape: &Shape, config: &Config, max_bag: &[usize], max_binding: u64, profile: bool) -> Result<Session> {
        Session::check(shape, config, max_bag)?;
        match devices::choose(&config.device).await? {
            (Some(adapter), reason) => Session::on_gpu(&adapter, reason, shape, config, max_bag, max_binding, profile).await,
            (None, reason) => {
                let tables = Session::cut(shape, config, &CpuEngine::limits(None), max_binding)?;
                let recorded = step::record(shape, config, &tables, max_bag, Session::RING);
                let schedule = Schedule::new(recorded.plan.clone(), &CpuEngine::limits(None))?;
                let engine = Box::new(CpuEngine::load(schedule));
                let device = DeviceInfo::of(None, reason);
                Ok(Session::assemble(shape, config, max_bag, tables, recorded, engine, device))
            }
        }
    }

    /// Whether a plan can be recorded for these, whatever the device.
    ///
    /// # Errors
    /// Settings out of range, bags that do not fit the tables, a step with more values than can be counted.
    pub(crate) fn check(shape: &Shape, config: &Config, max_bag: &[usize]) -> Result<()> {
        shape.validate()?;
        config.validate()?;
        config.workers.check_width(shape.dim)?;
        if max_bag.len() != shape.tables() || max_bag.contains(&0) {
            return Err(Error::Config(format!(
                "{} bag sizes {max_bag:?} for {} tables; each must be at least 1",
                max_bag.len(),
                shape.tables()
            )));
        }
        let most = Capacity::of(config.train.batch.max(config.train.eval_batch), &shape.rows, max_bag);
        if most.ids.max(most.touched.saturating_mul(shape.dim)) > MAX_STEP {
            return Err(Error::Config(format!(
                "a step of {} samples may have {} ids and touch {} rows of {} values; more than {MAX_STEP} values are not possible",
                most.samples, most.ids, most.touched, shape.dim
            )));
        }
        Ok(())
    }

    async fn on_gpu(
        adapter: &GpuAdapter,
        reason: String,
        shape: &Shape,
        config: &Config,
        max_bag: &[usize],
        max_binding: u64,
        profile: bool,
    ) -> Result<Session> {
        let batch = config.train.batch.max(config.train.eval_batch);
        if adapter.is_software() && batch > SOFTWARE_MAX_BATCH {
            let text = format!(
                "`{}` is a software adapter that stops long loops; batches of {batch} samples are more than its {SOFTWARE_MAX_BATCH}; use a smaller batch or --device cpu",
                adapter.name
            );
            return Err(Error::Device(text));
        }
        let tables = Session::cut(shape, config, &adapter.limits, max_binding)?;
        let recorded = step::record(shape, config, &tables, max_bag, Session::RING);
        let schedule = Schedule::new(recorded.plan.clone(), &adapter.limits)?;
        let engine = Box::new(GpuEngine::load_with(adapter, schedule, Choice::Best, profile).await?);
        Ok(Session::assemble(shape, config, max_bag, tables, recorded, engine, DeviceInfo::of(Some(adapter), reason)))
    }

    fn assemble(
        shape: &Shape,
        config: &Config,
        max_bag: &[usize],
        tables: Tables,
        recorded: Recorded,
        engine: Box<dyn Engine>,
        device: DeviceInfo,
    ) -> Session {
        let placed = tensors::place(shape, config, &tables, &recorded);
        let scales = placed.iter().filter(|p| p.tensor.is_scale());
        let scaled = scales.map(|p| (p.tensor.name.clone(), vec![false; p.tensor.len() as usize])).collect();
        let capacity = [config.train.batch, config.train.eval_batch].map(|samples| Capacity::new(samples, &tables, max_bag));
        Session {
            config: config.clone(),
            shape: shape.clone(),
            tables,
            recorded,
            engine,
            device,
            names: placed.iter().map(|p| p.tensor.clone()).collect(),
            tensors: placed,
            capacity,
            pending: Vec::new(),
            scaled,
            pretrain_steps: 0,
            quantizing: false,
            hosted: None,
        }
    }

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

    /// One training step: scale refresh when due, gradients, update, update of learned scales. The batch may have any number of
    /// samples from 1 to the configured batch. Does not wait for the device.
    ///
    /// # Errors
    /// A batch beyond the capacity; more than [`Session::RING`] steps without [`Session::history`].
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
        if self.pending.len() == Session::RING {
            return Err(Error::Plan(format!("{} steps without reading their results", Session::RING)));
        }
        if self.recorded.exchange.is_some() {
            return Err(Error::Plan("a worker's step goes through the exchange, not through `train_step`".into()));
        }
        self.upload(batch, TRAIN)?;
        let phases = self.step_phases(step)?;
        let uniform = self.uniform(step, batch);
        let outcome = run(self.engine.as_mut(), &phases, &uniform)?;
        self.rows_change();
        self.pending.push((step, batch.samples));
        Ok(outcome)
    }

    fn phase(&self, name: &str) -> Result<usize> {
        self.recorded.plan.phase_index(name)
    }

    fn uniform(&self, step: u64, batch: &Batch) -> StepUniform {
        let (optim, factor) = (&self.config.optim, self.config.workers.lr_factor());
        let correction = |beta: f64| (1.0 / (1.0 - beta.powf((step + 1) as f64))) as f32;
        StepUniform {
            slot: self.pending.len() as u32,
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

    /// Results of the steps since the last call; at most [`Session::RING`] steps may lie between calls.
    pub async fn history(&mut self) -> Result<Vec<StepResult>> {
        if self.pending.is_empty() {
            return Ok(Vec::new());
        }
        let (losses, logits) = (self.recorded.loss_ring, self.recorded.logit_ring);
        let (count, stride) = (self.pending.len(), logits.len / losses.len);
        let losses = self.engine.read(View { len: count, ..losses }).await?;
        let logits = self.engine.read(View { len: count * stride, ..logits }).await?;
        let results = self.pending.iter().enumerate().map(|(slot, &(step, samples))| StepResult {
            step,
            loss: f32::from_bits(losses[slot]),
            logits: floats(&logits[slot * stride..slot * stride + samples]),
        });
        let results = results.collect();
        self.pending.clear();
        Ok(results)
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
