//! The network as nodes of ONNX's standard operators, opset 18, up to two outputs.

use super::proto::{Attribute, Node, ValueInfo, dtype};
use super::tables;
use crate::config::{Interaction, Shape};
use crate::model::{Layer, Network};
use crate::packed::{Coding, Manifest};
use crate::quant::{Bits, pack};

/// A constant tensor of the graph.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Initializer {
    pub(super) name: String,
    pub(super) dtype: i32,
    pub(super) dims: Vec<u64>,
    /// Its values; none when they are the model's tensor of the same name.
    pub(super) here: Option<Vec<u8>>,
}

impl Initializer {
    /// Bytes of the values.
    pub(super) fn bytes(&self) -> u64 {
        let size = match self.dtype {
            dtype::UINT8 | dtype::INT8 => 1,
            dtype::INT16 => 2,
            dtype::INT64 => 8,
            _ => 4,
        };
        self.dims.iter().product::<u64>() * size
    }
}

/// What the graph needs to know of the weights besides their shapes.
#[derive(Debug, Clone)]
pub(super) struct Weights<'a> {
    pub(super) manifest: &'a Manifest,
    /// One scale for each table; empty with a scale for each row, and in FP32.
    pub(super) table_scales: Vec<f32>,
    /// Scales of each layer's matrix.
    pub(super) layer_scales: Vec<u64>,
}

/// Nodes in the order they run, and what they are fed with.
#[derive(Debug, Clone, Default)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) initializers: Vec<Initializer>,
    pub(super) inputs: Vec<ValueInfo>,
    pub(super) outputs: Vec<ValueInfo>,
}

impl Graph {
    /// Adds a node with one output and gives the output's name back; an empty one becomes a short one,
    /// since names are most of what a graph takes in a small model's file.
    pub(super) fn node(&mut self, op: &str, inputs: &[&str], output: &str, attribute: &[Attribute]) -> String {
        let output = if output.is_empty() { format!("v{}", self.nodes.len()) } else { output.into() };
        self.nodes.push(Node {
            input: inputs.iter().map(|&s| s.into()).collect(),
            output: vec![output.clone()],
            op_type: op.into(),
            attribute: attribute.to_vec(),
        });
        output
    }

    fn add(&mut self, name: &str, dtype: i32, dims: &[u64], here: Option<Vec<u8>>) -> String {
        if !self.initializers.iter().any(|i| i.name == name) {
            self.initializers.push(Initializer { name: name.into(), dtype, dims: dims.into(), here });
        }
        name.into()
    }

    /// The model's tensor of that name.
    pub(super) fn weights(&mut self, name: &str, dtype: i32, dims: &[u64]) -> String {
        self.add(name, dtype, dims, None)
    }

    /// A constant; the same name means the same constant.
    pub(super) fn int64(&mut self, name: &str, dims: &[u64], values: &[i64]) -> String {
        self.add(name, dtype::INT64, dims, Some(values.iter().flat_map(|v| v.to_le_bytes()).collect()))
    }

    fn int32(&mut self, name: &str, values: &[i32]) -> String {
        self.add(name, dtype::INT32, &[values.len() as u64], Some(values.iter().flat_map(|v| v.to_le_bytes()).collect()))
    }

    pub(super) fn float(&mut self, name: &str, dims: &[u64], values: &[f32]) -> String {
        self.add(name, dtype::FLOAT, dims, Some(values.iter().flat_map(|v| v.to_le_bytes()).collect()))
    }

    pub(super) fn uint8(&mut self, name: &str, dims: &[u64], values: &[u8]) -> String {
        self.add(name, dtype::UINT8, dims, Some(values.to_vec()))
    }

    /// Side by side along an axis; a single part stays as it is.
    pub(super) fn concat(&mut self, parts: &[String], output: &str, axis: i64) -> String {
        match parts {
            [one] => one.clone(),
            _ => {
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                self.node("Concat", &parts, output, &[Attribute::int("axis", axis)])
            }
        }
    }

    pub(super) fn cast_float(&mut self, x: &str) -> String {
        self.node("Cast", &[x], "", &[Attribute::int("to", i64::from(dtype::FLOAT))])
    }
}

