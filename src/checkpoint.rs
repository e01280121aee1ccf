//! Checkpoints: one safetensors file with the weights under PyTorch's names and, under `dqrm.*`,
//! the optimizer's state and the scales. Values are written and read in pieces, so a model never
//! stands in memory twice. A file is complete or absent: it is written beside its final name,
//! flushed to the disk and renamed.
//!
//! `__metadata__` holds `format = "pt"`, the step, the shape and an XXH3 checksum of the whole file
//! (taken with the checksum's own digits as zeros), which is checked before a single value is used.

use crate::config::Shape;
use crate::error::{Error, Result};
use crate::session::{Session, Tensor};
use crate::tensor_file::{self, checksum_place, checksum_text};
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

mod header;
pub use crate::tensor_file::{Entry, MAX_HEADER, header_len};
pub use header::{Header, decode, encode};

/// Values moved at once.
pub const CHUNK: usize = 1 << 18;

/// What names of tensors of the training loop begin with.
const EXTRA: [&str; 2] = ["dqrm.window.", "dqrm.errors."];

/// Where a checkpoint's values come from and go to.
pub trait Store {
    /// Every tensor, in the order of the file.
    fn tensors(&self) -> Vec<Tensor>;
    /// Values `start..start + len` of a tensor.
    fn read(&mut self, name: &str, start: u64, len: usize) -> Result<Vec<f32>>;
    /// Replaces values of a tensor from `start` on.
    fn write(&mut self, name: &str, start: u64, values: &[f32]) -> Result<()>;
}

impl Store for Session {
    fn tensors(&self) -> Vec<Tensor> {
        Session::tensors(self).to_vec()
    }
    fn read(&mut self, name: &str, start: u64, len: usize) -> Result<Vec<f32>> {
        pollster::block_on(Session::read(self, name, start, len))
    }
    fn write(&mut self, name: &str, start: u64, values: &[f32]) -> Result<()> {
        Session::write(self, name, start, values)
    }
}

/// What a checkpoint holds besides the store's tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// Workers that made them together; 0 without workers.
    pub workers: u64,
    /// Epochs finished.
    pub epoch: u64,
    /// Lines of `metrics.jsonl` written before it.
    pub lines: u64,
    /// AUC on the validation part, where it was measured.
    pub validation_auc: Option<f64>,
    /// Measured where a run was cut short, not where its settings ask for an evaluation.
    pub provisional: bool,
    /// The model's shape.
    pub shape: Shape,
    /// Tensors of the training loop (`dqrm.window.*`, `dqrm.errors.*`), `[n]`.
    pub extra: Vec<(String, Vec<f32>)>,
}

/// A value that is neither a number nor fit to be saved.
#[derive(Debug, Clone, PartialEq)]
pub struct NotFinite {
    /// The tensor.
    pub tensor: String,
    /// The first such value's place.
    pub index: u64,
    /// The value.
    pub value: f32,
}

/// Writes a checkpoint. A state with a NaN or an infinity in it is not saved: the inner result
/// names the first one, and whatever stood at `path` stays.
///
/// # Errors
/// The disk is full, the folder cannot be written, or the store cannot be read.
pub fn write(path: &Path, store: &mut dyn Store, state: &State) -> Result<std::result::Result<(), NotFinite>> {
    let partial = crate::partial::name(path);
    let outcome = write_all(&partial, store, state);
    if !matches!(outcome, Ok(Ok(()))) {
        let _ = std::fs::remove_file(&partial);
        return outcome;
    }
    std::fs::rename(&partial, path).map_err(Error::io("write", path))?;
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        // Not every system can flush a folder; the file itself is safe.
        let _ = File::open(folder).and_then(|f| f.sync_all());
    }
    Ok(Ok(()))
}

fn write_all(partial: &Path, store: &mut dyn Store, state: &State) -> Result<std::result::Result<(), NotFinite>> {
    let failed = || Error::io("write", partial);
    let mut tensors = store.tensors();
    let own = tensors.len();
    tensors.extend(state.extra.iter().map(|(name, values)| Tensor { name: name.clone(), shape: vec![values.len() as u64] }));
    let header = encode(state, &tensors)?;
    let mut hash = Xxh3::new();
    let mut out = BufWriter::with_capacity(1 << 20, File::create(partial).map_err(Error::io("create", partial))?);
    hash.update(&header);
    out.write_all(&header).map_err(failed())?;
    for (k, tensor) in tensors.iter().enumerate() {
        let mut start = 0;
        while start < tensor.len() {
            let len = (tensor.len() - start).min(CHUNK as u64) as usize;
            let read;
            let values: &[f32] = if k < own {
                read = store.read(&tensor.name, start, len)?;
                &read
            } else {
                &state.extra[k - own].1[start as usize..start as usize + len]
            };
            if let Some(place) = values.iter().position(|v| !v.is_finite()) {
                return Ok(Err(NotFinite { tensor: tensor.name.clone(), index: start + place as u64, value: values[place] }));
            }
            let bytes: &[u8] = bytemuck::cast_slice(values);
            hash.update(bytes);
            out.write_all(bytes).map_err(failed())?;
            start += len as u64;
        }
    }
    let mut file = out.into_inner().map_err(|e| failed()(e.into_error()))?;
    let place = checksum_place(&header, header::CHECKSUM).ok_or_else(|| Error::Data("the checkpoint's header has no checksum".into()))?;
    file.seek(SeekFrom::Start(place as u64)).map_err(failed())?;
    file.write_all(checksum_text(hash.digest()).as_bytes()).map_err(failed())?;
    file.sync_all().map_err(failed())?;
    Ok(Ok(()))
}

