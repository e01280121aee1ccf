//! A trained model, loaded to predict.

use super::{Assembled, Preparing, assemble, broken, folder, memory, resolve, schema, stream, tables};
use crate::checkpoint::Checkpoint;
use crate::config::{Column, Config, Device, Format, Ids, OnBadRow, Optim, Schema, Shape, Workers};
use crate::data::binary::Binary;
use crate::data::dataset;
use crate::data::ids::Mapper;
use crate::data::loader::{Loader, Order, Share};
use crate::data::{Batch, Block, Samples};
use crate::error::{Error, Result};
use crate::metrics::Summary;
use crate::packed::{self, Packed};
use crate::predictor::Predictor;
use crate::session::{DeviceInfo, Loading, Session};
use crate::tables::Tables;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which checkpoint of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one with the best AUC on the validation part.
    Best,
    /// The newest.
    Last,
}

/// What computes the logits.
#[derive(Debug)]
enum Model {
    /// Full-precision weights, fake-quantized as while training.
    Session(Box<Session>),
    /// Packed codes.
    Predictor(Box<Predictor>),
}

impl Model {
    fn tables(&self) -> &Tables {
        match self {
            Model::Session(s) => s.tables(),
            Model::Predictor(p) => p.tables(),
        }
    }

    fn shape(&self) -> &Shape {
        match self {
            Model::Session(s) => s.shape(),
            Model::Predictor(p) => p.shape(),
        }
    }

    fn device(&self) -> &DeviceInfo {
        match self {
            Model::Session(s) => s.device(),
            Model::Predictor(p) => p.device(),
        }
    }

    fn logits(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        match self {
            Model::Session(s) => pollster::block_on(s.logits(batch)),
            Model::Predictor(p) => pollster::block_on(p.logits(batch)),
        }
    }
}

/// A trained model on a device: a run's checkpoint without optimizer state, or a packed file.
#[derive(Debug)]
pub struct Trained {
    config: Config,
    schema: Schema,
    mapper: Mapper,
    model: Model,
    /// The checkpoint or packed file in use.
    pub path: PathBuf,
    /// Steps it was trained for.
    pub step: u64,
    /// True when the run's own ids mean nothing outside of it (synthetic clicks).
    pub synthetic: bool,
}

/// Gets (logits, labels) of some samples.
pub type Each<'a> = dyn FnMut(&[f32], &[f32]) -> Result<()> + 'a;

/// What reading data brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scored {
    /// Samples.
    pub samples: u64,
    /// Malformed lines left out.
    pub skipped: u64,
    /// The first few of them, one sentence each.
    pub messages: Vec<String>,
}

impl Trained {
    /// Loads a packed file, or the model of the run in a folder: `which` checkpoint, or the best if there is one.
    ///
    /// # Errors
    /// A folder without a run, a file that is damaged, a device that does not exist.
    pub fn open(path: &Path, which: Option<Which>, device: Option<Device>) -> Result<Trained> {
        if !path.is_file() {
            return Trained::open_run(path, which, device);
        }
        if which.is_some() {
            return Err(Error::Config(format!("`{}` is a file; only a run's folder has a best and a last checkpoint", path.display())));
        }
        Trained::open_packed(path, &packed::open(path)?, device)
    }

    fn open_run(dir: &Path, which: Option<Which>, device: Option<Device>) -> Result<Trained> {
        let mut config = resolve(&folder::read_config(dir)?)?;
        let path = checkpoint_path(dir, which)?;
        config.device = device.unwrap_or(config.device);
        config.train.batch = 1;
        config.optim = Optim::default();
        config.workers = Workers::default();
        let mut checkpoint = Checkpoint::open(&path)?;
        checkpoint.verify()?;
        let shape = checkpoint.header.shape.clone().ok_or_else(|| broken(&path, "has no `dqrm.shape`"))?;
        let schema = schema(&config)?;
        let mapper = mapper(&config, &shape, dir)?;
        if mapper.rows() != shape.rows {
            return Err(broken(&path, format!("its tables have {:?} rows, but {} gives {:?}", shape.rows, folder::IDS, mapper.rows())));
        }
        checkpoint.check_weights(&shape)?;
        let bags = max_bag(&config, &shape, &schema);
        memory::check(&shape, &config, &bags, super::memory())?;
        let mut session = tables::load(&shape, &config, &bags, dir, Loading::default())?;
        checkpoint.load_inference(&mut session)?;
        session.begin_evaluation()?;
        let (step, synthetic) = (checkpoint.header.step, config.data.format == Format::Synthetic);
        Ok(Trained { config, schema, mapper, model: Model::Session(Box::new(session)), path, step, synthetic })
    }

