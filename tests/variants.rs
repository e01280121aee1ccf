//! Every variant of every kernel: laid out as its kernel, equal to the kernel's twin on every case.

mod common;

use common::gpu;
use dqrm::engine::Engine;
use dqrm::engine::gpu::{GpuAdapter, GpuEngine};
use dqrm::lab::compare::{check, reference};
use dqrm::ops::case::{POISON, random};
use dqrm::ops::matmul::{Linear, backward_input, backward_weights, forward};
use dqrm::ops::{Case, cases, kernels};
use dqrm::plan::schedule::Schedule;
use dqrm::plan::variant::{Choice, Form, Job, MadeFor, Picks, SCRATCH, Subgroups, Traits, candidates, choose};
use dqrm::plan::{Access, Elem, Kernel, Plan, Role, StepUniform, Variant, View};
use naga::valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};
use pollster::block_on;
use std::collections::{BTreeSet, HashSet};
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

/// A text as naga reads it for a device with what the variant needs, and translated to SPIR-V.
fn valid(name: &str, variant: &Variant, text: &str, entry: &str) -> (naga::Module, naga::valid::ModuleInfo) {
    let module = naga::front::wgsl::parse_str(text).unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(text)));
    let mut capabilities = Capabilities::empty();
    capabilities.set(Capabilities::SUBGROUP, variant.subgroup.is_some() || variant.cooperative.is_some());
    capabilities.set(Capabilities::SHADER_FLOAT16 | Capabilities::COOPERATIVE_MATRIX, variant.cooperative.is_some());
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    validator.subgroup_stages(ShaderStages::COMPUTE).subgroup_operations(SubgroupOperationSet::all());
    let info = validator.validate(&module).unwrap_or_else(|e| panic!("{name}: {e:?}"));
    let options = naga::back::spv::Options { lang_version: (1, 3), ..Default::default() };
    let pipeline = naga::back::spv::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: entry.into() };
    let words = naga::back::spv::write_vec(&module, &info, &options, Some(&pipeline)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(words.len() > 100, "{name}");
    (module, info)
}

#[test]
fn variants_are_valid_and_bind_what_their_kernels_bind() {
    for (kernel, variant) in variants() {
        let name = variant.name;
        assert_eq!(variant.forms.len(), kernel.bindings.len(), "{name}");
        let (before, behind) = variant.around();
        let workgroups = before.iter().map(|s| s.workgroup).chain([variant.workgroup]).chain(behind.iter().map(|s| s.workgroup));
        let mut bound: BTreeSet<u32> = BTreeSet::new();
        for ((entry, text), workgroup) in variant.entries().into_iter().zip(variant.texts()).zip(workgroups) {
            bound.extend(bindings(kernel, variant, entry, &text, workgroup));
        }
        let scratch = variant.stages.map_or(0, |s| s.scratch.len() as u32);
        let expected: Vec<u32> = (1..=kernel.bindings.len() as u32).chain(SCRATCH..SCRATCH + scratch).collect();
        assert_eq!(bound.into_iter().collect::<Vec<_>>(), expected, "{name} uses other bindings than its kernel");
        assert!(kernel.bindings.len() + scratch as usize <= 8, "{name}");
    }
}

