//! ONNX models for any runtime: standard operators of opset 18, tables as small as in the packed file.
//!
//! `graph` and `tables` write the network down as nodes, `proto` is what of ONNX's messages they need,
//! `write` puts a model's bytes on the disk tensor by tensor.
//!
//! # What goes in and out
//!
//! | name | type | shape | what |
//! |---|---|---|---|
//! | `dense` | float | `[batch, D]` | dense columns as in the data; the transformation is in the graph |
//! | `ids` | int64 | `[batch, K]` | row numbers for the one-hot tables, when there are any |
//! | `ids_k` | int64 | `[batch, any]` | row numbers for table k when it is multi-hot, filled up with -1 |
//! | `probability` | float | `[batch]` | sigmoid of the logit |
//! | `logit` | float | `[batch]` | what the top MLP gives |
//!
//! The model's notes (`metadata_props`) say how raw categories become row numbers: see [`notes`].
//!
//! # Packed tables
//!
//! The initializers of a quantized model hold the very bytes of the packed file. A graph gathers the rows
//! that a batch asks for, as bytes, and unpacks those: flip the sign bits (`BitwiseXor`), take the codes
//! apart (`BitwiseAnd`, `BitShift`), put them in order (`Concat`, `Reshape`), subtract what the flip
//! added and multiply by the scale (`DequantizeLinear`). No node gives a whole table.

use crate::config::Ids;
use crate::data::ids;
use crate::error::{Error, Result};
use crate::packed::{Manifest, Packed, Source};
use crate::whole_file;
use graph::{Initializer, Weights};
use std::path::{Path, PathBuf};
use write::{Layout, Put};

mod graph;
mod proto;
mod tables;
#[cfg(test)]
mod tests;
mod write;

/// The operator set: the first one with `BitwiseAnd` and `BitwiseXor`.
pub const OPSET: i64 = 18;
/// The version of the format that came with [`OPSET`].
pub const IR_VERSION: i64 = 8;
/// Bytes moved at once.
const PIECE: usize = 1 << 20;

/// How a model is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Tensors of a kilobyte or more go into a file of their own, `NAME.data`. Models of 2 GiB or more,
    /// which an ONNX file cannot hold, are written so in any case.
    pub external_data: bool,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Written {
    /// Bytes of the model's file.
    pub bytes: u64,
    /// The file with the large tensors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Bytes of that file.
    pub data_bytes: u64,
}

/// The file beside `path` that takes large tensors.
pub fn data_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".data");
    PathBuf::from(name)
}

/// Writes a packed model as ONNX. `progress` gets (bytes done, in all).
///
/// # Errors
/// A full disk, a folder that does not exist.
pub fn write_packed(path: &Path, packed: &Packed, options: Options, progress: &mut dyn FnMut(u64, u64)) -> Result<Written> {
    let m = packed.manifest();
    let floats = |k| packed.floats(&format!("emb_l.{k}.weight.scale"));
    let table_scales = if packed.row_scales() { Vec::new() } else { (0..m.shape.tables()).flat_map(floats).collect() };
    let network = crate::model::Network::new(&m.shape);
    let scales = |name: &str| packed.tensor(&format!("{name}.weight.scale")).len() as u64 / 4;
    let layer_scales = network.layers().map(|l| scales(&l.name)).collect();
    let weights = Weights { manifest: m, table_scales, layer_scales };
    let copy = &mut |tensor: &Initializer, put: &mut Put<'_>| packed.tensor(&tensor.name).chunks(PIECE).try_for_each(put);
    write(path, &weights, packed.ids(), options, copy, progress)
}

/// Writes weights in FP32 as ONNX. `manifest` says what the network is and what goes in, its two grids
/// have no width; of the id mapping `ids` the first [`ids::HEADER`] bytes are enough.
///
/// # Errors
/// Weights that cannot be read; as [`write_packed`].
pub fn write_full(
    path: &Path,
    manifest: &Manifest,
    ids: &[u8],
    source: &mut dyn Source,
    options: Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Written> {
    if manifest.tables.bits.quantized() || manifest.mlps.bits.quantized() {
        return Err(Error::Config("weights in FP32 have no codes; pack the run and write the packed file".into()));
    }
    let layers = manifest.shape.bottom.len() + manifest.shape.top.len() - 2;
    let weights = Weights { manifest, table_scales: Vec::new(), layer_scales: vec![0; layers] };
    let copy = &mut |tensor: &Initializer, put: &mut Put<'_>| {
        let mut values = vec![0f32; PIECE / 4];
        let (mut start, all) = (0, tensor.dims.iter().product::<u64>());
        while start < all {
            let piece = &mut values[..(all - start).min(PIECE as u64 / 4) as usize];
            source.read(&tensor.name, start, piece)?;
            put(bytemuck::cast_slice(piece))?;
            start += piece.len() as u64;
        }
        Ok(())
    };
    write(path, &weights, ids, options, copy, progress)
}

