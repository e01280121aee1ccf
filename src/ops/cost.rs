//! What a command costs: the bytes that it must move at least, and the arithmetic of its formula. Rates of a kernel
//! (GB/s, GFLOP/s) and predictions are made from these, so they count what the mathematics asks for and not what an
//! implementation happens to do: an operand that is read again from a cache counts once, and rounding, comparing and
//! index arithmetic count nothing.
//!
//! A product and its addition are two operations. B samples, K tables, D wide rows, I ids, U touched rows.
//!
//! | kernels | bytes / 4 | operations |
//! |---|---|---|
//! | `matmul_*`, inputs i, outputs o | B i + i o + B o, once more B i for a gate, o for a bias | 2 B i o |
//! | `packed_matmul` | as above with the packed words in place of i o | 2 B i o |
//! | `bias_gradient` | B o + o | B o |
//! | `interaction_forward`, P pairs | B ((K + 1) D + width) | 2 B P D |
//! | `interaction_backward` | B (2 (K + 1) D + width) | 4 B P D |
//! | `concat_*` | 2 B (K + 1) D | |
//! | gathers of rows | U (2 D + 2), packed rows as they are | |
//! | `pool_bags` | I D + I + B K (D + 1) | I D |
//! | `bag_gradient` | I D + I + U (D + 2) | I D |
//! | `row_sgd`, `row_adagrad`, `row_rwsadagrad` | U (3 D + 1), U (5 D + 1), U (3 D + 3) | 2 U D, 5 U D, 4 U D |
//! | `dense_sgd`, `dense_adagrad`, `dense_adam`, n values | 3 n, 5 n, 7 n | 2 n, 5 n, 11 n |
//! | any other | all values bound, those changed in place twice | |

use super::case::Case;
use super::concat::ConcatParams;
use super::embedding_bag::{BagGradientParams, PoolParams};
use super::gradient_codes::RowCodesParams;
use super::interaction::InteractionParams;
use super::matmul::MatmulParams;
use super::packed_bag::GatherPackedParams;
use super::packed_matmul::PackedMatmulParams;
use super::row_update::RowParams;
use super::{lsq, table_scale};
use crate::data::Batch;
use crate::plan::{Access, Command, Kernel};
use bytemuck::Pod;

/// Bytes that must be read or written, and arithmetic operations on floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Bytes read and bytes written, together.
    pub bytes: u64,
    /// Additions, multiplications, divisions and roots.
    pub flops: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.bytes += other.bytes;
        self.flops += other.flops;
    }
}

/// What a step works on; plans are recorded for the largest.
#[derive(Debug, Clone, Copy)]
pub struct Live<'a> {
    /// B
    pub samples: u64,
    /// I
    pub ids: u64,
    /// U
    pub touched: u64,
    /// Where each shard's rows begin among the touched ones, `[S + 1]`. Empty: all lie in the shard that is asked about.
    pub shard_offsets: &'a [u32],
}

