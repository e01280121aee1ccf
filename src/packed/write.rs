//! From full-precision weights to a packed file: two passes over each table in pieces, one for the
//! scales and one for the codes, so memory holds a piece and never a table.

use super::output::{Output, Part};
use super::{CHECKSUM_KEY, CODES_CHECKSUM_KEY, MANIFEST_KEY, Manifest, VERSION, VERSION_KEY, layout};
use crate::config::ScalePer;
use crate::error::{Error, Result};
use crate::model::{Layer, Network};
use crate::quant::{self, Bits, dorefa, pack};
use crate::tensor_file::{self, checksum_text};
use rayon::prelude::*;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::io::{Cursor, Seek, Write};
use std::path::Path;

/// Values of a table in memory at once.
const PIECE: usize = 1 << 20;

/// Rows quantized by one thread at a time.
const ROWS: usize = 1024;

/// Where full-precision weights come from.
pub trait Source {
    /// Fills `values` with those from `start` on of the tensor of that name, row-major, under PyTorch's names.
    ///
    /// # Errors
    /// No such tensor, a range beyond it, a file that cannot be read.
    fn read(&mut self, name: &str, start: u64, values: &mut [f32]) -> Result<()>;
}

/// How the grid of a tensor is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Scale = largest magnitude / largest code, from the weights as they are (dqrm, hawq, ptq).
    MaxAbs,
    /// As [`Rule::MaxAbs`], but the tables' scales are those that training used last and that stand in the source as
    /// `dqrm.scale.emb_l`: exactly the model that evaluations in training saw, also long after a refresh.
    Kept,
    /// Scales that were learned and stand in the source as `dqrm.scale.…` (lsq).
    Learned,
    /// DoReFa: tanh, divided by its largest magnitude, on a grid without zero (pact).
    DoReFa,
}

/// What is to be written.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The header; `tables.offset` and `mlps.offset` are set by the rule.
    pub manifest: Manifest,
    /// How grids are found.
    pub rule: Rule,
    /// A scale for each embedding row instead of each table (max-abs only).
    pub row_scales: bool,
    /// Scales of the MLPs.
    pub mlp_scales: ScalePer,
    /// Biases on the grid of their row, as the quantized network used them while training.
    pub quantize_bias: bool,
    /// The id mapping as bytes.
    pub ids: Vec<u8>,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Written {
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of the tables' codes.
    pub code_bytes: u64,
    /// Bytes of the tables' scales.
    pub scale_bytes: u64,
    /// Bytes of the MLPs: codes or weights, scales, biases.
    pub mlp_bytes: u64,
    /// Bytes of the id mapping.
    pub id_bytes: u64,
}

/// Writes a packed file beside its final name and renames it. `progress` gets (values done, in all).
///
/// # Errors
/// Weights that cannot be read or are not finite, a full disk.
#[cfg(feature = "cli")]
pub fn write(path: &Path, plan: &Plan, source: &mut dyn Source, progress: &mut dyn FnMut(u64, u64)) -> Result<Written> {
    let partial = crate::partial::name(path);
    let outcome = Writer::new(plan.clone(), source, progress).and_then(|mut w| {
        let file = std::fs::File::create(&partial).map_err(Error::io("create", &partial))?;
        let (written, file) = w.run(Output::new(std::io::BufWriter::with_capacity(1 << 20, file), &partial))?;
        file.get_ref().sync_all().map_err(Error::io("write", &partial))?;
        Ok(written)
    });
    crate::partial::finish(path, outcome)
}

/// The bytes of a packed file, in memory. `progress` gets (values done, in all).
///
/// # Errors
/// Weights that cannot be read or are not finite.
pub fn encode(plan: &Plan, source: &mut dyn Source, progress: &mut dyn FnMut(u64, u64)) -> Result<(Vec<u8>, Written)> {
    let mut writer = Writer::new(plan.clone(), source, progress)?;
    let (written, bytes) = writer.run(Output::new(Cursor::new(Vec::new()), Path::new("memory")))?;
    Ok((bytes.into_inner(), written))
}

/// A matrix on its grid.
struct Matrix {
    codes: Vec<u8>,
    scales: Vec<f32>,
    full: Vec<f32>,
    bias: Vec<f32>,
}

