//! The linear layer: `y = act(x Wᵗ + bias)` and its gradients. Weights are (outputs, inputs) as in
//! PyTorch, samples are rows. ReLU is fused into the forward store; its mask is fused into the store
//! of the gradient that reaches the layer below.

use super::case::{Case, Tolerance, random, sums};
use super::parallel;
use crate::params;
use crate::plan::kernel::{reads, shared, writes};
use super::product::{Finish, Keep, Matrix, product};
use crate::plan::variant::Job;
use crate::plan::{Args, Binding, Command, Elem, Kernel, Plan, Variant, View, grid};
use rayon::prelude::*;

mod cooperative;
pub mod halves;
mod subgroups;
mod variants;

params!(
    /// Parameters of all kernels of this op.
    MatmulParams {
        /// Width of the layer's input.
        inputs: u32,
        /// Width of its output.
        outputs: u32,
        /// 1 when a ReLU follows.
        relu: u32,
    }
);

const SOURCE: &str = include_str!("../../shaders/matmul.wgsl");
const SHARED: &[&str] = &[shared::STEP, shared::INDEX];

const fn kernel(name: &'static str, workgroup: [u32; 3], bindings: &'static [Binding], twin: fn(Args<'_>), variants: &'static [Variant]) -> Kernel {
    Kernel { name, op: "matmul", source: SOURCE, shared: SHARED, workgroup, params: MatmulParams::FIELDS, bindings, twin, variants }
}

/// `y = act(x Wᵗ + bias)`
pub static MATMUL_NT: Kernel = kernel(
    "matmul_nt",
    [8, 8, 1],
    &[reads("x", Elem::F32), reads("w", Elem::F32), reads("bias", Elem::F32), writes("y", Elem::F32)],
    matmul_nt,
    &variants::NT,
);
/// `dx = dz W`
pub static MATMUL_NN: Kernel =
    kernel("matmul_nn", [8, 8, 1], &[reads("dz", Elem::F32), reads("nn_w", Elem::F32), writes("dx", Elem::F32)], matmul_nn, &variants::NN);
/// `dx = dz W`, zero where the gate is not positive.
pub static MATMUL_NN_GATED: Kernel = kernel(
    "matmul_nn_gated",
    [8, 8, 1],
    &[reads("dz", Elem::F32), reads("nn_w", Elem::F32), writes("dx", Elem::F32), reads("gate", Elem::F32)],
    matmul_nn_gated,
    &variants::NN_GATED,
);
/// `dW = dzᵗ x`
pub static MATMUL_TN: Kernel =
    kernel("matmul_tn", [8, 8, 1], &[reads("tn_dz", Elem::F32), reads("tn_x", Elem::F32), writes("dw", Elem::F32)], matmul_tn, &variants::TN);
/// `db = Σ_b dz`
pub static BIAS_GRADIENT: Kernel =
    kernel("bias_gradient", [64, 1, 1], &[reads("bias_dz", Elem::F32), writes("d_bias", Elem::F32)], bias_gradient, &variants::BIAS);

/// This op's kernels.
pub const KERNELS: &[&Kernel] = &[&MATMUL_NT, &MATMUL_NN, &MATMUL_NN_GATED, &MATMUL_TN, &BIAS_GRADIENT];

/// Samples that all views of `command`, one of this op's, have room for.
pub fn samples(command: &Command) -> usize {
    let job = Job::of(command);
    let (inputs, outputs) = (job.param(0), job.param(1));
    let widths: &[(usize, usize)] = match command.kernel.name {
        "matmul_nt" => &[(0, inputs), (3, outputs)],
        "matmul_nn" => &[(0, outputs), (2, inputs)],
        "matmul_nn_gated" => &[(0, outputs), (2, inputs), (3, inputs)],
        "matmul_tn" => &[(0, outputs), (1, inputs)],
        _ => &[(0, outputs)],
    };
    widths.iter().map(|&(view, width)| job.len(view) / width.max(1)).min().unwrap_or(0)
}

/// How close two texts of `command`, one of this op's, must be for operands of unit size.
pub fn tolerance(command: &Command) -> Tolerance {
    let job = Job::of(command);
    sums(match command.kernel.name {
        "matmul_nt" => job.param(0),
        "matmul_nn" | "matmul_nn_gated" => job.param(1),
        _ => samples(command),
    })
}

/// Widths and activation of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linear {
    /// Width of the input.
    pub inputs: usize,
    /// Width of the output.
    pub outputs: usize,
    /// A ReLU follows.
    pub relu: bool,
}

