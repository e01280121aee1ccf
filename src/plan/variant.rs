//! Another way to compute what a kernel computes, for one kind of device: the same parameters, bindings and
//! twin, another text and another grid. Plans name kernels only; an engine picks a variant for each command
//! when it loads a schedule.

use super::{Command, Kernel, View};

/// What an adapter is and can, as far as variants differ by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traits {
    /// The adapter runs on the CPU (llvmpipe, SwiftShader, WARP).
    pub software: bool,
    /// Smallest and largest subgroup, where shaders may use subgroups.
    pub subgroups: Option<(u32, u32)>,
    /// Largest side of a two-dimensional texture, in texels.
    pub max_texture_side: u32,
}

/// Which adapters a variant was made for; others could run it and would not gain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MadeFor {
    /// Software adapters.
    Software,
    /// All others.
    Hardware,
}

/// How a shader sees a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A storage buffer of words, or of vectors of four when the name of the variable ends in `4`.
    Storage,
    /// A texture with one float in a texel, a copy that the engine makes before the dispatch. Only for what is read.
    Texels,
    /// The same with four floats in a texel.
    Texels4,
}

impl Form {
    /// Floats in a texel, or none for a buffer.
    pub fn floats(self) -> Option<usize> {
        match self {
            Form::Storage => None,
            Form::Texels => Some(1),
            Form::Texels4 => Some(4),
        }
    }
}

/// Texels in a row of such a texture; a power of two, for the shader's sake. Element i of a view lies in texel
/// `i / floats`, and texel t at (t mod this, t / this).
pub const TEXTURE_WIDTH: u32 = 4096;

/// What a variant sees of a command when it decides whether it fits and how many workgroups it takes.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    params: &'a [u8],
    views: &'a [View],
    /// The kernel's own grid.
    pub grid: [u32; 3],
}

impl<'a> Job<'a> {
    /// What `command` says.
    pub fn of(command: &'a Command) -> Job<'a> {
        Job { params: &command.params, views: &command.views, grid: command.grid }
    }

    /// The `i`-th parameter, one that is an integer.
    pub fn param(&self, i: usize) -> usize {
        let bytes = self.params[4 * i..4 * i + 4].try_into().expect("four bytes");
        u32::from_ne_bytes(bytes) as usize
    }

    /// Elements of the `i`-th view.
    pub fn len(&self, i: usize) -> usize {
        self.views[i].len
    }
}

/// For variants that suit every command, or are worth it wherever they suit.
pub fn always(_: &Job<'_>) -> bool {
    true
}

/// Another way to compute what a kernel computes.
pub struct Variant {
    /// Unique in the crate.
    pub name: &'static str,
    /// Entry point in WGSL.
    pub entry: &'static str,
    /// Lines like `const WIDE = true;`, put in front of the text.
    pub consts: &'static str,
    /// The text.
    pub source: &'static str,
    /// Shared texts put behind it.
    pub shared: &'static [&'static str],
    /// Threads of a workgroup.
    pub workgroup: [u32; 3],
    /// The size that all subgroups must have, when the text uses subgroups.
    pub subgroup: Option<u32>,
    /// Whom it is for.
    pub made_for: MadeFor,
    /// How each binding is seen.
    pub forms: &'static [Form],
    /// Whether it computes this command rightly, from its parameters and lengths.
    pub suits: fn(&Job<'_>) -> bool,
    /// Whether it is likely the quickest for this command, should it suit; only [`Choice::Best`] asks.
    pub worth: fn(&Job<'_>) -> bool,
    /// Workgroups for this command.
    pub grid: fn(&Job<'_>) -> [u32; 3],
}

impl Variant {
    /// The whole WGSL text.
    pub fn wgsl(&self) -> String {
        [self.consts, self.source].into_iter().chain(self.shared.iter().copied()).collect::<Vec<_>>().join("\n")
    }

    /// An adapter with these traits can run it for this command.
    pub fn can_run(&self, traits: &Traits, command: &Command) -> bool {
        let subgroups = self.subgroup.is_none_or(|size| traits.subgroups == Some((size, size)));
        let textures = self.forms.iter().zip(&command.views).all(|(form, view)| match form.floats() {
            None => true,
            Some(floats) => {
                let texels = view.len / floats;
                let side = traits.max_texture_side as usize;
                view.len % floats == 0 && TEXTURE_WIDTH as usize <= side && texels.div_ceil(TEXTURE_WIDTH as usize) < side
            }
        });
        subgroups && textures && (self.suits)(&Job::of(command))
    }
}

impl PartialEq for Variant {
    fn eq(&self, other: &Variant) -> bool {
        self.name == other.name
    }
}

impl std::fmt::Debug for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// How an engine picks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice<'a> {
    /// The first variant that is made for the adapter, that it can run and that is worth it, else the kernel's own text.
    #[default]
    Best,
    /// Always the kernel's own text, which every device runs.
    Portable,
    /// The variant of this name wherever the adapter can run it, else the kernel's own text.
    Only(&'a str),
}

/// The variant of `command` that an adapter with these traits runs; none means the kernel's own text.
pub fn choose(traits: &Traits, command: &Command, choice: Choice<'_>) -> Option<&'static Variant> {
    let kernel: &'static Kernel = command.kernel;
    let kind = if traits.software { MadeFor::Software } else { MadeFor::Hardware };
    let wanted = |v: &&Variant| match choice {
        Choice::Best => v.made_for == kind && (v.worth)(&Job::of(command)),
        Choice::Portable => false,
        Choice::Only(name) => v.name == name,
    };
    kernel.variants.iter().filter(wanted).find(|v| v.can_run(traits, command))
}
