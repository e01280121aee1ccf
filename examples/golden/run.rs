//! Runs one case on a device and gathers every quantity under its name in `expected.safetensors`.

use crate::arrays::{self, Array, Arrays, Values};
use crate::case::Case;
use crate::compare::{self, Report};
use crate::data::{self, Data};
use crate::packed;
use crate::texts::{Forced, Texts};
use dqrm::config::{Config, Device, ScalePer, Shape};
use dqrm::data::{Batch, Block};
use dqrm::quant::{self, Bits};
use dqrm::session::{Loading, Session};
use dqrm::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What running a case gave.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The device, in words.
    pub(crate) device: String,
    /// The texts of the kernels.
    pub(crate) forced: Forced,
    /// Every quantity, named as in `expected.safetensors`.
    pub(crate) computed: Arrays,
    /// The comparison; none where the folder has no `expected.safetensors`.
    pub(crate) report: Option<Report>,
}

/// Runs the case in `dir` with `texts` and compares. `expected_optional` allows a folder without expected values.
pub(crate) fn examine(dir: &Path, device: &Device, texts: Texts, loose: bool, expected_optional: bool) -> Result<Outcome> {
    let case = Case::read(&dir.join("case.json"))?;
    let (shape, config) = (case.shape()?, case.config(device)?);
    let tolerances = case.tolerances(loose)?;
    let weights = initial_weights(&dir.join("init.safetensors"), &shape)?;
    let data = data::read(&dir.join("data.tsv"), &case)?;
    let path = dir.join("expected.safetensors");
    let expected = if expected_optional && !path.exists() { None } else { Some(arrays::read(&path)?) };
    let names = names(&shape, &config, expected.as_ref());
    if let Some(expected) = &expected {
        compare::check_complete(&path, expected, &names, case.steps)?;
    }
    let mut run = Run { shape, config, forced: Forced::new(texts), computed: Arrays::new() };
    let device = run.train(&case, &data, &weights)?;
    run.sample(&weights, expected.as_ref())?;
    run.computed.retain(|name, _| names.contains(name));
    let report = expected.map(|expected| compare::compare(&run.computed, &expected, &tolerances)).transpose()?;
    Ok(Outcome { device, forced: run.forced, computed: run.computed, report })
}

/// A linear layer or a table: `(name without ".weight", rows, columns)`.
fn matrices(shape: &Shape) -> Vec<(String, usize, usize)> {
    let tables = shape.rows.iter().enumerate().map(|(k, &rows)| (format!("emb_l.{k}"), rows as usize, shape.dim));
    tables.chain(layers(shape)).collect()
}

/// The linear layers.
fn layers(shape: &Shape) -> Vec<(String, usize, usize)> {
    let mlp = |name: &'static str, widths: &[usize]| -> Vec<(String, usize, usize)> {
        widths.windows(2).enumerate().map(|(i, w)| (format!("{name}.{}", 2 * i), w[1], w[0])).collect()
    };
    [mlp("bot_l", &shape.bottom), mlp("top_l", &shape.top)].concat()
}

/// Every parameter with its dimensions, in the order of a DLRM state dict.
fn parameters(shape: &Shape) -> Vec<(String, Vec<usize>)> {
    let mut list = Vec::new();
    for (name, rows, columns) in matrices(shape) {
        list.push((format!("{name}.weight"), vec![rows, columns]));
        if !name.starts_with("emb_l") {
            list.push((format!("{name}.bias"), vec![rows]));
        }
    }
    list
}

