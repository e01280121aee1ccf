//! Backward passes against central differences of forward passes that are written here again, in f64.
//!
//! A coordinate whose two probes lie on different sides of a ReLU has no difference quotient worth
//! comparing; such coordinates are counted and must be few.
#![expect(clippy::print_stderr, reason = "the errors that were seen, for `--nocapture`")]

use crate::{Setup, devices, everything, small_config, small_model};
use dqrm::config::{Config, Interaction, Loss, Model, Optim};
use dqrm::data::{Batch, Block};
use dqrm::engine::Engine;
use dqrm::engine::cpu::CpuEngine;
use dqrm::engine::gpu::GpuEngine;
use dqrm::ops::case::{Case, random};
use dqrm::ops::embedding_bag::{self, BatchViews, Quantize};
use dqrm::ops::matmul::{self, Linear};
use dqrm::ops::{concat, interaction, loss};
use dqrm::plan::View;
use dqrm::plan::schedule::Schedule;
use dqrm::quant::Bits;
use dqrm::tables::Tables;
use pollster::block_on;

const H: f64 = 1e-5;

/// A scalar, and which ReLUs were open on the way to it.
type Probe = (f64, Vec<bool>);

/// `dy/dx` by central differences; none where a ReLU switches in between.
fn numeric(x: &[f64], f: impl Fn(&[f64]) -> Probe) -> Vec<Option<f64>> {
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let old = x[i];
            x[i] = old + H;
            let (above, open_above) = f(&x);
            x[i] = old - H;
            let (below, open_below) = f(&x);
            x[i] = old;
            (open_above == open_below).then_some((above - below) / (2.0 * H))
        })
        .collect()
}

/// Compares `got` with differences of magnitude about 1 or more. f32 sums of up to a few hundred terms of
/// size 1 are off by about 1e-6; the quotient itself is off by about 1e-10.
#[track_caller]
fn compare(what: &str, got: &[f32], expected: &[Option<f64>], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let mut largest = 0.0f64;
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        let Some(e) = e else { continue };
        let error = (*g as f64 - e).abs() / e.abs().max(1.0);
        assert!(error <= tolerance, "{what}[{i}]: {g} instead of {e}");
        largest = largest.max(error);
    }
    let skipped = expected.iter().filter(|e| e.is_none()).count();
    assert!(skipped * 100 <= expected.len(), "{what}: {skipped} of {} at a kink", expected.len());
    let nonzero = expected.iter().flatten().filter(|e| e.abs() > 1e-9).count();
    assert!(nonzero * 4 >= expected.len(), "{what}: only {nonzero} of {} differences are not zero", expected.len());
    eprintln!("{what}: {} values, {skipped} at a kink, largest error {largest:.1e}", got.len());
}

/// Runs the recorded commands on every engine; gives, for each, its name and the views asked for.
pub(crate) fn run(case: &Case, views: &[View]) -> Vec<(&'static str, Vec<Vec<f32>>)> {
    let mut engines: Vec<(&str, Box<dyn Engine>)> = Vec::new();
    let schedule = Schedule::new(case.plan.clone(), &CpuEngine::limits(None)).unwrap();
    engines.push(("cpu", Box::new(CpuEngine::load(schedule))));
    if let Some(adapter) = crate::common::gpu() {
        let schedule = Schedule::new(case.plan.clone(), &adapter.limits).unwrap();
        engines.push(("gpu", Box::new(block_on(GpuEngine::load(&adapter, schedule)).unwrap())));
    }
    let outcome = |(name, mut engine): (&'static str, Box<dyn Engine>)| {
        case.inputs.iter().for_each(|(v, words)| engine.write(*v, words).unwrap());
        engine.run(&[0], &case.step).unwrap();
        let read = |v: &View| bytemuck::cast_slice(&block_on(engine.read(*v)).unwrap()).to_vec();
        (name, views.iter().map(read).collect())
    };
    engines.into_iter().map(outcome).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| v as f64).collect()
}

fn weighted(out: &[f64], upstream: &[f32]) -> f64 {
    assert_eq!(out.len(), upstream.len());
    out.iter().zip(upstream).map(|(o, u)| o * *u as f64).sum()
}

/// `y[b, o] = Σ_i x[b, i] w[o, i] + bias[o]`, in f64.
fn linear(x: &[f64], w: &[f64], bias: &[f64]) -> Vec<f64> {
    let (outputs, inputs) = (bias.len(), w.len() / bias.len());
    x.chunks(inputs)
        .flat_map(|row| (0..outputs).map(move |o| bias[o] + (0..inputs).map(|i| row[i] * w[o * inputs + i]).sum::<f64>()))
        .collect()
}

