//! What tuning found, kept in files: one for all runs of a user, and one in each run's folder, so that a resumed run takes
//! the same texts. A file that is damaged, foreign, too large or of another version counts as empty and is written anew.

use crate::engine::gpu::{GpuAdapter, TRANSLATORS};
use crate::error::{Error, Result};
use crate::ops::matmul;
use crate::plan::Plan;
use crate::plan::variant::Picks;
use crate::tune::{Chooser, compare_again, is_timed, tune};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
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
const VERSION: u32 = 2;

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

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    /// By name, backend and driver.
    devices: BTreeMap<String, OfDevice>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfDevice {
    /// A hash of all texts that were timed.
    texts: String,
    /// Who answers for them: it timed them, or in a run that went on [compared](compare_again) what another one had timed.
    program: String,
    picks: BTreeMap<String, String>,
}

fn device_name(adapter: &GpuAdapter) -> String {
    format!("{} | {} | {}", adapter.name, adapter.backend, adapter.driver)
}

/// Who times: this program, and what makes code of its texts. Another one makes other code, so its answers are not for this one.
fn program() -> String {
    format!("dqrm {}, {TRANSLATORS}", env!("CARGO_PKG_VERSION"))
}

/// Changes when a text does.
fn texts() -> String {
    let texts = matmul::KERNELS.iter().flat_map(|k| std::iter::once(k.wgsl()).chain(k.variants.iter().flat_map(|v| v.texts())));
    format!("{:016x}", xxh3_64(texts.collect::<Vec<_>>().join("\0").as_bytes()))
}

/// Bytes to a file's content; whatever is wrong with them, none of it.
fn decode(bytes: &[u8]) -> Option<File> {
    let sound = |file: &File| {
        file.version == VERSION && file.devices.len() <= MAX_DEVICES && file.devices.values().all(|d| d.picks.len() <= MAX_PICKS)
    };
    let file = if bytes.len() as u64 <= MAX_BYTES { serde_json::from_slice(bytes).ok() } else { None };
    file.filter(sound)
}

/// An empty file where there is none; `None` when what stands there cannot be used.
fn read(path: &Path) -> Option<File> {
    use std::io::Read;
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Some(File::default()),
        // a pipe, say, would be waited for
        Ok(found) if found.is_file() => {}
        _ => return None,
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)).ok()?;
    decode(&bytes)
}

/// Those for products of `plan`.
fn of_plan(picks: &Picks, plan: &Plan) -> Picks {
    let mut own = Picks::default();
    for command in plan.phases.iter().flat_map(|p| &p.commands).filter(|c| is_timed(c)) {
        picks.get(command).into_iter().for_each(|name| own.set(command, name));
    }
    own
}

impl File {
    /// This program answers for them.
    fn is_own(&self, device: &str) -> bool {
        self.devices.get(device).is_some_and(|d| d.program == program())
    }

    /// What a run began with: whoever timed it, its sums are added in the same order.
    fn picks(&self, device: &str, texts: &str) -> Picks {
        let found = self.devices.get(device).filter(|d| d.texts == texts);
        found.map(|d| d.picks.clone().into_iter().collect()).unwrap_or_default()
    }

    /// What is still likely the quickest: this program has timed it.
    fn timed(&self, device: &str, texts: &str) -> Picks {
        if self.is_own(device) { self.picks(device, texts) } else { Picks::default() }
    }

    /// Adds picks, within the limits: others make room for them. Those of other texts or programs go.
    fn merge(&mut self, device: &str, texts: &str, picks: &Picks) {
        self.version = VERSION;
        let old =
            self.devices.remove(device).filter(|of| of.texts == texts && of.program == program()).map(|of| of.picks).unwrap_or_default();
        while self.devices.len() >= MAX_DEVICES {
            self.devices.pop_first();
        }
        let mut all: BTreeMap<String, String> = picks.iter().take(MAX_PICKS).map(|(k, v)| (k.into(), v.into())).collect();
        for (key, name) in old {
            if all.len() < MAX_PICKS {
                all.entry(key).or_insert(name);
            }
        }
        self.devices.insert(device.into(), OfDevice { texts: texts.into(), program: program(), picks: all });
    }

    /// As bytes that can be read again: devices other than `device` go until they are few enough.
    fn encode(mut self, device: &str) -> Result<Vec<u8>> {
        loop {
            let bytes = serde_json::to_vec_pretty(&self).map_err(|e| Error::Config(format!("the tuning cannot be written: {e}")))?;
            if bytes.len() as u64 <= MAX_BYTES {
                return Ok(bytes);
            }
            let Some(other) = self.devices.keys().find(|name| *name != device).cloned() else {
                return Err(Error::Config(format!("the tuning takes {} bytes, a file at most {MAX_BYTES}", bytes.len())));
            };
            self.devices.remove(&other);
        }
    }