impl<'a> Live<'a> {
    /// Of a batch.
    pub fn of(batch: &'a Batch) -> Live<'a> {
        Live {
            samples: batch.samples as u64,
            ids: batch.row_samples.len() as u64,
            touched: batch.touched() as u64,
            shard_offsets: &batch.shard_offsets,
        }
    }

    /// Touched rows of one shard.
    fn in_shard(&self, shard: u32) -> u64 {
        let border = |i: usize| self.shard_offsets.get(i).map(|&o| u64::from(o));
        match (border(shard as usize), border(shard as usize + 1)) {
            (Some(first), Some(end)) => end - first,
            _ => self.touched,
        }
    }
}

/// The cost of a command in a step.
pub fn cost(command: &Command, live: &Live<'_>) -> Cost {
    let of = match command.kernel.op {
        "matmul" | "packed_matmul" => products(command, live),
        "interaction" | "concat" => interaction(command, live),
        "embedding_bag" | "packed_bag" | "row_scale" | "dorefa" => rows(command, live),
        "row_update" | "dense_update" => updates(command, live),
        _ => others(command, live),
    };
    of.unwrap_or(Cost { bytes: 4 * bound(command), flops: 0 })
}

/// The parameters, where the kernel has these.
fn params<P: Pod>(command: &Command) -> Option<P> {
    (command.params.len() == size_of::<P>()).then(|| bytemuck::pod_read_unaligned(&command.params))
}

/// Values of all views, those changed in place twice.
fn bound(command: &Command) -> u64 {
    let times = |access| if access == Access::Update { 2 } else { 1 };
    command.kernel.bindings.iter().zip(&command.views).map(|(b, v)| times(b.access) * v.len as u64).sum()
}

fn words(values: u64, flops: u64) -> Option<Cost> {
    Some(Cost { bytes: 4 * values, flops })
}

fn products(command: &Command, live: &Live<'_>) -> Option<Cost> {
    let (b, name) = (live.samples, command.kernel.name);
    if let Some(p) = params::<PackedMatmulParams>(command) {
        let (i, o) = (u64::from(p.inputs), u64::from(p.outputs));
        return words(b * i + o * u64::from(p.words) + b * o + 2 * o, 2 * b * i * o);
    }
    let p: MatmulParams = params(command)?;
    let (i, o) = (u64::from(p.inputs), u64::from(p.outputs));
    if name.starts_with("bias_gradient") {
        return words(b * o + o, b * o);
    }
    let gate = if name.contains("gated") { b * i } else { 0 };
    let bias = if name.contains("_nt") { o } else { 0 };
    words(b * i + i * o + b * o + gate + bias, 2 * b * i * o)
}

fn interaction(command: &Command, live: &Live<'_>) -> Option<Cost> {
    let backward = command.kernel.name.contains("backward");
    if let Some(p) = params::<InteractionParams>(command) {
        let (vectors, dim) = (u64::from(p.tables) + 1, u64::from(p.dim));
        let pairs = vectors * (vectors - 1) / 2 + if p.diagonal != 0 { vectors } else { 0 };
        let times = if backward { 2 } else { 1 };
        let values = live.samples * (times * vectors * dim + dim + pairs);
        return words(values, 2 * times * live.samples * pairs * dim);
    }
    let p: ConcatParams = params(command)?;
    words(2 * live.samples * u64::from(p.tables + 1) * u64::from(p.dim), 0)
}

fn rows(command: &Command, live: &Live<'_>) -> Option<Cost> {
    let name = command.kernel.name;
    if name.starts_with("pool_bags") {
        let p: PoolParams = params(command)?;
        let (bags, dim) = (live.samples * u64::from(p.tables), u64::from(p.dim));
        return words(live.ids * (dim + 1) + bags * (dim + 1), live.ids * dim);
    }
    if name.starts_with("bag_gradient") {
        let dim = u64::from(params::<BagGradientParams>(command)?.dim);
        return words(live.ids * (dim + 1) + live.touched * (dim + 2), live.ids * dim);
    }
    if let Some(p) = params::<GatherPackedParams>(command).filter(|_| name.starts_with("gather_packed")) {
        let row = u64::from(p.row_bytes) + 4 * u64::from(p.dim) + 8;
        return Some(Cost { bytes: live.in_shard(p.shard) * row, flops: 0 });
    }
    // The parameters of every gather begin with the width and the shard.
    let [dim, shard] = name.starts_with("gather_").then(|| leading(command))??;
    words(live.in_shard(shard) * (2 * u64::from(dim) + 2), 0)
}

/// The first two parameters.
fn leading(command: &Command) -> Option<[u32; 2]> {
    command.params.get(..8).map(bytemuck::pod_read_unaligned)
}

fn updates(command: &Command, live: &Live<'_>) -> Option<Cost> {
    let operations = |name: &str| match name {
        n if n.contains("rwsadagrad") => 4,
        n if n.contains("adagrad") => 5,
        n if n.contains("adam") => 11,
        _ => 2,
    };
    let flops = operations(command.kernel.name);
    if command.kernel.op == "dense_update" {
        return words(bound(command), flops * command.views.first()?.len as u64);
    }
    let p: RowParams = params(command)?;
    let (rows, dim) = (live.in_shard(p.shard), u64::from(p.dim));
    let state = match flops {
        5 => 2 * dim,
        4 => 2,
        _ => 0,
    };
    words(rows * (3 * dim + 1 + state), flops * rows * dim)
}

/// Kernels that see a part of what is bound.
fn others(command: &Command, live: &Live<'_>) -> Option<Cost> {
    match command.kernel.name {
        "table_absmax" => words(u64::from(params::<table_scale::AbsmaxParams>(command)?.count), 0),
        "table_scale" => words(u64::from(params::<table_scale::TableScaleParams>(command)?.count) + 1, 0),
        "abs_sums" => {
            let n = u64::from(params::<lsq::AbsSumParams>(command)?.count);
            words(n, n)
        }
        "step_sizes" => {
            let p: lsq::StepSizeParams = params(command)?;
            words(u64::from(p.scales) * (u64::from(p.count) + 1), 0)
        }
        "lsq_row_gradient" => {
            let p: lsq::LsqRowParams = params(command)?;
            let (rows, dim) = (live.in_shard(p.shard), u64::from(p.dim));
            words(rows * (3 * dim + 3), 3 * rows * dim)
        }
        "lsq_table_gradient" => words(2 * live.touched, live.touched),
        "loss_gradient" => words(5 * live.samples, 8 * live.samples),
        "mean_loss" => words(live.samples, live.samples),
        "row_gradient_scale" => words(live.touched * (leading(command)?[0] as u64 + 1), 0),
        "row_gradient_codes" => {
            let p: RowCodesParams = params(command)?;
            let values = live.touched * u64::from(p.dim);
            Some(Cost { bytes: 4 * (values + live.touched) + (values * u64::from(p.bits)).div_ceil(8), flops: 0 })
        }
        _ => None,
    }
}

impl Case {
    /// What all commands of this case with `kernel` cost together.
    pub fn work(&self, kernel: &Kernel) -> Cost {
        let input = |name: &str| self.inputs.iter().find(|(view, _)| self.plan.buffers[view.buffer.0].name == name);
        let live = Live {
            samples: u64::from(self.step.batch),
            ids: input("row_samples").map_or(0, |(view, _)| view.len as u64),
            touched: u64::from(self.step.touched),
            shard_offsets: input("shard_offsets").map_or(&[], |(_, words)| words),
        };
        let mut sum = Cost::default();
        let commands = self.plan.phases.iter().flat_map(|phase| &phase.commands);
        commands.filter(|command| command.kernel == kernel).for_each(|command| sum += cost(command, &live));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::super::{copy, embedding_bag, interaction, matmul, row_update, table_scale};
    use super::*;
    use crate::config::RowOptimizer;
    use crate::tables::Tables;

    fn of(case: &Case, kernel: &str, live: &Live<'_>) -> Cost {
        let command = case.plan.phases[0].commands.iter().find(|c| c.kernel.name == kernel);
        cost(command.unwrap_or_else(|| panic!("no `{kernel}` in {}", case.plan)), live)
    }

    fn samples(samples: u64) -> Live<'static> {
        Live { samples, ids: 0, touched: 0, shard_offsets: &[] }
    }

