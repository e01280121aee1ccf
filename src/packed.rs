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

use crate::model::{Layer, Network};
use crate::quant::pack;
use crate::tensor_file::{self, Entry, Frame};
use std::ops::Range;
use xxhash_rust::xxh3::Xxh3;

#[cfg(feature = "cli")]
mod file;
mod manifest;
#[cfg(feature = "cli")]
mod output;
#[cfg(feature = "cli")]
mod write;

#[cfg(feature = "cli")]
pub use file::{is_packed, open};
#[cfg(feature = "cli")]
pub use write::{Plan as WritePlan, Rule, Source, Written, write};

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
    bytes: Bytes,
    frame: Frame,
    manifest: Manifest,
    codes_checksum: u64,
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packed").field("manifest", &self.manifest).finish_non_exhaustive()
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
        let frame = tensor_file::decode(all, all.len() as u64)?;
        let manifest = read_manifest(&frame)?;
        manifest.check(all.len() as u64)?;
        let dims = |name: &str| frame.entry(name).map(|e| e.shape.clone()).unwrap_or_default();
        let ids = dims(IDS).first().copied().unwrap_or(0);
        // A table or a layer of one row is the same either way.
        let row_scales = manifest.shape.rows.iter().enumerate().any(|(k, _)| dims(&format!("emb_l.{k}.weight.scale")) != [1]);
        let network = Network::new(&manifest.shape);
        let channels = network.layers().any(|l| dims(&format!("{}.weight.scale", l.name)) != [1]);
        compare(&frame.tensors, &layout(&manifest, row_scales, channels, ids))?;
        let sum = |key| tensor_file::checksum(&frame.notes, key)?.ok_or_else(|| format!("has no `{key}`"));
        let (checksum, codes_checksum) = (sum(CHECKSUM_KEY)?, sum(CODES_CHECKSUM_KEY)?);
        let packed = Packed { bytes, frame, manifest, codes_checksum };
        let found = packed.checksum()?;
        if found != checksum {
            return Err(format!("was altered after it was written: its checksum is {found:016x}, it should be {checksum:016x}"));
        }
        packed.check_floats()?;
        Ok(packed)
    }

    /// Compares the codes of the tables with their checksum, which [`Packed::decode`] leaves out because
    /// it means reading all of the file.
    ///
    /// # Errors
    /// Other codes than were written.
    pub fn verify(&self) -> Result<(), String> {
        let found = xxhash_rust::xxh3::xxh3_64(&self.bytes()[self.codes()]);
        if found != self.codes_checksum {
            let should = self.codes_checksum;
            return Err(format!(
                "has tables that were altered after they were written: their checksum is {found:016x}, it should be {should:016x}"
            ));
        }
        Ok(())
    }

    /// XXH3 of everything but the tables' codes: the values, then the header with the digits of this
    /// very checksum as zeros (the header comes last because it holds the codes' checksum).
    fn checksum(&self) -> Result<u64, String> {
        let all = self.bytes();
        let mut prefix = all[..self.frame.prefix as usize].to_vec();
        let place = tensor_file::checksum_place(&prefix, CHECKSUM_KEY).ok_or("has its checksum in another place than dqrm writes it")?;
        prefix[place..place + 16].fill(b'0');
        let codes = self.codes();
        let mut hash = Xxh3::new();
        hash.update(&all[prefix.len()..codes.start]);
        hash.update(&all[codes.end..]);
        hash.update(&prefix);
        Ok(hash.digest())
    }

    /// Scales are finite and not negative, biases and FP32 weights finite.
    fn check_floats(&self) -> Result<(), String> {
        for entry in self.frame.tensors.iter().filter(|e| e.dtype == "F32") {
            let scale = entry.name.ends_with(".scale");
            let bad = |v: f32| !v.is_finite() || (scale && v < 0.0);
            if let Some((i, v)) = floats(self.slice(entry)).enumerate().find(|(_, v)| bad(*v)) {
                let rule = if scale { "a scale is finite and not negative" } else { "it must be finite" };
                return Err(format!("has the value {v} at place {i} of `{}`; {rule}", entry.name));
            }
        }
        Ok(())
    }

    /// What the header says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// All bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    /// The memory that holds the file.
    pub(crate) fn memory(&self) -> Bytes {
        self.bytes.clone()
    }

    /// The tensors of the file.
    pub fn tensors(&self) -> &[Entry] {
        &self.frame.tensors
    }

    /// The bytes of a tensor; none when there is no such tensor.
    pub fn tensor(&self, name: &str) -> &[u8] {
        self.frame.entry(name).map_or(&[], |e| self.slice(e))
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
        self.span("emb_l.0.weight.codes", &format!("emb_l.{}.weight.codes", self.manifest.shape.tables() - 1))
    }

    /// Where the scales of all tables lie, in bytes of the file.
    pub fn table_scales(&self) -> Range<usize> {
        self.span("emb_l.0.weight.scale", &format!("emb_l.{}.weight.scale", self.manifest.shape.tables() - 1))
    }

    /// True with a scale for each row of the tables.
    pub fn row_scales(&self) -> bool {
        self.table_scales().len() as u64 != 4 * self.manifest.shape.tables() as u64
    }

    fn span(&self, first: &str, last: &str) -> Range<usize> {
        let range = |name| self.frame.entry(name).map_or(0..0, |e| self.range(e));
        range(first).start..range(last).end
    }

    fn range(&self, entry: &Entry) -> Range<usize> {
        let start = (self.frame.prefix + entry.start) as usize;
        start..start + entry.bytes as usize
    }

    fn slice(&self, entry: &Entry) -> &[u8] {
        &self.bytes()[self.range(entry)]
    }

    /// Values `start..start + rows` of table `table`, row-major, as FP32.
    pub fn table_rows(&self, table: usize, start: u64, rows: usize) -> Vec<f32> {
        let (codes, scales) = (self.tensor(&format!("emb_l.{table}.weight.codes")), self.tensor(&format!("emb_l.{table}.weight.scale")));
        let (dim, coding) = (self.manifest.shape.dim, self.manifest.tables);
        let stride = pack::row_bytes(coding.bits, dim);
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
        let coding = self.manifest.mlps;
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

fn read_manifest(frame: &Frame) -> Result<Manifest, String> {
    let Some(version) = frame.notes.get(VERSION_KEY) else {
        return Err(format!("is not a packed model: it has no `{VERSION_KEY}`; `dqrm pack` makes one from a run's folder"));
    };
    let number: u64 = version.parse().map_err(|_| format!("has `{VERSION_KEY}` = `{version}`, which is not a whole number"))?;
    if number == 0 || number > VERSION {
        return Err(format!(
            "has version {number} of the packed format; this program reads versions 1 to {VERSION}; a newer dqrm may read it"
        ));
    }
    let text = frame.notes.get(MANIFEST_KEY).ok_or_else(|| format!("has no `{MANIFEST_KEY}`"))?;
    serde_json::from_str(text).map_err(|e| format!("has a `{MANIFEST_KEY}` that cannot be used: {e}"))
}

/// The file's tensors are exactly those wanted, in that order.
fn compare(found: &[Entry], wanted: &[Wanted]) -> Result<(), String> {
    for (i, (name, dtype, shape)) in wanted.iter().enumerate() {
        let Some(entry) = found.get(i) else { return Err(format!("lacks the tensor `{name}`")) };
        if entry.name != *name {
            return Err(format!("has the tensor `{}` where `{name}` should be", entry.name));
        }
        if entry.dtype != *dtype || entry.shape != *shape {
            return Err(format!("holds `{name}` as {} {:?}; {dtype} {shape:?} is needed", entry.dtype, entry.shape));
        }
    }
    match found.get(wanted.len()) {
        Some(extra) => Err(format!("has a tensor `{}` that no packed model has", extra.name)),
        None => Ok(()),
    }
}

/// Little-endian floats.
pub(crate) fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b))
}

#[cfg(all(test, feature = "cli"))]
pub(crate) mod tests;
