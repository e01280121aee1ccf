//! Whole trainings with other texts of the kernels than the adapter would get, and with texts chosen by time.

use crate::{Setup, assert_same_bytes, common, difference, everything, largest, small_config};
use dqrm::config::{Config, DenseOptimizer, Device, Model, Optim, RowOptimizer};
use dqrm::engine::gpu::GpuAdapter;
use dqrm::ops::{kernels, matmul};
use dqrm::plan::kernel::shared;
use dqrm::plan::variant::{Choice, Form, MadeFor, Picks, Subgroups, candidates, choose};
use dqrm::plan::{Command, Kernel, Plan, Variant};
use dqrm::quant::Bits;
use dqrm::session::{Loading, Session};
use dqrm::tune::{self, Chooser};
use dqrm::tuning_file::{IN_RUN, Tune, Tuner, Tuning};
use pollster::block_on;
use std::collections::BTreeSet;
use std::io::Write;
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
    let endings = [
        "none",
        "tiles64_fours",
        "tiles64_mixed",
        "tiles64",
        "tiles32_fours",
        "tiles32_mixed",
        "tiles32",
        "sliced",
        "subgroups_fours",
        "subgroups_mixed",
        "subgroups",
        "cooperative16",
        "cooperative8",
    ];
    let possible = |ending: &str| {
        ending == "none"
            || kernels().into_iter().flat_map(|k| hardware(k.variants)).any(|v| v.name.ends_with(ending) && v.has_features(&adapter.traits))
    };
    for bits in [Bits::None, Bits::B4] {
        let setup = setup(bits);
        let mut cpu = session(&setup, &Device::Cpu, None);
        let expected = (setup.train(&mut cpu, 0..STEPS), everything(&mut cpu));
        for ending in endings.into_iter().filter(|ending| possible(ending)) {
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
    let (able, lacking): (Vec<_>, Vec<_>) =
        kernels().into_iter().flat_map(|k| hardware(k.variants)).partition(|v| v.has_features(&adapter.traits));
    let all: BTreeSet<&str> = able.iter().map(|v| v.name).collect();
    for variant in lacking {
        let needed = if variant.cooperative.is_some() { "cooperative matrices" } else { "subgroups" };
        let line = format!("skipped: `{}` needs {needed} that the adapter does not have", variant.name);
        writeln!(std::io::stderr(), "{line}").expect("standard error is open");
    }
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
    let picks = block_on(tune::tune(&adapter, &plan, &Picks::default(), &clock, &mut progress)).unwrap().picks;
    for command in commands(&plan).filter(|c| tune::is_timed(c)) {
        let names = candidates(&adapter.traits, command);
        match picks.get(command) {
            Some(name) => assert!(names.contains(&name), "`{name}` for {}", command.label),
            None => assert_eq!(names.len(), 1, "nothing for {}", command.label),
        }
    }
    assert!(!picks.is_empty() && rounds > 1, "{picks:?}");
    rounds = 0;
    let again = block_on(tune::tune(&adapter, &plan, &picks, &clock, &mut |_, _| rounds += 1)).unwrap().picks;
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
    let other = other.replace("_subgroups", "_gone").replace("_cooperative", "_gone");
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

/// The commands of [`setup`], on an adapter that passes for hardware.
fn products() -> Option<(GpuAdapter, Plan)> {
    let mut adapter = common::gpu()?;
    adapter.traits.software = false;
    let plan = session(&setup(Bits::None), &Device::Named(adapter.name.clone()), None).plan().clone();
    Some((adapter, plan))
}

#[test]
fn texts_for_those_who_ask_are_timed_and_agree() {
    let Some((adapter, plan)) = products() else { return };
    let (mut sides, mut on_subgroups) = (BTreeSet::new(), BTreeSet::new());
    for command in commands(&plan).filter(|c| tune::is_timed(c)) {
        let names = candidates(&adapter.traits, command);
        for name in &names[1..] {
            let Some(variant) = command.kernel.variants.iter().find(|v| v.name == *name && v.only_on_request()) else { continue };
            assert_eq!(block_on(tune::difference(&adapter, command, names[0], name)).unwrap(), None, "{name} for {}", command.label);
            sides.extend(variant.cooperative);
            on_subgroups.extend(variant.subgroup.map(|_| variant.name));
        }
    }
    assert_eq!(sides, adapter.traits.cooperative.iter().copied().collect());
    let large = adapter.traits.subgroups.is_some_and(|(least, _)| least >= 8);
    assert_eq!(on_subgroups.len(), if large { 12 } else { 0 }, "{on_subgroups:?}");
    let begin = Instant::now();
    // slowed down, so that no round is left out
    let clock = || begin.elapsed().as_secs_f64() / 100.0;
    let tuned = block_on(tune::tune(&adapter, &plan, &Picks::default(), &clock, &mut |_, _| ())).unwrap();
    assert!(tuned.warnings.is_empty(), "{:?}", tuned.warnings);
}

/// `matmul_nn`, times 1 + 2^-11.
const CARELESS: Variant = Variant {
    name: "careless",
    entry: "careless",
    consts: "",
    source: "
struct MatmulParams { inputs: u32, outputs: u32, relu: u32 }
@group(0) @binding(0) var<uniform> layer: MatmulParams;
@group(0) @binding(1) var<storage, read> dz: array<f32>;
@group(0) @binding(2) var<storage, read> nn_w: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;
@compute @workgroup_size(8, 8)
fn careless(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < layer.inputs && id.y < step.batch) {
        var sum = 0.0;
        for (var o = 0u; o < layer.outputs; o++) {
            sum += dz[id.y * layer.outputs + o] * nn_w[o * layer.inputs + id.x];
        }
        dx[id.y * layer.inputs + id.x] = sum * 1.00048828125;
    }
}
",
    shared: &[shared::STEP],
    workgroup: [8, 8, 1],
    subgroup: None,
    cooperative: None,
    stages: None,
    made_for: MadeFor::Hardware,
    forms: &[Form::Storage; 3],
    suits: |_| true,
    worth: |_| false,
    grid: |job| [job.param(0).div_ceil(8) as u32, (job.len(2) / job.param(0)).div_ceil(8) as u32, 1],
};
static WITH_CARELESS: Kernel = Kernel { variants: &[CARELESS], ..matmul::MATMUL_NN };

/// A text that computes nothing, which is quick, and says that it uses subgroups of any size.
const HASTY: Variant = Variant {
    name: "hasty",
    entry: "hasty",
    source: "
struct MatmulParams { inputs: u32, outputs: u32, relu: u32 }
@group(0) @binding(0) var<uniform> layer: MatmulParams;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;
@compute @workgroup_size(8, 8)
fn hasty(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < layer.inputs && id.y < step.batch) {
        dx[id.y * layer.inputs + id.x] = 0.0;
    }
}
",
    subgroup: Some(Subgroups::AtLeast(8)),
    worth: |_| true,
    ..CARELESS
};
static WITH_HASTY: Kernel = Kernel { variants: &[HASTY], ..matmul::MATMUL_NN };
/// The same, which says that it needs cooperative matrices.
static WITH_HASTY_MATRICES: Kernel = Kernel { variants: &[Variant { subgroup: None, cooperative: Some(8), ..HASTY }], ..matmul::MATMUL_NN };

