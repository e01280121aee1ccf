//! Prepared data: text read once, kept as numbers in the cache folder, read at random from there.
//!
//! The cache folder holds one folder for each set of inputs and settings, named by their
//! fingerprint; it is written under another name and renamed when whole. All numbers are little
//! endian, without padding:
//!
//! | file | what |
//! |---|---|
//! | `rows.bin` | one record for each row: label `f32`, dense `f32` × D, bag sizes `u32` × M, ids `u32` × the row's categories |
//! | `index.bin` | only with multi-hot columns: where each record begins in `rows.bin`, and the end, `u64` × (n + 1) |
//! | `ids.bin` | the [mapping](super::ids) as the training part knows it |
//! | `meta.json` | sizes, parts, fingerprint |
//!
//! M is the number of multi-hot columns (their tables come last). With a dictionary, the ids are
//! places in first-seen order over the whole data, counted from 1: those that the training part
//! has not seen lie above its count of keys, and [`Samples::fetch`] gives them row 0.

use super::ids::{Mapper, capped};
use super::prepare::{self, Meta};
use super::{Block, Samples};
use crate::config::{Data, Ids, Schema};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub(super) const ROWS: &str = "rows.bin";
pub(super) const INDEX: &str = "index.bin";
pub(super) const IDS: &str = "ids.bin";
pub(super) const META: &str = "meta.json";
/// Neighbouring rows are read together, up to this many.
const RUN: usize = 1024;

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
    rows_file: File,
    index_file: Option<File>,
    meta: Meta,
    mapper: Mapper,
    /// Keys known to the training part; `None` when ids are taken modulo.
    known: Option<Vec<u64>>,
    /// The mapper's limit.
    max_rows: Option<u64>,
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
    progress: &mut dyn FnMut(u64, u64, u64),
) -> Result<Prepared> {
    let Place { mapper, inputs, fingerprint, path } = place(data, schema, modulo_rows, max_rows)?;
    match Prepared::load(&path, &fingerprint, schema) {
        Ok(prepared) => Ok(prepared),
        Err(error) => {
            if path.exists() {
                log::warn!("{error}; preparing the data again");
            }
            prepare::prepare(data, schema, &inputs, mapper, &path, &fingerprint, progress)?;
            Prepared::load(&path, &fingerprint, schema)
        }
    }
}

/// As [`open`] where an earlier run left the prepared form; else, or where it is broken, nothing.
///
/// # Errors
/// Files that do not exist, settings that contradict each other.
pub fn open_existing(data: &Data, schema: &Schema, modulo_rows: Option<&[u64]>, max_rows: Option<u64>) -> Result<Option<Prepared>> {
    let Place { fingerprint, path, .. } = place(data, schema, modulo_rows, max_rows)?;
    Ok(if path.exists() { Prepared::load(&path, &fingerprint, schema).ok() } else { None })
}

/// Where the prepared form of some files lies, and what makes it.
struct Place {
    mapper: Mapper,
    inputs: Vec<prepare::Stat>,
    fingerprint: String,
    path: std::path::PathBuf,
}

fn place(data: &Data, schema: &Schema, modulo_rows: Option<&[u64]>, max_rows: Option<u64>) -> Result<Place> {
    let mapper = match (data.ids, modulo_rows) {
        (_, Some(rows)) if rows.len() != schema.tables() => {
            return Err(Error::Config(format!("{} moduli for {} categorical columns", rows.len(), schema.tables())));
        }
        (Ids::Modulo | Ids::Direct, None) => {
            return Err(Error::Config("ids = \"modulo\" and \"direct\" need the rows of each table".into()));
        }
        (Ids::Direct, Some(rows)) => Mapper::direct(rows),
        (Ids::Modulo, Some(rows)) => Mapper::modulo(rows),
        (Ids::Dictionary, _) => Mapper::dictionary(schema.tables(), max_rows),
    };
    if data.files.is_empty() {
        return Err(Error::Config("data.files is empty; name the files to read".into()));
    }
    let inputs = prepare::stat(&data.files)?;
    let fingerprint = prepare::fingerprint(data, schema, &inputs, &mapper, max_rows);
    let path = Path::new(&data.cache).join(&fingerprint);
    Ok(Place { mapper, inputs, fingerprint, path })
}

/// The sizes that stand in `meta.json` are those that the schema gives.
fn fits(meta: &Meta, schema: &Schema) -> bool {
    let one_hot = schema.categorical.len();
    meta.dense == schema.dense.len()
        && meta.multi_hot == schema.multi_hot.len()
        && meta.max_bag.len() == schema.tables()
        && meta.max_bag.iter().enumerate().all(|(k, &bag)| bag >= 1 && bag <= if k < one_hot { 1 } else { schema.multi_hot_max })
}

