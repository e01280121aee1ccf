//! The cases of [`super`].

use super::{CHUNK, first_scales, first_table_scales, gradient, table_gradient, table_sums, update};
use super::super::case::{Case, ELEMENTWISE, EXACT, Tolerance, kaggle_rows, random, sums};
use super::super::embedding_bag::{example, views};
use crate::plan::View;
use crate::tables::Tables;

fn begin(name: &str, rows: &[u64], dim: usize, max_binding: u64, max_code: u32) -> Case {
    let tables = Tables::new(rows, dim, max_binding).expect("a case's tables fit");
    let mut case = Case::new(format!("lsq first scales of tables {name}"), 1, 0);
    let shards: Vec<View> = (0..tables.shards()).map(|s| case.random(&format!("shard {s}"), tables.rows_in_shard(s) as usize * dim)).collect();
    let partials = case.output("partials", table_sums(&tables));
    let scales = case.output("scales", rows.len());
    first_table_scales(&mut case.plan, &tables, max_code, &shards, partials, scales);
    [partials, scales].into_iter().for_each(|v| case.check(v, sums(CHUNK)));
    case
}

/// Weights of `outputs` rows: first scales, and the gradient at scales that are powers of two, so that `w / s` is exact.
fn weights(name: &str, values: Vec<f32>, scales: usize, max_code: u32, tolerance: Tolerance) -> Case {
    let mut case = Case::new(format!("lsq weights {name}"), 1, 0);
    let len = values.len();
    let values = case.f32s("values", values);
    let (partials, first) = (case.output("partials", scales), case.output("first", scales));
    first_scales(&mut case.plan, "weights", max_code, values, partials, first);
    let given = case.f32s("scales", (0..scales).map(|i| 0.125 / (1 << (i % 3)) as f32).collect());
    let gradients = case.random("gradients", len);
    let d_scales = case.output("d_scales", scales);
    gradient(&mut case.plan, "weights", max_code, values, given, gradients, d_scales);
    case.check(gradients, EXACT);
    [first, d_scales].into_iter().for_each(|v| case.check(v, tolerance));
    case
}

fn touched(name: &str, samples: usize, rows: &[u64], dim: usize, max_binding: u64) -> Case {
    let (tables, batch) = example(samples, rows, dim, max_binding, &[1, 2, 0], false);
    let mut case = Case::new(format!("lsq rows {name}"), samples, batch.touched());
    let index = views(&mut case, &batch);
    let shards: Vec<View> = (0..tables.shards()).map(|s| case.random(&format!("shard {s}"), tables.rows_in_shard(s) as usize * dim)).collect();
    let scales = case.f32s("scales", (0..rows.len()).map(|k| 0.25 / (1 << (k % 4)) as f32).collect());
    let gradients = case.random("gradients", batch.touched() * dim);
    let (row_sums, d_scales) = (case.output("row_sums", batch.touched()), case.output("d_scales", rows.len()));
    table_gradient(&mut case.plan, &tables, &index, 7, scales, &shards, gradients, row_sums, d_scales);
    update(&mut case.plan, "tables", true, d_scales, scales);
    case.check(gradients, EXACT);
    [row_sums, d_scales, scales].into_iter().for_each(|v| case.check(v, sums(batch.touched() * dim)));
    case
}

/// Steps that would go below zero, and NaN.
fn updates_of(len: usize) -> Case {
    let mut case = Case::new(format!("lsq update of {len}"), 1, 0);
    let d_scales = case.random("d_scales", len);
    let mut values: Vec<f32> = random("scales", len).iter().map(|s| s.abs() * 0.2).collect();
    values[len / 2] = f32::NAN;
    let scales = case.f32s("scales", values);
    update(&mut case.plan, "all", false, d_scales, scales);
    case.check(scales, ELEMENTWISE);
    case
}

/// Cases.
pub fn cases() -> Vec<Case> {
    let all = u64::MAX;
    let lsq = |len| random("lsq", len);
    // Ties, both bounds, beyond them, and NaN, at a scale of 1/8.
    let special = vec![0.0, -0.0, 0.0625, 0.1875, -0.3125, 0.875, 0.9375, 2.0, -1.0, -1.0625, -9.0, f32::NAN, f32::INFINITY];
    vec![
        begin("one element", &[1], 1, all, 7),
        begin("odd", &[5, 1, 777], 3, all, 1),
        begin("over three bindings", &[10, 9000, 5], 16, 4000 * 64, 7),
        weights("1x1", vec![0.3], 1, 7, ELEMENTWISE),
        weights("special values", special.clone(), special.len(), 7, ELEMENTWISE),
        weights("zeros", vec![0.0; 70], 1, 7, ELEMENTWISE),
        weights("NaN in a group", special, 1, 7, ELEMENTWISE),
        weights("3x13, a scale per row", lsq(39), 3, 7, sums(13)),
        weights("64x367, a scale per row, INT8", lsq(64 * 367), 64, 127, sums(367)),
        weights("64x367, one scale, INT2", lsq(64 * 367), 1, 1, sums(64 * 367)),
        touched("one row", 1, &[1], 1, all),
        touched("odd, three bindings, one table untouched", 50, &[7, 90, 1], 3, 40 * 12),
        touched("26 tables, B 128", 128, &[1000; 26], 16, all),
        updates_of(1),
        updates_of(1001),
    ]
}

/// Shapes of the Kaggle model.
pub const SHAPES: &[fn() -> Case] = &[
    || begin("Kaggle", &kaggle_rows(), 16, u64::MAX, 7),
    || weights("512x367, a scale per row", random("lsq", 512 * 367), 512, 7, sums(367)),
    || touched("Kaggle, B 128", 128, &kaggle_rows(), 16, u64::MAX),
    || touched("Kaggle, B 2048", 2048, &kaggle_rows(), 16, u64::MAX),
];
