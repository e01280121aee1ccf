//! Weights for PyTorch: one safetensors file of F32 tensors under the names of a DLRM's state dict
//! (`emb_l.0.weight`, `bot_l.0.weight`, `top_l.2.bias` …), without any state of training.

use crate::config::Shape;
use crate::error::{Error, Result};
use crate::model::Network;
use crate::packed::{Packed, Source};
use crate::{tensor_file, whole_file};
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::path::Path;

/// Values in memory at once.
const PIECE: usize = 1 << 20;

/// The values that a packed model computes with, as FP32.
#[derive(Debug)]
pub struct Dequantized<'a>(pub &'a Packed);

impl Source for Dequantized<'_> {
    fn read(&mut self, name: &str, start: u64, values: &mut [f32]) -> Result<()> {
        let (packed, shape) = (self.0, &self.0.manifest().shape);
        let none = || Error::Data(format!("the packed model has no values {start} to {} of `{name}`", start + values.len() as u64));
        let table = name.strip_prefix("emb_l.").and_then(|n| n.strip_suffix(".weight")).and_then(|k| k.parse::<usize>().ok());
        if let Some(k) = table {
            let (dim, end) = (shape.dim as u64, start + values.len() as u64);
            if shape.rows.get(k).is_none_or(|rows| end > rows * dim) {
                return Err(none());
            }
            let first = start / dim;
            let rows = packed.table_rows(k, first, (end.div_ceil(dim) - first) as usize);
            values.copy_from_slice(&rows[(start - first * dim) as usize..][..values.len()]);
            return Ok(());
        }
        let network = Network::new(shape);
        let layer = name.strip_suffix(".weight").and_then(|name| network.layers().find(|l| l.name == name));
        let all = layer.map_or_else(|| packed.floats(name), |layer| packed.layer_weights(layer));
        let found = all.get(start as usize..start as usize + values.len()).ok_or_else(none)?;
        values.copy_from_slice(found);
        Ok(())
    }
}

/// Names and dimensions, in the order of a DLRM's state dict.
fn tensors(shape: &Shape) -> Vec<(String, Vec<u64>)> {
    let mut list: Vec<_> =
        shape.rows.iter().enumerate().map(|(k, &rows)| (format!("emb_l.{k}.weight"), vec![rows, shape.dim as u64])).collect();
    for layer in Network::new(shape).layers() {
        let (outputs, inputs) = (layer.linear.outputs as u64, layer.linear.inputs as u64);
        list.push((format!("{}.weight", layer.name), vec![outputs, inputs]));
        list.push((format!("{}.bias", layer.name), vec![outputs]));
    }
    list
}

/// Writes the weights of a model; gives the file's length. `notes` go into the header besides the
/// format, the version and the shape; `progress` gets (values done, in all).
///
/// # Errors
/// Weights that cannot be read, a full disk.
pub fn write(
    path: &Path,
    shape: &Shape,
    notes: &[(&'static str, String)],
    source: &mut dyn Source,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<u64> {
    let fail = |e: String| Error::Config(format!("the weights cannot be written: {e}"));
    let tensors = tensors(shape);
    let mut all = BTreeMap::from([
        ("format", "pt".to_owned()),
        ("dqrm.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("dqrm.shape", serde_json::to_string(shape).map_err(|e| fail(e.to_string()))?),
    ]);
    all.extend(notes.iter().cloned());
    let listed: Vec<_> = tensors.iter().map(|(name, dims)| (name.as_str(), Dtype::F32, dims.as_slice())).collect();
    let header = tensor_file::encode(&all, &listed, 8).map_err(fail)?;
    let total = shape.fp32_bytes() / 4;
    let (mut done, mut values) = (0, vec![0f32; PIECE]);
    whole_file::write(&[path], |outputs| {
        outputs[0].put(&header)?;
        for (name, dims) in &tensors {
            let (mut start, len) = (0, dims.iter().product::<u64>());
            while start < len {
                let piece = &mut values[..(len - start).min(PIECE as u64) as usize];
                source.read(name, start, piece)?;
                outputs[0].put(bytemuck::cast_slice(piece))?;
                start += piece.len() as u64;
                done += piece.len() as u64;
                progress(done, total);
            }
        }
        Ok(())
    })?;
    Ok(header.len() as u64 + 4 * total)
}