struct Writer<'a> {
    plan: Plan,
    network: Network,
    source: &'a mut dyn Source,
    progress: &'a mut dyn FnMut(u64, u64),
    done: u64,
    total: u64,
}

fn not_finite(name: &str, i: u64, v: f32) -> Error {
    Error::Data(format!("`{name}` has the value {v} at place {i}; only finite weights can be packed"))
}

impl<'a> Writer<'a> {
    fn new(mut plan: Plan, source: &'a mut dyn Source, progress: &'a mut dyn FnMut(u64, u64)) -> Result<Writer<'a>> {
        let m = &mut plan.manifest;
        if plan.row_scales && plan.rule != Rule::MaxAbs {
            return Err(Error::Config(format!("a scale for each row cannot be had from a model of method `{}`", m.method)));
        }
        let offset = if plan.rule == Rule::DoReFa { 0.5 } else { 0.0 };
        m.tables.offset = offset;
        m.mlps.offset = if m.mlps.bits.quantized() { offset } else { 0.0 };
        m.check(u64::MAX).map_err(|e| Error::Config(format!("this model cannot be packed: it {e}")))?;
        let network = Network::new(&m.shape);
        let total = m.shape.embedding_parameters().saturating_mul(if matches!(plan.rule, Rule::Learned | Rule::Kept) { 1 } else { 2 });
        Ok(Writer { plan, network, source, progress, done: 0, total })
    }

    fn run<W: Write + Seek>(&mut self, mut out: Output<'_, W>) -> Result<(Written, W)> {
        let m = self.plan.manifest.clone();
        let layers: Vec<Layer> = self.network.layers().cloned().collect();
        let matrices = layers.iter().map(|layer| self.matrix(layer)).collect::<Result<Vec<_>>>()?;
        let scales = if self.plan.row_scales { Vec::new() } else { self.table_scales()? };
        let channels = self.plan.mlp_scales == ScalePer::Channel && self.plan.rule != Rule::DoReFa;
        let wanted = layout(&m, self.plan.row_scales, channels, self.plan.ids.len() as u64);
        let header = header(&m, &wanted)?;

        out.put(&header, Part::Header)?;
        if self.plan.row_scales {
            for k in 0..m.shape.tables() {
                self.row_scales(k, &mut out)?;
            }
        } else {
            let steps: Vec<f32> = match self.plan.rule {
                Rule::DoReFa => vec![dorefa::spacing(m.tables.bits.max_code()); scales.len()],
                _ => scales.clone(),
            };
            out.put(bytemuck::cast_slice(&steps), Part::Rest)?;
        }
        let scale_bytes = out.bytes - header.len() as u64;
        for matrix in &matrices {
            out.put(bytemuck::cast_slice(if m.mlps.bits.quantized() { &matrix.scales } else { &matrix.full }), Part::Rest)?;
            out.put(bytemuck::cast_slice(&matrix.bias), Part::Rest)?;
        }
        let before = out.bytes;
        for k in 0..m.shape.tables() {
            self.codes(k, scales.get(k).copied(), &mut out)?;
        }
        let code_bytes = out.bytes - before;
        for matrix in matrices.iter().filter(|_| m.mlps.bits.quantized()) {
            out.put(&matrix.codes, Part::Rest)?;
        }
        out.put(&self.plan.ids, Part::Rest)?;
        let (bytes, sink) = out.finish(header)?;
        let id_bytes = self.plan.ids.len() as u64;
        let mlp_bytes = wanted.iter().filter(|(n, ..)| !n.starts_with("emb_l") && n != super::IDS);
        let mlp_bytes = mlp_bytes.map(|(_, dtype, shape)| shape.iter().product::<u64>() * if *dtype == "F32" { 4 } else { 1 }).sum();
        Ok((Written { bytes, code_bytes, scale_bytes, mlp_bytes, id_bytes }, sink))
    }

    fn whole(&mut self, name: &str, len: usize) -> Result<Vec<f32>> {
        let mut values = vec![0.0; len];
        self.source.read(name, 0, &mut values)?;
        match values.iter().position(|v| !v.is_finite()) {
            Some(i) => Err(not_finite(name, i as u64, values[i])),
            None => Ok(values),
        }
    }

    /// Codes, scales and the bias as the network uses it.
    fn matrix(&mut self, layer: &Layer) -> Result<Matrix> {
        let (inputs, outputs, bits) = (layer.linear.inputs, layer.linear.outputs, self.plan.manifest.mlps.bits);
        let name = format!("{}.weight", layer.name);
        let full = self.whole(&name, inputs * outputs)?;
        let mut bias = self.whole(&format!("{}.bias", layer.name), outputs)?;
        if !bits.quantized() {
            return Ok(Matrix { codes: Vec::new(), scales: Vec::new(), full, bias });
        }
        let per = if self.plan.mlp_scales == ScalePer::Channel { inputs } else { inputs * outputs };
        let (grid, scales) = match self.plan.rule {
            Rule::DoReFa => (Grid::dorefa(bits, max_abs(&full)), vec![dorefa::spacing(bits.max_code())]),
            Rule::MaxAbs | Rule::Kept => (Grid::Plain, full.chunks_exact(per).map(|g| quant::scale(max_abs(g), bits.max_code())).collect()),
            Rule::Learned => (Grid::Plain, self.learned(&format!("dqrm.scale.{name}"), inputs * outputs / per)?),
        };
        let group = |o: usize| scales[o.min(scales.len() - 1)];
        let stride = pack::row_bytes(bits, inputs);
        let mut codes = vec![0; stride * outputs];
        for (o, (row, values)) in codes.chunks_exact_mut(stride).zip(full.chunks_exact(inputs)).enumerate() {
            grid.encode(values, group(o), bits, row);
        }
        if self.plan.quantize_bias && self.plan.rule != Rule::DoReFa {
            let own =
                if self.plan.rule == Rule::Learned { Some(self.learned(&format!("dqrm.scale.{}.bias", layer.name), 1)?[0]) } else { None };
            for (o, b) in bias.iter_mut().enumerate() {
                let s = own.unwrap_or(group(o));
                *b = quant::fake_quant(*b, s, 1.0 / s, bits.max_code() as f32);
            }
        }
        Ok(Matrix { codes, scales, full: Vec::new(), bias })
    }

    /// Scales that were learned.
    fn learned(&mut self, name: &str, len: usize) -> Result<Vec<f32>> {
        let mut scales = vec![0.0; len];
        self.source.read(name, 0, &mut scales)?;
        match scales.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            Some(s) => Err(Error::Data(format!("`{name}` holds the scale {s}; a scale of training is positive"))),
            None => Ok(scales),
        }
    }

    /// One scale for each table. For DoReFa it is the largest magnitude, which its grid begins with.
    fn table_scales(&mut self) -> Result<Vec<f32>> {
        let (tables, bits) = (self.plan.manifest.shape.tables(), self.plan.manifest.tables.bits);
        if matches!(self.plan.rule, Rule::Learned | Rule::Kept) {
            return self.learned("dqrm.scale.emb_l", tables);
        }
        let mut scales = Vec::new();
        for k in 0..tables {
            let mut largest = 0f32;
            self.pieces(k, &mut |values| {
                largest = largest.max(max_abs_of_many(values));
                Ok(())
            })?;
            scales.push(if self.plan.rule == Rule::DoReFa { largest } else { quant::scale(largest, bits.max_code()) });
        }
        Ok(scales)
    }

    /// Gives a table piece by piece.
    fn pieces(&mut self, table: usize, each: &mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()> {
        let shape = &self.plan.manifest.shape;
        let (rows, dim, name) = (shape.rows[table], shape.dim, format!("emb_l.{table}.weight"));
        let step = (PIECE / dim).max(1) as u64;
        let mut piece = vec![0.0; step.min(rows) as usize * dim];
        let mut row = 0;
        while row < rows {
            let count = step.min(rows - row) as usize * dim;
            let values = &mut piece[..count];
            self.source.read(&name, row * dim as u64, values)?;
            if let Some(i) = values
                .par_chunks(1 << 14)
                .any(|part| !max_abs(part).is_finite())
                .then(|| values.iter().position(|v| !v.is_finite()))
                .flatten()
            {
                return Err(not_finite(&name, row * dim as u64 + i as u64, values[i]));
            }
            each(values)?;
            row += step;
            self.done += count as u64;
            (self.progress)(self.done, self.total);
        }
        Ok(())
    }

    fn row_scales<W: Write + Seek>(&mut self, table: usize, out: &mut Output<'_, W>) -> Result<()> {
        let (dim, n) = (self.plan.manifest.shape.dim, self.plan.manifest.tables.bits.max_code());
        self.pieces(table, &mut |values| {
            let scales: Vec<f32> = values.par_chunks(dim).map(|row| quant::scale(max_abs(row), n)).collect();
            out.put(bytemuck::cast_slice(&scales), Part::Rest)
        })
    }

    fn codes<W: Write + Seek>(&mut self, table: usize, scale: Option<f32>, out: &mut Output<'_, W>) -> Result<()> {
        let (dim, bits, rule) = (self.plan.manifest.shape.dim, self.plan.manifest.tables.bits, self.plan.rule);
        let stride = pack::row_bytes(bits, dim);
        let grid = if rule == Rule::DoReFa { Grid::dorefa(bits, scale.unwrap_or(0.0)) } else { Grid::Plain };
        let mut codes = Vec::new();
        self.pieces(table, &mut |values| {
            codes.resize(values.len() / dim * stride, 0);
            codes.par_chunks_mut(ROWS * stride).zip(values.par_chunks(ROWS * dim)).for_each(|(codes, values)| {
                let rows = codes.chunks_exact_mut(stride).zip(values.chunks_exact(dim));
                pulp::Arch::new().dispatch(|| {
                    for (row, values) in rows {
                        let s = scale.unwrap_or_else(|| quant::scale(max_abs(values), bits.max_code()));
                        grid.encode(values, s, bits, row);
                    }
                });
            });
            out.put(&codes, Part::Codes)
        })
    }
}

