//! From settings to a model's shape and its samples.

use crate::config::{Config, Format, IdText, Ids, Schema, Shape};
use crate::data::dataset::{self, Parts};
use crate::data::synthetic::Clicks;
use crate::data::{Block, Samples};
use crate::error::{Error, Result};
use crate::metrics::Summary;
use std::ops::Range;
use std::sync::Arc;

/// Gets (what is done, units done, units in all).
pub type Preparing<'a> = dyn FnMut(&str, u64, u64) + 'a;

/// Data and the shape that fits it. Copies share the samples.
#[derive(Clone)]
pub struct Assembled {
    /// The model.
    pub shape: Shape,
    /// All samples.
    pub samples: Arc<dyn Samples>,
    /// Train, validation and test.
    pub parts: Parts,
    /// The generator, when the clicks are synthetic.
    pub clicks: Option<Arc<Clicks>>,
    /// The id dictionary as bytes, for text data.
    pub ids: Option<Arc<Vec<u8>>>,
    /// Columns of a line of text data, where they are numbered and all files agree.
    pub width: Option<usize>,
    /// Malformed lines left out.
    pub skipped: u64,
    /// The first few of them, one sentence each.
    pub messages: Vec<String>,
}

impl std::fmt::Debug for Assembled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Assembled").field("shape", &self.shape).field("parts", &self.parts).finish_non_exhaustive()
    }
}

/// Settings with the data's format decided: files without a format are Criteo's, or text when
/// there is a schema.
///
/// # Errors
/// Settings that contradict each other.
pub fn resolve(config: &Config) -> Result<Config> {
    let mut config = config.clone();
    let data = &mut config.data;
    if data.format == Format::Synthetic && !data.files.is_empty() {
        data.format = if data.schema == Schema::default() { Format::Criteo } else { Format::Text };
    }
    if data.modulo == Some(0) {
        return Err(Error::Config("data.modulo is 0; ids need at least one row".into()));
    }
    Ok(config)
}

/// The columns of the run's files.
///
/// # Errors
/// A text schema without dense or without categorical columns.
pub fn schema(config: &Config) -> Result<Schema> {
    if config.data.format != Format::Text {
        return Ok(Schema::criteo(13, 26));
    }
    let schema = config.data.schema.clone();
    let missing =
        |what: &str, key: &str| Err(Error::Config(format!("data.schema has no {what} column; name at least one in data.schema.{key}")));
    if schema.dense.is_empty() {
        return missing("dense", "dense");
    }
    if schema.tables() == 0 {
        return missing("categorical or multi-hot", "categorical");
    }
    Ok(schema)
}

/// Rows of each table when ids are taken modulo.
pub(super) fn modulo_rows(config: &Config, tables: usize) -> Result<Vec<u64>> {
    let cap = config.model.max_rows.unwrap_or(u64::MAX);
    let preset = config.model.preset.rows();
    let rows = match (&config.model.rows, config.data.modulo) {
        (Some(rows), _) if rows.len() == tables => rows.clone(),
        (Some(rows), _) => return Err(wrong_count(rows.len(), tables)),
        (None, Some(modulo)) => vec![modulo; tables],
        (None, None) if preset.len() == tables && config.data.format != Format::Text => preset,
        (None, None) => {
            return Err(Error::Config("ids = \"modulo\" needs data.modulo (--modulo N) or model.rows, one number for each table".into()));
        }
    };
    Ok(rows.into_iter().map(|r| r.min(cap)).collect())
}

fn wrong_count(given: usize, tables: usize) -> Error {
    Error::Config(format!("model.rows names {given} tables, but the data has {tables} categorical columns; they must be equal"))
}

/// Opens or makes the data and works out the model's shape.
///
/// # Errors
/// A format that needs files without any; files that cannot be read or used; data and model that do not fit.
pub fn assemble(config: &Config, preparing: &mut Preparing<'_>) -> Result<Assembled> {
    if config.data.format != Format::Synthetic && config.data.files.is_empty() {
        return Err(Error::Config("data.format asks for files, but data.files is empty; name them there or with --data".into()));
    }
    match config.data.format {
        Format::Synthetic => synthetic(config),
        Format::Criteo | Format::Text => text(config, preparing),
    }
}

fn synthetic(config: &Config) -> Result<Assembled> {
    let shape = config.model.shape(None, None)?;
    let clicks = Arc::new(Clicks::new(&config.data.synthetic, config.seed, shape.dense, shape.rows.clone()));
    let parts = Parts::new(clicks.len(), config.data.split);
    check_parts(config, &parts, clicks.len())?;
    Ok(Assembled { shape, samples: clicks.clone(), parts, clicks: Some(clicks), ids: None, width: None, skipped: 0, messages: Vec::new() })
}

