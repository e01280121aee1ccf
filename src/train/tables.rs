//! A session with its tables where the settings want them.

use crate::config::{Config, Shape, TablePlace};
use crate::error::Result;
use crate::host_tables::HostTables;
use crate::session::{RowLayout, Session};
use std::path::Path;

/// Loads a session, with `profile` for times of commands; tables on the host get a file in `model.table_dir`, or in the run's folder `dir`.
pub(super) fn load(shape: &Shape, config: &Config, max_bag: &[usize], dir: &Path, profile: bool) -> Result<Session> {
    if config.model.tables == TablePlace::Device {
        return match profile {
            true => pollster::block_on(Session::load_profiled(shape, config, max_bag)),
            false => pollster::block_on(Session::load(shape, config, max_bag)),
        };
    }
    let dir = config.model.table_dir.as_deref().map_or(dir, Path::new);
    let store = HostTables::create(dir, RowLayout::of(shape, config))?;
    pollster::block_on(Session::load_hosted(shape, config, max_bag, Box::new(store), profile))
}