/// The storage bindings that an entry point uses, checked against the kernel.
fn bindings(kernel: &Kernel, variant: &Variant, entry: &str, text: &str, workgroup: [u32; 3]) -> Vec<u32> {
    let name = variant.name;
    let (module, info) = valid(name, variant, text, entry);
    let index = module.entry_points.iter().position(|e| e.name == entry).unwrap_or_else(|| panic!("{name}: no entry point"));
    assert_eq!(module.entry_points[index].workgroup_size, workgroup, "{name}");
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).unwrap();
    let (mut bound, mut workgroup_bytes) = (Vec::new(), 0);
    let used = |handle: naga::Handle<naga::GlobalVariable>| !info.get_entry_point(index)[handle].is_empty();
    for (_, global) in module.global_variables.iter().filter(|(handle, _)| used(*handle)) {
        let declared = |binding: u32| (&kernel.bindings[binding as usize - 1], variant.forms[binding as usize - 1]);
        match (&global.binding, global.space) {
            (_, naga::AddressSpace::WorkGroup) => workgroup_bytes += layouter[global.ty].size,
            (Some(b), naga::AddressSpace::Uniform) if b.group == 1 => fields(&module, global.ty, &StepUniform::FIELDS, name),
            (Some(_), naga::AddressSpace::Uniform) => fields(&module, global.ty, kernel.params, name),
            (Some(b), naga::AddressSpace::Storage { access }) if b.binding >= SCRATCH => {
                assert!(access.contains(naga::StorageAccess::STORE), "{name}: scratch is `read_write`");
                bound.push(b.binding);
            }
            (Some(b), naga::AddressSpace::Storage { access }) => {
                let (binding, form) = declared(b.binding);
                let found = global.name.as_deref().unwrap();
                let four = found == format!("{}4", binding.name);
                assert!(four || found == binding.name, "{name}: `{found}` for `{}`", binding.name);
                assert_eq!(access.contains(naga::StorageAccess::STORE), binding.access != Access::Read, "{name} {found}");
                assert_eq!((form, element(&module, global.ty)), (Form::Storage, (binding.elem, four)), "{name} {found}");
                bound.push(b.binding);
            }
            (Some(b), naga::AddressSpace::Handle) => {
                let (binding, form) = declared(b.binding);
                assert!(form.floats().is_some() && binding.access == Access::Read && binding.elem == Elem::F32, "{name} {}", binding.name);
                assert_eq!(global.name.as_deref(), Some(binding.name), "{name}");
                bound.push(b.binding);
            }
            other => panic!("{name}: unexpected global {other:?}"),
        }
    }
    assert!(workgroup.iter().product::<u32>() <= 256 && workgroup_bytes <= 16_384, "{name}");
    // Under the memory model of cooperative matrices, naga's barriers do not make workgroup memory visible (gfx-rs/wgpu#8805).
    assert!(workgroup_bytes == 0 || !text.contains("wgpu_cooperative_matrix"), "{name}: `{entry}` has workgroup memory");
    bound
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
    if let Ok(size) = std::env::var("DQRM_REQUIRE_SUBGROUPS") {
        let size: u32 = size.parse().expect("a size of subgroups");
        assert_eq!(adapter.traits.subgroups, Some((size, size)), "`{}`", adapter.name);
    }
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
    let (missing, beyond): (Vec<_>, Vec<_>) = idle.partition(|v| v.has_features(&adapter.traits));
    assert!(missing.is_empty(), "no case runs {:?}", missing.iter().map(|v| v.name).collect::<Vec<_>>());
    for variant in beyond {
        let needed = if variant.cooperative.is_some() { "cooperative matrices" } else { "subgroups" };
        skipped(&format!("`{}` needs {needed} that `{}` does not have", variant.name, adapter.name));
    }
}

fn skipped(why: &str) {
    writeln!(std::io::stderr(), "skipped: {why}").expect("standard error is open");
}

#[test]
fn the_portable_text_remains_for_whoever_needs_it() {
    let plain = Traits { software: false, subgroups: None, max_texture_side: 8192, cooperative: &[8, 16] };
    let software = Traits { software: true, subgroups: Some((8, 8)), max_texture_side: 8192, cooperative: &[8, 16] };
    for case in cases() {
        for command in commands(&case) {
            assert_eq!(choose(&software, command, Choice::Portable), None);
            let picked = choose(&plain, command, Choice::Best);
            assert!(
                picked.is_none_or(|v| v.made_for == MadeFor::Hardware && v.subgroup.is_none() && v.cooperative.is_none()),
                "{picked:?}"
            );
            assert_eq!(choose(&Traits { subgroups: Some((32, 32)), ..plain }, command, Choice::Best), picked);
            let picked = choose(&Traits { max_texture_side: 0, subgroups: None, ..software }, command, Choice::Best);
            assert!(picked.is_none_or(|v| v.subgroup.is_none() && v.forms.iter().all(|f| *f == Form::Storage)), "{picked:?}");
        }
    }
}

