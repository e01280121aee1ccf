//! Every kernel: valid for a browser, laid out as Rust says, equal to its twin on every engine.

mod common;

use common::gpu;
use dqrm::engine::Engine;
use dqrm::engine::cpu::CpuEngine;
use dqrm::engine::gpu::GpuEngine;
use dqrm::ops::case::{GUARD, POISON};
use dqrm::ops::{Case, cases, kernels};
use dqrm::plan::schedule::{Limits, Schedule};
use dqrm::plan::{Access, BufferId, Elem, Kernel, StepUniform, View};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use pollster::block_on;

fn parse(kernel: &Kernel) -> naga::Module {
    naga::front::wgsl::parse_str(&kernel.wgsl()).unwrap_or_else(|e| panic!("{}: {}", kernel.name, e.emit_to_string(&kernel.wgsl())))
}

#[test]
fn shaders_are_valid_without_any_extension() {
    for kernel in kernels() {
        let module = parse(kernel);
        let checked = Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module);
        checked.unwrap_or_else(|e| panic!("{}: {e:?}", kernel.name));
    }
}

#[test]
fn bindings_and_sizes_are_those_of_the_kernels() {
    for kernel in kernels() {
        let module = parse(kernel);
        let info = Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module).unwrap();
        let index =
            module.entry_points.iter().position(|e| e.name == kernel.name).unwrap_or_else(|| panic!("no entry point {}", kernel.name));
        assert_eq!(module.entry_points[index].workgroup_size, kernel.workgroup, "{}", kernel.name);
        let uses = info.get_entry_point(index);
        let mut storage = 0;
        let mut workgroup_bytes = 0;
        for (handle, global) in module.global_variables.iter() {
            if uses[handle].is_empty() {
                continue;
            }
            let mut layouter = naga::proc::Layouter::default();
            layouter.update(module.to_ctx()).unwrap();
            match (&global.binding, global.space) {
                (_, naga::AddressSpace::WorkGroup) => workgroup_bytes += layouter[global.ty].size,
                (Some(b), naga::AddressSpace::Uniform) if b.group == 1 => {
                    check_struct(&module, global.ty, &StepUniform::FIELDS, kernel.name)
                }
                (Some(b), naga::AddressSpace::Uniform) => {
                    assert_eq!((b.group, b.binding), (0, 0), "{}", kernel.name);
                    check_struct(&module, global.ty, kernel.params, kernel.name);
                }
                (Some(b), naga::AddressSpace::Storage { access }) => {
                    let declared = &kernel.bindings[b.binding as usize - 1];
                    let writable = access.contains(naga::StorageAccess::STORE);
                    assert_eq!(global.name.as_deref(), Some(declared.name), "{}", kernel.name);
                    assert_eq!(writable, declared.access != Access::Read, "{} {}", kernel.name, declared.name);
                    assert_eq!(elem(&module, global.ty), declared.elem, "{} {}", kernel.name, declared.name);
                    storage += 1;
                }
                other => panic!("{}: unexpected global {other:?}", kernel.name),
            }
        }
        assert_eq!(storage, kernel.bindings.len(), "{} uses other bindings than it declares", kernel.name);
        assert!(storage <= 8, "{}: {storage} storage buffers; browsers give 8", kernel.name);
        assert!(kernel.workgroup.iter().product::<u32>() <= 256 && workgroup_bytes <= 16_384, "{}", kernel.name);
    }
}

fn elem(module: &naga::Module, ty: naga::Handle<naga::Type>) -> Elem {
    let naga::TypeInner::Array { base, .. } = module.types[ty].inner else { panic!("a storage binding that is no array") };
    match module.types[base].inner {
        naga::TypeInner::Scalar(scalar) | naga::TypeInner::Vector { scalar, .. } if scalar.kind == naga::ScalarKind::Float => Elem::F32,
        naga::TypeInner::Scalar(scalar) | naga::TypeInner::Vector { scalar, .. } if scalar.kind == naga::ScalarKind::Uint => Elem::U32,
        ref other => panic!("{other:?}"),
    }
}

fn check_struct(module: &naga::Module, ty: naga::Handle<naga::Type>, fields: &[(&str, &str)], kernel: &str) {
    let naga::TypeInner::Struct { members, .. } = &module.types[ty].inner else { panic!("{kernel}: a uniform that is no struct") };
    let found: Vec<(String, &str, u32)> = members
        .iter()
        .map(|m| {
            let kind = match module.types[m.ty].inner {
                naga::TypeInner::Scalar(s) if s.kind == naga::ScalarKind::Float => "f32",
                naga::TypeInner::Scalar(s) if s.kind == naga::ScalarKind::Uint => "u32",
                _ => "other",
            };
            (m.name.clone().unwrap_or_default(), kind, m.offset)
        })
        .collect();
    let expected: Vec<(String, &str, u32)> = fields.iter().enumerate().map(|(i, (n, t))| (n.to_string(), *t, 4 * i as u32)).collect();
    assert_eq!(found, expected, "{kernel}");
}

