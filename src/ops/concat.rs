//! The `cat` interaction of DLRM: `out = concat(dense, pooled₀ … pooled_{K-1})`, and its gradient, of
//! which the dense part is masked by the ReLU that made the dense vector.

use super::case::{Case, EXACT};
use super::parallel;
use crate::params;
use crate::plan::kernel::{reads, shared, writes};
use crate::plan::{Args, Elem, Kernel, Plan, View, grid};

params!(
    /// Parameters of both kernels.
    ConcatParams {
        /// K
        tables: u32,
        /// D
        dim: u32,
    }
);

const SOURCE: &str = include_str!("../../shaders/concat.wgsl");
const SHARED: &[&str] = &[shared::STEP, shared::INDEX];

/// Vectors side by side.
pub static CONCAT_FORWARD: Kernel = Kernel {
    name: "concat_forward",
    op: "concat",
    source: SOURCE,
    shared: SHARED,
    workgroup: [64, 1, 1],
    params: ConcatParams::FIELDS,
    bindings: &[reads("dense", Elem::F32), reads("pooled", Elem::F32), writes("joined", Elem::F32)],
    twin: concat_forward,
    variants: &[],
};

/// And back.
pub static CONCAT_BACKWARD: Kernel = Kernel {
    name: "concat_backward",
    op: "concat",
    source: SOURCE,
    shared: SHARED,
    workgroup: [64, 1, 1],
    params: ConcatParams::FIELDS,
    bindings: &[reads("dense", Elem::F32), reads("d_joined", Elem::F32), writes("d_dense", Elem::F32), writes("d_pooled", Elem::F32)],
    twin: concat_backward,
    variants: &[],
};

/// This op's kernels.
pub const KERNELS: &[&Kernel] = &[&CONCAT_FORWARD, &CONCAT_BACKWARD];

/// Records `joined` `[B, (K + 1) D]`.
pub fn forward(plan: &mut Plan, tables: usize, dim: usize, batch: usize, dense: View, pooled: View, joined: View) {
    let params = ConcatParams { tables: tables as u32, dim: dim as u32 };
    plan.push(&CONCAT_FORWARD, "cat", &params, &[dense, pooled, joined], grid(batch * (tables + 1) * dim));
}

/// Records `d_dense` `[B, D]` and `d_pooled` `[B, K, D]`.
pub fn backward(plan: &mut Plan, tables: usize, dim: usize, batch: usize, dense: View, d_joined: View, d_dense: View, d_pooled: View) {
    let params = ConcatParams { tables: tables as u32, dim: dim as u32 };
    plan.push(&CONCAT_BACKWARD, "cat", &params, &[dense, d_joined, d_dense, d_pooled], grid(batch * (tables + 1) * dim));
}

fn concat_forward(mut args: Args<'_>) {
    let p: ConcatParams = args.params();
    let (dim, rest) = (p.dim as usize, (p.tables * p.dim) as usize);
    let (dense, pooled, live) = (args.f32s(0), args.f32s(1), args.step.batch as usize * (dim + rest));
    parallel::rows(&mut args.output()[..live], dim + rest, |b, out| {
        out[..dim].copy_from_slice(&dense[b * dim..][..dim]);
        out[dim..].copy_from_slice(&pooled[b * rest..][..rest]);
    });
}

fn concat_backward(mut args: Args<'_>) {
    let p: ConcatParams = args.params();
    let (dim, rest, batch) = (p.dim as usize, (p.tables * p.dim) as usize, args.step.batch as usize);
    let (dense, d_joined) = (args.f32s(0), args.f32s(1));
    parallel::rows(&mut args.output()[..batch * dim], dim, |b, out| {
        for ((o, d), x) in out.iter_mut().zip(&d_joined[b * (dim + rest)..]).zip(&dense[b * dim..]) {
            *o = if *x <= 0.0 { 0.0 } else { *d };
        }
    });
    parallel::rows(&mut args.output()[..batch * rest], rest, |b, out| {
        out.copy_from_slice(&d_joined[b * (dim + rest) + dim..][..rest]);
    });
}

fn case(batch: usize, tables: usize, dim: usize) -> Case {
    let mut case = Case::new(format!("concat B {batch}, K {tables}, D {dim}"), batch, 0);
    let (dense, pooled) = (case.random("dense", batch * dim), case.random("pooled", batch * tables * dim));
    let joined = case.output("joined", batch * (tables + 1) * dim);
    forward(&mut case.plan, tables, dim, batch, dense, pooled, joined);
    let d_joined = case.random("d_joined", batch * (tables + 1) * dim);
    let (d_dense, d_pooled) = (case.output("d_dense", batch * dim), case.output("d_pooled", batch * tables * dim));
    backward(&mut case.plan, tables, dim, batch, dense, d_joined, d_dense, d_pooled);
    [joined, d_dense, d_pooled].into_iter().for_each(|v| case.check(v, EXACT));
    case
}

/// Cases.
pub fn cases() -> Vec<Case> {
    vec![case(1, 1, 1), case(7, 3, 5), case(128, 26, 16)]
}

/// Shapes of the Kaggle model.
pub const SHAPES: &[fn() -> Case] = &[
    || case(128, 26, 16),
    || case(2048, 26, 16),
];