    fn write(self, path: &Path, device: &str) -> Result<()> {
        use std::hash::{BuildHasher, Hasher};
        let bytes = self.encode(device)?;
        // several processes may write at once, and what stands there already is nobody's to overwrite
        let random = std::hash::RandomState::new().build_hasher().finish();
        let partial = path.with_extension(format!("{random:016x}.partial"));
        let mut file = std::fs::File::create_new(&partial).map_err(Error::io("create", &partial))?;
        let written = file.write_all(&bytes);
        drop(file);
        let written = written.and_then(|()| std::fs::rename(&partial, path));
        written.map_err(Error::io("write", path)).inspect_err(|_| {
            let _ = std::fs::remove_file(&partial); // the first error is the one to tell
        })
    }
}

/// What a run's tuning found.
#[derive(Debug, Default)]
pub struct Found {
    device: String,
    /// For products of the run's plan.
    picks: Picks,
    /// What the run has in its folder.
    run: File,
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
        let mut file = self.run.clone();
        file.merge(&self.device, &texts(), &self.picks);
        if file == self.run { Ok(()) } else { file.write(&dir.join(IN_RUN), &self.device) }
    }
}

/// Chooses by time, and keeps what it finds.
pub struct Tuner<'a> {
    tuning: &'a Tuning,
    /// What the run has in its folder cannot be used.
    damaged: bool,
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
    /// `progress` hears of rounds begun before and rounds in all, as from [`tune`], once a second has passed.
    pub fn new(tuning: &'a Tuning, progress: &'a mut dyn FnMut(usize, usize)) -> Tuner<'a> {
        Tuner { tuning, damaged: false, progress, found: Found::default() }
    }

    /// For a run that goes on: what stands in its folder counts before all else.
    pub fn resume(&mut self, dir: &Path) {
        let run = read(&dir.join(IN_RUN));
        self.damaged = run.is_none();
        self.found.run = run.unwrap_or_default();
    }

    /// Why a run that goes on does not get the texts that it began with, if it had any.
    fn lost(&self, device: &str, texts: &str) -> Option<&'static str> {
        let devices = &self.found.run.devices;
        match devices.get(device) {
            _ if self.damaged => Some("cannot be read, or another version of dqrm wrote it"),
            Some(of) if of.texts != texts => Some("is for other texts than this program has"),
            None if !devices.is_empty() => Some("is for another device or driver"),
            _ => None,
        }
    }

    fn find(&mut self, adapter: &GpuAdapter, plan: &Plan) -> Picks {
        let (device, texts) = (device_name(adapter), texts());
        let lost = self.lost(&device, &texts);
        let warning = |reason| {
            format!("the run's {IN_RUN} {reason}: sums are added in another order from here on, so results may differ in their last bits")
        };
        self.found.warnings.extend(lost.map(warning));
        let begin = Instant::now();
        let progress = &mut self.progress;
        let mut late = |done, total| {
            if begin.elapsed().as_secs_f64() > 1.0 {
                progress(done, total);
            }
        };
        let mut own = of_plan(&self.found.run.picks(&device, &texts), plan);
        if !self.found.run.is_own(&device) {
            let compared = pollster::block_on(compare_again(adapter, plan, own, &mut late));
            self.found.warnings.extend(compared.warnings);
            own = compared.picks;
        }
        if self.tuning.mode == Tune::Off {
            return own;
        }
        let user = self.tuning.cache.as_deref().map(|dir| (dir, dir.join(IN_RUN)));
        let cached = user.as_ref().filter(|_| self.tuning.mode == Tune::Cached).and_then(|(_, path)| read(path)).unwrap_or_default();
        let cached = cached.timed(&device, &texts);
        let known: Picks = cached.iter().chain(own.iter()).map(|(k, v)| (k.into(), v.into())).collect();
        let known = of_plan(&known, plan);
        let picks = match pollster::block_on(tune(adapter, plan, &known, &|| begin.elapsed().as_secs_f64(), &mut late)) {
            Ok(tuned) => {
                self.found.warnings.extend(tuned.warnings);
                tuned.picks
            }
            Err(e) => {
                self.found.warnings.push(format!("nothing was tuned: {e}"));
                return known;
            }
        };
        let before: BTreeSet<&str> = known.iter().map(|(key, _)| key).collect();
        let timed: Picks = picks.iter().filter(|(key, _)| !before.contains(key)).map(|(k, v)| (k.into(), v.into())).collect();
        if let Some((folder, path)) = user.filter(|_| !timed.is_empty()) {
            // others may have written while the texts were timed
            let mut file = read(&path).unwrap_or_default();
            file.merge(&device, &texts, &timed);
            let kept = std::fs::create_dir_all(folder).map_err(Error::io("create", folder)).and_then(|()| file.write(&path, &device));
            kept.unwrap_or_else(|e| self.found.warnings.push(format!("what tuning found is not kept for other runs: {e}")));
        }
        picks
    }
}

