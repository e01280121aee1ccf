//! What a schedule refuses, how buffers share memory, and the printed plan of a small model.

use crate::{small_config, small_model};
use dqrm::Error;
use dqrm::config::{Config, Model, Preset, Quant, RowOptimizer};
use dqrm::engine::Engine;
use dqrm::engine::cpu::CpuEngine;
use dqrm::params;
use dqrm::plan::kernel::{reads, updates, writes};
use dqrm::plan::schedule::{Limits, Schedule};
use dqrm::plan::{Access, Args, BufferId, Elem, Kernel, Plan, Role, StepUniform, View, groups};
use dqrm::quant::Bits;
use dqrm::session::Session;
use dqrm::step;
use dqrm::tables::Tables;
use pollster::block_on;

params!(
    /// Nothing to say.
    NoParams { unused: u32 }
);
const NONE: NoParams = NoParams { unused: 0 };

const fn kernel(name: &'static str, bindings: &'static [dqrm::plan::Binding], twin: fn(Args<'_>)) -> Kernel {
    Kernel { name, op: "test", source: "", shared: &[], workgroup: [64, 1, 1], params: NoParams::FIELDS, bindings, twin, variants: &[] }
}

/// `to = from + 1`
static COPY: Kernel = kernel("copy", &[reads("from", Elem::F32), writes("to", Elem::F32)], |mut args| {
    let from = args.f32s(0);
    args.output().iter_mut().zip(from).for_each(|(o, x)| *o = x + 1.0);
});
/// `sum = a + b`
static ADD: Kernel = kernel("add", &[reads("a", Elem::F32), reads("b", Elem::F32), writes("sum", Elem::F32)], |mut args| {
    let (a, b) = (args.f32s(0), args.f32s(1));
    args.output().iter_mut().zip(a.iter().zip(b)).for_each(|(o, (x, y))| *o = x + y);
});
static CHANGE: Kernel = kernel("change", &[updates("what", Elem::F32)], |_| ());
static INTEGERS: Kernel = kernel("integers", &[updates("what", Elem::U32)], |_| ());

fn limits() -> Limits {
    Limits { adapter: "small".into(), max_binding: 4096, max_buffer: 8192, max_storage_buffers: 4, max_groups: 100, max_invocations: 256 }
}

/// A plan with an input, a result and a scratch buffer of 256 floats, and one phase.
fn start() -> (Plan, [View; 3]) {
    let mut plan = Plan::new();
    let mut buffer = |name, role| plan.buffer(name, "[n]", 256, Elem::F32, role);
    let views = [buffer("input", Role::Input), buffer("result", Role::Persistent), buffer("scratch", Role::Scratch)];
    plan.phase("only");
    (plan, views)
}

fn schedule(record: impl FnOnce(&mut Plan, [View; 3])) -> dqrm::Result<Schedule> {
    let (mut plan, views) = start();
    record(&mut plan, views);
    Schedule::new(plan, &limits())
}

#[track_caller]
fn refused(words: &[&str], record: impl FnOnce(&mut Plan, [View; 3])) {
    match schedule(record) {
        Err(Error::Plan(text)) => words.iter().for_each(|w| assert!(text.contains(w), "`{w}` is missing in: {text}")),
        other => panic!("a plan error was expected, not {other:?}"),
    }
}

#[test]
fn a_sound_plan_is_accepted() {
    let accepted = schedule(|plan, [input, result, scratch]| {
        plan.push(&COPY, "first", &NONE, &[input, scratch], [4, 1, 1]);
        plan.push(&ADD, "same input twice", &NONE, &[scratch, scratch, result], [100, 100, 100]);
    });
    let schedule = accepted.unwrap();
    assert_eq!((schedule.bytes(), schedule.params.len()), (3 * 1024, 512));
}

#[test]
fn one_buffer_written_and_bound_twice_is_refused() {
    refused(&["twice", "`result`", "written"], |plan, [input, result, _]| {
        plan.push(&ADD, "twice", &NONE, &[input, result, result], [1, 1, 1]);
    });
    // different parts of one buffer too: barriers are per buffer
    refused(&["parts", "`result`"], |plan, [_, result, _]| {
        plan.push(&COPY, "parts", &NONE, &[result.slice(0, 64), result.slice(64, 64)], [1, 1, 1]);
    });
}

#[test]
fn scratch_read_before_it_is_written_is_refused() {
    refused(&["early", "`scratch`", "before anything wrote it"], |plan, [_, result, scratch]| {
        plan.push(&COPY, "early", &NONE, &[scratch, result], [1, 1, 1]);
    });
    refused(&["early", "`scratch`"], |plan, [_, _, scratch]| plan.push(&CHANGE, "early", &NONE, &[scratch], [1, 1, 1]));
    assert!(schedule(|plan, [_, result, _]| plan.push(&CHANGE, "kept", &NONE, &[result], [1, 1, 1])).is_ok());
}

/// A scratch buffer's memory is another's in the next phase: what one phase wrote is gone in the
/// next, unless the buffer is used in both, which keeps it apart.
#[test]
fn scratch_of_two_phases_keeps_its_own_slot() {
    let (mut plan, [input, result, scratch]) = start();
    plan.push(&COPY, "write", &NONE, &[input, scratch], [1, 1, 1]);
    plan.phase("later");
    let other = plan.buffer("other", "[n]", 256, Elem::F32, Role::Scratch);
    plan.push(&COPY, "overwrite", &NONE, &[input, other], [1, 1, 1]);
    plan.push(&ADD, "both", &NONE, &[scratch, other, result], [1, 1, 1]);
    let schedule = Schedule::new(plan, &limits()).unwrap();
    assert_ne!(schedule.slot(&scratch), schedule.slot(&other));
}

#[test]
fn views_that_do_not_fit_are_refused() {
    let view = |view: View, offset, len| View { offset, len, ..view };
    for (offset, len) in [(0, 257), (192, 65), (256, 64), (1, 64), (63, 64), (65, 1), (64, 0)] {
        refused(&["`to`", &format!("{offset}+{len} of `result` (256 elements)")], |plan, [input, result, _]| {
            plan.push(&COPY, "odd", &NONE, &[input, view(result, offset, len)], [1, 1, 1]);
        });
    }
    refused(&["does not exist"], |plan, [input, result, _]| {
        plan.push(&COPY, "nowhere", &NONE, &[input, View { buffer: BufferId(99), ..result }], [1, 1, 1]);
    });
    assert!(schedule(|plan, [input, result, _]| plan.push(&COPY, "end", &NONE, &[input, view(result, 192, 64)], [1, 1, 1])).is_ok());
}

#[test]
fn kernels_beyond_the_adapter_are_refused() {
    static MANY: Kernel = kernel(
        "many",
        &[reads("a", Elem::F32), reads("b", Elem::F32), reads("c", Elem::F32), reads("d", Elem::F32), writes("e", Elem::F32)],
        |_| (),
    );
    static WIDE: Kernel = Kernel { workgroup: [16, 32, 1], ..kernel("wide", &[updates("what", Elem::F32)], |_| ()) };
    refused(&["many", "5 storage buffers, the adapter allows 4"], |plan, [input, result, _]| {
        plan.push(&MANY, "many", &NONE, &[input, input, input, input, result], [1, 1, 1]);
    });
    refused(&["wide", "256 invocations"], |plan, [_, result, _]| plan.push(&WIDE, "wide", &NONE, &[result], [1, 1, 1]));
    for grid in [[101, 1, 1], [1, 101, 1], [1, 1, 0]] {
        refused(&[&format!("grid {grid:?}"), "allows 100 workgroups"], |plan, [_, result, _]| {
            plan.push(&CHANGE, "far", &NONE, &[result], grid);
        });
    }
}

#[test]
fn bindings_must_match_their_buffers() {
    refused(&["writes the input `input`"], |plan, [input, result, _]| plan.push(&COPY, "back", &NONE, &[result, input], [1, 1, 1]));
    refused(&["1 views for 2 bindings"], |plan, [input, ..]| plan.push(&COPY, "half", &NONE, &[input], [1, 1, 1]));
    refused(&["8 bytes of parameters for 1 fields"], |plan, [input, result, _]| {
        plan.push(&COPY, "long", &[0u32; 2], &[input, result], [1, 1, 1]);
    });
    refused(&["`what` is U32, `result` holds F32"], |plan, [_, result, _]| plan.push(&INTEGERS, "bits", &NONE, &[result], [1, 1, 1]));
}

#[test]
fn sizes_beyond_the_adapter_carry_both_figures() {
    for (len, limit) in [(1025, ("maxStorageBufferBindingSize", 4096)), (2049, ("maxBufferSize", 8192))] {
        let (mut plan, _) = start();
        plan.buffer("large", "[n]", len, Elem::U32, Role::Persistent);
        match Schedule::new(plan, &limits()) {
            Err(Error::Limit { what, needed, limit_name, limit: allowed, adapter, .. }) => {
                assert_eq!((needed, limit_name, allowed), (4 * len as u64, limit.0, limit.1));
                assert!(what.contains("`large`") && adapter == "small");
            }
            other => panic!("a limit error was expected, not {other:?}"),
        }
    }
}

#[test]
fn scratch_buffers_share_slots_unless_alive_together() {
    let (mut plan, [input, result, _]) = start();
    let mut scratch = |name: &str, len| plan.buffer(name, "[n]", len, Elem::F32, Role::Scratch);
    let (a, b, c, d) = (scratch("a", 256), scratch("b", 128), scratch("c", 200), scratch("d", 256));
    plan.push(&COPY, "input to a", &NONE, &[input, a], [1, 1, 1]);
    plan.push(&COPY, "a to b", &NONE, &[a, b], [1, 1, 1]);
    plan.push(&COPY, "b to c", &NONE, &[b, c], [1, 1, 1]); // a is free here
    plan.push(&COPY, "c to result", &NONE, &[c, result], [1, 1, 1]);
    plan.phase("next");
    plan.push(&COPY, "input to d", &NONE, &[input, d], [1, 1, 1]);
    plan.push(&COPY, "d to result", &NONE, &[d, result], [1, 1, 1]);
    let schedule = Schedule::new(plan, &limits()).unwrap();
    let slot = |v: View| schedule.slot(&v);
    assert_eq!(slot(a), slot(c));
    assert_ne!(slot(a), slot(b), "the command that reads a writes b");
    assert_ne!(slot(b), slot(c));
    assert_eq!(slot(d), slot(a), "the next phase takes the same memory, the slot that fits best");
    assert!([a, b, c, d].iter().all(|v| slot(*v) != slot(input) && slot(*v) != slot(result)));
    assert!([a, b, c, d].iter().all(|v| schedule.slots[slot(*v)] >= v.len));

    let mut engine = CpuEngine::load(schedule);
    engine.write(input, &(0..256).map(|i| (i as f32).to_bits()).collect::<Vec<_>>()).unwrap();
    engine.run(&[0], &StepUniform::evaluate(1, 0)).unwrap();
    let words = block_on(engine.read(result)).unwrap();
    assert_eq!((f32::from_bits(words[5]), f32::from_bits(words[127])), (9.0, 131.0), "four copies, each adds 1");
}

#[test]
fn a_buffer_beyond_all_memory_is_an_error() {
    let mut plan = Plan::new();
    plan.buffer("tables", "[rows]", 1 << 59, Elem::F32, Role::Input);
    let schedule = Schedule::new(plan, &CpuEngine::limits(None)).unwrap();
    let error = CpuEngine::load_with(schedule, Vec::new()).unwrap_err().to_string();
    assert!(error.contains("too little memory for a buffer of 2305843009213693952 bytes"), "{error}");
}

/// The plan of a preset's training run, with its tables cut in three.
fn recorded(preset: Preset, bits: Bits, optimizer: RowOptimizer) -> Plan {
    let model = Model { preset, max_rows: Some(500), ..Model::default() };
    let shape = model.shape(None, None).unwrap();
    let mut config = Config { quant: Quant { embedding_bits: bits, mlp_bits: bits, ..Quant::default() }, ..Config::default() };
    config.optim.embedding = optimizer;
    let rows: u64 = shape.rows.iter().sum();
    let tables = Tables::new(&shape.rows, shape.dim, rows.div_ceil(3) * 4 * shape.dim as u64).unwrap();
    assert_eq!(tables.shards(), 3);
    step::record(&shape, &config, &tables, &vec![1; shape.tables()], Session::RING).plan
}

/// Looks at real plans without the schedule's own code: within a phase, while one buffer's content may
/// still be read, no other buffer of the same slot is written.
#[test]
fn recorded_plans_never_overwrite_what_is_still_needed() {
    for (preset, bits, optimizer) in [
        (Preset::Tiny, Bits::B4, RowOptimizer::Sgd),
        (Preset::Tiny, Bits::None, RowOptimizer::Rwsadagrad),
        (Preset::Kaggle, Bits::B4, RowOptimizer::Adagrad),
    ] {
        let plan = recorded(preset, bits, optimizer);
        let schedule = Schedule::new(plan.clone(), &CpuEngine::limits(None)).unwrap();
        let mut pairs_that_share = 0;
        for a in 0..plan.buffers.len() {
            for b in 0..a {
                if schedule.slot_of[a] != schedule.slot_of[b] {
                    continue;
                }
                assert!([a, b].iter().all(|&i| plan.buffers[i].role == Role::Scratch), "only scratch buffers share");
                pairs_that_share += 1;
                let uses = |buffer: usize| -> Vec<(usize, usize)> {
                    let commands = plan.phases.iter().enumerate().flat_map(|(p, phase)| (0..phase.commands.len()).map(move |c| (p, c)));
                    commands.filter(|&(p, c)| plan.phases[p].commands[c].views.iter().any(|v| v.buffer.0 == buffer)).collect()
                };
                let (ua, ub) = (uses(a), uses(b));
                let apart = ua.last() < ub.first() || ub.last() < ua.first();
                assert!(apart, "`{}` and `{}` lie in one slot while both are alive", plan.buffers[a].name, plan.buffers[b].name);
                for (buffer, first) in [(a, ua[0]), (b, ub[0])] {
                    assert!(uses(buffer).iter().all(|u| u.0 == first.0), "`{}` outlives its phase", plan.buffers[buffer].name);
                    let command = &plan.phases[first.0].commands[first.1];
                    let mut bound = command.kernel.bindings.iter().zip(&command.views).filter(|(_, v)| v.buffer.0 == buffer);
                    assert!(bound.all(|(binding, _)| binding.access == Access::Write), "`{}` starts unwritten", plan.buffers[buffer].name);
                }
            }
        }
        assert!(pairs_that_share > 5, "only {pairs_that_share} pairs of buffers share a slot");
        let unshared: u64 = plan.buffers.iter().map(|b| 4 * b.len as u64).sum();
        assert!(schedule.bytes() < unshared, "{} bytes, {unshared} without sharing", schedule.bytes());
    }
}

#[test]
fn parameters_lie_where_a_uniform_may_begin() {
    let schedule = Schedule::new(recorded(Preset::Tiny, Bits::B4, RowOptimizer::Sgd), &CpuEngine::limits(None)).unwrap();
    let commands: Vec<_> = schedule.plan.phases.iter().flat_map(|p| &p.commands).collect();
    assert_eq!(schedule.params.len(), 256 * commands.len());
    for (block, command) in schedule.params.chunks(256).zip(commands) {
        assert_eq!(&block[..command.params.len()], &command.params[..], "{}", command.label);
    }
}

#[test]
fn grids_fold_where_a_dimension_is_too_short() {
    for count in [0, 1, 32_768, 32_769, 10_000_000] {
        let [x, y, z] = groups(count);
        assert!(x as usize * y as usize >= count && x <= 32_768 && y > 0 && z == 1, "{count}: {x} {y} {z}");
    }
    assert_eq!(dqrm::plan::grid(65), [2, 1, 1]);
}

#[test]
fn the_printed_plan_is_the_committed_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots/plan.txt");
    let shape = small_model().shape(None, None).unwrap();
    let mut config = small_config(Bits::B4, 32);
    config.optim.embedding = RowOptimizer::Rwsadagrad;
    let tables = Tables::new(&shape.rows, shape.dim, 128 * 16).unwrap();
    let printed = step::record(&shape, &config, &tables, &[1, 1, 2, 1], Session::RING).plan.to_string();
    if std::env::var("UPDATE").as_deref() == Ok("1") {
        std::fs::write(path, &printed).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap().replace("\r\n", "\n");
    let differing = committed.lines().zip(printed.lines()).find(|(a, b)| a != b);
    assert!(committed == printed, "the plan changed; UPDATE=1 rewrites {path}\nfirst change: {differing:#?}\n{printed}");
}
