//! The debug run that the README of facebookresearch/dlrm prints ("How to run dlrm code?",
//! `--debug-mode`): its losses and weights; and, from the same weights, the second batch alone in
//! every quantized variant, computed in float64.

use dqrm::config::{Config, Device, Loss, Model, Optim, Quant, ScalePer, Shape, Train};
use dqrm::data::{Batch, Block};
use dqrm::quant::{self, Bits};
use dqrm::session::Session;

type Named = (&'static str, &'static [f32]);

const WEIGHTS: [Named; 13] = [
    ("emb_l.0.weight", &[0.05438, -0.11105, 0.42513, 0.34167, -0.1426, -0.45641, -0.19523, -0.10181]),
    ("emb_l.1.weight", &[0.23667, 0.57199, -0.16638, 0.30316, 0.10759, 0.22136]),
    ("emb_l.2.weight", &[-0.49338, -0.14301, -0.36649, -0.22139]),
    ("bot_l.0.weight", &[0.51313, 0.66662, 0.10591, 0.13089, 0.32198, 0.66156, 0.84651, 0.55326, 0.85445, 0.38484, 0.31679, 0.35426]),
    ("bot_l.0.bias", &[0.17108, 0.82911, 0.33867]),
    ("bot_l.2.weight", &[0.55237, 0.57855, 0.52153, 0.00269, 0.98835, 0.90534]),
    ("bot_l.2.bias", &[0.20764, 0.29249]),
    (
        "top_l.0.weight",
        &[
            0.52001, 0.90191, 0.98363, 0.25754, 0.56436, 0.80697, 0.39437, 0.73107, 0.16107, 0.6007, 0.86586, 0.98352, 0.07937, 0.42835,
            0.20454, 0.45064, 0.54776, 0.09333, 0.29686, 0.92758, 0.569, 0.45741, 0.75353, 0.74186, 0.04858, 0.7087, 0.83924, 0.16594,
            0.781, 0.28654, 0.30647, 0.66526,
        ],
    ),
    ("top_l.0.bias", &[0.11139, 0.66487, 0.88786, 0.69631]),
    ("top_l.2.weight", &[0.44033, 0.43821, 0.7651, 0.56564, 0.0849, 0.58267, 0.81484, 0.33707]),
    ("top_l.2.bias", &[0.92758, 0.75072]),
    ("top_l.4.weight", &[0.57406, 0.75164]),
    ("top_l.4.bias", &[0.07915]),
];

fn weights(name: &str) -> &'static [f32] {
    WEIGHTS.iter().find(|w| w.0 == name).expect("a name of the list").1
}

/// The three batches of two samples each.
fn blocks() -> [Block; 3] {
    let block = |dense: [f32; 8], bags: [&[u32]; 6], labels: [f32; 2]| {
        let mut block = Block::new();
        block.samples = 2;
        block.dense.extend(dense);
        block.labels.extend(labels);
        for bag in bags {
            block.ids.extend(bag);
            block.end_bag();
        }
        block
    };
    // bags: the three tables of the first sample, then those of the second
    [
        block(
            [0.69647, 0.28614, 0.22685, 0.55131, 0.71947, 0.42311, 0.98076, 0.68483],
            [&[1], &[0], &[1], &[0, 1], &[1], &[0]],
            [0.55679, 0.15896],
        ),
        block(
            [0.36179, 0.22826, 0.29371, 0.63098, 0.0921, 0.4337, 0.43086, 0.49369],
            [&[1], &[1], &[1], &[0, 2, 3], &[1, 2], &[1]],
            [0.15307, 0.69553],
        ),
        block(
            [0.60306, 0.54507, 0.34276, 0.30412, 0.41702, 0.6813, 0.87546, 0.51042],
            [&[2], &[1], &[1], &[0, 1, 2], &[2], &[1]],
            [0.31877, 0.69197],
        ),
    ]
}

fn shape() -> Shape {
    let model = Model {
        dense: Some(4),
        dim: Some(2),
        bottom: Some(vec![3, 2]),
        top: Some(vec![4, 2, 1]),
        rows: Some(vec![4, 3, 2]),
        loss: Loss::Mse,
        ..Model::default()
    };
    model.shape(None, None).expect("the published shape")
}

/// The model with its published weights.
fn session(device: &Device, quant: Quant, lr: f64) -> Session {
    let train = Train { batch: 2, eval_batch: 2, ..Train::default() };
    let config = Config { device: device.clone(), quant, optim: Optim { lr, ..Optim::default() }, train, ..Config::default() };
    let mut session = pollster::block_on(Session::load(&shape(), &config, &[3, 2, 1])).expect("a loaded session");
    for (name, values) in WEIGHTS {
        session.write(name, 0, values).expect("weights are written");
    }
    session
}

