//! A session with its tables where the settings want them.

use super::{Assembled, Event, Options, Start, memory};
use crate::computer;
use crate::config::{Config, Shape, TablePlace};
use crate::error::Result;
use crate::host_tables::{self, HostTables};
use crate::session::{Loading, RowLayout, Session};
use crate::tune::Chooser;
use crate::tuning_file::{Found, Tuner};
use std::path::Path;

/// Bytes of all rows with their state.
pub(super) fn bytes(layout: &RowLayout) -> u64 {
    layout.total_rows().saturating_mul(4 * layout.width() as u64)
}

/// Whether tables on the host are kept in memory, of which `available` bytes can be had: where nobody named a folder for a
/// file, and as much again stays for all else, and what else the model needs fits in it, which a device may hold.
pub(super) fn in_memory(shape: &Shape, config: &Config, max_bag: &[usize], available: Option<u64>) -> bool {
    let tables = bytes(&RowLayout::of(shape, config));
    let fits = |available: u64| tables <= available / 2 && memory::rest(shape, config, max_bag) <= available - tables;
    config.model.table_dir.is_none() && available.is_some_and(fits)
}

/// Tables on the host, of which `available` bytes of memory can be had. Where they should be in memory and the system refuses
/// it, they get a file too.
///
/// # Errors
/// A disk without room, a folder that cannot be written, a thread that cannot be started.
fn on_host(shape: &Shape, config: &Config, max_bag: &[usize], dir: &Path, available: Option<u64>) -> Result<HostTables> {
    let layout = RowLayout::of(shape, config);
    if in_memory(shape, config, max_bag, available)
        && let Ok(store) = HostTables::in_memory(layout.clone())
    {
        return Ok(store);
    }
    let held = host_tables::bytes_held(&layout, available);
    HostTables::create_holding(config.model.table_dir.as_deref().map_or(dir, Path::new), layout, held)
}

/// Loads a session as `loading` says; tables on the host that are not kept in memory get a file in `model.table_dir`, or in
/// the run's folder `dir`.
///
/// # Errors
/// As [`Session::load_with`]; no room for the tables on the host.
pub(super) fn load(shape: &Shape, config: &Config, max_bag: &[usize], dir: &Path, mut loading: Loading<'_>) -> Result<Session> {
    if config.model.tables == TablePlace::Host {
        loading.store = Some(Box::new(on_host(shape, config, max_bag, dir, computer::available())?));
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
    use crate::config::Model;
    use crate::session::RowStore;

    /// Tables on the host with the shape of their model.
    fn hosted(rows: &[u64]) -> (Shape, Config) {
        let model = Model { tables: TablePlace::Host, rows: Some(rows.to_vec()), ..Model::default() };
        let mut config = Config { model, ..Config::default() };
        (config.train.batch, config.train.eval_batch) = (1, 1);
        (config.model.shape(None, None).unwrap(), config)
    }

    #[test]
    fn memory_is_taken_where_it_suffices_twice_and_nobody_wants_a_file() {
        let (shape, mut config) = hosted(&[100_000, 150_000]);
        let tables = bytes(&RowLayout::of(&shape, &config));
        assert!(memory::rest(&shape, &config, &[1; 2]) < tables / 2);
        let in_memory = |config: &Config, available| in_memory(&shape, config, &[1; 2], available);
        assert_eq!([None, Some(0), Some(2 * tables - 1), Some(2 * tables)].map(|a| in_memory(&config, a)), [false, false, false, true]);
        config.train.batch = 1 << 16;
        let rest = memory::rest(&shape, &config, &[1; 2]);
        assert!(rest > tables);
        let answers = [2 * tables, tables + rest - 1, tables + rest].map(|a| in_memory(&config, Some(a)));
        assert_eq!(answers, [false, false, true], "what else is needed has to fit too");
        config.model.table_dir = Some("x".into());
        assert!(!in_memory(&config, Some(1 << 40)));
    }

    #[test]
    fn tables_that_the_system_gives_no_memory_for_get_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let place = |rows: &[u64], available| {
            let (mut shape, config) = hosted(&[9]);
            shape.rows = rows.to_vec();
            on_host(&shape, &config, &vec![1; rows.len()], dir.path(), available).map(|store| store.place()).map_err(|e| e.to_string())
        };
        assert_eq!(place(&[9, 70], Some(1 << 30)).unwrap(), "memory");
        assert_eq!(place(&[9, 70], None).unwrap(), "a file");
        let text = place(&[1 << 50], Some(u64::MAX)).unwrap_err();
        assert!(text.contains("the free space") && text.contains("--table-dir"), "no memory, so the file is tried: {text}");
    }
}
