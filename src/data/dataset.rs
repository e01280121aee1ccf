//! Prepared data: input read once, kept as numbers in a folder, mapped into memory and read at random from there.
//!
//! A cache folder holds one folder for each set of inputs and settings, named by their fingerprint; it is written
//! under another name and renamed when whole. [`to_folder`] makes one that the user names. All numbers are little
//! endian, without padding:
//!
//! | file | what |
//! |---|---|
//! | `rows.bin` | one record for each row: label `f32`, dense `f32` × D, bag sizes `u32` × M, ids `u32` × the row's categories |
//! | `index.bin` | only with multi-hot columns: where each record begins in `rows.bin`, and the end, `u64` × (n + 1) |
//! | `ids.bin` | the [mapping](super::ids) as the training part knows it |
//! | `sums.bin` | checksums of the first two |
//! | `meta.json` | sizes, parts, settings, checksums of the others |
//!
//! M is the number of multi-hot columns (their tables come last). With a dictionary, the ids are
//! places in first-seen order over the whole data, counted from 1: those that the training part
//! has not seen lie above its count of keys, and [`Samples::fetch`](super::Samples::fetch) gives them row 0.

use super::ids::Mapper;
use super::manifest::{BLOCK, IDS, INDEX, META, Meta, ROWS, SUMS, Sums, hex};
use super::prepare::{self, Job};
use crate::config::{Data, Ids, Schema};
use crate::error::{Error, Result};
use crate::mapped::{self, Mapped};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use xxhash_rust::xxh3::xxh3_64;

pub use super::folder::{Making, to_folder};
pub use super::manifest::Settings;
pub use super::prepare::Watch;

/// The samples' parts, in time order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// To train on.
    pub train: Range<u64>,
    /// To choose the best checkpoint.
    pub validation: Range<u64>,
    /// To report.
    pub test: Range<u64>,
}

impl Parts {
    /// Cuts `samples` by the fractions of train, validation and test; the last takes what rounding leaves.
    pub fn new(samples: u64, split: [f64; 3]) -> Parts {
        let sum: f64 = split.iter().sum();
        let cut = |share: f64| ((samples as f64 * (share / sum)).round() as u64).min(samples);
        let (a, b) = (cut(split[0]), cut(split[0] + split[1]));
        let b = if split[2] == 0.0 { samples } else { b.max(a) };
        let a = if split[1] == 0.0 && split[2] == 0.0 { samples } else { a };
        Parts { train: 0..a, validation: a..b, test: b..samples }
    }
}

/// Data ready to be read at random.
#[derive(Debug)]
pub struct Prepared {
    path: PathBuf,
    records: Mapped,
    index: Option<Mapped>,
    meta: Meta,
    mapper: Mapper,
    /// Keys known to the training part; `None` when ids are rows already.
    known: Option<Vec<u32>>,
    /// The mapper's limit.
    max_rows: Option<u64>,
    /// The rows of another mapping.
    renumbering: Option<renumbered::Renumbering>,
}

/// From categories to rows, before any is known.
pub(super) fn new_mapper(data: &Data, schema: &Schema, modulo_rows: Option<&[u64]>, max_rows: Option<u64>) -> Result<Mapper> {
    if data.files.is_empty() {
        return Err(Error::Config("data.files is empty; name the files to read".into()));
    }
    match (data.ids, modulo_rows) {
        (_, Some(rows)) if rows.len() != schema.tables() => {
            Err(Error::Config(format!("{} moduli for {} categorical columns", rows.len(), schema.tables())))
        }
        (Ids::Modulo | Ids::Direct, None) => Err(Error::Config("ids = \"modulo\" and \"direct\" need the rows of each table".into())),
        (Ids::Direct, Some(rows)) => Ok(Mapper::direct(rows)),
        (Ids::Modulo, Some(rows)) => Ok(Mapper::modulo(rows)),
        (Ids::Dictionary, _) => Ok(Mapper::dictionary(schema.tables(), max_rows)),
    }
}

