//! A shader's text before it runs: errors with the line they stand in, and whether parameters and
//! bindings are those that the kernel declares.

use super::describe;
pub use super::finding::{Finding, Place, Severity};
use super::text::{Text, declared};
use crate::plan::kernel::shared;
use crate::plan::{Access, Elem, Kernel, StepUniform};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use std::error::Error;

/// Storage buffers of one shader, invocations of a workgroup and bytes of its memory that every browser gives.
const BROWSER: (usize, u32, u32) = (8, 256, 16_384);

/// A text that could be read.
#[derive(Debug)]
pub struct Shader {
    text: Text,
    module: naga::Module,
    info: ModuleInfo,
}

impl Shader {
    /// Reads and validates the text of a kernel, whose own part is said to stand in `file`.
    ///
    /// # Errors
    /// The first thing that is no WGSL, or that needs an extension.
    pub fn parse(kernel: &Kernel, file: &str) -> Result<Shader, Box<Finding>> {
        let text = Text::new(kernel, file);
        let module = match naga::front::wgsl::parse_str(&text.wgsl) {
            Ok(module) => module,
            Err(error) => {
                let places: Vec<Place> = error.labels().filter_map(|(span, label)| text.place(span.to_range()?, label)).collect();
                let mut hints: Vec<String> = error.notes().map(str::to_string).collect();
                hints.extend(hint(kernel, file, error.message(), &places));
                return Err(Box::new(Finding { severity: Severity::Error, message: error.message().into(), places, hints }));
            }
        };
        match Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module) {
            Ok(info) => Ok(Shader { text, module, info }),
            Err(error) => {
                let places = error.spans().filter_map(|(span, label)| text.place(span.to_range()?, label)).collect();
                let mut message = error.as_inner().to_string();
                let mut cause = error.as_inner().source();
                while let Some(error) = cause {
                    message += &format!(": {error}");
                    cause = error.source();
                }
                Err(Box::new(Finding { severity: Severity::Error, message, places, hints: Vec::new() }))
            }
        }
    }

    /// Names of the compute entry points.
    pub fn entry_points(&self) -> impl Iterator<Item = &str> {
        self.module.entry_points.iter().filter(|e| e.stage == naga::ShaderStage::Compute).map(|e| e.name.as_str())
    }

    /// Threads of an entry point's workgroup.
    pub fn workgroup(&self, name: &str) -> Option<[u32; 3]> {
        self.module.entry_points.iter().find(|e| e.name == name).map(|e| e.workgroup_size)
    }

    /// What does not fit the kernel's declaration in Rust: entry point, workgroup, parameters, bindings, and what
    /// browsers allow.
    pub fn findings(&self, kernel: &Kernel) -> Vec<Finding> {
        let Some(index) = self.module.entry_points.iter().position(|e| e.name == kernel.name && e.stage == naga::ShaderStage::Compute)
        else {
            let there = self.entry_points().collect::<Vec<_>>().join("`, `");
            let found = if there.is_empty() { "it has none".into() } else { format!("it has `{there}`") };
            return vec![Finding::error(format!("`{}` has no compute entry point `{}`; {found}", self.text.file(), kernel.name))];
        };
        let mut check = Check { shader: self, kernel, used: vec![false; kernel.bindings.len()], memory: 0, findings: Vec::new() };
        let uses = self.info.get_entry_point(index);
        for (handle, global) in self.module.global_variables.iter().filter(|(handle, _)| !uses[*handle].is_empty()) {
            check.global(handle, global);
        }
        check.whole(self.module.entry_points[index].workgroup_size);
        check.findings
    }
}

/// What may help with an error in a text.
fn hint(kernel: &Kernel, file: &str, message: &str, places: &[Place]) -> Option<String> {
    if places.first().is_some_and(|p| p.file != file) {
        let shared = &places[0].file;
        return Some(format!("`{shared}` is put behind `{file}`, whose end may lack a brace, a semicolon or the end of a comment"));
    }
    let unknown = message.strip_prefix("no definition in scope for identifier: `")?.split('`').next()?;
    let (name, _) = shared::FILES.iter().find(|(_, text)| declared(text).any(|name| name == unknown))?;
    Some(format!("`{unknown}` stands in `{name}`, which is not put behind the texts of `{}`; copy it from there", kernel.op))
}

