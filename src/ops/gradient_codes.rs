//! Gradients as codes, for workers that send them to each other (arXiv 2410.20046 section 3.3 and appendix B).
//!
//! The gradients of the touched rows, on one scale for each table: `s_k = max(max |g|, 1e-8) / n` over the
//! table's rows and `code = clamp(round(g / s_k), -n - 1, n)`. Those of the MLPs, on the scales of groups (`group_scale` of
//! [`super::fake_quant`]) and with error feedback: what a code leaves out, `error = g - s code`, is added to the next
//! gradient. `n = 2^(bits-1) - 1`; bits are 4, 8 or 16. Codes lie flat in words, the first in the lowest bits, across the
//! ends of rows and groups; as bytes they are what [`quant::gradient`] reads. A NaN has the code 0, and NaN for a scale.

use super::case::{Case, EXACT, Tolerance, kaggle_rows};
use super::embedding_bag::{BatchViews, example, views};
use super::parallel::{self, Row as _};
use crate::params;
use crate::plan::kernel::{reads, shared, updates, writes};
use crate::plan::{Args, Elem, Kernel, Plan, View, grid, groups as workgroups};
use crate::quant::{self, gradient};
use crate::tables::Tables;
use rayon::prelude::*;

params!(
    /// Parameters of `row_gradient_scale`.
    RowScaleParams {
        /// D
        dim: u32,
        /// Largest code.
        max_code: f32,
    }
);
params!(
    /// Parameters of `row_gradient_codes`.
    RowCodesParams {
        /// D
        dim: u32,
        /// Width of a code.
        bits: u32,
        /// Largest code.
        max_code: f32,
    }
);
params!(
    /// Parameters of `add_errors`.
    AddErrorsParams {
        /// Elements.
        len: u32,
    }
);
params!(
    /// Parameters of `group_codes`.
    GroupCodesParams {
        /// Elements.
        len: u32,
        /// Elements that share a scale.
        group_len: u32,
        /// Width of a code.
        bits: u32,
        /// Largest code.
        max_code: f32,
    }
);

const SOURCE: &str = include_str!("../../shaders/gradient_codes.wgsl");
const SHARED: &[&str] = &[shared::STEP, shared::INDEX, shared::QUANT];

/// One scale for each table, from the gradients of its touched rows.
pub static ROW_GRADIENT_SCALE: Kernel = Kernel {
    name: "row_gradient_scale",
    op: "gradient_codes",
    source: SOURCE,
    shared: SHARED,
    workgroup: [256, 1, 1],
    params: RowScaleParams::FIELDS,
    bindings: &[reads("row_tables", Elem::U32), reads("row_gradients", Elem::F32), writes("table_scales", Elem::F32)],
    twin: row_gradient_scale,
    variants: &[],
};

/// The codes of the touched rows.
pub static ROW_GRADIENT_CODES: Kernel = Kernel {
    name: "row_gradient_codes",
    op: "gradient_codes",
    source: SOURCE,
    shared: SHARED,
    workgroup: [64, 1, 1],
    params: RowCodesParams::FIELDS,
    bindings: &[
        reads("row_tables", Elem::U32),
        reads("row_gradients", Elem::F32),
        reads("row_scales", Elem::F32),
        writes("row_codes", Elem::U32),
    ],
    twin: row_gradient_codes,
    variants: &[],
};

/// Adds what was not sent before.
pub static ADD_ERRORS: Kernel = Kernel {
    name: "add_errors",
    op: "gradient_codes",
    source: SOURCE,
    shared: SHARED,
    workgroup: [64, 1, 1],
    params: AddErrorsParams::FIELDS,
    bindings: &[reads("errors", Elem::F32), updates("corrected", Elem::F32)],
    twin: add_errors_twin,
    variants: &[],
};

/// The codes of groups, and what they leave out.
pub static GROUP_CODES: Kernel = Kernel {
    name: "group_codes",
    op: "gradient_codes",
    source: SOURCE,
    shared: SHARED,
    workgroup: [64, 1, 1],
    params: GroupCodesParams::FIELDS,
    bindings: &[
        reads("gradients", Elem::F32),
        reads("group_scales", Elem::F32),
        writes("codes", Elem::U32),
        writes("unsent", Elem::F32),
    ],
    twin: group_codes,
    variants: &[],
};

/// This op's kernels.
pub const KERNELS: &[&Kernel] = &[&ROW_GRADIENT_SCALE, &ROW_GRADIENT_CODES, &ADD_ERRORS, &GROUP_CODES];

