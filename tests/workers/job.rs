//! Small jobs to compare.

use dqrm::checkpoint::Checkpoint;
use dqrm::config::{Config, Device, Workers};
use dqrm::dist::exchange::Seat;
use dqrm::dist::frame::Limits;
use dqrm::dist::team::Patience;
use dqrm::dist::transport::{Transport, inproc};
use dqrm::train::{self, Options, Outcome, Ranks, Start};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;

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
    let ranks = if play == Play::Simulated { Ranks::Simulated { network: None } } else { Ranks::Alone };
    let options = Options { dir: dir.into(), start, stop: &stop, ranks, profile: 0, tuning: Default::default() };
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

/// A tensor with its name.
pub(crate) type Named = (String, Vec<f32>);

/// What a run's last checkpoint holds, by name; without what the loop keeps for its reports, which is about the
/// samples of one process.
pub(crate) fn tensors(folder: &Path) -> Vec<Named> {
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
pub(crate) fn weights(folder: &Path) -> Vec<Named> {
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
        writeln!(std::io::stderr(), "workers on different engines skipped: no adapter").expect("stderr can be written");
    }
    found
}

/// Changes a rank's way to its peers.
pub(crate) type Wrap<'a> = &'a (dyn Fn(usize, Box<dyn Transport>) -> Box<dyn Transport> + Sync);

/// Runs each rank in a thread with settings of its own; what each ended with. Rank 0 keeps its run in `dir`.
pub(crate) fn run_ranks(configs: &[Config], dir: &Path, start: &Start, patience: Patience, wrap: Wrap<'_>) -> Vec<dqrm::Result<Outcome>> {
    let world = configs.len();
    let data = train::assemble(&configs[0], &mut |_, _, _| {}).unwrap();
    let ends: Mutex<Option<Vec<Option<inproc::InProc>>>> = Mutex::new(None);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let rank = |rank: usize| {
            let (config, data, ends, stop) = (&configs[rank], data.clone(), &ends, &stop);
            let end = move |limits: &Limits| {
                let mut ends = ends.lock().unwrap();
                let all = ends.get_or_insert_with(|| inproc::mesh(world, limits, 0, None).into_iter().map(Some).collect());
                all[rank].take().unwrap()
            };
            move || {
                // `Connect` lives for as long as it likes: what is borrowed is reached through a channel
                let (ask, asked) = channel::<Limits>();
                let (give, given) = channel::<Box<dyn Transport>>();
                let connect: train::Connect = Box::new(move |_, limits| {
                    ask.send(limits).unwrap();
                    given.recv().map_err(|e| dqrm::Error::Device(e.to_string()))
                });
                std::thread::scope(|inner| {
                    inner.spawn(move || {
                        if let Ok(limits) = asked.recv() {
                            give.send(wrap(rank, Box::new(end(&limits)))).unwrap();
                        }
                    });
                    let ranks = Ranks::Rank { seat: Seat { rank, world, attempt: 0 }, patience, connect };
                    let dir = if rank == 0 { dir.to_path_buf() } else { Default::default() };
                    train::run_on(
                        config,
                        data,
                        Options { dir, start: start.clone(), stop, ranks, profile: 0, tuning: Default::default() },
                        &mut |_| {},
                    )
                })
            }
        };
        let threads: Vec<_> = (0..world).map(|r| scope.spawn(rank(r))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Two ranks, the first on the CPU engine and the second on an adapter, whose replicas are compared every few steps.
pub(crate) fn run_mixed(config: &Config) -> dqrm::Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let on_adapter = Config { device: Device::Gpu, ..config.clone() };
    let dir = folder.path().join("run");
    let ended = run_ranks(&[config.clone(), on_adapter], &dir, &Start::Fresh, Patience::default(), &|_, transport| transport);
    ended.into_iter().try_for_each(|outcome| outcome.map(|_| ()))
}