/// The whole network.
pub(super) fn build(w: &Weights<'_>) -> Graph {
    let (m, mut g) = (w.manifest, Graph::default());
    let network = Network::new(&m.shape);
    let dense = dense(&mut g, m);
    let embedded = tables::embed(&mut g, w);
    let (bottom, top) = w.layer_scales.split_at(network.bottom.len());
    let x = mlp(&mut g, m.mlps, &network.bottom, bottom, dense);
    let joined = interact(&mut g, &m.shape, x, embedded);
    let y = mlp(&mut g, m.mlps, &network.top, top, joined);
    let axis = g.int64("one", &[1], &[1]);
    g.node("Squeeze", &[&y, &axis], "logit", &[]);
    g.node("Sigmoid", &["logit"], "probability", &[]);
    for (name, doc) in [("probability", "of a click (the sigmoid of the logit)"), ("logit", "what the top MLP gives")] {
        g.outputs.push(ValueInfo::tensor(name, dtype::FLOAT, &["batch"], doc));
    }
    g
}

/// The dense input, as the columns of the data, and their transformation.
fn dense(g: &mut Graph, m: &Manifest) -> String {
    let log = m.input.schema.dense_log;
    let doc = if log { "as in the data; the graph takes ln(max(x, 0) + 1); 0 where missing" } else { "as in the data; 0 where missing" };
    g.inputs.push(ValueInfo::tensor("dense", dtype::FLOAT, &["batch", &m.shape.dense.to_string()], doc));
    if !log {
        return "dense".into();
    }
    let one = g.float("one.float", &[], &[1.0]);
    let x = g.node("Relu", &["dense"], "dense.positive", &[]);
    let x = g.node("Add", &[&x, &one], "dense.shifted", &[]);
    g.node("Log", &[&x], "dense.log", &[])
}

/// Layers, one after the other.
fn mlp(g: &mut Graph, coding: Coding, layers: &[Layer], scales: &[u64], mut x: String) -> String {
    for (layer, &scales) in layers.iter().zip(scales) {
        let name = &layer.name;
        let weight = matrix(g, coding, layer, scales);
        let bias = g.weights(&format!("{name}.bias"), dtype::FLOAT, &[layer.linear.outputs as u64]);
        x = g.node("Gemm", &[&x, &weight, &bias], &format!("{name}.z"), &[Attribute::int("transB", 1)]);
        if layer.linear.relu {
            x = g.node("Relu", &[&x], &format!("{name}.y"), &[]);
        }
    }
    x
}

/// A matrix `[out, in]`: a runtime computes it once, when it loads the model.
fn matrix(g: &mut Graph, coding: Coding, layer: &Layer, scales: u64) -> String {
    let name = format!("{}.weight", layer.name);
    let (inputs, outputs) = (layer.linear.inputs, layer.linear.outputs as u64);
    if !coding.bits.quantized() {
        return g.weights(&name, dtype::FLOAT, &[outputs, inputs as u64]);
    }
    let scale = g.weights(&format!("{name}.scale"), dtype::FLOAT, &[scales, 1]);
    let codes = codes(g, &name, coding.bits, outputs, inputs);
    let values = unpack(g, &codes, coding.bits, 1, inputs);
    let values = shifted(g, &values, coding);
    g.node("Mul", &[&values, &scale], &name, &[])
}

/// The codes of a tensor as the packed file holds them: `[rows, bytes]`, or `[rows, dim]` from 8 bits on.
pub(super) fn codes(g: &mut Graph, name: &str, bits: Bits, rows: u64, dim: usize) -> String {
    let (kind, width) = match bits {
        Bits::B16 => (dtype::INT16, dim),
        Bits::B8 => (dtype::INT8, dim),
        _ => (dtype::UINT8, pack::row_bytes(bits, dim)),
    };
    g.weights(&format!("{name}.codes"), kind, &[rows, width as u64])
}

/// The number that [`unpack`]'s values lie above the codes.
pub(super) fn excess(bits: Bits) -> u8 {
    match bits {
        Bits::B2 | Bits::B4 => bits.max_code() as u8 + 1,
        _ => 0,
    }
}