/// Words that the codes of `elements` gradients take.
pub fn words(elements: usize, bits: u32) -> usize {
    (elements * bits as usize).div_ceil(32)
}

/// Records `scales` `[K]` from the live rows of `row_gradients` `[U, D]`; a table that no sample touched gets
/// the smallest scale there is.
pub fn row_scales(plan: &mut Plan, tables: &Tables, batch: &BatchViews, bits: u32, row_gradients: View, scales: View) {
    let params = RowScaleParams { dim: tables.dim() as u32, max_code: gradient::max_code(bits) as f32 };
    plan.push(&ROW_GRADIENT_SCALE, "rows", &params, &[batch.row_tables, row_gradients, scales], workgroups(scales.len));
}

/// Records the codes of the live rows of `row_gradients` `[U, D]` on `scales` `[K]`: the first
/// [`words`]`(touched D, bits)` of `codes` `[words(U D, bits)]`. What is left of the last word is zero; the
/// words behind it stay as they are.
pub fn rows(plan: &mut Plan, batch: &BatchViews, dim: usize, bits: u32, scales: View, row_gradients: View, codes: View) {
    let params = RowCodesParams { dim: dim as u32, bits, max_code: gradient::max_code(bits) as f32 };
    let views = [batch.row_tables, row_gradients, scales, codes];
    plan.push(&ROW_GRADIENT_CODES, "rows", &params, &views, grid(words(row_gradients.len, bits)));
}

/// Records `gradients += errors`, of equal length: what [`groups`] left out of the step before.
pub fn add_errors(plan: &mut Plan, label: &str, errors: View, gradients: View) {
    let params = AddErrorsParams { len: gradients.len as u32 };
    plan.push(&ADD_ERRORS, label, &params, &[errors, gradients], grid(gradients.len));
}

/// Records `codes` `[words(len, bits)]` and `errors` `[len]` of `gradients` `[len]` on `scales`, each of which
/// is shared by `len / scales.len` elements (a part of a row of codes may share a word with the next row's).
pub fn groups(plan: &mut Plan, label: &str, bits: u32, gradients: View, scales: View, codes: View, errors: View) {
    let (len, group_len) = (gradients.len as u32, (gradients.len / scales.len) as u32);
    let params = GroupCodesParams { len, group_len, bits, max_code: gradient::max_code(bits) as f32 };
    plan.push(&GROUP_CODES, label, &params, &[gradients, scales, codes, errors], grid(words(gradients.len, bits)));
}

fn row_gradient_scale(mut args: Args<'_>) {
    let p: RowScaleParams = args.params();
    let row_tables = &args.u32s(0)[..args.step.touched as usize];
    let gradients = args.f32s(1);
    let dim = p.dim as usize;
    let scale = |(k, out): (usize, &mut f32)| {
        let first = row_tables.partition_point(|&table| (table as usize) < k);
        let end = row_tables.partition_point(|&table| table as usize <= k);
        *out = quant::scale(gradient::max_abs(&gradients[first * dim..end * dim]), p.max_code as u32);
    };
    let scales = args.output();
    if row_tables.len() * dim < parallel::SMALL {
        return scales.iter_mut().enumerate().for_each(scale);
    }
    scales.par_iter_mut().enumerate().for_each(scale);
}

/// Which scale elements have.
trait Scales: Sync {
    /// The scale of element `i`, and the end of the elements from `i` on that have it too: at most `end`, at
    /// least `i + 1`.
    fn at(&self, i: usize, end: usize) -> (f32, usize);
}

/// A scale for each table.
struct OfTables<'a> {
    row_tables: &'a [u32],
    scales: &'a [f32],
    dim: usize,
}

impl Scales for OfTables<'_> {
    #[inline(always)]
    fn at(&self, i: usize, end: usize) -> (f32, usize) {
        let row = i / self.dim;
        let rows = &self.row_tables[row..end.div_ceil(self.dim)];
        let count = rows.partition_point(|&table| table == rows[0]);
        (self.scales[rows[0] as usize], end.min((row + count) * self.dim))
    }
}

/// A scale for each group.
struct OfGroups<'a> {
    scales: &'a [f32],
    group_len: usize,
}

impl Scales for OfGroups<'_> {
    #[inline(always)]
    fn at(&self, i: usize, end: usize) -> (f32, usize) {
        let group = i / self.group_len;
        (self.scales[group], end.min((group + 1) * self.group_len))
    }
}

