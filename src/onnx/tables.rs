//! From row numbers to the vectors of the tables. Only the rows that are asked for are unpacked: no
//! node gives a whole table. All one-hot tables go through the arithmetic together, because a
//! runtime's cost for a node is that of hundreds of values.

use super::graph::{Graph, Weights, codes, excess, shifted, unpack};
use super::proto::{Attribute, ValueInfo, dtype};
use crate::packed::Manifest;

/// True for tables whose bags may hold any number of ids. One-hot tables come first.
pub(super) fn multi_hot(m: &Manifest) -> Vec<bool> {
    match &m.input.generator {
        Some(generator) => vec![generator.synthetic.bag > 1; m.shape.tables()],
        None => (0..m.shape.tables()).map(|k| k >= m.input.schema.categorical.len()).collect(),
    }
}

/// Inputs for the ids; gives vectors `[B, n, D]` that are, side by side along axis 1, those of all tables.
pub(super) fn embed(g: &mut Graph, w: &Weights<'_>) -> Vec<String> {
    let multi = multi_hot(w.manifest);
    let ones = multi.iter().take_while(|&&several| !several).count();
    let mut parts = Vec::new();
    if ones > 0 {
        parts.push(one_hot(g, w, ones));
    }
    parts.extend((ones..multi.len()).map(|k| bag(g, w, k)));
    parts
}

/// The rows of a table that `ids` name, packed or in FP32.
fn gather(g: &mut Graph, m: &Manifest, k: usize, ids: &str) -> String {
    let (name, rows, dim) = (format!("emb_l.{k}.weight"), m.shape.rows[k], m.shape.dim);
    let table = match m.tables.bits.quantized() {
        true => codes(g, &name, m.tables.bits, rows, dim),
        false => g.weights(&name, dtype::FLOAT, &[rows, dim as u64]),
    };
    g.node("Gather", &[&table, ids], "", &[])
}

/// The scales of the rows that `ids` name.
fn gather_scales(g: &mut Graph, m: &Manifest, k: usize, ids: &str) -> String {
    let scales = g.weights(&format!("emb_l.{k}.weight.scale"), dtype::FLOAT, &[m.shape.rows[k]]);
    g.node("Gather", &[&scales, ids], "", &[])
}

/// Tables `0..count`, an id for each: `[B, count, D]`.
fn one_hot(g: &mut Graph, w: &Weights<'_>, count: usize) -> String {
    let (m, doc) = (w.manifest, "row numbers, one for each one-hot table; see the model's note `dqrm.inputs`");
    g.inputs.push(ValueInfo::tensor("ids", dtype::INT64, &["batch", &count.to_string()], doc));
    // `Gather` counts negative numbers from the end; here they are errors.
    let zero = g.int64("zero", &[1], &[0]);
    let rows: Vec<i64> = m.shape.rows[..count].iter().map(|&r| r as i64).collect();
    let beyond = g.int64("rows", &[count as u64], &rows);
    let negative = g.node("Less", &["ids", &zero], "", &[]);
    let ids = g.node("Where", &[&negative, &beyond, "ids"], "", &[]);
    let columns: Vec<String> = if count == 1 {
        vec![ids]
    } else {
        let columns: Vec<String> = (0..count).map(|k| format!("ids.{k}")).collect();
        g.node("Split", &[&ids], "", &[Attribute::int("axis", 1), Attribute::int("num_outputs", count as i64)]);
        let last = g.nodes.len() - 1;
        g.nodes[last].output.clone_from(&columns);
        columns
    };
    let found: Vec<String> = columns.iter().enumerate().map(|(k, ids)| gather(g, m, k, ids)).collect();
    let found = g.concat(&found, "", 1);
    if !m.tables.bits.quantized() {
        return found;
    }
    let scales = if w.table_scales.is_empty() {
        let scales: Vec<String> = columns.iter().enumerate().map(|(k, ids)| gather_scales(g, m, k, ids)).collect();
        let scales = g.concat(&scales, "", 1);
        let last = g.int64("last", &[1], &[-1]);
        Scales::Rows(g.node("Unsqueeze", &[&scales, &last], "", &[]))
    } else {
        Scales::Tables(&w.table_scales[..count])
    };
    values(g, m, &found, "rows", scales)
}

/// Table `k` with any number of ids, filled up with negative ones: `[B, 1, D]`.
fn bag(g: &mut Graph, w: &Weights<'_>, k: usize) -> String {
    let (m, input, size) = (w.manifest, format!("ids_{k}"), format!("ids_in_bag_{k}"));
    let doc = "row numbers, negative where a bag has fewer ids than the longest one";
    g.inputs.push(ValueInfo::tensor(&input, dtype::INT64, &["batch", &size], doc));
    let (zero, last) = (g.int64("zero", &[1], &[0]), g.int64("last", &[1], &[-1]));
    let there = g.node("GreaterOrEqual", &[&input, &zero], "", &[]);
    let mut weight = g.cast_float(&there);
    let ids = g.node("Max", &[&input, &zero], "", &[]);
    let mut x = gather(g, m, k, &ids);
    if m.tables.bits.quantized() {
        let name = format!("emb_l.{k}");
        match w.table_scales.get(k..=k) {
            Some(scale) => x = values(g, m, &x, &name, Scales::Tables(scale)),
            None => {
                x = unpack(g, &x, m.tables.bits, 2, m.shape.dim);
                x = shifted(g, &x, m.tables);
                let scale = gather_scales(g, m, k, &ids);
                weight = g.node("Mul", &[&weight, &scale], "", &[]);
            }
        }
    }
    let weight = g.node("Unsqueeze", &[&weight, &last], "", &[]);
    let weighted = g.node("Mul", &[&x, &weight], "", &[]);
    let axis = g.int64("one", &[1], &[1]);
    g.node("ReduceSum", &[&weighted, &axis], &format!("emb_l.{k}.sum"), &[])
}

enum Scales<'a> {
    /// One for each place of axis 1, or one for all.
    Tables(&'a [f32]),
    /// A tensor `[B, n, 1]`.
    Rows(String),
}

/// Packed rows `[B, n, bytes]` to values `[B, n, D]`.
fn values(g: &mut Graph, m: &Manifest, x: &str, name: &str, scales: Scales<'_>) -> String {
    let (coding, bits) = (m.tables, m.tables.bits);
    let output = format!("{name}.values");
    let x = unpack(g, x, bits, 2, m.shape.dim);
    let scales = match scales {
        Scales::Rows(tensor) => tensor,
        // One node for what would be three. It takes no INT16 before opset 21, and no half a code.
        Scales::Tables(scales) if coding.offset == 0.0 && bits.width() <= 8 => {
            let n = scales.len() as u64;
            let dims: &[u64] = if n == 1 { &[] } else { &[n] };
            let scale = g.float(&format!("{name}.scale"), dims, scales);
            let mut inputs = vec![x.as_str(), &scale];
            let zero;
            if excess(bits) > 0 {
                zero = g.uint8(&format!("zero.{bits}.{n}"), dims, &vec![excess(bits); scales.len()]);
                inputs.push(&zero);
            }
            return g.node("DequantizeLinear", &inputs, &output, &[Attribute::int("axis", 1)]);
        }
        Scales::Tables(scales) => g.float(&format!("{name}.scale"), &[scales.len() as u64, 1], scales),
    };
    let x = shifted(g, &x, coding);
    g.node("Mul", &[&x, &scales], &output, &[])
}
