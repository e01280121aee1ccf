//! The header of a safetensors file: bytes in, values out.

use super::State;
use crate::config::Shape;
use crate::error::{Error, Result};
use crate::session::Tensor;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::ser::SerializeMap;
use std::collections::{BTreeMap, HashMap};

/// A header larger than this is refused, in bytes.
pub const MAX_HEADER: u64 = 64 << 20;

/// The checksum's key and the quote before its digits, as [`encode`] writes them.
const MARK: &[u8] = b"\"dqrm.checksum\":\"";

/// One tensor of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// Its element type as safetensors spells it: `F32`, `BF16` ….
    pub dtype: String,
    /// Where its bytes begin after the header.
    pub start: u64,
}

/// What the header of a checkpoint says. A file of another origin has tensors and nothing else.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Steps done.
    pub step: u64,
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
    /// Each name's place in `tensors`.
    index: HashMap<String, usize>,
}

impl Header {
    /// The tensor of that name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.index.get(name).map(|&k| &self.tensors[k])
    }
}

/// A safetensors header whose keys stand in a fixed order, so that equal states give equal files.
struct Ordered<'a> {
    metadata: BTreeMap<&'static str, String>,
    tensors: Vec<(&'a str, TensorInfo)>,
}

impl serde::Serialize for Ordered<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.tensors.len() + 1))?;
        map.serialize_entry("__metadata__", &self.metadata)?;
        for (name, info) in &self.tensors {
            map.serialize_entry(name, info)?;
        }
        map.end()
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
    if state.provisional {
        metadata.insert("dqrm.provisional", "true".to_owned());
    }
    let mut start = 0usize;
    let mut listed = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let shape = tensor
            .shape
            .iter()
            .map(|&d| usize::try_from(d))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| fail("a dimension is too large"))?;
        let bytes = shape.iter().try_fold(4usize, |n, &d| n.checked_mul(d)).ok_or_else(|| fail("a tensor is too large"))?;
        let end = start.checked_add(bytes).ok_or_else(|| fail("the tensors are too large"))?;
        listed.push((tensor.name.as_str(), TensorInfo { dtype: Dtype::F32, shape, data_offsets: (start, end) }));
        start = end;
    }
    let mut text = serde_json::to_vec(&Ordered { metadata, tensors: listed }).map_err(|e| fail(&e.to_string()))?;
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    Ok(bytes)
}

/// Sixteen hexadecimal digits.
pub(super) fn checksum_text(value: u64) -> String {
    format!("{value:016x}")
}

/// Where the checksum's digits begin.
pub(super) fn checksum_place(prefix: &[u8]) -> Option<usize> {
    let place = prefix.windows(MARK.len()).position(|w| w == MARK)? + MARK.len();
    prefix.get(place..place + 16)?.iter().all(u8::is_ascii_hexdigit).then_some(place)
}

/// The header's length in bytes, from the first eight bytes of a file of `size` bytes.
///
/// # Errors
/// A length beyond the limit or the file.
pub fn header_len(first: &[u8], size: u64) -> Result<u64, String> {
    let Some(bytes) = first.first_chunk::<8>() else {
        return Err(format!("has {size} bytes; a safetensors file begins with 8 bytes that give its header's length"));
    };
    let len = u64::from_le_bytes(*bytes);
    if len > MAX_HEADER {
        return Err(format!("is not a safetensors file: its header would have {len} bytes, more than the limit of {MAX_HEADER}"));
    }
    if len + 8 > size {
        return Err(format!("is truncated: its header alone has {len} bytes, but the file has only {size}"));
    }
    Ok(len)
}

/// The header of a file of `size` bytes; `prefix` is its length and text. The tensors must lie one
/// after the other without gap or overlap and fill the file exactly.
pub fn decode(prefix: &[u8], size: u64) -> Result<Header, String> {
    let len = header_len(prefix, size)?;
    let text = prefix.get(8..).filter(|t| t.len() as u64 == len).ok_or_else(|| "is truncated inside its header".to_owned())?;
    let meta: Metadata = serde_json::from_slice(text).map_err(|e| format!("has a header that cannot be used: {e}"))?;
    let claimed = (8 + len).checked_add(meta.data_len() as u64).ok_or_else(|| "claims more bytes than a file can have".to_owned())?;
    if claimed != size {
        let what = if size < claimed { "is truncated" } else { "is longer than its header says" };
        return Err(format!("{what}: the header stands for {claimed} bytes, the file has {size}"));
    }
    let none = HashMap::new();
    let notes = meta.metadata().as_ref().unwrap_or(&none);
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
    let checksum = match notes.get("dqrm.checksum") {
        Some(text) if text.len() == 16 => {
            Some(u64::from_str_radix(text, 16).map_err(|_| format!("has the checksum `{text}`, which is not hexadecimal"))?)
        }
        Some(text) => return Err(format!("has the checksum `{text}`, which has not 16 digits")),
        None => None,
    };
    let tensors = entries(&meta);
    let index = tensors.iter().enumerate().map(|(k, t)| (t.name.clone(), k)).collect();
    let (step, epoch, lines) = (number("dqrm.step")?, number("dqrm.epoch")?, number("dqrm.lines")?);
    let provisional = notes.contains_key("dqrm.provisional");
    Ok(Header { step, epoch, lines, validation_auc, provisional, shape, checksum, tensors, index })
}

/// The tensors in the order of the file.
fn entries(meta: &Metadata) -> Vec<Entry> {
    let describe = |name: String| {
        let info = meta.info(&name)?;
        let shape = info.shape.iter().map(|&d| d as u64).collect();
        Some(Entry { shape, dtype: format!("{:?}", info.dtype), start: info.data_offsets.0 as u64, name })
    };
    meta.offset_keys().into_iter().filter_map(describe).collect()
}
