//! The one pass over the text that makes prepared data (see [`dataset`](super::dataset)).

use super::dataset::{IDS, INDEX, META, Parts, Prepared, ROWS};
use super::ids::Mapper;
use super::text::{Input, Labels, RawBlock, Reader};
use crate::config::{Data, Schema};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128;

/// Part of the fingerprint: another number makes old caches unused.
const VERSION: u32 = 2;
/// Rows read at once.
const BLOCK: usize = 4096;
const BUFFER: usize = 1 << 20;

/// What `meta.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Meta {
    /// Of inputs and settings.
    pub fingerprint: String,
    /// Rows n.
    pub rows: u64,
    /// Dense features D.
    pub dense: usize,
    /// Tables that are multi-hot, the last ones.
    pub multi_hot: usize,
    /// Ids are already rows.
    pub modulo: bool,
    /// The largest bag of each table.
    pub max_bag: Vec<usize>,
    /// Columns of a line, where they are numbered and all files agree.
    pub width: Option<usize>,
    /// Train, validation and test.
    pub parts: Parts,
    /// Bytes of `rows.bin`.
    pub row_bytes: u64,
    /// Bytes of the longest record.
    pub longest: u64,
    /// Malformed lines left out.
    pub skipped: u64,
    /// The first few of them.
    pub messages: Vec<String>,
}

/// One input file as it was when the pass began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Stat {
    path: PathBuf,
    bytes: u64,
    /// Nanoseconds since 1970.
    modified: u128,
}

/// Sizes and times of `files`.
///
/// # Errors
/// Files that do not exist, folders and pipes.
pub(super) fn stat(files: &[String]) -> Result<Vec<Stat>> {
    let one = |file: &String| {
        let meta = std::fs::metadata(file).map_err(Error::io("read", file))?;
        if !meta.is_file() {
            return Err(Error::Config(format!("`{file}` is not a regular file; training data is read more than once")));
        }
        let modified = meta.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok()).map_or(0, |d| d.as_nanos());
        Ok(Stat { path: std::fs::canonicalize(file).map_err(Error::io("read", file))?, bytes: meta.len(), modified })
    };
    files.iter().map(one).collect()
}

/// The name of the prepared data of these inputs and settings.
pub(super) fn fingerprint(data: &Data, schema: &Schema, inputs: &[Stat], mapper: &Mapper, max_rows: Option<u64>) -> String {
    // The width is compared with what was found.
    let schema = &Schema { width: None, ..schema.clone() };
    let facts = (VERSION, inputs, schema, data.ids, data.split, data.on_bad_row, mapper.rows(), max_rows);
    // Debug text, since paths need not be UTF-8
    format!("{:032x}", xxh3_128(format!("{facts:?}").as_bytes()))
}

/// Removes the unfinished folder when something fails.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // gone already after the rename
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A file being written.
struct Output {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
}

impl Output {
    fn create(path: PathBuf) -> Result<Output> {
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        Ok(Output { file: BufWriter::with_capacity(BUFFER, file), path, bytes: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))
    }

    fn finish(mut self) -> Result<()> {
        self.file.flush().and_then(|()| self.file.get_ref().sync_all()).map_err(Error::io("write", &self.path))
    }
}

/// Reads `data.files` once and leaves the prepared form at `path`.
pub(super) fn prepare(
    data: &Data,
    schema: &Schema,
    inputs: &[Stat],
    mut mapper: Mapper,
    path: &Path,
    fingerprint: &str,
    progress: &mut dyn FnMut(u64, u64, u64),
) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    let unfinished = Unfinished(parent.join(format!(".{fingerprint}.{}.{:x}", std::process::id(), unique())));
    let dir = &unfinished.0;
    std::fs::create_dir(dir).map_err(Error::io("create", dir))?;

    let files = data.files.iter().map(Input::file).collect();
    let mut reader = Reader::new(files, schema, Labels::Required, data.on_bad_row)?.limited(mapper.limits());
    let total = inputs.iter().map(|s| s.bytes).sum();
    let mut writer = Writer::new(dir, schema)?;
    let mut raw = RawBlock::new();
    while reader.read(&mut raw, BLOCK)? > 0 {
        writer.block(&raw, &mut mapper)?;
        raw.clear();
        progress(reader.bytes_read().min(total), total, writer.rows);
    }
    if writer.rows == 0 {
        let bad =
            reader.messages().first().map_or(String::new(), |m| format!("; {} lines are malformed, the first: {m}", reader.skipped()));
        return Err(Error::Data(format!("{} holds no row{bad}", data.files.join(", "))));
    }
    if stat(&data.files)? != inputs {
        return Err(Error::Data(format!("{} changed while being read; start again", data.files.join(", "))));
    }
    let parts = Parts::new(writer.rows, data.split);
    mapper.truncate(&writer.seen.known(parts.train.end));
    let meta = Meta {
        fingerprint: fingerprint.into(),
        rows: writer.rows,
        dense: writer.dense,
        multi_hot: schema.multi_hot.len(),
        modulo: !mapper.is_dictionary(),
        max_bag: writer.max_bag.clone(),
        width: reader.width(),
        parts,
        row_bytes: writer.rows_out.bytes,
        longest: writer.longest,
        skipped: reader.skipped(),
        messages: reader.messages().to_vec(),
    };
    writer.finish(dir, &mapper)?;
    let mut output = Output::create(dir.join(META))?;
    output.write(&serde_json::to_vec_pretty(&meta).map_err(|e| Error::Data(format!("{META}: {e}")))?)?;
    output.finish()?;
    publish(dir, path, || Prepared::load(path, fingerprint, schema).is_ok())
}

