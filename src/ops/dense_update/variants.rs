//! Other ways to compute this op, for some kinds of adapters.

use super::super::software::variant;
use crate::plan::variant::{Form, Variant};
use Form::{Storage, Texels4};
use crate::plan::grid;

const SOURCE: &str = include_str!("../../../shaders/variants/update_texels.wgsl");

/// Of `dense_sgd`.
pub(super) static SGD: [Variant; 1] =
    [variant("dense_sgd_texels", SOURCE, &[Texels4, Storage], |job| job.param(0).is_multiple_of(4), |job| grid(job.param(0) / 4))];
