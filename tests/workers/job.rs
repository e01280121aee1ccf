//! Small jobs to compare.

use dqrm::checkpoint::Checkpoint;
use dqrm::config::{Config, Device, Workers};
use dqrm::dist::team::Patience;
use dqrm::train::{self, Options, Outcome, Ranks, Start};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// A model with a few tables, small ones among them, on made-up clicks; an epoch does not end with a whole batch.
pub(crate) fn config(count: usize, batch: usize) -> Config {
    let mut config = Config { device: Device::Cpu, seed: 5, ..Config::default() };
    config.model.dense = Some(5);
    config.model.rows = Some(vec![40, 3, 700, 1, 90]);
    config.model.dim = Some(4);
    config.model.bottom = Some(vec![9, 4]);
    config.model.top = Some(vec![11, 1]);
    config.data.synthetic.samples = 7000;
    config.data.split = [0.9, 0.05, 0.05];
    (config.train.batch, config.train.max_steps, config.train.epochs) = (batch, 200, 100);
    config.train.eval_batch = 100;
    config.workers = Workers { count, check_every: 50, ..Workers::default() };
    config
}

/// How a job's ranks are played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Play {
    Alone,
    InProcess,
    Simulated,
}

/// Trains in `dir`.
pub(crate) fn run(config: &Config, play: Play, dir: &Path, start: Start) -> dqrm::Result<Outcome> {
    let config = train::resolve(config)?;
    let data = train::assemble(&config, &mut |_, _, _| {})?;
    let stop = AtomicBool::new(false);
    let ranks = if play == Play::Simulated { Ranks::Simulated } else { Ranks::Alone };
    let options = Options { dir: dir.into(), start, stop: &stop, ranks };
    match play {
        Play::InProcess => train::run_in_process(&config, data, options, Patience::default(), None, &mut |_| {}),
        _ => train::run_on(&config, data, options, &mut |_| {}),
    }
}

/// A fresh run; its folder, and what its last checkpoint holds of `name`s that begin so.
pub(crate) fn trained(config: &Config, play: Play) -> (tempfile::TempDir, Outcome) {
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(config, play, &folder.path().join("run"), Start::Fresh).unwrap();
    (folder, outcome)
}

/// What a run's last checkpoint holds, by name; without what the loop keeps for its reports, which is about the
/// samples of one process.
pub(crate) fn tensors(folder: &Path) -> Vec<(String, Vec<f32>)> {
    let mut file = Checkpoint::open(&folder.join("run/last.safetensors")).unwrap();
    let tensors = file.header.tensors.clone();
    let read = |t: &dqrm::checkpoint::Entry| {
        let mut values = vec![0.0; t.shape.iter().product::<u64>() as usize];
        file.read(&t.name, 0, &mut values).unwrap();
        (t.name.clone(), values)
    };
    tensors.iter().filter(|t| !t.name.starts_with("dqrm.window.")).map(read).collect()
}

/// The weights among them.
pub(crate) fn weights(folder: &Path) -> Vec<(String, Vec<f32>)> {
    tensors(folder).into_iter().filter(|(name, _)| !name.starts_with("dqrm.")).collect()
}

/// The names of the tensors whose bits differ.
pub(crate) fn differing(a: &Path, b: &Path) -> Vec<String> {
    let (a, b) = (tensors(a), tensors(b));
    assert_eq!(a.iter().map(|t| &t.0).collect::<Vec<_>>(), b.iter().map(|t| &t.0).collect::<Vec<_>>());
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    a.iter().zip(&b).filter(|(a, b)| bits(&a.1) != bits(&b.1)).map(|(a, _)| a.0.clone()).collect()
}

/// True when there is an adapter; says so when there is none, and fails when one is required.
pub(crate) fn has_adapter() -> bool {
    let found = pollster::block_on(dqrm::session::adapters()).iter().any(|a| a.backend != "cpu");
    if !found {
        assert!(std::env::var_os("DQRM_REQUIRE_GPU").is_none(), "DQRM_REQUIRE_GPU is set, but there is no adapter");
        eprintln!("skipped: no adapter");
    }
    found
}

/// Two ranks, the first on the CPU engine and the second on an adapter, whose replicas are compared every few steps.
pub(crate) fn run_mixed(config: &Config) -> dqrm::Result<()> {
    use dqrm::dist::exchange::Seat;
    use dqrm::dist::transport::{Transport, inproc};
    use std::sync::mpsc::channel;
    let folder = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let config = train::resolve(config)?;
    let data = train::assemble(&config, &mut |_, _, _| {})?;
    let (give, take) = channel();
    std::thread::scope(|scope| {
        let place =
            |rank: usize, connect| Ranks::Rank { seat: Seat { rank, world: 2, attempt: 0 }, patience: Patience::default(), connect };
        let mut on_adapter = config.clone();
        on_adapter.device = Device::Gpu;
        let second = {
            let (data, stop) = (data.clone(), &stop);
            let ranks = place(1, Box::new(move |_, _| take.recv().map_err(|e| dqrm::Error::Device(e.to_string()))));
            let options = Options { dir: Default::default(), start: Start::Fresh, stop, ranks };
            scope.spawn(move || train::run_on(&on_adapter, data, options, &mut |_| {}))
        };
        let connect = move |_: train::Terms, limits| {
            let mut ends = inproc::mesh(2, &limits, 0, None);
            let other: Box<dyn Transport> = Box::new(ends.pop().unwrap());
            give.send(other).unwrap();
            Ok(Box::new(ends.pop().unwrap()) as Box<dyn Transport>)
        };
        let options = Options { dir: folder.path().join("run"), start: Start::Fresh, stop: &stop, ranks: place(0, Box::new(connect)) };
        let first = train::run_on(&config, data.clone(), options, &mut |_| {});
        let second = second.join().unwrap();
        first.and(second).map(|_| ())
    })
}
