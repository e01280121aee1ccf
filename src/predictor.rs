//! A packed model on an engine, ready to predict: the plan holds the forward pass alone, tables and
//! MLPs stay packed. The CPU engine uses the file's own memory (a map of it) for the tables.

use crate::config::{Device, Shape};
use crate::data::Batch;
use crate::engine::Engine;
use crate::engine::cpu::CpuEngine;
use crate::engine::gpu::GpuEngine;
use crate::error::{Error, Result};
use crate::model::Network;
use crate::ops::packed_matmul;
use crate::packed::{Outline, Packed};
use crate::plan::schedule::{Limits, Schedule};
use crate::plan::{StepUniform, View};
use crate::quant::pack;
use crate::session::{DeviceInfo, SOFTWARE_MAX_BATCH, devices};
use crate::step::{Capacity, MAX_VALUES};
use crate::tables::Tables;

mod incoming;
mod record;
mod upload;

pub use incoming::Incoming;
use record::{Recorded, record};

/// Bytes that buffers other than the tables may have; batches are made smaller until they fit.
const BUDGET: u64 = 256 << 20;
/// Ids of all bags of a batch.
const MAX_IDS: usize = 1 << 24;

/// A packed model on an engine.
#[derive(Debug)]
pub struct Predictor {
    shape: Shape,
    tables: Tables,
    recorded: Recorded,
    engine: Box<dyn Engine>,
    device: DeviceInfo,
    capacity: Capacity,
    bytes: u64,
    /// Smaller batches are filled up to so many samples.
    least: usize,
}

impl Predictor {
    /// The fewest samples of a plan whose logits [`Predictor::regular`] can make independent of each other.
    pub const REGULAR: usize = packed_matmul::FEW + 1;

    /// Loads a model for batches of up to `batch` samples; large models get smaller ones
    /// ([`Predictor::batch`]). On the CPU engine the tables stay where they are in `packed`.
    ///
    /// # Errors
    /// No such device, a model that does not fit it.
    pub async fn load(packed: &Packed, device: &Device, batch: usize) -> Result<Predictor> {
        Predictor::load_cut(packed, device, batch, u64::MAX).await
    }

    /// Like [`Predictor::load`], with tables cut into bindings of at most `max_binding` bytes even where
    /// the device allows more.
    ///
    /// # Errors
    /// As [`Predictor::load`].
    pub async fn load_cut(packed: &Packed, device: &Device, batch: usize, max_binding: u64) -> Result<Predictor> {
        let (mut predictor, shared) = Predictor::open(packed.outline(), Some(packed), device, batch, max_binding).await?;
        if !shared {
            predictor.upload_codes(packed)?;
            predictor.upload_scales(packed)?;
        }
        predictor.upload_layers(packed)?;
        Ok(predictor)
    }

    /// A predictor whose buffers hold nothing yet, and whether the tables' buffers are the memory of `whole`.
    async fn open(outline: &Outline, whole: Option<&Packed>, device: &Device, batch: usize, max_binding: u64) -> Result<(Predictor, bool)> {
        let (adapter, reason) = devices::choose(device).await?;
        let limits = adapter.as_ref().map_or_else(|| CpuEngine::limits(None), |a| a.limits.clone());
        let most = if adapter.as_ref().is_some_and(|a| a.is_software()) { SOFTWARE_MAX_BATCH } else { usize::MAX };
        let fitted = Fitted::new(outline, &limits, batch.clamp(1, most), max_binding)?;
        let Fitted { tables, recorded, schedule, capacity, bytes } = fitted;
        let (engine, shared): (Box<dyn Engine>, bool) = match &adapter {
            Some(a) => (Box::new(GpuEngine::load(a, schedule).await?), false),
            None => {
                let memory = whole.and_then(|packed| upload::share(packed, &tables, &recorded));
                let shared = memory.is_some();
                (Box::new(CpuEngine::load_with(schedule, memory.unwrap_or_default())?), shared)
            }
        };
        let (device, shape) = (DeviceInfo::of(adapter.as_ref(), reason), outline.manifest().shape.clone());
        Ok((Predictor { shape, tables, recorded, engine, device, capacity, bytes, least: 1 }, shared))
    }

    /// The device in use.
    pub fn device(&self) -> &DeviceInfo {
        &self.device
    }

    /// The network's shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The tables' cut, which [`Batch::prepare`] needs.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The most samples of one call of [`Predictor::logits`].
    pub fn batch(&self) -> usize {
        self.capacity.samples
    }

    /// Bytes of all buffers, tables included; on the CPU engine the tables' part is the file itself.
    pub fn device_bytes(&self) -> u64 {
        self.bytes
    }

    /// From now on, what a sample's logit is does not depend on the samples beside it. The CPU engine has a quicker way for a
    /// few samples, with other sums; it is then not taken, and small batches are filled up instead. That needs room for
    /// [`Predictor::REGULAR`] samples.
    pub fn regular(mut self) -> Predictor {
        if self.device.engine == "cpu" {
            self.least = Predictor::REGULAR.min(self.capacity.samples);
        }
        self
    }