#[test]
fn a_text_that_errs_is_noticed_before_it_is_picked() {
    let Some((adapter, plan)) = products() else { return };
    let mut command = commands(&plan).find(|c| c.kernel == &matmul::MATMUL_NN).expect("an ungated product").clone();
    command.kernel = &WITH_CARELESS;
    let found = block_on(tune::difference(&adapter, &command, "matmul_nn", "careless")).unwrap();
    assert!(found.as_ref().is_some_and(|text| text.contains("of `matmul_nn ")), "{found:?}");
    assert_eq!(block_on(tune::difference(&adapter, &command, "matmul_nn", "matmul_nn")).unwrap(), None);
}

#[test]
fn a_text_for_those_who_ask_that_errs_is_not_picked_however_quick() {
    let Some((mut adapter, plan)) = products() else { return };
    let able = [adapter.traits.subgroups.is_some(), adapter.traits.cooperative.contains(&8)];
    adapter.traits.cooperative = &[8];
    adapter.traits.subgroups = Some((8, 8));
    hasty_is_not_picked(&adapter, plan.clone(), &WITH_HASTY, able[0]);
    hasty_is_not_picked(&adapter, plan, &WITH_HASTY_MATRICES, able[1]);
}

fn hasty_is_not_picked(adapter: &GpuAdapter, mut plan: Plan, kernel: &'static Kernel, able: bool) {
    plan.phases.iter_mut().for_each(|p| p.commands.retain(|c| c.kernel == &matmul::MATMUL_NN));
    plan.phases.iter_mut().flat_map(|p| &mut p.commands).for_each(|c| c.kernel = kernel);
    for command in commands(&plan) {
        assert_eq!(candidates(&adapter.traits, command), ["matmul_nn", "hasty"]);
    }
    let begin = Instant::now();
    let clock = || begin.elapsed().as_secs_f64() / 100.0;
    let tuned = block_on(tune::tune(adapter, &plan, &Picks::default(), &clock, &mut |_, _| ())).unwrap();
    assert!(!tuned.picks.is_empty() && tuned.picks.iter().all(|(_, name)| name == "matmul_nn"), "{tuned:?}");
    if able {
        assert!(tuned.warnings.iter().all(|w| w.contains("`hasty` is quick here, but not used: result")), "{:?}", tuned.warnings);
    } else {
        assert!(tuned.warnings.len() == 1 && tuned.warnings[0].contains("not timed"), "{:?}", tuned.warnings);
    }
}