/// Opens the prepared form of `data.files`, making it first unless an earlier run with the same
/// files and settings left it in `data.cache`. `modulo_rows` takes ids modulo these rows, or
/// as row numbers below them (needed for `ids = "modulo"` and `"direct"`); `max_rows` limits the tables of a dictionary. `progress` gets (bytes
/// read, bytes in all, rows so far).
///
/// # Errors
/// Files that cannot be read or are malformed, no row at all, a cache that cannot be written.
pub fn open(
    data: &Data,
    schema: &Schema,
    modulo_rows: Option<&[u64]>,
    max_rows: Option<u64>,
    progress: &mut Watch<'_>,
) -> Result<Prepared> {
    let mapper = new_mapper(data, schema, modulo_rows, max_rows)?;
    let job = Job::new(data, schema, &mapper, max_rows)?;
    let path = Path::new(&data.cache).join(&job.fingerprint);
    match Prepared::load(&path, Some(&job.fingerprint), schema) {
        Ok(prepared) => Ok(prepared),
        Err(error) => {
            if path.exists() {
                log::warn!("{error}; preparing the data again");
            }
            prepare::into_cache(&job, mapper, &path, progress)?;
            Prepared::load(&path, Some(&job.fingerprint), schema)
        }
    }
}

/// As [`open`] where an earlier run left the prepared form; else, or where it is broken, nothing.
///
/// # Errors
/// Files that do not exist, settings that contradict each other.
pub fn open_existing(data: &Data, schema: &Schema, modulo_rows: Option<&[u64]>, max_rows: Option<u64>) -> Result<Option<Prepared>> {
    let job = Job::new(data, schema, &new_mapper(data, schema, modulo_rows, max_rows)?, max_rows)?;
    Ok(Prepared::load(&Path::new(&data.cache).join(&job.fingerprint), Some(&job.fingerprint), schema).ok())
}

/// True when `files` is one folder of prepared data.
pub fn is_folder(files: &[String]) -> bool {
    matches!(files, [one] if Path::new(one).join(META).is_file())
}

/// The settings that the prepared data in a folder was made with; its schema has the width that was found.
///
/// # Errors
/// A folder whose `meta.json` is not one, or damaged.
pub fn settings(path: &Path) -> Result<Settings> {
    let meta = Meta::read(path)?;
    let mut settings = meta.settings;
    settings.schema.width = meta.width;
    Ok(settings)
}

/// Opens a folder of prepared data.
///
/// # Errors
/// Files that are missing, damaged or contradict each other.
pub fn open_folder(path: &Path) -> Result<Prepared> {
    let schema = settings(path)?.schema;
    Prepared::load(path, None, &schema)
}

/// The sizes that stand in `meta.json` are those that the schema gives.
fn fits(meta: &Meta, schema: &Schema) -> bool {
    let one_hot = schema.categorical.len();
    meta.dense == schema.dense.len()
        && meta.multi_hot == schema.multi_hot.len()
        && meta.max_bag.len() == schema.tables()
        && meta.distinct.len() == schema.tables()
        && meta.max_bag.iter().enumerate().all(|(k, &bag)| bag >= 1 && bag <= if k < one_hot { 1 } else { schema.multi_hot_max })
}