/// Codes in words, [`gradient::BLOCK`] of them at a time.
struct Codes<'a, S> {
    bits: u32,
    values: &'a [f32],
    scales: S,
}

impl<S: Scales> parallel::Row<u32> for Codes<'_, S> {
    #[inline(always)]
    fn row(&self, block: usize, out: &mut [u32]) {
        let first = block * gradient::BLOCK;
        let last = self.values.len().min(first + gradient::BLOCK);
        let mut codes = [0; gradient::BLOCK];
        let mut at = first;
        while at < last {
            let (scale, end) = self.scales.at(at, last);
            gradient::encode(&self.values[at..end], 1.0 / scale, self.bits, &mut codes[at - first..end - first]);
            at = end;
        }
        gradient::write(&codes, self.bits, bytemuck::cast_slice_mut(out));
    }
}

/// Writes the codes of all values, the last block being shorter.
fn write_codes<S: Scales>(out: &mut [u32], op: &Codes<'_, S>) {
    let per_block = words(gradient::BLOCK, op.bits);
    let (blocks, rest) = out[..words(op.values.len(), op.bits)].split_at_mut(op.values.len() / gradient::BLOCK * per_block);
    parallel::each(blocks, per_block, op);
    op.row(op.values.len() / gradient::BLOCK, rest);
}

fn row_gradient_codes(mut args: Args<'_>) {
    let p: RowCodesParams = args.params();
    let (dim, touched) = (p.dim as usize, args.step.touched as usize);
    let scales = OfTables { row_tables: &args.u32s(0)[..touched], scales: args.f32s(2), dim };
    write_codes(args.output_u32(), &Codes { bits: p.bits, values: &args.f32s(1)[..touched * dim], scales });
}

fn add_errors_twin(mut args: Args<'_>) {
    let errors = args.f32s(0);
    parallel::pieces(args.output(), |first, gradients| {
        gradients.iter_mut().zip(&errors[first..]).for_each(|(g, e)| *g += e);
    });
}

/// What codes leave out, a group at a time.
struct Errors<'a> {
    values: &'a [f32],
    scales: &'a [f32],
    max_code: f32,
}

impl parallel::Row for Errors<'_> {
    #[inline(always)]
    fn row(&self, group: usize, out: &mut [f32]) {
        let (scale, inverse) = (self.scales[group], 1.0 / self.scales[group]);
        let values = &self.values[group * out.len()..];
        for (o, &g) in out.iter_mut().zip(values) {
            *o = g - scale * quant::code(g, inverse, self.max_code);
        }
    }
}

fn group_codes(mut args: Args<'_>) {
    let p: GroupCodesParams = args.params();
    let (values, scales, group_len) = (args.f32s(0), args.f32s(1), p.group_len as usize);
    write_codes(args.output_u32(), &Codes { bits: p.bits, values, scales: OfGroups { scales, group_len } });
    parallel::each(args.output(), group_len, &Errors { values, scales, max_code: p.max_code });
}

/// Scales are one quotient of given numbers, and small ones count as much as large ones.
const QUOTIENT: Tolerance = Tolerance { relative: 1e-6, absolute: 0.0, reason: "one division" };

/// Scales that are powers of two, so that `1 / s` and `g / s` are exact on every device and no code hangs on a
/// rounding; some too small for their values and some too large.
fn powers(count: usize, bits: u32) -> Vec<f32> {
    (0..count).map(|k| (2.0 - (k % 3) as f32).exp2() / (1u32 << bits) as f32).collect()
}

/// `len` floats in -1..1: two of three on a grid on which they often lie halfway between two codes.
fn gradients(name: &str, len: usize, bits: u32) -> Vec<f32> {
    let steps = 4.0 * (1u32 << bits) as f32;
    let values = super::case::random(name, len).into_iter().enumerate();
    values.map(|(i, v)| if i % 3 == 0 { v } else { (v * steps).round() / steps }).collect()
}