/// Compares one entry point with its kernel.
struct Check<'a> {
    shader: &'a Shader,
    kernel: &'a Kernel,
    /// Bindings of the kernel that the shader uses.
    used: Vec<bool>,
    /// Bytes of workgroup memory.
    memory: u32,
    findings: Vec<Finding>,
}

impl Check<'_> {
    fn say(&mut self, severity: Severity, span: naga::Span, label: &str, message: String) {
        let places = span.to_range().and_then(|range| self.shader.text.place(range, label)).into_iter().collect();
        self.findings.push(Finding { severity, message, places, hints: Vec::new() });
    }

    fn global(&mut self, handle: naga::Handle<naga::GlobalVariable>, global: &naga::GlobalVariable) {
        let span = self.shader.module.global_variables.get_span(handle);
        let name = global.name.as_deref().unwrap_or("a variable without a name");
        match (&global.binding, global.space) {
            (_, naga::AddressSpace::WorkGroup) => self.memory += self.bytes(global.ty),
            (_, naga::AddressSpace::Private) => {}
            (Some(b), naga::AddressSpace::Uniform) if (b.group, b.binding) == (1, 0) => {
                self.uniform(global.ty, &StepUniform::FIELDS, span, name);
            }
            (Some(b), naga::AddressSpace::Uniform) if (b.group, b.binding) == (0, 0) => {
                self.uniform(global.ty, self.kernel.params, span, name);
            }
            (Some(b), naga::AddressSpace::Storage { access }) if b.group == 0 && (1..=self.used.len()).contains(&(b.binding as usize)) => {
                self.storage(b.binding as usize - 1, access, global.ty, span, name);
            }
            (Some(b), _) => {
                let (kernel, last) = (self.kernel.name, self.used.len());
                let text = format!(
                    "`{name}` is @group({}) @binding({}); `{kernel}` has a uniform (0, 0), storage buffers (0, 1) to (0, {last}) and the uniform `step` (1, 0)",
                    b.group, b.binding
                );
                self.say(Severity::Error, span, "no such binding", text);
            }
            (None, space) => self.say(Severity::Error, span, "", format!("`{name}` lies in {space:?}, which no kernel has")),
        }
    }

    fn bytes(&self, ty: naga::Handle<naga::Type>) -> u32 {
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(self.shader.module.to_ctx()).map_or(0, |()| layouter[ty].size)
    }

    fn storage(&mut self, place: usize, access: naga::StorageAccess, ty: naga::Handle<naga::Type>, span: naga::Span, name: &str) {
        let declared = self.kernel.bindings[place];
        self.used[place] = true;
        let at = format!("@binding({}) of `{}`", place + 1, self.kernel.name);
        let spelled = |writable| if writable { "`read_write`" } else { "`read`" };
        let (found, expected) = (access.contains(naga::StorageAccess::STORE), declared.access != Access::Read);
        if found != expected {
            let text = format!("{at} is {} here and {} in Rust (`{}`)", spelled(found), spelled(expected), declared.name);
            self.say(Severity::Error, span, &format!("expected {}", spelled(expected)), text);
        }
        if self.elem(ty) != Some(declared.elem) {
            let wanted = if declared.elem == Elem::F32 { "f32" } else { "u32" };
            let text = format!("{at} is {} here and array<{wanted}> in Rust (`{}`)", self.spelled(ty), declared.name);
            self.say(Severity::Error, span, &format!("expected an array of {wanted}, or of vectors of {wanted}"), text);
        }
        if name != declared.name {
            let text = format!("{at} is called `{name}` here and `{}` in Rust; only its number counts", declared.name);
            self.say(Severity::Note, span, "", text);
        }
    }

    /// The scalar that a storage binding is an array of, alone or in vectors.
    fn elem(&self, ty: naga::Handle<naga::Type>) -> Option<Elem> {
        let types = &self.shader.module.types;
        let naga::TypeInner::Array { base, .. } = types[ty].inner else { return None };
        let scalar = match types[base].inner {
            naga::TypeInner::Scalar(scalar) | naga::TypeInner::Vector { scalar, size: naga::VectorSize::Bi | naga::VectorSize::Quad } => {
                scalar
            }
            _ => return None,
        };
        match (scalar.kind, scalar.width) {
            (naga::ScalarKind::Float, 4) => Some(Elem::F32),
            (naga::ScalarKind::Uint, 4) => Some(Elem::U32),
            _ => None,
        }
    }

    /// A type as it is written in WGSL, as far as kernels use types.
    fn spelled(&self, ty: naga::Handle<naga::Type>) -> String {
        let ty = &self.shader.module.types[ty];
        let scalar = |s: &naga::Scalar| match (s.kind, s.width) {
            (naga::ScalarKind::Float, 4) => "f32".to_string(),
            (naga::ScalarKind::Uint, 4) => "u32".into(),
            (naga::ScalarKind::Sint, 4) => "i32".into(),
            (kind, width) => format!("{kind:?} of {width} bytes"),
        };
        match &ty.inner {
            naga::TypeInner::Scalar(s) => scalar(s),
            naga::TypeInner::Vector { size, scalar: s } => format!("vec{}<{}>", *size as u32, scalar(s)),
            naga::TypeInner::Array { base, .. } => format!("array<{}>", self.spelled(*base)),
            naga::TypeInner::Atomic(s) => format!("atomic<{}>", scalar(s)),
            _ => ty.name.as_ref().map_or("another type".into(), |name| format!("`{name}`")),
        }
    }

    fn uniform(&mut self, ty: naga::Handle<naga::Type>, fields: &[(&str, &str)], span: naga::Span, name: &str) {
        let naga::TypeInner::Struct { members, .. } = &self.shader.module.types[ty].inner else {
            return self.say(Severity::Error, span, "", format!("the uniform `{name}` is no struct"));
        };
        let shown = |list: Vec<(String, String)>| list.iter().map(|(n, t)| format!("{n}: {t}")).collect::<Vec<_>>().join(", ");
        let found: Vec<(String, String)> = members.iter().map(|m| (m.name.clone().unwrap_or_default(), self.spelled(m.ty))).collect();
        let expected: Vec<(String, String)> = fields.iter().map(|(n, t)| (n.to_string(), t.to_string())).collect();
        let packed = members.iter().enumerate().all(|(i, m)| m.offset as usize == 4 * i);
        let types = |list: &[(String, String)]| list.iter().map(|(_, t)| t.clone()).collect::<Vec<_>>();
        if !packed || types(&found) != types(&expected) {
            let text = format!("the uniform `{name}` has {{ {} }}, in Rust it is {{ {} }}", shown(found), shown(expected));
            self.say(Severity::Error, self.shader.module.types.get_span(ty), "fields of four bytes, in this order", text);
        } else if found != expected {
            let text = format!(
                "the fields of `{name}` are {{ {} }} here and {{ {} }} in Rust; only their order counts",
                shown(found),
                shown(expected)
            );
            self.say(Severity::Note, self.shader.module.types.get_span(ty), "", text);
        }
    }

    /// What is no matter of one variable.
    fn whole(&mut self, workgroup: [u32; 3]) {
        let name = self.kernel.name;
        let note = |message: String| Finding { severity: Severity::Note, ..Finding::error(message) };
        for (used, binding) in self.used.iter().zip(self.kernel.bindings) {
            if !used {
                self.findings.push(note(format!("`{name}` does not use its binding `{}`", binding.name)));
            }
        }
        if workgroup != self.kernel.workgroup {
            let text = format!(
                "`{name}` has a workgroup of {}, in Rust it is {}; the grid stays the same, so a workgroup must do the same part of the work",
                describe::size(workgroup),
                describe::size(self.kernel.workgroup)
            );
            let hint = format!("a line `//@ grid {name}: x / 2, y * 4` takes half of the workgroups in x and four times as many in y");
            self.findings.push(Finding { hints: vec![hint], ..note(text) });
        }
        let (buffers, invocations, memory) = BROWSER;
        let threads = workgroup.iter().product::<u32>();
        if self.used.len() > buffers || threads > invocations || self.memory > memory {
            self.findings.push(note(format!(
                "`{name}` uses {} storage buffers, {threads} invocations and {} bytes of workgroup memory; browsers give {buffers}, {invocations} and {memory}",
                self.used.len(),
                self.memory
            )));
        }
    }
}
