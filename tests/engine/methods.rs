//! The ways to quantize: values lie on the grid that the formula says (written here again, in f64), gradients of
//! learned scales are those of differences, and methods that should equal each other do, bit for bit.

use crate::{Named, Setup, assert_same_bytes, devices, everything, read, small_config, small_model};
use dqrm::config::{Config, Device, EmbeddingScale, Method, Model, Optim, Quant, ScalePer};
use dqrm::data::Batch;
use dqrm::engine::Engine;
use dqrm::engine::cpu::CpuEngine;
use dqrm::ops::case::{Case, random};
use dqrm::ops::lsq;
use dqrm::plan::schedule::Schedule;
use dqrm::plan::{StepUniform, View};
use dqrm::quant::Bits;
use dqrm::session::Session;
use dqrm::step::{self, phase};
use dqrm::tables::Tables;
use pollster::block_on;

const BITS: [Bits; 4] = [Bits::B2, Bits::B4, Bits::B8, Bits::B16];

fn with(method: Method, bits: Bits) -> Config {
    let config = small_config(bits, 32);
    Config { quant: Quant { method, period: 1, ..config.quant }, ..config }
}

fn setup(config: Config) -> Setup {
    Setup::new(small_model(), config, 2)
}

/// The largest magnitude in f64.
fn largest(values: &[f32]) -> f64 {
    values.iter().fold(0.0, |m, v| f64::from(v.abs()).max(m))
}

/// `q(w)` as a method defines it, in f64: `scale` is of the group, `w` one of its values.
fn quantized(method: Method, w: f64, scale: f64, bits: Bits) -> f64 {
    let k = f64::from(bits.width());
    if method == Method::Pact {
        let levels = 2f64.powf(k) - 1.0;
        let x = (w.tanh() / (2.0 * scale.tanh()) + 0.5).clamp(0.0, 1.0);
        return 2.0 * (levels * x).round_ties_even() / levels - 1.0;
    }
    let n = 2f64.powf(k - 1.0) - 1.0;
    (w / scale).clamp(-n - 1.0, n).round_ties_even() * scale
}

/// `got` is `q(w)`, up to a code where a value lies so near a tie that f32 decides it the other way.
#[track_caller]
fn assert_on_grid(what: &str, method: Method, bits: Bits, weights: &[f32], scale: f64, got: &[f32]) {
    let spacing = if method == Method::Pact { 2.0 / (2f64.powf(f64::from(bits.width())) - 1.0) } else { scale };
    let mut other_side = 0;
    for (w, g) in weights.iter().zip(got) {
        let error = (f64::from(*g) - quantized(method, f64::from(*w), scale, bits)).abs();
        let near = spacing * 1e-3 + 4e-7 * f64::from(g.abs());
        other_side += usize::from(error > near);
        assert!(
            error <= near || error < 1.01 * spacing + near,
            "{what}: {w} became {g}, not {}",
            quantized(method, f64::from(*w), scale, bits)
        );
    }
    let allowed = if bits == Bits::B16 { weights.len() / 20 } else { 0 };
    assert!(other_side <= allowed, "{what}: {other_side} of {} values on another code", weights.len());
}

/// Runs the phases of one step by hand and reads a buffer of the plan.
struct ByHand {
    setup: Setup,
    recorded: step::Recorded,
    engine: CpuEngine,
    tables: Tables,
}

impl ByHand {
    fn new(config: Config) -> ByHand {
        let setup = setup(config);
        let tables = Tables::new(&setup.shape.rows, setup.shape.dim, u64::MAX).unwrap();
        let recorded = step::record(&setup.shape, &setup.config, &tables, &[2; 4], Session::RING);
        let mut engine = CpuEngine::load(Schedule::new(recorded.plan.clone(), &CpuEngine::limits(None)).unwrap());
        let mut session = setup.session(&Device::Cpu);
        let mut at = 0;
        for (name, values) in everything(&mut session) {
            if name.starts_with("emb_l") {
                let view = View { offset: at, len: values.len(), ..recorded.shards[0] };
                engine.write(view, bytemuck::cast_slice(&values)).unwrap();
                at += values.len();
            }
        }
        let flat = recorded.weights;
        engine.write(flat, bytemuck::cast_slice(&random("by hand", flat.len))).unwrap();
        ByHand { setup, recorded, engine, tables }
    }

