//! A file with weights of either kind, read in pieces.

use super::archive::{self, Entry, read_at};
use super::element::Element;
use super::names::{self, Part};
use super::pickle::{self, Pickle, RawTensor};
use super::shape::Dims;
use super::torch;
use crate::checkpoint::{self, CHUNK};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{Read, Seek};

/// A `.pt` file with more entries is refused.
pub const MAX_ENTRIES: usize = 1 << 17;

/// A PyTorch file from before version 1.6 begins with the pickle of this number.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// A weight of the file.
#[derive(Debug, Clone)]
pub struct Weight {
    /// The file's name for it.
    pub name: String,
    /// What it is.
    pub part: Part,
    /// Dimensions.
    pub shape: Vec<u64>,
    /// Type of its elements in the file.
    pub element: Element,
    place: Place,
}

impl Weight {
    /// Values in all.
    pub fn len(&self) -> u64 {
        self.shape.iter().product()
    }

    /// True when a dimension is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where a weight's values lie.
#[derive(Debug, Clone)]
struct Place {
    /// The first byte in the file.
    start: u64,
    /// Bytes from the first value to the last.
    len: u64,
    /// Elements from one value to the next along each dimension; `None` when they follow each other.
    strides: Option<Vec<u64>>,
    /// The entry of the zip file.
    entry: Option<Entry>,
}

/// A file with weights.
#[derive(Debug)]
pub struct Source<R> {
    reader: R,
    weights: BTreeMap<Part, Weight>,
    /// Names of tensors and other values that are no weights of a DLRM.
    pub ignored: Vec<String>,
    /// Entries whose checksum was compared, by where they begin.
    compared: HashSet<u64>,
    /// A weight whose values do not follow each other, as they lie in the file.
    strided: Option<(Part, Vec<u8>)>,
}

impl<R: Read + Seek> Source<R> {
    /// Opens a `.pt` or safetensors file of `size` bytes; which of them it is, its first bytes say.
    ///
    /// # Errors
    /// A file of neither kind, a `.pt` file that holds more than a state dict needs, names that do not
    /// belong to a DLRM. The values themselves are not yet read.
    pub fn new(mut reader: R, size: u64) -> Result<Source<R>, String> {
        let first = read_at(&mut reader, 0, size.min(LEGACY.len() as u64))?;
        let mut source = Source { reader, weights: BTreeMap::new(), ignored: Vec::new(), compared: HashSet::new(), strided: None };
        if first.starts_with(b"PK") {
            source.torch(size)?;
        } else if first == LEGACY {
            return Err(
                "is a PyTorch file from before version 1.6; with a current PyTorch, `torch.save(torch.load(f), f)` converts it".into()
            );
        } else if first.starts_with(&[0x80]) && first.get(8) != Some(&b'{') {
            return Err("is a bare pickle, not a file of torch.save; save the weights with torch.save(model.state_dict(), …)".into());
        } else {
            source.safetensors(size)?;
        }
        let bytes = source.weights.values().fold(0u64, |n, w| n.saturating_add(w.len().saturating_mul(w.element.bytes())));
        if bytes > size {
            return Err(format!(
                "refused: its weights would take {bytes} bytes, but the file has {size}; several of them share one storage"
            ));
        }
        Ok(source)
    }

    /// The weights.
    pub fn weights(&self) -> Vec<&Weight> {
        self.weights.values().collect()
    }

    /// The dimensions of every weight.
    pub fn dims(&self) -> Dims {
        self.weights.iter().map(|(&part, w)| (part, w.shape.clone())).collect()
    }

    /// Keeps a weight, or its name when it is none.
    fn add(
        &mut self,
        name: &str,
        element: Option<Element>,
        make: impl FnOnce(Element) -> Result<(Vec<u64>, Place), String>,
    ) -> Result<(), String> {
        let Some(part) = names::part(name)? else {
            self.ignored.push(name.to_owned());
            return Ok(());
        };
        let Some(element) = element.filter(|e| e.is_float()) else {
            let found = element.map_or("another type", Element::name);
            return Err(format!("holds `{name}` as {found}; weights may be F32, F64, F16 or BF16"));
        };
        if let Some(other) = self.weights.get(&part) {
            return Err(format!("refused: `{}` and `{name}` both mean `{part}`", other.name));
        }
        let (shape, place) = make(element).map_err(|reason| format!("refused: the tensor `{name}` {reason}"))?;
        self.weights.insert(part, Weight { name: name.to_owned(), part, shape, element, place });
        Ok(())
    }

    fn safetensors(&mut self, size: u64) -> Result<(), String> {
        let first = read_at(&mut self.reader, 0, size.min(9))?;
        if first.get(8) != Some(&b'{') {
            return Err("is neither a `.pt` nor a safetensors file".into());
        }
        let len = checkpoint::header_len(&first, size)?;
        let header = checkpoint::decode(&read_at(&mut self.reader, 0, 8 + len)?, size)?;
        for entry in header.tensors {
            self.add(&entry.name, Element::from_safetensors(&entry.dtype), |element| {
                let count: u64 = entry.shape.iter().product();
                let start = 8 + len + entry.start;
                Ok((entry.shape.clone(), Place { start, len: count * element.bytes(), strides: None, entry: None }))
            })?;
        }
        Ok(())
    }