/// Scales and codes of the rows of a batch. `spare` more rows have room and are neither read nor written.
fn rows_case(name: &str, samples: usize, table_rows: &[u64], dim: usize, sizes: &[usize], bits: u32, spare: usize) -> Case {
    let (tables, batch) = example(samples, table_rows, dim, u64::MAX, sizes, false);
    let mut case = Case::new(format!("gradient_codes {name}, {bits} bits"), samples, batch.touched());
    let (live, all) = (batch.touched() * dim, (batch.touched() + spare) * dim);
    // What an earlier step left behind the live rows: no order and no numbers.
    let stale = |len: usize| (0..len).map(|i| (i * 5 % table_rows.len()) as u32);
    let row_tables = case.u32s("all_row_tables", batch.row_tables.iter().copied().chain(stale(spare)).collect());
    let index = BatchViews { row_tables, ..views(&mut case, &batch) };
    let values = gradients("row_gradients", live, bits).into_iter().chain(std::iter::repeat_n(f32::NAN, all - live));
    let row_gradients = case.f32s("row_gradients", values.collect());
    let scales = case.output("scales", tables.count());
    row_scales(&mut case.plan, &tables, &index, bits, row_gradients, scales);
    case.check(scales, QUOTIENT);
    let given = case.f32s("given_scales", powers(tables.count(), bits));
    let codes = case.output_u32("codes", words(live, bits));
    // The view has room for the spare rows, in the guard words behind the live ones.
    rows(&mut case.plan, &index, dim, bits, given, row_gradients, View { len: words(all, bits).max(1), ..codes });
    if live > 0 {
        case.check(codes, EXACT);
    }
    case
}

/// Codes and errors of a matrix, the errors of the step before added first.
fn groups_case(name: &str, outputs: usize, inputs: usize, count: usize, bits: u32) -> Case {
    let mut case = Case::new(format!("gradient_codes {name}, {bits} bits"), 1, 0);
    let len = outputs * inputs;
    let received = case.f32s("gradients", gradients("gradients", len, bits));
    let before = case.f32s("errors_before", gradients("errors_before", len, bits));
    add_errors(&mut case.plan, "matrix", before, received);
    case.check(received, EXACT);
    let scales = case.f32s("scales", powers(count, bits));
    let (codes, errors) = (case.output_u32("codes", words(len, bits)), case.output("errors", len));
    groups(&mut case.plan, "matrix", bits, received, scales, codes, errors);
    case.check(codes, EXACT);
    case.check(errors, EXACT);
    case
}

/// Ties, values beyond the range, NaN and infinities; a scale each for a NaN and an infinity.
fn special(bits: u32) -> Case {
    let mut case = Case::new(format!("gradient_codes ties, clamping, NaN, {bits} bits"), 1, 0);
    let mut values = vec![0.0, -0.0, 0.0625, 0.1875, 0.3125, -0.0625, -0.1875, -0.3125, 0.8125, 1e5, -0.9375, -1.0, -1.0625, -1e5, f32::NAN];
    values.extend([-f32::NAN, f32::from_bits(0x7fff_ffff), f32::INFINITY, f32::NEG_INFINITY, 0.125, 1e-30]);
    let len = values.len();
    let repeated = case.f32s("gradients", values.repeat(3));
    let scales = case.f32s("scales", vec![0.125, f32::NAN, f32::INFINITY]);
    let (codes, errors) = (case.output_u32("codes", words(3 * len, bits)), case.output("errors", 3 * len));
    groups(&mut case.plan, "ties", bits, repeated, scales, codes, errors);
    case.check(codes, EXACT);
    case.check(errors, EXACT);
    case
}

/// Scales of tables with a NaN, with an infinity, with zeros and without rows.
fn special_scales() -> Case {
    let (tables, batch) = example(1, &[1, 3, 1, 1, 1], 3, u64::MAX, &[1, 3, 1, 0, 1], false);
    let mut case = Case::new("gradient_codes scales of NaN, infinity, zeros, nothing", 1, batch.touched());
    let index = views(&mut case, &batch);
    let mut values = vec![f32::INFINITY, f32::NAN, -1.0, 0.25, f32::NEG_INFINITY, 0.5];
    values.resize(3 * batch.touched() - 6, 0.5);
    values.extend([0.0, -0.0, 0.0, -1e-10, 0.0, 1e-40]);
    let row_gradients = case.f32s("row_gradients", values);
    let scales = case.output("scales", 5);
    row_scales(&mut case.plan, &tables, &index, 4, row_gradients, scales);
    case.check(scales, QUOTIENT);
    case
}