    fn read(&mut self, view: View) -> Vec<f32> {
        bytemuck::cast_slice(&block_on(self.engine.read(view)).unwrap()).to_vec()
    }

    fn read_named(&mut self, name: &str) -> Vec<f32> {
        let view = self.recorded.plan.find(name).unwrap();
        self.read(view)
    }

    /// Runs the refresh and the first commands of the gradients, as far as the gathered rows.
    fn gather(&mut self) -> Batch {
        let batch = self.setup.batch(&self.tables, 3);
        let r = &self.recorded.batch;
        let lists = [(r.rows, &batch.rows), (r.row_tables, &batch.row_tables), (r.shard_offsets, &batch.shard_offsets)];
        lists.iter().for_each(|(view, words)| self.engine.write(*view, words).unwrap());
        let uniform = StepUniform::evaluate(batch.samples, batch.touched());
        if let Ok(refresh) = self.recorded.plan.phase_index(phase::REFRESH) {
            self.engine.run(&[refresh], &uniform).unwrap();
        }
        let gradients = self.recorded.plan.phase_index(phase::GRADIENTS).unwrap();
        let wanted = self.recorded.gathered.buffer;
        for i in 0..self.recorded.plan.phases[gradients].commands.len() {
            self.engine.run_command(gradients, i, &uniform).unwrap();
            if self.recorded.plan.phases[gradients].commands[i].views.last().unwrap().buffer == wanted {
                return batch;
            }
        }
        panic!("no command gathers rows");
    }
}

#[test]
fn rows_lie_on_the_grid_of_the_formula() {
    for bits in BITS {
        for (method, scale) in [
            (Method::Dqrm, EmbeddingScale::Table),
            (Method::Hawq, EmbeddingScale::Row),
            (Method::Lsq, EmbeddingScale::Table),
            (Method::Pact, EmbeddingScale::Table),
        ] {
            let mut config = with(method, bits);
            config.quant.embedding_scale = scale;
            let mut by_hand = ByHand::new(config);
            let batch = by_hand.gather();
            let gathered = by_hand.read(by_hand.recorded.gathered);
            let all = by_hand.read(by_hand.recorded.shards[0]);
            let (dim, mut first) = (by_hand.setup.shape.dim, 0);
            let n = f64::from(bits.max_code());
            for (k, &rows) in by_hand.setup.shape.rows.iter().enumerate() {
                let table = &all[first * dim..(first + rows as usize) * dim];
                let of_table = match method {
                    Method::Pact => largest(table),
                    Method::Lsq => 2.0 * table.iter().map(|w| f64::from(w.abs())).sum::<f64>() / table.len() as f64 / n.sqrt(),
                    _ => largest(table) / n,
                };
                for u in (0..batch.touched()).filter(|&u| batch.row_tables[u] as usize == k) {
                    let row = &all[batch.rows[u] as usize * dim..][..dim];
                    let scale = if scale == EmbeddingScale::Row { largest(row) / n } else { of_table };
                    assert_on_grid(&format!("{method} {bits} table {k}"), method, bits, row, scale, &gathered[u * dim..][..dim]);
                }
                first += rows as usize;
            }
            assert!(gathered[..batch.touched() * dim].iter().filter(|v| **v != 0.0).count() > 10, "{method} {bits}");
        }
    }
}