/// ReLU, which notes what was open.
fn relu(values: &mut [f64], open: &mut Vec<bool>) {
    for v in values {
        open.push(*v > 0.0);
        *v = v.max(0.0);
    }
}

#[test]
fn linear_layers() {
    let (batch, widths) = (5, [7, 9, 3]);
    for with_relu in [false, true] {
        let data = [
            random("grad x", batch * widths[0]),
            random("grad w0", widths[0] * widths[1]),
            random("grad b0", widths[1]),
            random("grad w1", widths[1] * widths[2]),
            random("grad b1", widths[2]),
        ];
        let upstream = random("grad up", batch * widths[2]);
        let mut case = Case::new("two layers", batch, 0);
        let inputs: Vec<View> = data.iter().enumerate().map(|(i, values)| case.f32s(&format!("in {i}"), values.clone())).collect();
        let [x, w0, b0, w1, b1] = inputs[..] else { panic!() };
        let dz1 = case.f32s("dz1", upstream.clone());
        let first = Linear { inputs: widths[0], outputs: widths[1], relu: with_relu };
        let second = Linear { inputs: widths[1], outputs: widths[2], relu: false };
        let (y0, y1) = (case.output("y0", batch * widths[1]), case.output("y1", batch * widths[2]));
        let outputs: Vec<View> = data.iter().enumerate().map(|(i, values)| case.output(&format!("out {i}"), values.len())).collect();
        let [dx, dw0, db0, dw1, db1] = outputs[..] else { panic!() };
        let dz0 = case.output("dz0", batch * widths[1]);
        matmul::forward(&mut case.plan, "first", first, batch, x, w0, b0, y0);
        matmul::forward(&mut case.plan, "second", second, batch, y0, w1, b1, y1);
        matmul::backward_weights(&mut case.plan, "second", second, dz1, y0, dw1, db1);
        matmul::backward_input(&mut case.plan, "second", second, batch, dz1, w1, with_relu.then_some(y0), dz0);
        matmul::backward_weights(&mut case.plan, "first", first, dz0, x, dw0, db0);
        matmul::backward_input(&mut case.plan, "first", first, batch, dz0, w0, None, dx);

        let results = run(&case, &outputs);
        for at in 0..data.len() {
            let expected = numeric(&wide(&data[at]), |changed| {
                let part = |i: usize| if i == at { changed.to_vec() } else { wide(&data[i]) };
                let (mut y, mut open) = (linear(&part(0), &part(1), &part(2)), Vec::new());
                if with_relu {
                    relu(&mut y, &mut open);
                }
                (weighted(&linear(&y, &part(3), &part(4)), &upstream), open)
            });
            for (engine, got) in &results {
                compare(&format!("linear, ReLU {with_relu}, {engine}, argument {at}"), &got[at], &expected, 3e-6);
            }
        }
    }
}

/// `concat(T_0, T_i . T_j)` for one sample after another, in f64.
fn dots(dense: &[f64], pooled: &[f64], tables: usize, dim: usize, diagonal: bool) -> Vec<f64> {
    let mut out = Vec::new();
    for (first, rest) in dense.chunks(dim).zip(pooled.chunks(tables * dim)) {
        let vectors: Vec<&[f64]> = std::iter::once(first).chain(rest.chunks(dim)).collect();
        out.extend(first);
        for i in 0..vectors.len() {
            for j in 0..if diagonal { i + 1 } else { i } {
                out.push(vectors[i].iter().zip(vectors[j]).map(|(a, b)| a * b).sum());
            }
        }
    }
    out
}

fn side_by_side(dense: &[f64], pooled: &[f64], tables: usize, dim: usize) -> Vec<f64> {
    dense.chunks(dim).zip(pooled.chunks(tables * dim)).flat_map(|(a, b)| [a, b].concat()).collect()
}

