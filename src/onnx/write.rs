//! A model's bytes, tensor by tensor: every length is known before the first value is read, so memory
//! holds a piece of a tensor and never the file. The bytes are those that `prost` would give for the
//! whole message.

use super::graph::{Graph, Initializer};
use super::proto::{self, Entry, GRAPH_INITIALIZER, MODEL_GRAPH, TENSOR_RAW_DATA};
use crate::error::{Error, Result};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

/// Protocol buffers, and with them an ONNX file, are smaller than this.
pub(super) const MAX_MESSAGE: u64 = i32::MAX as u64;
/// In the data file, tensors begin at multiples of this.
pub(super) const ALIGNMENT: u64 = 64;
/// Smaller tensors stay in the model's own file.
const SMALLEST_OUTSIDE: u64 = 1024;

/// Takes bytes of a file.
pub(super) type Put<'a> = dyn FnMut(&[u8]) -> Result<()> + 'a;
/// Gives the bytes of the model's tensor of that name, in pieces.
pub(super) type Copy<'a> = dyn FnMut(&Initializer, &mut Put<'_>) -> Result<()> + 'a;

/// A tensor and where its values go.
struct Placed<'a> {
    tensor: &'a Initializer,
    /// The message up to its values.
    head: Vec<u8>,
    /// Where the values begin in the data file.
    outside: Option<u64>,
}

/// A model whose every length is known.
pub(super) struct Layout<'a> {
    before: Vec<u8>,
    tensors: Vec<Placed<'a>>,
    after: Vec<u8>,
    /// Bytes of the model's file.
    pub(super) bytes: u64,
    /// Bytes of the data file; 0 when there is none.
    pub(super) data_bytes: u64,
}

fn prefix(tag: u32, len: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(tag, WireType::LengthDelimited, &mut bytes);
    encode_varint(len, &mut bytes);
    bytes
}

impl<'a> Layout<'a> {
    /// Lays out a graph; `data_file` is the name of the file beside the model that takes its large tensors.
    pub(super) fn new(graph: &'a Graph, notes: &[(&str, String)], data_file: Option<&str>) -> Layout<'a> {
        let mut data_bytes = 0u64;
        let tensors: Vec<Placed<'_>> = graph
            .initializers
            .iter()
            .map(|tensor| match data_file.filter(|_| tensor.bytes() >= SMALLEST_OUTSIDE) {
                Some(location) => {
                    let start = data_bytes.next_multiple_of(ALIGNMENT);
                    data_bytes = start + tensor.bytes();
                    Placed { tensor, head: outside(tensor, location, start).encode_to_vec(), outside: Some(start) }
                }
                None => {
                    let mut head = bare(tensor).encode_to_vec();
                    head.extend(prefix(TENSOR_RAW_DATA, tensor.bytes()));
                    Placed { tensor, head, outside: None }
                }
            })
            .collect();
        let head = proto::Graph { node: graph.nodes.clone(), name: "dqrm".into(), ..Default::default() }.encode_to_vec();
        let tail = proto::Graph { input: graph.inputs.clone(), output: graph.outputs.clone(), ..Default::default() }.encode_to_vec();
        let inside = |p: &Placed<'_>| p.head.len() as u64 + if p.outside.is_none() { p.tensor.bytes() } else { 0 };
        let listed = tensors.iter().map(|p| prefix(GRAPH_INITIALIZER, inside(p)).len() as u64 + inside(p)).sum::<u64>();
        let graph_bytes = head.len() as u64 + listed + tail.len() as u64;
        let (mut before, end) = model(notes);
        before.extend(prefix(MODEL_GRAPH, graph_bytes));
        before.extend(head);
        let after = [tail, end].concat();
        let tensors: Vec<_> =
            tensors.into_iter().map(|p| Placed { head: [prefix(GRAPH_INITIALIZER, inside(&p)), p.head.clone()].concat(), ..p }).collect();
        let bytes = before.len() as u64 + listed + after.len() as u64;
        Layout { before, tensors, after, bytes, data_bytes }
    }

    /// Writes the model's file.
    pub(super) fn write(&self, put: &mut Put<'_>, copy: &mut Copy<'_>) -> Result<()> {
        put(&self.before)?;
        for placed in &self.tensors {
            put(&placed.head)?;
            if placed.outside.is_none() {
                values(placed.tensor, copy, put)?;
            }
        }
        put(&self.after)
    }

    /// Writes the data file.
    pub(super) fn write_data(&self, put: &mut Put<'_>, copy: &mut Copy<'_>) -> Result<()> {
        let mut at = 0;
        for placed in &self.tensors {
            let Some(start) = placed.outside else { continue };
            put(&vec![0; (start - at) as usize])?;
            values(placed.tensor, copy, put)?;
            at = start + placed.tensor.bytes();
        }
        Ok(())
    }
}

/// The model's fields before and after its graph.
fn model(notes: &[(&str, String)]) -> (Vec<u8>, Vec<u8>) {
    let before = proto::Model {
        ir_version: super::IR_VERSION,
        producer_name: "dqrm".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        ..Default::default()
    };
    let after = proto::Model {
        opset_import: vec![proto::OperatorSet { domain: String::new(), version: super::OPSET }],
        metadata_props: notes.iter().map(|(key, value)| Entry { key: (*key).into(), value: value.clone() }).collect(),
        ..Default::default()
    };
    (before.encode_to_vec(), after.encode_to_vec())
}

fn bare(tensor: &Initializer) -> proto::Tensor {
    let dims = tensor.dims.iter().map(|&d| d as i64).collect();
    proto::Tensor { dims, data_type: tensor.dtype, name: tensor.name.clone(), ..Default::default() }
}

fn outside(tensor: &Initializer, location: &str, start: u64) -> proto::Tensor {
    let entry = |key: &str, value: String| Entry { key: key.into(), value };
    let external_data =
        vec![entry("location", location.into()), entry("offset", start.to_string()), entry("length", tensor.bytes().to_string())];
    proto::Tensor { external_data, data_location: proto::EXTERNAL, ..bare(tensor) }
}

/// A tensor's values, no more and no fewer than were announced.
fn values(tensor: &Initializer, copy: &mut Copy<'_>, put: &mut Put<'_>) -> Result<()> {
    if let Some(here) = &tensor.here {
        return put(here);
    }
    let mut left = tensor.bytes();
    copy(tensor, &mut |bytes| {
        left = left.checked_sub(bytes.len() as u64).ok_or_else(|| Error::Data(format!("`{}` has too many bytes", tensor.name)))?;
        put(bytes)
    })?;
    if left > 0 {
        return Err(Error::Data(format!("`{}` lacks {left} of its {} bytes", tensor.name, tensor.bytes())));
    }
    Ok(())
}