#[test]
fn matrices_lie_on_the_grid_of_the_formula() {
    for bits in BITS {
        for (method, per) in [
            (Method::Dqrm, ScalePer::Channel),
            (Method::Dqrm, ScalePer::Matrix),
            (Method::Lsq, ScalePer::Channel),
            (Method::Lsq, ScalePer::Matrix),
            (Method::Pact, ScalePer::Channel),
        ] {
            let mut config = with(method, bits);
            config.quant.mlp_scale = per;
            let mut by_hand = ByHand::new(config);
            by_hand.gather();
            let (weights, copies) = (by_hand.read_named("weights"), by_hand.read_named("weights_quantized"));
            let n = f64::from(bits.max_code());
            let network = dqrm::model::Network::new(&by_hand.setup.shape);
            for layer in network.layers() {
                let (inputs, outputs) = (layer.linear.inputs, layer.linear.outputs);
                let one = per == ScalePer::Matrix || method == Method::Pact;
                let len = if one { inputs * outputs } else { inputs };
                let scale_of = |group: &[f32]| match method {
                    Method::Pact => largest(group),
                    Method::Lsq => 2.0 * group.iter().map(|w| f64::from(w.abs())).sum::<f64>() / group.len() as f64 / n.sqrt(),
                    _ => largest(group) / n,
                };
                let (w, q) = (&weights[layer.weight_at..][..inputs * outputs], &copies[layer.weight_at..][..inputs * outputs]);
                for (w, q) in w.chunks(len).zip(q.chunks(len)) {
                    assert_on_grid(&format!("{method} {per:?} {bits} {}", layer.name), method, bits, w, scale_of(w), q);
                }
                if method == Method::Lsq {
                    let (b, q) = (&weights[layer.bias_at..][..outputs], &copies[layer.bias_at..][..outputs]);
                    assert_on_grid(&format!("bias of {}", layer.name), method, bits, b, scale_of(b), q);
                }
            }
        }
    }
}

/// LSQ's quantizer with its roundings held: `round` acts as the identity plus a constant, which is how the
/// straight-through estimator sees it, so that a difference quotient exists.
fn held(w: f64, s: f64, n: f64, at: (f64, f64)) -> f64 {
    let offset = {
        let t = (at.0 / at.1).clamp(-n - 1.0, n);
        t.round_ties_even() - t
    };
    ((w / s).clamp(-n - 1.0, n) + offset) * s
}

#[test]
fn learned_scales_have_the_gradients_of_differences() {
    const H: f64 = 1e-6;
    for (bits, groups, len) in [(Bits::B2, 3, 40), (Bits::B4, 5, 33), (Bits::B8, 1, 200)] {
        let (weights, upstream) = (random("lsq w", groups * len), random("lsq g", groups * len));
        let scales: Vec<f32> = (0..groups).map(|g| 0.9 / (bits.max_code() as f32 + 1.0) / (1.0 + 0.3 * g as f32)).collect();
        let mut case = Case::new("lsq", 1, 0);
        let (w, s) = (case.f32s("w", weights.clone()), case.f32s("s", scales.clone()));
        let (g, d_s) = (case.f32s("g", upstream.clone()), case.output("d_s", groups));
        lsq::gradient(&mut case.plan, "all", bits.max_code(), w, s, g, d_s);
        let n = f64::from(bits.max_code());
        let mut engine = CpuEngine::load(Schedule::new(case.plan.clone(), &CpuEngine::limits(None)).unwrap());
        case.inputs.iter().for_each(|(v, words)| engine.write(*v, words).unwrap());
        engine.run(&[0], &case.step).unwrap();
        let mut got = |view| -> Vec<f32> { bytemuck::cast_slice(&block_on(engine.read(view)).unwrap()).to_vec() };
        let (d_w, d_s) = (got(g), got(d_s));
        let mut outside = 0;
        for group in 0..groups {
            let s = f64::from(scales[group]);
            let mut sum = 0.0;
            for i in group * len..(group + 1) * len {
                let (w, up) = (f64::from(weights[i]), f64::from(upstream[i]));
                let of_w = (held(w + H, s, n, (w, s)) - held(w - H, s, n, (w, s))) / (2.0 * H);
                let of_s = (held(w, s + H, n, (w, s)) - held(w, s - H, n, (w, s))) / (2.0 * H);
                outside += usize::from(of_w.abs() < 0.5);
                assert!((f64::from(d_w[i]) - up * of_w).abs() < 1e-5, "{bits} {w}/{s}: {} instead of {}", d_w[i], up * of_w);
                sum += up * of_s;
            }
            let expected = sum / (n * len as f64).sqrt();
            assert!((f64::from(d_s[group]) - expected).abs() < 2e-5 * n.max(1.0), "{bits}: {} instead of {expected}", d_s[group]);
        }
        assert!(outside > 0 && outside < groups * len / 2, "{bits}: {outside} outside");
    }
}