    fn torch(&mut self, size: u64) -> Result<(), String> {
        let entries = archive::directory(&mut self.reader, size)?;
        if entries.len() > MAX_ENTRIES {
            return Err(format!("has {} entries, more than the limit of {MAX_ENTRIES}", entries.len()));
        }
        let root = root(&entries)?;
        let entries: HashMap<&str, &Entry> = entries.iter().map(|e| (e.name.as_str(), e)).collect();
        if let Some(entry) = entries.get(format!("{root}/byteorder").as_str()) {
            let order = read_at(&mut self.reader, entry.start, entry.len.min(16))?;
            if order != b"little" {
                return Err(format!(
                    "refused: its numbers are in `{}` byte order; only little-endian files are read",
                    order.escape_ascii()
                ));
            }
        }
        let Some(&entry) = entries.get(format!("{root}/data.pkl").as_str()) else {
            return Err(format!("is no file of torch.save: it has no `{root}/data.pkl`"));
        };
        if entry.len > pickle::MAX_PICKLE {
            return Err(format!("its pickle has {} bytes, more than the limit of {}", entry.len, pickle::MAX_PICKLE));
        }
        self.compare(entry)?;
        let pickle = pickle::decode(&read_at(&mut self.reader, entry.start, entry.len)?)?;
        let found = torch::state_dict(&pickle)?;
        for (name, tensor) in &found.tensors {
            self.add(name, Some(tensor.element), |element| place(&pickle, tensor, element, &root, &entries))?;
        }
        self.ignored.extend(found.others.iter().map(|&name| name.to_owned()));
        Ok(())
    }

    /// Compares an entry with its checksum, where PyTorch made one; once.
    fn compare(&mut self, entry: &Entry) -> Result<(), String> {
        if entry.crc == 0 || !self.compared.insert(entry.start) {
            return Ok(());
        }
        let mut crc = flate2::Crc::new();
        let (mut at, end) = (entry.start, entry.start + entry.len);
        while at < end {
            let piece = read_at(&mut self.reader, at, (end - at).min(4 * CHUNK as u64))?;
            crc.update(&piece);
            at += piece.len() as u64;
        }
        if crc.sum() != entry.crc {
            return Err(format!(
                "was altered or damaged: the checksum of `{}` is {:08x}, it should be {:08x}",
                entry.name,
                crc.sum(),
                entry.crc
            ));
        }
        Ok(())
    }

    /// Values `start..start + len` of a weight, row-major, as `f32`.
    ///
    /// # Errors
    /// No such weight, a range beyond it, bytes that cannot be read or do not fit their checksum.
    pub fn read(&mut self, part: Part, start: u64, len: usize) -> Result<Vec<f32>, String> {
        let weight = self.weights.get(&part).ok_or_else(|| format!("has no tensor `{part}`"))?;
        let fits = start.checked_add(len as u64).is_some_and(|end| end <= weight.len());
        if !fits {
            return Err(format!("has {} values in `{part}`, not {start} + {len}", weight.len()));
        }
        let Weight { element, place, shape, .. } = weight.clone();
        if let Some(entry) = &place.entry {
            self.compare(entry)?;
        }
        let mut values = Vec::with_capacity(len);
        let Some(strides) = place.strides else {
            let bytes = read_at(&mut self.reader, place.start + start * element.bytes(), len as u64 * element.bytes())?;
            element.decode(&bytes, &mut values);
            return Ok(values);
        };
        if self.strided.as_ref().is_none_or(|(kept, _)| *kept != part) {
            self.strided = None; // before the next one is read: two would be too many
            self.strided = Some((part, read_at(&mut self.reader, place.start, place.len)?));
        }
        let bytes = self.strided.as_ref().map_or(&[][..], |(_, bytes)| bytes);
        let wide = element.bytes();
        for i in start..start + len as u64 {
            let at = element_of(i, &shape, &strides) * wide;
            element.decode(bytes.get(at as usize..(at + wide) as usize).unwrap_or(&[]), &mut values);
        }
        Ok(values)
    }
}

/// The element that is value `i` in row-major order.
fn element_of(mut i: u64, shape: &[u64], strides: &[u64]) -> u64 {
    let mut at = 0;
    for (&d, &s) in shape.iter().zip(strides).rev() {
        at += (i % d) * s;
        i /= d;
    }
    at
}

/// The folder that all entries of a PyTorch file lie in.
fn root(entries: &[Entry]) -> Result<String, String> {
    let mut roots = entries.iter().filter_map(|e| e.name.strip_suffix("/data.pkl")).filter(|root| !root.contains('/'));
    let root = roots.next().ok_or("is a zip file, but no file of torch.save: it has no `data.pkl`")?;
    if let Some(second) = roots.next() {
        return Err(format!("refused: has two pickles, `{root}/data.pkl` and `{second}/data.pkl`"));
    }
    if entries.iter().any(|e| e.name == format!("{root}/constants.pkl")) {
        return Err("is a TorchScript file, which holds a program; save the weights alone with torch.save(model.state_dict(), …)".into());
    }
    Ok(root.to_owned())
}

/// Where a tensor's values lie in the file.
fn place(
    pickle: &Pickle,
    tensor: &RawTensor,
    element: Element,
    root: &str,
    entries: &HashMap<&str, &Entry>,
) -> Result<(Vec<u64>, Place), String> {
    let key = pickle.text(tensor.storage).unwrap_or("");
    let name = format!("{root}/data/{key}");
    let Some(&entry) = entries.get(name.as_str()) else {
        return Err(format!("lies in `{}`, which the file does not have", name.escape_debug()));
    };
    let claimed = u64::try_from(tensor.storage_len).ok().and_then(|n| n.checked_mul(element.bytes()));
    if claimed != Some(entry.len) {
        return Err(format!(
            "claims a storage of {} {} elements, but `{name}` has {} bytes",
            tensor.storage_len,
            element.name(),
            entry.len
        ));
    }
    let span = torch::span(tensor)?;
    let (offset, len) = (span.offset * element.bytes(), span.len * element.bytes());
    Ok((span.shape, Place { start: entry.start + offset, len, strides: span.strides, entry: Some(entry.clone()) }))
}
