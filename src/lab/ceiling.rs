//! What a device gives at most, measured: bytes a second of a copy, operations a second of a matrix product.

use super::timing::{self, Ceiling, Clock, Contestant};
use crate::engine::gpu::GpuAdapter;
use crate::error::{Error, Result};
use crate::ops::Case;
use crate::ops::case::{EXACT, GUARD, Work};
use crate::ops::matmul::{self, Linear, MATMUL_NT};
use crate::params;
use crate::plan::kernel::{reads, shared, writes};
use crate::plan::{Args, Elem, Kernel, grid};
use rayon::prelude::*;

params!(
    /// Parameters of `copy`.
    CopyParams {
        /// Vectors of four words.
        len: u32,
    }
);

/// `to[i] = from[i]`, sixteen bytes at a time.
static COPY: Kernel = Kernel {
    name: "copy",
    op: "copy",
    source: "
struct CopyParams {
    len: u32,
}
@group(0) @binding(0) var<uniform> copied: CopyParams;
@group(0) @binding(1) var<storage, read> from_: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> to: array<vec4<u32>>;

@compute @workgroup_size(64)
fn copy(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    if (i < copied.len) {
        to[i] = from_[i];
    }
}
",
    shared: &[shared::INDEX],
    workgroup: [64, 1, 1],
    params: CopyParams::FIELDS,
    bindings: &[reads("from_", Elem::U32), writes("to", Elem::U32)],
    twin: copy,
};

fn copy(mut args: Args<'_>) {
    let from = args.u32s(0);
    args.output_u32().par_chunks_mut(1 << 16).zip(from.par_chunks(1 << 16)).for_each(|(to, from)| to.copy_from_slice(from));
}

/// A copy of `words` words.
fn copy_case(words: usize) -> Case {
    let mut case = Case::new("copy", 1, 0);
    let from = case.u32s("from", vec![1; words]);
    let to = case.output_u32("to", words);
    case.plan.push(&COPY, "all", &CopyParams { len: words as u32 / 4 }, &[from, to], grid(words / 4));
    case.check(to, EXACT);
    case
}

/// A product of two matrices of `width` by `width`.
fn product_case(width: usize) -> Case {
    let mut case = Case::new("product", width, 0);
    let layer = Linear { inputs: width, outputs: width, relu: false };
    let (x, w, bias) = (case.random("x", width * width), case.random("w", width * width), case.random("bias", width));
    let y = case.output("y", width * width);
    matmul::forward(&mut case.plan, "layer", layer, width, x, w, bias, y);
    case.check(y, EXACT);
    case.count(&MATMUL_NT, 2 * width * width * width);
    case
}

/// A run that takes as long as this, in seconds, is not a matter of beginning and ending it.
const LONG: f64 = 0.005;

/// Measures a device for about `seconds`: a copy of 64 MiB or more, and a product of square matrices with the
/// crate's own kernel, both as large as it takes for a run to last some milliseconds.
///
/// # Errors
/// What the device says.
pub async fn ceiling(adapter: Option<&GpuAdapter>, seconds: f64, clock: Clock<'_>) -> Result<Ceiling> {
    let copies = [1 << 24, 1 << 26].into_iter().map(|words| (copy_case as fn(usize) -> Case, words, words));
    let products = [256, 512, 1024, 2048, 4096].into_iter().map(|width| (product_case as fn(usize) -> Case, width, width * width));
    let copied = largest(copies, &COPY, adapter, seconds / 2.0, clock).await?;
    let product = largest(products, &MATMUL_NT, adapter, seconds / 2.0, clock).await?;
    Ok(Ceiling { bytes_per_second: copied.0.bytes as f64 / copied.1, flops_per_second: product.0.flops as f64 / product.1 })
}

/// Work and seconds of a kernel at the first of some sizes, each with the words of its largest buffer, at which a
/// run takes long, or at the largest that the device holds.
async fn largest(
    sizes: impl Iterator<Item = (fn(usize) -> Case, usize, usize)>,
    kernel: &Kernel,
    adapter: Option<&GpuAdapter>,
    seconds: f64,
    clock: Clock<'_>,
) -> Result<(Work, f64)> {
    let most = adapter.map_or(u64::MAX, |a| a.limits.max_binding.min(a.limits.max_buffer));
    let mut sizes = sizes.filter(|(_, _, words)| 4 * (words + GUARD) as u64 <= most).peekable();
    while let Some((make, size, _)) = sizes.next() {
        let case = make(size);
        let plan = timing::plan(&case, kernel).ok_or_else(|| Error::Plan(format!("the case does not run `{}`", kernel.name)))?;
        let mut contestants = [Contestant::new(super::load(adapter, plan).await?, &case).await?];
        let once = timing::race(&mut contestants, 0.0, clock).await?[0].median;
        if once >= LONG || sizes.peek().is_none() {
            return Ok((case.work(kernel), timing::race(&mut contestants, seconds, clock).await?[0].median));
        }
    }
    Err(Error::Device(format!("no size of `{}` fits the device, whose largest binding is {most} bytes", kernel.name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::compare;

    #[test]
    fn the_copy_copies() {
        let case = copy_case(1000);
        let expected = pollster::block_on(compare::reference(&case)).unwrap();
        let from = case.inputs[0].0;
        let (a, b) = (&expected[from.buffer.0][..1000], &expected[case.checks[0].0.buffer.0][..1000]);
        assert_eq!(a, b);
        assert_eq!(case.work(&COPY).bytes, 8000);
        for adapter in pollster::block_on(crate::engine::gpu::adapters()).iter().take(1) {
            let mut engine = pollster::block_on(super::super::load(Some(adapter), case.plan.clone())).unwrap();
            let verdict = pollster::block_on(compare::check(&case, &expected, &mut *engine)).unwrap();
            assert!(verdict.faults.is_empty() && verdict.compared == 1000, "{verdict:?}");
        }
    }
}
