//! Runs whose commands are timed do what other runs do, and name every command once.

use crate::common::gpu;
use dqrm::engine::cpu::CpuEngine;
use dqrm::engine::gpu::GpuEngine;
use dqrm::engine::{Engine, TimedRun, Timer};
use dqrm::ops::{Case, cases};
use dqrm::plan::schedule::Schedule;
use dqrm::plan::variant::Choice;
use pollster::block_on;
use std::time::Instant;

fn bytes(case: &Case, engine: &mut dyn Engine) -> Vec<Vec<u32>> {
    case.checks.iter().map(|(view, _)| block_on(engine.read(*view)).unwrap()).collect()
}

fn timed(case: &Case, engine: &mut dyn Engine) -> TimedRun {
    let origin = Instant::now();
    engine.run_timed(&[0, 0], &case.step, &|| origin.elapsed().as_secs_f64()).unwrap()
}

fn check(case: &Case, engine: &mut dyn Engine) -> TimedRun {
    case.inputs.iter().for_each(|(view, words)| engine.write(*view, words).unwrap());
    (0..2).for_each(|_| engine.run(&[0], &case.step).unwrap());
    let expected = bytes(case, engine);
    case.inputs.iter().for_each(|(view, words)| engine.write(*view, words).unwrap());
    let run = timed(case, engine);
    assert_eq!(bytes(case, engine), expected, "{}", case.name);
    let places: Vec<_> = run.commands.iter().map(|c| (c.phase, c.command)).collect();
    let count = case.plan.phases[0].commands.len();
    assert_eq!(places, (0..2 * count).map(|i| (0, i % count)).collect::<Vec<_>>(), "{}", case.name);
    assert!(run.commands.iter().all(|c| c.start.is_finite() && c.seconds.is_finite()) && run.seconds >= 0.0, "{run:?}");
    run
}

/// Some cases with few, and with several commands.
fn some() -> Vec<Case> {
    cases().into_iter().filter(|c| c.name.starts_with("matmul B 33") || c.name.starts_with("copy")).collect()
}

#[test]
fn the_cpu_times_commands_by_the_clock() {
    for case in some() {
        let schedule = Schedule::new(case.plan.clone(), &CpuEngine::limits(None)).unwrap();
        let run = check(&case, &mut CpuEngine::load(schedule));
        assert_eq!(run.timer, Timer::Clock);
        assert!(run.commands.windows(2).all(|w| w[1].start >= w[0].start + w[0].seconds), "{run:?}");
        assert!(run.commands.iter().map(|c| c.seconds).sum::<f64>() <= run.seconds);
    }
}

#[test]
fn the_gpu_times_commands_when_it_was_loaded_for_it() {
    let Some(adapter) = gpu() else { return };
    for case in some() {
        let schedule = || Schedule::new(case.plan.clone(), &adapter.limits).unwrap();
        let mut plain = block_on(GpuEngine::load(&adapter, schedule())).unwrap();
        let error = plain.run_timed(&[0], &case.step, &|| 0.0).unwrap_err().to_string();
        assert!(error.contains("not loaded for profiling"), "{error}");
        let mut engine = block_on(GpuEngine::load_with(&adapter, schedule(), Choice::Best, true)).unwrap();
        check(&case, &mut engine);
        // A clock that stands still contradicts any timestamp: the next run does without them.
        engine.run_timed(&[0; 64], &case.step, &|| 0.0).unwrap();
        let run = check(&case, &mut engine);
        if case.name.starts_with("matmul") {
            assert_eq!(run.timer, Timer::Submissions);
        }
    }
}