/// Codes of less than a byte, `dims` dimensions and then bytes, become bytes that each hold one code
/// plus [`excess`]: flipping a code's sign bit makes it such a number. Wider codes stay as they are.
pub(super) fn unpack(g: &mut Graph, x: &str, bits: Bits, dims: usize, dim: usize) -> String {
    if excess(bits) == 0 {
        return x.into();
    }
    let (width, per_byte) = (bits.width() as usize, 8 / bits.width() as usize);
    let signs = (0..per_byte).fold(0, |m, i| m | excess(bits) << (i * width));
    let signs = g.uint8(&format!("signs.{bits}"), &[], &[signs]);
    let mask = g.uint8(&format!("mask.{bits}"), &[], &[2 * excess(bits) - 1]);
    let last = g.int64("last", &[1], &[-1]);
    let flipped = g.node("BitwiseXor", &[x, &signs], "", &[]);
    let parts: Vec<String> = (0..per_byte)
        .map(|i| {
            let mut part = flipped.clone();
            if i > 0 {
                let by = g.uint8(&format!("shift.{}", i * width), &[], &[(i * width) as u8]);
                part = g.node("BitShift", &[&part, &by], "", &[Attribute::text("direction", "RIGHT")]);
            }
            if i + 1 < per_byte {
                part = g.node("BitwiseAnd", &[&part, &mask], "", &[]);
            }
            g.node("Unsqueeze", &[&part, &last], "", &[])
        })
        .collect();
    let parts = g.concat(&parts, "", -1);
    let stride = pack::row_bytes(bits, dim);
    // 0 keeps a dimension.
    let shape: Vec<i64> = std::iter::repeat_n(0, dims).chain([(stride * per_byte) as i64]).collect();
    let shape = g.int64(&format!("row.{dims}.{stride}"), &[shape.len() as u64], &shape);
    let row = g.node("Reshape", &[&parts, &shape], "", &[]);
    if stride * per_byte == dim {
        return row;
    }
    let (zero, end) = (g.int64("zero", &[1], &[0]), g.int64(&format!("end.{dim}"), &[1], &[dim as i64]));
    g.node("Slice", &[&row, &zero, &end, &last], "", &[])
}

/// code + offset as FP32, from what [`unpack`] gave.
pub(super) fn shifted(g: &mut Graph, x: &str, coding: Coding) -> String {
    let x = g.cast_float(x);
    let by = coding.offset - f32::from(excess(coding.bits));
    if by == 0.0 {
        return x;
    }
    let by = g.float(&format!("offset.{}.{by}", coding.bits), &[], &[by]);
    g.node("Add", &[&x, &by], "", &[])
}

/// The dense vector `[B, D]` and the tables' `[B, K, D]` to the top MLP's input.
fn interact(g: &mut Graph, shape: &Shape, x: String, tables: Vec<String>) -> String {
    let axis = g.int64("one", &[1], &[1]);
    let first = g.node("Unsqueeze", &[&x, &axis], "dense.vector", &[]);
    let parts: Vec<String> = std::iter::once(first).chain(tables).collect();
    let all = g.concat(&parts, "vectors", 1);
    let count = shape.tables() + 1;
    if shape.interaction == Interaction::Cat {
        let flat = g.int64("flat", &[2], &[0, (count * shape.dim) as i64]);
        return g.node("Reshape", &[&all, &flat], "joined", &[]);
    }
    let turned = g.node("Transpose", &[&all], "vectors.turned", &[Attribute::ints("perm", &[0, 2, 1])]);
    let products = g.node("MatMul", &[&all, &turned], "products", &[]);
    let flat = g.int64("flat", &[2], &[0, (count * count) as i64]);
    let products = g.node("Reshape", &[&products, &flat], "products.flat", &[]);
    // The lower triangle, row by row.
    let below = |i: usize| (0..if shape.diagonal { i + 1 } else { i }).map(move |j| (i * count + j) as i32);
    let pairs: Vec<i32> = (0..count).flat_map(below).collect();
    let pairs = g.int32("pairs", &pairs);
    let kept = g.node("Gather", &[&products, &pairs], "products.kept", &[Attribute::int("axis", 1)]);
    g.concat(&[x, kept], "joined", 1)
}
