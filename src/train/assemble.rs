//! From settings to a model's shape and its samples.

use crate::config::{Config, Format, IdText, Ids, Schema, Shape};
use crate::data::binary::{self, Binary};
use crate::data::dataset::{self, Making, Parts, Prepared, Settings};
use crate::data::parquet;
use crate::data::synthetic::Clicks;
use crate::data::{Block, Samples};
use crate::error::{Error, Result};
use crate::metrics::Summary;
use std::ops::Range;
use std::path::Path;
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
    if config.data.format == Format::Synthetic && dataset::is_folder(&config.data.files) {
        let settings = dataset::settings(Path::new(&config.data.files[0]))?;
        adopt(&mut config, settings)?;
    }
    let data = &mut config.data;
    if matches!(data.format, Format::Synthetic | Format::Parquet)
        && !data.files.is_empty()
        && data.files.iter().all(|file| parquet::is_parquet(file))
    {
        let (files, split) = parquet::expand(&data.files)?;
        (data.files, data.format) = (files, Format::Parquet);
        data.split = split.unwrap_or(data.split);
        if data.schema == Schema::default() {
            data.schema = parquet::usual_schema(&data.files[0])?;
        }
    }
    if data.format == Format::Synthetic && !data.files.is_empty() {
        data.format = match data.schema == Schema::default() {
            true if data.files.iter().all(|file| has_extension(file, "bin")) => Format::Binary,
            true => Format::Criteo,
            false => Format::Text,
        };
    }
    if data.format == Format::Binary && data.ids == Ids::Dictionary {
        data.ids = Ids::Direct; // categories are rows already
    }
    if data.modulo == Some(0) {
        return Err(Error::Config("data.modulo is 0; ids need at least one row".into()));
    }
    Ok(config)
}

/// The name ends with a dot and `extension`.
fn has_extension(file: &str, extension: &str) -> bool {
    Path::new(file).extension().is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

/// Takes over what decided how prepared data was made; a setting that says otherwise is an error.
fn adopt(config: &mut Config, settings: Settings) -> Result<()> {
    let plain = Config::default();
    let folder = config.data.files.join(", ");
    let other = |key: &str, found: String, wanted: String| {
        let text =
            format!("`{folder}` was prepared with {key} = {found}, but the settings say {wanted}; leave it out, or prepare the data again");
        Err(Error::Config(text))
    };
    let (data, model) = (&mut config.data, &mut config.model);
    if data.ids != plain.data.ids && data.ids != settings.ids {
        return other("data.ids", format!("{:?}", settings.ids).to_lowercase(), format!("{:?}", data.ids).to_lowercase());
    }
    if data.split != plain.data.split && !same_split(data.split, settings.split) {
        return other("data.split", format!("{:?}", settings.split), format!("{:?}", data.split));
    }
    if data.schema != plain.data.schema
        && (Schema { width: None, ..data.schema.clone() }) != (Schema { width: None, ..settings.schema.clone() })
    {
        return other("another data.schema", "see its meta.json".into(), "something else".into());
    }
    if model.max_rows.is_some_and(|rows| settings.rows.is_none() && Some(rows) != settings.max_rows) {
        return other("model.max_rows", format!("{:?}", settings.max_rows), format!("{:?}", model.max_rows));
    }
    if model.rows.is_some() && model.rows != settings.rows {
        return other("model.rows", format!("{:?}", settings.rows), format!("{:?}", model.rows));
    }
    data.format = settings.format;
    data.ids = settings.ids;
    data.split = settings.split;
    data.on_bad_row = settings.on_bad_row;
    if settings.format != Format::Criteo {
        data.schema = settings.schema;
    }
    data.modulo = None;
    model.rows = settings.rows;
    model.max_rows = settings.max_rows;
    Ok(())
}

/// Equal up to what writing them down takes away.
fn same_split(a: [f64; 3], b: [f64; 3]) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12)
}

/// The columns of the run's files.
///
/// # Errors
/// A text schema without dense or without categorical columns.
pub fn schema(config: &Config) -> Result<Schema> {
    if matches!(config.data.format, Format::Synthetic | Format::Criteo | Format::Binary) {
        return Ok(Schema::criteo(binary::DENSE, binary::TABLES));
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
        Format::Criteo | Format::Text | Format::Parquet => text(config, preparing),
        Format::Binary => in_place(config, preparing),
    }
}

fn synthetic(config: &Config) -> Result<Assembled> {
    let shape = config.model.shape(None, None)?;
    let clicks = Arc::new(Clicks::new(&config.data.synthetic, config.seed, shape.dense, shape.rows.clone()));
    let parts = Parts::new(clicks.len(), config.data.split);
    check_parts(config, &parts, clicks.len())?;
    Ok(Assembled { shape, samples: clicks.clone(), parts, clicks: Some(clicks), ids: None, width: None, skipped: 0, messages: Vec::new() })
}

