//! Every variant of every kernel: laid out as its kernel, equal to the kernel's twin on every case.

mod common;

use common::gpu;
use dqrm::engine::gpu::GpuEngine;
use dqrm::lab::compare::{check, reference};
use dqrm::ops::matmul::{Linear, forward};
use dqrm::ops::{Case, cases, kernels};
use dqrm::plan::schedule::Schedule;
use dqrm::plan::variant::{Choice, Form, Job, MadeFor, Traits, choose};
use dqrm::plan::{Access, Elem, Kernel, Plan, Role, StepUniform, Variant};
use naga::valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};
use pollster::block_on;
use std::collections::HashSet;
use std::io::Write;

fn variants() -> Vec<(&'static Kernel, &'static Variant)> {
    kernels().into_iter().flat_map(|k| k.variants.iter().map(move |v| (k, v))).collect()
}

fn commands(case: &Case) -> impl Iterator<Item = &dqrm::plan::Command> {
    case.plan.phases.iter().flat_map(|p| &p.commands)
}

#[test]
fn names_are_unique() {
    let mut seen: HashSet<&str> = kernels().iter().map(|k| k.name).collect();
    for (_, variant) in variants() {
        assert!(seen.insert(variant.name), "two kernels or variants are called {}", variant.name);
    }
}

#[test]
fn variants_are_valid_and_bind_what_their_kernels_bind() {
    for (kernel, variant) in variants() {
        let (name, text) = (variant.name, variant.wgsl());
        let module = naga::front::wgsl::parse_str(&text).unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(&text)));
        let mut validator = match variant.subgroup {
            None => Validator::new(ValidationFlags::all(), Capabilities::empty()),
            Some(_) => Validator::new(ValidationFlags::all(), Capabilities::SUBGROUP),
        };
        validator.subgroup_stages(ShaderStages::COMPUTE).subgroup_operations(SubgroupOperationSet::all());
        let info = validator.validate(&module).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let index = module.entry_points.iter().position(|e| e.name == variant.entry).unwrap_or_else(|| panic!("{name}: no entry point"));
        assert_eq!(module.entry_points[index].workgroup_size, variant.workgroup, "{name}");
        assert_eq!(variant.forms.len(), kernel.bindings.len(), "{name}");
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(module.to_ctx()).unwrap();
        let (mut bound, mut workgroup_bytes) = (0, 0);
        let used = |handle: naga::Handle<naga::GlobalVariable>| !info.get_entry_point(index)[handle].is_empty();
        for (_, global) in module.global_variables.iter().filter(|(handle, _)| used(*handle)) {
            let declared = |binding: u32| (&kernel.bindings[binding as usize - 1], variant.forms[binding as usize - 1]);
            match (&global.binding, global.space) {
                (_, naga::AddressSpace::WorkGroup) => workgroup_bytes += layouter[global.ty].size,
                (Some(b), naga::AddressSpace::Uniform) if b.group == 1 => fields(&module, global.ty, &StepUniform::FIELDS, name),
                (Some(_), naga::AddressSpace::Uniform) => fields(&module, global.ty, kernel.params, name),
                (Some(b), naga::AddressSpace::Storage { access }) => {
                    let (binding, form) = declared(b.binding);
                    let found = global.name.as_deref().unwrap();
                    let four = found == format!("{}4", binding.name);
                    assert!(four || found == binding.name, "{name}: `{found}` for `{}`", binding.name);
                    assert_eq!(access.contains(naga::StorageAccess::STORE), binding.access != Access::Read, "{name} {found}");
                    assert_eq!((form, element(&module, global.ty)), (Form::Storage, (binding.elem, four)), "{name} {found}");
                    bound += 1;
                }
                (Some(b), naga::AddressSpace::Handle) => {
                    let (binding, form) = declared(b.binding);
                    assert!(
                        form.floats().is_some() && binding.access == Access::Read && binding.elem == Elem::F32,
                        "{name} {}",
                        binding.name
                    );
                    assert_eq!(global.name.as_deref(), Some(binding.name), "{name}");
                    bound += 1;
                }
                other => panic!("{name}: unexpected global {other:?}"),
            }
        }
        assert_eq!(bound, kernel.bindings.len(), "{name} uses other bindings than its kernel");
        assert!(variant.workgroup.iter().product::<u32>() <= 256 && workgroup_bytes <= 16_384, "{name}");
    }
}

/// The type of an array's elements, and whether they are vectors of four of them.
fn element(module: &naga::Module, ty: naga::Handle<naga::Type>) -> (Elem, bool) {
    let naga::TypeInner::Array { base, .. } = module.types[ty].inner else { panic!("a storage binding that is no array") };
    let (scalar, four) = match module.types[base].inner {
        naga::TypeInner::Scalar(s) => (s, false),
        naga::TypeInner::Vector { size: naga::VectorSize::Quad, scalar } => (scalar, true),
        ref other => panic!("{other:?}"),
    };
    (if scalar.kind == naga::ScalarKind::Float { Elem::F32 } else { Elem::U32 }, four)
}

