//! Other ways to compute this op, for some kinds of adapters.

use super::super::software::{NARROW, WIDE, variant};
use crate::plan::variant::{Form, Job, Variant};
use Form::{Storage, Texels, Texels4};

const SOURCE: &str = include_str!("../../../shaders/variants/layer_quant_texels.wgsl");
const ENTRY: &str = "layer_quant_texels";

/// Few enough turns of a loop for one invocation (two loops over a row, one over what lies behind the weights) and few
/// enough workgroups.
fn suits(job: &Job<'_>) -> bool {
    job.param(0) <= 15_000 && job.param(1).div_ceil(8) <= 65_535
}

fn grid(job: &Job<'_>) -> [u32; 3] {
    [job.param(1).div_ceil(8) as u32, 1, 1]
}

/// Of `layer_quant`.
pub(super) static LAYER: [Variant; 2] = [
    Variant {
        name: "layer_quant_texels4",
        consts: WIDE,
        workgroup: [8, 1, 1],
        ..variant(ENTRY, SOURCE, &[Texels4, Storage, Storage], |job| suits(job) && job.param(0).is_multiple_of(4), grid)
    },
    Variant { consts: NARROW, workgroup: [8, 1, 1], ..variant(ENTRY, SOURCE, &[Texels, Storage, Storage], suits, grid) },
];
