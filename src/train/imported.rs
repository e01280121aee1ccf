//! A run's folder made from weights that were trained elsewhere.

use super::broken;
use super::folder::{self, CONFIG, IDS, LAST};
use crate::checkpoint::{self, NotFinite, State, Store};
use crate::config::{Config, Format, Ids, Loss, Model, Quant, Schema};
use crate::config_file;
use crate::data::ids::Mapper;
use crate::error::{Error, Result};
use crate::import::names::Part;
use crate::import::shape::{Inferred, Join, infer};
use crate::import::{Element, Source};
use crate::quant::{Bits, scale};
use crate::session::Tensor;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

/// What the file does not say.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Bits of the embedding rows; `None` leaves them in FP32.
    pub embedding_bits: Option<Bits>,
    /// Bits of the MLPs.
    pub mlp_bits: Option<Bits>,
    /// The loss of later training.
    pub loss: Loss,
    /// How the vectors meet, where the widths fit several ways.
    pub interaction: Option<Join>,
    /// `ids.bin` of a run with the same tables.
    pub ids: Option<PathBuf>,
}

/// A folder that was made.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The settings written to it.
    pub config: Config,
    /// The model, and how its interaction was found.
    pub inferred: Inferred,
    /// Names in the file that were not used.
    pub ignored: Vec<String>,
    /// Types of the weights in the file, each once.
    pub elements: Vec<Element>,
    /// Categories have rows by a dictionary, not modulo.
    pub dictionary: bool,
}

/// Makes the run's folder `dir`, which must be empty or not exist, from the weights in `file`.
/// `progress` gets (values written, values in all).
///
/// # Errors
/// A file that cannot be used, weights that make no DLRM or are not finite, ids of other tables, a
/// folder in use.
pub fn import(file: &Path, dir: &Path, wanted: &Wanted, progress: &mut dyn FnMut(u64, u64)) -> Result<Imported> {
    let fail = |reason: String| broken(file, reason);
    let reader = File::open(file).map_err(Error::io("read", file))?;
    let metadata = reader.metadata().map_err(Error::io("read", file))?;
    if !metadata.is_file() {
        return Err(fail("is no file".into()));
    }
    let source = Source::new(reader, metadata.len()).map_err(fail)?;
    let inferred = infer(&source.dims(), wanted.interaction, wanted.loss).map_err(fail)?;
    let mapper = mapper(wanted, &inferred)?;
    let config = config(wanted, &inferred, &mapper)?;
    folder::check_fresh(dir)?;
    let (ignored, elements) = (source.ignored.clone(), elements(&source));
    let state = State {
        step: 0,
        workers: 0,
        epoch: 0,
        lines: 0,
        validation_auc: None,
        provisional: false,
        shape: inferred.shape.clone(),
        extra: Vec::new(),
    };
    let mut weights = Weights::new(source, config.quant.embedding_bits, file, progress);
    let fresh = !dir.exists();
    std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    let written = checkpoint::write(&dir.join(LAST), &mut weights, &state)
        .and_then(|outcome| outcome.map_err(|bad| not_finite(file, &weights, &bad)));
    let written = written.and_then(|()| {
        let path = dir.join(IDS);
        std::fs::write(&path, mapper.to_bytes()).map_err(Error::io("write", path))?;
        // Last: a folder with settings is a run's.
        config_file::write(&config, &dir.join(CONFIG))
    });
    if let Err(error) = written {
        for name in [CONFIG, IDS, LAST] {
            let _ = std::fs::remove_file(dir.join(name));
        }
        if fresh {
            let _ = std::fs::remove_dir(dir);
        }
        return Err(error);
    }
    Ok(Imported { config, inferred, ignored, elements, dictionary: mapper.is_dictionary() })
}

fn not_finite<R>(file: &Path, weights: &Weights<'_, R>, bad: &NotFinite) -> Error {
    let name = weights.tensors.iter().find(|(t, _)| t.name == bad.tensor).map_or(bad.tensor.as_str(), |(_, name)| name.as_str());
    broken(file, format!("value {} of `{name}` is {}; only finite weights can be used", bad.index, bad.value))
}

fn elements<R: Read + Seek>(source: &Source<R>) -> Vec<Element> {
    let mut elements: Vec<Element> = Vec::new();
    for weight in source.weights() {
        if !elements.contains(&weight.element) {
            elements.push(weight.element);
        }
    }
    elements
}

/// How the folder numbers categories: modulo the tables' rows, or as in another run.
fn mapper(wanted: &Wanted, inferred: &Inferred) -> Result<Mapper> {
    let rows = &inferred.shape.rows;
    let Some(path) = &wanted.ids else { return Ok(Mapper::modulo(rows)) };
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let mapper = Mapper::from_bytes(&bytes).map_err(|e| broken(path, e.to_string()))?;
    let given = mapper.rows();
    if given.len() != rows.len() {
        return Err(broken(path, format!("numbers the categories of {} tables, but the weights have {}", given.len(), rows.len())));
    }
    match given.iter().zip(rows).position(|(a, b)| a != b) {
        None => Ok(mapper),
        Some(k) => Err(broken(
            path,
            format!("belongs to other tables: table {k} has {} rows there, but `emb_l.{k}.weight` has {}", given[k], rows[k]),
        )),
    }
}

