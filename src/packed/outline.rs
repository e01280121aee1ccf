//! What the header of a packed model says, checked: enough to make a plan and buffers before the values come.

use super::{CHECKSUM_KEY, CODES_CHECKSUM_KEY, IDS, MANIFEST_KEY, Manifest, VERSION, VERSION_KEY, Wanted, layout};
use crate::model::Network;
use crate::tensor_file::{self, Entry, Frame};
use std::ops::Range;

/// The header of a packed model: manifest, tensors and where they lie. Sizes fit the file and each other.
#[derive(Debug, Clone)]
pub struct Outline {
    frame: Frame,
    manifest: Manifest,
    pub(super) checksum: u64,
    pub(super) codes_checksum: u64,
}

impl Outline {
    /// Reads the header of a file of `size` bytes; `prefix` is its length and text, and may go on.
    ///
    /// # Errors
    /// One sentence that goes on from the file's name: "is truncated: …".
    pub fn decode(prefix: &[u8], size: u64) -> Result<Outline, String> {
        let frame = tensor_file::decode(prefix, size)?;
        let manifest = read_manifest(&frame)?;
        manifest.check(size)?;
        let dims = |name: &str| frame.entry(name).map(|e| e.shape.clone()).unwrap_or_default();
        let ids = dims(IDS).first().copied().unwrap_or(0);
        // A table or a layer of one row is the same either way.
        let row_scales = manifest.shape.rows.iter().enumerate().any(|(k, _)| dims(&format!("emb_l.{k}.weight.scale")) != [1]);
        let network = Network::new(&manifest.shape);
        let channels = network.layers().any(|l| dims(&format!("{}.weight.scale", l.name)) != [1]);
        compare(&frame.tensors, &layout(&manifest, row_scales, channels, ids))?;
        let sum = |key| tensor_file::checksum(&frame.notes, key)?.ok_or_else(|| format!("has no `{key}`"));
        let (checksum, codes_checksum) = (sum(CHECKSUM_KEY)?, sum(CODES_CHECKSUM_KEY)?);
        Ok(Outline { frame, manifest, checksum, codes_checksum })
    }

    /// What the header says besides the tensors.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The tensors of the file.
    pub fn tensors(&self) -> &[Entry] {
        &self.frame.tensors
    }

    /// Bytes before the first value.
    pub fn prefix(&self) -> usize {
        self.frame.prefix as usize
    }

    /// Bytes of the whole file.
    pub fn size(&self) -> usize {
        self.tensors().last().map_or(self.prefix(), |e| self.range(e).end)
    }

    /// Where a tensor's values lie, in bytes of the file; nothing when there is no such tensor.
    pub fn place(&self, name: &str) -> Range<usize> {
        self.frame.entry(name).map_or(0..0, |e| self.range(e))
    }

    /// Where the codes of all tables lie, in bytes of the file.
    pub fn codes(&self) -> Range<usize> {
        self.span("emb_l.0.weight.codes", &format!("emb_l.{}.weight.codes", self.manifest.shape.tables() - 1))
    }

    /// Where the scales of all tables lie, in bytes of the file.
    pub fn table_scales(&self) -> Range<usize> {
        self.span("emb_l.0.weight.scale", &format!("emb_l.{}.weight.scale", self.manifest.shape.tables() - 1))
    }

    /// True with a scale for each row of the tables.
    pub fn row_scales(&self) -> bool {
        self.table_scales().len() as u64 != 4 * self.manifest.shape.tables() as u64
    }

    fn span(&self, first: &str, last: &str) -> Range<usize> {
        self.place(first).start..self.place(last).end
    }

    fn range(&self, entry: &Entry) -> Range<usize> {
        let start = (self.frame.prefix + entry.start) as usize;
        start..start + entry.bytes as usize
    }
}

fn read_manifest(frame: &Frame) -> Result<Manifest, String> {
    let Some(version) = frame.notes.get(VERSION_KEY) else {
        return Err(format!("is not a packed model: it has no `{VERSION_KEY}`; `dqrm pack` makes one from a run's folder"));
    };
    let number: u64 = version.parse().map_err(|_| format!("has `{VERSION_KEY}` = `{version}`, which is not a whole number"))?;
    if number == 0 || number > VERSION {
        return Err(format!(
            "has version {number} of the packed format; this program reads versions 1 to {VERSION}; a newer dqrm may read it"
        ));
    }
    let text = frame.notes.get(MANIFEST_KEY).ok_or_else(|| format!("has no `{MANIFEST_KEY}`"))?;
    serde_json::from_str(text).map_err(|e| format!("has a `{MANIFEST_KEY}` that cannot be used: {e}"))
}

/// The file's tensors are exactly those wanted, in that order.
fn compare(found: &[Entry], wanted: &[Wanted]) -> Result<(), String> {
    for (i, (name, dtype, shape)) in wanted.iter().enumerate() {
        let Some(entry) = found.get(i) else { return Err(format!("lacks the tensor `{name}`")) };
        if entry.name != *name {
            return Err(format!("has the tensor `{}` where `{name}` should be", entry.name));
        }
        if entry.dtype != *dtype || entry.shape != *shape {
            return Err(format!("holds `{name}` as {} {:?}; {dtype} {shape:?} is needed", entry.dtype, entry.shape));
        }
    }
    match found.get(wanted.len()) {
        Some(extra) => Err(format!("has a tensor `{}` that no packed model has", extra.name)),
        None => Ok(()),
    }
}
