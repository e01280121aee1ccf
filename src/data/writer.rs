//! Writes prepared data: records, where they begin, and the checksums of both.

use super::ids::Mapper;
use super::manifest::{BLOCK, INDEX, ROWS, Sums};
use super::source::Parsed;
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// Rows between two counts of [`Writer::seen`], at least.
const APART: u64 = 1 << 16;
const BUFFER: usize = 1 << 20;

/// A file being written, with its checksums.
pub(super) struct Output {
    path: PathBuf,
    file: File,
    pub(super) bytes: u64,
    sums: Vec<u64>,
    hash: Xxh3,
}

impl Output {
    /// A new file, or the first `keep` bytes of one that is there, which are read again for their checksums.
    pub(super) fn open(path: PathBuf, keep: u64) -> Result<Output> {
        let mut options = OpenOptions::new();
        options.read(keep > 0).write(true).create(true).truncate(keep == 0);
        let file = options.open(&path).map_err(Error::io("create", &path))?;
        let mut output = Output { path, file, bytes: 0, sums: Vec::new(), hash: Xxh3::new() };
        let mut buffer = vec![0; BUFFER.min(keep as usize)];
        while output.bytes < keep {
            let most = buffer.len().min((keep - output.bytes) as usize);
            let read = output.file.read(&mut buffer[..most]).map_err(Error::io("read", &output.path))?;
            if read == 0 {
                return Err(Error::Data(format!("`{}` has only {} of {keep} bytes", output.path.display(), output.bytes)));
            }
            output.count(&buffer[..read]);
        }
        if keep > 0 {
            let cut = output.file.set_len(keep).and_then(|()| output.file.seek(SeekFrom::Start(keep)));
            cut.map_err(Error::io("write", &output.path))?;
        }
        Ok(output)
    }

    fn count(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = (BLOCK - self.bytes % BLOCK).min(bytes.len() as u64) as usize;
            self.hash.update(&bytes[..room]);
            self.bytes += room as u64;
            bytes = &bytes[room..];
            if self.bytes.is_multiple_of(BLOCK) {
                self.sums.push(self.hash.digest());
                self.hash.reset();
            }
        }
    }

    /// Appends bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.count(bytes);
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))
    }

    /// Brings everything to the disk.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(Error::io("write", &self.path))
    }

    /// Brings everything to the disk and gives the checksums.
    pub(super) fn finish(mut self) -> Result<Vec<u64>> {
        self.sync()?;
        if !self.bytes.is_multiple_of(BLOCK) {
            self.sums.push(self.hash.digest());
        }
        Ok(self.sums)
    }
}

/// What a writer knows besides its files.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Counts {
    /// Rows so far.
    pub(super) rows: u64,
    /// The largest bag of each table.
    pub(super) max_bag: Vec<usize>,
    /// Bytes of the longest record.
    pub(super) longest: u64,
    /// Malformed rows left out, and the first few of them.
    pub(super) skipped: u64,
    pub(super) messages: Vec<String>,
    /// Keys that each table of a dictionary had before a row, for rows about [`APART`] apart.
    pub(super) seen: Vec<(u64, Vec<u32>)>,
}

/// Writes records and keeps count.
pub(super) struct Writer {
    pub(super) rows_out: Output,
    pub(super) index_out: Option<Output>,
    one_hot: usize,
    pub(super) dense: usize,
    pub(super) counts: Counts,
}

/// One table's ids of a round.
struct Ids {
    /// Of each part of the round.
    parts: Vec<Vec<u32>>,
    /// Keys known before each part.
    before: Vec<u32>,
}

impl Writer {
    /// Writes into `dir`, behind the first `keep` bytes of `rows.bin` and `index.bin` when `counts` says what they hold.
    pub(super) fn new(dir: &Path, dense: usize, one_hot: usize, tables: usize, before: Option<(Counts, [u64; 2])>) -> Result<Writer> {
        let none = Counts { rows: 0, max_bag: vec![1; tables], longest: 0, skipped: 0, messages: Vec::new(), seen: Vec::new() };
        let (counts, [rows, index]) = before.unwrap_or((none, [0, 0]));
        let index_out = if one_hot == tables { None } else { Some(Output::open(dir.join(INDEX), index)?) };
        Ok(Writer { rows_out: Output::open(dir.join(ROWS), rows)?, index_out, one_hot, dense, counts })
    }

