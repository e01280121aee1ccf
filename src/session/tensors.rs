//! Named tensors: weights under PyTorch's names, optimizer state and scales under `dqrm.…`, and
//! where each lies on the device.

use super::Session;
use crate::config::{Config, DenseOptimizer, RowOptimizer, Shape};
use crate::error::{Error, Result};
use crate::model::Network;
use crate::ops::row_update::state_per_row;
use crate::plan::View;
use crate::step::Recorded;
use crate::tables::Tables;

/// One named tensor of the model or of its optimizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// PyTorch's name (`emb_l.0.weight`, `bot_l.0.bias`), or `dqrm.…` for state that PyTorch's model lacks:
    /// `dqrm.scale.emb_l` `[K]`, `dqrm.scale.<name>` of learned MLP scales, `dqrm.quantizing` `[1]`,
    /// `dqrm.adagrad.<name>`, `dqrm.rwsadagrad.<name>`, `dqrm.adam_v.<name>`, `dqrm.adam_m.<name>`.
    pub name: String,
    /// Dimensions.
    pub shape: Vec<u64>,
}

impl Tensor {
    /// The weights that a model of this shape has, in the order of a DLRM state dict.
    pub fn weights(shape: &Shape) -> Vec<Tensor> {
        let table = |(k, &rows): (usize, &u64)| Tensor { name: format!("emb_l.{k}.weight"), shape: vec![rows, shape.dim as u64] };
        let mut all: Vec<Tensor> = shape.rows.iter().enumerate().map(table).collect();
        for layer in Network::new(shape).layers() {
            let (o, i) = (layer.linear.outputs as u64, layer.linear.inputs as u64);
            all.push(Tensor { name: format!("{}.weight", layer.name), shape: vec![o, i] });
            all.push(Tensor { name: format!("{}.bias", layer.name), shape: vec![o] });
        }
        all
    }

    /// Values in all.
    pub fn len(&self) -> u64 {
        self.shape.iter().product()
    }

    /// True when a dimension is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True for weights, false for optimizer state and scales.
    pub fn is_weight(&self) -> bool {
        !self.name.starts_with("dqrm.")
    }

    /// True for scales.
    pub fn is_scale(&self) -> bool {
        self.name.starts_with("dqrm.scale.")
    }
}

/// Where a tensor lies.
#[derive(Debug, Clone)]
enum Place {
    /// In one piece.
    Whole(View),
    /// Cut like table `table`, `per_row` values in each row.
    Cut { table: usize, per_row: usize, state: bool },
}

/// A tensor and its place.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) tensor: Tensor,
    place: Place,
}

/// All tensors of a recorded plan: weights in the order of a DLRM state dict, then state, then scales.
pub(super) fn place(shape: &Shape, config: &Config, tables: &Tables, recorded: &Recorded) -> Vec<Placed> {
    let network = Network::new(shape);
    let mut all = Vec::new();
    let mut add = |name: String, shape: Vec<u64>, place: Place| all.push(Placed { tensor: Tensor { name, shape }, place });
    let mlps = |prefix: &str, flat: View, add: &mut dyn FnMut(String, Vec<u64>, Place)| {
        for layer in network.layers() {
            let (o, i) = (layer.linear.outputs as u64, layer.linear.inputs as u64);
            add(format!("{prefix}{}.weight", layer.name), vec![o, i], Place::Whole(layer.weight(flat)));
            add(format!("{prefix}{}.bias", layer.name), vec![o], Place::Whole(layer.bias(flat)));
        }
    };
    for (k, &rows) in tables.rows().iter().enumerate() {
        let place = Place::Cut { table: k, per_row: tables.dim(), state: false };
        add(format!("emb_l.{k}.weight"), vec![rows, tables.dim() as u64], place);
    }
    mlps("", recorded.weights, &mut add);
    let per_row = state_per_row(config.optim.embedding, tables.dim());
    for (k, &rows) in tables.rows().iter().enumerate().filter(|_| per_row > 0) {
        let (name, shape) = match config.optim.embedding {
            RowOptimizer::Rwsadagrad => ("rwsadagrad", vec![rows]),
            _ => ("adagrad", vec![rows, per_row as u64]),
        };
        add(format!("dqrm.{name}.emb_l.{k}.weight"), shape, Place::Cut { table: k, per_row, state: true });
    }
    let states = if config.optim.dense == DenseOptimizer::Adam { ["dqrm.adam_v.", "dqrm.adam_m."] } else { ["dqrm.adagrad.", ""] };
    for (prefix, &flat) in states.iter().zip(&recorded.weight_states) {
        mlps(prefix, flat, &mut add);
    }
    if config.quant.keeps_table_scales() {
        add("dqrm.scale.emb_l".into(), vec![tables.count() as u64], Place::Whole(recorded.scales));
    }
    for (layer, scales) in network.layers().zip(&recorded.layer_scales).filter(|_| config.quant.learns_mlp_scales()) {
        add(format!("dqrm.scale.{}.weight", layer.name), vec![scales.weight.len as u64], Place::Whole(scales.weight));
        if let Some(bias) = scales.bias {
            add(format!("dqrm.scale.{}.bias", layer.name), vec![1], Place::Whole(bias));
        }
    }
    if let Some(quantizing) = recorded.quantizing {
        add(QUANTIZING.into(), vec![1], Place::Whole(quantizing));
    }
    all
}