impl Chooser for Tuner<'_> {
    fn picks(&mut self, adapter: &GpuAdapter, plan: &Plan) -> Picks {
        self.found.device = device_name(adapter);
        self.found.picks = self.find(adapter, plan);
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
        file.clone().write(&path, "b").unwrap();
        let found = read(&path).unwrap();
        assert_eq!(found, file);
        assert_eq!((found.picks("a", "1"), found.picks("b", "1")), (picks(&[("k", "v")]), picks(&[("k", "w")])));
        assert!(found.picks("a", "2").is_empty() && found.picks("c", "1").is_empty());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "a partial file was left behind");
    }

    #[test]
    fn files_that_lie_count_as_empty() {
        let good = r#"{"version":2,"devices":{"a":{"texts":"1","program":"p","picks":{"k":"v"}}}}"#;
        assert!(!decode(good.as_bytes()).unwrap().picks("a", "1").is_empty());
        for end in 0..good.len() {
            assert_eq!(decode(&good.as_bytes()[..end]), None, "{end} bytes");
        }
        for (from, to) in [
            ("\"version\":2", "\"version\":1"),
            ("\"program\":\"p\",", ""),
            ("\"v\"", "7"),
            ("\"texts\"", "\"text\""),
            ("}}}}", "}}},\"x\":1}"),
        ] {
            assert_eq!(decode(good.replace(from, to).as_bytes()), None, "{from} as {to}");
        }
        assert_eq!(decode(&[0xff; 64]), None);
        let padded = good.to_owned() + &" ".repeat(MAX_BYTES as usize);
        assert_eq!(decode(padded.as_bytes()), None, "too large");
        let many: BTreeMap<String, String> = (0..=MAX_PICKS).map(|i| (i.to_string(), String::new())).collect();
        let devices = BTreeMap::from([("a".to_owned(), OfDevice { texts: "1".into(), program: program(), picks: many })]);
        let bytes = serde_json::to_vec(&File { version: VERSION, devices }).unwrap();
        assert_eq!(decode(&bytes), None, "too many picks");
    }

    #[test]
    fn another_programs_answers_stay_with_the_run_that_had_them() {
        let mut file = File::default();
        file.merge("a", "1", &picks(&[("k", "v")]));
        assert_eq!(file.timed("a", "1"), picks(&[("k", "v")]));
        assert!(file.timed("a", "2").is_empty() && file.timed("b", "1").is_empty());
        let elder = file.devices.get_mut("a").unwrap();
        elder.program = elder.program.replace("naga 30", "naga 29");
        assert_eq!((file.timed("a", "1"), file.picks("a", "1")), (Picks::default(), picks(&[("k", "v")])));
        file.merge("a", "1", &picks(&[("l", "w")]));
        assert_eq!(file.timed("a", "1"), picks(&[("l", "w")]), "the elder's answer passes for this program's");
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

    #[test]
    fn new_picks_stay_where_there_is_no_room_for_all() {
        let many: Picks = (0..MAX_PICKS).map(|i| (format!("m{i}"), "v".to_owned())).collect();
        let mut file = File::default();
        file.merge("a", "1", &many);
        file.merge("a", "1", &picks(&[("z", "new"), ("m7", "new")]));
        let of = &file.devices["a"].picks;
        assert_eq!((of.len(), of["z"].as_str(), of["m7"].as_str()), (MAX_PICKS, "new", "new"));
    }

    #[test]
    fn whatever_is_written_can_be_read() {
        let mut file = File::default();
        for device in 0..MAX_DEVICES {
            let many: Picks = (0..MAX_PICKS).map(|i| (format!("{i:0100}"), "v".repeat(30))).collect();
            file.merge(&format!("d{device:02}"), "1", &many);
        }
        let found = decode(&file.clone().encode("d03").unwrap()).unwrap();
        assert!(found.devices.len() < MAX_DEVICES && found.devices["d03"] == file.devices["d03"]);
        let mut large = File::default();
        large.merge("a", "1", &picks(&[("k", &"v".repeat(MAX_BYTES as usize))]));
        assert!(large.encode("a").is_err());
    }

    #[test]
    fn a_run_hears_why_its_file_is_of_no_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(IN_RUN);
        let tuning = Tuning::default();
        let lost = |device, texts| {
            let mut quiet = |_, _| {};
            let mut tuner = Tuner::new(&tuning, &mut quiet);
            tuner.resume(dir.path());
            tuner.lost(device, texts)
        };
        assert_eq!(lost("a", "1"), None, "a run that was never tuned");
        let mut file = File::default();
        file.merge("a", "1", &picks(&[("k", "v")]));
        file.write(&path, "a").unwrap();
        assert_eq!(lost("a", "1"), None);
        assert_ne!(lost("b", "1"), None);
        assert_ne!(lost("a", "2"), None);
        std::fs::write(&path, "{").unwrap();
        assert_ne!(lost("a", "1"), None);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_ne!(lost("a", "1"), None, "a folder");
    }
}
