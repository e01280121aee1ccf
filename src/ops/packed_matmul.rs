//! The linear layer of a packed model: `y = act(scale (x codesᵗ) + bias)`, from packed words; forward
//! only. Codes are small whole numbers, so they are exact as floats, and the scale is applied once to
//! each sum (arXiv 2410.20046 section 3.3; `QuantLinear` of the published code computes it so too).

use super::case::{Case, Tolerance, sums};
use super::product::{Keep, Matrix, product};
use super::matmul::{Linear, tiles};

use super::packed_bag::bits;
use crate::params;
use crate::plan::kernel::{reads, shared, writes};
use crate::plan::{Args, Elem, Kernel, Plan, View};
use crate::quant::{Bits, pack};

params!(
    /// Parameters of `packed_matmul`.
    PackedMatmulParams {
        /// Width of the layer's input.
        inputs: u32,
        /// Width of its output.
        outputs: u32,
        /// 1 when a ReLU follows.
        relu: u32,
        /// Width of a code.
        bits: u32,
        /// Words of a row of weights.
        words: u32,
        /// 1 with one scale for the whole matrix.
        matrix: u32,
        /// Added to every code.
        offset: f32,
    }
);

/// `y = act(scale (x codesᵗ) + bias)`
pub static PACKED_MATMUL: Kernel = Kernel {
    name: "packed_matmul",
    op: "packed_matmul",
    source: include_str!("../../shaders/packed_matmul.wgsl"),
    shared: &[shared::STEP, shared::PACK],
    workgroup: [8, 8, 1],
    params: PackedMatmulParams::FIELDS,
    bindings: &[
        reads("x", Elem::F32),
        reads("codes", Elem::U32),
        reads("scales", Elem::F32),
        reads("bias", Elem::F32),
        writes("y", Elem::F32),
    ],
    twin: packed_matmul,
    variants: &[],
};

/// This op's kernels.
pub const KERNELS: &[&Kernel] = &[&PACKED_MATMUL];

/// Rows of weights unpacked at a time: few enough to stay in a cache.
const BLOCK: usize = 256;
/// Batches up to this are summed row by row, where a matrix product would spend its time on preparations.
pub(crate) const FEW: usize = 4;

/// A layer's packed parameters on the device.
#[derive(Debug, Clone, Copy)]
pub struct PackedLayer {
    /// Width of a code.
    pub bits: Bits,
    /// Added to every code.
    pub offset: f32,
    /// `[outputs, words]`, each row on words of its own.
    pub codes: View,
    /// `[outputs]` or `[1]`.
    pub scales: View,
    /// `[outputs]`
    pub bias: View,
}

/// Words of a row of `inputs` codes.
pub fn words(bits: Bits, inputs: usize) -> usize {
    pack::row_bytes(bits, inputs).div_ceil(4)
}

/// Records `y = act(scale (x codesᵗ) + bias)` for up to `batch` samples.
pub fn forward(plan: &mut Plan, label: &str, layer: Linear, batch: usize, x: View, packed: &PackedLayer, y: View) {
    let params = PackedMatmulParams {
        inputs: layer.inputs as u32,
        outputs: layer.outputs as u32,
        relu: u32::from(layer.relu),
        bits: packed.bits.width(),
        words: words(packed.bits, layer.inputs) as u32,
        matrix: u32::from(packed.scales.len == 1),
        offset: packed.offset,
    };
    plan.push(&PACKED_MATMUL, label, &params, &[x, packed.codes, packed.scales, packed.bias, y], tiles(layer.outputs, batch));
}

/// What both ways to compute the sums need.
struct Weights<'a> {
    bits: Bits,
    offset: f32,
    inputs: usize,
    row_bytes: usize,
    codes: &'a [u8],
}

impl Weights<'_> {
    /// Codes of row `o` as floats.
    #[inline(always)]
    fn row(&self, o: usize, out: &mut [f32]) {
        pack::decode_row(&self.codes[o * self.row_bytes..][..self.row_bytes], self.bits, 1.0, self.offset, out);
    }
}

/// Sums of one sample, row of weights by row, on one thread: two were slower (0.13 ms, not 0.10, for Kaggle's MLPs).
struct Sums<'a> {
    weights: &'a Weights<'a>,
    x: &'a [f32],
    y: &'a mut [f32],
    /// What the codes' offset adds: `offset Σ x`.
    shift: f32,
}

impl pulp::NullaryFnOnce for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let w = self.weights;
        for (y, row) in self.y.iter_mut().zip(w.codes.chunks_exact(w.row_bytes)) {
            *y = pack::dot_row(row, w.bits, self.x) + self.shift;
        }
    }
}

/// Unpacks a block of rows.
struct Unpack<'a> {
    weights: &'a Weights<'a>,
    first: usize,
    out: &'a mut [f32],
}