/// One step changes a table's scale by what the touched rows say, their number in the factor.
#[test]
fn a_table_learns_its_scale_from_the_touched_rows() {
    let mut config = with(Method::Lsq, Bits::B4);
    config.quant.mlp_bits = Bits::None;
    config.optim = Optim { lr: 0.0, embedding_lr: Some(0.0), ..Optim::default() };
    let frozen = setup(config.clone());
    let mut session = frozen.session(&Device::Cpu);
    frozen.train(&mut session, 0..1);
    let (scales, dim, n) = (read(&mut session, "dqrm.scale.emb_l"), frozen.shape.dim, 7.0);
    config.optim.embedding_lr = Some(1.0);
    let moving = setup(config);
    let mut session = moving.session(&Device::Cpu);
    let before = everything(&mut session);
    let batch = moving.batch(session.tables(), 0);
    moving.train(&mut session, 0..1);
    let gradients_of = everything(&mut session);
    let learned = read(&mut session, "dqrm.scale.emb_l");
    for (k, (first_scale, now)) in scales.iter().zip(&learned).enumerate() {
        let name = format!("emb_l.{k}.weight");
        let of = |all: &[Named]| all.iter().find(|(n, _)| *n == name).unwrap().1.clone();
        let (old, new) = (of(&before), of(&gradients_of));
        let s = f64::from(*first_scale);
        let (mut sum, mut outside, mut rows) = (0.0, 0, 0);
        let first: u64 = moving.shape.rows[..k].iter().sum();
        for u in (0..batch.touched()).filter(|&u| batch.row_tables[u] as usize == k) {
            rows += 1;
            for i in (batch.rows[u] as usize - first as usize) * dim..(batch.rows[u] as usize - first as usize + 1) * dim {
                let (t, gradient) = (f64::from(old[i]) / s, f64::from(old[i]) - f64::from(new[i])); // the rate is 1
                let inside = (-n - 1.0..=n).contains(&t);
                assert!(inside || gradient == 0.0, "the gradient of a clamped weight is masked");
                outside += usize::from(!inside);
                sum += gradient * (t.round_ties_even() - t);
            }
        }
        let moved = s - f64::from(*now);
        let expected = sum / (n * (rows * dim) as f64).sqrt();
        assert!(rows > 0);
        assert!(outside == 0, "first scales clamp nothing here");
        assert!((moved - expected).abs() < 1e-6, "table {k}: {moved} instead of {expected}, {rows} rows");
    }
}