/// Whether a quantized step was made, in a run that begins in FP32.
const QUANTIZING: &str = "dqrm.quantizing";

impl Session {
    /// Every tensor: weights in the order of a DLRM state dict, then optimizer state and scales.
    /// Writing all of them back restores the session exactly.
    pub fn tensors(&self) -> &[Tensor] {
        &self.names
    }

    /// The tensor, when it has values `start..start + len`.
    fn check_range(&self, name: &str, start: u64, len: usize) -> Result<&Placed> {
        let Some(placed) = self.tensors.iter().find(|t| t.tensor.name == name) else {
            return Err(Error::Config(format!("the model has no tensor `{name}`")));
        };
        if start.checked_add(len as u64).is_none_or(|end| end > placed.tensor.len()) {
            return Err(Error::Config(format!("values {start}+{len} of `{name}`, which has {}", placed.tensor.len())));
        }
        Ok(placed)
    }

    /// The table of a tensor that lives on the host, and whether it is optimizer state.
    fn on_host(&self, name: &str) -> Option<(usize, bool)> {
        self.hosted.as_ref()?;
        match self.tensors.iter().find(|t| t.tensor.name == name)?.place {
            Place::Cut { table, state, .. } => Some((table, state)),
            Place::Whole(_) => None,
        }
    }

    /// The pieces of the device's buffers that hold values `start..start + len` of a tensor.
    pub(super) fn pieces(&self, name: &str, start: u64, len: usize) -> Result<Vec<View>> {
        let place = &self.check_range(name, start, len)?.place;
        if len == 0 {
            return Ok(Vec::new());
        }
        let Place::Cut { table, per_row, state } = *place else {
            let Place::Whole(view) = *place else { unreachable!("the other kind was matched above") };
            return Ok(vec![View { offset: view.offset + start as usize, len, ..view }]);
        };
        let buffers = if state { &self.recorded.shard_states } else { &self.recorded.shards };
        let (first, width) = (start / per_row as u64, per_row as u64);
        let last = (start + len as u64 - 1) / width;
        let mut pieces = Vec::new();
        for segment in self.tables.segments(table, first, last - first + 1) {
            // The segment in elements of the tensor, cut to what was asked for.
            let (begin, end) = (segment.table_row * width, (segment.table_row + segment.count) * width);
            let (from, to) = (begin.max(start), end.min(start + len as u64));
            let offset = (segment.shard_row * width + from - begin) as usize;
            pieces.push(View { offset, len: (to - from) as usize, ..buffers[segment.shard] });
        }
        Ok(pieces)
    }

    /// Values `start..start + len` of a tensor, row-major.
    ///
    /// # Errors
    /// No such tensor, a range beyond it, a lost device.
    pub async fn read(&mut self, name: &str, start: u64, len: usize) -> Result<Vec<f32>> {
        if let Some((table, state)) = self.on_host(name) {
            self.check_range(name, start, len)?;
            return self.read_hosted(table, state, start, len).await;
        }
        let mut values = Vec::with_capacity(len);
        for piece in self.pieces(name, start, len)? {
            values.extend_from_slice(bytemuck::cast_slice(&self.engine.read(piece).await?));
        }
        Ok(values)
    }

    /// Replaces values of a tensor from `start` on.
    ///
    /// # Errors
    /// No such tensor, a range beyond it, a lost device.
    pub fn write(&mut self, name: &str, start: u64, values: &[f32]) -> Result<()> {
        if let Some((table, state)) = self.on_host(name) {
            self.check_range(name, start, values.len())?;
            return self.write_hosted(table, state, start, values);
        }
        let mut rest = values;
        for piece in self.pieces(name, start, values.len())? {
            let (now, later) = rest.split_at(piece.len);
            self.engine.write(piece, bytemuck::cast_slice(now))?;
            rest = later;
        }
        if let Some(known) = self.scaled.get_mut(name) {
            known.iter_mut().skip(start as usize).zip(values).for_each(|(known, &scale)| *known = scale > 0.0);
        }
        if let (QUANTIZING, Some(&value)) = (name, values.first()) {
            self.quantizing = value > 0.0;
        }
        Ok(())
    }
}
