//! Fake quantization of one layer of the MLPs, weights and bias in one pass, with a scale for each output row
//! (arXiv 2410.20046 section 3.3 and the published `QuantLinear`): what [`super::fake_quant`] does in three
//! commands. The gradient passes unchanged to the FP32 weights (straight-through estimator).

use super::case::{Case, ELEMENTWISE};
use super::parallel;
use crate::params;
use crate::plan::kernel::{reads, shared, writes};
use crate::plan::{Args, Elem, Kernel, Plan, View, groups};
use crate::quant;
use rayon::prelude::*;

mod variants;

params!(
    /// Parameters of `layer_quant`.
    LayerQuantParams {
        /// Elements of a row.
        inputs: u32,
        /// Rows.
        outputs: u32,
        /// Where the bias begins in the layer.
        bias_at: u32,
        /// 1 when the bias is quantized on the scale of its row, 0 when it is copied.
        biases: u32,
        /// Largest code.
        max_code: f32,
    }
);

/// Scales, quantizes and dequantizes a layer.
pub static LAYER_QUANT: Kernel = Kernel {
    name: "layer_quant",
    op: "layer_quant",
    source: include_str!("../../shaders/layer_quant.wgsl"),
    shared: &[shared::INDEX, shared::QUANT],
    workgroup: [64, 1, 1],
    params: LayerQuantParams::FIELDS,
    bindings: &[reads("layer", Elem::F32), writes("scales", Elem::F32), writes("quantized", Elem::F32)],
    twin: layer_quant,
    variants: &variants::LAYER,
};

/// This op's kernels.
pub const KERNELS: &[&Kernel] = &[&LAYER_QUANT];

/// Where a layer's parts lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Elements of a row.
    pub inputs: usize,
    /// Rows.
    pub outputs: usize,
    /// Where the bias begins, counted from the first weight; what lies between is not used.
    pub bias_at: usize,
}

impl Layer {
    /// Elements from the first weight to the last bias.
    pub fn span(self) -> usize {
        self.bias_at + self.outputs
    }
}

/// Records the fake quantization of `layer` `[span]` to `quantized` `[span]` with codes up to `max_code`; the bias is
/// copied as it is unless `biases`. `scales` is `[outputs]`.
pub fn quantize(plan: &mut Plan, label: &str, of: Layer, max_code: u32, biases: bool, layer: View, scales: View, quantized: View) {
    let params = LayerQuantParams {
        inputs: of.inputs as u32,
        outputs: of.outputs as u32,
        bias_at: of.bias_at as u32,
        biases: biases as u32,
        max_code: max_code as f32,
    };
    plan.push(&LAYER_QUANT, label, &params, &[layer, scales, quantized], groups(of.outputs));
}

/// Consecutive rows.
struct Rows<'a> {
    weights: &'a [f32],
    scales: &'a mut [f32],
    quantized: &'a mut [f32],
    inputs: usize,
    max_code: f32,
}

impl pulp::NullaryFnOnce for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let rows = self.weights.chunks_exact(self.inputs).zip(self.quantized.chunks_exact_mut(self.inputs));
        for ((row, out), scale) in rows.zip(self.scales) {
            let largest = row.iter().fold(0, |m, w| m.max(w.to_bits() & 0x7fff_ffff));
            *scale = quant::scale(f32::from_bits(largest), self.max_code as u32);
            let inverse = 1.0 / *scale;
            for (o, &w) in out.iter_mut().zip(row) {
                *o = quant::fake_quant(w, *scale, inverse, self.max_code);
            }
        }
    }
}

fn layer_quant(mut args: Args<'_>) {
    let p: LayerQuantParams = args.params();
    let (inputs, outputs, bias_at) = (p.inputs as usize, p.outputs as usize, p.bias_at as usize);
    let (layer, scales, quantized) = (args.f32s(0), args.output(), args.output());
    let (weights, rest) = quantized.split_at_mut(outputs * inputs);
    let pieces = (outputs * inputs).div_ceil(parallel::SMALL).next_multiple_of(rayon::current_num_threads());
    let rows = if outputs * inputs < parallel::SMALL { outputs } else { outputs.div_ceil(pieces) };
    weights.par_chunks_mut(rows * inputs).zip(scales.par_chunks_mut(rows)).zip(layer.par_chunks(rows * inputs)).for_each(
        |((quantized, scales), weights)| {
            let weights = &weights[..quantized.len()];
            pulp::Arch::new().dispatch(Rows { weights, scales, quantized, inputs, max_code: p.max_code });
        },
    );
    let (gap, biases) = rest.split_at_mut(bias_at - outputs * inputs);
    gap.fill(0.0);
    for ((q, &b), &s) in biases.iter_mut().zip(&layer[bias_at..]).zip(scales.iter()) {
        *q = if p.biases != 0 { quant::fake_quant(b, s, 1.0 / s, p.max_code) } else { b };
    }
}

fn case(name: &str, of: Layer, max_code: u32, biases: bool) -> Case {
    let mut case = Case::new(format!("layer_quant {name}"), 1, 0);
    let layer = case.random("layer", of.span());
    let (scales, quantized) = (case.output("scales", of.outputs), case.output("quantized", of.span()));
    quantize(&mut case.plan, "layer", of, max_code, biases, layer, scales, quantized);
    [scales, quantized].into_iter().for_each(|v| case.check(v, ELEMENTWISE));
    case
}

/// A row of zeros, one with ties (its scale is 1/8), one with a NaN; biases beyond the range.
fn special() -> Case {
    let mut case = Case::new("layer_quant zeros, ties, NaN", 1, 0);
    let of = Layer { inputs: 4, outputs: 3, bias_at: 14 };
    let weights = [0.0, -0.0, 0.0, 0.0, 0.875, 0.0625, -0.1875, -0.3125, 0.5, f32::NAN, -2.0, 1e-30];
    let layer = case.f32s("layer", [weights.as_slice(), &[7.0, 7.0, 0.5, -9.0, 1.0]].concat());
    let (scales, quantized) = (case.output("scales", 3), case.output("quantized", of.span()));
    quantize(&mut case.plan, "layer", of, 7, true, layer, scales, quantized);
    [scales, quantized].into_iter().for_each(|v| case.check(v, ELEMENTWISE));
    case
}

/// Cases.
pub fn cases() -> Vec<Case> {
    vec![
        special(),
        case("1 to 1", Layer { inputs: 1, outputs: 1, bias_at: 1 }, 7, true),
        case("13 to 5, a gap, the bias copied", Layer { inputs: 13, outputs: 5, bias_at: 128 }, 7, false),
        case("4 to 4, a gap", Layer { inputs: 4, outputs: 4, bias_at: 64 }, 7, true),
        case("367 to 64, INT8", Layer { inputs: 367, outputs: 64, bias_at: 367 * 64 }, 127, true),
        case("512 to 256", Layer { inputs: 512, outputs: 256, bias_at: 512 * 256 }, 7, true),
    ]
}

/// Shapes of the Kaggle model.
pub const SHAPES: &[fn() -> Case] = &[
    || case("367 to 512", Layer { inputs: 367, outputs: 512, bias_at: 367 * 512 }, 7, true),
    || case("512 to 256", Layer { inputs: 512, outputs: 256, bias_at: 512 * 256 }, 7, true),
];
