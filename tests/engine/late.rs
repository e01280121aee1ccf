//! Results that nobody waits for are those that `history` gives, in the same order.

use crate::common::gpu;
use crate::{Setup, devices, small_config, small_model};
use dqrm::engine::cpu::CpuEngine;
use dqrm::engine::gpu::GpuEngine;
use dqrm::engine::{Engine, Reading};
use dqrm::ops::{Case, cases};
use dqrm::plan::schedule::Schedule;
use dqrm::quant::Bits;
use dqrm::session::{Session, StepResult};
use pollster::block_on;

/// Samples of a step; not always the same.
fn samples(step: u64) -> usize {
    16 - (step % 3) as usize
}

fn step(setup: &Setup, session: &mut Session, step: u64) {
    let batch = setup.samples(session.tables(), 16 * step, samples(step));
    session.train_step(step, &batch).unwrap();
}

/// Loss and logits as bits.
fn bits(results: &[StepResult]) -> Vec<(u64, u32, Vec<u32>)> {
    results.iter().map(|r| (r.step, r.loss.to_bits(), r.logits.iter().map(|l| l.to_bits()).collect())).collect()
}

#[test]
fn results_that_arrive_later_are_those_of_each_step() {
    const STEPS: u64 = 200;
    for device in devices() {
        for width in [Bits::None, Bits::B4] {
            let setup = Setup::new(small_model(), small_config(width, 16), 2);
            let mut session = setup.session(&device);
            let mut expected = Vec::new();
            for number in 0..STEPS {
                step(&setup, &mut session, number);
                expected.extend(block_on(session.history()).unwrap());
            }
            assert_eq!(expected.len() as u64, STEPS);
            assert!(expected.iter().all(|r| r.logits.len() == samples(r.step)));
            assert!(expected.windows(2).all(|w| w[0].loss != w[1].loss && w[0].step + 1 == w[1].step));
            for least in [1, 5, 1000] {
                let mut session = setup.session(&device);
                let mut found: Vec<StepResult> = Vec::new();
                let at_once = session.device().engine == "cpu";
                let half = least.min(Session::RING / 2) as u64;
                for number in 0..STEPS {
                    step(&setup, &mut session, number);
                    found.extend(block_on(session.settled(least)).unwrap());
                    let late = number + 1 - found.len() as u64;
                    assert!(late < if at_once { half } else { 3 * half }, "{late} steps are not there after step {number}, least {least}");
                }
                found.extend(block_on(session.history()).unwrap());
                assert_eq!(bits(&found), bits(&expected), "{device:?} {width} {least}");
                assert!(block_on(session.history()).unwrap().is_empty() && block_on(session.settled(1)).unwrap().is_empty());
            }
        }
    }
}

#[test]
fn the_ring_is_full_only_where_nobody_asks() {
    for device in devices() {
        let setup = Setup::new(small_model(), small_config(Bits::None, 16), 1);
        let mut session = setup.session(&device);
        let ring = Session::RING as u64;
        let refused = |session: &mut Session, number| {
            let batch = setup.samples(session.tables(), 0, 16);
            session.train_step(number, &batch).unwrap_err().to_string()
        };
        (0..ring / 2).for_each(|number| step(&setup, &mut session, number));
        let mut found = block_on(session.settled(Session::RING / 2)).unwrap();
        // the slots are free again, whether the read of them has arrived or not
        (ring / 2..ring / 2 + ring).for_each(|number| step(&setup, &mut session, number));
        assert!(refused(&mut session, 99).contains("32 steps without reading"));
        let batch = setup.samples(session.tables(), 0, 16);
        assert!(block_on(session.first_not_finite(Some(&batch))).unwrap_err().to_string().contains("call `history` first"));
        found.extend(block_on(session.settled(Session::RING / 2)).unwrap());
        step(&setup, &mut session, ring / 2 + ring);
        found.extend(block_on(session.history()).unwrap());
        assert_eq!(found.iter().map(|r| r.step).collect::<Vec<_>>(), (0..=ring / 2 + ring).collect::<Vec<_>>());
        assert!(block_on(session.first_not_finite(Some(&batch))).unwrap().is_none());
    }
}

#[test]
fn a_session_may_go_while_results_are_under_way() {
    for device in devices() {
        let setup = Setup::new(small_model(), small_config(Bits::B4, 16), 1);
        for steps in [1, 5, 40] {
            let mut session = setup.session(&device);
            for number in 0..steps {
                step(&setup, &mut session, number);
                block_on(session.settled(1)).unwrap();
            }
        }
    }
}

/// A case that copies, loaded on each engine.
fn copying() -> Vec<(Case, Box<dyn Engine>)> {
    let case = || cases().into_iter().find(|case| case.name.starts_with("copy")).unwrap();
    let mut engines: Vec<(Case, Box<dyn Engine>)> = Vec::new();
    let schedule = Schedule::new(case().plan, &CpuEngine::limits(None)).unwrap();
    engines.push((case(), Box::new(CpuEngine::load(schedule))));
    if let Some(adapter) = gpu() {
        let schedule = Schedule::new(case().plan, &adapter.limits).unwrap();
        engines.push((case(), Box::new(block_on(GpuEngine::load(&adapter, schedule)).unwrap())));
    }
    engines
}

#[test]
fn a_read_is_of_the_moment_when_it_began() {
    for (case, mut engine) in copying() {
        let (input, output) = (case.inputs[0].0, case.checks[0].0);
        let value = |round: u32, words: usize| (0..words as u32).map(|i| 1000 * round + i).collect::<Vec<u32>>();
        let mut reads: Vec<Box<dyn Reading>> = Vec::new();
        for round in 0..12 {
            engine.write(input, &value(round, input.len)).unwrap();
            engine.run(&[0], &case.step).unwrap();
            reads.push(engine.begin_read(&[output, input]).unwrap());
        }
        engine.write(input, &value(99, input.len)).unwrap();
        engine.run(&[0], &case.step).unwrap();
        // the last ones first: each waits for itself
        for (round, mut read) in reads.into_iter().enumerate().rev() {
            if round % 2 == 0 {
                while !read.ready().unwrap() {
                    std::thread::yield_now();
                }
            } else {
                block_on(read.wait()).unwrap();
            }
            let expected = [value(round as u32, output.len), value(round as u32, input.len)].concat();
            assert_eq!(read.words().unwrap(), expected, "{engine:?}, round {round}");
        }
        let mut left = engine.begin_read(&[output]).unwrap();
        drop(engine);
        if block_on(left.wait()).is_ok() {
            assert!(left.words().is_ok_and(|words| words == value(99, output.len)) || left.words().is_err());
        }
    }
}
