//! Whole trainings with other texts of the kernels than the adapter would get, and with texts chosen by time.

use crate::{Setup, assert_same_bytes, common, difference, everything, largest, small_config};
use dqrm::config::{Config, DenseOptimizer, Device, Model, Optim, RowOptimizer};
use dqrm::engine::gpu::GpuAdapter;
use dqrm::ops::kernels;
use dqrm::plan::variant::{Choice, MadeFor, Picks, candidates, choose};
use dqrm::plan::{Command, Plan, Variant};
use dqrm::quant::Bits;
use dqrm::session::{Loading, Session};
use dqrm::tune::{self, Chooser};
use dqrm::tuning_file::{IN_RUN, Tune, Tuner, Tuning};
use pollster::block_on;
use std::collections::BTreeSet;
use std::time::Instant;

/// Widths that are multiples of four and widths that are not, wherever a product has one; two tiles of 64 samples.
fn setup(bits: Bits) -> Setup {
    let model = Model {
        dense: Some(13),
        dim: Some(12),
        bottom: Some(vec![36, 12]),
        top: Some(vec![68, 30, 1]),
        rows: Some(vec![50, 3, 200, 1, 70, 20, 9, 33]),
        ..Model::default()
    };
    let optim = Optim { embedding: RowOptimizer::Rwsadagrad, dense: DenseOptimizer::Sgd, lr: 0.05, ..Optim::default() };
    Setup::new(model, Config { optim, ..small_config(bits, 70) }, 2)
}

fn commands(plan: &Plan) -> impl Iterator<Item = &Command> {
    plan.phases.iter().flat_map(|p| &p.commands)
}

/// Variants for GPUs whose names end in this; all other kernels run their own text.
#[derive(Debug)]
struct Forced {
    ending: &'static str,
    ran: BTreeSet<&'static str>,
}