/// The kernels themselves, with scales so small that many weights are clamped.
#[test]
fn clamped_rows_pull_at_their_scale_with_the_bound() {
    let config = with(Method::Lsq, Bits::B4);
    let (setup, dim, n) = (setup(config), 4, 7.0);
    let tables = Tables::new(&setup.shape.rows, dim, 90 * 16).unwrap();
    let batch = setup.batch(&tables, 5);
    let mut case = Case::new("lsq rows", batch.samples, batch.touched());
    let views = crate::gradients::index_views(&mut case, &batch);
    let weights: Vec<Vec<f32>> = (0..3).map(|s| random(&format!("shard {s}"), tables.rows_in_shard(s) as usize * dim)).collect();
    let shards: Vec<View> = weights.iter().map(|values| case.f32s("shard", values.clone())).collect();
    let given = [0.05f32, 0.1, 0.13, 0.02];
    let upstream = random("upstream", batch.touched() * dim);
    let (scales, gradients) = (case.f32s("scales", given.to_vec()), case.f32s("gradients", upstream.clone()));
    let (sums, d_scales) = (case.output("sums", batch.touched()), case.output("d_scales", 4));
    lsq::table_gradient(&mut case.plan, &tables, &views, 7, scales, &shards, gradients, sums, d_scales);
    let (mut expected, mut elements, mut outside) = ([0.0; 4], [0.0; 4], 0);
    let mut masked = Vec::new();
    for u in 0..batch.touched() {
        let shard = batch.shard_offsets.iter().rposition(|&start| start as usize <= u).unwrap();
        let k = batch.row_tables[u] as usize;
        for d in 0..dim {
            let t = f64::from(weights[shard][batch.rows[u] as usize * dim + d]) / f64::from(given[k]);
            let bound: f64 = t.clamp(-n - 1.0, n);
            let up = f64::from(upstream[u * dim + d]);
            let slope = if bound == t { t.round_ties_even() - t } else { bound };
            masked.push(if bound == t { upstream[u * dim + d] } else { 0.0 });
            outside += usize::from(bound != t);
            expected[k] += up * slope;
            elements[k] += 1.0;
        }
    }
    assert!(outside * 5 > masked.len() && outside * 5 < masked.len() * 4, "{outside} of {} outside", masked.len());
    for (engine, got) in crate::gradients::run(&case, &[gradients, d_scales]) {
        assert_eq!(got[0], masked, "{engine}");
        for k in 0..4 {
            let exact = expected[k] / (n * f64::max(elements[k], 1.0)).sqrt();
            assert!((f64::from(got[1][k]) - exact).abs() < 1e-5, "{engine}, table {k}: {} instead of {exact}", got[1][k]);
        }
    }
}

#[test]
fn steps_of_ptq_are_those_of_fp32() {
    for device in devices() {
        let run = |config: Config| {
            let setup = setup(config);
            let mut session = setup.session(&device);
            let mut losses = setup.train(&mut session, 0..6);
            session.begin_evaluation().unwrap(); // leaves nothing behind that a step could see
            let batch = setup.samples(session.tables(), 900, 32);
            let logits = block_on(session.logits(&batch)).unwrap();
            losses.extend(setup.train(&mut session, 6..12));
            (losses, everything(&mut session), logits)
        };
        let (full, ptq) = (run(with(Method::Dqrm, Bits::None)), run(with(Method::Ptq, Bits::B4)));
        assert_eq!(full.0, ptq.0, "{device:?}");
        assert_same_bytes(&format!("{device:?}"), &full.1, &ptq.1);
        assert_ne!(full.2, ptq.2, "evaluations of ptq are quantized");
        // a session that quantizes while training evaluates the same weights to the same logits, with fresh scales
        let setup = setup(with(Method::Dqrm, Bits::B4));
        let mut session = setup.session(&device);
        let trained = { run(with(Method::Ptq, Bits::B4)).1 };
        let evaluate = |session: &mut Session, weights: &[Named]| {
            weights.iter().for_each(|(name, values)| session.write(name, 0, values).unwrap());
            session.refresh_scales().unwrap();
            session.begin_evaluation().unwrap();
            let batch = setup.samples(session.tables(), 900, 32);
            block_on(session.logits(&batch)).unwrap()
        };
        let mut other = Setup::new(small_model(), with(Method::Ptq, Bits::B4), 2).session(&device);
        assert_eq!(evaluate(&mut session, &trained), evaluate(&mut other, &trained), "{device:?}");
    }
}

