//! Preparation into a folder that the user names, which can be interrupted and continued.

use super::dataset::{self, Prepared, Watch};
use super::manifest::META;
use super::prepare::{self, Control, Job};
use super::progress;
use crate::config::{Data, Schema};
use crate::error::{Error, Result};
use crate::partial;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Bytes of input between two marks.
const MARK: u64 = 1 << 30;
const LOCK: &str = "lock";

/// How [`to_folder`] goes about it.
pub struct Making<'a, 'w> {
    /// Becomes true when it shall stop, to be continued later.
    pub stop: Option<&'a AtomicBool>,
    /// Forget what an earlier attempt left.
    pub restart: bool,
    /// Bytes of input between two marks, from which an attempt that was ended in any way can go on; `None` is 1 GiB.
    pub mark_every: Option<u64>,
    /// Gets (bytes of the input read, bytes in all, rows so far).
    pub watch: &'a mut Watch<'w>,
}

impl std::fmt::Debug for Making<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Making").field("restart", &self.restart).field("mark_every", &self.mark_every).finish_non_exhaustive()
    }
}

/// Prepares `data.files` into the folder `out`, which must not exist or be empty. The work is done in `OUT.partial`;
/// when that holds the beginning of the same preparation, it goes on from there, and the bytes are those of one that was
/// never interrupted. `modulo_rows` and `max_rows` are as in [`dataset::open`].
///
/// # Errors
/// As [`dataset::open`]; a folder in use, the beginning of another preparation, [`Error::Interrupted`].
pub fn to_folder(
    data: &Data,
    schema: &Schema,
    modulo_rows: Option<&[u64]>,
    max_rows: Option<u64>,
    out: &Path,
    making: Making<'_, '_>,
) -> Result<Prepared> {
    if out.join(META).exists() {
        return Err(Error::Config(format!("`{}` holds prepared data already; remove it or give another --out", out.display())));
    }
    match std::fs::read_dir(out).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Err(Error::Config(format!("`{}` is not empty; give another --out", out.display()))),
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("read", out)(e)),
        _ => {}
    }
    let mapper = dataset::new_mapper(data, schema, modulo_rows, max_rows)?;
    let job = Job::new(data, schema, &mapper, max_rows)?;
    let work = partial::name(out);
    std::fs::create_dir_all(&work).map_err(Error::io("create", &work))?;
    let lock = File::create(work.join(LOCK)).map_err(Error::io("create", work.join(LOCK)))?;
    match lock.try_lock() {
        Err(std::fs::TryLockError::WouldBlock) => {
            return Err(Error::Config(format!("another program is writing `{}`", work.display())));
        }
        // a file system without locks
        Err(std::fs::TryLockError::Error(_)) | Ok(()) => {}
    }
    if making.restart {
        remove(&work, progress::PROGRESS)?;
    }
    let mark_every = Some(making.mark_every.unwrap_or(MARK));
    job.run(mapper, &work, &mut Control { watch: making.watch, stop: making.stop, mark_every })?;
    for name in [progress::PROGRESS, progress::KEYS, LOCK] {
        remove(&work, name)?;
    }
    drop(lock);
    // an empty folder may stand in the way
    let _ = std::fs::remove_dir(out);
    std::fs::rename(&work, out).map_err(Error::io("rename to", out))?;
    prepare::sync_parent(out)?;
    dataset::open_folder(out)
}

fn remove(dir: &Path, name: &str) -> Result<()> {
    match std::fs::remove_file(dir.join(name)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", dir.join(name))(e)),
        _ => Ok(()),
    }
}
