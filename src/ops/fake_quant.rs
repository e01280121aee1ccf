//! Fake quantization of the MLPs' weights and biases, once per step: one scale per output row or
//! per matrix, the bias on the scale of its row (arXiv 2410.20046 section 3.3 and the published
//! `QuantLinear`). The gradient passes unchanged to the FP32 weights (straight-through estimator).

use super::case::{Case, ELEMENTWISE};
use super::parallel;
use crate::params;
use crate::plan::kernel::{reads, shared, writes};
use crate::plan::{Args, Elem, Kernel, Plan, View, grid, groups};
use crate::quant;

mod variants;

params!(
    /// Parameters of `group_scale`.
    GroupScaleParams {
        /// Elements that share a scale.
        group_len: u32,
        /// Largest code.
        max_code: f32,
    }
);
params!(
    /// Parameters of `fake_quant_weights`.
    FakeQuantParams {
        /// Elements.
        len: u32,
        /// Elements that share a scale.
        group_len: u32,
        /// Largest code.
        max_code: f32,
    }
);

const SOURCE: &str = include_str!("../../shaders/fake_quant.wgsl");
const SHARED: &[&str] = &[shared::INDEX, shared::QUANT];

/// One scale for each group of weights.
pub static GROUP_SCALE: Kernel = Kernel {
    name: "group_scale",
    op: "fake_quant",
    source: SOURCE,
    shared: SHARED,
    workgroup: [64, 1, 1],
    params: GroupScaleParams::FIELDS,
    bindings: &[reads("weights", Elem::F32), writes("scales", Elem::F32)],
    twin: group_scale,
    variants: &variants::SCALES,
};

/// Quantizes and dequantizes.
pub static FAKE_QUANT_WEIGHTS: Kernel = Kernel {
    name: "fake_quant_weights",
    op: "fake_quant",
    source: SOURCE,
    shared: SHARED,
    workgroup: [64, 1, 1],
    params: FakeQuantParams::FIELDS,
    bindings: &[reads("values", Elem::F32), reads("value_scales", Elem::F32), writes("quantized", Elem::F32)],
    twin: fake_quant_weights,
    variants: &variants::WEIGHTS,
};

/// This op's kernels.
pub const KERNELS: &[&Kernel] = &[&GROUP_SCALE, &FAKE_QUANT_WEIGHTS];

/// Records the scales of `weights`, one for each `weights.len / scales.len` elements.
pub fn scales(plan: &mut Plan, label: &str, max_code: u32, weights: View, scales: View) {
    let params = GroupScaleParams { group_len: (weights.len / scales.len) as u32, max_code: max_code as f32 };
    plan.push(&GROUP_SCALE, label, &params, &[weights, scales], groups(scales.len));
}

/// Records the fake quantization of `values` (weights or biases) with `scales`, evenly shared.
pub fn quantize(plan: &mut Plan, label: &str, max_code: u32, values: View, scales: View, quantized: View) {
    let group_len = (values.len / scales.len) as u32;
    let params = FakeQuantParams { len: values.len as u32, group_len, max_code: max_code as f32 };
    plan.push(&FAKE_QUANT_WEIGHTS, label, &params, &[values, scales, quantized], grid(values.len));
}

fn group_scale(mut args: Args<'_>) {
    let p: GroupScaleParams = args.params();
    let weights = args.u32s(0);
    for (group, out) in weights.chunks_exact(p.group_len as usize).zip(args.output()) {
        *out = quant::scale(f32::from_bits(parallel::max_abs_bits(group)), p.max_code as u32);
    }
}

/// Quantizes one group.
struct Group<'a> {
    values: &'a [f32],
    scales: &'a [f32],
    max_code: f32,
}

impl parallel::Row for Group<'_> {
    #[inline(always)]
    fn row(&self, group: usize, out: &mut [f32]) {
        let (scale, inverse) = (self.scales[group], 1.0 / self.scales[group]);
        let values = &self.values[group * out.len()..];
        for (o, &v) in out.iter_mut().zip(values) {
            *o = quant::fake_quant(v, scale, inverse, self.max_code);
        }
    }
}

fn fake_quant_weights(mut args: Args<'_>) {
    let p: FakeQuantParams = args.params();
    let op = Group { values: args.f32s(0), scales: args.f32s(1), max_code: p.max_code };
    parallel::each(args.output(), p.group_len as usize, &op);
}

fn case(name: &str, outputs: usize, inputs: usize, groups: usize, max_code: u32) -> Case {
    let mut case = Case::new(format!("fake_quant {name}"), 1, 0);
    let weights = case.random("weights", outputs * inputs);
    let biases = case.random("biases", outputs);
    let of = case.output("scales", groups);
    scales(&mut case.plan, "weights", max_code, weights, of);
    let (weights_q, biases_q) = (case.output("weights_q", outputs * inputs), case.output("biases_q", outputs));
    quantize(&mut case.plan, "weights", max_code, weights, of, weights_q);
    quantize(&mut case.plan, "biases", max_code, biases, of, biases_q);
    [of, weights_q, biases_q].into_iter().for_each(|v| case.check(v, ELEMENTWISE));
    case
}

/// Exact halves, zeros, values beyond the range and NaN, with a scale that is a power of two.
fn ties() -> Case {
    let mut case = Case::new("fake_quant ties, clamping, NaN", 1, 0);
    let values = [0.0, -0.0, 0.0625, 0.1875, 0.3125, -0.0625, -0.1875, -0.3125, 0.8125, 2.0, -0.9375, -1.0, -1.0625, -9.0, f32::NAN, 1e30];
    let values = case.f32s("values", values.to_vec());
    let scales = case.f32s("scales", vec![0.125]);
    let quantized = case.output("quantized", 16);
    quantize(&mut case.plan, "ties", 7, values, scales, quantized);
    case.check(quantized, super::case::EXACT);
    case
}

/// Cases.
pub fn cases() -> Vec<Case> {
    vec![
        ties(),
        case("1x1", 1, 1, 1, 7),
        case("3x13, a scale per row", 3, 13, 3, 7),
        case("64x367, a scale per row, INT8", 64, 367, 64, 127),
        case("64x367, one scale, INT2", 64, 367, 1, 1),
        case("512x512, a scale per row", 512, 512, 512, 7),
    ]
}

/// Shapes of the Kaggle model.
pub const SHAPES: &[fn() -> Case] = &[
    || case("512x367, a scale per row", 512, 367, 512, 7),
    || case("256x512, a scale per row", 256, 512, 256, 7),
];