/// Reads prepared data, or text and Parquet after preparing them in the cache.
fn text(config: &Config, preparing: &mut Preparing<'_>) -> Result<Assembled> {
    let mut progress = |done: u64, total: u64, _rows: u64| preparing("data", done, total);
    let prepared = if dataset::is_folder(&config.data.files) {
        open_folder(config)?
    } else {
        let (schema, modulo) = input(config)?;
        dataset::open(&config.data, &schema, modulo.as_deref(), config.model.max_rows, &mut progress)?
    };
    if let Some(given) = config.model.dense.filter(|&d| d != prepared.dense()) {
        return Err(wrong_dense(given, prepared.dense()));
    }
    let shape =
        crate::config::Model { rows: None, ..config.model.clone() }.shape(Some(prepared.dense()), Some(prepared.rows().to_vec()))?;
    let (parts, skipped, messages) = (prepared.parts(), prepared.skipped(), prepared.messages().to_vec());
    let (ids, width) = (Some(Arc::new(prepared.mapper().to_bytes())), prepared.width());
    check_parts(config, &parts, prepared.len())?;
    Ok(Assembled { shape, samples: Arc::new(prepared), parts, clicks: None, ids, width, skipped, messages })
}

/// Reads binary files where they are.
fn in_place(config: &Config, preparing: &mut Preparing<'_>) -> Result<Assembled> {
    if let Some(given) = config.model.dense.filter(|&d| d != binary::DENSE) {
        return Err(wrong_dense(given, binary::DENSE));
    }
    let binary = open_binary(&config.data.files, config, preparing)?;
    let model = crate::config::Model { rows: None, ..config.model.clone() };
    let shape = model.shape(Some(binary::DENSE), Some(binary.rows().to_vec()))?;
    let parts = Parts::new(binary.len(), config.data.split);
    check_parts(config, &parts, binary.len())?;
    let ids = Some(Arc::new(binary.mapper().to_bytes()));
    Ok(Assembled { shape, samples: Arc::new(binary), parts, clicks: None, ids, width: None, skipped: 0, messages: Vec::new() })
}

/// Opens binary files as the settings say: rows that are declared, or found by reading everything once.
fn open_binary(files: &[String], config: &Config, preparing: &mut Preparing<'_>) -> Result<Binary> {
    let (data, model) = (&config.data, &config.model);
    let modulo = data.ids == Ids::Modulo || (model.max_rows.is_some() && model.rows.is_some());
    let rows = if data.ids == Ids::Modulo || model.rows.is_some() { Some(modulo_rows(config, binary::TABLES)?) } else { None };
    let ids = if modulo { Ids::Modulo } else { Ids::Direct };
    Binary::open(files, ids, rows.as_deref(), model.max_rows, &mut |done, total, _| preparing("data", done, total))
}

/// Prepared data that was made with these settings.
fn open_folder(config: &Config) -> Result<Prepared> {
    let prepared = dataset::open_folder(Path::new(&config.data.files[0]))?;
    let (settings, data) = (prepared.settings(), &config.data);
    let narrow = |schema: &Schema| Schema { width: None, ..schema.clone() };
    let fits = settings.format == data.format
        && settings.ids == data.ids
        && same_split(settings.split, data.split)
        && narrow(&settings.schema) == narrow(&schema(config)?);
    if !fits {
        return Err(Error::Config(format!("`{}` was prepared with other settings of [data]; see its meta.json", data.files[0])));
    }
    Ok(prepared)
}

/// Prepares the run's files into a folder of their own; the settings must be those that [`resolve`] gave.
///
/// # Errors
/// No files, or settings that do not fit them; as [`dataset::to_folder`].
pub fn prepare(config: &Config, out: &Path, making: Making<'_, '_>) -> Result<Prepared> {
    if config.data.files.is_empty() {
        return Err(Error::Config("there is nothing to prepare; name the files".into()));
    }
    if dataset::is_folder(&config.data.files) {
        return Err(Error::Config(format!("`{}` is prepared already; check it with --verify", config.data.files[0])));
    }
    if config.data.format == Format::Binary {
        return Err(Error::Config("binary files are read as they are; give them to `dqrm train --data`".into()));
    }
    let (schema, modulo) = input(config)?;
    dataset::to_folder(&config.data, &schema, modulo.as_deref(), config.model.max_rows, out, making)
}

fn wrong_dense(given: usize, found: usize) -> Error {
    Error::Config(format!("model.dense is {given}, but the data has {found} dense columns"))
}

/// The columns of the run's files, and the rows of each table where they are not the data's.
pub(super) fn input(config: &Config) -> Result<(Schema, Option<Vec<u64>>)> {
    let schema = schema(config)?;
    let (dense, tables) = (schema.dense.len(), schema.tables());
    if let Some(given) = config.model.dense.filter(|&d| d != dense) {
        return Err(wrong_dense(given, dense));
    }
    let modulo = match (config.data.ids, &config.model.rows) {
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
    };
    Ok((schema, modulo))
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
