//! Writes named arrays as a safetensors file.

use crate::arrays::{Arrays, Values};
use dqrm::{Error, Result};
use safetensors::tensor::{Dtype, TensorView};
use std::path::Path;

/// Writes all arrays to a file.
pub(crate) fn write(path: &Path, arrays: &Arrays) -> Result<()> {
    let bytes: Vec<(&String, Dtype, &[usize], Vec<u8>)> = arrays
        .iter()
        .map(|(name, array)| {
            let (dtype, bytes) = match &array.values {
                Values::Float(v) => (Dtype::F32, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
                Values::Int(1, v) => (Dtype::I8, v.iter().map(|&x| x as i8 as u8).collect()),
                Values::Int(2, v) => (Dtype::I16, v.iter().flat_map(|&x| (x as i16).to_le_bytes()).collect()),
                Values::Int(_, v) => (Dtype::I32, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
            };
            (name, dtype, array.shape.as_slice(), bytes)
        })
        .collect();
    let damaged = |e: safetensors::SafeTensorError| Error::Checkpoint { path: path.to_path_buf(), reason: e.to_string() };
    let mut views = Vec::with_capacity(bytes.len());
    for (name, dtype, shape, data) in &bytes {
        views.push((*name, TensorView::new(*dtype, shape.to_vec(), data).map_err(damaged)?));
    }
    let file = safetensors::serialize(views, None).map_err(damaged)?;
    std::fs::write(path, file).map_err(Error::io("write", path))
}