/// Rows of each table where they do not come from the data's dictionary.
pub(super) fn moduli(config: &Config, schema: &Schema) -> Result<Option<Vec<u64>>> {
    let tables = schema.tables();
    Ok(match (config.data.ids, &config.model.rows) {
        (Ids::Direct, None) => {
            return Err(Error::Config("data.ids = \"direct\" needs model.rows, the rows of each table".into()));
        }
        (Ids::Direct, Some(_)) if schema.id_text == IdText::Text => {
            return Err(Error::Config(
                "data.ids = \"direct\" takes categories as row numbers; set data.schema.id_text to \"int\" or \"hex\"".into(),
            ));
        }
        (Ids::Modulo | Ids::Direct, _) => Some(modulo_rows(config, tables)?),
        (Ids::Dictionary, None) => None,
        (Ids::Dictionary, Some(rows)) if rows.len() != tables => return Err(wrong_count(rows.len(), tables)),
        (Ids::Dictionary, Some(_)) => {
            return Err(Error::Config(
                "model.rows is given, but data.ids = \"dictionary\" takes the rows from the data; leave model.rows out, cap them with \
                 model.max_rows, or use data.ids = \"modulo\""
                    .into(),
            ));
        }
    })
}

fn text(config: &Config, preparing: &mut Preparing<'_>) -> Result<Assembled> {
    let schema = schema(config)?;
    let dense = schema.dense.len();
    if let Some(given) = config.model.dense.filter(|&d| d != dense) {
        return Err(Error::Config(format!("model.dense is {given}, but the data has {dense} dense columns")));
    }
    let modulo = moduli(config, &schema)?;
    let mut progress = |done: u64, total: u64, _rows: u64| preparing("data", done, total);
    let prepared = dataset::open(&config.data, &schema, modulo.as_deref(), config.model.max_rows, &mut progress)?;
    let shape =
        crate::config::Model { rows: None, ..config.model.clone() }.shape(Some(prepared.dense()), Some(prepared.rows().to_vec()))?;
    let (parts, skipped, messages) = (prepared.parts(), prepared.skipped(), prepared.messages().to_vec());
    let (ids, width) = (Some(Arc::new(prepared.mapper().to_bytes())), prepared.width());
    check_parts(config, &parts, prepared.len())?;
    Ok(Assembled { shape, samples: Arc::new(prepared), parts, clicks: None, ids, width, skipped, messages })
}

/// There is something to train on.
fn check_parts(config: &Config, parts: &Parts, samples: u64) -> Result<()> {
    if parts.train.is_empty() {
        let share = config.data.split[0];
        return Err(Error::Data(format!("{samples} samples are too few: the training part (data.split {share}) would be empty")));
    }
    Ok(())
}

impl Assembled {
    /// The AUC that the synthetic clicks' own probabilities reach on `range`; `None` for real data.
    ///
    /// # Errors
    /// Samples that cannot be read.
    pub fn teacher_auc(&self, range: Range<u64>) -> Result<Option<f64>> {
        let Some(clicks) = &self.clicks else { return Ok(None) };
        let (mut logits, mut labels) = (Vec::new(), Vec::new());
        let mut block = Block::new();
        let indices: Vec<u64> = range.collect();
        for chunk in indices.chunks(4096) {
            block.clear();
            clicks.fetch(chunk, &mut block)?;
            labels.extend(&block.labels);
            logits.extend(chunk.iter().map(|&i| {
                let p = clicks.teacher_probability(i);
                (p / (1.0 - p)).ln() as f32
            }));
        }
        Ok(Summary::from_logits(&logits, &labels).auc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Column, Preset};

    fn with_files() -> Config {
        let mut config = Config::default();
        config.data.files = vec!["a.tsv".into()];
        config
    }

    fn refused(config: &Config) -> String {
        let result = resolve(config).and_then(|c| assemble(&c, &mut |_, _, _| {}));
        result.err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn files_without_a_format_are_criteos_unless_there_is_a_schema() {
        let mut config = with_files();
        assert_eq!(resolve(&config).unwrap().data.format, Format::Criteo);
        config.data.schema.categorical = vec![Column::Number(2)];
        assert_eq!(resolve(&config).unwrap().data.format, Format::Text);
        config.data.files.clear();
        config.data.format = Format::Criteo;
        assert!(refused(&config).contains("data.files is empty"));
    }

    #[test]
    fn contradictions_between_model_and_data_are_explained() {
        let mut config = with_files();
        config.model.rows = Some(vec![10; 26]);
        assert!(refused(&config).contains("data.ids = \"dictionary\" takes the rows from the data"));
        config.model.rows = Some(vec![10; 3]);
        assert!(refused(&config).contains("names 3 tables, but the data has 26"));
        config.model.rows = None;
        config.model.dense = Some(4);
        assert!(refused(&config).contains("model.dense is 4, but the data has 13"));
        config.model.dense = None;
        config.data.schema.categorical = vec![Column::Number(2)];
        assert!(refused(&config).contains("no dense column"));
    }

    #[test]
    fn modulo_rows_come_from_the_model_the_modulus_or_the_preset() {
        let mut config = resolve(&with_files()).unwrap();
        config.model.preset = Preset::Kaggle;
        config.model.max_rows = Some(1000);
        assert_eq!(modulo_rows(&config, 26).unwrap()[..3], [1000, 583, 1000]);
        config.data.modulo = Some(50);
        assert_eq!(modulo_rows(&config, 26).unwrap(), [50; 26]);
        config.data.modulo = None;
        config.data.format = Format::Text;
        assert!(modulo_rows(&config, 26).unwrap_err().to_string().contains("--modulo N"));
    }
}