#[test]
fn cooperative_matrices_are_for_those_who_ask() {
    let with = |subgroups, cooperative| Traits { software: false, subgroups, max_texture_side: 8192, cooperative };
    let able = with(Some((32, 32)), &[16, 8]);
    let mut named = HashSet::new();
    for case in cases() {
        for command in commands(&case) {
            let of = |name: &str| command.kernel.variants.iter().find(|v| v.name == name).is_some_and(|v| v.cooperative.is_some());
            let best = choose(&able, command, Choice::Best);
            assert!(best.is_none_or(|v| v.cooperative.is_none()), "{best:?} without being asked for");
            let names = candidates(&able, command);
            assert!(!of(names[0]), "{names:?}");
            named.extend(names.into_iter().filter(|name| of(name)));
            for lacking in [with(Some((32, 32)), &[]), with(None, &[16, 8]), with(Some((16, 128)), &[16, 8])] {
                let offered = candidates(&lacking, command).into_iter().find(|name| of(name));
                assert_eq!(offered, None, "{lacking:?}");
            }
        }
    }
    assert_eq!(named.len(), 8, "{named:?}");
}

#[test]
fn products_on_subgroups_need_eight_lanes_and_somebody_who_asks() {
    let with = |subgroups| Traits { software: false, subgroups, max_texture_side: 8192, cooperative: &[] };
    let mut named = HashSet::new();
    for case in cases() {
        for command in commands(&case) {
            let uses = |name: &str| command.kernel.variants.iter().any(|v| v.name == name && v.subgroup == Some(Subgroups::AtLeast(8)));
            for sizes in [(8, 8), (8, 32), (16, 32), (32, 32), (32, 64), (64, 64), (128, 128)] {
                let best = choose(&with(Some(sizes)), command, Choice::Best);
                assert!(best.is_none_or(|v| v.subgroup.is_none()), "{best:?} without being asked for");
                let names = candidates(&with(Some(sizes)), command);
                assert_eq!(names.iter().any(|name| uses(name)), command.kernel.name.starts_with("matmul_"), "{sizes:?}: {names:?}");
                for name in names.into_iter().filter(|name| uses(name)) {
                    let taken = choose(&with(Some(sizes)), command, Choice::Only(name));
                    assert_eq!(taken.map(|v| v.name), Some(name));
                    named.insert(name);
                }
            }
            for lacking in [None, Some((4, 4)), Some((4, 32)), Some((4, 64))] {
                let offered = candidates(&with(lacking), command).into_iter().find(|name| uses(name));
                assert_eq!(offered, None, "{lacking:?}");
            }
        }
    }
    assert_eq!(named.len(), 12, "{named:?}");
}

#[test]
fn texts_for_subgroups_of_one_size_run_with_no_other() {
    let texels = variants().into_iter().map(|(_, v)| v).filter(|v| v.subgroup == Some(Subgroups::Exactly(8)));
    let texels: Vec<_> = texels.collect();
    assert!(!texels.is_empty());
    for variant in texels {
        for (sizes, fit) in [(None, false), (Some((4, 8)), false), (Some((8, 8)), true), (Some((8, 32)), false), (Some((32, 32)), false)] {
            let traits = Traits { software: true, subgroups: sizes, max_texture_side: 8192, cooperative: &[] };
            assert_eq!(variant.has_features(&traits), fit, "{} with {sizes:?}", variant.name);
        }
    }
}

/// The operands of a layer, some of them with values that are not finite.
struct Operands {
    layer: Linear,
    batch: usize,
    x: Vec<f32>,
    w: Vec<f32>,
    bias: Vec<f32>,
    dz: Vec<f32>,
}

