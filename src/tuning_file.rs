//! What tuning found, kept in files: one for all runs of a user, and one in each run's folder, so that a resumed run takes
//! the same texts. A file that is damaged, foreign, too large or of another version counts as empty and is written anew.

use crate::engine::gpu::GpuAdapter;
use crate::error::{Error, Result};
use crate::ops::matmul;
use crate::plan::Plan;
use crate::plan::variant::Picks;
use crate::tune::{Chooser, tune};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// The file in a run's folder.
pub const IN_RUN: &str = "tuning.json";
/// No file is larger.
const MAX_BYTES: u64 = 1 << 20;
/// No device has more picks in a file, and no file more devices.
const MAX_PICKS: usize = 2048;
const MAX_DEVICES: usize = 16;
const VERSION: u32 = 1;

/// Whether texts are timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tune {
    /// They are chosen by adapter and shape.
    #[default]
    Off,
    /// They are timed unless the user's file has an answer.
    Cached,
    /// They are timed in any case.
    Fresh,
}

/// How a run tunes.
#[derive(Debug, Clone, Default)]
pub struct Tuning {
    /// Whether.
    pub mode: Tune,
    /// The folder of the user's file; without one nothing is kept for other runs.
    pub cache: Option<PathBuf>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    /// By name, backend and driver.
    devices: BTreeMap<String, OfDevice>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfDevice {
    /// A hash of all texts that were timed.
    texts: String,
    picks: BTreeMap<String, String>,
}

fn device_name(adapter: &GpuAdapter) -> String {
    format!("{} | {} | {}", adapter.name, adapter.backend, adapter.driver)
}

/// Changes when a text does.
fn texts() -> String {
    let texts = matmul::KERNELS.iter().flat_map(|k| std::iter::once(k.wgsl()).chain(k.variants.iter().map(|v| v.wgsl())));
    format!("{:016x}", xxh3_64(texts.collect::<Vec<_>>().join("\0").as_bytes()))
}

/// Bytes to a file's content; whatever is wrong with them, none of it.
fn decode(bytes: &[u8]) -> File {
    let sound = |file: &File| {
        file.version == VERSION && file.devices.len() <= MAX_DEVICES && file.devices.values().all(|d| d.picks.len() <= MAX_PICKS)
    };
    let file = if bytes.len() as u64 <= MAX_BYTES { serde_json::from_slice(bytes).ok() } else { None };
    file.filter(sound).unwrap_or_default()
}

fn read(path: &Path) -> File {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    if read.is_ok() { decode(&bytes) } else { File::default() }
}

impl File {
    fn picks(&self, device: &str, texts: &str) -> Picks {
        let found = self.devices.get(device).filter(|d| d.texts == texts);
        found.map(|d| d.picks.clone().into_iter().collect()).unwrap_or_default()
    }

    /// Adds picks, within the limits; those of other texts go.
    fn merge(&mut self, device: &str, texts: &str, picks: &Picks) {
        self.version = VERSION;
        if !self.devices.contains_key(device) && self.devices.len() >= MAX_DEVICES {
            self.devices.clear();
        }
        let of = self.devices.entry(device.into()).or_default();
        if of.texts != texts || of.picks.len() + picks.iter().count() > MAX_PICKS {
            *of = OfDevice { texts: texts.into(), picks: BTreeMap::new() };
        }
        of.picks.extend(picks.iter().take(MAX_PICKS).map(|(k, v)| (k.into(), v.into())));
    }

    fn write(&self, path: &Path) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|e| Error::Config(format!("the tuning cannot be written: {e}")))?;
        // several processes may write at once
        let partial = path.with_extension(format!("{}.partial", std::process::id()));
        let written = std::fs::write(&partial, bytes).and_then(|()| std::fs::rename(&partial, path));
        written.map_err(Error::io("write", path)).inspect_err(|_| {
            let _ = std::fs::remove_file(&partial); // the first error is the one to tell
        })
    }
}

/// What a run's tuning found.
#[derive(Debug, Default)]
pub struct Found {
    device: String,
    picks: Picks,
    /// What did not go well, for the user.
    pub warnings: Vec<String>,
}

impl Found {
    /// Keeps the picks in a run's folder, if there are any.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep(&self, dir: &Path) -> Result<()> {
        if self.picks.is_empty() {
            return Ok(());
        }
        let mut file = File::default();
        file.merge(&self.device, &texts(), &self.picks);
        file.write(&dir.join(IN_RUN))
    }
}

/// Chooses by time, and keeps what it finds.
pub struct Tuner<'a> {
    tuning: &'a Tuning,
    /// What the run has in its folder.
    run: File,
    progress: &'a mut dyn FnMut(usize, usize),
    /// What it found.
    pub found: Found,
}

impl std::fmt::Debug for Tuner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tuner({:?})", self.tuning)
    }
}