/// A number that no other call of this process gets.
fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// Gives the whole folder its name. What stands there already is either unusable or the work of
/// another process that finished first; `usable` tells.
fn publish(dir: &Path, path: &Path, usable: impl Fn() -> bool) -> Result<()> {
    if std::fs::rename(dir, path).is_err() {
        if usable() {
            return Ok(());
        }
        if path.exists() {
            let remove = if path.is_dir() { std::fs::remove_dir_all } else { std::fs::remove_file };
            remove(path).map_err(Error::io("replace", path))?;
        }
        std::fs::rename(dir, path).map_err(Error::io("rename to", path))?;
    }
    #[cfg(unix)]
    if let Some(parent) = path.parent() {
        let folder = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        File::open(folder).and_then(|f| f.sync_all()).map_err(Error::io("write", folder))?;
    }
    Ok(())
}

/// Writes records and keeps count.
struct Writer {
    rows_out: Output,
    index_out: Option<Output>,
    one_hot: usize,
    dense: usize,
    rows: u64,
    max_bag: Vec<usize>,
    longest: u64,
    record: Vec<u8>,
    seen: Seen,
}

/// When each key of a dictionary was first seen, in two bytes a key.
struct Seen {
    /// Keys of each table before each block of [`BLOCK`] rows, `[blocks, K]`.
    before: Vec<u32>,
    /// Row of each key inside its block.
    rows: Vec<Vec<u16>>,
}

impl Seen {
    /// `row` gave `table` the key with place `place`.
    fn note(&mut self, row: u64, table: usize, place: u32) {
        if place as usize > self.rows[table].len() {
            self.rows[table].push((row % BLOCK as u64) as u16);
        }
    }

    /// A row begins.
    fn begin(&mut self, row: u64) {
        if row.is_multiple_of(BLOCK as u64) {
            self.before.extend(self.rows.iter().map(|keys| keys.len() as u32));
        }
    }

    /// Keys of each table that the rows before `end` hold.
    fn known(&self, end: u64) -> Vec<u64> {
        let (block, inside) = ((end / BLOCK as u64) as usize, (end % BLOCK as u64) as u16);
        let count = |(k, keys): (usize, &Vec<u16>)| {
            let at = |block: usize| self.before.get(block * self.rows.len() + k).map_or(keys.len(), |&n| n as usize);
            let (first, last) = (at(block), at(block + 1));
            first as u64 + keys[first..last].partition_point(|&row| row < inside) as u64
        };
        self.rows.iter().enumerate().map(count).collect()
    }
}

impl Writer {
    fn new(dir: &Path, schema: &Schema) -> Result<Writer> {
        let index_out = if schema.multi_hot.is_empty() { None } else { Some(Output::create(dir.join(INDEX))?) };
        Ok(Writer {
            rows_out: Output::create(dir.join(ROWS))?,
            index_out,
            one_hot: schema.categorical.len(),
            dense: schema.dense.len(),
            rows: 0,
            max_bag: vec![1; schema.tables()],
            longest: 0,
            record: Vec::new(),
            seen: Seen { before: Vec::new(), rows: vec![Vec::new(); schema.tables()] },
        })
    }

    /// Writes the rows of `raw`; new keys get their place in `mapper`.
    fn block(&mut self, raw: &RawBlock, mapper: &mut Mapper) -> Result<()> {
        let (k_count, dictionary) = (self.max_bag.len(), mapper.is_dictionary());
        for b in 0..raw.samples {
            self.seen.begin(self.rows);
            self.record.clear();
            self.record.extend(raw.labels[b].unwrap_or(0.0).to_le_bytes());
            self.record.extend(raw.dense[b * self.dense..(b + 1) * self.dense].iter().flat_map(|x| x.to_le_bytes()));
            let bags = &raw.offsets[b * k_count..=(b + 1) * k_count];
            self.record.extend(bags[self.one_hot..].windows(2).flat_map(|w| (w[1] - w[0]).to_le_bytes()));
            for (k, bag) in bags.windows(2).enumerate() {
                self.max_bag[k] = self.max_bag[k].max((bag[1] - bag[0]) as usize);
                for &key in &raw.keys[bag[0] as usize..bag[1] as usize] {
                    let id = mapper.learn(k, key)?;
                    if dictionary {
                        self.seen.note(self.rows, k, id);
                    }
                    self.record.extend(id.to_le_bytes());
                }
            }
            if let Some(index) = &mut self.index_out {
                index.write(&self.rows_out.bytes.to_le_bytes())?;
            }
            self.longest = self.longest.max(self.record.len() as u64);
            self.rows_out.write(&self.record)?;
            self.rows += 1;
        }
        Ok(())
    }

    /// Completes the files of records; `mapper` is what the training part knows.
    fn finish(self, dir: &Path, mapper: &Mapper) -> Result<()> {
        if let Some(mut index) = self.index_out {
            index.write(&self.rows_out.bytes.to_le_bytes())?;
            index.finish()?;
        }
        self.rows_out.finish()?;
        let mut ids = Output::create(dir.join(IDS))?;
        ids.write(&mapper.to_bytes())?;
        ids.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_an_error_that_names_the_file() {
        let mut output = Output::create("/dev/full".into()).unwrap();
        let error = output.write(&vec![0; 3 * BUFFER]).unwrap_err().to_string();
        assert!(error.starts_with("cannot write `/dev/full`: "), "{error}");
        let mut output = Output::create("/dev/full".into()).unwrap();
        output.write(b"buffered").unwrap();
        assert!(output.finish().is_err());
    }

    #[test]
    fn the_unfinished_folder_goes_with_its_owner() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("half");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join(ROWS), b"half").unwrap();
        drop(Unfinished(path.clone()));
        assert!(!path.exists());
    }
}