impl Linear {
    fn params(self) -> MatmulParams {
        MatmulParams { inputs: self.inputs as u32, outputs: self.outputs as u32, relu: self.relu as u32 }
    }
}

/// Workgroups of 8 x 8 invocations with 4 x 4 results each.
pub(super) fn tiles(columns: usize, rows: usize) -> [u32; 3] {
    [columns.div_ceil(32) as u32, rows.div_ceil(32) as u32, 1]
}

/// Records `y = act(x Wᵗ + bias)` for up to `batch` samples.
pub fn forward(plan: &mut Plan, label: &str, layer: Linear, batch: usize, x: View, w: View, bias: View, y: View) {
    plan.push(&MATMUL_NT, label, &layer.params(), &[x, w, bias, y], tiles(layer.outputs, batch));
}

/// Records the gradients of the weights and the bias from `dz` (the gradient before the activation).
pub fn backward_weights(plan: &mut Plan, label: &str, layer: Linear, dz: View, x: View, dw: View, d_bias: View) {
    plan.push(&MATMUL_TN, format!("{label}.weight"), &layer.params(), &[dz, x, dw], tiles(layer.inputs, layer.outputs));
    plan.push(&BIAS_GRADIENT, format!("{label}.bias"), &layer.params(), &[dz, d_bias], grid(layer.outputs));
}

/// Records `dx = dz W` for up to `batch` samples; with a gate (the input, when it is a ReLU's output) `dx` is
/// already the gradient before that activation.
pub fn backward_input(plan: &mut Plan, label: &str, layer: Linear, batch: usize, dz: View, w: View, gate: Option<View>, dx: View) {
    let grid = tiles(layer.inputs, batch);
    match gate {
        Some(gate) => plan.push(&MATMUL_NN_GATED, label, &layer.params(), &[dz, w, dx, gate], grid),
        None => plan.push(&MATMUL_NN, label, &layer.params(), &[dz, w, dx], grid),
    }
}

/// Adds the bias, then the ReLU.
struct Activate<'a> {
    bias: &'a [f32],
    relu: bool,
}

impl Finish for Activate<'_> {
    #[inline(always)]
    fn finish(&self, _: usize, first: usize, results: &mut [f32]) {
        for (v, b) in results.iter_mut().zip(&self.bias[first..]) {
            let sum = *v + b;
            *v = if self.relu && sum <= 0.0 { 0.0 } else { sum };
        }
    }
}

fn matmul_nt(mut args: Args<'_>) {
    let p: MatmulParams = args.params();
    let (inputs, outputs, batch) = (p.inputs as usize, p.outputs as usize, args.step.batch as usize);
    let (x, w, bias) = (args.f32s(0), args.f32s(1), args.f32s(2));
    let (x, w) = (Matrix { values: x, row_stride: inputs, column_stride: 1 }, Matrix { values: w, row_stride: 1, column_stride: inputs });
    product(args.output(), outputs, [batch, outputs, inputs], x, w, &Activate { bias, relu: p.relu != 0 });
}

/// Zero where the gate is closed.
struct Mask<'a> {
    gate: &'a [f32],
    width: usize,
}

impl Finish for Mask<'_> {
    #[inline(always)]
    fn finish(&self, row: usize, first: usize, results: &mut [f32]) {
        let gate = &self.gate[row * self.width + first..][..results.len()];
        results.iter_mut().zip(gate).for_each(|(d, &g)| *d = if g <= 0.0 { 0.0 } else { *d });
    }
}

fn input_gradient(args: &mut Args<'_>, finish: &impl Finish) {
    let p: MatmulParams = args.params();
    let (inputs, outputs) = (p.inputs as usize, p.outputs as usize);
    let dz = Matrix { values: args.f32s(0), row_stride: outputs, column_stride: 1 };
    let w = Matrix { values: args.f32s(1), row_stride: inputs, column_stride: 1 };
    let batch = args.step.batch as usize;
    product(args.output(), inputs, [batch, inputs, outputs], dz, w, finish);
}

fn matmul_nn(mut args: Args<'_>) {
    input_gradient(&mut args, &Keep);
}

fn matmul_nn_gated(mut args: Args<'_>) {
    let (gate, width) = (args.f32s(2), args.params::<MatmulParams>().inputs as usize);
    input_gradient(&mut args, &Mask { gate, width });
}