/// Reads the weights a run starts from; every parameter must be there with its shape, and nothing else.
fn initial_weights(path: &Path, shape: &Shape) -> Result<BTreeMap<String, Vec<f32>>> {
    let fail = |reason: String| Err(Error::Checkpoint { path: path.to_path_buf(), reason });
    let mut arrays = arrays::read(path)?;
    let mut weights = BTreeMap::new();
    for (name, dims) in parameters(shape) {
        match arrays.remove(&name) {
            Some(Array { shape, values: Values::Float(values) }) if shape == dims => weights.insert(name, values),
            Some(array) => return fail(format!("`{name}` has shape {:?}; the case needs F32 of shape {dims:?}", array.shape)),
            None => return fail(format!("`{name}` is missing")),
        };
    }
    match arrays.keys().next() {
        Some(name) => fail(format!("`{name}` belongs to no part of the model")),
        None => Ok(weights),
    }
}

/// Names of the quantities this case has. Where `expected` holds sampled rows of a matrix, those take the place of the whole.
fn names(shape: &Shape, config: &Config, expected: Option<&Arrays>) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = ["logits_init", "probs_init", "losses", "logits_final", "probs_final"].map(String::from).into();
    for (p, _) in parameters(shape) {
        if expected.is_some_and(|e| e.contains_key(&format!("final_rows.{p}"))) {
            names.extend(["final_rows_index", "final_rows", "final_delta_l2"].map(|part| format!("{part}.{p}")));
        } else {
            names.insert(format!("final.{p}"));
        }
    }
    let (tables, mlps) = (config.quant.embedding_bits.quantized(), config.quant.mlp_bits.quantized());
    if tables || mlps {
        names.extend(["logits_packed", "probs_packed"].map(String::from));
    }
    if tables {
        names.extend(["scale_emb.init", "scale_emb.last_used", "scale_emb.final"].map(String::from));
        names.extend((0..shape.tables()).map(|k| format!("codes.emb_l.{k}.weight")));
    }
    for (layer, ..) in layers(shape).into_iter().filter(|_| mlps) {
        names.extend(["scale_lin.init", "scale_lin.final"].map(|part| format!("{part}.{layer}")));
        names.insert(format!("codes.{layer}.weight"));
        if config.quant.quantize_bias {
            names.insert(format!("codes.{layer}.bias"));
        }
    }
    names
}

/// A run in progress.
#[derive(Debug)]
struct Run {
    shape: Shape,
    config: Config,
    forced: Forced,
    computed: Arrays,
}

impl Run {
    /// Everything that needs the device. Gives the device's name.
    fn train(&mut self, case: &Case, data: &Data, weights: &BTreeMap<String, Vec<f32>>) -> Result<String> {
        let mut session = self.load(&self.config.clone(), data, weights)?;
        self.evaluate(&mut session, data, "init")?;
        self.read_table_scales(&mut session, "init")?;
        self.layer_scales(weights, "init");
        let train = data.train.iter().map(|block| Batch::prepare(block, session.tables())).collect::<Result<Vec<_>>>()?;
        let mut losses = Vec::with_capacity(case.steps);
        for step in 0..case.steps {
            session.train_step(step as u64, &train[step % train.len()])?;
            if (step + 1) % Session::RING == 0 || step + 1 == case.steps {
                losses.extend(pollster::block_on(session.history())?.iter().map(|result| result.loss));
            }
        }
        self.floats("losses".into(), &[losses.len()], losses);
        self.read_table_scales(&mut session, "last_used")?;
        self.evaluate(&mut session, data, "final")?;
        let mut trained = BTreeMap::new();
        for (name, dims) in parameters(&self.shape) {
            let values = pollster::block_on(session.read(&name, 0, dims.iter().product()))?;
            self.floats(format!("final.{name}"), &dims, values.clone());
            trained.insert(name, values);
        }
        let device = format!("{}, {}", session.device().engine, session.device().name);
        drop(session);
        self.layer_scales(&trained, "final");
        if self.quantized() {
            let full = trained.clone();
            self.pack(&mut trained);
            let plain = Config {
                quant: dqrm::config::Quant { embedding_bits: Bits::None, mlp_bits: Bits::None, ..self.config.quant.clone() },
                ..self.config.clone()
            };
            let mut session = self.load(&plain, data, &trained)?;
            self.evaluate(&mut session, data, "packed")?;
            // a predictor takes the best texts, so it says nothing of others
            if self.config.quant.embedding_bits.quantized() && self.forced.texts == Texts::Best {
                self.predict(data, &full)?;
            }
        }
        Ok(device)
    }