#[test]
fn hawq_is_dqrm_with_period_1() {
    for device in devices() {
        let run = |config: Config| {
            let setup = setup(config);
            let mut session = setup.session(&device);
            (setup.train(&mut session, 0..12), everything(&mut session))
        };
        let (a, b) = (run(with(Method::Dqrm, Bits::B4)), run(with(Method::Hawq, Bits::B4)));
        let mut default = with(Method::Hawq, Bits::B4);
        default.quant.period = Quant::default().period;
        let c = run(default);
        assert_eq!((&a.0, &a.0), (&b.0, &c.0), "{device:?}");
        assert_same_bytes("hawq", &a.1, &b.1);
        assert_same_bytes("hawq, default period", &a.1, &c.1);
        let mut slow = with(Method::Dqrm, Bits::B4);
        slow.quant.period = 5;
        assert_ne!(run(slow).0, a.0, "another period would have shown");
    }
}

#[test]
fn every_method_trains_with_every_width_and_engines_agree() {
    let mut variants: Vec<(String, Config, f32)> = Vec::new();
    for method in [Method::Ptq, Method::Lsq, Method::Pact, Method::Hawq] {
        for bits in BITS {
            variants.push((format!("{method} {bits}"), with(method, bits), 2e-2));
        }
        let mut one = with(method, Bits::B4);
        one.quant.mlp_bits = Bits::None;
        variants.push((format!("{method}, FP32 MLPs"), one, 2e-2));
        let mut one = with(method, Bits::B4);
        (one.quant.embedding_bits, one.quant.mlp_scale, one.quant.quantize_bias) = (Bits::None, ScalePer::Matrix, false);
        variants.push((format!("{method}, FP32 tables, a scale per matrix"), one, 2e-2));
    }
    let mut rows = with(Method::Dqrm, Bits::B4);
    rows.quant.embedding_scale = EmbeddingScale::Row;
    variants.push(("scales of rows".into(), rows, 2e-2));
    for (name, config, tolerance) in variants {
        let setup = setup(config);
        let mut expected: Option<Vec<f32>> = None;
        for device in devices() {
            let mut session = setup.session_cut(&device, 90 * 16);
            let before = everything(&mut session);
            let losses = setup.train(&mut session, 0..15);
            assert!(losses.iter().all(|l| l.is_finite()), "{name} on {device:?}: {losses:?}");
            for ((tensor, old), (_, new)) in before.iter().zip(&everything(&mut session)) {
                assert!(new.iter().all(|v| v.is_finite()), "{name} on {device:?}: {tensor}");
                assert!(old != new, "{name} on {device:?}: {tensor} never changed");
            }
            let expected = expected.get_or_insert_with(|| losses.clone());
            let largest = losses.iter().zip(expected.iter()).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(largest <= tolerance, "{name} on {device:?}: {largest}");
        }
    }
}

/// Losses of FP32 up to the change, of a quantized session after it.
#[test]
fn pretraining_is_fp32_until_it_ends() {
    for device in devices() {
        for method in [Method::Dqrm, Method::Lsq, Method::Pact] {
            let mut config = with(method, Bits::B4);
            config.quant.pretrain_epochs = 1;
            let setup = setup(config);
            let mut session = setup.session(&device);
            session.set_pretrain_steps(5).unwrap();
            let first = setup.train(&mut session, 0..5);
            let full = Setup::new(small_model(), with(Method::Dqrm, Bits::None), 2);
            let mut other = full.session(&device);
            assert_eq!(first, full.train(&mut other, 0..5), "{device:?} {method}");
            let weights = everything(&mut other);
            let mine = everything(&mut session);
            assert_same_bytes(method_name(method), &weights, &mine[..weights.len()]);
            assert!(session.pretraining() && read(&mut session, "dqrm.quantizing") == [0.0]);
            let logits = |session: &mut Session| {
                session.begin_evaluation().unwrap();
                let batch = setup.samples(session.tables(), 800, 32);
                block_on(session.logits(&batch)).unwrap()
            };
            assert_eq!(logits(&mut session), logits(&mut other), "evaluations are in FP32 too");

            let mut plain = Setup::new(small_model(), with(method, Bits::B4), 2).session(&device);
            weights.iter().for_each(|(name, values)| plain.write(name, 0, values).unwrap());
            let rest = setup.train(&mut session, 5..9);
            assert_eq!(rest, setup.train(&mut plain, 5..9), "{device:?} {method}");
            assert!(!session.pretraining() && read(&mut session, "dqrm.quantizing") == [1.0]);
            assert_eq!(logits(&mut session), logits(&mut plain));
        }
    }
    let mut session = setup(with(Method::Lsq, Bits::B4)).session(&Device::Cpu);
    assert!(session.set_pretrain_steps(3).unwrap_err().to_string().contains("quant.pretrain_epochs is 0"));
}

