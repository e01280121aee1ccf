//! Click probabilities for rows of text: a packed model that came in pieces, or FP32 weights with the same inputs.

use dqrm::config::{Column, Config, Device, OnBadRow, Schema, Shape};
use dqrm::data::ids::Mapper;
use dqrm::data::pushed::{Labels, PushedRows, RawBlock};
use dqrm::data::{Batch, Block};
use dqrm::metrics::sigmoid;
use dqrm::packed::{Manifest, Packed};
use dqrm::predictor::Predictor;
use dqrm::quant::Bits;
use dqrm::session::{DeviceInfo, Session, Tensor};
use dqrm::tables::Tables;
use dqrm::tensor_file::{self, Frame};
use dqrm::{Error, Result};
use serde_json::json;
use std::sync::Arc;

/// Samples of a batch of FP32 weights.
const FULL_BATCH: usize = 256;

/// What a model takes and how a row becomes that.
#[derive(Debug)]
struct Inputs {
    manifest: Manifest,
    mapper: Mapper,
}

/// What computes the logits.
#[derive(Debug)]
enum Model {
    /// Packed codes.
    Packed(Box<Predictor>),
    /// Weights in FP32.
    Full(Box<Session>, usize),
}

/// A model that scores rows of text.
#[derive(Debug)]
pub struct Scores {
    inputs: Arc<Inputs>,
    model: Model,
    bytes: usize,
    rows: PushedRows,
    raw: RawBlock,
    labels: Vec<f32>,
}

impl Scores {
    /// A packed model of `bytes` bytes; `packed` is its file without the tables' codes.
    ///
    /// # Errors
    /// An id mapping that does not fit the tables.
    pub fn packed(predictor: Predictor, packed: &Packed, bytes: usize) -> Result<Scores> {
        let mapper = Mapper::from_bytes(packed.ids())?;
        let manifest = packed.manifest().clone();
        if mapper.rows() != manifest.shape.rows {
            let (found, wanted) = (mapper.rows(), &manifest.shape.rows);
            return Err(Error::Data(format!("the model's tables have {wanted:?} rows, but its id mapping gives {found:?}")));
        }
        Scores::new(Arc::new(Inputs { manifest, mapper }), Model::Packed(Box::new(predictor)), bytes)
    }

    /// FP32 weights (safetensors, PyTorch's names) that take what `like` takes.
    ///
    /// # Errors
    /// Weights of another shape; a device that does not exist or is too small.
    pub async fn full(weights: &[u8], like: &Scores, device: Device) -> Result<Scores> {
        let manifest = &like.inputs.manifest;
        let mut config = Config { device, ..Config::default() };
        (config.quant.embedding_bits, config.quant.mlp_bits) = (Bits::None, Bits::None);
        (config.train.batch, config.train.eval_batch) = (1, FULL_BATCH);
        let mut session = Session::load(&manifest.shape, &config, &manifest.max_bag()).await?;
        write_weights(&mut session, weights, &manifest.shape)?;
        session.begin_evaluation()?;
        Scores::new(like.inputs.clone(), Model::Full(Box::new(session), FULL_BATCH), weights.len())
    }

    fn new(inputs: Arc<Inputs>, model: Model, bytes: usize) -> Result<Scores> {
        let rows = reader("the rows", &inputs, false)?;
        Ok(Scores { inputs, model, bytes, rows, raw: RawBlock::new(), labels: Vec::new() })
    }

    /// Begins a new text, called `name` in messages. Malformed lines are left out and counted.
    ///
    /// # Errors
    /// A schema that contradicts itself.
    pub fn begin(&mut self, name: &str) -> Result<()> {
        self.rows = reader(name, &self.inputs, false)?;
        Ok(())
    }

    /// Probabilities of the rows that `piece` completes.
    ///
    /// # Errors
    /// A header that lacks a column, a text without rows, a lost device.
    pub async fn push(&mut self, piece: &[u8], last: bool) -> Result<Vec<f32>> {
        self.raw.clear();
        self.rows.push(piece, &mut self.raw)?;
        if last {
            self.rows.finish(&mut self.raw)?;
        }
        self.score().await
    }

    /// Probabilities of rows of text without a header; a malformed one is an error.
    ///
    /// # Errors
    /// A malformed row, a lost device.
    pub async fn rank(&mut self, text: &str) -> Result<Vec<f32>> {
        let mut rows = reader("the candidates", &self.inputs, true)?;
        self.raw.clear();
        rows.push(text.as_bytes(), &mut self.raw)?;
        rows.finish(&mut self.raw)?;
        self.score().await
    }

    async fn score(&mut self) -> Result<Vec<f32>> {
        self.labels.clear();
        self.labels.extend(self.raw.labels.iter().map(|label| label.unwrap_or(f32::NAN)));
        let mut block = Block::new();
        self.inputs.mapper.map(&self.raw, &mut block)?;
        let mut probabilities = Vec::with_capacity(block.samples);
        let mut some = Block::new();
        for first in (0..block.samples).step_by(self.model.batch()) {
            some.clear();
            some.append(&block, first, self.model.batch().min(block.samples - first));
            let batch = Batch::prepare(&some, self.model.tables())?;
            let logits = self.model.logits(&batch).await?;
            probabilities.extend(logits.into_iter().map(|x| sigmoid(f64::from(x)) as f32));
        }
        Ok(probabilities)
    }

    /// Labels of the rows scored last; NaN where a row has none.
    pub fn labels(&self) -> &[f32] {
        &self.labels
    }

    /// Malformed lines of the present text, and what the first of them lack.
    pub fn skipped(&self) -> serde_json::Value {
        json!({ "skipped": self.rows.skipped(), "messages": self.rows.messages() })
    }