impl Prepared {
    /// Opens a folder that [`prepare::prepare`] wrote and checks that its files fit each other and the schema.
    pub(super) fn load(path: &Path, fingerprint: &str, schema: &Schema) -> Result<Prepared> {
        let fail = |text: String| Error::Data(format!("prepared data `{}`: {text}", path.display()));
        let read = |name: &str| std::fs::read(path.join(name)).map_err(Error::io("read", path.join(name)));
        let file = |name: &str| -> Result<(File, u64)> {
            let file = File::open(path.join(name)).map_err(Error::io("read", path.join(name)))?;
            let bytes = file.metadata().map_err(Error::io("read", path.join(name)))?.len();
            Ok((file, bytes))
        };
        let meta: Meta = serde_json::from_slice(&read(META)?).map_err(|e| fail(format!("{META}: {e}")))?;
        if meta.fingerprint != fingerprint {
            return Err(fail(format!("has fingerprint {}, not {fingerprint}", meta.fingerprint)));
        }
        let mapper = Mapper::from_bytes(&read(IDS)?)?;
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
        let (rows_file, bytes) = file(ROWS)?;
        let index = if meta.multi_hot > 0 { Some(file(INDEX)?) } else { None };
        let record = 4 * (1 + meta.dense as u64 + k_count as u64);
        let expected = match &index {
            Some((_, index_bytes)) => {
                if meta.rows.checked_add(1).and_then(|n| n.checked_mul(8)) != Some(*index_bytes) {
                    return Err(fail(format!("{INDEX} has {index_bytes} bytes for {} rows", meta.rows)));
                }
                Some(meta.row_bytes)
            }
            None => meta.rows.checked_mul(record),
        };
        if expected != Some(bytes) {
            return Err(fail(format!("{ROWS} has {bytes} bytes for {} rows", meta.rows)));
        }
        let known = (!meta.modulo).then(|| mapper.known());
        let max_rows = mapper.max_rows();
        Ok(Prepared { path: path.into(), rows_file, index_file: index.map(|(f, _)| f), meta, mapper, known, max_rows })
    }

    /// From categories to rows, as the training part knows them.
    pub fn mapper(&self) -> &Mapper {
        &self.mapper
    }

    /// Train, validation and test.
    pub fn parts(&self) -> Parts {
        self.meta.parts.clone()
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

    fn damaged(&self, row: u64) -> Error {
        Error::Data(format!("prepared data `{}`: row {row} is damaged; delete the folder and it is made again", self.path.display()))
    }

    /// Reads the records of rows `first..first + count` into `bytes`.
    fn read(&self, first: u64, count: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let record = 4 * (1 + self.meta.dense as u64 + self.mapper.tables() as u64);
        let (start, end) = match &self.index_file {
            None => (first * record, (first + count as u64) * record),
            Some(index) => {
                let at = |row: u64| -> Result<u64> {
                    let mut place = [0; 8];
                    read_at(index, &mut place, 8 * row).map_err(Error::io("read", self.path.join(INDEX)))?;
                    Ok(u64::from_le_bytes(place))
                };
                (at(first)?, at(first + count as u64)?)
            }
        };
        if start > end || end > self.meta.row_bytes || end - start > self.meta.longest.saturating_mul(count as u64) {
            return Err(self.damaged(first));
        }
        bytes.resize((end - start) as usize, 0);
        read_at(&self.rows_file, bytes, start).map_err(Error::io("read", self.path.join(ROWS)))
    }

    /// Appends the record at the head of `words` to `block` and gives what follows; `None` when it is damaged.
    fn decode<'a>(&self, words: &'a [[u8; 4]], block: &mut Block) -> Option<&'a [[u8; 4]]> {
        let (label, words) = words.split_first()?;
        let (dense, words) = words.split_at_checked(self.meta.dense)?;
        let (sizes, mut words) = words.split_at_checked(self.meta.multi_hot)?;
        block.labels.push(f32::from_le_bytes(*label));
        block.dense.extend(dense.iter().map(|w| f32::from_le_bytes(*w)));
        let one_hot = self.mapper.tables() - self.meta.multi_hot;
        for k in 0..self.mapper.tables() {
            let size = if k < one_hot { 1 } else { u32::from_le_bytes(sizes[k - one_hot]) as usize };
            if size > self.meta.max_bag[k] {
                return None;
            }
            let (ids, rest) = words.split_at_checked(size)?;
            words = rest;
            let known = self.known.as_ref().map(|known| known[k]);
            block.ids.extend(ids.iter().map(|w| match (u32::from_le_bytes(*w), known) {
                (row, None) => row,
                (seen, Some(known)) if seen as u64 > known => 0,
                (seen, Some(_)) => capped(seen, self.max_rows),
            }));
            block.end_bag();
        }
        block.samples += 1;
        Some(words)
    }
}

impl Samples for Prepared {
    fn len(&self) -> u64 {
        self.meta.rows
    }

    fn dense(&self) -> usize {
        self.meta.dense
    }

    fn rows(&self) -> &[u64] {
        self.mapper.rows()
    }

    fn max_bag(&self) -> &[usize] {
        &self.meta.max_bag
    }

    fn fetch(&self, indices: &[u64], block: &mut Block) -> Result<()> {
        let mut bytes = Vec::new();
        let mut rest = indices;
        while let Some(&first) = rest.first() {
            if first >= self.meta.rows {
                return Err(Error::Data(format!("row {first} does not exist; there are {}", self.meta.rows)));
            }
            let most = RUN.min((self.meta.rows - first) as usize);
            let count = rest.iter().take(most).zip(first..).take_while(|(a, b)| *a == b).count();
            self.read(first, count, &mut bytes)?;
            let (mut words, left) = bytes.as_chunks::<4>();
            for row in first..first + count as u64 {
                words = self.decode(words, block).ok_or_else(|| self.damaged(row))?;
            }
            if !words.is_empty() || !left.is_empty() {
                return Err(self.damaged(first));
            }
            rest = &rest[count..];
        }
        Ok(())
    }
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut at: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, at) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                bytes = &mut bytes[n..];
                at += n as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