fn hardware(variants: &'static [Variant]) -> impl Iterator<Item = &'static Variant> {
    variants.iter().filter(|v| v.made_for == MadeFor::Hardware)
}

impl Chooser for Forced {
    fn picks(&mut self, adapter: &GpuAdapter, plan: &Plan) -> Picks {
        let mut picks = Picks::default();
        for command in commands(plan) {
            let fitting = hardware(command.kernel.variants).find(|v| v.name.ends_with(self.ending) && v.can_run(&adapter.traits, command));
            picks.set(command, fitting.map_or(command.kernel.name, |v| v.name));
            let taken = choose(&adapter.traits, command, Choice::Picked(&picks));
            assert_eq!(taken, fitting);
            self.ran.extend(taken.map(|v| v.name));
        }
        picks
    }
}

fn session(setup: &Setup, device: &Device, chooser: Option<&mut dyn Chooser>) -> Session {
    let config = Config { device: device.clone(), ..setup.config.clone() };
    let loading = Loading { chooser, ..Loading::default() };
    let mut session = block_on(Session::load_with(&setup.shape, &config, dqrm::data::Samples::max_bag(&setup.clicks), loading)).unwrap();
    session.initialise(5, &mut |_, _| {}).unwrap();
    session
}

const STEPS: u64 = 12;

#[test]
fn every_text_for_gpus_trains_as_the_cpu_does() {
    let Some(adapter) = common::gpu() else { return };
    let device = Device::Named(adapter.name);
    let mut ran = BTreeSet::new();
    let endings = ["none", "tiles64_fours", "tiles64_mixed", "tiles64", "tiles32_fours", "tiles32_mixed", "tiles32", "sliced"];
    for bits in [Bits::None, Bits::B4] {
        let setup = setup(bits);
        let mut cpu = session(&setup, &Device::Cpu, None);
        let expected = (setup.train(&mut cpu, 0..STEPS), everything(&mut cpu));
        for ending in endings {
            let mut forced = Forced { ending, ran: BTreeSet::new() };
            let mut run = || {
                let mut session = session(&setup, &device, Some(&mut forced));
                (setup.train(&mut session, 0..STEPS), everything(&mut session))
            };
            let found = run();
            let losses = largest(found.0.iter().zip(&expected.0).map(|(a, b)| (a - b).abs()));
            assert!(losses < 1e-5, "{bits:?} {ending}: losses differ by {losses}");
            let tensors = difference(&found.1, &expected.1);
            assert!(tensors < 1e-5, "{bits:?} {ending}: tensors differ by {tensors}");
            if bits == Bits::B4 {
                assert_same_bytes(ending, &found.1, &run().1);
            }
            assert_eq!(forced.ran.is_empty(), ending == "none", "{ending}");
            ran.extend(forced.ran);
        }
    }
    let all: BTreeSet<&str> = kernels().into_iter().flat_map(|k| hardware(k.variants)).map(|v| v.name).collect();
    assert_eq!(ran, all, "some text did not run");
}

#[test]
fn tuning_times_each_product_once_and_remembers() {
    let Some(adapter) = common::gpu() else { return };
    let setup = setup(Bits::B4);
    let device = Device::Named(adapter.name.clone());
    let plan = session(&setup, &device, None).plan().clone();
    let begin = Instant::now();
    // slowed down, so that no device runs out of time
    let clock = || begin.elapsed().as_secs_f64() / 100.0;
    let mut rounds = 0;
    let mut progress = |_, _| rounds += 1;
    let picks = block_on(tune::tune(&adapter, &plan, &Picks::default(), &clock, &mut progress)).unwrap();
    for command in commands(&plan).filter(|c| tune::is_timed(c)) {
        let names = candidates(&adapter.traits, command);
        match picks.get(command) {
            Some(name) => assert!(names.contains(&name), "`{name}` for {}", command.label),
            None => assert_eq!(names.len(), 1, "nothing for {}", command.label),
        }
    }
    assert!(!picks.is_empty() && rounds > 1, "{picks:?}");
    rounds = 0;
    let again = block_on(tune::tune(&adapter, &plan, &picks, &clock, &mut |_, _| rounds += 1)).unwrap();
    assert_eq!((&again, rounds), (&picks, 0), "something was timed again");
}

#[test]
fn a_run_keeps_the_texts_that_it_began_with() {
    let Some(adapter) = common::gpu() else { return };
    let setup = setup(Bits::B4);
    let device = Device::Named(adapter.name.clone());
    let dir = tempfile::tempdir().unwrap();
    let (cache, run) = (dir.path().join("cache"), dir.path().join("run"));
    std::fs::create_dir(&run).unwrap();
    let tuned = |mode, resume: bool| {
        let tuning = Tuning { mode, cache: Some(cache.clone()) };
        let mut quiet = |_, _| {};
        let mut tuner = Tuner::new(&tuning, &mut quiet);
        if resume {
            tuner.resume(&run);
        }
        let mut session = session(&setup, &device, Some(&mut tuner));
        assert!(tuner.found.warnings.is_empty(), "{:?}", tuner.found.warnings);
        setup.train(&mut session, 0..STEPS);
        (everything(&mut session), tuner.found)
    };
    let (first, found) = tuned(Tune::Cached, false);
    found.keep(&run).unwrap();
    let kept = std::fs::read(run.join(IN_RUN)).unwrap();
    assert_eq!(kept, std::fs::read(cache.join(IN_RUN)).unwrap());
    assert_same_bytes("from the cache", &first, &tuned(Tune::Cached, false).0);
    // A cache that says something else, or nothing: what stands in the run's folder counts.
    let other = String::from_utf8(kept.clone()).unwrap().replace("_texels", "_gone").replace("_tiles", "_gone");
    for text in [other.as_str(), "{}", "{\"version\": 1", ""] {
        std::fs::write(cache.join(IN_RUN), text).unwrap();
        for mode in [Tune::Off, Tune::Cached] {
            let (now, found) = tuned(mode, true);
            assert_same_bytes(text, &first, &now);
            found.keep(&run).unwrap();
            assert_eq!(std::fs::read(run.join(IN_RUN)).unwrap(), kept, "{mode:?} with {text:?}");
        }
    }
    let cached = || std::fs::read(cache.join(IN_RUN)).unwrap();
    assert!(cached().is_empty(), "what a run had found before went to the cache of others");
    tuned(Tune::Cached, false);
    assert!(cached().starts_with(b"{"), "a damaged cache was not written anew");
    // A file of the run that is of no use: the user hears of it.
    std::fs::write(run.join(IN_RUN), "{}").unwrap();
    let tuning = Tuning::default();
    let mut quiet = |_, _| {};
    let mut tuner = Tuner::new(&tuning, &mut quiet);
    tuner.resume(&run);
    session(&setup, &device, Some(&mut tuner));
    assert_eq!(tuner.found.warnings.len(), 1, "{:?}", tuner.found.warnings);
}
