//! The loss from logits and its gradient. Binary cross-entropy in its stable form,
//! `max(x, 0) - x t + ln(1 + exp(-|x|))` with gradient `(p - t) / B`, or the mean squared error of
//! the probability. Losses and logits go to rings that the host reads a few steps later.

use super::case::{Case, ELEMENTWISE, EXACT, sums};
use crate::config::Loss;
use crate::params;
use crate::plan::kernel::{reads, shared, updates, writes};
use crate::plan::{Args, Elem, Kernel, Plan, View, grid};

params!(
    /// Parameters of `loss_gradient`.
    LossParams {
        /// 1 for the mean squared error.
        mse: u32,
        /// Samples in one slot of the ring of logits.
        stride: u32,
    }
);
params!(
    /// `mean_loss` needs none; a uniform cannot be empty.
    MeanParams {
        /// Always 0.
        unused: u32,
    }
);

const SOURCE: &str = include_str!("../../shaders/loss.wgsl");
const SHARED: &[&str] = &[shared::STEP, shared::INDEX];

/// Loss and gradient of each sample.
pub static LOSS_GRADIENT: Kernel = Kernel {
    name: "loss_gradient",
    op: "loss",
    source: SOURCE,
    shared: SHARED,
    workgroup: [64, 1, 1],
    params: LossParams::FIELDS,
    bindings: &[
        reads("logits", Elem::F32),
        reads("labels", Elem::F32),
        writes("losses", Elem::F32),
        writes("d_logits", Elem::F32),
        updates("logit_ring", Elem::F32),
    ],
    twin: loss_gradient,
    variants: &[],
};

/// Mean over the batch.
pub static MEAN_LOSS: Kernel = Kernel {
    name: "mean_loss",
    op: "loss",
    source: SOURCE,
    shared: SHARED,
    workgroup: [64, 1, 1],
    params: MeanParams::FIELDS,
    bindings: &[reads("sample_losses", Elem::F32), updates("loss_ring", Elem::F32)],
    twin: mean_loss,
    variants: &[],
};

/// This op's kernels.
pub const KERNELS: &[&Kernel] = &[&LOSS_GRADIENT, &MEAN_LOSS];

/// Records loss and gradient: `losses`, `d_logits` `[B]`, `logit_ring` `[slots, B]`, `loss_ring` `[slots]`.
pub fn record(plan: &mut Plan, loss: Loss, logits: View, labels: View, losses: View, d_logits: View, logit_ring: View, loss_ring: View) {
    let params = LossParams { mse: (loss == Loss::Mse) as u32, stride: (logit_ring.len / loss_ring.len) as u32 };
    plan.push(&LOSS_GRADIENT, "loss", &params, &[logits, labels, losses, d_logits, logit_ring], grid(losses.len));
    plan.push(&MEAN_LOSS, "mean", &MeanParams { unused: 0 }, &[losses, loss_ring], [1, 1, 1]);
}

fn loss_gradient(mut args: Args<'_>) {
    let p: LossParams = args.params();
    let step = *args.step;
    let (logits, labels) = (args.f32s(0), args.f32s(1));
    let (losses, d_logits, ring) = (args.output(), args.output(), args.output());
    let ring = &mut ring[(step.slot * p.stride) as usize..];
    for b in 0..step.batch as usize {
        let (x, t) = (logits[b], labels[b]);
        let e = (-x.abs()).exp();
        let probability = if x < 0.0 { e } else { 1.0 } / (1.0 + e);
        let error = probability - t;
        if p.mse != 0 {
            losses[b] = error * error;
            d_logits[b] = 2.0 * error * probability * (1.0 - probability) * step.inv_batch;
        } else {
            losses[b] = if x > 0.0 { x } else { 0.0 } - x * t + e.ln_1p();
            d_logits[b] = error * step.inv_batch;
        }
        ring[b] = x;
    }
}

fn mean_loss(mut args: Args<'_>) {
    let step = *args.step;
    let mut lanes = [0.0f32; 64];
    for (b, loss) in args.f32s(0)[..step.batch as usize].iter().enumerate() {
        lanes[b % 64] += loss;
    }
    for half in [32, 16, 8, 4, 2, 1] {
        (0..half).for_each(|lane| lanes[lane] += lanes[lane + half]);
    }
    args.output()[step.slot as usize] = lanes[0] * step.inv_batch;
}

/// The probability that belongs to a logit.
pub fn sigmoid(x: f32) -> f32 {
    let e = (-x.abs()).exp();
    if x < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
}

fn case(name: &str, batch: usize, loss: Loss, spread: f32) -> Case {
    let mut case = Case::new(format!("loss {loss:?} {name}"), batch, 0);
    let logits = super::case::random("logits", batch).into_iter().map(|x| x * spread).collect();
    let logits = case.f32s("logits", logits);
    let labels = case.f32s("labels", (0..batch).map(|b| (b % 3 == 0) as u32 as f32).collect());
    let (losses, d_logits) = (case.output("losses", batch), case.output("d_logits", batch));
    let logit_ring = case.f32s("logit_ring", vec![0.5; 3 * batch]);
    let loss_ring = case.f32s("loss_ring", vec![0.5; 3]);
    case.step.slot = 2;
    record(&mut case.plan, loss, logits, labels, losses, d_logits, logit_ring, loss_ring);
    case.check(losses, ELEMENTWISE);
    case.check(d_logits, ELEMENTWISE);
    case.check(logit_ring, EXACT);
    case.check(loss_ring, sums(1));
    case
}

/// Cases.
pub fn cases() -> Vec<Case> {
    vec![
        case("one sample", 1, Loss::Bce, 1.0),
        case("odd", 129, Loss::Bce, 5.0),
        case("large logits", 2048, Loss::Bce, 200.0),
        case("odd", 65, Loss::Mse, 4.0),
    ]
}

/// Shapes of the Kaggle model.
pub const SHAPES: &[fn() -> Case] = &[
    || case("B 128", 128, Loss::Bce, 5.0),
    || case("B 2048", 2048, Loss::Bce, 5.0),
];

#[cfg(test)]
mod tests {
    #[test]
    fn sigmoid_is_stable_at_both_ends() {
        assert_eq!([-1e30, 0.0, 1e30].map(super::sigmoid), [0.0, 0.5, 1.0]);
        assert!(super::sigmoid(f32::NAN).is_nan());
    }
}
