//! `metrics.jsonl`: one JSON object a line, one line a report or an evaluation.

use super::{Evaluation, Progress, Traffic};
use crate::error::{Error, Result};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, Write};
use std::path::{Path, PathBuf};

/// The open file.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Lines in the file.
    pub(super) lines: u64,
}

/// A report on training.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    pub(super) kind: &'a str,
    pub(super) step: u64,
    pub(super) epoch: f64,
    pub(super) loss: f64,
    pub(super) auc: Option<f64>,
    pub(super) lr: f64,
    pub(super) samples_per_second: f64,
    pub(super) data_wait_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exchange: Option<&'a Traffic>,
}

impl<'a> Report<'a> {
    /// A report of the loop's position.
    pub(super) fn new(progress: &'a Progress, epoch_steps: u64, lr: f64) -> Report<'a> {
        Report {
            kind: "train",
            step: progress.step,
            epoch: progress.step as f64 / epoch_steps as f64,
            loss: progress.loss,
            auc: progress.auc,
            lr,
            samples_per_second: progress.samples_per_second,
            data_wait_ms: progress.data_wait_ms,
            exchange: progress.exchange.as_ref(),
        }
    }
}

/// An evaluation as a line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    kind: &'a str,
    #[serde(flatten)]
    evaluation: &'a Evaluation,
}

impl Journal {
    /// Opens the file and drops what stands after its first `keep` lines.
    pub(super) fn open(path: &Path, keep: u64) -> Result<Journal> {
        let failed = || Error::io("write", path);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed())?;
        let mut reader = BufReader::new(file);
        let (mut lines, mut end, mut line) = (0, 0u64, Vec::new());
        while lines < keep {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(Error::io("read", path))?;
            if line.last() != Some(&b'\n') {
                let reason = format!("has only {lines} whole lines; the checkpoint was written after {keep}");
                return Err(Error::Data(format!("`{}` {reason}", path.display())));
            }
            end += read as u64;
            lines += 1;
        }
        let mut file = reader.into_inner();
        file.set_len(end).map_err(failed())?;
        file.seek(std::io::SeekFrom::Start(end)).map_err(failed())?;
        Ok(Journal { path: path.into(), file, lines })
    }

    /// Appends a line.
    pub(super) fn add(&mut self, value: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_string(value).map_err(|e| Error::Data(format!("a line of metrics cannot be written: {e}")))?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(Error::io("write", &self.path))?;
        self.lines += 1;
        Ok(())
    }

    /// Appends an evaluation.
    pub(super) fn evaluation(&mut self, evaluation: &Evaluation) -> Result<()> {
        self.add(&Line { kind: "evaluation", evaluation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_after_the_checkpoint_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut journal = Journal::open(&path, 0).unwrap();
        for i in 0..3 {
            journal.add(&i).unwrap();
        }
        let mut journal = Journal::open(&path, 2).unwrap();
        journal.add(&"again").unwrap();
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), journal.lines), ("0\n1\n\"again\"\n", 3));
        assert!(Journal::open(&path, 9).unwrap_err().to_string().contains("only 3 whole lines"));
    }
}
