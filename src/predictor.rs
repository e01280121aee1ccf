//! A packed model on an engine, ready to predict: the plan holds the forward pass alone, tables and
//! MLPs stay packed. The CPU engine uses the file's own memory (a map of it) for the tables.

use crate::config::{Device, Shape};
use crate::data::Batch;
use crate::engine::cpu::{self, CpuEngine};
use crate::engine::gpu::GpuEngine;
use crate::engine::{Engine, Shared};
use crate::error::{Error, Result};
use crate::model::Network;
use crate::packed::Packed;
use crate::plan::schedule::{Limits, Schedule};
use crate::plan::{StepUniform, View};
use crate::quant::pack;
use crate::session::{DeviceInfo, SOFTWARE_MAX_BATCH, devices};
use crate::step::Capacity;
use crate::tables::Tables;

mod record;
use record::{LayerViews, Recorded, record};

/// Bytes that buffers other than the tables may have; batches are made smaller until they fit.
const BUDGET: u64 = 256 << 20;
/// Ids of all bags of a batch.
const MAX_IDS: usize = 1 << 24;
/// Words uploaded at a time.
const PIECE: usize = 1 << 20;

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
}

impl Predictor {
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
        let (adapter, reason) = devices::choose(device).await?;
        let limits = adapter.as_ref().map_or_else(|| CpuEngine::limits(None), |a| a.limits.clone());
        let most = if adapter.as_ref().is_some_and(|a| a.is_software()) { SOFTWARE_MAX_BATCH } else { usize::MAX };
        let fitted = Fitted::new(packed, &limits, batch.clamp(1, most), max_binding)?;
        let Fitted { tables, recorded, schedule, capacity, bytes } = fitted;
        let (mut engine, device, mapped): (Box<dyn Engine>, _, bool) = match &adapter {
            Some(a) => {
                let name = a.title();
                (Box::new(GpuEngine::load(a, schedule).await?), DeviceInfo { engine: "gpu", name, reason }, false)
            }
            None => {
                let shared = share(packed, &tables, &recorded);
                let mapped = shared.is_some();
                let name = cpu::title();
                let engine = CpuEngine::load_with(schedule, shared.unwrap_or_default())?;
                (Box::new(engine), DeviceInfo { engine: "cpu", name, reason }, mapped)
            }
        };
        if !mapped {
            upload_tables(packed, &tables, &recorded, engine.as_mut())?;
        }
        upload_layers(packed, &recorded, engine.as_mut())?;
        Ok(Predictor { shape: packed.manifest().shape.clone(), tables, recorded, engine, device, capacity, bytes })
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
        let r = &self.recorded;
        self.engine.write(r.dense, bytemuck::cast_slice(&batch.dense))?;
        for (view, words) in r.batch.forward(batch).into_iter().filter(|(_, words)| !words.is_empty()) {
            self.engine.write(view, words)?;
        }
        self.engine.run(&[0], &StepUniform::evaluate(batch.samples, batch.touched()))?;
        let words = self.engine.read(View { len: batch.samples, ..r.logits }).await?;
        Ok(bytemuck::cast_slice(&words).to_vec())
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
    fn new(packed: &Packed, limits: &Limits, batch: usize, max_binding: u64) -> Result<Fitted> {
        let m = packed.manifest();
        let row_bytes = pack::row_bytes(m.tables.bits, m.shape.dim);
        let largest = max_binding.min(limits.max_binding).min(limits.max_buffer);
        let tables = Tables::packed(&m.shape.rows, m.shape.dim, row_bytes, largest)?;
        let (network, bags) = (Network::new(&m.shape), m.max_bag());
        let mut samples = batch.min(MAX_IDS / bags.iter().sum::<usize>().max(1)).max(1);
        loop {
            let capacity = Capacity::new(samples, &tables, &bags);
            let recorded = record(packed, &network, &tables, capacity);
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
    let fitted = Fitted::new(packed, &CpuEngine::limits(Some(max_binding)), batch, u64::MAX)?;
    Ok((fitted.bytes, fitted.recorded.shards.len(), fitted.capacity.samples))
}

/// The tables' buffers inside the memory of the file, where they lie on words of four bytes.
fn share(packed: &Packed, tables: &Tables, r: &Recorded) -> Option<Vec<(crate::plan::BufferId, Shared)>> {
    let mut shared = Vec::new();
    let mut add = |start: usize, views: &[View], bytes_per_row: usize| {
        views.iter().enumerate().try_for_each(|(s, view)| {
            let start = start + tables.first_row_of_shard(s) as usize * bytes_per_row;
            shared.push((view.buffer, Shared::new(packed.memory(), start, view.len)?));
            Some(())
        })
    };
    add(packed.codes().start, &r.shards, tables.row_bytes())?;
    if r.row_scales {
        add(packed.table_scales().start, &r.scales, 4)?;
    } else {
        add(packed.table_scales().start, &r.scales, 0)?;
    }
    Some(shared)
}

fn upload_tables(packed: &Packed, tables: &Tables, r: &Recorded, engine: &mut dyn Engine) -> Result<()> {
    let mut add = |all: &[u8], views: &[View], bytes_per_row: usize| {
        views.iter().enumerate().try_for_each(|(s, &view)| {
            let start = tables.first_row_of_shard(s) as usize * bytes_per_row;
            upload(engine, view, &all[start..all.len().min(start + 4 * view.len)])
        })
    };
    add(&packed.bytes()[packed.codes()], &r.shards, tables.row_bytes())?;
    add(&packed.bytes()[packed.table_scales()], &r.scales, if r.row_scales { 4 } else { 0 })
}

/// Writes bytes in pieces; the last word is filled up with zeros.
fn upload(engine: &mut dyn Engine, view: View, bytes: &[u8]) -> Result<()> {
    for (i, piece) in bytes.chunks(4 * PIECE).enumerate() {
        let at = View { offset: view.offset + i * PIECE, len: view.len - i * PIECE, ..view };
        engine.write(at, &words(piece))?;
    }
    Ok(())
}

/// Little-endian words; the last one is filled up with zeros.
fn words(bytes: &[u8]) -> Vec<u32> {
    let (whole, rest) = bytes.as_chunks::<4>();
    let mut words: Vec<u32> = whole.iter().map(|b| u32::from_le_bytes(*b)).collect();
    if !rest.is_empty() {
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        words.push(u32::from_le_bytes(last));
    }
    words
}

fn upload_layers(packed: &Packed, r: &Recorded, engine: &mut dyn Engine) -> Result<()> {
    for (name, stride, views) in &r.layers {
        let bias = packed.tensor(&format!("{name}.bias"));
        match views {
            LayerViews::Full { weights, bias: view } => {
                upload(engine, *weights, packed.tensor(&format!("{name}.weight")))?;
                upload(engine, *view, bias)?;
            }
            LayerViews::Packed(layer) => {
                // Every row begins on a word.
                let rows = packed.tensor(&format!("{name}.weight.codes")).chunks(*stride);
                let padded: Vec<u8> =
                    rows.flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0, stride.next_multiple_of(4) - stride))).collect();
                upload(engine, layer.codes, &padded)?;
                upload(engine, layer.scales, packed.tensor(&format!("{name}.weight.scale")))?;
                upload(engine, layer.bias, bias)?;
            }
        }
    }
    Ok(())
}