    /// Loads a packed model; `path` is what messages call it.
    ///
    /// # Errors
    /// An id mapping that does not fit the tables, a device that does not exist or is too small.
    pub fn open_packed(path: &Path, packed: &Packed, device: Option<Device>) -> Result<Trained> {
        let m = packed.manifest();
        let mapper = Mapper::from_bytes(packed.ids()).map_err(|e| broken(path, e.to_string()))?;
        if mapper.rows() != m.shape.rows {
            return Err(broken(path, format!("its tables have {:?} rows, but its id mapping gives {:?}", m.shape.rows, mapper.rows())));
        }
        let mut config = packed_config(m);
        config.device = device.unwrap_or(config.device);
        config.validate().map_err(|e| broken(path, e.to_string()))?;
        let predictor = pollster::block_on(Predictor::load(packed, &config.device, config.train.eval_batch))?.regular();
        config.train.eval_batch = predictor.batch();
        let (schema, step, synthetic) = (m.input.schema.clone(), m.step, m.input.generator.is_some());
        Ok(Trained { config, schema, mapper, model: Model::Predictor(Box::new(predictor)), path: path.into(), step, synthetic })
    }

    /// The device in use.
    pub fn device(&self) -> &DeviceInfo {
        self.model.device()
    }

    /// Replaces what a malformed line does.
    pub fn set_on_bad_row(&mut self, on_bad_row: OnBadRow) {
        self.config.data.on_bad_row = on_bad_row;
    }

    /// The run's own data, with its parts.
    ///
    /// # Errors
    /// As [`assemble`]; a packed model does not know where its data is, unless it was made up.
    pub fn own_data(&self, preparing: &mut Preparing<'_>) -> Result<Assembled> {
        if matches!(self.model, Model::Predictor(_)) && !self.synthetic {
            return Err(Error::Config(format!(
                "`{}` does not hold the data it was trained on; name labelled files with --data",
                self.path.display()
            )));
        }
        assemble(&self.config, preparing)
    }

    /// Logits of a block of at most `train.eval_batch` samples.
    ///
    /// # Errors
    /// Ids outside their tables, a lost device.
    pub fn logits(&mut self, block: &Block) -> Result<Vec<f32>> {
        let batch = Batch::prepare(block, self.model.tables())?;
        self.model.logits(&batch)
    }

    /// Reads `files` (`-` is standard input) in order and gives `each` (logits, labels); labels are
    /// empty where `labelled` is false.
    ///
    /// # Errors
    /// Files that cannot be read, malformed lines unless they are skipped, whatever `each` returns.
    pub fn score(&mut self, files: &[String], labelled: bool, each: &mut Each<'_>) -> Result<Scored> {
        if self.schema.dense.len() != self.model.shape().dense || self.schema.tables() != self.model.shape().tables() {
            return Err(Error::Config(format!(
                "the run's model has {} dense features and {} tables, but a line of data has {} and {}",
                self.model.shape().dense,
                self.model.shape().tables(),
                self.schema.dense.len(),
                self.schema.tables()
            )));
        }
        if dataset::is_folder(files) {
            let prepared = dataset::open_folder(Path::new(&files[0]))?;
            let found = prepared.settings().schema;
            if let Some(how) = differs(&self.schema, &found, prepared.mapper().is_dictionary(), labelled) {
                return Err(Error::Config(format!("`{}` {how}; prepare the files with the model's data.schema", files[0])));
            }
            let prepared = prepared.renumbered(&self.mapper)?;
            let (skipped, messages) = (prepared.skipped(), prepared.messages().to_vec());
            let samples = self.score_samples(Arc::new(prepared), labelled, each)?;
            return Ok(Scored { samples, skipped, messages });
        }
        if self.config.data.format == Format::Binary {
            let ids = if self.mapper.limits().is_some() { Ids::Direct } else { Ids::Modulo };
            let binary = Binary::open(files, ids, Some(self.mapper.rows()), None, &mut |_, _, _| {})?;
            let samples = self.score_samples(Arc::new(binary), labelled, each)?;
            return Ok(Scored { samples, ..Scored::default() });
        }
        let mut scored = Scored::default();
        let size = self.config.train.eval_batch;
        let (format, on_bad_row) = (self.config.data.format, self.config.data.on_bad_row);
        let mut reader = stream::Rows::new(files, stream::How { format, schema: &self.schema, on_bad_row, labelled }, &self.mapper)?;
        let mut block = Block::new();
        loop {
            block.clear();
            reader.fill(&self.mapper, size, &mut block)?;
            if block.samples == 0 {
                break;
            }
            scored.samples += block.samples as u64;
            let batch = Batch::prepare(&block, self.model.tables())?;
            let logits = self.model.logits(&batch)?;
            each(&logits, &block.labels)?;
        }
        scored.skipped = reader.skipped();
        scored.messages = reader.messages().to_vec();
        Ok(scored)
    }