impl pulp::NullaryFnOnce for Unpack<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (i, row) in self.out.chunks_exact_mut(self.weights.inputs).enumerate() {
            self.weights.row(self.first + i, row);
        }
    }
}

fn packed_matmul(mut args: Args<'_>) {
    let p: PackedMatmulParams = args.params();
    let (inputs, outputs, batch) = (p.inputs as usize, p.outputs as usize, args.step.batch as usize);
    let codes = bytemuck::cast_slice(args.u32s(1));
    let weights = Weights { bits: bits(p.bits), offset: p.offset, inputs, row_bytes: 4 * p.words as usize, codes };
    let (x, scales, bias) = (&args.f32s(0)[..batch * inputs], args.f32s(2), args.f32s(3));
    let y = &mut args.output()[..batch * outputs];
    if batch <= FEW {
        for (x, y) in x.chunks_exact(inputs).zip(y.chunks_exact_mut(outputs)) {
            let shift = if p.offset == 0.0 { 0.0 } else { p.offset * x.iter().sum::<f32>() };
            pulp::Arch::new().dispatch(Sums { weights: &weights, x, y, shift });
        }
    } else {
        let mut block = vec![0.0; BLOCK.min(outputs) * inputs];
        for first in (0..outputs).step_by(BLOCK) {
            let count = BLOCK.min(outputs - first);
            pulp::Arch::new().dispatch(Unpack { weights: &weights, first, out: &mut block[..count * inputs] });
            let a = Matrix { values: x, row_stride: inputs, column_stride: 1 };
            let b = Matrix { values: &block, row_stride: 1, column_stride: inputs };
            product(&mut y[first..], outputs, [batch, count, inputs], a, b, &Keep);
        }
    }
    let matrix = p.matrix != 0;
    pulp::Arch::new().dispatch(|| {
        for row in y.chunks_exact_mut(outputs) {
            for (o, v) in row.iter_mut().enumerate() {
                let sum = *v * scales[if matrix { 0 } else { o }] + bias[o];
                *v = if p.relu != 0 && sum <= 0.0 { 0.0 } else { sum };
            }
        }
    });
}

fn case(batch: usize, inputs: usize, outputs: usize, bits: Bits, matrix: bool, relu: bool, offset: f32) -> Case {
    let kind = format!("{bits}{}{}", if matrix { ", one scale" } else { "" }, if relu { ", ReLU" } else { "" });
    let mut case = Case::new(format!("packed_matmul B {batch}, {inputs} to {outputs}, {kind}"), batch, 0);
    let layer = Linear { inputs, outputs, relu };
    let (x, bias) = (case.random("x", batch * inputs), case.random("bias", outputs));
    let code_words = (0..outputs * words(bits, inputs)).map(|i| (i as u32).wrapping_mul(2_654_435_761).rotate_left(9)).collect();
    let codes = case.u32s("codes", code_words);
    // Codes up to n on a grid up to 1: values of about unit size at every width.
    let unit = 1.0 / bits.max_code() as f32;
    let scales = case.f32s("scales", (0..if matrix { 1 } else { outputs }).map(|o| unit * (0.5 + 0.125 * (o % 4) as f32)).collect());
    let y = case.output("y", batch * outputs);
    forward(&mut case.plan, "layer", layer, batch, x, &PackedLayer { bits, offset, codes, scales, bias }, y);
    let tolerance = sums(inputs);
    case.check(y, Tolerance { absolute: 2.0 * tolerance.absolute, reason: "another order of summation, codes up to twice the unit", ..tolerance });
    case
}

/// Cases.
pub fn cases() -> Vec<Case> {
    vec![
        case(1, 1, 1, Bits::B4, false, false, 0.0),
        case(1, 13, 512, Bits::B4, false, true, 0.0),
        case(2, 367, 33, Bits::B4, false, true, 0.0),
        case(7, 3, 1, Bits::B4, true, false, 0.5),
        case(33, 65, 34, Bits::B4, false, true, 0.0),
        case(5, 17, 130, Bits::B2, false, false, 0.5),
        case(5, 17, 65, Bits::B8, true, true, 0.0),
        case(5, 17, 65, Bits::B16, false, false, 0.0),
        case(128, 13, 512, Bits::B4, false, true, 0.0),
        case(128, 367, 512, Bits::B4, false, true, 0.0),
        case(128, 512, 256, Bits::B4, false, true, 0.0),
    ]
}

/// Shapes of the Kaggle model.
pub const SHAPES: &[fn() -> Case] = &[
    || case(1, 367, 512, Bits::B4, false, true, 0.0),
    || case(1, 512, 256, Bits::B4, false, true, 0.0),
    || case(128, 367, 512, Bits::B4, false, true, 0.0),
    || case(128, 512, 256, Bits::B4, false, true, 0.0),
    || case(2048, 367, 512, Bits::B4, false, true, 0.0),
    || case(2048, 512, 256, Bits::B4, false, true, 0.0),
];
