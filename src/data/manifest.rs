//! What a folder of prepared data says about itself: `meta.json`, and `sums.bin`, the checksums of its large files.

use super::dataset::Parts;
use crate::config::{Data, Format, Ids, OnBadRow, Schema};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// Records.
pub(super) const ROWS: &str = "rows.bin";
/// Where each record begins.
pub(super) const INDEX: &str = "index.bin";
/// Categories to rows.
pub(super) const IDS: &str = "ids.bin";
/// Checksums.
pub(super) const SUMS: &str = "sums.bin";
/// Everything else.
pub(super) const META: &str = "meta.json";

/// Version of the format; older caches are made again, older folders refused.
pub(super) const VERSION: u32 = 3;
/// Bytes that one checksum of `sums.bin` covers.
pub(super) const BLOCK: u64 = 1 << 22;
const MAGIC: &[u8; 8] = b"DQRM-SUM";
const HEADER: usize = 32;
/// No `meta.json` is longer.
const MAX_META: u64 = 64 << 20;

/// What `meta.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Meta {
    /// [`VERSION`].
    pub version: u32,
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
    /// Distinct categories of each table in all rows; zeros when ids are already rows.
    pub distinct: Vec<u64>,
    /// Where the rows came from.
    pub inputs: Vec<Origin>,
    /// How they were read.
    pub settings: Settings,
    /// XXH3-64 of `ids.bin`, in hexadecimal.
    pub ids_checksum: String,
    /// XXH3-64 of `sums.bin`.
    pub sums_checksum: String,
    /// XXH3-64 of this text with zeros here; the last entry.
    pub checksum: String,
}

/// An input file, without its folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Origin {
    pub name: String,
    pub bytes: u64,
}

/// The settings that decide what prepared data holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Layout of the input.
    pub format: Format,
    /// How categories became rows.
    pub ids: Ids,
    /// Rows of each table, where ids are not a dictionary's.
    pub rows: Option<Vec<u64>>,
    /// The limit on a dictionary's rows.
    pub max_rows: Option<u64>,
    /// Fractions of train, validation and test.
    pub split: [f64; 3],
    /// What a malformed line did.
    pub on_bad_row: OnBadRow,
    /// Columns.
    pub schema: Schema,
}

impl Settings {
    /// Those of `data` with its columns.
    pub(super) fn new(data: &Data, schema: &Schema, rows: Option<&[u64]>, max_rows: Option<u64>) -> Settings {
        let rows = rows.filter(|_| data.ids != Ids::Dictionary).map(<[u64]>::to_vec);
        let (format, ids, split, on_bad_row) = (data.format, data.ids, data.split, data.on_bad_row);
        Settings { format, ids, rows, max_rows, split, on_bad_row, schema: schema.clone() }
    }
}

/// A checksum as it is written.
pub(super) fn hex(sum: u64) -> String {
    format!("{sum:016x}")
}

impl Meta {
    /// The text of `meta.json`, with its checksum.
    pub(super) fn to_text(&self) -> Result<Vec<u8>> {
        let text = |checksum: String| {
            let meta = Meta { checksum, ..self.clone() };
            serde_json::to_vec_pretty(&meta).map_err(|e| Error::Data(format!("{META}: {e}")))
        };
        text(hex(xxh3_64(&text(hex(0))?)))
    }

    /// Reads `meta.json` in `dir`.
    ///
    /// # Errors
    /// A file that cannot be read, is too long, of another version, or does not fit its checksum.
    pub(super) fn read(dir: &Path) -> Result<Meta> {
        let path = dir.join(META);
        let fail = |text: String| Error::Data(format!("prepared data `{}`: {META} {text}", dir.display()));
        let bytes = std::fs::metadata(&path).map_err(Error::io("read", &path))?.len();
        if bytes > MAX_META {
            return Err(fail(format!("has {bytes} bytes; at most {MAX_META} are possible")));
        }
        let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
        #[derive(Deserialize)]
        struct Any {
            version: Option<u32>,
        }
        let version = serde_json::from_slice::<Any>(&text).map_err(|e| fail(format!("cannot be read: {e}")))?.version;
        if version != Some(VERSION) {
            let found = version.map_or("no version".into(), |v| format!("version {v}"));
            return Err(fail(format!("has {found}; this program reads version {VERSION}; prepare the data again")));
        }
        let meta: Meta = serde_json::from_slice(&text).map_err(|e| fail(format!("cannot be read: {e}")))?;
        let tail = format!("\"{}\"\n}}", meta.checksum);
        let before = text.strip_suffix(tail.as_bytes()).unwrap_or_default();
        let zeros = [before, b"\"", hex(0).as_bytes(), b"\"\n}"].concat();
        if hex(xxh3_64(&zeros)) != meta.checksum {
            return Err(fail("does not fit its checksum; it was altered or damaged".into()));
        }
        Ok(meta)
    }
}

/// Checksums of `rows.bin` and `index.bin`, one for each [`BLOCK`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub rows: Vec<u64>,
    pub index: Vec<u64>,
}

impl Sums {
    /// The bytes of `sums.bin`.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for word in [1, BLOCK, self.rows.len() as u64] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(self.rows.iter().chain(&self.index).flat_map(|sum| sum.to_le_bytes()));
        bytes
    }

    /// What [`Sums::to_bytes`] wrote, for files of these sizes.
    pub(super) fn from_bytes(bytes: &[u8], rows: u64, index: u64) -> Result<Sums, String> {
        let (words, rest) = bytes.as_chunks::<8>();
        let (rows, index) = (rows.div_ceil(BLOCK), index.div_ceil(BLOCK));
        let wanted = (HEADER as u64 / 8).checked_add(rows).and_then(|n| n.checked_add(index));
        if !rest.is_empty() || wanted != Some(words.len() as u64) || &words[0] != MAGIC {
            return Err(format!("{SUMS} has {} bytes, which do not fit {ROWS} and {INDEX}", bytes.len()));
        }
        let word = |i: usize| u64::from_le_bytes(words[i]);
        if (word(1), word(2), word(3)) != (1, BLOCK, rows) {
            return Err(format!("{SUMS} has version {}, blocks of {} and {} sums of rows", word(1), word(2), word(3)));
        }
        let sums: Vec<u64> = words[HEADER / 8..].iter().map(|w| u64::from_le_bytes(*w)).collect();
        let (a, b) = sums.split_at(rows as usize);
        Ok(Sums { rows: a.to_vec(), index: b.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_say_how_many_they_are() {
        let sums = Sums { rows: vec![1, 2], index: vec![3] };
        let bytes = sums.to_bytes();
        assert_eq!(Sums::from_bytes(&bytes, BLOCK + 1, 8).unwrap(), sums);
        for (rows, index) in [(BLOCK, 8), (BLOCK + 1, 0), (2 * BLOCK + 1, 8), (u64::MAX, u64::MAX)] {
            assert!(Sums::from_bytes(&bytes, rows, index).is_err());
        }
        assert!(Sums::from_bytes(&bytes[..bytes.len() - 1], BLOCK + 1, 8).is_err());
        for at in [0, 8, 16, 24] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert!(Sums::from_bytes(&bytes, BLOCK + 1, 8).is_err());
        }
        assert!(Sums::from_bytes(b"", 0, 0).is_err());
    }
}