fn write(
    path: &Path,
    weights: &Weights<'_>,
    ids: &[u8],
    options: Options,
    copy: &mut write::Copy<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Written> {
    let graph = graph::build(weights);
    let notes = notes(weights.manifest, ids)?;
    let mut layout = Layout::new(&graph, &notes, None);
    let data = data_path(path);
    if options.external_data || layout.bytes > write::MAX_MESSAGE {
        let location = data.file_name().and_then(|n| n.to_str());
        let location = location.ok_or_else(|| Error::Config(format!("`{}` cannot be named inside an ONNX file", data.display())))?;
        layout = Layout::new(&graph, &notes, Some(location));
    }
    let (total, mut done) = (layout.bytes + layout.data_bytes, 0);
    let mut counted = |bytes: &[u8]| {
        done += bytes.len() as u64;
        progress(done, total);
    };
    // The data first: a model whose data is missing is worse than data without a model.
    let paths: &[&Path] = if layout.data_bytes > 0 { &[&data, path] } else { &[path] };
    whole_file::write(paths, |outputs| {
        let mut put = |k: usize, bytes: &[u8]| {
            counted(bytes);
            outputs[k].put(bytes)
        };
        if layout.data_bytes > 0 {
            layout.write_data(&mut |bytes| put(0, bytes), copy)?;
        }
        layout.write(&mut |bytes| put(paths.len() - 1, bytes), copy)
    })?;
    Ok(Written { bytes: layout.bytes, data_bytes: layout.data_bytes, data: (layout.data_bytes > 0).then_some(data) })
}

/// The notes of a model: the program's version, the [`Manifest`] as JSON, how categories become rows as
/// JSON, and what the inputs are in words.
///
/// # Errors
/// An id mapping that is none.
pub fn notes(m: &Manifest, ids: &[u8]) -> Result<Vec<(&'static str, String)>> {
    let (kind, max_rows) = ids::kind(ids)?;
    let mapping = match kind {
        Ids::Dictionary => serde_json::json!({ "kind": kind, "max_rows": max_rows }),
        Ids::Modulo | Ids::Direct => serde_json::json!({ "kind": kind, "rows": m.shape.rows }),
    };
    let manifest = serde_json::to_string(m).map_err(|e| Error::Data(format!("the model's description cannot be written: {e}")))?;
    Ok(vec![
        ("dqrm.version", env!("CARGO_PKG_VERSION").into()),
        ("dqrm.manifest", manifest),
        ("dqrm.ids", mapping.to_string()),
        ("dqrm.inputs", inputs(m, kind)),
    ])
}

fn inputs(m: &Manifest, kind: Ids) -> String {
    let taken = if m.input.schema.dense_log { "; the graph takes ln(max(x, 0) + 1)" } else { "" };
    let mut text = format!("dense: the {} dense columns as they stand in the data, 0 where missing{taken}.", m.shape.dense);
    let multi = tables::multi_hot(m);
    let ones = multi.iter().filter(|several| !**several).count();
    if ones > 0 {
        text += &format!(" ids: for each of tables 0 to {} the row of its category.", ones - 1);
    }
    if ones < multi.len() {
        text += &format!(" ids_K, K from {ones} to {}: the rows of all categories of table K, -1 where there are fewer.", multi.len() - 1);
    }
    text + match kind {
        Ids::Dictionary => {
            " The n-th key of a table's dictionary (from 1) has row n, others row 0; the keys are in the packed file or the run's ids.bin."
        }
        Ids::Modulo => " A category's row is its number modulo the table's rows.",
        Ids::Direct => " A category is its row.",
    }
}
