//! Plans, gradients and training on every engine, and the house rules.

#[path = "../common/mod.rs"]
mod common;

mod gradients;
mod host_tables;
mod house;
mod late;
mod methods;
mod plan;
mod predict;
mod texts;
mod timed;
mod training;

use dqrm::config::{Config, Device, Model, Quant, Shape, Synthetic, Train};
use dqrm::data::synthetic::Clicks;
use dqrm::data::{Batch, Block, Samples};
use dqrm::quant::Bits;
use dqrm::session::Session;
use dqrm::tables::Tables;
use pollster::block_on;

/// The CPU engine, and the first adapter where there is one.
fn devices() -> Vec<Device> {
    let gpu = common::gpu().map(|adapter| Device::Named(adapter.name));
    std::iter::once(Device::Cpu).chain(gpu).collect()
}

/// A small network on made-up clicks.
struct Setup {
    shape: Shape,
    config: Config,
    clicks: Clicks,
}

impl Setup {
    fn new(model: Model, config: Config, bag: usize) -> Setup {
        let shape = model.shape(None, None).unwrap();
        let synthetic = Synthetic { samples: 100_000, bag, ..Synthetic::default() };
        let clicks = Clicks::new(&synthetic, 11, shape.dense, shape.rows.clone());
        Setup { shape, config, clicks }
    }

    /// Loaded and initialised.
    fn session(&self, device: &Device) -> Session {
        self.session_cut(device, u64::MAX)
    }

    fn session_cut(&self, device: &Device, max_binding: u64) -> Session {
        let config = Config { device: device.clone(), ..self.config.clone() };
        let mut session = block_on(Session::load_cut(&self.shape, &config, self.clicks.max_bag(), max_binding)).unwrap();
        session.initialise(5, &mut |_, _| {}).unwrap();
        session
    }

    /// Batch `number` of the configured size.
    fn batch(&self, tables: &Tables, number: u64) -> Batch {
        self.samples(tables, number * self.config.train.batch as u64, self.config.train.batch)
    }

    /// Samples `first..first + count`.
    fn samples(&self, tables: &Tables, first: u64, count: usize) -> Batch {
        let mut block = Block::new();
        self.clicks.fetch(&(first..first + count as u64).collect::<Vec<_>>(), &mut block).unwrap();
        Batch::prepare(&block, tables).unwrap()
    }

    /// Runs steps; gives their losses.
    fn train(&self, session: &mut Session, steps: std::ops::Range<u64>) -> Vec<f32> {
        let mut losses = Vec::new();
        for step in steps {
            let batch = self.batch(session.tables(), step);
            session.train_step(step, &batch).unwrap();
            losses.extend(block_on(session.history()).unwrap().iter().map(|r| r.loss));
        }
        losses
    }
}

fn read(session: &mut Session, name: &str) -> Vec<f32> {
    let tensor = session.tensors().iter().find(|t| t.name == name).unwrap_or_else(|| panic!("no tensor {name}"));
    let len = tensor.len() as usize;
    block_on(session.read(name, 0, len)).unwrap()
}

/// A tensor's name and values.
type Named = (String, Vec<f32>);

/// Every tensor.
fn everything(session: &mut Session) -> Vec<Named> {
    let names: Vec<String> = session.tensors().iter().map(|t| t.name.clone()).collect();
    names.into_iter().map(|name| (name.clone(), read(session, &name))).collect()
}

#[track_caller]
fn assert_same_bytes(what: &str, a: &[Named], b: &[Named]) {
    assert_eq!(a.len(), b.len(), "{what}");
    for ((name, x), (other, y)) in a.iter().zip(b) {
        assert_eq!(name, other, "{what}");
        assert_eq!(x.len(), y.len(), "{what}: {name}");
        let differing = x.iter().zip(y).filter(|(p, q)| p.to_bits() != q.to_bits()).count();
        assert_eq!(differing, 0, "{what}: {differing} of {} values of {name} differ", x.len());
    }
}

/// The largest of some numbers that are not negative; NaN when one of them is.
fn largest(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0.0, |m, v| if m.is_nan() || v.is_nan() { f32::NAN } else { m.max(v) })
}

/// The largest difference between two lists of tensors, relative to the tensor's largest magnitude; NaN
/// when a value of either is one.
fn difference(a: &[Named], b: &[Named]) -> f32 {
    let of = |((_, x), (_, y)): (&Named, &Named)| {
        let most = largest(x.iter().map(|v| v.abs())).max(1e-6);
        largest(x.iter().zip(y).map(|(p, q)| (p - q).abs() / most))
    };
    largest(a.iter().zip(b).map(of))
}

#[test]
fn a_value_that_is_no_number_is_no_small_difference() {
    let named = |values: [f32; 3]| vec![("x".to_owned(), vec![0.5]), ("y".to_owned(), values.to_vec())];
    let plain = named([1.0, 2.0, 3.0]);
    assert_eq!(difference(&plain, &named([1.0, 2.0, 6.0])), 1.0);
    for bad in [f32::NAN, f32::INFINITY] {
        for place in 0..3 {
            let mut values = [1.0, 2.0, 3.0];
            values[place] = bad;
            for found in
                [difference(&plain, &named(values)), difference(&named(values), &plain), difference(&named(values), &named(values))]
            {
                assert!(found.is_nan() || found >= 1e-5, "{bad} at {place}: {found}");
            }
        }
    }
}

/// A few narrow layers and tables, one of them with fewer rows than a batch has samples.
fn small_model() -> Model {
    Model {
        dense: Some(5),
        dim: Some(4),
        bottom: Some(vec![12, 4]),
        top: Some(vec![10, 1]),
        rows: Some(vec![50, 3, 200, 1]),
        ..Model::default()
    }
}

fn small_config(bits: Bits, batch: usize) -> Config {
    let quant = Quant { embedding_bits: bits, mlp_bits: bits, period: 5, ..Quant::default() };
    Config { quant, train: Train { batch, eval_batch: batch, ..Train::default() }, ..Config::default() }
}