    #[test]
    fn a_product_takes_two_operations_for_each_triple() {
        let mut case = Case::new("", 7, 0);
        let layer = matmul::Linear { inputs: 5, outputs: 3, relu: true };
        let [x, w, bias, y, dz, dw, db, dx] = [35, 15, 3, 21, 21, 15, 3, 35].map(|len| case.output("", len));
        matmul::forward(&mut case.plan, "", layer, 7, x, w, bias, y);
        matmul::backward_weights(&mut case.plan, "", layer, dz, x, dw, db);
        matmul::backward_input(&mut case.plan, "", layer, 7, dz, w, Some(x), dx);
        assert_eq!(of(&case, "matmul_nt", &samples(7)), Cost { bytes: 4 * (35 + 15 + 3 + 21), flops: 2 * 7 * 5 * 3 });
        assert_eq!(of(&case, "matmul_tn", &samples(7)), Cost { bytes: 4 * (21 + 35 + 15), flops: 210 });
        assert_eq!(of(&case, "matmul_nn_gated", &samples(7)), Cost { bytes: 4 * (21 + 15 + 35 + 35), flops: 210 });
        assert_eq!(of(&case, "bias_gradient", &samples(7)), Cost { bytes: 4 * 24, flops: 21 });
        assert_eq!(of(&case, "matmul_nt", &samples(2)).flops, 60, "samples of the step, not of the plan");
    }