/// The largest magnitude; an infinity or a NaN when there is one among the values.
fn max_abs(values: &[f32]) -> f32 {
    let bits: &[u32] = bytemuck::cast_slice(values);
    f32::from_bits(pulp::Arch::new().dispatch(|| bits.iter().fold(0, |m, v| m.max(v & 0x7fff_ffff))))
}

/// The same of many values, on all threads.
fn max_abs_of_many(values: &[f32]) -> f32 {
    values.par_chunks(1 << 14).map(max_abs).reduce(|| 0.0, |a, b| if a.to_bits() > b.to_bits() { a } else { b })
}

/// From a value to a code.
enum Grid {
    /// `clamp(round(v / scale))`.
    Plain,
    /// `round((2^b - 1) (tanh v / (2 m) + 1/2)) - 2^(b-1)`, m the largest tanh.
    DoReFa(dorefa::Grid),
}

impl Grid {
    fn dorefa(bits: Bits, largest: f32) -> Grid {
        Grid::DoReFa(dorefa::Grid::new(largest, bits.max_code()))
    }

    #[inline(always)]
    fn encode(&self, values: &[f32], scale: f32, bits: Bits, row: &mut [u8]) {
        match self {
            Grid::Plain => pack::quantize_row(values, scale, bits, row),
            Grid::DoReFa(grid) => pack::encode_row(values.iter().map(|&v| grid.code(v) as i32), bits, row),
        }
    }
}

pub(super) fn header(m: &Manifest, wanted: &[super::Wanted]) -> Result<Vec<u8>> {
    let fail = |e: String| Error::Config(format!("this model cannot be packed: {e}"));
    let notes = BTreeMap::from([
        ("format", "dqrm".to_owned()),
        ("dqrm.version", env!("CARGO_PKG_VERSION").to_owned()),
        (VERSION_KEY, VERSION.to_string()),
        (MANIFEST_KEY, serde_json::to_string(m).map_err(|e| fail(e.to_string()))?),
        (CHECKSUM_KEY, checksum_text(0)),
        (CODES_CHECKSUM_KEY, checksum_text(0)),
    ]);
    let dtype = |name: &str| if name == "F32" { Dtype::F32 } else { Dtype::U8 };
    let listed: Vec<_> = wanted.iter().map(|(name, d, shape)| (name.as_str(), dtype(d), shape.as_slice())).collect();
    tensor_file::encode(&notes, &listed, 64).map_err(fail)
}
