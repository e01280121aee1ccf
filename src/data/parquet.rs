//! Parquet files as rounds of rows: the columns of a row group are decoded by all cores, some thousand rows at a time.
//!
//! Columns are found by name. A null is what an empty field is in text: 0 for a dense value, 0 or the empty text for a
//! category, an empty bag for a list; a null label and a null inside a list are malformed.

use super::dataset::Parts;
use super::source::{Keys, Parsed, Place, Source};
use super::text::{Labels, MESSAGES, RawBlock};
use crate::config::{OnBadRow, Schema};
use crate::error::{Error, Result};
use crate::mapped;
use bytes::Bytes;
use columns::{Role, Wanted};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use values::{Column, Values};

mod columns;
mod delta;
mod limits;
mod reader;
mod thrift;
mod values;

pub use reader::Reader;

/// Rows that are decoded at once; fewer where their lists are long.
const ROUND: usize = 1 << 15;

/// What a panic or an error of the decoder becomes.
fn guarded<T>(file: &str, work: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T> {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    let reason = match outcome {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it is damaged in a way that the decoder does not understand".into(),
    };
    Err(Error::Data(format!("`{file}` cannot be read as Parquet: {reason}")))
}

/// Opens a file and reads its footer. Threads read its columns at the same time, which copies of one open file with
/// its one position cannot, so it is mapped.
fn open(file: &str) -> Result<SerializedFileReader<Bytes>> {
    footer(file, Bytes::from_owner(mapped::open(Path::new(file))?))
}

/// Reads the footer of a file that was opened.
fn footer(file: &str, bytes: Bytes) -> Result<SerializedFileReader<Bytes>> {
    guarded(file, || {
        limits::footer(&bytes).map_err(ParquetError::General)?;
        SerializedFileReader::new(bytes)
    })
}

/// True when `path` is a folder with Parquet files somewhere below it, or ends with `.parquet`.
pub fn is_parquet(path: &str) -> bool {
    let path = Path::new(path);
    if path.is_dir() { below(path).is_ok_and(|files| !files.is_empty()) } else { has_extension(path) }
}

fn has_extension(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet"))
}

/// Numbers in names count as numbers: `day_2` comes before `day_10`.
fn natural(path: &Path) -> Vec<(String, u64)> {
    let text = path.to_string_lossy();
    let mut parts = vec![(String::new(), 0u64)];
    for c in text.chars() {
        let digit = c.to_digit(10).map(u64::from);
        let in_number = parts.last().is_some_and(|(word, _)| word.ends_with('#'));
        match (digit, parts.last_mut()) {
            (Some(digit), Some((_, number))) if in_number => *number = number.saturating_mul(10).saturating_add(digit),
            (Some(digit), Some((word, number))) => {
                word.push('#');
                *number = digit;
            }
            (None, Some((word, _))) if !in_number => word.push(c),
            _ => parts.push((c.to_string(), 0)),
        }
    }
    parts
}

/// The Parquet files below a folder, two levels deep, in natural order.
fn below(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![(path.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(Error::io("read", &folder))? {
            let path = entry.map_err(Error::io("read", &folder))?.path();
            match path.is_dir() {
                true if depth < 2 => folders.push((path, depth + 1)),
                false if has_extension(&path) => found.push(path),
                _ => {}
            }
        }
    }
    found.sort_by_cached_key(|path| natural(path));
    Ok(found)
}

/// The files that `paths` stand for: a folder for the Parquet files below it. A single folder with `train` and `val`
/// (or `validation`) or `test` below it also says the split, as fractions of its rows.
///
/// # Errors
/// Folders without Parquet files, files whose footer cannot be read.
pub fn expand(paths: &[String]) -> Result<(Vec<String>, Option<[f64; 3]>)> {
    let names = |files: Vec<PathBuf>| files.into_iter().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<String>>();
    if let [one] = paths {
        let part = |names: &[&str]| names.iter().map(|name| Path::new(one).join(name)).find(|path| path.is_dir());
        let parts = [part(&["train"]), part(&["val", "validation", "valid"]), part(&["test"])];
        if parts[0].is_some() && (parts[1].is_some() || parts[2].is_some()) {
            let (mut files, mut rows) = (Vec::new(), [0u64; 3]);
            for (part, rows) in parts.iter().zip(&mut rows) {
                let found = part.as_ref().map_or_else(|| Ok(Vec::new()), |path| below(path).map(names))?;
                for file in &found {
                    *rows += u64::try_from(open(file)?.metadata().file_metadata().num_rows()).unwrap_or(0);
                }
                files.extend(found);
            }
            let total = rows.iter().sum::<u64>().max(1) as f64;
            let split = rows.map(|n| n as f64 / total);
            let found = Parts::new(rows.iter().sum(), split);
            if found.train.end != rows[0] || found.validation.end != rows[0] + rows[1] || rows[0] == 0 {
                return Err(Error::Data(format!("`{one}` has {rows:?} rows in train, val and test; that is no split")));
            }
            return Ok((files, Some(split)));
        }
    }
    let mut files = Vec::new();
    for path in paths {
        match Path::new(path).is_dir() {
            true => files.extend(names(below(Path::new(path))?)),
            false => files.push(path.clone()),
        }
    }
    match files.is_empty() {
        true => Err(Error::Data(format!("there is no Parquet file in {}", paths.join(", ")))),
        false => Ok((files, None)),
    }
}

/// The columns of a file under the usual names: `label`, `I1` … or `int_0` …, `C1` … or `cat_0` …; those with lists are
/// multi-hot. Whole dense numbers are counts, whose logarithm is taken; others are used as they are.
///
/// # Errors
/// A file that cannot be read or has other names.
pub fn usual_schema(file: &str) -> Result<Schema> {
    columns::usual(open(file)?.metadata().file_metadata().schema_descr()).map_err(|reason| Error::Data(format!("`{file}`: {reason}")))
}

/// Rows of Parquet files.
pub(super) struct ParquetSource {
    files: Vec<String>,
    schema: Schema,
    labels: Labels,
    skip: bool,
    limits: Option<Vec<u64>>,
    place: Place,
    group: Option<Group>,
    bytes: u64,
}

/// A row group that is being read.
struct Group {
    columns: Vec<(Role, Column)>,
    left: usize,
    /// Rows that are decoded at once.
    round: usize,
    /// Row groups of the file.
    count: usize,
    /// Compressed bytes.
    bytes: u64,
}

impl ParquetSource {
    /// Reads `files` from `place` on (`None` is their beginning); categories that are not below `limits` are malformed.
    ///
    /// # Errors
    /// A schema without names.
    pub(super) fn new(
        files: &[String],
        schema: &Schema,
        labels: Labels,
        on_bad_row: OnBadRow,
        limits: Option<&[u64]>,
        place: Option<Place>,
    ) -> Result<ParquetSource> {
        columns::check(schema)?;
        let limits = limits.map(<[u64]>::to_vec);
        let place = place.unwrap_or_default();
        let bytes = files.iter().take(place.file).map(|file| std::fs::metadata(file).map_or(0, |m| m.len())).sum();
        let skip = on_bad_row == OnBadRow::Skip;
        Ok(ParquetSource { files: files.to_vec(), schema: schema.clone(), labels, skip, limits, place, group: None, bytes })
    }

    /// Opens the row group at `place`; `None` behind the last.
    fn open_group(&self) -> Result<Option<Group>> {
        let (name, index) = (&self.files[self.place.file], self.place.at as usize);
        let file = Bytes::from_owner(mapped::open(Path::new(name))?);
        let reader = footer(name, file.clone())?;
        let metadata = reader.metadata();
        let count = metadata.num_row_groups();
        if index >= count {
            return Ok(None);
        }
        let fail = |text: String| Error::Data(format!("`{name}`, row group {index}: {text}"));
        let wanted = columns::find(metadata.file_metadata().schema_descr(), &self.schema, self.labels)
            .map_err(|reason| Error::Data(format!("`{name}`: {reason}")))?;
        let meta = metadata.row_group(index);
        let rows = usize::try_from(meta.num_rows()).ok().filter(|&n| n <= i32::MAX as usize);
        let rows = rows.ok_or_else(|| fail(format!("says that it has {} rows", meta.num_rows())))?;
        let skip = usize::try_from(self.place.line).unwrap_or(usize::MAX);
        if skip > rows {
            return Err(fail(format!("has {rows} rows, but {skip} were read before; the file has changed")));
        }
        let group = guarded(name, || reader.get_row_group(index))?;
        let (mut columns, mut open_bytes, mut longest) = (Vec::new(), 0u64, 1);
        for Wanted { role, leaf, list } in wanted {
            let chunk = meta.column(leaf);
            let (size, count) = (chunk.uncompressed_size() as u64, chunk.num_values() as u64);
            let place = |text: String| fail(format!("column `{}`: {text}", chunk.column_path()));
            self.check_sizes(rows, list.is_some(), size, count).map_err(place)?;
            let (start, length) = guarded(name, || Ok(chunk.byte_range()))?;
            let bytes = start.checked_add(length).and_then(|end| file.get(start as usize..end as usize));
            let bytes = bytes.ok_or_else(|| place(format!("bytes {start} and {length} more are not in the file")))?;
            let lz4 = matches!(chunk.compression(), Compression::LZ4);
            let about = limits::Chunk { kind: chunk.column_type(), list: list.is_some(), lz4 };
            open_bytes += limits::pages(bytes, about).map_err(place)?;
            if open_bytes > limits::MAX_OPEN {
                let most = limits::MAX_OPEN;
                return Err(fail(format!(
                    "pages and dictionaries of its columns have {open_bytes} bytes and more at once; at most {most} are possible; write the file with \
                     smaller pages or row groups"
                )));
            }
            longest = longest.max(count / rows.max(1) as u64);
            let column = guarded(name, || Column::open(&*group, leaf, list, (size, count), skip))?;
            columns.push((role, column));
        }
        let bytes = u64::try_from(meta.compressed_size()).unwrap_or(0);
        let round = (limits::MAX_VALUES / 2 / longest).clamp(1, ROUND as u64) as usize;
        Ok(Some(Group { columns, left: rows - skip, round, count, bytes }))
    }

    /// What the footer says of a column: its bytes when decompressed, and its values.
    fn check_sizes(&self, rows: usize, list: bool, size: u64, count: u64) -> std::result::Result<(), String> {
        let most = rows as u64 * if list { self.schema.multi_hot_max as u64 } else { 1 };
        if size <= limits::MAX_CHUNK && count <= most.max(rows as u64) {
            return Ok(());
        }
        let bytes = limits::MAX_CHUNK;
        let advice = if size > bytes { "; write the file with smaller row groups" } else { "" };
        Err(format!("has {count} values in {size} bytes; at most {most} in {bytes} are possible{advice}"))
    }

    /// The next rows of a group.
    fn decode(&self, group: &mut Group) -> Result<Parsed> {
        let (name, rows) = (&self.files[self.place.file], group.left.min(group.round));
        let (schema, limits) = (&self.schema, self.limits.as_deref());
        let decoded: Vec<(Role, Values)> = group
            .columns
            .par_iter_mut()
            .map(|(role, column)| {
                let limit = match role {
                    Role::Table(k) => limits.map(|limits| limits[*k]),
                    _ => None,
                };
                guarded(name, || column.read(rows, *role, schema, limit)).map(|values| (*role, values))
            })
            .collect::<Result<_>>()?;
        let mut bad: BTreeMap<usize, String> = BTreeMap::new();
        for (role, values) in &decoded {
            for (row, reason) in &values.bad {
                bad.entry(*row).or_insert_with(|| format!("column `{}`: {reason}", columns::name(&self.schema, *role)));
            }
        }
        let place = |row: usize| format!("`{name}`, row group {}, row {}", self.place.at, self.place.line + row as u64);
        if let (Some((row, reason)), false) = (bad.first_key_value(), self.skip) {
            return Err(Error::Data(format!("{}, {reason}", place(*row))));
        }
        let keep: Vec<bool> = (0..rows).map(|row| !bad.contains_key(&row)).collect();
        let mut parsed = joined(decoded, rows, &keep, &self.schema);
        parsed.skipped = bad.len() as u64;
        parsed.messages = bad.iter().take(MESSAGES).map(|(row, reason)| format!("{}, {reason}", place(*row))).collect();
        Ok(parsed)
    }
}

/// Columns side by side, without the rows that are not kept.
fn joined(decoded: Vec<(Role, Values)>, rows: usize, keep: &[bool], schema: &Schema) -> Parsed {
    let (d, one_hot) = (schema.dense.len(), schema.categorical.len());
    let mut parsed = Parsed::new(schema.tables());
    parsed.labels = vec![0.0; rows];
    parsed.dense = vec![0.0; rows * d];
    for (role, values) in decoded {
        match role {
            Role::Label => parsed.labels = values.floats,
            Role::Dense(i) => parsed.dense.iter_mut().skip(i).step_by(d).zip(values.floats).for_each(|(place, value)| *place = value),
            Role::Table(k) => parsed.tables[k] = Keys { sizes: values.sizes, keys: values.keys },
        }
    }
    parsed.rows = keep.iter().filter(|&&kept| kept).count();
    if parsed.rows < rows {
        let mut row = keep.iter();
        parsed.labels.retain(|_| row.next() == Some(&true));
        let mut i = 0;
        parsed.dense.retain(|_| {
            i += 1;
            keep[(i - 1) / d]
        });
        for (k, table) in parsed.tables.iter_mut().enumerate() {
            let sizes = if k < one_hot { vec![1; rows] } else { std::mem::take(&mut table.sizes) };
            let mut kept = sizes.iter().zip(keep).flat_map(|(&size, &kept)| std::iter::repeat_n(kept, size as usize));
            table.keys.retain(|_| kept.next() == Some(true));
            if k >= one_hot {
                table.sizes = sizes.iter().zip(keep).filter(|(_, kept)| **kept).map(|(size, _)| *size).collect();
            }
        }
    }
    parsed
}

impl Source for ParquetSource {
    fn round(&mut self) -> Result<Vec<Parsed>> {
        while self.place.file < self.files.len() {
            if self.group.is_none() {
                self.group = self.open_group()?;
            }
            let Some(mut group) = self.group.take() else {
                self.place = Place { file: self.place.file + 1, ..Place::default() };
                continue;
            };
            if group.left == 0 {
                self.place.at += 1;
                self.place.line = 0;
                self.bytes += group.bytes;
                if self.place.at as usize >= group.count {
                    self.place = Place { file: self.place.file + 1, ..Place::default() };
                }
                continue;
            }
            let rows = group.left.min(group.round);
            let parsed = self.decode(&mut group)?;
            group.left -= rows;
            self.place.line += rows as u64;
            self.group = Some(group);
            return Ok(vec![parsed]);
        }
        Ok(Vec::new())
    }

    fn place(&self) -> Place {
        self.place
    }

    fn bytes_read(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