/// The settings with which the folder is a run.
fn config(wanted: &Wanted, inferred: &Inferred, mapper: &Mapper) -> Result<Config> {
    let shape = &inferred.shape;
    let model = Model {
        dense: Some(shape.dense),
        dim: Some(shape.dim),
        bottom: shape.bottom.get(1..).map(<[usize]>::to_vec),
        top: shape.top.get(1..).map(<[usize]>::to_vec),
        // With a dictionary the rows are the dictionary's.
        rows: (!mapper.is_dictionary()).then(|| shape.rows.clone()),
        interaction: shape.interaction,
        interaction_diagonal: shape.diagonal,
        loss: shape.loss,
        ..Model::default()
    };
    let embedding_bits = wanted.embedding_bits.unwrap_or(Bits::None);
    let quant = Quant { embedding_bits, mlp_bits: wanted.mlp_bits.unwrap_or(embedding_bits), ..Quant::default() };
    let mut config = Config { model, quant, ..Config::default() };
    config.data.ids = if mapper.is_dictionary() { Ids::Dictionary } else { Ids::Modulo };
    let published = Schema::criteo(13, 26);
    if (shape.dense, shape.tables()) == (published.dense.len(), published.tables()) {
        config.data.format = Format::Criteo;
    } else {
        config.data.format = Format::Text;
        config.data.schema = Schema::criteo(shape.dense, shape.tables());
    }
    config.validate()?;
    Ok(config)
}

/// The weights of a file as a checkpoint has them, and the tables' scales when these are quantized.
struct Weights<'a, R> {
    source: Source<R>,
    file: &'a Path,
    /// Tensors of the checkpoint, and what the file calls them.
    tensors: Vec<(Tensor, String)>,
    parts: Vec<Part>,
    bits: Bits,
    /// The largest magnitude of each table, known once the table was read.
    largest: Vec<f32>,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

/// The tensor of the tables' scales.
const SCALES: &str = "dqrm.scale.emb_l";

impl<'a, R: Read + Seek> Weights<'a, R> {
    fn new(source: Source<R>, bits: Bits, file: &'a Path, progress: &'a mut dyn FnMut(u64, u64)) -> Weights<'a, R> {
        let (mut tensors, mut parts, mut tables) = (Vec::new(), Vec::new(), 0);
        for weight in in_order(&source) {
            tensors.push((Tensor { name: weight.part.to_string(), shape: weight.shape.clone() }, weight.name.clone()));
            parts.push(weight.part);
            tables += usize::from(matches!(weight.part, Part::Table(_)));
        }
        let total = tensors.iter().map(|(t, _)| t.len()).sum();
        if bits.quantized() {
            tensors.push((Tensor { name: SCALES.into(), shape: vec![tables as u64] }, SCALES.into()));
        }
        Weights { source, file, tensors, parts, bits, largest: vec![0.0; tables], done: 0, total, progress }
    }
}

/// Weights in the order of a DLRM state dict: tables, then each layer's weight and bias.
fn in_order<R: Read + Seek>(source: &Source<R>) -> Vec<&crate::import::Weight> {
    let mut all = source.weights();
    all.sort_by_key(|w| match w.part {
        Part::Table(k) => (0, k, 0),
        Part::Bottom(i) => (1, i, 0),
        Part::BottomBias(i) => (1, i, 1),
        Part::Top(i) => (2, i, 0),
        Part::TopBias(i) => (2, i, 1),
    });
    all
}

impl<R: Read + Seek> Store for Weights<'_, R> {
    fn tensors(&self) -> Vec<Tensor> {
        self.tensors.iter().map(|(tensor, _)| tensor.clone()).collect()
    }

    fn read(&mut self, name: &str, start: u64, len: usize) -> Result<Vec<f32>> {
        if name == SCALES {
            let scales = self.largest.iter().map(|&largest| scale(largest, self.bits.max_code()));
            return Ok(scales.skip(start as usize).take(len).collect());
        }
        let at = self.tensors.iter().position(|(t, _)| t.name == name);
        let part = at.and_then(|at| self.parts.get(at)).copied().ok_or_else(|| broken(self.file, format!("has no tensor `{name}`")))?;
        let values = self.source.read(part, start, len).map_err(|reason| broken(self.file, reason))?;
        if let Part::Table(k) = part
            && let Some(largest) = self.largest.get_mut(k as usize)
        {
            *largest = values.iter().fold(*largest, |m, v| m.max(v.abs()));
        }
        self.done += len as u64;
        (self.progress)(self.done, self.total);
        Ok(values)
    }

    fn write(&mut self, name: &str, _: u64, _: &[f32]) -> Result<()> {
        Err(broken(self.file, format!("`{name}` cannot be written: the file is only read")))
    }
}