fn matmul_tn(mut args: Args<'_>) {
    let p: MatmulParams = args.params();
    let (inputs, outputs) = (p.inputs as usize, p.outputs as usize);
    let dz = Matrix { values: args.f32s(0), row_stride: 1, column_stride: outputs };
    let x = Matrix { values: args.f32s(1), row_stride: inputs, column_stride: 1 };
    let batch = args.step.batch as usize;
    product(args.output(), inputs, [outputs, inputs, batch], dz, x, &Keep);
}

/// Sums of consecutive columns.
struct Columns<'a> {
    dz: &'a [f32],
    outputs: usize,
    first: usize,
    sums: &'a mut [f32],
}

impl pulp::NullaryFnOnce for Columns<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.sums.fill(0.0);
        let count = self.sums.len();
        // Four rows at a time: a processor waits for one row after the other otherwise.
        let (fours, rest) = self.dz.split_at(self.dz.len() - self.dz.len() % (4 * self.outputs));
        for four in fours.chunks_exact(4 * self.outputs) {
            let row = |i: usize| &four[i * self.outputs + self.first..][..count];
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            for (i, sum) in self.sums.iter_mut().enumerate() {
                *sum = *sum + a[i] + b[i] + c[i] + d[i];
            }
        }
        for row in rest.chunks_exact(self.outputs) {
            self.sums.iter_mut().zip(&row[self.first..]).for_each(|(s, z)| *s += z);
        }
    }
}

fn bias_gradient(mut args: Args<'_>) {
    let p: MatmulParams = args.params();
    let outputs = p.outputs as usize;
    let dz = &args.f32s(0)[..args.step.batch as usize * outputs];
    let count = if dz.len() < 4 * parallel::SMALL { outputs } else { outputs.div_ceil(rayon::current_num_threads()).next_multiple_of(64) };
    args.output().par_chunks_mut(count).enumerate().for_each(|(i, sums)| {
        pulp::Arch::new().dispatch(Columns { dz, outputs, first: i * count, sums });
    });
}

fn case(batch: usize, inputs: usize, outputs: usize, relu: bool) -> Case {
    part(batch, batch, inputs, outputs, relu)
}

/// `batch` live samples of `room`; the others are NaN.
fn part(batch: usize, room: usize, inputs: usize, outputs: usize, relu: bool) -> Case {
    let of = if room > batch { format!(" of {room}") } else { String::new() };
    let mut case = Case::new(format!("matmul B {batch}{of}, {inputs} to {outputs}{}", if relu { ", ReLU" } else { "" }), batch, 0);
    let layer = Linear { inputs, outputs, relu };
    let samples = |case: &mut Case, name: &str, width: usize| {
        let mut values = random(name, batch * width);
        values.resize(room * width, f32::NAN);
        case.f32s(name, values)
    };
    let live = |view: View, width: usize| View { len: batch * width, ..view };
    let x = samples(&mut case, "x", inputs);
    let (w, bias) = (case.random("w", outputs * inputs), case.random("bias", outputs));
    let y = case.output("y", room * outputs);
    forward(&mut case.plan, "layer", layer, room, x, w, bias, y);
    case.check(live(y, outputs), sums(inputs));
    let dz = samples(&mut case, "dz", outputs);
    let (dw, d_bias) = (case.output("dw", outputs * inputs), case.output("d_bias", outputs));
    backward_weights(&mut case.plan, "layer", layer, dz, x, dw, d_bias);
    let dx = case.output("dx", room * inputs);
    backward_input(&mut case.plan, "layer", layer, room, dz, w, relu.then_some(x), dx);
    case.check(dw, sums(batch));
    case.check(d_bias, sums(batch));
    case.check(live(dx, inputs), sums(outputs));
    case
}

/// Cases.
pub fn cases() -> Vec<Case> {
    vec![
        case(1, 1, 1, false),
        case(1, 13, 5, true),
        case(7, 3, 1, false),
        case(33, 65, 34, true),
        case(128, 13, 512, true),
        case(128, 367, 512, true),
        case(128, 512, 256, true),
        case(128, 256, 1, false),
        case(601, 40, 12, true),
        case(35, 64, 36, false),
        case(20, 7, 12, false),
        case(131, 8, 512, false),
        part(70, 200, 36, 68, true),
        part(5, 90, 66, 7, false),
    ]
}

/// Shapes of the Kaggle model.
pub const SHAPES: &[fn() -> Case] = &[
    || case(128, 13, 512, true),
    || case(128, 367, 512, true),
    || case(128, 512, 256, true),
    || case(128, 512, 256, false),
    || case(2048, 13, 512, true),
    || case(2048, 367, 512, true),
    || case(2048, 512, 256, true),
    || case(2048, 512, 256, false),
];
