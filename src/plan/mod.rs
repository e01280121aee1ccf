//! A plan: named buffers and ordered lists of commands. Plain data, printable and comparable. A
//! plan says *what*; [`schedule`] says *where and in which order*; an engine does it.

use crate::error::{Error, Result};
use bytemuck::Pod;

pub mod kernel;
pub mod schedule;
pub mod variant;

pub use kernel::{Access, Args, Binding, Elem, Kernel, StepUniform};
pub use variant::Variant;

/// A buffer's number in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub usize);

/// How long a buffer lives and who may touch it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Written by the host before a step.
    Input,
    /// Keeps its content between steps: weights, optimizer state, results for the host.
    Persistent,
    /// Written before it is read in every step. May share memory with others when used in one phase only.
    Scratch,
}

/// A named buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BufferDecl {
    /// Unique name, as it appears in errors and printed plans.
    pub name: String,
    /// What the dimensions are, for the reader: `[B, K, D]`.
    pub shape: String,
    /// Elements of four bytes.
    pub len: usize,
    /// Their type.
    pub elem: Elem,
    /// How long it lives.
    pub role: Role,
}

/// A range of a buffer, in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The buffer.
    pub buffer: BufferId,
    /// First element.
    pub offset: usize,
    /// Elements.
    pub len: usize,
}

/// One dispatch.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// What runs.
    pub kernel: &'static Kernel,
    /// For people: profiler, errors, printed plan.
    pub label: String,
    /// Bytes of the uniform `params`.
    pub params: Vec<u8>,
    /// One view per binding of the kernel.
    pub views: Vec<View>,
    /// Workgroups in x, y, z.
    pub grid: [u32; 3],
}

/// Commands that run together.
#[derive(Debug, Clone, PartialEq)]
pub struct Phase {
    /// Name: `gradients`, `update`, `refresh`, `evaluate` ….
    pub name: &'static str,
    /// In this order.
    pub commands: Vec<Command>,
}

/// Buffers and phases.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// All buffers; [`BufferId`] counts them.
    pub buffers: Vec<BufferDecl>,
    /// All phases.
    pub phases: Vec<Phase>,
}

impl Plan {
    /// An empty plan.
    pub fn new() -> Plan {
        Plan::default()
    }

    /// Declares a buffer and gives a view of all of it.
    pub fn buffer(&mut self, name: impl Into<String>, shape: &str, len: usize, elem: Elem, role: Role) -> View {
        self.buffers.push(BufferDecl { name: name.into(), shape: shape.into(), len: len.max(1), elem, role });
        View { buffer: BufferId(self.buffers.len() - 1), offset: 0, len: len.max(1) }
    }

    /// Begins a phase; commands are appended to the last one begun.
    pub fn phase(&mut self, name: &'static str) {
        self.phases.push(Phase { name, commands: Vec::new() });
    }

    /// Appends a dispatch to the current phase.
    ///
    /// # Panics
    /// When no phase was begun; recording without a phase is a bug.
    pub fn push<P: Pod>(&mut self, kernel: &'static Kernel, label: impl Into<String>, params: &P, views: &[View], grid: [u32; 3]) {
        let phase = self.phases.last_mut().expect("a phase was begun before recording");
        phase.commands.push(Command {
            kernel,
            label: label.into(),
            params: bytemuck::bytes_of(params).to_vec(),
            views: views.to_vec(),
            grid,
        });
    }

    /// A buffer by name.
    pub fn find(&self, name: &str) -> Result<View> {
        let index = self.buffers.iter().position(|b| b.name == name);
        let index = index.ok_or_else(|| Error::Plan(format!("no buffer is called `{name}`")))?;
        Ok(View { buffer: BufferId(index), offset: 0, len: self.buffers[index].len })
    }

    /// A phase's place by name.
    pub fn phase_index(&self, name: &str) -> Result<usize> {
        self.phases.iter().position(|p| p.name == name).ok_or_else(|| Error::Plan(format!("no phase is called `{name}`")))
    }
}

impl View {
    /// A part of this view.
    ///
    /// # Panics
    /// When the part reaches beyond the view; that is a bug in the code that records.
    pub fn slice(self, offset: usize, len: usize) -> View {
        assert!(offset + len <= self.len, "part {offset}+{len} of a view of {}", self.len);
        View { offset: self.offset + offset, len, ..self }
    }
}

/// Workgroups of 64 for `invocations` invocations, folded into y where x is too short.
pub fn grid(invocations: usize) -> [u32; 3] {
    groups(invocations.div_ceil(64))
}

/// `count` workgroups, folded into y where x is too short.
pub fn groups(count: usize) -> [u32; 3] {
    const ROW: usize = 32_768;
    let count = count.max(1);
    if count <= ROW { [count as u32, 1, 1] } else { [ROW as u32, count.div_ceil(ROW) as u32, 1] }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "buffers")?;
        for b in &self.buffers {
            writeln!(f, "  {:<28} {:>12} {:?} {:?} {}", b.name, b.len, b.elem, b.role, b.shape)?;
        }
        for phase in &self.phases {
            writeln!(f, "{}", phase.name)?;
            for c in &phase.commands {
                let views: Vec<String> = c.kernel.bindings.iter().zip(&c.views).map(|(b, v)| self.show(b, v)).collect();
                writeln!(f, "  {:<18} {:<22} {:?} {}", c.kernel.name, c.label, c.grid, views.join(" "))?;
            }
        }
        Ok(())
    }
}

impl Plan {
    fn show(&self, binding: &Binding, view: &View) -> String {
        let buffer = &self.buffers[view.buffer.0];
        let sign = match binding.access {
            Access::Read => "",
            Access::Write => ">",
            Access::Update => "~",
        };
        let part = if view.len == buffer.len { String::new() } else { format!("[{}+{}]", view.offset, view.len) };
        format!("{sign}{}{part}", buffer.name)
    }
}