impl Operands {
    fn new(layer: Linear, batch: usize, turn: usize) -> Operands {
        let scale = [1.0, 1e-7, 1e-12, 1e15][turn % 4];
        let of =
            |name: &str, len: usize, scale: f32| -> Vec<f32> { random(&format!("{name} {turn}"), len).iter().map(|v| v * scale).collect() };
        let mut all = Operands {
            layer,
            batch,
            x: of("x", batch * layer.inputs, 1.0),
            w: of("w", layer.inputs * layer.outputs, if turn % 3 == 2 { 1e-3 } else { 1.0 }),
            bias: of("bias", layer.outputs, 1.0),
            dz: of("dz", batch * layer.outputs, scale),
        };
        // magnitudes of one row may differ much
        all.dz.iter_mut().step_by(7).for_each(|v| *v *= 1e-5);
        if turn % 5 == 4 {
            let middle = |values: &[f32]| values.len() / 2;
            let (i, j) = (middle(&all.x), middle(&all.dz));
            (all.x[i], all.dz[j]) = (f32::NAN, f32::NEG_INFINITY);
        }
        all
    }

    /// A sum of products in f64 and the sum of their magnitudes, or nothing where an operand is not finite.
    fn sum(terms: impl Iterator<Item = (f32, f32)>) -> Option<(f64, f64)> {
        terms
            .map(|(a, b)| (a * b).is_finite().then(|| f64::from(a) * f64::from(b)))
            .try_fold((0.0, 0.0), |(sum, size), term| term.map(|t| (sum + t, size + t.abs())))
    }

    /// y, dw and dx with their sizes, in rows.
    fn expected(&self) -> [Vec<Option<(f64, f64)>>; 3] {
        let Linear { inputs, outputs, relu } = self.layer;
        let (x, w, dz) = (
            |b: usize, i: usize| self.x[b * inputs + i],
            |o: usize, i: usize| self.w[o * inputs + i],
            |b: usize, o: usize| self.dz[b * outputs + o],
        );
        let cells = |rows: usize, columns: usize| (0..rows).flat_map(move |r| (0..columns).map(move |c| (r, c)));
        let y = cells(self.batch, outputs).map(|(b, o)| {
            let bias = f64::from(self.bias[o]);
            let (sum, size) = Operands::sum((0..inputs).map(|i| (x(b, i), w(o, i))))?;
            Some((if relu { (sum + bias).max(0.0) } else { sum + bias }, size + bias.abs()))
        });
        let dw = cells(outputs, inputs).map(|(o, i)| Operands::sum((0..self.batch).map(|b| (dz(b, o), x(b, i)))));
        let dx = cells(self.batch, inputs).map(|(b, i)| {
            if relu && x(b, i) <= 0.0 {
                return Some((0.0, 0.0));
            }
            Operands::sum((0..outputs).map(|o| (dz(b, o), w(o, i))))
        });
        [y.collect(), dw.collect(), dx.collect()]
    }
}

/// What the names of products' texts end in, beyond the kernels' names; nothing for the kernels' own.
fn endings(traits: &Traits) -> BTreeSet<&'static str> {
    let products = variants().into_iter().filter(|(k, v)| k.name.starts_with("matmul_") && v.has_features(traits));
    products.map(|(k, v)| v.name.strip_prefix(k.name).expect("a text is called after its kernel")).chain([""]).collect()
}

/// A layer with room for more samples than a step has, whose products run the texts of an ending.
struct Products {
    engine: GpuEngine,
    operands: [View; 4],
    results: [View; 3],
}

impl Products {
    /// Nothing where no text of that ending suits the layer.
    fn new(adapter: &GpuAdapter, layer: Linear, room: usize, ending: &str) -> Option<Products> {
        let Linear { inputs, outputs, relu } = layer;
        let mut plan = Plan::new();
        plan.phase("layer");
        let mut view = |name: &str, len: usize| plan.buffer(name, "", len, Elem::F32, Role::Persistent);
        let (x, y) = (view("x", room * inputs), view("y", room * outputs));
        let (dx, dz) = (view("dx", room * inputs), view("dz", room * outputs));
        let (w, dw) = (view("w", inputs * outputs), view("dw", inputs * outputs));
        let (bias, d_bias) = (view("bias", outputs), view("d_bias", outputs));
        forward(&mut plan, "layer", layer, room, x, w, bias, y);
        backward_weights(&mut plan, "layer", layer, dz, x, dw, d_bias);
        backward_input(&mut plan, "layer", layer, room, dz, w, relu.then_some(x), dx);
        let (mut picks, mut suits) = (Picks::default(), ending.is_empty());
        for command in &plan.phases[0].commands {
            let named = command.kernel.variants.iter().find(|v| v.name.strip_prefix(command.kernel.name) == Some(ending));
            let taken = named.filter(|v| v.can_run(&adapter.traits, command));
            assert!(taken.is_some() || named.is_none_or(|v| v.cooperative.is_none()), "{}", command.label);
            suits |= taken.is_some();
            picks.set(command, taken.map_or(command.kernel.name, |v| v.name));
        }
        let schedule = Schedule::new(plan, &adapter.limits).unwrap();
        let load = || block_on(GpuEngine::load_with(adapter, schedule, Choice::Picked(&picks), false)).unwrap();
        suits.then(|| Products { engine: load(), operands: [x, w, bias, dz], results: [y, dw, dx] })
    }

