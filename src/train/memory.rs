//! Whether the tables fit this computer, asked before anything is allocated: an operating system that
//! promises more memory than it has would end the program in the middle of a run.

use crate::config::{Config, Device, RowOptimizer, Shape};
use crate::error::{Error, Result};

/// This computer's memory in bytes, on Linux.
pub fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Refuses tables beyond `limit` bytes when the CPU engine would hold them.
///
/// # Errors
/// [`Error::Limit`] with both sizes.
pub(super) fn check(shape: &Shape, config: &Config, limit: Option<u64>) -> Result<()> {
    let copies = if config.optim.embedding == RowOptimizer::Adagrad { 2 } else { 1 };
    let needed = 4 * shape.embedding_parameters() * copies;
    let Some(limit) = limit.filter(|&limit| needed > limit) else { return Ok(()) };
    let on_cpu = match config.device {
        Device::Cpu => true,
        Device::Auto => pollster::block_on(crate::session::adapters()).iter().any(|a| a.chosen_by_auto && a.backend == "cpu"),
        _ => false,
    };
    if !on_cpu {
        return Ok(());
    }
    Err(Error::Limit {
        what: "the embedding tables in FP32".into(),
        needed,
        limit_name: "the memory",
        limit,
        adapter: "this computer".into(),
        hint: "limit the rows of a table (--max-rows), use fewer ids or another optimizer, or a GPU with more memory",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Model, Preset};

    #[test]
    fn tables_beyond_the_memory_are_refused_with_both_sizes() {
        let shape = Model { preset: Preset::Kaggle, ..Model::default() }.shape(None, None).unwrap();
        let mut config = Config { device: Device::Cpu, ..Config::default() };
        assert!(check(&shape, &config, None).is_ok() && check(&shape, &config, Some(2_160_804_928)).is_ok());
        let text = check(&shape, &config, Some(2_000_000_000)).unwrap_err().to_string();
        assert!(text.contains("2160804928") && text.contains("2000000000") && text.contains("--max-rows"), "{text}");
        config.optim.embedding = RowOptimizer::Adagrad;
        assert!(check(&shape, &config, Some(2_160_804_928)).is_err(), "Adagrad's state counts too");
    }
}