fn read(session: &mut Session, name: &str, len: usize) -> Vec<f32> {
    pollster::block_on(session.read(name, 0, len)).expect("a tensor is read")
}

#[track_caller]
fn close(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (g, e) in got.iter().zip(expected) {
        assert!((g - e).abs() <= tolerance, "{what}: {got:?}, expected {expected:?} within {tolerance}");
    }
}

fn fp32() -> Quant {
    Quant { embedding_bits: Bits::None, mlp_bits: Bits::None, ..Quant::default() }
}

/// Three steps of SGD 0.01 on the mean squared error. Inputs are printed with five digits, so
/// float64 from them already differs from the printed losses in the last digit.
fn debug_run(test: &str, device: Device) {
    if !crate::available(test, &device) {
        return;
    }
    let mut session = session(&device, fp32(), 0.01);
    for (step, block) in blocks().iter().enumerate() {
        let batch = Batch::prepare(block, session.tables()).expect("a valid batch");
        session.train_step(step as u64, &batch).expect("a step");
    }
    let losses: Vec<f32> = pollster::block_on(session.history()).expect("losses").iter().map(|r| r.loss).collect();
    close("losses, float64", &losses, &[0.451891, 0.402002, 0.275457], 1e-6);
    close("losses, printed", &losses, &[0.451893, 0.402002, 0.275460], 4e-6);
    let table = read(&mut session, "emb_l.0.weight", 8);
    close("table 0", &table, &[0.0543, -0.1112, 0.42513, 0.34167, -0.14283, -0.45679, -0.19532, -0.10197], 1.1e-5);
    let table = read(&mut session, "emb_l.2.weight", 4);
    close("table 2", &table, &[-0.49338, -0.14301, -0.36664, -0.22164], 1.1e-5);
    close("top_l.4.weight", &read(&mut session, "top_l.4.weight", 2), &[0.57379, 0.7514], 1.1e-5);
    close("top_l.4.bias", &read(&mut session, "top_l.4.bias", 1), &[0.07908], 1.1e-5);
    let second_row = read(&mut session, "bot_l.0.weight", 12)[4..8].to_vec();
    close("bot_l.0.weight, second row", &second_row, &[0.32196, 0.66154, 0.84649, 0.55324], 1.1e-5);
}

#[test]
fn debug_run_on_the_cpu() {
    debug_run("debug_run_on_the_cpu", Device::Cpu);
}

#[test]
fn debug_run_on_a_gpu() {
    debug_run("debug_run_on_a_gpu", Device::Gpu);
}

/// One variant of quantization and what the second batch gives.
struct Variant {
    name: &'static str,
    quant: Quant,
    loss: f32,
    probabilities: [f32; 2],
    /// dL/dW of the last layer.
    weight: [f32; 2],
    /// dL/db of the last layer.
    bias: f32,
    /// dL/dE of table 0: row 1, and each of the rows 0, 2 and 3; published for some variants.
    table: Option<[[f32; 2]; 2]>,
}

fn variants() -> [Variant; 7] {
    let rows = Quant { mlp_bits: Bits::None, period: 1, ..Quant::default() };
    let pooled = Quant { pool_then_quantize: true, ..rows.clone() };
    let channel = |quant: &Quant| Quant { mlp_bits: Bits::B4, mlp_scale: ScalePer::Channel, quantize_bias: true, ..quant.clone() };
    let matrix = |quant: &Quant| Quant { mlp_bits: Bits::B4, mlp_scale: ScalePer::Matrix, quantize_bias: true, ..quant.clone() };
    let variant = |name, quant, loss, probabilities, weight, bias, table| Variant { name, quant, loss, probabilities, weight, bias, table };
    [
        variant("none", fp32(), 0.402002, [0.999976, 0.990072], [0.010218, 0.009909], 0.002916, None),
        variant(
            "tables, rows then pool",
            rows.clone(),
            0.402007,
            [0.999981, 0.990074],
            [0.010106, 0.009937],
            0.002911,
            Some([[4.7528e-5, 8.4151e-5], [0.0085477, 0.015529]]),
        ),
        variant(
            "tables, pool then quantize",
            pooled.clone(),
            0.403490,
            [0.999981, 0.995068],
            [0.006231, 0.005701],
            0.001486,
            Some([[4.7528e-5, 8.4151e-5], [0.0043411, 0.0077325]]),
        ),
        variant(
            "rows then pool, MLP per row",
            channel(&rows),
            0.401890,
            [0.999975, 0.989694],
            [0.010364, 0.010686],
            0.003022,
            Some([[6.0181e-5, 1.0427e-4], [0.0086518, 0.015353]]),
        ),
        variant("rows then pool, MLP per matrix", matrix(&rows), 0.402084, [0.999981, 0.990333], [0.010187, 0.009930], 0.002838, None),
        variant("pool then quantize, MLP per row", channel(&pooled), 0.403378, [0.999975, 0.994708], [0.006587, 0.006337], 0.001596, None),
        variant(
            "pool then quantize, MLP per matrix",
            matrix(&pooled),
            0.403526,
            [0.999981, 0.995184],
            [0.006293, 0.005712],
            0.001452,
            None,
        ),
    ]
}