    #[test]
    fn an_interaction_has_a_product_for_each_pair() {
        let mut case = Case::new("", 2, 0);
        let pairs = interaction::Pairs { tables: 3, dim: 4, diagonal: false };
        let [dense, pooled, joined, d_dense, d_pooled] = [8, 24, 20, 8, 24].map(|len| case.output("", len));
        interaction::forward(&mut case.plan, pairs, 2, dense, pooled, joined);
        interaction::backward(&mut case.plan, pairs, 2, dense, pooled, joined, d_dense, d_pooled);
        assert_eq!(of(&case, "interaction_forward", &samples(2)), Cost { bytes: 4 * (8 + 24 + 20), flops: 2 * 2 * 6 * 4 });
        assert_eq!(of(&case, "interaction_backward", &samples(2)), Cost { bytes: 4 * (8 + 24 + 20 + 8 + 24), flops: 2 * 96 });
    }

    #[test]
    fn rows_that_are_not_touched_cost_nothing() {
        let tables = Tables::new(&[10, 1000], 4, 16 * 505).unwrap(); // two shards
        let offsets = [0, 3, 4];
        let live = Live { samples: 2, ids: 5, touched: 4, shard_offsets: &offsets };
        let mut case = Case::new("", 2, 4);
        let mut list = || case.u32s("", vec![0; 64]);
        let index = embedding_bag::BatchViews {
            bag_offsets: list(),
            bag_rows: list(),
            rows: list(),
            row_tables: list(),
            shard_offsets: list(),
            row_offsets: list(),
            row_samples: list(),
        };
        let shards = [case.output("", 2020), case.output("", 2020)];
        let (gathered, pooled, scales, partials) = (case.output("", 40), case.output("", 16), case.output("", 2), case.output_u32("", 4));
        embedding_bag::forward(&mut case.plan, &tables, &index, embedding_bag::Quantize::Rows(7), scales, &shards, gathered, pooled);
        row_update::update(&mut case.plan, RowOptimizer::Sgd, 0.0, &tables, &index, gathered, &shards, &[]);
        table_scale::refresh(&mut case.plan, &tables, 7, &shards, partials, scales);
        let all = |kernel: &str| -> Vec<u64> {
            let commands = case.plan.phases[0].commands.iter().filter(|c| c.kernel.name == kernel);
            commands.map(|c| cost(c, &live).bytes / 4).collect()
        };
        assert_eq!(all("gather_rows"), [3 * 10, 10]);
        assert_eq!(all("row_sgd"), [3 * 13, 13]);
        assert_eq!(all("pool_bags"), [5 * 5 + 4 * 5]);
        assert_eq!(all("table_absmax"), [40, 1980, 2020], "a refresh reads every row");
        let one = Live { shard_offsets: &[], ..live };
        assert_eq!(cost(&case.plan.phases[0].commands[1], &one).bytes, 4 * 4 * 10);
    }

    #[test]
    fn a_case_knows_its_step() {
        let case = matmul::SHAPES[1](); // B 128, 367 to 512
        let bytes = 4 * (128 * 367 + 512 * 367 + 512 + 128 * 512);
        assert_eq!(case.work(&matmul::MATMUL_NT), Cost { bytes, flops: 2 * 128 * 367 * 512 });
        assert_eq!(case.work(&row_update::ROW_SGD), Cost::default());
        let case = embedding_bag::SHAPES[0](); // one id a bag: 26 tables, B 128, D 16
        let (ids, touched) = (26 * 128, u64::from(case.step.touched));
        assert_eq!(case.work(&embedding_bag::BAG_GRADIENT), Cost { bytes: 4 * (ids * 17 + touched * 18), flops: ids * 16 });
    }

    #[test]
    fn a_copy_reads_and_writes() {
        let mut case = Case::new("", 1, 0);
        let [a, b] = [64, 64].map(|len| case.output("", len));
        copy::record(&mut case.plan, "", a, b);
        assert_eq!(of(&case, "copy", &samples(1)), Cost { bytes: 512, flops: 0 });
    }

    #[test]
    fn no_command_of_any_case_is_free() {
        for case in super::super::cases() {
            let live = Live { ids: 9, samples: 3, touched: 5, shard_offsets: &[] };
            for command in &case.plan.phases[0].commands {
                assert!(cost(command, &live).bytes > 0, "{}: {}", case.name, command.kernel.name);
            }
        }
    }
}