    /// What the model is and takes.
    pub fn describe(&self) -> serde_json::Value {
        let m = &self.inputs.manifest;
        let device = self.model.device();
        let (bits, device_bytes) = match &self.model {
            Model::Packed(p) => (json!({ "tables": m.tables.bits, "mlps": m.mlps.bits }), Some(p.device_bytes())),
            Model::Full(..) => (serde_json::Value::Null, None),
        };
        let s = &m.input.schema;
        json!({
            "engine": device.engine,
            "device": device.name,
            "reason": device.reason,
            "bits": bits,
            "bytes": self.bytes,
            "device_bytes": device_bytes,
            "batch": self.model.batch(),
            "step": m.step,
            "method": m.method,
            "tables": m.shape.tables(),
            "rows": m.shape.rows,
            "dim": m.shape.dim,
            "generator": m.input.generator.is_some(),
            "columns": {
                "separator": s.separator,
                "header": s.header,
                "label": s.label,
                "dense": s.dense,
                "categorical": s.categorical,
                "multi_hot": s.multi_hot,
                "multi_hot_separator": s.multi_hot_separator,
            },
        })
    }
}

impl Model {
    fn batch(&self) -> usize {
        match self {
            Model::Packed(p) => p.batch(),
            Model::Full(_, batch) => *batch,
        }
    }

    fn tables(&self) -> &Tables {
        match self {
            Model::Packed(p) => p.tables(),
            Model::Full(s, _) => s.tables(),
        }
    }

    fn device(&self) -> &DeviceInfo {
        match self {
            Model::Packed(p) => p.device(),
            Model::Full(s, _) => s.device(),
        }
    }

    async fn logits(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        match self {
            Model::Packed(p) => p.logits(batch).await,
            Model::Full(s, _) => s.logits(batch).await,
        }
    }
}

/// `strict`: no header, and malformed rows are errors.
fn reader(name: &str, inputs: &Inputs, strict: bool) -> Result<PushedRows> {
    let schema = &inputs.manifest.input.schema;
    let (schema, on_bad_row) = match strict {
        true => (&without_header(schema), OnBadRow::Error),
        false => (schema, OnBadRow::Skip),
    };
    PushedRows::new(name, schema, Labels::Optional, on_bad_row, inputs.mapper.limits())
}

/// The same columns in the order in which a schema names them, label first, for rows that come without a header.
fn without_header(schema: &Schema) -> Schema {
    let mut next = 1;
    let mut numbers = |columns: &[Column]| {
        let numbered = columns.iter().map(|column| match column {
            Column::Number(n) => Column::Number(*n),
            Column::Name(_) => {
                next += 1;
                Column::Number(next)
            }
        });
        numbered.collect::<Vec<_>>()
    };
    let (dense, categorical, multi_hot) = (numbers(&schema.dense), numbers(&schema.categorical), numbers(&schema.multi_hot));
    let label = match &schema.label {
        Column::Name(_) => Column::Number(1),
        number => number.clone(),
    };
    let width = schema.width.or(Some(next).filter(|&n| n > 1));
    Schema { header: false, label, dense, categorical, multi_hot, width, ..schema.clone() }
}

/// Writes all weights of a safetensors file to a session.
fn write_weights(session: &mut Session, file: &[u8], shape: &Shape) -> Result<()> {
    let fail = |reason: String| Error::Data(format!("the file of FP32 weights {reason}"));
    let frame = tensor_file::decode(file, file.len() as u64).map_err(fail)?;
    for tensor in Tensor::weights(shape) {
        let values = weight(&frame, file, &tensor).map_err(fail)?;
        session.write(&tensor.name, 0, &values)?;
    }
    Ok(())
}

fn weight(frame: &Frame, file: &[u8], tensor: &Tensor) -> std::result::Result<Vec<f32>, String> {
    let entry = frame.entry(&tensor.name).ok_or_else(|| format!("lacks the tensor `{}`", tensor.name))?;
    if entry.dtype != "F32" || entry.shape != tensor.shape {
        return Err(format!("holds `{}` as {} {:?}; F32 {:?} is needed", tensor.name, entry.dtype, entry.shape, tensor.shape));
    }
    let start = (frame.prefix + entry.start) as usize;
    let values: Vec<f32> = file[start..start + entry.bytes as usize].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    match values.iter().position(|v| !v.is_finite()) {
        Some(place) => Err(format!("has the value {} at place {place} of `{}`; it must be finite", values[place], tensor.name)),
        None => Ok(values),
    }
}

/// AUC, log loss and more of probabilities, as far as rows have labels. A probability that rounds to 0 or 1 counts as the last
/// one before it.
pub fn summary(probabilities: &[f32], labels: &[f32]) -> serde_json::Value {
    const LAST: f64 = 1.0 / (1 << 25) as f64;
    let logit = |p: f32| {
        let p = f64::from(p).clamp(LAST, 1.0 - LAST);
        (p / (1.0 - p)).ln() as f32
    };
    let (logits, labels): (Vec<f32>, Vec<f32>) =
        probabilities.iter().zip(labels).filter(|(_, t)| !t.is_nan()).map(|(&p, &t)| (logit(p), t)).unzip();
    if labels.is_empty() {
        return json!({ "samples": 0 });
    }
    let s = dqrm::metrics::Summary::from_logits(&logits, &labels);
    json!({
        "samples": s.samples,
        "auc": s.auc,
        "log_loss": s.log_loss,
        "accuracy": s.accuracy,
        "normalized_entropy": s.normalized_entropy,
        "calibration": s.calibration,
        "positive_rate": s.positive_rate,
    })
}