/// Both interactions take the gradient back to before the ReLU that made the dense vector, so the
/// differences are taken there.
#[test]
fn interactions() {
    let (batch, tables, dim) = (4, 3, 5);
    let before = random("grad before", batch * dim); // about half of it below zero
    let pooled = random("grad pooled", batch * tables * dim);
    for (name, diagonal, dot) in [("dot", false, true), ("dot, diagonal", true, true), ("cat", false, false)] {
        let pairs = interaction::Pairs { tables, dim, diagonal };
        let width = if dot { dim + (tables + 1) * if diagonal { tables + 2 } else { tables } / 2 } else { dim * (tables + 1) };
        let upstream = random("grad joined", batch * width);
        let mut case = Case::new(name, batch, 0);
        let dense = case.f32s("dense", before.iter().map(|v| v.max(0.0)).collect());
        let pooled_view = case.f32s("pooled", pooled.clone());
        let d_joined = case.f32s("d_joined", upstream.clone());
        let joined = case.output("joined", batch * width);
        let (d_dense, d_pooled) = (case.output("d_dense", batch * dim), case.output("d_pooled", pooled.len()));
        if dot {
            assert_eq!(pairs.width(), width);
            interaction::forward(&mut case.plan, pairs, batch, dense, pooled_view, joined);
            interaction::backward(&mut case.plan, pairs, batch, dense, pooled_view, d_joined, d_dense, d_pooled);
        } else {
            concat::forward(&mut case.plan, tables, dim, batch, dense, pooled_view, joined);
            concat::backward(&mut case.plan, tables, dim, batch, dense, d_joined, d_dense, d_pooled);
        }
        let forward = |before: &[f64], pooled: &[f64]| -> Vec<f64> {
            let (mut dense, mut open) = (before.to_vec(), Vec::new());
            relu(&mut dense, &mut open);
            if dot { dots(&dense, pooled, tables, dim, diagonal) } else { side_by_side(&dense, pooled, tables, dim) }
        };
        let of_dense =
            numeric(&wide(&before), |b| (weighted(&forward(b, &wide(&pooled)), &upstream), b.iter().map(|v| *v > 0.0).collect()));
        let of_pooled = numeric(&wide(&pooled), |p| (weighted(&forward(&wide(&before), p), &upstream), Vec::new()));
        for (engine, got) in run(&case, &[joined, d_dense, d_pooled]) {
            let exact: Vec<_> = forward(&wide(&before), &wide(&pooled)).into_iter().map(Some).collect();
            compare(&format!("{name}, {engine}, forward"), &got[0], &exact, 1e-6);
            compare(&format!("{name}, {engine}, dense"), &got[1], &of_dense, 3e-6);
            compare(&format!("{name}, {engine}, pooled"), &got[2], &of_pooled, 3e-6);
        }
    }
}

pub(crate) fn index_views(case: &mut Case, batch: &Batch) -> BatchViews {
    BatchViews {
        bag_offsets: case.u32s("bag_offsets", batch.bag_offsets.clone()),
        bag_rows: case.u32s("bag_rows", batch.bag_rows.clone()),
        rows: case.u32s("rows", batch.rows.clone()),
        row_tables: case.u32s("row_tables", batch.row_tables.clone()),
        shard_offsets: case.u32s("shard_offsets", batch.shard_offsets.clone()),
        row_offsets: case.u32s("row_offsets", batch.row_offsets.clone()),
        row_samples: case.u32s("row_samples", batch.row_samples.clone()),
    }
}

#[test]
fn embedding_bags() {
    // bags empty, with one id, with the same id twice, over three shards; rows 3 and 4 of table 0 are never used
    let bags: [&[u32]; 8] = [&[0, 2, 2], &[], &[1], &[4, 4, 4, 0], &[], &[5, 0], &[2], &[1, 5, 1]];
    let (samples, rows, dim) = (4, [5u64, 6], 3);
    let tables = Tables::new(&rows, dim, 4 * 12).unwrap(); // four rows in a shard
    assert_eq!(tables.shards(), 3);
    let mut block = Block { samples, dense: vec![0.0; samples], ..Block::new() };
    for bag in bags {
        block.ids.extend(bag);
        block.end_bag();
    }
    let batch = Batch::prepare(&block, &tables).unwrap();
    let values = random("grad tables", 11 * dim);
    let upstream = random("grad bags", samples * 2 * dim);

    let mut case = Case::new("bags", samples, batch.touched());
    let index = index_views(&mut case, &batch);
    let scales = case.f32s("scales", vec![0.0; 2]);
    let shards: Vec<View> = values.chunks(4 * dim).enumerate().map(|(s, v)| case.f32s(&format!("shard {s}"), v.to_vec())).collect();
    let (gathered, pooled) = (case.output("gathered", batch.touched() * dim), case.output("pooled", samples * 2 * dim));
    embedding_bag::forward(&mut case.plan, &tables, &index, Quantize::Nothing, scales, &shards, gathered, pooled);
    let d_pooled = case.f32s("d_pooled", upstream.clone());
    let gradients = case.output("gradients", batch.touched() * dim);
    embedding_bag::backward(&mut case.plan, &tables, &index, d_pooled, gradients);

    let sums = |values: &[f64]| -> Vec<f64> {
        let mut out = vec![0.0; samples * 2 * dim];
        for (bag, ids) in bags.iter().enumerate() {
            for id in *ids {
                let row = if bag % 2 == 0 { *id as usize } else { 5 + *id as usize };
                (0..dim).for_each(|d| out[bag * dim + d] += values[row * dim + d]);
            }
        }
        out
    };
    let expected = numeric(&wide(&values), |v| (weighted(&sums(v), &upstream), Vec::new()));
    let of_row = |row: usize| &expected[row * dim..(row + 1) * dim];
    let touched: Vec<usize> = (0..batch.touched()).map(|u| (4 * shard_of(&batch, u) as u32 + batch.rows[u]) as usize).collect();
    assert_eq!(touched, [0, 1, 2, 5, 6, 9, 10]);
    assert!((0..11).filter(|row| !touched.contains(row)).all(|row| of_row(row).iter().all(|g| *g == Some(0.0))));
    let listed: Vec<Option<f64>> = touched.iter().flat_map(|&row| of_row(row).to_vec()).collect();
    for (engine, got) in run(&case, &[pooled, gradients]) {
        let exact: Vec<_> = sums(&wide(&values)).into_iter().map(Some).collect();
        compare(&format!("bags, {engine}, forward"), &got[0], &exact, 1e-6);
        compare(&format!("bags, {engine}, rows"), &got[1], &listed, 3e-6);
    }
}