    /// What a packed file gives takes the place of the simulation, which it must agree with.
    fn predict(&mut self, data: &Data, full: &BTreeMap<String, Vec<f32>>) -> Result<()> {
        let logits = packed::logits(&self.shape, &self.config, data, full, &self.computed)?;
        let Values::Float(simulated) = &self.computed["logits_packed"].values else { unreachable!("logits are floats") };
        packed::check_probabilities(simulated, &logits)?;
        let probabilities = logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
        self.floats("probs_packed".into(), &[logits.len()], probabilities);
        self.floats("logits_packed".into(), &[logits.len()], logits);
        Ok(())
    }

    fn quantized(&self) -> bool {
        self.config.quant.embedding_bits.quantized() || self.config.quant.mlp_bits.quantized()
    }

    fn floats(&mut self, name: String, shape: &[usize], values: Vec<f32>) {
        self.computed.insert(name, Array::floats(shape, values));
    }

    fn load(&mut self, config: &Config, data: &Data, weights: &BTreeMap<String, Vec<f32>>) -> Result<Session> {
        let loading = Loading { chooser: Some(&mut self.forced), ..Loading::default() };
        let mut session = pollster::block_on(Session::load_with(&self.shape, config, &data.max_bag, loading))?;
        if self.forced.texts != Texts::Best && !self.forced.asked {
            return Err(Error::Device("the CPU engine runs no texts of kernels; to choose among them take a graphics adapter".into()));
        }
        if let Some(label) = &self.forced.mistaken {
            return Err(Error::Data(format!("`{label}` has the kernel, parameters and lengths of a command that gets another text")));
        }
        for (name, values) in weights {
            session.write(name, 0, values)?;
        }
        Ok(session)
    }

    /// Logits and probabilities of the evaluation part.
    fn evaluate(&mut self, session: &mut Session, data: &Data, when: &str) -> Result<()> {
        session.begin_evaluation()?;
        let one = |session: &mut Session, block: &Block| {
            let batch = Batch::prepare(block, session.tables())?;
            pollster::block_on(session.logits(&batch))
        };
        let mut logits = Vec::new();
        for block in &data.eval {
            logits.extend(one(session, block)?);
        }
        let probabilities = logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
        self.floats(format!("logits_{when}"), &[logits.len()], logits);
        self.floats(format!("probs_{when}"), &[data.eval.iter().map(|b| b.samples).sum()], probabilities);
        Ok(())
    }

    fn read_table_scales(&mut self, session: &mut Session, when: &str) -> Result<()> {
        if self.config.quant.embedding_bits.quantized() {
            let count = self.shape.tables();
            let scales = pollster::block_on(session.read("dqrm.scale.emb_l", 0, count))?;
            self.floats(format!("scale_emb.{when}"), &[count], scales);
        }
        Ok(())
    }

    /// Fresh scales of the layer `name` of `weights`: one per row or one in all.
    fn scales(&self, weights: &[f32], columns: usize) -> Vec<f32> {
        let n = self.config.quant.mlp_bits.max_code();
        let group = if self.config.quant.mlp_scale == ScalePer::Channel { columns } else { weights.len() };
        weights.chunks(group).map(|row| quant::scale(max_abs(row), n)).collect()
    }

    fn layer_scales(&mut self, weights: &BTreeMap<String, Vec<f32>>, when: &str) {
        for (layer, _, columns) in layers(&self.shape) {
            if self.config.quant.mlp_bits.quantized() {
                let scales = self.scales(&weights[&format!("{layer}.weight")], columns);
                self.floats(format!("scale_lin.{when}.{layer}"), &[scales.len()], scales);
            }
        }
    }