    /// Runs a step and compares its results.
    fn check(&mut self, operands: &Operands, expected: &[Vec<Option<(f64, f64)>>; 3], turn: &str) {
        for (view, values) in self.operands.iter().zip([&operands.x, &operands.w, &operands.bias, &operands.dz]) {
            let mut words: Vec<u32> = values.iter().map(|v| v.to_bits()).collect();
            words.resize(view.len, f32::NAN.to_bits());
            self.engine.write(*view, &words).unwrap();
        }
        self.results.iter().for_each(|v| self.engine.write(*v, &vec![POISON; v.len]).unwrap());
        self.engine.run(&[0], &StepUniform::evaluate(operands.batch, 0)).unwrap();
        for ((view, name), expected) in self.results.iter().zip(["y", "dw", "dx"]).zip(expected) {
            let found: Vec<u32> = block_on(self.engine.read(*view)).unwrap();
            for (i, (&word, expected)) in found.iter().zip(expected).enumerate() {
                let found = f32::from_bits(word);
                let place = || format!("{name}[{i}], B {}, {:?}, {turn}", operands.batch, operands.layer);
                match expected {
                    None => assert!(!found.is_finite() && word != POISON, "{}: {found}", place()),
                    Some((value, size)) => {
                        let error = (f64::from(found) - value).abs();
                        assert!(error <= 1e-6 * size, "{}: {found:e}, expected {value:e}, {:e} of its terms", place(), error / size);
                    }
                }
            }
            assert!(found[expected.len()..].iter().all(|w| *w == POISON), "{name} was written behind the live samples");
        }
    }
}

#[test]
fn products_hold_for_any_magnitude_and_again() {
    let Some(adapter) = gpu() else { return };
    if adapter.traits.cooperative.is_empty() {
        assert!(std::env::var_os("DQRM_REQUIRE_COOPERATIVE").is_none(), "`{}` must have cooperative matrices", adapter.name);
        skipped(&format!("`{}` has no cooperative matrices with f16 operands and f32 sums", adapter.name));
    }
    let mut left = endings(&adapter.traits);
    for (batch, inputs, outputs) in
        [(1, 1, 1), (3, 17, 9), (16, 16, 16), (33, 65, 34), (64, 96, 32), (130, 40, 77), (257, 13, 5), (31, 300, 20)]
    {
        let layer = Linear { inputs, outputs, relu: batch % 2 == 1 };
        let turns = (0..10).map(|turn| Operands::new(layer, batch, turn)).map(|operands| (operands.expected(), operands));
        let turns: Vec<_> = turns.collect();
        for ending in endings(&adapter.traits) {
            // a step may have fewer samples than there is room for
            let Some(mut products) = Products::new(&adapter, layer, batch + batch / 3, ending) else { continue };
            for (turn, (expected, operands)) in turns.iter().enumerate() {
                products.check(operands, expected, &format!("`{ending}`, turn {turn}"));
            }
            left.remove(ending);
        }
    }
    assert!(left.is_empty(), "no layer suits {left:?}");
}

#[test]
fn gpus_get_tiles_that_fit_the_product() {
    let plain = Traits { software: false, subgroups: None, max_texture_side: 8192, cooperative: &[8, 16] };
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
