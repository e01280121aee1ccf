//! Other ways to compute this op, for some kinds of adapters.

use super::super::software::variant;
use crate::plan::variant::{Form, Job, Variant};
use Form::{Storage, Texels, Texels4};

const SOURCE: &str = include_str!("../../../shaders/variants/interaction_texels.wgsl");

fn suits(job: &Job<'_>) -> bool {
    job.param(1).is_multiple_of(4) && samples(job) <= 65_535
}

/// The dense vector is `[B, D]`.
fn samples(job: &Job<'_>) -> usize {
    job.len(0) / job.param(1)
}

fn forward_grid(job: &Job<'_>) -> [u32; 3] {
    [(job.len(2) / samples(job)).div_ceil(64) as u32, samples(job) as u32, 1]
}

fn backward_grid(job: &Job<'_>) -> [u32; 3] {
    [((job.param(0) + 1) * job.param(1) / 4).div_ceil(64) as u32, samples(job) as u32, 1]
}

/// Of `interaction_forward`.
pub(super) static FORWARD: [Variant; 1] =
    [variant("interaction_forward_texels", SOURCE, &[Texels4, Texels4, Storage], suits, forward_grid)];
/// Of `interaction_backward`.
pub(super) static BACKWARD: [Variant; 1] =
    [variant("interaction_backward_texels", SOURCE, &[Texels4, Texels4, Texels, Storage, Storage], suits, backward_grid)];