fn method_name(method: Method) -> &'static str {
    match method {
        Method::Lsq => "lsq",
        Method::Pact => "pact",
        _ => "another",
    }
}

#[test]
fn written_tensors_restore_every_method_exactly() {
    for device in devices() {
        for (method, pretrain) in
            [(Method::Lsq, 0), (Method::Lsq, 4), (Method::Lsq, 20), (Method::Pact, 0), (Method::Dqrm, 4), (Method::Ptq, 0)]
        {
            let mut config = with(method, Bits::B4);
            config.quant.pretrain_epochs = u64::from(pretrain > 0);
            let setup = Setup::new(small_model(), config, 2);
            let start = |cut| {
                let mut session = setup.session_cut(&device, cut);
                session.set_pretrain_steps(pretrain).unwrap();
                session
            };
            let (mut session, mut restored) = (start(u64::MAX), start(90 * 16));
            setup.train(&mut session, 0..7);
            for (name, values) in everything(&mut session) {
                restored.write(&name, 0, &values).unwrap();
            }
            assert_eq!(session.pretraining(), restored.pretraining());
            let (a, b) = (setup.train(&mut session, 7..11), setup.train(&mut restored, 7..11));
            assert_eq!(a, b, "{device:?} {method} {pretrain}");
            assert_same_bytes(&format!("{device:?} {method}"), &everything(&mut session), &everything(&mut restored));
        }
    }
}

#[test]
fn learned_scales_stay_positive() {
    let mut config = with(Method::Lsq, Bits::B4);
    config.optim = Optim { lr: 3.0, ..Optim::default() };
    let setup = Setup::new(Model { rows: Some(vec![5, 3, 4, 1]), ..small_model() }, config, 2);
    let mut session = setup.session(&Device::Cpu);
    setup.train(&mut session, 0..40);
    for (name, values) in everything(&mut session) {
        assert!(!name.contains("scale") || values.iter().all(|s| *s >= lsq::MIN_STEP), "{name}: {values:?}");
    }
}

/// Only plans of runs that begin in FP32 hold both kinds of steps.
#[test]
fn plans_hold_what_their_run_needs() {
    let phases = |change: fn(&mut Quant)| -> Vec<&'static str> {
        let mut config = with(Method::Dqrm, Bits::B4);
        change(&mut config.quant);
        let setup = Setup::new(small_model(), config, 1);
        setup.session(&Device::Cpu).plan().phases.iter().map(|p| p.name).collect()
    };
    let plain = [phase::REFRESH, phase::GRADIENTS, phase::UPDATE, phase::QUANTIZE, phase::EVALUATE];
    assert_eq!(phases(|_| ()), plain);
    assert_eq!(phases(|q| q.method = Method::Ptq), plain);
    assert_eq!(phases(|q| q.embedding_scale = EmbeddingScale::Row), plain[1..]);
    assert!(phases(|q| q.method = Method::Lsq).contains(&phase::LEARN));
    let both = phases(|q| q.pretrain_epochs = 1);
    assert!(both.contains(&phase::FULL_GRADIENTS) && both.contains(&phase::FULL_EVALUATE));
    let none = phases(|q| (q.pretrain_epochs, q.embedding_bits, q.mlp_bits) = (1, Bits::None, Bits::None));
    assert!(!none.contains(&phase::FULL_GRADIENTS));
}
