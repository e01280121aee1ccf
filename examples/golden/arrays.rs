//! Named arrays in a safetensors file.

use dqrm::{Error, Result};
use safetensors::tensor::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::Path;

/// One array.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    /// Dimensions.
    pub(crate) shape: Vec<usize>,
    /// Values, row-major.
    pub(crate) values: Values,
}

/// The values of an array.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Values {
    /// F32.
    Float(Vec<f32>),
    /// I8, I16 or I32, by their width in bytes.
    Int(usize, Vec<i32>),
}

/// Arrays by name.
pub(crate) type Arrays = BTreeMap<String, Array>;

impl Array {
    /// An F32 array.
    pub(crate) fn floats(shape: &[usize], values: Vec<f32>) -> Array {
        Array { shape: shape.to_vec(), values: Values::Float(values) }
    }

    /// An integer array of `width` bytes per value.
    pub(crate) fn ints(shape: &[usize], width: usize, values: Vec<i32>) -> Array {
        Array { shape: shape.to_vec(), values: Values::Int(width, values) }
    }

    /// How many values.
    pub(crate) fn len(&self) -> usize {
        match &self.values {
            Values::Float(v) => v.len(),
            Values::Int(_, v) => v.len(),
        }
    }

    /// The values as f64, in which every one of them is exact.
    pub(crate) fn wide(&self) -> Vec<f64> {
        match &self.values {
            Values::Float(v) => v.iter().map(|&x| x as f64).collect(),
            Values::Int(_, v) => v.iter().map(|&x| x as f64).collect(),
        }
    }
}

/// Reads all arrays of a file.
pub(crate) fn read(path: &Path) -> Result<Arrays> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    parse(&bytes).map_err(|reason| Error::Checkpoint { path: path.to_path_buf(), reason })
}

fn parse(bytes: &[u8]) -> Result<Arrays, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| format!("not a whole safetensors file: {e}"))?;
    let mut arrays = Arrays::new();
    for (name, view) in file.iter() {
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F32 => Values::Float(data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
            Dtype::I8 => Values::Int(1, data.iter().map(|&b| b as i8 as i32).collect()),
            Dtype::I16 => Values::Int(2, data.as_chunks().0.iter().map(|&b| i16::from_le_bytes(b) as i32).collect()),
            Dtype::I32 => Values::Int(4, data.as_chunks().0.iter().map(|&b| i32::from_le_bytes(b)).collect()),
            other => return Err(format!("`{name}` holds {other:?}; F32, I8, I16 and I32 are supported")),
        };
        arrays.insert(name.to_string(), Array { shape: view.shape().to_vec(), values });
    }
    Ok(arrays)
}
