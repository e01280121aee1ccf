//! Packed models: one safetensors file with the codes of the weights, their scales, and everything
//! needed to predict. This file says what a packed model is and checks bytes that claim to be one;
//! `write` makes them from a checkpoint, `file` maps them into memory, [`crate::predictor`] runs them.
//!
//! Tensors, in this order (byte by byte in `docs/FORMATS.md`):
//!
//! | name | type | shape |
//! |---|---|---|
//! | `emb_l.K.weight.scale` | F32 | `[1]`, or `[rows]` with a scale per row |
//! | `LAYER.weight.scale`, or `LAYER.weight` in FP32 | F32 | `[out]` or `[1]`; `[out, in]` |
//! | `LAYER.bias` | F32 | `[out]`, as the quantized network uses it |
//! | `emb_l.K.weight.codes` | U8 | `[rows, ceil(dim bits / 8)]` |
//! | `LAYER.weight.codes` | U8 | `[out, ceil(in bits / 8)]` |
//! | `dqrm.ids` | U8 | the id mapping as in a run's `ids.bin` |
//!
//! The codes of all tables lie one after another, so they are one region that the engine binds (or maps)
//! without looking at table borders.

pub use crate::engine::Bytes;
pub use manifest::{Coding, Generator, Input, Manifest};
pub use outline::Outline;
pub use parts::Parts;

use crate::model::{Layer, Network};
use crate::quant::pack;
use crate::tensor_file::{self, Entry};
use std::ops::Range;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

#[cfg(feature = "cli")]
mod file;
mod manifest;
mod outline;
mod output;
mod parts;
mod write;

#[cfg(feature = "cli")]
pub use file::{is_packed, open};
#[cfg(feature = "cli")]
pub use write::write;
pub use write::{Plan as WritePlan, Rule, Source, Written, encode};

/// The version of the format that is written. Every earlier one is read.
pub const VERSION: u64 = 1;
/// The note that tells a packed model from other files, with the version.
pub const VERSION_KEY: &str = "dqrm.packed";
/// The note with the [`Manifest`] as JSON.
pub const MANIFEST_KEY: &str = "dqrm.manifest";
/// XXH3 of the header and of everything but the tables' codes.
pub const CHECKSUM_KEY: &str = "dqrm.checksum";
/// XXH3 of the tables' codes.
pub const CODES_CHECKSUM_KEY: &str = "dqrm.codes_checksum";
/// The tensor with the id mapping.
pub const IDS: &str = "dqrm.ids";

/// A packed model whose header, scales, biases and sizes have been checked.
#[derive(Clone)]
pub struct Packed {
    memory: Memory,
    outline: Outline,
}

/// The bytes of a file.
#[derive(Clone)]
enum Memory {
    /// All of them.
    Whole(Bytes),
    /// Those before and behind the tables' codes, which are somewhere else.
    Around {
        /// Before.
        head: Arc<[u8]>,
        /// Behind.
        tail: Arc<[u8]>,
    },
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packed").field("manifest", self.manifest()).finish_non_exhaustive()
    }
}

