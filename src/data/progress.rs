//! Marks of a preparation: `progress.json` says how far it was, `keys.log` which categories were new since the
//! mark before. What stands behind the last mark is made again.

use super::ids::Mapper;
use super::source::Place;
use super::writer::{Counts, Output, Writer};
use crate::error::{Error, Result};
use crate::partial;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

pub(super) const PROGRESS: &str = "progress.json";
pub(super) const KEYS: &str = "keys.log";

/// How far a preparation was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    /// Of inputs and settings.
    fingerprint: String,
    /// Where the input goes on.
    pub(super) place: Place,
    /// What was written.
    pub(super) counts: Counts,
    /// Bytes of `rows.bin` and `index.bin`.
    pub(super) bytes: [u64; 2],
    /// Bytes of `keys.log`.
    log: u64,
    /// Keys of each table.
    known: Vec<u64>,
}

/// The marks of a folder.
pub(super) struct Progress {
    dir: PathBuf,
    pub(super) mark: Mark,
    log: Output,
}

impl Progress {
    /// Before the first mark.
    pub(super) fn create(dir: &Path, fingerprint: &str) -> Result<Progress> {
        let counts = Counts { rows: 0, max_bag: Vec::new(), longest: 0, skipped: 0, messages: Vec::new(), seen: Vec::new() };
        let fingerprint = fingerprint.to_owned();
        let mark = Mark { fingerprint, place: Place::default(), counts, bytes: [0, 0], log: 0, known: Vec::new() };
        Ok(Progress { dir: dir.into(), mark, log: Output::open(dir.join(KEYS), 0)? })
    }

    /// The last mark in `dir`, if there is one; `mapper` learns the keys that were known.
    ///
    /// # Errors
    /// Marks of another preparation, or that contradict their files.
    pub(super) fn open(dir: &Path, fingerprint: &str, mapper: &mut Mapper) -> Result<Option<Progress>> {
        let path = dir.join(PROGRESS);
        let shown = dir.display();
        let text = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(Error::io("read", &path))?,
        };
        let damaged = |what: &str| Error::Data(format!("`{shown}` cannot be continued: {what}; delete it, or begin anew with --restart"));
        let mark: Mark = serde_json::from_slice(&text).map_err(|e| damaged(&format!("{PROGRESS}: {e}")))?;
        if mark.fingerprint != fingerprint {
            return Err(Error::Config(format!(
                "`{shown}` is the beginning of another preparation (other files, changed files or other settings); delete it, or begin \
                 anew with --restart"
            )));
        }
        let log = std::fs::read(dir.join(KEYS)).map_err(Error::io("read", dir.join(KEYS)))?;
        let log = usize::try_from(mark.log).ok().and_then(|n| log.get(..n)).ok_or_else(|| damaged("keys.log is too short"))?;
        let k_count = mapper.tables();
        learn(log, mapper).ok_or_else(|| damaged("keys.log contradicts itself"))?;
        let seen_fits = mark.counts.seen.iter().all(|(row, known)| *row <= mark.counts.rows && known.len() == k_count);
        if mapper.known() != mark.known || mark.counts.max_bag.len() != k_count || !seen_fits {
            return Err(damaged("its files contradict each other"));
        }
        let log = Output::open(dir.join(KEYS), mark.log)?;
        Ok(Some(Progress { dir: dir.into(), mark, log }))
    }

    /// Makes a mark: the input up to `place` is written, and on the disk.
    pub(super) fn mark(&mut self, place: Place, writer: &Writer, mapper: &Mapper) -> Result<()> {
        let known = mapper.known();
        for (k, &n) in known.iter().enumerate() {
            let before = self.mark.known.get(k).map_or(0, |&n| n as usize);
            let keys = &mapper.keys(k)[before..];
            self.log.write(&(keys.len() as u64).to_le_bytes())?;
            for keys in keys.chunks(1 << 16) {
                self.log.write(&keys.iter().flat_map(|key| key.to_le_bytes()).collect::<Vec<u8>>())?;
            }
            debug_assert!(n as usize == before + keys.len());
        }
        writer.rows_out.sync()?;
        writer.index_out.as_ref().map_or(Ok(()), Output::sync)?;
        self.log.sync()?;
        self.mark = Mark {
            fingerprint: std::mem::take(&mut self.mark.fingerprint),
            place,
            counts: writer.counts.clone(),
            bytes: [writer.rows_out.bytes, writer.index_out.as_ref().map_or(0, |index| index.bytes)],
            log: self.log.bytes,
            known,
        };
        let text = serde_json::to_vec(&self.mark).map_err(|e| Error::Data(format!("{PROGRESS}: {e}")))?;
        partial::write(&self.dir.join(PROGRESS), &text)
    }
}

/// Learns the keys of a log: for each mark and table their number and the keys themselves. `None` when it contradicts itself.
fn learn(log: &[u8], mapper: &mut Mapper) -> Option<()> {
    let (mut words, rest) = log.as_chunks::<8>();
    if !rest.is_empty() {
        return None;
    }
    let mut ids = Vec::new();
    while !words.is_empty() {
        for (k, mut learner) in mapper.learners().enumerate() {
            let (count, after) = words.split_first()?;
            let (keys, after) = after.split_at_checked(usize::try_from(u64::from_le_bytes(*count)).ok()?)?;
            let keys: Vec<u64> = keys.iter().map(|key| u64::from_le_bytes(*key)).collect();
            let known = learner.known();
            ids.clear();
            learner.learn(k, &keys, &mut ids).ok()?;
            if learner.known() != known + keys.len() {
                return None;
            }
            words = after;
        }
        if mapper.tables() == 0 {
            return None;
        }
    }
    Some(())
}
