//! What variants for software adapters without subgroups have in common.

use crate::plan::kernel::shared;
use crate::plan::variant::{Form, Job, MadeFor, Variant, always};

const SHARED: &[&str] = &[shared::STEP, shared::INDEX, shared::QUANT, shared::TEXELS];
/// Groups of four floats in a texel; for texts that know two kinds.
pub(super) const WIDE: &str = "const WIDE = true;";
/// One float in a texel.
pub(super) const NARROW: &str = "const WIDE = false;";

/// A variant whose entry point has its name, in workgroups of 64.
pub(super) const fn variant(
    name: &'static str,
    source: &'static str,
    forms: &'static [Form],
    suits: fn(&Job<'_>) -> bool,
    grid: fn(&Job<'_>) -> [u32; 3],
) -> Variant {
    Variant {
        name,
        entry: name,
        consts: "",
        source,
        shared: SHARED,
        workgroup: [64, 1, 1],
        subgroup: None,
        cooperative: None,
        stages: None,
        made_for: MadeFor::Software,
        forms,
        suits,
        worth: always,
        grid,
    }
}
