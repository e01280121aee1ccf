//! A copy of a buffer, four values at a time. No step needs it; it measures what a device's memory gives, one read
//! and one write of every value, so that other kernels can be held against it.

use super::case::{Case, EXACT};
use super::parallel;
use crate::params;
use crate::plan::kernel::{reads, shared, writes};
use crate::plan::{Args, Elem, Kernel, Plan, View, grid};

params!(
    /// Parameters of `copy`.
    CopyParams {
        /// Groups of four values.
        quads: u32,
    }
);

/// `copied = source`
pub static COPY: Kernel = Kernel {
    name: "copy",
    op: "copy",
    source: include_str!("../../shaders/copy.wgsl"),
    shared: &[shared::INDEX],
    workgroup: [64, 1, 1],
    params: CopyParams::FIELDS,
    bindings: &[reads("source", Elem::F32), writes("copied", Elem::F32)],
    twin: copy,
    variants: &[],
};

/// This op's kernels.
pub const KERNELS: &[&Kernel] = &[&COPY];

/// Records `copied = source`, both of one length.
///
/// # Panics
/// Views of different lengths, or of a length that is no multiple of four.
pub fn record(plan: &mut Plan, label: &str, source: View, copied: View) {
    assert!(source.len == copied.len && source.len.is_multiple_of(4), "a copy of {} values to {}", source.len, copied.len);
    let quads = source.len / 4;
    plan.push(&COPY, label, &CopyParams { quads: quads as u32 }, &[source, copied], grid(quads));
}

fn copy(mut args: Args<'_>) {
    let p: CopyParams = args.params();
    let (source, len) = (args.f32s(0), 4 * p.quads as usize);
    parallel::pieces(&mut args.output()[..len], |first, piece| piece.copy_from_slice(&source[first..first + piece.len()]));
}

fn case(len: usize) -> Case {
    let mut case = Case::new(format!("copy of {len}"), 1, 0);
    let source = case.random("source", len);
    let copied = case.output("copied", len);
    record(&mut case.plan, "all", source, copied);
    case.check(copied, EXACT);
    case
}

/// Cases.
pub fn cases() -> Vec<Case> {
    vec![case(4), case(260), case(40_000)]
}

/// A copy well beyond a cache of the second level.
pub const SHAPES: &[fn() -> Case] = &[|| case(1 << 22)];