fn shard_of(batch: &Batch, u: usize) -> usize {
    batch.shard_offsets.iter().rposition(|&start| start as usize <= u).unwrap()
}

/// Mean loss of logits, from its textbook formula in f64.
fn mean_loss(kind: Loss, logits: &[f64], labels: &[f32]) -> f64 {
    let one = |(x, t): (&f64, &f32)| {
        let (p, t) = (1.0 / (1.0 + (-x).exp()), *t as f64);
        match kind {
            Loss::Bce => -(t * p.ln() + (1.0 - t) * (1.0 - p).ln()),
            Loss::Mse => (p - t) * (p - t),
        }
    };
    logits.iter().zip(labels).map(one).sum::<f64>() / logits.len() as f64
}

#[test]
fn losses() {
    let batch = 9;
    let logits: Vec<f32> = random("grad logits", batch).iter().map(|x| 6.0 * x).collect();
    let labels: Vec<f32> = (0..batch).map(|b| [0.0, 1.0, 0.25][b % 3]).collect();
    for kind in [Loss::Bce, Loss::Mse] {
        let mut case = Case::new("loss", batch, 0);
        let (x, t) = (case.f32s("logits", logits.clone()), case.f32s("labels", labels.clone()));
        let (each, d_logits) = (case.output("losses", batch), case.output("d_logits", batch));
        let (logit_ring, loss_ring) = (case.f32s("logit_ring", vec![0.0; 2 * batch]), case.f32s("loss_ring", vec![0.0; 2]));
        case.step.slot = 1;
        loss::record(&mut case.plan, kind, x, t, each, d_logits, logit_ring, loss_ring);
        // scaled by the batch, so that derivatives have size 1
        let expected = numeric(&wide(&logits), |x| (batch as f64 * mean_loss(kind, x, &labels), Vec::new()));
        for (engine, got) in run(&case, &[d_logits, loss_ring, logit_ring]) {
            let scaled: Vec<f32> = got[0].iter().map(|g| g * batch as f32).collect();
            compare(&format!("{kind:?}, {engine}"), &scaled, &expected, 2e-6);
            let exact = mean_loss(kind, &wide(&logits), &labels);
            assert!((got[1][1] as f64 - exact).abs() < 1e-6 && got[1][0] == 0.0, "{kind:?}, {engine}: {:?}, {exact}", got[1]);
            assert_eq!((&got[2][batch..], &got[2][..batch]), (&logits[..], &vec![0.0; batch][..]));
        }
    }
}

