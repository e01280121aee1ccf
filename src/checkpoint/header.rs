//! The header of a safetensors file: bytes in, values out.

use super::State;
use crate::config::Shape;
use crate::error::{Error, Result};
use crate::session::Tensor;
use crate::tensor_file::{self, Entry, Frame, checksum_text};
use safetensors::Dtype;
use std::collections::BTreeMap;

/// The key of the checksum.
pub(super) const CHECKSUM: &str = "dqrm.checksum";

/// What the header of a checkpoint says. A file of another origin has tensors and nothing else.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Steps done.
    pub step: u64,
    /// Workers that made them together; 0 without workers.
    pub workers: u64,
    /// Epochs finished.
    pub epoch: u64,
    /// Lines of `metrics.jsonl` written before it.
    pub lines: u64,
    /// AUC on the validation part, where it was measured.
    pub validation_auc: Option<f64>,
    /// Measured where a run was cut short, not where its settings ask for an evaluation.
    pub provisional: bool,
    /// The model's shape.
    pub shape: Option<Shape>,
    /// XXH3 of the file with these digits as zeros.
    pub checksum: Option<u64>,
    /// The tensors, in the order of the file.
    pub tensors: Vec<Entry>,
    frame: Frame,
}

impl Header {
    /// The tensor of that name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.frame.entry(name)
    }
}

/// The bytes before the values: the header's length, the header, spaces up to a multiple of 8.
/// The checksum's digits are zeros.
///
/// # Errors
/// A model so large that its sizes do not fit this computer's word.
pub fn encode(state: &State, tensors: &[Tensor]) -> Result<Vec<u8>> {
    let fail = |what: &str| Error::Config(format!("a checkpoint of this model cannot be written: {what}"));
    let mut metadata = BTreeMap::from([
        ("format", "pt".to_owned()),
        ("dqrm.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("dqrm.step", state.step.to_string()),
        ("dqrm.epoch", state.epoch.to_string()),
        ("dqrm.lines", state.lines.to_string()),
        ("dqrm.shape", serde_json::to_string(&state.shape).map_err(|e| fail(&e.to_string()))?),
        ("dqrm.checksum", checksum_text(0)),
    ]);
    if let Some(auc) = state.validation_auc {
        metadata.insert("dqrm.validation_auc", auc.to_string());
    }
    if state.workers > 0 {
        metadata.insert("dqrm.workers", state.workers.to_string());
    }
    if state.provisional {
        metadata.insert("dqrm.provisional", "true".to_owned());
    }
    let listed: Vec<(&str, Dtype, &[u64])> = tensors.iter().map(|t| (t.name.as_str(), Dtype::F32, t.shape.as_slice())).collect();
    tensor_file::encode(&metadata, &listed, 8).map_err(|e| fail(&e))
}

/// The header of a file of `size` bytes; `prefix` is its length and text. The tensors must lie one
/// after the other without gap or overlap and fill the file exactly.
pub fn decode(prefix: &[u8], size: u64) -> Result<Header, String> {
    let frame = tensor_file::decode(prefix, size)?;
    let notes = &frame.notes;
    let number = |key: &str| match notes.get(key) {
        Some(text) => text.parse::<u64>().map_err(|_| format!("has `{key}` = `{text}`, which is not a whole number")),
        None => Ok(0),
    };
    let validation_auc = match notes.get("dqrm.validation_auc") {
        Some(text) => match text.parse::<f64>() {
            Ok(auc) if (0.0..=1.0).contains(&auc) => Some(auc),
            _ => return Err(format!("has `dqrm.validation_auc` = `{text}`, which is not a number from 0 to 1")),
        },
        None => None,
    };
    let shape = match notes.get("dqrm.shape") {
        Some(text) => {
            let shape: Shape = serde_json::from_str(text).map_err(|e| format!("has a `dqrm.shape` that cannot be used: {e}"))?;
            shape.validate().map_err(|e| format!("has a `dqrm.shape` that cannot be used: {e}"))?;
            Some(shape)
        }
        None => None,
    };
    let checksum = tensor_file::checksum(notes, CHECKSUM)?;
    let (step, workers, epoch, lines) = (number("dqrm.step")?, number("dqrm.workers")?, number("dqrm.epoch")?, number("dqrm.lines")?);
    let provisional = notes.contains_key("dqrm.provisional");
    let tensors = frame.tensors.clone();
    Ok(Header { step, workers, epoch, lines, validation_auc, provisional, shape, checksum, tensors, frame })
}
