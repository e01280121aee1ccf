//! The one pass over the input that makes prepared data (see [`dataset`](super::dataset)): rounds of rows are
//! parsed by all cores while the round before is given its ids and written.

use super::dataset::{Parts, Prepared};
use super::ids::Mapper;
use super::manifest::{IDS, INDEX, META, Meta, Origin, ROWS, SUMS, Settings, VERSION, hex};
use super::parquet::ParquetSource;
use super::progress::Progress;
use super::source::{Place, Source};
use super::text::{Labels, MESSAGES};
use super::text_source::TextSource;
use super::writer::{Output, Writer};
use crate::config::{Data, Format, Schema};
use crate::error::{Error, Result};
use crate::mapped;
use serde::Serialize;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// One input file as it was when the pass began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Stat {
    path: PathBuf,
    pub(super) bytes: u64,
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

/// What to prepare.
pub(super) struct Job<'a> {
    pub(super) data: &'a Data,
    pub(super) schema: &'a Schema,
    pub(super) settings: Settings,
    pub(super) inputs: Vec<Stat>,
    pub(super) fingerprint: String,
}

/// How far a preparation is: bytes of the input read, bytes in all, rows.
pub type Watch<'a> = dyn FnMut(u64, u64, u64) + 'a;

/// What goes on besides.
pub(super) struct Control<'a, 'w> {
    pub(super) watch: &'a mut Watch<'w>,
    /// Becomes true when the pass shall stop.
    pub(super) stop: Option<&'a AtomicBool>,
    /// Bytes of input between two marks from which the pass can go on; `None` leaves no marks.
    pub(super) mark_every: Option<u64>,
}