/// A safetensors file whose header has been checked.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    file: File,
    /// What the header says.
    pub header: Header,
    /// The header's bytes, with the length before them.
    prefix: Vec<u8>,
}

impl Checkpoint {
    /// Opens a file and checks its header and its length.
    ///
    /// # Errors
    /// A file that cannot be read, is truncated, or is no safetensors file of F32 tensors.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        let fail = |reason| Error::Checkpoint { path: path.into(), reason };
        let mut file = File::open(path).map_err(Error::io("read", path))?;
        let size = file.metadata().map_err(Error::io("read", path))?.len();
        let mut prefix = Vec::new();
        (&mut file).take(8).read_to_end(&mut prefix).map_err(Error::io("read", path))?;
        let wanted = tensor_file::header_len(&prefix, size).map_err(fail)?;
        (&mut file).take(wanted).read_to_end(&mut prefix).map_err(Error::io("read", path))?;
        let header = decode(&prefix, size).map_err(fail)?;
        Ok(Checkpoint { path: path.into(), file, header, prefix })
    }

    fn fail(&self, reason: String) -> Error {
        Error::Checkpoint { path: self.path.clone(), reason }
    }

    /// Compares the whole file with its checksum.
    ///
    /// # Errors
    /// No checksum in the file, or another one than its bytes have.
    pub fn verify(&mut self) -> Result<()> {
        let Some(said) = self.header.checksum else {
            return Err(self.fail(
                "has no `dqrm.checksum`, so it is not a checkpoint of dqrm; a PyTorch state dict can be started from with --init".into(),
            ));
        };
        let mut prefix = self.prefix.clone();
        let place =
            checksum_place(&prefix, header::CHECKSUM).ok_or_else(|| self.fail("the checksum is not where dqrm writes it".into()))?;
        prefix[place..place + 16].fill(b'0');
        let mut hash = Xxh3::new();
        hash.update(&prefix);
        self.file.seek(SeekFrom::Start(prefix.len() as u64)).map_err(Error::io("read", &self.path))?;
        let mut buffer = vec![0u8; 4 * CHUNK];
        loop {
            match self.file.read(&mut buffer).map_err(Error::io("read", &self.path))? {
                0 => break,
                n => hash.update(&buffer[..n]),
            }
        }
        let found = hash.digest();
        if found != said {
            return Err(self.fail(format!("was altered after it was written: its checksum is {found:016x}, it should be {said:016x}")));
        }
        Ok(())
    }

    /// Verifies the file, compares its tensors with the store's and loads them all; gives the
    /// state back, with those tensors of the file that the store does not have as `extra`.
    ///
    /// # Errors
    /// As [`Checkpoint::verify`]; a tensor that is missing or has another shape.
    pub fn load(&mut self, store: &mut dyn Store) -> Result<State> {
        self.verify()?;
        let tensors = store.tensors();
        self.compare(&tensors)?;
        for tensor in &tensors {
            self.copy(&tensor.name, store)?;
        }
        let known: std::collections::HashSet<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
        let others: Vec<String> = self.header.tensors.iter().map(|t| t.name.clone()).filter(|n| !known.contains(n.as_str())).collect();
        let mut extra = Vec::new();
        for name in others {
            if !EXTRA.iter().any(|prefix| name.starts_with(prefix)) {
                return Err(
                    self.fail(format!("has a tensor `{name}` that this model lacks; it was trained with another shape or optimizer"))
                );
            }
            let values = self.values(&name)?;
            extra.push((name, values));
        }
        let h = &self.header;
        let shape = h.shape.clone().ok_or_else(|| self.fail("has no `dqrm.shape`".into()))?;
        let (step, workers, epoch, lines) = (h.step, h.workers, h.epoch, h.lines);
        let (validation_auc, provisional) = (h.validation_auc, h.provisional);
        Ok(State { step, workers, epoch, lines, validation_auc, provisional, shape, extra })
    }

    /// Loads the weights alone (no optimizer state, no scales) from a state dict of any origin.
    /// Gives the names of the tensors that were not used.
    ///
    /// # Errors
    /// A weight that is missing or has another shape.
    pub fn load_weights(&mut self, store: &mut dyn Store) -> Result<Vec<String>> {
        if self.header.checksum.is_some() {
            self.verify()?;
        }
        let weights: Vec<Tensor> = store.tensors().into_iter().filter(Tensor::is_weight).collect();
        self.compare(&weights)?;
        for tensor in &weights {
            self.copy(&tensor.name, store)?;
        }
        let unused = self.header.tensors.iter().map(|t| t.name.clone()).filter(|n| !weights.iter().any(|w| w.name == *n));
        Ok(unused.collect())
    }

    /// Verifies the file and loads what the store has, and nothing else: a store without optimizer
    /// state takes the weights and scales.
    ///
    /// # Errors
    /// As [`Checkpoint::load`], but tensors that the store lacks are no error.
    pub fn load_inference(&mut self, store: &mut dyn Store) -> Result<()> {
        self.verify()?;
        let tensors = store.tensors();
        self.compare(&tensors)?;
        tensors.iter().try_for_each(|tensor| self.copy(&tensor.name, store))
    }

    /// Every weight of a model of this shape is in the file: asked before memory is taken for the model,
    /// so that the file's own length bounds it.
    ///
    /// # Errors
    /// A weight that is missing, has another type or another shape.
    pub fn check_weights(&self, shape: &Shape) -> Result<()> {
        self.compare(&Tensor::weights(shape))
    }

    /// Every tensor asked for is in the file, as F32, in the same shape.
    fn compare(&self, wanted: &[Tensor]) -> Result<()> {
        for tensor in wanted {
            let Some(entry) = self.header.entry(&tensor.name) else {
                return Err(self.fail(format!(
                    "has no tensor `{}`, which this model needs in shape {:?}; it belongs to another model or optimizer",
                    tensor.name, tensor.shape
                )));
            };
            if entry.dtype != "F32" {
                return Err(self.fail(format!("holds `{}` as {}; only F32 can be read (`.float()` in PyTorch)", tensor.name, entry.dtype)));
            }
            if entry.shape != tensor.shape {
                return Err(self.fail(format!(
                    "belongs to another model: `{}` has shape {:?} there, but {:?} is needed",
                    tensor.name, entry.shape, tensor.shape
                )));
            }
        }
        Ok(())
    }

    /// Moves one tensor from the file to the store.
    fn copy(&mut self, name: &str, store: &mut dyn Store) -> Result<()> {
        let (offset, len) = self.span(name)?;
        let mut values = vec![0f32; CHUNK.min(len as usize)];
        let mut start = 0;
        while start < len {
            let count = (len - start).min(CHUNK as u64) as usize;
            self.read_at(offset + 4 * start, &mut values[..count])?;
            store.write(name, start, &values[..count])?;
            start += count as u64;
        }
        Ok(())
    }

    /// One whole tensor.
    fn values(&mut self, name: &str) -> Result<Vec<f32>> {
        let (_, len) = self.span(name)?;
        let mut values = vec![0f32; len as usize];
        self.read(name, 0, &mut values)?;
        Ok(values)
    }

    /// Fills `values` with those from `start` on of a tensor.
    ///
    /// # Errors
    /// No such F32 tensor, a range beyond it, a file that cannot be read.
    pub fn read(&mut self, name: &str, start: u64, values: &mut [f32]) -> Result<()> {
        let (offset, all) = self.span(name)?;
        if start.checked_add(values.len() as u64).is_none_or(|end| end > all) {
            return Err(self.fail(format!("has {all} values in `{name}`, but {} from number {start} on are needed", values.len())));
        }
        self.read_at(offset + 4 * start, values)
    }

    /// Where a tensor's bytes begin in the file, and its values.
    fn span(&self, name: &str) -> Result<(u64, u64)> {
        match self.header.entry(name) {
            Some(entry) if entry.dtype == "F32" => Ok((self.prefix.len() as u64 + entry.start, entry.shape.iter().product())),
            _ => Err(self.fail(format!("has no F32 tensor `{name}`"))),
        }
    }

    fn read_at(&mut self, offset: u64, values: &mut [f32]) -> Result<()> {
        self.file.seek(SeekFrom::Start(offset)).map_err(Error::io("read", &self.path))?;
        self.file.read_exact(bytemuck::cast_slice_mut(values)).map_err(Error::io("read", &self.path))
    }
}

#[cfg(test)]
mod tests;