/// A tensor that a packed model must have: name, type, dimensions.
pub(crate) type Wanted = (String, &'static str, Vec<u64>);

/// The tensors of a packed model, in the order of the file. `row_scales`: a scale for each embedding
/// row; `channels`: one for each output row of a matrix.
pub(crate) fn layout(m: &Manifest, row_scales: bool, channels: bool, ids: u64) -> Vec<Wanted> {
    let (network, rows) = (Network::new(&m.shape), &m.shape.rows);
    let stride = |bits, dim| pack::row_bytes(bits, dim) as u64;
    let mut list: Vec<Wanted> = Vec::new();
    for (k, &rows) in rows.iter().enumerate() {
        list.push((format!("emb_l.{k}.weight.scale"), "F32", vec![if row_scales { rows } else { 1 }]));
    }
    for layer in network.layers() {
        let (outputs, inputs) = (layer.linear.outputs as u64, layer.linear.inputs as u64);
        list.push(match m.mlps.bits.quantized() {
            true => (format!("{}.weight.scale", layer.name), "F32", vec![if channels { outputs } else { 1 }]),
            false => (format!("{}.weight", layer.name), "F32", vec![outputs, inputs]),
        });
        list.push((format!("{}.bias", layer.name), "F32", vec![outputs]));
    }
    for (k, &rows) in rows.iter().enumerate() {
        list.push((format!("emb_l.{k}.weight.codes"), "U8", vec![rows, stride(m.tables.bits, m.shape.dim)]));
    }
    for layer in network.layers().filter(|_| m.mlps.bits.quantized()) {
        let shape = vec![layer.linear.outputs as u64, stride(m.mlps.bits, layer.linear.inputs)];
        list.push((format!("{}.weight.codes", layer.name), "U8", shape));
    }
    list.push((IDS.into(), "U8", vec![ids]));
    list
}

impl Packed {
    /// Checks a whole file but for the codes of the tables, of which every value is possible.
    ///
    /// # Errors
    /// One sentence that goes on from the file's name: "is truncated: …".
    pub fn decode(bytes: Bytes) -> Result<Packed, String> {
        let all = (*bytes).as_ref();
        let outline = Outline::decode(all, all.len() as u64)?;
        let packed = Packed { memory: Memory::Whole(bytes), outline };
        packed.check_values()?;
        Ok(packed)
    }

    /// Everything but the tables' codes is what was written, and of use.
    fn check_values(&self) -> Result<(), String> {
        let (found, checksum) = (self.checksum()?, self.outline.checksum);
        if found != checksum {
            return Err(format!("was altered after it was written: its checksum is {found:016x}, it should be {checksum:016x}"));
        }
        self.check_floats()
    }

    /// Compares the codes of the tables with their checksum, which [`Packed::decode`] leaves out because
    /// it means reading all of the file. A model that came in pieces was compared then.
    ///
    /// # Errors
    /// Other codes than were written.
    pub fn verify(&self) -> Result<(), String> {
        let Memory::Whole(_) = self.memory else { return Ok(()) };
        let (found, should) = (xxhash_rust::xxh3::xxh3_64(self.slice(self.codes())), self.outline.codes_checksum);
        if found == should { Ok(()) } else { Err(parts::altered_codes(found, should)) }
    }

    /// XXH3 of everything but the tables' codes: the values, then the header with the digits of this
    /// very checksum as zeros (the header comes last because it holds the codes' checksum).
    fn checksum(&self) -> Result<u64, String> {
        let mut prefix = self.slice(0..self.outline.prefix()).to_vec();
        let place = tensor_file::checksum_place(&prefix, CHECKSUM_KEY).ok_or("has its checksum in another place than dqrm writes it")?;
        prefix[place..place + 16].fill(b'0');
        let codes = self.codes();
        let mut hash = Xxh3::new();
        hash.update(self.slice(prefix.len()..codes.start));
        hash.update(self.slice(codes.end..self.outline.size()));
        hash.update(&prefix);
        Ok(hash.digest())
    }

    /// Scales are finite and not negative, biases and FP32 weights finite.
    fn check_floats(&self) -> Result<(), String> {
        for entry in self.tensors().iter().filter(|e| e.dtype == "F32") {
            let scale = entry.name.ends_with(".scale");
            let bad = |v: f32| !v.is_finite() || (scale && v < 0.0);
            if let Some((i, v)) = floats(self.tensor(&entry.name)).enumerate().find(|(_, v)| bad(*v)) {
                let rule = if scale { "a scale is finite and not negative" } else { "it must be finite" };
                return Err(format!("has the value {v} at place {i} of `{}`; {rule}", entry.name));
            }
        }
        Ok(())
    }

    /// What the header says.
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// What the header says besides the tensors.
    pub fn manifest(&self) -> &Manifest {
        self.outline.manifest()
    }

    /// The memory that holds the whole file; none for a model that came in pieces.
    pub(crate) fn memory(&self) -> Option<Bytes> {
        match &self.memory {
            Memory::Whole(bytes) => Some(bytes.clone()),
            Memory::Around { .. } => None,
        }
    }

    /// The tensors of the file.
    pub fn tensors(&self) -> &[Entry] {
        self.outline.tensors()
    }

    /// The bytes of a tensor; none when there is no such tensor, and none of a table's codes when the model came in pieces.
    pub fn tensor(&self, name: &str) -> &[u8] {
        self.slice(self.outline.place(name))
    }

    /// A tensor of floats; empty when there is no such tensor.
    pub fn floats(&self, name: &str) -> Vec<f32> {
        floats(self.tensor(name)).collect()
    }

    /// The id mapping, as in a run's `ids.bin`.
    pub fn ids(&self) -> &[u8] {
        self.tensor(IDS)
    }

    /// Where the codes of all tables lie, in bytes of the file.
    pub fn codes(&self) -> Range<usize> {
        self.outline.codes()
    }

    /// True with a scale for each row of the tables.
    pub fn row_scales(&self) -> bool {
        self.outline.row_scales()
    }

    /// Bytes of the file; none that are not kept.
    pub(crate) fn slice(&self, range: Range<usize>) -> &[u8] {
        match &self.memory {
            Memory::Whole(bytes) => (**bytes).as_ref().get(range).unwrap_or(&[]),
            Memory::Around { head, tail } => {
                let behind = self.codes().end;
                if range.start < behind { head.get(range) } else { tail.get(range.start - behind..range.end - behind) }.unwrap_or(&[])
            }
        }
    }

    /// Values `start..start + rows` of table `table`, row-major, as FP32; nothing when the codes are not kept.
    pub fn table_rows(&self, table: usize, start: u64, rows: usize) -> Vec<f32> {
        let (codes, scales) = (self.tensor(&format!("emb_l.{table}.weight.codes")), self.tensor(&format!("emb_l.{table}.weight.scale")));
        let (dim, coding) = (self.manifest().shape.dim, self.manifest().tables);
        let stride = pack::row_bytes(coding.bits, dim);
        if self.memory().is_none() {
            return Vec::new();
        }
        let mut values = vec![0.0; rows * dim];
        for (i, out) in values.chunks_exact_mut(dim).enumerate() {
            let row = start as usize + i;
            let scale = floats(&scales[if scales.len() > 4 { 4 * row } else { 0 }..]).next().unwrap_or(0.0);
            pack::decode_row(&codes[row * stride..][..stride], coding.bits, scale, coding.offset, out);
        }
        values
    }

    /// The weight matrix of a layer, row-major, as FP32.
    pub fn layer_weights(&self, layer: &Layer) -> Vec<f32> {
        let coding = self.manifest().mlps;
        if !coding.bits.quantized() {
            return self.floats(&format!("{}.weight", layer.name));
        }
        let (codes, scales) = (self.tensor(&format!("{}.weight.codes", layer.name)), self.floats(&format!("{}.weight.scale", layer.name)));
        let (inputs, outputs) = (layer.linear.inputs, layer.linear.outputs);
        let stride = pack::row_bytes(coding.bits, inputs);
        let mut values = vec![0.0; inputs * outputs];
        for (o, out) in values.chunks_exact_mut(inputs).enumerate() {
            pack::decode_row(&codes[o * stride..][..stride], coding.bits, scales[o.min(scales.len() - 1)], coding.offset, out);
        }
        values
    }
}

/// Little-endian floats.
pub(crate) fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b))
}

#[cfg(all(test, feature = "cli"))]
pub(crate) mod tests;