    /// Writes the rows of a round; new keys get their place in `mapper`.
    pub(super) fn round(&mut self, round: &[Parsed], mapper: &mut Mapper, most_messages: usize) -> Result<()> {
        let learners: Vec<_> = mapper.learners().enumerate().collect();
        let learned: Vec<Ids> = learners
            .into_par_iter()
            .map(|(k, mut learner)| {
                let mut ids = Ids { parts: Vec::new(), before: Vec::new() };
                for part in round {
                    let mut places = Vec::new();
                    ids.before.push(learner.known() as u32);
                    learner.learn(k, &part.tables[k].keys, &mut places)?;
                    ids.parts.push(places);
                }
                Ok(ids)
            })
            .collect::<Result<_>>()?;
        let records: Vec<(Vec<u8>, Vec<u32>)> = (0..round.len()).into_par_iter().map(|i| self.encode(&round[i], &learned, i)).collect();
        for (i, (part, (bytes, lengths))) in round.iter().zip(&records).enumerate() {
            if self.counts.seen.last().is_none_or(|(row, _)| self.counts.rows - row >= APART) {
                self.counts.seen.push((self.counts.rows, learned.iter().map(|ids| ids.before[i]).collect()));
            }
            self.note(part, lengths, most_messages);
            if let Some(index) = &mut self.index_out {
                let mut at = self.rows_out.bytes;
                let mut places = Vec::with_capacity(8 * lengths.len());
                for &length in lengths {
                    places.extend(at.to_le_bytes());
                    at += u64::from(length);
                }
                index.write(&places)?;
            }
            self.rows_out.write(bytes)?;
        }
        Ok(())
    }

    /// Counts the rows of a part.
    fn note(&mut self, part: &Parsed, lengths: &[u32], most_messages: usize) {
        let (counts, fixed) = (&mut self.counts, 4 * (1 + self.dense + part.tables.len()) as u64);
        counts.rows += part.rows as u64;
        counts.skipped += part.skipped;
        let room = most_messages.saturating_sub(counts.messages.len());
        counts.messages.extend(part.messages.iter().take(room).cloned());
        for (most, table) in counts.max_bag.iter_mut().zip(&part.tables) {
            *most = table.sizes.iter().fold(*most, |most, &size| most.max(size as usize));
        }
        let longest = if self.index_out.is_some() { lengths.iter().max().map_or(0, |&n| u64::from(n)) } else { fixed };
        counts.longest = counts.longest.max(if part.rows > 0 { longest } else { 0 });
    }

    /// The records of part `i` of a round, and their lengths where they differ.
    fn encode(&self, part: &Parsed, learned: &[Ids], i: usize) -> (Vec<u8>, Vec<u32>) {
        let ids: Vec<&[u32]> = learned.iter().map(|ids| ids.parts[i].as_slice()).collect();
        let words = part.rows * (1 + self.dense + learned.len() - self.one_hot) + ids.iter().map(|ids| ids.len()).sum::<usize>();
        let mut bytes = Vec::with_capacity(4 * words);
        let mut lengths = Vec::new();
        let (one_hot, bags) = ids.split_at(self.one_hot);
        let mut next = vec![0; bags.len()];
        for b in 0..part.rows {
            let before = bytes.len();
            bytes.extend(part.labels[b].to_le_bytes());
            part.dense[b * self.dense..(b + 1) * self.dense].iter().for_each(|x| bytes.extend(x.to_le_bytes()));
            part.tables[self.one_hot..].iter().for_each(|table| bytes.extend(table.sizes[b].to_le_bytes()));
            one_hot.iter().for_each(|ids| bytes.extend(ids[b].to_le_bytes()));
            for ((ids, table), next) in bags.iter().zip(&part.tables[self.one_hot..]).zip(&mut next) {
                let bag = &ids[*next..*next + table.sizes[b] as usize];
                bag.iter().for_each(|id| bytes.extend(id.to_le_bytes()));
                *next += bag.len();
            }
            if self.index_out.is_some() {
                lengths.push((bytes.len() - before) as u32);
            }
        }
        (bytes, lengths)
    }

    /// Completes the files and gives their checksums, and the sizes of both.
    pub(super) fn finish(mut self) -> Result<(Counts, u64, Sums)> {
        if let Some(index) = &mut self.index_out {
            index.write(&self.rows_out.bytes.to_le_bytes())?;
        }
        let bytes = self.rows_out.bytes;
        let index = self.index_out.map(Output::finish).transpose()?.unwrap_or_default();
        Ok((self.counts, bytes, Sums { rows: self.rows_out.finish()?, index }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_an_error_that_names_the_file() {
        let mut output = Output::open("/dev/full".into(), 0).unwrap();
        let error = output.write(&vec![0; 3 * BUFFER]).unwrap_err().to_string();
        assert!(error.starts_with("cannot write `/dev/full`: "), "{error}");
    }

    #[test]
    fn checksums_do_not_depend_on_how_bytes_come() {
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..2 * BLOCK + 99).map(|i| ((i * 7) >> 3) as u8).collect();
        let mut whole = Output::open(folder.path().join("whole"), 0).unwrap();
        whole.write(&bytes).unwrap();
        let path = folder.path().join("parts");
        let mut parts = Output::open(path.clone(), 0).unwrap();
        bytes[..BLOCK as usize + 5].chunks(1 << 18).for_each(|piece| parts.write(piece).unwrap());
        parts.write(b"to be cut off").unwrap();
        drop(parts);
        let mut parts = Output::open(path.clone(), BLOCK + 5).unwrap();
        parts.write(&bytes[BLOCK as usize + 5..]).unwrap();
        let sums = whole.finish().unwrap();
        assert_eq!((sums.len(), &sums), (3, &parts.finish().unwrap()));
        assert!(std::fs::read(&path).unwrap() == bytes);
        assert!(Output::open(path, 9 * BLOCK).err().unwrap().to_string().contains("has only"));
    }
}