/// Cases.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![special_scales()];
    for bits in [4, 8, 16] {
        cases.push(special(bits));
        cases.push(rows_case("one row", 1, &[1], 1, &[1], bits, 0));
        cases.push(rows_case("no row touched", 3, &[5, 2], 4, &[0], bits, 2));
        cases.push(rows_case("odd, tables untouched, room to spare", 7, &[1, 5, 33, 2, 9], 3, &[0, 1, 2, 0, 1], bits, 9));
        cases.push(rows_case("26 tables, B 128", 128, &[1000; 26], 16, &[1], bits, 5));
        cases.push(groups_case("1x1", 1, 1, 1, bits));
        cases.push(groups_case("3x367", 3, 367, 3, bits));
        cases.push(groups_case("512x13", 512, 13, 512, bits));
        cases.push(groups_case("a bias of 509", 1, 509, 1, bits));
    }
    // More than a piece of a thread, and more than one turn of a workgroup.
    cases.push(rows_case("two tables, 50,000 rows", 40_000, &[50_000, 20], 16, &[1], 8, 0));
    cases.push(groups_case("1024x479", 1024, 479, 1024, 8));
    cases
}

/// Shapes of the Kaggle model.
pub const SHAPES: &[fn() -> Case] = &[
    || rows_case("Kaggle, B 2048", 2048, &kaggle_rows(), 16, &[1], 8, 0),
    || groups_case("512x367", 512, 367, 512, 8),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::engine::cpu::CpuEngine;
    use crate::plan::schedule::Schedule;

    /// What buffers hold after a case.
    fn after(case: &Case, names: &[&str]) -> Vec<Vec<u32>> {
        let mut engine = CpuEngine::load(Schedule::new(case.plan.clone(), &CpuEngine::limits(None)).unwrap());
        case.inputs.iter().for_each(|(view, words)| engine.write(*view, words).unwrap());
        engine.run(&[0], &case.step).unwrap();
        names.iter().map(|name| pollster::block_on(engine.read(case.plan.find(name).unwrap())).unwrap()).collect()
    }

    #[test]
    fn words_hold_the_bytes_that_quantize_gives_and_errors_what_they_leave_out() {
        for bits in [4, 8, 16] {
            let case = groups_case("3x367", 3, 367, 3, bits);
            let found = after(&case, &["gradients", "codes", "errors"]);
            let (gradients, errors): (&[f32], &[f32]) = (bytemuck::cast_slice(&found[0]), bytemuck::cast_slice(&found[2]));
            let mut codes = vec![0; 3 * 367];
            gradient::add_codes(&bytemuck::cast_slice(&found[1])[..gradient::bytes(3 * 367, bits)], bits, &mut codes);
            for (group, scale) in powers(3, bits).into_iter().enumerate() {
                let elements = group * 367..(group + 1) * 367;
                let (mut bytes, mut expected) = (Vec::new(), vec![0; 367]);
                gradient::quantize(&gradients[elements.clone()], scale, bits, &mut bytes);
                gradient::add_codes(&bytes, bits, &mut expected);
                assert_eq!(codes[elements.clone()], expected, "{bits} bits, group {group}");
                for i in elements {
                    assert_eq!(errors[i], gradients[i] - scale * codes[i] as f32, "{bits} bits, element {i}");
                }
            }
        }
    }

    #[test]
    fn rows_have_the_scales_and_codes_of_their_tables() {
        for bits in [4, 8, 16] {
            let case = rows_case("odd, tables untouched, room to spare", 7, &[1, 5, 33, 2, 9], 3, &[0, 1, 2, 0, 1], bits, 9);
            let found = after(&case, &["all_row_tables", "row_gradients", "scales", "codes"]);
            let (row_tables, gradients, scales): (&[u32], &[f32], &[f32]) =
                (&found[0], bytemuck::cast_slice(&found[1]), bytemuck::cast_slice(&found[2]));
            let touched = case.step.touched as usize;
            let mut codes = vec![0; 3 * touched];
            gradient::add_codes(&bytemuck::cast_slice(&found[3])[..gradient::bytes(3 * touched, bits)], bits, &mut codes);
            let given = powers(5, bits);
            let mut largest = [0f32; 5];
            for i in 0..3 * touched {
                let table = row_tables[i / 3] as usize;
                largest[table] = largest[table].max(gradients[i].abs());
                let n = gradient::max_code(bits) as f32;
                assert_eq!(codes[i] as f32, (gradients[i] / given[table]).round_ties_even().clamp(-n - 1.0, n), "{bits} bits, element {i}");
            }
            assert!(largest.contains(&0.0) && largest.iter().any(|&l| l > 0.0), "tables with rows and without");
            for (table, largest) in largest.into_iter().enumerate() {
                assert_eq!(scales[table], quant::scale(largest, gradient::max_code(bits)), "{bits} bits, table {table}");
            }
        }
    }
}
