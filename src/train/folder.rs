//! A run's folder.

use super::{Assembled, broken};
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::config_file;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// The resolved settings.
pub const CONFIG: &str = "config.toml";
/// Raw categories to row numbers.
pub const IDS: &str = "ids.bin";
/// Reports and evaluations.
pub const METRICS: &str = "metrics.jsonl";
/// The newest checkpoint.
pub const LAST: &str = "last.safetensors";
/// The checkpoint with the best AUC on the validation part.
pub const BEST: &str = "best.safetensors";

/// The packed model, when there is one.
pub const PACKED: &str = "model.safetensors";

/// The settings of the run in `dir`.
pub(super) fn read_config(dir: &Path) -> Result<Config> {
    if !dir.join(CONFIG).exists() {
        return Err(Error::Config(format!("`{}` is not a run's folder: it has no {CONFIG}", dir.display())));
    }
    config_file::read(&dir.join(CONFIG))
}

/// `wanted`, or `wanted-2`, `wanted-3` … when that exists.
pub fn free_name(wanted: &Path) -> PathBuf {
    let numbered = |n: u64| {
        let mut name = wanted.as_os_str().to_owned();
        name.push(format!("-{n}"));
        PathBuf::from(name)
    };
    std::iter::once(wanted.to_path_buf()).chain((2..).map(numbered)).find(|p| !p.exists()).unwrap_or_else(|| wanted.to_path_buf())
}

/// The folder does not exist or is empty.
pub(super) fn check_fresh(dir: &Path) -> Result<()> {
    let mut entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("read", dir)(e)),
    };
    if entries.next().is_none() {
        return Ok(());
    }
    let shown = dir.display();
    let what = if dir.join(LAST).exists() {
        format!("`{shown}` holds a run already; continue it with `dqrm train --resume {shown}`, or give another --out, or remove it")
    } else if dir.join(CONFIG).exists() {
        format!("`{shown}` holds a run that wrote no checkpoint; remove it or give another --out")
    } else {
        format!("`{shown}` is not empty; give another --out")
    };
    Err(Error::Config(what))
}

/// What may differ between a run and its resumption is set to one value.
fn comparable(config: &Config) -> Config {
    let mut c = config.clone();
    let plain = Config::default();
    c.device = plain.device;
    (c.model.tables, c.model.table_dir) = (plain.model.tables, plain.model.table_dir);
    c.train.epochs = 0;
    c.train.max_steps = 0;
    c.train.eval_batch = 0;
    c.train.eval_every = 0;
    c.train.checkpoint_every = 0;
    c.train.checkpoints = plain.train.checkpoints;
    c.train.loader_threads = 0;
    c.workers.count = 0;
    c.workers.check_every = 0;
    c.data.cache = String::new();
    c.data.schema.width = None;
    c
}

/// The folder holds a run with these settings, up to those that may change.
pub(super) fn check_resume(dir: &Path, config: &Config) -> Result<()> {
    let before = config_file::read(&dir.join(CONFIG))?;
    if comparable(&before) != comparable(config) {
        return Err(Error::Config(format!(
            "`{}` was trained with other settings; with --resume only the device, model.tables, model.table_dir, epochs, max_steps, eval_batch, eval_every, checkpoint_every, checkpoints, \
             loader_threads, the cache, workers.count and workers.check_every may change (see its {CONFIG})",
            dir.display()
        )));
    }
    Ok(())
}

/// Writes the settings of a resumed run where they have changed.
pub(super) fn keep_config(dir: &Path, config: &Config) -> Result<()> {
    if config_file::read(&dir.join(CONFIG))? != *config {
        config_file::write(config, &dir.join(CONFIG))?;
    }
    Ok(())
}

/// Makes the folder and writes what does not change while training.
pub(super) fn create(dir: &Path, config: &Config, data: &Assembled) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    if let Some(ids) = &data.ids {
        let path = dir.join(IDS);
        std::fs::write(&path, ids.as_slice()).map_err(Error::io("write", path))?;
    }
    config_file::write(config, &dir.join(CONFIG))
}

/// Opens the newest checkpoint, which belongs to this data and model.
pub(super) fn open_last(dir: &Path, data: &Assembled) -> Result<Checkpoint> {
    let path = dir.join(LAST);
    if !path.exists() {
        return Err(Error::Config(format!("`{}` has no {LAST}, so there is nothing to resume; start the run again", dir.display())));
    }
    if let Some(ids) = &data.ids {
        let kept = std::fs::read(dir.join(IDS)).map_err(Error::io("read", dir.join(IDS)))?;
        if kept != **ids {
            return Err(Error::Data(format!(
                "the data gives other row numbers than {IDS} of `{}`; the files have changed since the run began",
                dir.display()
            )));
        }
    }
    let checkpoint = Checkpoint::open(&path)?;
    if let Some(shape) = checkpoint.header.shape.as_ref().filter(|s| **s != data.shape) {
        let differs =
            format!("belongs to another model: its tables have {:?} rows, the data and settings give {:?}", shape.rows, data.shape.rows);
        let reason = if shape.rows == data.shape.rows {
            format!("belongs to another model: {shape:?} there, {:?} here", data.shape)
        } else {
            differs
        };
        return Err(broken(&path, reason));
    }
    Ok(checkpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("run");
        assert!(check_fresh(&dir).is_ok());
        assert_eq!(free_name(&dir), dir);
        std::fs::create_dir(&dir).unwrap();
        assert!(check_fresh(&dir).is_ok(), "empty");
        assert!(free_name(&dir).ends_with("run-2"));
        std::fs::write(dir.join(CONFIG), "").unwrap();
        assert!(check_fresh(&dir).unwrap_err().to_string().contains("wrote no checkpoint"));
        std::fs::write(dir.join(LAST), "").unwrap();
        assert!(check_fresh(&dir).unwrap_err().to_string().contains("--resume"));
    }

    #[test]
    fn a_resumed_run_may_be_longer_but_not_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config_file::write(&config, &folder.path().join(CONFIG)).unwrap();
        config.train.epochs = 9;
        check_resume(folder.path(), &config).unwrap();
        assert_eq!(config_file::read(&folder.path().join(CONFIG)).unwrap().train.epochs, 1, "nothing is written before the run can go on");
        keep_config(folder.path(), &config).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no partial file stays");
        assert_eq!(config_file::read(&folder.path().join(CONFIG)).unwrap(), config);
        config.optim.lr = 0.7;
        assert!(check_resume(folder.path(), &config).unwrap_err().to_string().contains("other settings"));
    }
}
