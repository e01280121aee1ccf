//! A kernel: one entry point of one WGSL file, with what it binds and its plain Rust twin.

use super::variant::Variant;
use bytemuck::{Pod, Zeroable};

/// Type of a buffer's elements; both are four bytes wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elem {
    /// `f32`
    F32,
    /// `u32`
    U32,
}

/// What a kernel does with a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only reads it (`var<storage, read>`).
    Read,
    /// Writes what it is asked for without looking at the old content (`read_write` in WGSL).
    Write,
    /// Reads and writes in place (`read_write` in WGSL).
    Update,
}

/// One storage binding; its number is its place in the list plus 1 (0 is the parameters).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The variable's name in WGSL.
    pub name: &'static str,
    /// Read, write or update.
    pub access: Access,
    /// Element type.
    pub elem: Elem,
}

/// A binding that is read. Short, because kernels are lists of these.
pub const fn reads(name: &'static str, elem: Elem) -> Binding {
    Binding { name, access: Access::Read, elem }
}

/// A binding that is written.
pub const fn writes(name: &'static str, elem: Elem) -> Binding {
    Binding { name, access: Access::Write, elem }
}

/// A binding that is changed in place.
pub const fn updates(name: &'static str, elem: Elem) -> Binding {
    Binding { name, access: Access::Update, elem }
}

/// One entry point and everything an engine needs to run it.
pub struct Kernel {
    /// Entry point in WGSL, unique in the crate.
    pub name: &'static str,
    /// The op's file: `shaders/<op>.wgsl` and `src/ops/<op>.rs`.
    pub op: &'static str,
    /// Text of the op's file.
    pub source: &'static str,
    /// Shared texts put behind it.
    pub shared: &'static [&'static str],
    /// Threads of a workgroup.
    pub workgroup: [u32; 3],
    /// Names and types of the fields of the uniform `params`, in order, four bytes each.
    pub params: &'static [(&'static str, &'static str)],
    /// Storage bindings: inputs, then outputs.
    pub bindings: &'static [Binding],
    /// The definition in plain Rust; also what the CPU engine runs.
    pub twin: fn(Args<'_>),
    /// Other ways to compute the same, the most wanted first. The text above runs everywhere.
    pub variants: &'static [Variant],
}

impl Kernel {
    /// The whole WGSL text.
    pub fn wgsl(&self) -> String {
        std::iter::once(self.source).chain(self.shared.iter().copied()).collect::<Vec<_>>().join("\n")
    }
}

impl PartialEq for Kernel {
    fn eq(&self, other: &Kernel) -> bool {
        self.name == other.name
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// What changes each step: the uniform `step` of `shaders/shared/step.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct StepUniform {
    /// Live samples of this step.
    pub batch: u32,
    /// Rows touched by this step.
    pub touched: u32,
    /// Where in the ring of results this step writes.
    pub slot: u32,
    /// 1 / batch.
    pub inv_batch: f32,
    /// Learning rate of the MLPs.
    pub lr: f32,
    /// Learning rate of the tables.
    pub lr_rows: f32,
    /// Adam: 1 / (1 - beta1^t).
    pub adam_1: f32,
    /// Adam: 1 / (1 - beta2^t).
    pub adam_2: f32,
}

impl StepUniform {
    /// Names and types of the fields, for the check against WGSL.
    pub const FIELDS: [(&'static str, &'static str); 8] = [
        ("batch", "u32"),
        ("touched", "u32"),
        ("slot", "u32"),
        ("inv_batch", "f32"),
        ("lr", "f32"),
        ("lr_rows", "f32"),
        ("adam_1", "f32"),
        ("adam_2", "f32"),
    ];

    /// A step of `batch` samples and `touched` rows without learning.
    pub fn evaluate(batch: usize, touched: usize) -> StepUniform {
        let inv_batch = 1.0 / batch.max(1) as f32;
        StepUniform { batch: batch as u32, touched: touched as u32, inv_batch, ..StepUniform::zeroed() }
    }
}

/// What a twin gets: the same parameters and bindings as its shader.
#[derive(Debug)]
pub struct Args<'a> {
    /// The bytes of the uniform `params`.
    pub params: &'a [u8],
    /// The uniform `step`.
    pub step: &'a StepUniform,
    /// Bindings that are read, in order.
    pub inputs: Vec<&'a [u32]>,
    /// Bindings that are written or updated, in order.
    pub outputs: Vec<&'a mut [u32]>,
}

impl<'a> Args<'a> {
    /// The parameters as their struct.
    pub fn params<P: Pod>(&self) -> P {
        bytemuck::pod_read_unaligned(&self.params[..size_of::<P>()])
    }

    /// The `i`-th input as floats.
    pub fn f32s(&self, i: usize) -> &'a [f32] {
        bytemuck::cast_slice(self.inputs[i])
    }

    /// The `i`-th input as integers.
    pub fn u32s(&self, i: usize) -> &'a [u32] {
        self.inputs[i]
    }

    /// Takes the next output, as floats.
    pub fn output(&mut self) -> &'a mut [f32] {
        bytemuck::cast_slice_mut(self.outputs.remove(0))
    }

    /// Takes the next output, as integers.
    pub fn output_u32(&mut self) -> &'a mut [u32] {
        self.outputs.remove(0)
    }
}

/// Declares a kernel's parameters once: the Rust struct and the list that a test compares with WGSL.
#[macro_export]
macro_rules! params {
    ($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident: $ty:ident),* $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty),* }
        impl $name {
            /// Names and types of the fields, in order.
            pub const FIELDS: &'static [(&'static str, &'static str)] = &[$((stringify!($field), stringify!($ty))),*];
        }
    };
}

/// Texts that several ops share.
pub mod shared {
    /// The uniform `step`.
    pub const STEP: &str = include_str!("../../shaders/shared/step.wgsl");
    /// The flat index of an invocation.
    pub const INDEX: &str = include_str!("../../shaders/shared/index.wgsl");
    /// The only rounding in WGSL.
    pub const QUANT: &str = include_str!("../../shaders/shared/quant.wgsl");
    /// Textures in place of arrays.
    pub const TEXELS: &str = include_str!("../../shaders/shared/texels.wgsl");
    /// Codes in words.
    pub const PACK: &str = include_str!("../../shaders/shared/pack.wgsl");
    /// Each of them with its file.
    pub const FILES: &[(&str, &str)] = &[
        ("shaders/shared/step.wgsl", STEP),
        ("shaders/shared/index.wgsl", INDEX),
        ("shaders/shared/quant.wgsl", QUANT),
        ("shaders/shared/pack.wgsl", PACK),
    ];
}