impl Prepared {
    /// Opens a folder that preparation wrote and checks that its files fit each other, the schema, and the fingerprint if
    /// one is wanted.
    pub(super) fn load(path: &Path, fingerprint: Option<&str>, schema: &Schema) -> Result<Prepared> {
        let fail = |text: String| Error::Data(format!("prepared data `{}`: {text}", path.display()));
        let read = |name: &str| std::fs::read(path.join(name)).map_err(Error::io("read", path.join(name)));
        let meta = Meta::read(path)?;
        if let Some(fingerprint) = fingerprint.filter(|f| *f != meta.fingerprint) {
            return Err(fail(format!("has fingerprint {}, not {fingerprint}", meta.fingerprint)));
        }
        let checked = |name: &str, sum: &str| {
            let bytes = read(name)?;
            if hex(xxh3_64(&bytes)) == sum { Ok(bytes) } else { Err(fail(format!("{name} does not fit its checksum in {META}"))) }
        };
        let mapper = Mapper::from_bytes(&checked(IDS, &meta.ids_checksum)?)?;
        let k_count = mapper.tables();
        let parts = [&meta.parts.train, &meta.parts.validation, &meta.parts.test];
        let ordered = parts[0].start == 0 && parts.windows(2).all(|w| w[0].end == w[1].start) && parts[2].end == meta.rows;
        if !ordered || parts.iter().any(|p| p.start > p.end) || meta.modulo == mapper.is_dictionary() || k_count != schema.tables() {
            return Err(fail(format!("{META} contradicts itself or {IDS}")));
        }
        let width = schema.width.filter(|_| schema.numbered());
        if !fits(&meta, schema) || (width.is_some() && meta.width != width) {
            return Err(fail(format!("{META} contradicts the schema")));
        }
        let records = mapped::open(&path.join(ROWS))?;
        let index = if meta.multi_hot > 0 { Some(mapped::open(&path.join(INDEX))?) } else { None };
        let record = 4 * (1 + meta.dense as u64 + k_count as u64);
        let expected = match &index {
            Some(index) => {
                if meta.rows.checked_add(1).and_then(|n| n.checked_mul(8)) != Some(index.len() as u64) {
                    return Err(fail(format!("{INDEX} has {} bytes for {} rows", index.len(), meta.rows)));
                }
                Some(meta.row_bytes)
            }
            None => meta.rows.checked_mul(record),
        };
        if expected != Some(records.len() as u64) || meta.row_bytes != records.len() as u64 {
            return Err(fail(format!("{ROWS} has {} bytes for {} rows", records.len(), meta.rows)));
        }
        let sums = checked(SUMS, &meta.sums_checksum)?;
        Sums::from_bytes(&sums, meta.row_bytes, index.as_ref().map_or(0, |i| i.len() as u64)).map_err(fail)?;
        let known = (!meta.modulo).then(|| mapper.known().iter().map(|&n| n as u32).collect());
        let max_rows = mapper.max_rows();
        Ok(Prepared { path: path.into(), records, index, meta, mapper, known, max_rows, renumbering: None })
    }

    /// Reads all bytes and compares them with their checksums. `watch` gets (bytes done, bytes in all).
    ///
    /// # Errors
    /// The first damaged piece, with its file and place.
    pub fn verify(&self, watch: &(dyn Fn(u64, u64) + Sync)) -> Result<()> {
        let index = self.index.as_deref().unwrap_or(&[]);
        let path = self.path.join(SUMS);
        let sums = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let sums = Sums::from_bytes(&sums, self.records.len() as u64, index.len() as u64).map_err(Error::Data)?;
        let (done, total) = (AtomicU64::new(0), (self.records.len() + index.len()) as u64);
        let check = |name: &str, bytes: &[u8], sums: &[u64]| -> Result<()> {
            let blocks = bytes.par_chunks(BLOCK as usize).zip(sums).enumerate();
            let bad = blocks.find_map_first(|(i, (block, &sum))| {
                let good = xxh3_64(block) == sum;
                let size = block.len() as u64;
                watch(done.fetch_add(size, Ordering::Relaxed) + size, total);
                (!good).then_some((i as u64 * BLOCK, size))
            });
            match bad {
                None => Ok(()),
                Some((at, size)) => Err(Error::Data(format!(
                    "prepared data `{}`: bytes {at} to {} of {name} do not fit their checksum; prepare the data again",
                    self.path.display(),
                    at + size
                ))),
            }
        };
        check(ROWS, &self.records, &sums.rows)?;
        check(INDEX, index, &sums.index)
    }

    /// From categories to rows, as the training part knows them.
    pub fn mapper(&self) -> &Mapper {
        &self.mapper
    }

    /// How it was made; the schema has the width that was found.
    pub fn settings(&self) -> Settings {
        let mut settings = self.meta.settings.clone();
        settings.schema.width = self.meta.width;
        settings
    }

    /// Train, validation and test.
    pub fn parts(&self) -> Parts {
        self.meta.parts.clone()
    }

    /// Distinct categories of each table in all rows; zeros when ids are rows already.
    pub fn distinct(&self) -> &[u64] {
        &self.meta.distinct
    }

    /// Bytes of all files but the two small ones.
    pub fn bytes(&self) -> u64 {
        (self.records.len() + self.index.as_ref().map_or(0, |index| index.len())) as u64
    }

    /// Columns of a line, where they are numbered and all files agree.
    pub fn width(&self) -> Option<usize> {
        self.meta.width
    }

    /// Malformed lines left out.
    pub fn skipped(&self) -> u64 {
        self.meta.skipped
    }

    /// The first few malformed lines left out, one sentence each.
    pub fn messages(&self) -> &[String] {
        &self.meta.messages
    }

    /// The folder it is kept in.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

mod records;
mod renumbered;
#[cfg(test)]
mod tests;