    /// The recorded plan, to print or to look at.
    pub fn plan(&self) -> &crate::plan::Plan {
        &self.recorded.plan
    }

    /// Logits of a batch of at most [`Predictor::batch`] samples.
    ///
    /// # Errors
    /// A batch prepared for another model, or too large; a lost device.
    pub async fn logits(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        let found = Capacity { samples: batch.samples, ids: batch.bag_rows.len(), touched: batch.touched() };
        let c = self.capacity;
        if found.samples == 0 || found.samples > c.samples || found.ids > c.ids || found.touched > c.touched {
            return Err(Error::Data(format!("a batch of {found:?} does not fit the plan's {c:?}")));
        }
        if batch.cut != self.tables.fingerprint() || batch.dense.len() != found.samples * self.shape.dense {
            return Err(Error::Data("the batch was prepared for another model; prepare it with this predictor's `tables()`".into()));
        }
        let filled = self.filled(batch);
        let batch = filled.as_ref().unwrap_or(batch);
        let r = &self.recorded;
        self.engine.write(r.dense, bytemuck::cast_slice(&batch.dense))?;
        for (view, words) in r.batch.forward(batch).into_iter().filter(|(_, words)| !words.is_empty()) {
            self.engine.write(view, words)?;
        }
        self.engine.run(&[0], &StepUniform::evaluate(batch.samples, batch.touched()))?;
        let words = self.engine.read(View { len: found.samples, ..r.logits }).await?;
        Ok(bytemuck::cast_slice(&words).to_vec())
    }

    /// The batch with its last sample again and again, where it is too small and there is room. It serves the forward pass alone.
    fn filled(&self, batch: &Batch) -> Option<Batch> {
        let more = self.least.saturating_sub(batch.samples);
        let last = batch.bag_offsets.len().checked_sub(1 + self.tables.count())?;
        let bags = &batch.bag_offsets[last..];
        let ids = bags[0] as usize..batch.bag_rows.len();
        if more == 0 || batch.bag_rows.len() + more * ids.len() > self.capacity.ids {
            return None;
        }
        let mut filled = batch.clone();
        for _ in 0..more {
            filled.samples += 1;
            filled.dense.extend_from_slice(&batch.dense[batch.dense.len() - self.shape.dense..]);
            let start = filled.bag_rows.len() as u32;
            filled.bag_offsets.extend(bags[1..].iter().map(|end| start + (end - bags[0])));
            filled.bag_rows.extend_from_slice(&batch.bag_rows[ids.clone()]);
        }
        Some(filled)
    }
}

/// A plan that fits a device, and its sizes.
struct Fitted {
    tables: Tables,
    recorded: Recorded,
    schedule: Schedule,
    capacity: Capacity,
    bytes: u64,
}

impl Fitted {
    fn new(outline: &Outline, limits: &Limits, batch: usize, max_binding: u64) -> Result<Fitted> {
        let m = outline.manifest();
        let row_bytes = pack::row_bytes(m.tables.bits, m.shape.dim);
        let largest = max_binding.min(limits.max_binding).min(limits.max_buffer);
        let tables = Tables::packed(&m.shape.rows, m.shape.dim, row_bytes, largest)?;
        let (network, bags) = (Network::new(&m.shape), m.max_bag());
        let mut samples = batch.min(MAX_IDS / bags.iter().sum::<usize>().max(1)).max(1);
        loop {
            let capacity = Capacity::new(samples, &tables, &bags);
            let values = capacity.largest(&m.shape);
            if values > MAX_VALUES {
                if samples == 1 {
                    return Err(Error::Config(format!("one sample of this model takes a buffer of {values} values; it cannot be run")));
                }
                samples /= 2;
                continue;
            }
            let recorded = record(outline, &network, &tables, capacity);
            let schedule = Schedule::new(recorded.plan.clone(), limits)?;
            let bytes = schedule.bytes();
            let others = bytes - 4 * recorded.shards.iter().map(|v| v.len as u64).sum::<u64>();
            if others <= BUDGET || samples == 1 {
                if others > 8 * BUDGET {
                    return Err(Error::Config(format!("one sample of this model takes {others} bytes of buffers; it cannot be run")));
                }
                return Ok(Fitted { tables, recorded, schedule, capacity, bytes });
            }
            samples = (samples / 2).max(1);
        }
    }
}

/// Bytes of all buffers, shards of the tables and samples of a batch, for a device with such a limit.
#[cfg(all(test, feature = "cli"))]
pub(crate) fn sizes(packed: &Packed, max_binding: u64, batch: usize) -> Result<(u64, usize, usize)> {
    let fitted = Fitted::new(packed.outline(), &CpuEngine::limits(Some(max_binding)), batch, u64::MAX)?;
    Ok((fitted.bytes, fitted.recorded.shards.len(), fitted.capacity.samples))
}
