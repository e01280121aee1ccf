//! A session with its tables where the settings want them.

use crate::computer;
use crate::config::{Config, Shape, TablePlace};
use crate::error::Result;
use crate::host_tables::HostTables;
use crate::session::{RowLayout, Session};
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

/// Loads a session, with `profile` for times of commands; tables on the host that are not kept in memory get a file in
/// `model.table_dir`, or in the run's folder `dir`.
pub(super) fn load(shape: &Shape, config: &Config, max_bag: &[usize], dir: &Path, profile: bool) -> Result<Session> {
    if config.model.tables == TablePlace::Device {
        return match profile {
            true => pollster::block_on(Session::load_profiled(shape, config, max_bag)),
            false => pollster::block_on(Session::load(shape, config, max_bag)),
        };
    }
    let layout = RowLayout::of(shape, config);
    let store = if in_memory(&layout, config, computer::available()) {
        HostTables::in_memory(layout)?
    } else {
        HostTables::create(config.model.table_dir.as_deref().map_or(dir, Path::new), layout)?
    };
    pollster::block_on(Session::load_hosted(shape, config, max_bag, Box::new(store), profile))
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