/// The whole FP32 model in f64: its mean loss from all tensors, in the order of a DLRM state dict.
fn whole_model(setup: &Setup, block: &Block, tensors: &[Vec<f64>]) -> Probe {
    let (shape, tables) = (&setup.shape, setup.shape.tables());
    let mut open = Vec::new();
    let (embeddings, mlps) = tensors.split_at(tables);
    let mut layers = mlps.chunks(2);
    let mut run = |mut x: Vec<f64>, count: usize, last_relu: bool| {
        for (i, layer) in layers.by_ref().take(count).enumerate() {
            x = linear(&x, &layer[0], &layer[1]);
            if last_relu || i + 1 < count {
                relu(&mut x, &mut open);
            }
        }
        x
    };
    let dense = run(wide(&block.dense), shape.bottom.len() - 1, true);
    let mut pooled = vec![0.0; block.samples * tables * shape.dim];
    for (bag, out) in pooled.chunks_mut(shape.dim).enumerate() {
        for &id in &block.ids[block.offsets[bag] as usize..block.offsets[bag + 1] as usize] {
            let row = &embeddings[bag % tables][id as usize * shape.dim..][..shape.dim];
            out.iter_mut().zip(row).for_each(|(o, r)| *o += r);
        }
    }
    let joined = match shape.interaction {
        Interaction::Dot => dots(&dense, &pooled, tables, shape.dim, shape.diagonal),
        Interaction::Cat => side_by_side(&dense, &pooled, tables, shape.dim),
    };
    let logits = run(joined, shape.top.len() - 1, false);
    (mean_loss(shape.loss, &logits, &block.labels), open)
}

/// One SGD step at a rate that is a large power of two: the change of a weight is its gradient, hardly rounded.
/// Seen: errors of 4e-7 to 3e-6 of a tensor's largest gradient, and 1.4e-5 in one where large terms cancel.
#[test]
fn whole_models() {
    const RATE: f64 = 16_777_216.0;
    type Change = fn(&mut Model);
    let variants: [(&str, Change); 4] = [
        ("dot", |_| ()),
        ("diagonal", |m| m.interaction_diagonal = true),
        ("cat", |m| m.interaction = Interaction::Cat),
        ("mse", |m| m.loss = Loss::Mse),
    ];
    for (name, change) in variants {
        let mut model = Model { bottom: Some(vec![12, 7, 4]), top: Some(vec![10, 6, 1]), rows: Some(vec![9, 3, 20, 1]), ..small_model() };
        change(&mut model);
        let optim = Optim { lr: RATE, ..Optim::default() };
        let setup = Setup::new(model, Config { optim, ..small_config(Bits::None, 8) }, 3);
        let mut block = Block::new();
        dqrm::data::Samples::fetch(&setup.clicks, &(40..48).collect::<Vec<_>>(), &mut block).unwrap();
        let mut expected: Vec<Vec<Option<f64>>> = Vec::new();
        for device in devices() {
            let mut session = setup.session(&device);
            let before = everything(&mut session);
            let batch = Batch::prepare(&block, session.tables()).unwrap();
            session.train_step(0, &batch).unwrap();
            let step = block_on(session.history()).unwrap().remove(0);
            let after = everything(&mut session);
            let mut tensors: Vec<Vec<f64>> = before.iter().map(|(_, values)| wide(values)).collect();
            let exact = whole_model(&setup, &block, &tensors).0;
            assert!((step.loss as f64 - exact).abs() < 1e-6, "{name} on {device:?}: loss {} instead of {exact}", step.loss);
            if expected.is_empty() {
                for at in 0..tensors.len() {
                    let values = tensors[at].clone();
                    let of = numeric(&values, |changed| {
                        let mut all = tensors.clone();
                        all[at].copy_from_slice(changed);
                        whole_model(&setup, &block, &all)
                    });
                    tensors[at] = values;
                    expected.push(of);
                }
            }
            let (mut skipped, mut total, mut largest, mut nonzero) = (0, 0, 0.0f64, 0);
            for (((tensor, old), (_, new)), expected) in before.iter().zip(&after).zip(&expected) {
                let size = expected.iter().flatten().fold(1e-9f64, |m, g| m.max(g.abs()));
                for (i, (pair, e)) in old.iter().zip(new).zip(expected).enumerate() {
                    total += 1;
                    let Some(e) = e else {
                        skipped += 1;
                        continue;
                    };
                    let gradient = (*pair.0 as f64 - *pair.1 as f64) / RATE;
                    let error = (gradient - e).abs() / size;
                    assert!(error < 1e-4, "{name} on {device:?}: {tensor}[{i}]: {gradient} instead of {e}, the tensor's largest is {size}");
                    largest = largest.max(error);
                    nonzero += (e.abs() > 1e-9) as usize;
                }
                assert!(expected.iter().flatten().any(|g| g.abs() > 1e-9), "{name}: all differences of {tensor} are zero");
            }
            assert!(skipped * 100 <= total, "{name}: {skipped} of {total} at a kink");
            assert!(nonzero * 3 >= total, "{name}: only {nonzero} of {total} differences are not zero");
            eprintln!("{name} on {device:?}: {total} values, {skipped} at a kink, largest error {largest:.1e} of its tensor's largest");
        }
    }
}