/// One step of SGD with a large power of two as rate: the change of a weight is its gradient,
/// hardly rounded.
fn quantized_variants(test: &str, device: Device) {
    const RATE: f32 = 1024.0;
    if !crate::available(test, &device) {
        return;
    }
    let block = &blocks()[1];
    for v in variants() {
        let mut session = session(&device, v.quant.clone(), RATE as f64);
        let batch = Batch::prepare(block, session.tables()).expect("a valid batch");
        session.train_step(0, &batch).expect("a step");
        let step = pollster::block_on(session.history()).expect("losses").remove(0);
        close(&format!("{}: loss", v.name), &[step.loss], &[v.loss], 1e-6);
        let probabilities: Vec<f32> = step.logits.iter().map(|&x| (1.0 / (1.0 + (-x as f64).exp())) as f32).collect();
        close(&format!("{}: p", v.name), &probabilities, &v.probabilities, 1e-6);
        if v.quant.embedding_bits.quantized() {
            close("table scales", &read(&mut session, "dqrm.scale.emb_l", 3), &[0.065201, 0.081713, 0.070483], 1e-6);
        }
        let mut gradient = |name: &str| -> Vec<f32> {
            let after = read(&mut session, name, weights(name).len());
            weights(name).iter().zip(after).map(|(before, after)| (before - after) / RATE).collect()
        };
        close(&format!("{}: dL/dW", v.name), &gradient("top_l.4.weight"), &v.weight, 1e-6);
        close(&format!("{}: dL/db", v.name), &gradient("top_l.4.bias"), &[v.bias], 1e-6);
        if let Some([row, other]) = v.table {
            let g = gradient("emb_l.0.weight");
            // 1 - p of that sample is 2e-5, of which float32 keeps three digits
            close(&format!("{}: dL/dE row 1", v.name), &g[2..4], &row, 3e-7);
            for r in [0, 2, 3] {
                close(&format!("{}: dL/dE row {r}", v.name), &g[2 * r..2 * r + 2], &other, 2e-6);
            }
        }
    }
}

#[test]
fn quantized_variants_on_the_cpu() {
    quantized_variants("quantized_variants_on_the_cpu", Device::Cpu);
}

#[test]
fn quantized_variants_on_a_gpu() {
    quantized_variants("quantized_variants_on_a_gpu", Device::Gpu);
}

/// The scale of `values` and the INT4 codes of `values` and `others` on it.
fn group(values: &[f32], others: &[f32]) -> (f32, Vec<i32>) {
    let scale = quant::scale(values.iter().fold(0.0, |m, x| x.abs().max(m)), Bits::B4.max_code());
    (scale, values.iter().chain(others).map(|&w| quant::code(w, 1.0 / scale, 7.0) as i32).collect())
}

#[test]
fn codes_are_the_published_ones() {
    let table = weights("emb_l.0.weight");
    let (_, codes) = group(table, &[table[2], table[3], table[0] + table[4] + table[6], table[1] + table[5] + table[7]]);
    assert_eq!(codes, [1, -2, 7, 5, -2, -7, -3, -2, 7, 5, -4, -8], "four rows, then two pooled bags, the last saturated");
    let layer = |name: &str, columns: usize| -> (Vec<f32>, Vec<Vec<i32>>) {
        let (w, b) = (weights(&format!("{name}.weight")), weights(&format!("{name}.bias")));
        w.chunks(columns).zip(b).map(|(row, &b)| group(row, &[b])).unzip()
    };
    let (scales, codes) = layer("bot_l.0", 4);
    close("bot_l.0 scales", &scales, &[0.095231, 0.120930, 0.122064], 1e-6);
    assert_eq!(codes, [[5, 7, 1, 1, 2], [3, 5, 7, 5, 7], [7, 3, 3, 3, 3]], "weights, then the bias");
    let (scales, codes) = layer("top_l.0", 8);
    close("top_l.0 scales", &scales, &[0.140519, 0.140503, 0.132511, 0.119891], 1e-6);
    assert_eq!(codes.iter().map(|row| row[8]).collect::<Vec<_>>(), [1, 5, 7, 6]);
    let (scales, codes) = layer("top_l.2", 4);
    close("top_l.2 scales", &scales, &[0.109300, 0.116406], 1e-6);
    assert_eq!(codes.iter().map(|row| row[4]).collect::<Vec<_>>(), [7, 6]);
    let (scales, codes) = layer("top_l.4", 2);
    close("top_l.4 scale", &scales, &[0.107377], 1e-6);
    assert_eq!(codes, [[5, 7, 1]]);
}
