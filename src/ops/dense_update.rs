//! Optimizer steps on all MLP parameters in one dispatch: weights and biases lie in one flat buffer,
//! gradients and state in others of the same layout. SGD, Adagrad, Adam.

use super::case::{Case, ELEMENTWISE};
use super::parallel;
use crate::config::{DenseOptimizer, Optim};
use crate::params;
use crate::plan::kernel::{reads, shared, updates};
use crate::plan::{Args, Binding, Elem, Kernel, Plan, Variant, View, grid};

mod variants;

params!(
    /// Parameters of all three.
    DenseParams {
        /// Elements.
        len: u32,
        /// Added to the root.
        eps: f32,
        /// Adam's first decay rate.
        beta1: f32,
        /// Adam's second decay rate.
        beta2: f32,
    }
);

const SOURCE: &str = include_str!("../../shaders/dense_update.wgsl");
const SHARED: &[&str] = &[shared::STEP, shared::INDEX];
const BINDINGS: &[Binding] =
    &[reads("gradients", Elem::F32), updates("weights", Elem::F32), updates("squares", Elem::F32), updates("moments", Elem::F32)];

const fn kernel(name: &'static str, bindings: &'static [Binding], twin: fn(Args<'_>), variants: &'static [Variant]) -> Kernel {
    Kernel { name, op: "dense_update", source: SOURCE, shared: SHARED, workgroup: [64, 1, 1], params: DenseParams::FIELDS, bindings, twin, variants }
}

/// `w -= lr g`
pub static DENSE_SGD: Kernel = kernel("dense_sgd", BINDINGS.split_at(2).0, dense_sgd, &variants::SGD);
/// Adagrad.
pub static DENSE_ADAGRAD: Kernel = kernel("dense_adagrad", BINDINGS.split_at(3).0, dense_adagrad, &[]);
/// Adam.
pub static DENSE_ADAM: Kernel = kernel("dense_adam", BINDINGS, dense_adam, &[]);

/// This op's kernels.
pub const KERNELS: &[&Kernel] = &[&DENSE_SGD, &DENSE_ADAGRAD, &DENSE_ADAM];

/// State buffers of an optimizer: sums of squares, then Adam's first moments.
pub fn states(optimizer: DenseOptimizer) -> usize {
    match optimizer {
        DenseOptimizer::Sgd => 0,
        DenseOptimizer::Adagrad => 1,
        DenseOptimizer::Adam => 2,
    }
}

/// Records the update of `weights` in place.
pub fn update(plan: &mut Plan, optim: &Optim, gradients: View, weights: View, states: &[View]) {
    let eps = if optim.dense == DenseOptimizer::Adam { optim.adam_eps } else { optim.adagrad_eps } as f32;
    let [beta1, beta2] = optim.adam_betas.map(|b| b as f32);
    let params = DenseParams { len: weights.len as u32, eps, beta1, beta2 };
    let kernel = match optim.dense {
        DenseOptimizer::Sgd => &DENSE_SGD,
        DenseOptimizer::Adagrad => &DENSE_ADAGRAD,
        DenseOptimizer::Adam => &DENSE_ADAM,
    };
    let views: Vec<View> = [gradients, weights].into_iter().chain(states.iter().copied()).collect();
    plan.push(kernel, "all", &params, &views, grid(weights.len));
}

fn dense_sgd(mut args: Args<'_>) {
    let (lr, gradients) = (args.step.lr, args.f32s(0));
    parallel::pieces(args.output(), |first, weights| {
        weights.iter_mut().zip(&gradients[first..]).for_each(|(w, g)| *w -= lr * g);
    });
}

fn dense_adagrad(mut args: Args<'_>) {
    let (p, lr, gradients) = (args.params::<DenseParams>(), args.step.lr, args.f32s(0));
    let (weights, squares) = (args.output(), args.output());
    for ((w, s), g) in weights.iter_mut().zip(squares).zip(gradients) {
        *s += g * g;
        *w -= lr * g / (s.sqrt() + p.eps);
    }
}

fn dense_adam(mut args: Args<'_>) {
    let (p, step, gradients) = (args.params::<DenseParams>(), *args.step, args.f32s(0));
    let (weights, squares, moments) = (args.output(), args.output(), args.output());
    for (((w, v), m), g) in weights.iter_mut().zip(squares).zip(moments).zip(gradients) {
        *m = p.beta1 * *m + (1.0 - p.beta1) * g;
        *v = p.beta2 * *v + (1.0 - p.beta2) * g * g;
        *w -= step.lr * (*m * step.adam_1) / ((*v * step.adam_2).sqrt() + p.eps);
    }
}

fn case(name: &str, len: usize, dense: DenseOptimizer) -> Case {
    let mut case = Case::new(format!("dense_update {dense:?} {name}"), 1, 0);
    let (gradients, weights) = (case.random("gradients", len), case.random("weights", len));
    let states: Vec<View> = (0..states(dense)).map(|i| case.f32s(&format!("state {i}"), vec![0.25; len])).collect();
    update(&mut case.plan, &Optim { dense, ..Optim::default() }, gradients, weights, &states);
    states.iter().chain([&weights]).for_each(|&v| case.check(v, ELEMENTWISE));
    case
}

/// Cases.
pub fn cases() -> Vec<Case> {
    let all = [DenseOptimizer::Sgd, DenseOptimizer::Adagrad, DenseOptimizer::Adam];
    all.into_iter().flat_map(|o| [case("one", 1, o), case("odd", 1001, o), case("whole fours", 1028, o), case("Kaggle's MLPs", 475_985, o)]).collect()
}

/// Shapes of the Kaggle model.
pub const SHAPES: &[fn() -> Case] = &[
    || case("Kaggle's MLPs", 475_985, DenseOptimizer::Sgd),
    || case("Kaggle's MLPs", 475_985, DenseOptimizer::Adagrad),
    || case("Kaggle's MLPs", 475_985, DenseOptimizer::Adam),
];