impl<'a> Job<'a> {
    pub(super) fn new(data: &'a Data, schema: &'a Schema, mapper: &Mapper, max_rows: Option<u64>) -> Result<Job<'a>> {
        let inputs = stat(&data.files)?;
        let settings = Settings::new(data, schema, Some(mapper.rows()), max_rows);
        // The width is compared with what was found.
        let narrow = &Schema { width: None, ..schema.clone() };
        let facts = (VERSION, &inputs, narrow, data.format, data.ids, data.split, data.on_bad_row, mapper.rows(), max_rows);
        // Debug text, since paths need not be UTF-8
        let fingerprint = format!("{:032x}", xxh3_128(format!("{facts:?}").as_bytes()));
        Ok(Job { data, schema, settings, inputs, fingerprint })
    }

    fn source(&self, mapper: &Mapper, place: Option<Place>) -> Result<Box<dyn Source>> {
        let Data { files, on_bad_row, format, .. } = self.data;
        match format {
            Format::Binary => Err(Error::Config("binary files are read as they are".into())),
            Format::Parquet => {
                let labels = Labels::Required;
                Ok(Box::new(ParquetSource::new(files, self.schema, labels, *on_bad_row, mapper.limits(), place)?))
            }
            Format::Synthetic | Format::Criteo | Format::Text => {
                Ok(Box::new(TextSource::new(files, self.schema, *on_bad_row, mapper.limits(), place)?))
            }
        }
    }

    /// Reads all files and leaves the prepared form in the folder `dir`, going on where an earlier pass stopped.
    pub(super) fn run(&self, mut mapper: Mapper, dir: &Path, control: &mut Control<'_, '_>) -> Result<()> {
        let (one_hot, tables) = (self.schema.categorical.len(), self.schema.tables());
        let mut progress = match control.mark_every {
            Some(_) => Progress::open(dir, &self.fingerprint, &mut mapper)?,
            None => None,
        };
        let before = progress.as_ref().map(|p| (p.mark.counts.clone(), p.mark.bytes));
        let mut source = self.source(&mapper, progress.as_ref().map(|p| p.mark.place))?;
        let mut writer = Writer::new(dir, self.schema.dense.len(), one_hot, tables, before)?;
        if let (None, Some(_)) = (&progress, control.mark_every) {
            progress = Some(Progress::create(dir, &self.fingerprint)?);
        }
        let total = self.inputs.iter().map(|s| s.bytes).sum();
        let mut marked = source.bytes_read();
        (control.watch)(marked.min(total), total, writer.counts.rows);
        let mut round = source.round()?;
        while !round.is_empty() {
            let (place, read) = (source.place(), source.bytes_read());
            let (next, written) = rayon::join(|| source.round(), || writer.round(&round, &mut mapper, MESSAGES));
            written?;
            (control.watch)(read.min(total), total, writer.counts.rows);
            let stop = control.stop.is_some_and(|stop| stop.load(Ordering::Relaxed));
            if let (Some(progress), Some(every)) = (&mut progress, control.mark_every)
                && (stop || next.is_err() || read - marked >= every)
            {
                progress.mark(place, &writer, &mapper)?;
                marked = read;
            }
            if stop {
                return Err(Error::Interrupted(format!("stopped after {} rows", writer.counts.rows)));
            }
            round = next?;
        }
        self.complete(dir, writer, mapper, source.width())
    }

    /// Writes what describes the records.
    fn complete(&self, dir: &Path, writer: Writer, mut mapper: Mapper, width: Option<usize>) -> Result<()> {
        let names = || self.data.files.join(", ");
        let (counts, row_bytes, sums) = writer.finish()?;
        if counts.rows == 0 {
            let bad =
                counts.messages.first().map_or(String::new(), |m| format!("; {} lines are malformed, the first: {m}", counts.skipped));
            return Err(Error::Data(format!("{} holds no row{bad}", names())));
        }
        if stat(&self.data.files)? != self.inputs {
            return Err(Error::Data(format!("{} changed while being read; start again", names())));
        }
        let parts = Parts::new(counts.rows, self.data.split);
        let distinct = mapper.known();
        if mapper.is_dictionary() {
            mapper.truncate(&self.known(dir, &counts.seen, parts.train.end, counts.rows, &distinct)?);
        }
        let (ids, sums) = (mapper.to_bytes(), sums.to_bytes());
        let origin = |s: &Stat| Origin { name: s.path.file_name().unwrap_or_default().to_string_lossy().into_owned(), bytes: s.bytes };
        let meta = Meta {
            version: VERSION,
            fingerprint: self.fingerprint.clone(),
            rows: counts.rows,
            dense: self.schema.dense.len(),
            multi_hot: self.schema.multi_hot.len(),
            modulo: !mapper.is_dictionary(),
            max_bag: counts.max_bag,
            width,
            parts,
            row_bytes,
            longest: counts.longest,
            skipped: counts.skipped,
            messages: counts.messages,
            distinct,
            inputs: self.inputs.iter().map(origin).collect(),
            settings: self.settings.clone(),
            ids_checksum: hex(xxh3_64(&ids)),
            sums_checksum: hex(xxh3_64(&sums)),
            checksum: String::new(),
        };
        for (name, bytes) in [(IDS, ids), (SUMS, sums), (META, meta.to_text()?)] {
            let mut output = Output::open(dir.join(name), 0)?;
            output.write(&bytes)?;
            output.sync()?;
        }
        Ok(())
    }

    /// Keys of each table that the rows before `end` hold: those before the last count, and what the records from
    /// there on show. In first-seen order a new key has the largest id so far.
    fn known(&self, dir: &Path, seen: &[(u64, Vec<u32>)], end: u64, rows: u64, all: &[u64]) -> Result<Vec<u64>> {
        if end == rows {
            return Ok(all.to_vec());
        }
        let Some((first, counts)) = seen.iter().rev().find(|(row, _)| *row <= end) else { return Ok(vec![0; all.len()]) };
        let mut known: Vec<u64> = counts.iter().map(|&n| u64::from(n)).collect();
        let (dense, one_hot, bags) = (self.schema.dense.len(), self.schema.categorical.len(), self.schema.multi_hot.len());
        let damaged = || Error::Data(format!("`{}` is not as it was written", dir.join(ROWS).display()));
        let records = mapped::open(&dir.join(ROWS))?;
        let at = if bags == 0 {
            first * 4 * (1 + dense + one_hot) as u64
        } else {
            let index = mapped::open(&dir.join(INDEX))?;
            index.as_chunks::<8>().0.get(*first as usize).map(|place| u64::from_le_bytes(*place)).ok_or_else(damaged)?
        };
        let mut words = records.get(at as usize..).ok_or_else(damaged)?.as_chunks::<4>().0.iter().map(|w| u32::from_le_bytes(*w));
        let mut sizes = vec![1; one_hot + bags];
        for _ in *first..end {
            words.by_ref().nth(dense).ok_or_else(damaged)?;
            sizes[one_hot..].iter_mut().for_each(|size| *size = words.next().unwrap_or(0));
            for (known, &size) in known.iter_mut().zip(&sizes) {
                for _ in 0..size {
                    *known = (*known).max(u64::from(words.next().ok_or_else(damaged)?));
                }
            }
        }
        Ok(known)
    }
}

/// Prepares into the folder `path` of a cache, unless somebody else does so first.
pub(super) fn into_cache(job: &Job<'_>, mapper: Mapper, path: &Path, watch: &mut Watch<'_>) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    let unfinished = Unfinished(parent.join(format!(".{}.{}.{:x}", job.fingerprint, std::process::id(), unique())));
    std::fs::create_dir(&unfinished.0).map_err(Error::io("create", &unfinished.0))?;
    job.run(mapper, &unfinished.0, &mut Control { watch, stop: None, mark_every: None })?;
    publish(&unfinished.0, path, || Prepared::load(path, Some(&job.fingerprint), job.schema).is_ok())
}

/// Removes the unfinished folder when something fails.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // gone already after the rename
        let _ = std::fs::remove_dir_all(&self.0);
    }
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
    sync_parent(path)
}

/// Brings a folder's new name to the disk.
pub(super) fn sync_parent(path: &Path) -> Result<()> {
    #[cfg(unix)]
    if let Some(parent) = path.parent() {
        let folder = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        File::open(folder).and_then(|f| f.sync_all()).map_err(Error::io("write", folder))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
