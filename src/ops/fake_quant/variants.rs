//! Other ways to compute this op, for some kinds of adapters.

use super::super::software::{NARROW, WIDE, variant};
use crate::plan::variant::{Form, Job, Variant};
use Form::{Storage, Texels, Texels4};

const SOURCE: &str = include_str!("../../../shaders/variants/fake_quant_texels.wgsl");

const fn of(name: &'static str, entry: &'static str, consts: &'static str, workgroup: u32, base: Variant) -> Variant {
    Variant { name, entry, consts, workgroup: [workgroup, 1, 1], ..base }
}

/// Enough groups to be worth an invocation each, and few enough turns for one.
fn scale_suits(job: &Job<'_>) -> bool {
    job.len(1) >= 8 && job.param(0) <= 30_000
}

fn scale_grid(job: &Job<'_>) -> [u32; 3] {
    [job.len(1).div_ceil(8) as u32, 1, 1]
}

/// Elements that share a scale.
fn group_len(job: &Job<'_>) -> usize {
    job.param(1)
}

fn quantize_suits(job: &Job<'_>) -> bool {
    group_len(job) >= 8 && job.len(1) <= 65_535
}

fn quantize_grid(job: &Job<'_>) -> [u32; 3] {
    [group_len(job).div_ceil(4 * 64) as u32, job.len(1) as u32, 1]
}

const SCALE: &str = "group_scale_texels";
const QUANTIZE: &str = "fake_quant_weights_texels";

/// Of `group_scale`.
pub(super) static SCALES: [Variant; 2] = [
    of(
        "group_scale_texels4",
        SCALE,
        WIDE,
        8,
        variant(SCALE, SOURCE, &[Texels4, Storage], |job| scale_suits(job) && job.param(0).is_multiple_of(4), scale_grid),
    ),
    of("group_scale_texels", SCALE, NARROW, 8, variant(SCALE, SOURCE, &[Texels, Storage], scale_suits, scale_grid)),
];
/// Of `fake_quant_weights`.
pub(super) static WEIGHTS: [Variant; 2] = [
    of(
        "fake_quant_weights_texels4",
        QUANTIZE,
        WIDE,
        64,
        variant(QUANTIZE, SOURCE, &[Texels4, Texels, Storage], |job| quantize_suits(job) && group_len(job).is_multiple_of(4), quantize_grid),
    ),
    of(
        "fake_quant_weights_texels",
        QUANTIZE,
        NARROW,
        64,
        variant(QUANTIZE, SOURCE, &[Texels, Texels, Storage], quantize_suits, quantize_grid),
    ),
];
