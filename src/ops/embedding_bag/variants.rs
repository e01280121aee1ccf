//! Other ways to compute this op, for some kinds of adapters.

use super::super::software::variant;
use crate::plan::variant::{Form, Variant};
use Form::{Storage, Texels4};
use crate::plan::grid;

const SOURCE: &str = include_str!("../../../shaders/variants/embedding_bag_texels.wgsl");

/// Of `gather_rows`: D is its first parameter.
pub(super) static GATHER: [Variant; 1] = [variant(
    "gather_rows_fours",
    SOURCE,
    &[Storage, Storage, Storage, Storage, Storage, Storage],
    |job| job.param(0).is_multiple_of(4) && job.len(5) >= 4,
    |job| grid(job.len(5).min(job.len(4)) / 4),
)];
/// Of `pool_bags`: D is its second parameter.
pub(super) static POOL: [Variant; 1] = [variant(
    "pool_bags_texels",
    SOURCE,
    &[Storage, Storage, Storage, Texels4, Storage],
    |job| job.param(1).is_multiple_of(4),
    |job| grid(job.len(4) / 4),
)];
/// Of `bag_gradient`: D is its second parameter.
pub(super) static GRADIENT: [Variant; 1] = [variant(
    "bag_gradient_texels",
    SOURCE,
    &[Storage, Storage, Storage, Texels4, Storage],
    |job| job.param(1).is_multiple_of(4) && job.len(4) >= 4,
    |job| grid(job.len(4) / 4),
)];