fn fields(module: &naga::Module, ty: naga::Handle<naga::Type>, expected: &[(&str, &str)], name: &str) {
    let naga::TypeInner::Struct { members, .. } = &module.types[ty].inner else { panic!("{name}: a uniform that is no struct") };
    let kind = |ty: naga::Handle<naga::Type>| match module.types[ty].inner {
        naga::TypeInner::Scalar(s) if s.kind == naga::ScalarKind::Float => "f32",
        naga::TypeInner::Scalar(s) if s.kind == naga::ScalarKind::Uint => "u32",
        _ => "other",
    };
    let found: Vec<_> = members.iter().map(|m| (m.name.as_deref().unwrap_or_default(), kind(m.ty), m.offset)).collect();
    let expected: Vec<_> = expected.iter().enumerate().map(|(i, (n, t))| (*n, *t, 4 * i as u32)).collect();
    assert_eq!(found, expected, "{name}");
}

#[test]
fn variants_agree_with_the_twins() {
    let Some(adapter) = gpu() else { return };
    let mut ran: HashSet<&str> = HashSet::new();
    for case in cases() {
        let mut names: Vec<&str> = Vec::new();
        for variant in commands(&case).flat_map(|c| c.kernel.variants) {
            let picked = commands(&case).any(|c| choose(&adapter.traits, c, Choice::Only(variant.name)).is_some());
            if picked && !names.contains(&variant.name) {
                names.push(variant.name);
            }
        }
        if names.is_empty() {
            continue;
        }
        let expected = block_on(reference(&case)).unwrap();
        for name in names {
            let schedule = Schedule::new(case.plan.clone(), &adapter.limits).unwrap();
            let mut engine = block_on(GpuEngine::load_with(&adapter, schedule, Choice::Only(name), false)).unwrap();
            let verdict = block_on(check(&case, &expected, &mut engine)).unwrap();
            assert!(verdict.faults.is_empty(), "{} {name}: {}", case.name, verdict.faults[0]);
            ran.insert(name);
        }
    }
    let idle = variants().into_iter().map(|(_, v)| v).filter(|v| !ran.contains(v.name));
    let (missing, beyond): (Vec<_>, Vec<_>) =
        idle.partition(|v| v.subgroup.is_none_or(|size| adapter.traits.subgroups == Some((size, size))));
    assert!(missing.is_empty(), "no case runs {:?}", missing.iter().map(|v| v.name).collect::<Vec<_>>());
    for variant in beyond {
        let line = format!("skipped: `{}` needs subgroups that `{}` does not have", variant.name, adapter.name);
        writeln!(std::io::stderr(), "{line}").expect("standard error is open");
    }
}

#[test]
fn the_portable_text_remains_for_whoever_needs_it() {
    let plain = Traits { software: false, subgroups: None, max_texture_side: 8192 };
    let software = Traits { software: true, subgroups: Some((8, 8)), max_texture_side: 8192 };
    for case in cases() {
        for command in commands(&case) {
            assert_eq!(choose(&software, command, Choice::Portable), None);
            let picked = choose(&plain, command, Choice::Best);
            assert!(picked.is_none_or(|v| v.made_for == MadeFor::Hardware && v.subgroup.is_none()), "{picked:?}");
            let picked = choose(&Traits { max_texture_side: 0, subgroups: None, ..software }, command, Choice::Best);
            assert!(picked.is_none_or(|v| v.subgroup.is_none() && v.forms.iter().all(|f| *f == Form::Storage)), "{picked:?}");
        }
    }
}

#[test]
fn gpus_get_tiles_that_fit_the_product() {
    let plain = Traits { software: false, subgroups: None, max_texture_side: 8192 };
    let picked = |batch: usize, inputs: usize, outputs: usize| {
        let layer = Linear { inputs, outputs, relu: true };
        let mut plan = Plan::new();
        plan.phase("product");
        let mut view = |len: usize| plan.buffer(format!("{len}"), "", len, Elem::F32, Role::Persistent);
        let (x, w, bias, y) = (view(batch * inputs), view(inputs * outputs), view(outputs), view(batch * outputs));
        forward(&mut plan, "layer", layer, batch, x, w, bias, y);
        let command = &plan.phases[0].commands[0];
        let variant = choose(&plain, command, Choice::Best).expect("a variant for every product");
        (variant.name, (variant.grid)(&Job::of(command)))
    };
    assert_eq!(picked(2048, 512, 256), ("matmul_nt_tiles64_fours", [4, 32, 1]));
    assert_eq!(picked(2048, 367, 512), ("matmul_nt_tiles64_mixed", [8, 32, 1]));
    assert_eq!(picked(8128, 16, 67), ("matmul_nt_tiles64", [2, 127, 1]));
    assert_eq!(picked(128, 512, 256), ("matmul_nt_tiles32_fours", [8, 4, 1]));
    assert_eq!(picked(128, 13, 512), ("matmul_nt_tiles32_mixed", [16, 4, 1]));
    assert_eq!(picked(2048, 256, 1), ("matmul_nt_tiles32", [1, 64, 1]));
}