    /// The same for all of `samples`, whose rows must be numbered as the model's; gives their number.
    fn score_samples(&mut self, samples: Arc<dyn Samples>, labelled: bool, each: &mut Each<'_>) -> Result<u64> {
        let (order, batch) = (Order { range: 0..samples.len(), shuffle: None, share: Share::default() }, self.config.train.eval_batch);
        let (steps, count) = (0..order.steps_per_epoch(batch), order.samples());
        let tables = self.model.tables().clone();
        for batch in Loader::new(samples, order, tables, batch, steps, self.config.train.loader_threads)? {
            let batch = batch?;
            let logits = self.model.logits(&batch)?;
            each(&logits, if labelled { &batch.labels } else { &[] })?;
        }
        Ok(count)
    }

    /// Evaluates samples `range` of the run's own data.
    ///
    /// # Errors
    /// Samples that cannot be read.
    pub fn evaluate(&mut self, data: &Assembled, range: std::ops::Range<u64>) -> Result<Summary> {
        let batch = self.config.train.eval_batch;
        let steps = 0..(range.end - range.start).div_ceil(batch as u64);
        let order = Order { range, shuffle: None, share: Share::default() };
        let threads = self.config.train.loader_threads;
        let batches = Loader::new(data.samples.clone(), order, self.model.tables().clone(), batch, steps, threads)?;
        let (mut logits, mut labels) = (Vec::new(), Vec::new());
        for batch in batches {
            let batch = batch?;
            logits.extend(self.model.logits(&batch)?);
            labels.extend(&batch.labels);
        }
        Ok(Summary::from_logits(&logits, &labels))
    }
}

/// Why prepared data with the schema `found` does not have a model's columns, read as the model reads them. How categories were
/// spelled matters where the folder keeps them in a `dictionary`, and from where on a label is positive where labels are used.
fn differs(own: &Schema, found: &Schema, dictionary: bool, labelled: bool) -> Option<String> {
    let counts = |s: &Schema| (s.dense.len(), s.categorical.len(), s.multi_hot.len());
    if counts(found) != counts(own) {
        return Some(format!("has {:?} dense, categorical and multi-hot columns, but the model has {:?}", counts(found), counts(own)));
    }
    let inputs = |s: &Schema| [s.dense.clone(), s.categorical.clone(), s.multi_hot.clone()].concat();
    for (found, own) in inputs(found).iter().zip(&inputs(own)) {
        // a number says where a column stands, not what it holds
        if let (Column::Name(found), Column::Name(own)) = (found, own)
            && found != own
        {
            return Some(format!("has the column `{found}` where the model has `{own}`"));
        }
    }
    match () {
        () if found.dense_log != own.dense_log => Some("takes logarithms of its dense columns otherwise than the model".into()),
        () if dictionary && found.id_text != own.id_text => {
            Some(format!("reads categories as {:?}, but the model as {:?}", found.id_text, own.id_text))
        }
        () if labelled && found.label_threshold != own.label_threshold => {
            Some(format!("counts labels from {} on as positive, but the model from {} on", found.label_threshold, own.label_threshold))
        }
        () => None,
    }
}