impl<'a> Tuner<'a> {
    /// `progress` hears of texts tried and texts in all, once a second has passed.
    pub fn new(tuning: &'a Tuning, progress: &'a mut dyn FnMut(usize, usize)) -> Tuner<'a> {
        Tuner { tuning, run: File::default(), progress, found: Found::default() }
    }

    /// For a run that goes on: what stands in its folder counts before all else.
    pub fn resume(&mut self, dir: &Path) {
        self.run = read(&dir.join(IN_RUN));
    }

    fn find(&mut self, adapter: &GpuAdapter, plan: &Plan, batch: usize) -> Result<Picks> {
        let (device, texts) = (device_name(adapter), texts());
        let own = self.run.picks(&device, &texts);
        if self.tuning.mode == Tune::Off {
            return Ok(own);
        }
        let user = self.tuning.cache.as_deref().map(|dir| (dir, dir.join(IN_RUN)));
        let mut file = user.as_ref().map(|(_, path)| read(path)).unwrap_or_default();
        let cached = if self.tuning.mode == Tune::Cached { file.picks(&device, &texts) } else { Picks::default() };
        let known: Picks = cached.iter().chain(own.iter()).map(|(k, v)| (k.into(), v.into())).collect();
        let begin = Instant::now();
        let progress = &mut self.progress;
        let mut late = |done, total| {
            if begin.elapsed().as_secs_f64() > 1.0 {
                progress(done, total);
            }
        };
        let picks = pollster::block_on(tune(adapter, plan, batch, &known, &|| begin.elapsed().as_secs_f64(), &mut late))?;
        if let Some((folder, path)) = user.filter(|_| picks != cached) {
            file.merge(&device, &texts, &picks);
            let kept = std::fs::create_dir_all(folder).map_err(Error::io("create", folder)).and_then(|()| file.write(&path));
            kept.unwrap_or_else(|e| self.found.warnings.push(format!("what tuning found is not kept for other runs: {e}")));
        }
        Ok(picks)
    }
}

impl Chooser for Tuner<'_> {
    fn picks(&mut self, adapter: &GpuAdapter, plan: &Plan, batch: usize) -> Picks {
        self.found.device = device_name(adapter);
        let found = self.find(adapter, plan, batch);
        self.found.picks = found.unwrap_or_else(|e| {
            self.found.warnings.push(format!("nothing was tuned: {e}"));
            Picks::default()
        });
        self.found.picks.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(list: &[(&str, &str)]) -> Picks {
        list.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn a_file_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(IN_RUN);
        let mut file = File::default();
        file.merge("a", "1", &picks(&[("k", "v")]));
        file.merge("b", "1", &picks(&[("k", "w")]));
        file.write(&path).unwrap();
        let found = read(&path);
        assert_eq!(found, file);
        assert_eq!((found.picks("a", "1"), found.picks("b", "1")), (picks(&[("k", "v")]), picks(&[("k", "w")])));
        assert!(found.picks("a", "2").is_empty() && found.picks("c", "1").is_empty());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "a partial file was left behind");
    }

    #[test]
    fn files_that_lie_count_as_empty() {
        let good = r#"{"version":1,"devices":{"a":{"texts":"1","picks":{"k":"v"}}}}"#;
        assert!(!decode(good.as_bytes()).picks("a", "1").is_empty());
        for end in 0..good.len() {
            assert_eq!(decode(&good.as_bytes()[..end]), File::default(), "{end} bytes");
        }
        for (from, to) in [("\"version\":1", "\"version\":2"), ("\"v\"", "7"), ("\"texts\"", "\"text\""), ("}}}}", "}}},\"x\":1}")] {
            assert_eq!(decode(good.replace(from, to).as_bytes()), File::default(), "{from} as {to}");
        }
        assert_eq!(decode(&[0xff; 64]), File::default());
        let padded = good.to_owned() + &" ".repeat(MAX_BYTES as usize);
        assert_eq!(decode(padded.as_bytes()), File::default(), "too large");
        let many: BTreeMap<String, String> = (0..=MAX_PICKS).map(|i| (i.to_string(), String::new())).collect();
        let devices = BTreeMap::from([("a".to_owned(), OfDevice { texts: "1".into(), picks: many })]);
        let bytes = serde_json::to_vec(&File { version: VERSION, devices }).unwrap();
        assert_eq!(decode(&bytes), File::default(), "too many picks");
    }

    #[test]
    fn files_do_not_grow_without_end() {
        let mut file = File::default();
        for i in 0..5000 {
            file.merge("a", "1", &picks(&[(&i.to_string(), "v")]));
            file.merge(&format!("d{i}"), "1", &picks(&[("k", "v")]));
        }
        assert!(file.devices.len() <= MAX_DEVICES && file.devices.values().all(|d| d.picks.len() <= MAX_PICKS));
        file.merge("a", "2", &picks(&[("k", "v")]));
        assert_eq!(file.devices["a"].picks.len(), 1, "picks of other texts stayed");
    }
}
