//! A session with its tables where the settings want them.

use super::{Assembled, Event, Options, Start};
use crate::computer;
use crate::config::{Config, Shape, TablePlace};
use crate::error::Result;
use crate::host_tables::HostTables;
use crate::session::{Loading, RowLayout, Session};
use crate::tune::Chooser;
use crate::tuning_file::{Found, Tuner};
use std::path::Path;

/// Bytes of all rows with their state.
pub(super) fn bytes(layout: &RowLayout) -> u64 {
    layout.total_rows().saturating_mul(4 * layout.width() as u64)
}

/// Whether tables on the host are kept in memory, of which `available` bytes can be had: where nobody named a folder for a
/// file, and as much again stays for all else.
pub(super) fn in_memory(layout: &RowLayout, config: &Config, available: Option<u64>) -> bool {
    config.model.table_dir.is_none() && available.is_some_and(|available| bytes(layout) <= available / 2)
}

/// Loads a session as `loading` says; tables on the host that are not kept in memory get a file in `model.table_dir`, or in
/// the run's folder `dir`.
pub(super) fn load(shape: &Shape, config: &Config, max_bag: &[usize], dir: &Path, mut loading: Loading<'_>) -> Result<Session> {
    if config.model.tables == TablePlace::Host {
        let layout = RowLayout::of(shape, config);
        let store = if in_memory(&layout, config, computer::available()) {
            HostTables::in_memory(layout)?
        } else {
            HostTables::create(config.model.table_dir.as_deref().map_or(dir, Path::new), layout)?
        };
        loading.store = Some(Box::new(store));
    }
    pollster::block_on(Session::load_with(shape, config, max_bag, loading))
}

/// Loads the session of a run, tuned as its options say; with workers it is not tuned, and no file of tuning is read.
pub(super) fn load_for_run(
    config: &Config,
    data: &Assembled,
    options: &Options<'_>,
    observe: &mut dyn FnMut(&Event<'_>),
) -> Result<(Session, Found)> {
    let mut progress = |done, total| observe(&Event::Preparing { what: "kernels", done: done as u64, total: total as u64 });
    let mut tuner = Tuner::new(&options.tuning, &mut progress);
    if options.start == Start::Resume && !config.workers.on() {
        tuner.resume(&options.dir);
    }
    let chooser: Option<&mut dyn Chooser> = if config.workers.on() { None } else { Some(&mut tuner) };
    let loading = Loading { profile: options.profile > 0, chooser, ..Loading::default() };
    let session = load(&data.shape, config, data.samples.max_bag(), &options.dir, loading)?;
    let found = tuner.found;
    found.warnings.iter().for_each(|text| observe(&Event::Warning(text)));
    Ok((session, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_taken_where_it_suffices_twice_and_nobody_wants_a_file() {
        let layout = RowLayout { rows: vec![10, 15], dim: 8, state: 2 };
        let mut config = Config::default();
        assert_eq!(bytes(&layout), 1000);
        let answers = [None, Some(1999), Some(2000)].map(|available| in_memory(&layout, &config, available));
        assert_eq!(answers, [false, false, true]);
        config.model.table_dir = Some("x".into());
        assert!(!in_memory(&layout, &config, Some(1 << 40)));
    }
}
