//! Optimizer steps on the touched rows of the tables, in place: SGD, Adagrad and row-wise Adagrad
//! (`optim/rwsadagrad.py` of facebookresearch/dlrm). A row occurs once in the list, so nothing is
//! added atomically and the result is the same bytes every time.

use super::case::{Case, ELEMENTWISE, kaggle_rows};
use super::embedding_bag::{BatchViews, example, views};
use crate::config::RowOptimizer;
use crate::params;
use crate::plan::kernel::{reads, shared, updates};
use crate::plan::{Args, Binding, Elem, Kernel, Plan, Variant, View, grid};
use crate::tables::Tables;

mod variants;

params!(
    /// Parameters of the row updates.
    RowParams {
        /// D
        dim: u32,
        /// Which shard is bound.
        shard: u32,
        /// Added to the root.
        eps: f32,
    }
);

const SOURCE: &str = include_str!("../../shaders/row_update.wgsl");
const SHARED: &[&str] = &[shared::STEP, shared::INDEX];
const BINDINGS: &[Binding] = &[
    reads("rows", Elem::U32),
    reads("shard_offsets", Elem::U32),
    reads("row_gradients", Elem::F32),
    updates("table", Elem::F32),
    updates("state", Elem::F32),
];

const fn kernel(name: &'static str, bindings: &'static [Binding], twin: fn(Args<'_>), variants: &'static [Variant]) -> Kernel {
    Kernel { name, op: "row_update", source: SOURCE, shared: SHARED, workgroup: [64, 1, 1], params: RowParams::FIELDS, bindings, twin, variants }
}

/// `w -= lr g`
pub static ROW_SGD: Kernel = kernel("row_sgd", BINDINGS.split_at(4).0, row_sgd, &variants::SGD);
/// Adagrad, one accumulator per element.
pub static ROW_ADAGRAD: Kernel = kernel("row_adagrad", BINDINGS, row_adagrad, &[]);
/// Adagrad, one accumulator per row.
pub static ROW_RWSADAGRAD: Kernel = kernel("row_rwsadagrad", BINDINGS, row_rwsadagrad, &[]);

/// This op's kernels.
pub const KERNELS: &[&Kernel] = &[&ROW_SGD, &ROW_ADAGRAD, &ROW_RWSADAGRAD];

/// Optimizer state of a shard, in floats for each row.
pub fn state_per_row(optimizer: RowOptimizer, dim: usize) -> usize {
    match optimizer {
        RowOptimizer::Sgd => 0,
        RowOptimizer::Adagrad => dim,
        RowOptimizer::Rwsadagrad => 1,
    }
}

/// Records the update of every shard; `states` is empty for SGD.
pub fn update(plan: &mut Plan, optimizer: RowOptimizer, eps: f32, tables: &Tables, batch: &BatchViews, gradients: View, shards: &[View], states: &[View]) {
    let dim = tables.dim();
    for (s, &shard) in shards.iter().enumerate() {
        let most = (gradients.len / dim).min(tables.rows_in_shard(s) as usize);
        let params = RowParams { dim: dim as u32, shard: s as u32, eps };
        let mut bound = vec![batch.rows, batch.shard_offsets, gradients, shard];
        let (kernel, invocations) = match optimizer {
            RowOptimizer::Sgd => (&ROW_SGD, most * dim),
            RowOptimizer::Adagrad => (&ROW_ADAGRAD, most * dim),
            RowOptimizer::Rwsadagrad => (&ROW_RWSADAGRAD, most),
        };
        bound.extend(states.get(s));
        plan.push(kernel, format!("shard {s}"), &params, &bound, grid(invocations));
    }
}

/// Cuts `table` and `state` at row boundaries until few rows are left, so that threads own what they write.
fn split(rows: &[u32], first: u32, gradients: &[f32], table: &mut [f32], state: &mut [f32], dim: usize, per_row: usize, f: &(impl Fn(&[f32], &mut [f32], &mut [f32]) + Sync)) {
    if rows.len() <= 512 {
        for (&row, gradient) in rows.iter().zip(gradients.chunks_exact(dim)) {
            let at = (row - first) as usize;
            f(gradient, &mut table[at * dim..(at + 1) * dim], &mut state[at * per_row..(at + 1) * per_row]);
        }
        return;
    }
    let half = rows.len() / 2;
    let at = (rows[half] - first) as usize;
    let (table_a, table_b) = table.split_at_mut(at * dim);
    let (state_a, state_b) = state.split_at_mut(at * per_row);
    let (gradients_a, gradients_b) = gradients.split_at(half * dim);
    rayon::join(
        || split(&rows[..half], first, gradients_a, table_a, state_a, dim, per_row, f),
        || split(&rows[half..], rows[half], gradients_b, table_b, state_b, dim, per_row, f),
    );
}

fn each_row(mut args: Args<'_>, per_row: usize, f: impl Fn(&[f32], &mut [f32], &mut [f32]) + Sync) {
    let p: RowParams = args.params();
    let (rows, shard_offsets, gradients) = (args.u32s(0), args.u32s(1), args.f32s(2));
    let (dim, shard) = (p.dim as usize, p.shard as usize);
    let live = shard_offsets[shard] as usize..shard_offsets[shard + 1] as usize;
    let table = args.output();
    let state = if per_row > 0 { args.output() } else { &mut [] };
    split(&rows[live.clone()], 0, &gradients[live.start * dim..live.end * dim], table, state, dim, per_row, &f);
}

fn row_sgd(args: Args<'_>) {
    let lr = args.step.lr_rows;
    each_row(args, 0, |gradient, row, _| row.iter_mut().zip(gradient).for_each(|(w, g)| *w -= lr * g));
}

fn row_adagrad(args: Args<'_>) {
    let (p, lr) = (args.params::<RowParams>(), args.step.lr_rows);
    each_row(args, p.dim as usize, |gradient, row, state| {
        for ((w, s), g) in row.iter_mut().zip(state).zip(gradient) {
            *s += g * g;
            *w -= lr * g / (s.sqrt() + p.eps);
        }
    });
}

fn row_rwsadagrad(args: Args<'_>) {
    let (p, lr) = (args.params::<RowParams>(), args.step.lr_rows);
    each_row(args, 1, |gradient, row, state| {
        state[0] += gradient.iter().map(|g| g * g).sum::<f32>() / p.dim as f32;
        let rate = lr / (state[0].sqrt() + p.eps);
        row.iter_mut().zip(gradient).for_each(|(w, g)| *w -= rate * g);
    });
}

fn case(name: &str, optimizer: RowOptimizer, samples: usize, rows: &[u64], dim: usize, max_binding: u64) -> Case {
    let (tables, batch) = example(samples, rows, dim, max_binding, &[1, 2, 0], false);
    let mut case = Case::new(format!("row_update {optimizer:?} {name}"), samples, batch.touched());
    let index = views(&mut case, &batch);
    let gradients = case.random("gradients", batch.touched() * dim);
    let shard_rows = |s| tables.rows_in_shard(s) as usize;
    let shards: Vec<View> = (0..tables.shards()).map(|s| case.random(&format!("shard {s}"), shard_rows(s) * dim)).collect();
    let per_row = state_per_row(optimizer, dim);
    let states: Vec<View> = match per_row {
        0 => Vec::new(),
        _ => (0..tables.shards()).map(|s| case.f32s(&format!("state {s}"), vec![0.5; shard_rows(s) * per_row])).collect(),
    };
    update(&mut case.plan, optimizer, 1e-10, &tables, &index, gradients, &shards, &states);
    shards.iter().chain(&states).for_each(|&v| case.check(v, ELEMENTWISE));
    case
}

/// Cases.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for optimizer in [RowOptimizer::Sgd, RowOptimizer::Adagrad, RowOptimizer::Rwsadagrad] {
        cases.push(case("one row", optimizer, 1, &[1], 1, u64::MAX));
        cases.push(case("odd, three bindings", optimizer, 50, &[7, 90, 1], 3, 40 * 12));
        cases.push(case("26 tables, B 128", optimizer, 128, &[1000; 26], 16, u64::MAX));
    }
    cases
}

/// Shapes of the Kaggle model.
pub const SHAPES: &[fn() -> Case] = &[
    || case("Kaggle, B 128", RowOptimizer::Sgd, 128, &kaggle_rows(), 16, u64::MAX),
    || case("Kaggle, B 2048", RowOptimizer::Sgd, 2048, &kaggle_rows(), 16, u64::MAX),
    || case("Kaggle, B 128", RowOptimizer::Adagrad, 128, &kaggle_rows(), 16, u64::MAX),
    || case("Kaggle, B 2048", RowOptimizer::Adagrad, 2048, &kaggle_rows(), 16, u64::MAX),
    || case("Kaggle, B 128", RowOptimizer::Rwsadagrad, 128, &kaggle_rows(), 16, u64::MAX),
    || case("Kaggle, B 2048", RowOptimizer::Rwsadagrad, 2048, &kaggle_rows(), 16, u64::MAX),
];