#[test]
fn every_kernel_has_a_case() {
    let covered: std::collections::HashSet<&str> = cases()
        .iter()
        .flat_map(|c| c.plan.phases.iter().flat_map(|p| p.commands.iter().map(|c| c.kernel.name)).collect::<Vec<_>>())
        .collect();
    for kernel in kernels() {
        assert!(covered.contains(kernel.name), "no case runs {}", kernel.name);
    }
}

/// Runs a case; gives the whole content of every buffer, guards included.
fn run(case: &Case, engine: &mut dyn Engine) -> Vec<Vec<u32>> {
    let views: Vec<View> = case.plan.buffers.iter().enumerate().map(|(i, b)| View { buffer: BufferId(i), offset: 0, len: b.len }).collect();
    views.iter().for_each(|v| engine.write(*v, &vec![POISON; v.len]).unwrap());
    case.inputs.iter().for_each(|(v, words)| engine.write(*v, words).unwrap());
    engine.run(&[0], &case.step).unwrap();
    views.iter().map(|v| block_on(engine.read(*v)).unwrap()).collect()
}

fn close(a: u32, b: u32, relative: f32, absolute: f32) -> bool {
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    let bound = absolute + relative * x.abs().max(y.abs());
    a == b || (x.is_nan() && y.is_nan() && a != POISON && b != POISON) || (x.is_finite() && y.is_finite() && (x - y).abs() <= bound)
}

#[test]
fn infinities_are_close_to_nothing_but_themselves() {
    let same = |x: f32, y: f32| close(x.to_bits(), y.to_bits(), 1e-3, 1e-3);
    assert!(same(1.0, 1.0005) && same(0.0, -0.0) && same(f32::INFINITY, f32::INFINITY) && same(f32::NAN, -f32::NAN));
    assert!(!same(1.0, 1.1) && !same(f32::MAX, f32::MIN));
    for far in [1.0, f32::MAX, f32::NEG_INFINITY, f32::NAN] {
        assert!(!same(f32::INFINITY, far) && !same(far, f32::INFINITY), "{far}");
    }
    let poison = f32::from_bits(POISON);
    assert!(!same(poison, f32::NAN) && !same(1.0, poison));
}

fn check_memory(case: &Case, memory: &[Vec<u32>], engine: &str) {
    for (buffer, words) in case.plan.buffers.iter().zip(memory) {
        let guard = &words[buffer.len - GUARD..];
        assert!(guard.iter().all(|&w| w == POISON), "{}: {engine} wrote behind `{}`", case.name, buffer.name);
    }
    for (view, _) in &case.checks {
        let words = &memory[view.buffer.0][view.offset..view.offset + view.len];
        let left = words.iter().filter(|&&w| w == POISON).count();
        assert_eq!(left, 0, "{}: {engine} left {left} words of `{}` unwritten", case.name, case.plan.buffers[view.buffer.0].name);
    }
}

#[test]
fn twins_write_all_they_should_and_nothing_else() {
    for case in cases() {
        let schedule = Schedule::new(case.plan.clone(), &CpuEngine::limits(None)).unwrap();
        let memory = run(&case, &mut CpuEngine::load(schedule));
        check_memory(&case, &memory, "cpu");
    }
}

#[test]
fn shaders_agree_with_their_twins() {
    let Some(adapter) = gpu() else { return };
    let mut compared = 0;
    for case in cases() {
        let schedule = |limits: &Limits| Schedule::new(case.plan.clone(), limits).unwrap();
        let cpu = run(&case, &mut CpuEngine::load(schedule(&CpuEngine::limits(None))));
        let mut engine = block_on(GpuEngine::load(&adapter, schedule(&adapter.limits))).unwrap();
        let gpu = run(&case, &mut engine);
        check_memory(&case, &gpu, "gpu");
        for (view, tolerance) in &case.checks {
            let whole = case.plan.buffers[view.buffer.0].elem == Elem::U32;
            for i in view.offset..view.offset + view.len {
                let (a, b) = (cpu[view.buffer.0][i], gpu[view.buffer.0][i]);
                assert!(
                    a == b || !whole && close(a, b, tolerance.relative, tolerance.absolute),
                    "{}: `{}`[{i}]: twin {} ({a:08x}), shader {} ({b:08x}), {tolerance:?}",
                    case.name,
                    case.plan.buffers[view.buffer.0].name,
                    f32::from_bits(a),
                    f32::from_bits(b)
                );
                compared += 1;
            }
        }
        assert_eq!(gpu, run(&case, &mut engine), "{}: another run gave other bytes", case.name);
    }
    assert!(compared > 1_000_000, "only {compared} values were compared");
}
