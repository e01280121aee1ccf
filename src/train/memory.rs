//! Whether the model fits this computer, asked before anything is allocated: an operating system that
//! promises more memory than it has would end the program in the middle of a run.

use crate::config::{Config, DenseOptimizer, Device, RowOptimizer, Shape, TablePlace};
use crate::error::{Error, Result};

/// What the tables and the state of their optimizer take, in bytes.
fn tables(shape: &Shape, config: &Config) -> u64 {
    if config.model.tables == TablePlace::Host {
        return 0; // they lie in memory that is free, or in a file, whose room is asked for when it is made
    }
    let copies = if config.optim.embedding == RowOptimizer::Adagrad { 2 } else { 1 };
    shape.embedding_parameters().saturating_mul(4 * copies)
}

/// What the rest takes at least, in bytes: the MLPs with their gradients, state and quantized copy, the
/// values between layers for as many samples as a step has, and the ids.
pub(super) fn rest(shape: &Shape, config: &Config, max_bag: &[usize]) -> u64 {
    let states = match config.optim.dense {
        DenseOptimizer::Sgd => 0,
        DenseOptimizer::Adagrad => 1,
        DenseOptimizer::Adam => 2,
    };
    let copies = 2 + states + u64::from(config.quant.mlp_bits.quantized());
    let pooled = (shape.tables() as u64).saturating_mul(shape.dim as u64);
    let layers = shape.bottom.iter().chain(&shape.top).fold(0u64, |sum, &width| sum.saturating_add(width as u64));
    let ids = max_bag.iter().fold(0u64, |sum, &bag| sum.saturating_add(bag as u64));
    let train = (config.train.batch as u64).saturating_mul(pooled.saturating_add(layers).saturating_add(ids));
    let evaluate = (config.train.eval_batch as u64).saturating_mul(pooled.saturating_add(ids));
    shape.mlp_parameters().saturating_mul(copies).saturating_add(train.max(evaluate)).saturating_mul(4)
}

/// Refuses a model beyond `limit` bytes when the CPU engine would hold it. `max_bag` is the most ids that
/// a bag of each table may have.
///
/// # Errors
/// [`Error::Limit`] with both sizes.
pub(super) fn check(shape: &Shape, config: &Config, max_bag: &[usize], limit: Option<u64>) -> Result<()> {
    let tables = tables(shape, config);
    let needed = tables.saturating_add(rest(shape, config, max_bag));
    let Some(limit) = limit.filter(|&limit| needed > limit) else { return Ok(()) };
    let on_cpu = match config.device {
        Device::Cpu => true,
        Device::Auto => pollster::block_on(crate::session::adapters()).iter().any(|a| a.chosen_by_auto && a.backend == "cpu"),
        _ => false,
    };
    if !on_cpu {
        return Ok(());
    }
    let (what, needed, hint) = if tables > limit {
        let hint = "keep them on the host, in a file if need be (--tables host), limit the rows of a table (--max-rows), use fewer ids or another optimizer, or a GPU with more memory";
        ("the embedding tables in FP32", tables, hint)
    } else {
        let hint = "use smaller batches (--batch, train.eval_batch), narrower layers or fewer rows (--max-rows), or a GPU with more memory";
        ("the model with the values of one step", needed, hint)
    };
    Err(Error::Limit { what: what.into(), needed, limit_name: "the memory", limit, adapter: "this computer".into(), hint })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Model, Preset};

    #[test]
    fn tables_beyond_the_memory_are_refused_with_both_sizes() {
        let shape = Model { preset: Preset::Kaggle, ..Model::default() }.shape(None, None).unwrap();
        let mut config = Config { device: Device::Cpu, ..Config::default() };
        let bags = [1; 26];
        let check = |config: &Config, limit| check(&shape, config, &bags, limit);
        assert!(check(&config, None).is_ok() && check(&config, Some(2_200_000_000)).is_ok());
        let text = check(&config, Some(2_000_000_000)).unwrap_err().to_string();
        assert!(text.contains("2160804928") && text.contains("2000000000") && text.contains("--max-rows"), "{text}");
        config.optim.embedding = RowOptimizer::Adagrad;
        assert!(check(&config, Some(2_200_000_000)).is_err(), "Adagrad's state counts too");
        config.model.tables = TablePlace::Host;
        assert!(check(&config, Some(100_000_000)).is_ok(), "tables on the host go to a file if need be");
    }

    #[test]
    fn layers_and_batches_count_too() {
        let config = Config { device: Device::Cpu, ..Config::default() };
        let refused = |model: &Model, config: &Config, bags: &[usize]| {
            let shape = model.shape(None, None).unwrap();
            let text = check(&shape, config, bags, Some(1 << 30)).unwrap_err().to_string();
            assert!(text.contains("the model with the values of one step: needs ") && text.contains("smaller batches"), "{text}");
        };
        let small = Model { rows: Some(vec![9]), ..Model::default() };
        assert!(check(&small.shape(None, None).unwrap(), &config, &[1], Some(1 << 30)).is_ok());
        refused(&Model { bottom: Some(vec![1 << 20, 1 << 10, 8]), ..small.clone() }, &config, &[1]);
        let mut large = config.clone();
        large.train.batch = 1 << 20;
        refused(&Model { bottom: Some(vec![1 << 10, 8]), ..small.clone() }, &large, &[1]);
        let mut large = config.clone();
        large.train.eval_batch = 1 << 20;
        refused(&small, &large, &[65_536]);
        refused(&small, &large, &[usize::MAX]);
    }
}