#[test]
fn what_another_program_found_is_compared_again() {
    let Some((adapter, mut plan)) = products() else { return };
    let own = &adapter.traits;
    plan.phases.iter_mut().for_each(|p| p.commands.retain(|c| c.kernel == &matmul::MATMUL_NN));
    plan.phases.iter_mut().flat_map(|p| &mut p.commands).for_each(|c| c.kernel = &WITH_HASTY);
    if !commands(&plan).all(|c| candidates(own, c).contains(&"hasty")) {
        return writeln!(std::io::stderr(), "skipped: the adapter has no subgroups of 8 or more").expect("standard error is open");
    }
    let run = tempfile::tempdir().unwrap();
    let resumed = |mode| {
        let (tuning, mut quiet) = (Tuning { mode, cache: None }, |_, _| {});
        let mut tuner = Tuner::new(&tuning, &mut quiet);
        tuner.resume(run.path());
        let picks = tuner.picks(&adapter, &plan);
        tuner.found.keep(run.path()).unwrap();
        (picks, tuner.found.warnings)
    };
    let all_are = |picks: &Picks, name: &str| !picks.is_empty() && picks.iter().all(|(_, pick)| pick == name);
    assert!(all_are(&resumed(Tune::Fresh).0, "matmul_nn"));
    let file = run.path().join(IN_RUN);
    let hasty = std::fs::read_to_string(&file).unwrap().replace(": \"matmul_nn\"", ": \"hasty\"");
    for mode in [Tune::Off, Tune::Cached] {
        std::fs::write(&file, &hasty).unwrap();
        let (picks, warnings) = resumed(mode);
        assert!(all_are(&picks, "hasty") && warnings.is_empty(), "this program has compared them: {picks:?}, {warnings:?}");
        std::fs::write(&file, hasty.replace("naga ", "an elder ")).unwrap();
        let (picks, warnings) = resumed(mode);
        assert!(all_are(&picks, "matmul_nn"), "{picks:?}");
        assert_eq!(warnings.len(), picks.iter().count(), "{warnings:?}");
        assert!(warnings.iter().all(|w| w.starts_with("`hasty`, which the run has used, is used no longer: result")), "{warnings:?}");
        assert_eq!(resumed(mode), (picks, Vec::new()), "what was compared is not the run's from now on");
    }
}