    /// Replaces what is quantized in `weights` by code times fresh scale, and keeps the codes.
    fn pack(&mut self, weights: &mut BTreeMap<String, Vec<f32>>) {
        let quant = self.config.quant.clone();
        let mut table_scales = Vec::new();
        for (name, rows, columns) in matrices(&self.shape) {
            let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
            let table = name.starts_with("emb_l");
            let bits = if table { quant.embedding_bits } else { quant.mlp_bits };
            if !bits.quantized() {
                continue;
            }
            let values = weights.get_mut(&weight).expect("a parameter of the model");
            let scales = if table { vec![quant::scale(max_abs(values), bits.max_code())] } else { self.scales(values, columns) };
            let codes = pack_group(values, columns, &scales, bits);
            self.computed.insert(format!("codes.{weight}"), Array::ints(&[rows, columns], width(bits), codes));
            if table {
                table_scales.extend(scales);
            } else if quant.quantize_bias {
                let values = weights.get_mut(&bias).expect("a parameter of the model");
                let codes = pack_group(values, 1, &scales, bits);
                self.computed.insert(format!("codes.{bias}"), Array::ints(&[rows], width(bits), codes));
            }
        }
        if quant.embedding_bits.quantized() {
            self.floats("scale_emb.final".into(), &[table_scales.len()], table_scales);
        }
    }

    /// The rows of large matrices that `expected` names, and how far the whole moved.
    fn sample(&mut self, initial: &BTreeMap<String, Vec<f32>>, expected: Option<&Arrays>) -> Result<()> {
        let Some(expected) = expected else { return Ok(()) };
        for (p, dims) in parameters(&self.shape) {
            let Some(index) = expected.get(&format!("final_rows_index.{p}")) else { continue };
            let Values::Int(width, rows) = &index.values else {
                return Err(Error::Data(format!("`final_rows_index.{p}` must hold integers")));
            };
            let Values::Float(trained) = &self.computed[&format!("final.{p}")].values else { unreachable!("weights are floats") };
            let columns = dims.get(1).copied().unwrap_or(1);
            let mut sampled = Vec::with_capacity(rows.len() * columns);
            for &row in rows {
                let at = usize::try_from(row).ok().filter(|&r| r < dims[0]);
                let at = at.ok_or_else(|| Error::Data(format!("`final_rows_index.{p}` names row {row} of {}", dims[0])))?;
                sampled.extend_from_slice(&trained[at * columns..(at + 1) * columns]);
            }
            let moved: f64 = trained.iter().zip(&initial[&p]).map(|(&a, &b)| (a as f64 - b as f64).powi(2)).sum();
            let shape = if dims.len() == 1 { vec![rows.len()] } else { vec![rows.len(), columns] };
            self.computed.insert(format!("final_rows_index.{p}"), Array::ints(&[rows.len()], *width, rows.clone()));
            self.floats(format!("final_rows.{p}"), &shape, sampled);
            self.floats(format!("final_delta_l2.{p}"), &[1], vec![moved.sqrt() as f32]);
        }
        Ok(())
    }
}

/// The largest magnitude; a NaN wins.
fn max_abs(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |max, x| if x.abs() > max || x.is_nan() { x.abs() } else { max })
}

/// Bytes of one code.
fn width(bits: Bits) -> usize {
    if bits.width() <= 8 { 1 } else { 2 }
}

/// The codes of rows of `columns` values, with one scale per row or one for all; the values become code times scale.
fn pack_group(values: &mut [f32], columns: usize, scales: &[f32], bits: Bits) -> Vec<i32> {
    let n = bits.max_code() as f32;
    let mut codes = Vec::with_capacity(values.len());
    for (row, values) in values.chunks_mut(columns).enumerate() {
        let scale = scales[if scales.len() == 1 { 0 } else { row }];
        for value in values {
            let code = quant::code(*value, 1.0 / scale, n);
            *value = code * scale;
            codes.push(code as i32);
        }
    }
    codes
}