/// The checkpoint asked for, or the best if there is one.
pub(super) fn checkpoint_path(dir: &Path, which: Option<Which>) -> Result<PathBuf> {
    let best = dir.join(folder::BEST);
    let path = match which {
        Some(Which::Last) => dir.join(folder::LAST),
        None if !best.exists() => dir.join(folder::LAST),
        _ => best,
    };
    if !path.exists() {
        return Err(Error::Config(format!("`{}` does not exist: the run has not written that checkpoint", path.display())));
    }
    Ok(path)
}

/// Settings under which a packed model reads data as its run did.
fn packed_config(m: &packed::Manifest) -> Config {
    let mut config = Config::default();
    let shape = &m.shape;
    config.model = crate::config::Model {
        dense: Some(shape.dense),
        dim: Some(shape.dim),
        bottom: Some(shape.bottom[1..].to_vec()),
        top: Some(shape.top[1..].to_vec()),
        rows: Some(shape.rows.clone()),
        interaction: shape.interaction,
        interaction_diagonal: shape.diagonal,
        loss: shape.loss,
        ..crate::config::Model::default()
    };
    config.data.format = m.input.format;
    config.data.schema = m.input.schema.clone();
    if let Some(generator) = &m.input.generator {
        config.seed = generator.seed;
        config.data.split = generator.split;
        config.data.synthetic = generator.synthetic.clone();
    }
    config
}

/// How the run numbers its categories. Synthetic rows have no raw form; text is then taken modulo.
fn mapper(config: &Config, shape: &Shape, dir: &Path) -> Result<Mapper> {
    if config.data.format == Format::Synthetic {
        return Ok(Mapper::modulo(&shape.rows));
    }
    let path = dir.join(folder::IDS);
    let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
    Mapper::from_bytes(&bytes).map_err(|e| broken(&path, e.to_string()))
}

/// The most ids a bag of each table may have.
fn max_bag(config: &Config, shape: &Shape, schema: &Schema) -> Vec<usize> {
    if config.data.format == Format::Synthetic {
        return vec![config.data.synthetic.bag; shape.tables()];
    }
    let one = schema.categorical.iter().map(|_| 1);
    one.chain(schema.multi_hot.iter().map(|_| schema.multi_hot_max)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::IdText;

    #[test]
    fn prepared_data_is_compared_where_it_matters() {
        let names = |names: &[&str]| names.iter().map(|&name| Column::Name(name.into())).collect::<Vec<_>>();
        let own = Schema { header: true, dense: names(&["a", "b"]), categorical: names(&["c"]), ..Schema::default() };
        let says = |found: &Schema, dictionary, labelled| differs(&own, found, dictionary, labelled).unwrap_or_default();
        assert_eq!(says(&own, true, true), "");
        let swapped = Schema { dense: names(&["b", "a"]), ..own.clone() };
        assert_eq!(says(&swapped, true, true), "has the column `b` where the model has `a`");
        assert!(says(&Schema { categorical: names(&["d"]), ..own.clone() }, false, false).contains("`d` where the model has `c`"));
        let numbered = Schema { id_text: IdText::Text, ..Schema::criteo(2, 1) };
        assert_eq!(says(&numbered, true, true), "", "numbers are no names");
        assert!(says(&Schema { multi_hot: names(&["m"]), ..own.clone() }, true, true).contains("(2, 1, 1)"));
        assert!(says(&Schema { dense_log: false, ..own.clone() }, false, false).contains("logarithms"));
        let hex = Schema { id_text: IdText::Hex, ..own.clone() };
        assert!(says(&hex, true, true).contains("categories as Hex"));
        assert_eq!(says(&hex, false, true), "", "the folder holds row numbers");
        let stars = Schema { label_threshold: 4.0, ..own.clone() };
        assert!(says(&stars, true, true).contains("from 4 on as positive, but the model from 0.5 on"));
        assert_eq!(says(&stars, true, false), "", "labels are not used");
    }
}
