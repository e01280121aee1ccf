//! The frame of a safetensors file (format of huggingface/safetensors): eight bytes with the header's
//! length, the header in JSON, the values. Bytes in, values out; every length is checked against the
//! file's own size before memory is taken for it.

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::ser::SerializeMap;
use std::collections::{BTreeMap, HashMap};

/// A header larger than this is refused, in bytes.
pub const MAX_HEADER: u64 = 64 << 20;

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// Its element type as safetensors spells it: `F32`, `U8`, `BF16` ….
    pub dtype: String,
    /// Where its bytes begin after the header.
    pub start: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Frame {
    /// `__metadata__`.
    pub notes: HashMap<String, String>,
    /// The tensors, in the order of the file; they fill it without gap or overlap.
    pub tensors: Vec<Entry>,
    /// Each name's place in `tensors`.
    index: HashMap<String, usize>,
    /// Bytes before the first value.
    pub prefix: u64,
}

impl Frame {
    /// The tensor of that name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.index.get(name).map(|&k| &self.tensors[k])
    }
}

/// The header's length in bytes, from the first eight bytes of a file of `size` bytes.
///
/// # Errors
/// Too few bytes, and a length beyond the file or beyond [`MAX_HEADER`].
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

/// The header of a file of `size` bytes; `prefix` is its length and text, and may go on. The tensors
/// must lie one after the other without gap or overlap and fill the file exactly.
///
/// # Errors
/// One sentence that goes on from the file's name: "is truncated: …".
pub fn decode(prefix: &[u8], size: u64) -> Result<Frame, String> {
    let len = header_len(prefix, size)?;
    let text = prefix.get(8..8 + len as usize).ok_or_else(|| "is truncated inside its header".to_owned())?;
    let meta: Metadata = serde_json::from_slice(text).map_err(|e| format!("has a header that cannot be used: {e}"))?;
    let claimed = (8 + len).checked_add(meta.data_len() as u64).ok_or_else(|| "claims more bytes than a file can have".to_owned())?;
    if claimed != size {
        let what = if size < claimed { "is truncated" } else { "is longer than its header says" };
        return Err(format!("{what}: the header stands for {claimed} bytes, the file has {size}"));
    }
    let describe = |name: String| {
        let info = meta.info(&name)?;
        let shape = info.shape.iter().map(|&d| d as u64).collect();
        let (start, end) = info.data_offsets;
        Some(Entry { shape, dtype: format!("{:?}", info.dtype), start: start as u64, bytes: (end - start) as u64, name })
    };
    let tensors: Vec<Entry> = meta.offset_keys().into_iter().filter_map(describe).collect();
    let index = tensors.iter().enumerate().map(|(k, t)| (t.name.clone(), k)).collect();
    Ok(Frame { notes: meta.metadata().clone().unwrap_or_default(), tensors, index, prefix: 8 + len })
}

/// A header whose keys stand in a fixed order, so that equal content gives equal files.
struct Ordered<'a> {
    notes: &'a BTreeMap<&'static str, String>,
    tensors: Vec<(&'a str, TensorInfo)>,
}

impl serde::Serialize for Ordered<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.tensors.len() + 1))?;
        map.serialize_entry("__metadata__", self.notes)?;
        for (name, info) in &self.tensors {
            map.serialize_entry(name, info)?;
        }
        map.end()
    }
}

/// The bytes before the values: the header's length, the header, spaces up to a multiple of
/// `alignment` (of 8 or more). `tensors` are (name, type, dimensions) in the order of the file.
///
/// # Errors
/// Sizes that do not fit this computer's word.
pub fn encode(notes: &BTreeMap<&'static str, String>, tensors: &[(&str, Dtype, &[u64])], alignment: usize) -> Result<Vec<u8>, String> {
    let mut start = 0usize;
    let mut listed = Vec::with_capacity(tensors.len());
    for &(name, dtype, shape) in tensors {
        let shape: Vec<usize> =
            shape.iter().map(|&d| usize::try_from(d)).collect::<Result<_, _>>().map_err(|_| "a dimension is too large")?;
        let bytes = shape.iter().try_fold(dtype.bitsize() / 8, |n, &d| n.checked_mul(d)).ok_or("a tensor is too large")?;
        let end = start.checked_add(bytes).ok_or("the tensors are too large")?;
        listed.push((name, TensorInfo { dtype, shape, data_offsets: (start, end) }));
        start = end;
    }
    let mut text = serde_json::to_vec(&Ordered { notes, tensors: listed }).map_err(|e| e.to_string())?;
    text.resize((text.len() + 8).next_multiple_of(alignment.max(8)) - 8, b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    Ok(bytes)
}

/// Sixteen hexadecimal digits.
pub fn checksum_text(value: u64) -> String {
    format!("{value:016x}")
}

/// Where in the bytes of a header the sixteen digits of the checksum `key` begin.
pub fn checksum_place(prefix: &[u8], key: &str) -> Option<usize> {
    let mark = format!("\"{key}\":\"");
    let place = prefix.windows(mark.len()).position(|w| w == mark.as_bytes())? + mark.len();
    prefix.get(place..place + 16)?.iter().all(u8::is_ascii_hexdigit).then_some(place)
}

/// The checksum `key` of the notes, where there is one.
///
/// # Errors
/// Text that is not sixteen hexadecimal digits.
pub fn checksum(notes: &HashMap<String, String>, key: &str) -> Result<Option<u64>, String> {
    match notes.get(key) {
        Some(text) if text.len() == 16 => {
            Ok(Some(u64::from_str_radix(text, 16).map_err(|_| format!("has the checksum `{text}`, which is not hexadecimal"))?))
        }
        Some(text) => Err(format!("has the checksum `{text}`, which has not 16 digits")),
        None => Ok(None),
    }
}
