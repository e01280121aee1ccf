//! How long a training step should take on a device whose ceilings are known: for every command the longer of its bytes
//! at the speed of a copy and its operations at the speed of a large matrix product, and for each dispatch what a
//! dispatch costs. Real steps differ: small products do not reach the speed of a large one, what a cache holds is faster
//! than memory, and rows that lie far apart are slower than a copy.

use super::Ceiling;
use crate::data::Batch;
use crate::ops::{Cost, Live, cost};
use crate::plan::Plan;
use crate::step::phase;

/// What a step moves and computes.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub struct StepCost {
    /// Commands.
    pub dispatches: u64,
    /// Bytes that commands read and write.
    pub bytes: u64,
    /// Operations on floats.
    pub flops: u64,
    /// Bytes of the batch, and of its rows with tables on the host.
    pub upload_bytes: u64,
    /// Bytes of rows that come back, with tables on the host.
    pub returned_bytes: u64,
    /// Bytes of embedding rows that are looked up and updated, and of their state.
    pub row_bytes: u64,
}

/// The time of a step in parts, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub struct Predicted {
    /// The sum over commands.
    pub commands: f64,
    /// Dispatches.
    pub dispatches: f64,
    /// The batch's way to the device.
    pub upload: f64,
    /// The way back of rows, with tables on the host.
    pub returned: f64,
    /// The scale refresh, spread over the steps between two.
    pub refresh: f64,
}

impl Predicted {
    /// All of it.
    pub fn seconds(&self) -> f64 {
        self.commands + self.dispatches + self.upload + self.returned + self.refresh
    }
}

/// Bytes that a training step's batch has on its way to the device, and bytes of rows that come back. `hosted` is the
/// number of values of a row, weights and state, of tables on the host.
pub fn moved(batch: &Batch, hosted: Option<usize>) -> (u64, u64) {
    let lists = [&batch.bag_offsets, &batch.bag_rows, &batch.row_tables, &batch.row_offsets, &batch.row_samples];
    let words = lists.iter().map(|list| list.len()).sum::<usize>() + batch.dense.len() + batch.labels.len();
    match hosted {
        None => (4 * (words + batch.rows.len() + batch.shard_offsets.len()) as u64, 0),
        // numbered through, the rows need no list of places
        Some(width) => (4 * (words + 2 + batch.touched() * width) as u64, 4 * (batch.touched() * width) as u64),
    }
}

/// What the commands of a step work on; a step's rows of tables on the host lie in one shard.
fn live(batch: &Batch, hosted: Option<usize>) -> Live<'_> {
    let live = Live::of(batch);
    if hosted.is_some() { Live { shard_offsets: &[], ..live } } else { live }
}

/// The phases of a training step without workers.
fn in_step(name: &str) -> bool {
    [phase::GRADIENTS, phase::ROWS, phase::BOTTOM, phase::UPDATE, phase::LEARN].contains(&name)
}

/// Cost of one training step of `plan` with `batch`, the refresh of scales apart; `hosted` as in [`moved`].
pub fn step_cost(plan: &Plan, batch: &Batch, hosted: Option<usize>) -> StepCost {
    let live = live(batch, hosted);
    let (upload_bytes, returned_bytes) = moved(batch, hosted);
    let mut sum = StepCost { upload_bytes, returned_bytes, ..StepCost::default() };
    for command in plan.phases.iter().filter(|p| in_step(p.name)).flat_map(|p| &p.commands) {
        let Cost { bytes, flops } = cost(command, &live);
        sum.dispatches += 1;
        sum.bytes += bytes;
        sum.flops += flops;
        if command.kernel.name.starts_with("gather_") || command.kernel.op == "row_update" {
            sum.row_bytes += bytes;
        }
    }
    sum
}

/// Predicts a training step of `plan` with `batch`. `refresh_every` is the number of steps between two refreshes, `hosted` as in
/// [`moved`]: rows of tables on the host come back as quickly as they go.
pub fn predict(plan: &Plan, batch: &Batch, hosted: Option<usize>, refresh_every: Option<u64>, ceiling: &Ceiling) -> Predicted {
    let live = live(batch, hosted);
    let (upload, returned) = moved(batch, hosted);
    let [upload, returned] = [upload, returned].map(|bytes| bytes as f64 / ceiling.upload_bytes_per_second);
    let mut predicted = Predicted { upload, returned, ..Predicted::default() };
    for phase in &plan.phases {
        let seconds: f64 = phase.commands.iter().map(|c| ceiling.seconds(cost(c, &live))).sum();
        let dispatches = phase.commands.len() as f64 * ceiling.dispatch_seconds;
        if in_step(phase.name) {
            predicted.commands += seconds;
            predicted.dispatches += dispatches;
        } else if let Some(every) = refresh_every.filter(|_| phase.name == phase::REFRESH) {
            predicted.refresh += (seconds + dispatches) / every.max(1) as f64;
        }
    }
    predicted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Model};
    use crate::data::Block;
    use crate::session::Session;
    use crate::tables::Tables;

    fn ceiling() -> Ceiling {
        Ceiling {
            bytes_per_second: 1e9,
            flops_per_second: 1e10,
            side: 512,
            copied: 1,
            dispatch_seconds: 1e-5,
            submission_seconds: 1e-4,
            upload_bytes_per_second: 1e8,
        }
    }

    #[test]
    fn a_command_takes_the_longer_of_its_two_times() {
        let c = ceiling();
        assert_eq!(c.seconds(Cost { bytes: 2_000_000_000, flops: 10_000_000_000 }), 2.0);
        assert_eq!(c.seconds(Cost { bytes: 1, flops: 30_000_000_000 }), 3.0);
    }

    #[test]
    fn a_step_is_the_sum_of_its_commands_and_a_part_of_the_refresh() {
        let shape = Model { rows: Some(vec![9, 5000]), ..Model::default() }.shape(None, None).unwrap();
        let config = Config::default();
        let tables = Tables::new(&shape.rows, shape.dim, u64::MAX).unwrap();
        let plan = crate::step::record(&shape, &config, &tables, &[1, 1], Session::RING).plan;
        let block =
            Block { samples: 2, dense: vec![0.0; 2 * shape.dense], labels: vec![0.0; 2], offsets: (0..=4).collect(), ids: vec![1; 4] };
        let batch = Batch::prepare(&block, &tables).unwrap();
        let cost = step_cost(&plan, &batch, None);
        let count = |name: &str| plan.phases.iter().find(|p| p.name == name).unwrap().commands.len() as u64;
        assert_eq!(cost.dispatches, count(phase::GRADIENTS) + count(phase::UPDATE));
        // Two rows, each gathered (2 D + 2) and updated (3 D + 1).
        assert_eq!(cost.row_bytes, 4 * 2 * (5 * shape.dim as u64 + 3));
        assert_eq!(cost.upload_bytes, 4 * (2 * shape.dense as u64 + 2 + 5 + 4 + 2 + 2 + 2 + 3 + 4));
        let predicted = predict(&plan, &batch, None, Some(200), &ceiling());
        assert!((predicted.dispatches - 1e-5 * cost.dispatches as f64).abs() < 1e-9);
        assert!(predicted.commands >= cost.bytes as f64 / 1e9 && predicted.commands <= cost.bytes as f64 / 1e9 + cost.flops as f64 / 1e10);
        let table_bytes = 4.0 * 5009.0 * shape.dim as f64;
        assert!(predicted.refresh > table_bytes / 1e9 / 200.0 && predicted.refresh < 3e-6, "{predicted:?}");
        assert_eq!(predict(&plan, &batch, None, None, &ceiling()).refresh, 0.0);
    }
}
