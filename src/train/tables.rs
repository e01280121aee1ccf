//! A session with its tables where the settings want them.

use super::{Assembled, Event, Options, Start};
use crate::config::{Config, Shape, TablePlace};
use crate::error::Result;
use crate::host_tables::HostTables;
use crate::session::{Loading, RowLayout, Session};
use crate::tuning_file::{Found, Tuner};
use std::path::Path;

/// Loads a session as `loading` says; tables on the host get a file in `model.table_dir`, or in the run's folder `dir`.
pub(super) fn load(shape: &Shape, config: &Config, max_bag: &[usize], dir: &Path, mut loading: Loading<'_>) -> Result<Session> {
    if config.model.tables == TablePlace::Host {
        let dir = config.model.table_dir.as_deref().map_or(dir, Path::new);
        loading.store = Some(Box::new(HostTables::create(dir, RowLayout::of(shape, config))?));
    }
    pollster::block_on(Session::load_with(shape, config, max_bag, loading))
}

/// Loads the session of a run, tuned as its options say.
pub(super) fn load_for_run(
    config: &Config,
    data: &Assembled,
    options: &Options<'_>,
    observe: &mut dyn FnMut(&Event<'_>),
) -> Result<(Session, Found)> {
    let mut progress = |done, total| observe(&Event::Preparing { what: "kernels", done: done as u64, total: total as u64 });
    let mut tuner = Tuner::new(&options.tuning, &mut progress);
    if options.start == Start::Resume {
        tuner.resume(&options.dir);
    }
    let loading = Loading { profile: options.profile > 0, chooser: Some(&mut tuner), ..Loading::default() };
    let session = load(&data.shape, config, data.samples.max_bag(), &options.dir, loading)?;
    let found = tuner.found;
    found.warnings.iter().for_each(|text| observe(&Event::Warning(text)));
    Ok((session, found))
}
