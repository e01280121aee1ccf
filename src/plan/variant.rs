//! Another way to compute what a kernel computes, for one kind of device: the same parameters, bindings and
//! twin, another text and another grid. Plans name kernels only; an engine picks a variant for each command
//! when it loads a schedule.

use super::{Command, Kernel, View};
use std::collections::BTreeMap;

/// What an adapter is and can, as far as variants differ by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traits {
    /// The adapter runs on the CPU (llvmpipe, SwiftShader, WARP).
    pub software: bool,
    /// Smallest and largest subgroup, where shaders may use subgroups.
    pub subgroups: Option<(u32, u32)>,
    /// Largest side of a two-dimensional texture, in texels.
    pub max_texture_side: u32,
    /// Sides of the square cooperative matrices with f16 operands and f32 sums that a subgroup multiplies.
    pub cooperative: &'static [u32],
}

/// Which adapters a variant was made for; others could run it and would not gain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MadeFor {
    /// Software adapters.
    Software,
    /// All others.
    Hardware,
}

/// The sizes of subgroups that a text works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subgroups {
    /// All subgroups of the adapter have this size.
    Exactly(u32),
    /// None is smaller; sizes may differ from text to text.
    AtLeast(u32),
}

impl Subgroups {
    /// Whether it works with an adapter's smallest and largest subgroups.
    pub fn fit(self, (least, most): (u32, u32)) -> bool {
        match self {
            Subgroups::Exactly(size) => (least, most) == (size, size),
            Subgroups::AtLeast(size) => least >= size,
        }
    }
}

impl std::fmt::Display for Subgroups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subgroups::Exactly(size) => write!(f, "{size}"),
            Subgroups::AtLeast(size) => write!(f, "{size} or more"),
        }
    }
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

/// A dispatch before or behind a variant's own.
#[derive(Debug)]
pub struct Stage {
    /// Entry point in WGSL.
    pub entry: &'static str,
    /// Its text, in pieces.
    pub text: &'static [&'static str],
    /// Threads of a workgroup.
    pub workgroup: [u32; 3],
    /// Workgroups for a command.
    pub grid: fn(&Job<'_>) -> [u32; 3],
}

/// Dispatches around a variant's own, and memory that they hand results through. They have the bindings of the kernel, of which
/// each uses what it needs.
#[derive(Debug)]
pub struct Stages {
    /// Before it, in this order.
    pub before: &'static [Stage],
    /// Behind it.
    pub behind: &'static [Stage],
    /// Words of each scratch buffer for a command; buffer i is binding [`SCRATCH`] + i, `read_write`. Other commands use the
    /// same memory, so a stage reads there what a stage before it wrote.
    pub scratch: &'static [fn(&Job<'_>) -> usize],
}

/// The first binding of scratch buffers; a kernel has at most eight storage bindings.
pub const SCRATCH: u32 = 9;
/// Words that a scratch buffer may have: 128 MiB, which every adapter binds.
pub const MAX_SCRATCH: usize = 1 << 25;

impl Stage {
    /// The whole WGSL text.
    pub fn wgsl(&self) -> String {
        self.text.join("\n")
    }
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
    /// The sizes of subgroups that it works with, when it uses subgroups.
    pub subgroup: Option<Subgroups>,
    /// The side of the cooperative matrices that the text uses, if it does; subgroups may then have any size that divides the
    /// workgroup. The device is opened with experimental features for it.
    pub cooperative: Option<u32>,
    /// What is dispatched before and behind it.
    pub stages: Option<&'static Stages>,
    /// Whom it is for.
    pub made_for: MadeFor,
    /// How each binding is seen.
    pub forms: &'static [Form],
    /// Whether it computes this command rightly, from its parameters and lengths.
    pub suits: fn(&Job<'_>) -> bool,
    /// Whether it is likely the quickest for this command, should it suit; only [`Choice::Best`] asks, and only variants that
    /// are not [for those who ask](Variant::only_on_request).
    pub worth: fn(&Job<'_>) -> bool,
    /// Workgroups for this command.
    pub grid: fn(&Job<'_>) -> [u32; 3],
}

impl Variant {
    /// The whole WGSL text.
    pub fn wgsl(&self) -> String {
        [self.consts, self.source].into_iter().chain(self.shared.iter().copied()).collect::<Vec<_>>().join("\n")
    }

    /// The stages before and behind its own dispatch.
    pub fn around(&self) -> (&'static [Stage], &'static [Stage]) {
        self.stages.map_or((&[], &[]), |s| (s.before, s.behind))
    }

    /// The texts of all its dispatches.
    pub fn texts(&self) -> Vec<String> {
        let (before, behind) = self.around();
        before.iter().map(Stage::wgsl).chain([self.wgsl()]).chain(behind.iter().map(Stage::wgsl)).collect()
    }

    /// The entry points of all its dispatches.
    pub fn entries(&self) -> Vec<&'static str> {
        let (before, behind) = self.around();
        before.iter().map(|s| s.entry).chain([self.entry]).chain(behind.iter().map(|s| s.entry)).collect()
    }

    /// The adapter has what the texts use.
    pub fn has_features(&self, traits: &Traits) -> bool {
        let fits = |side: u32| {
            let threads = self.workgroup[0];
            traits.cooperative.contains(&side) && traits.subgroups.is_some_and(|(_, most)| most > 0 && threads.is_multiple_of(most))
        };
        self.subgroup.is_none_or(|sizes| traits.subgroups.is_some_and(|found| sizes.fit(found))) && self.cooperative.is_none_or(fits)
    }

    /// It uses what drivers are known to do wrong, and nobody has timed it on hardware: it is for those who ask by name, and for
    /// tuning, which compares its results before it takes it. [`Choice::Best`] never does.
    pub fn only_on_request(&self) -> bool {
        self.cooperative.is_some() || matches!(self.subgroup, Some(Subgroups::AtLeast(_)))
    }

    /// Words of its scratch buffers for a command.
    pub fn scratch(&self, command: &Command) -> Vec<usize> {
        self.stages.map_or(Vec::new(), |s| s.scratch.iter().map(|words| words(&Job::of(command))).collect())
    }

    /// An adapter with these traits can run it for this command.
    pub fn can_run(&self, traits: &Traits, command: &Command) -> bool {
        let textures = self.forms.iter().zip(&command.views).all(|(form, view)| match form.floats() {
            None => true,
            Some(floats) => {
                let texels = view.len / floats;
                let side = traits.max_texture_side as usize;
                view.len % floats == 0 && TEXTURE_WIDTH as usize <= side && texels.div_ceil(TEXTURE_WIDTH as usize) < side
            }
        });
        self.has_features(traits)
            && textures
            && (self.suits)(&Job::of(command))
            && self.scratch(command).iter().all(|&words| words <= MAX_SCRATCH)
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

/// Texts that were found for commands: the name of a variant, or of the kernel for its own text. Commands are told apart by
/// kernel, parameters and lengths, these rounded up to powers of two.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Picks(BTreeMap<String, String>);

impl Picks {
    /// What tells `command` from others: `matmul_tn 367 512 1 | 65536 65536 262144`.
    pub fn key(command: &Command) -> String {
        let params = command.params.chunks_exact(4).map(|b| u32::from_ne_bytes(b.try_into().expect("four bytes")).to_string());
        let lens = command.views.iter().map(|v| v.len.next_power_of_two().to_string());
        let words = |list: Vec<String>| list.join(" ");
        format!("{} {} | {}", command.kernel.name, words(params.collect()), words(lens.collect()))
    }

    /// The name for `command`.
    pub fn get(&self, command: &Command) -> Option<&str> {
        self.0.get(&Picks::key(command)).map(String::as_str)
    }

    /// Notes a name for `command`.
    pub fn set(&mut self, command: &Command, name: &str) {
        self.0.insert(Picks::key(command), name.into());
    }

    /// All of them, by [`Picks::key`].
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(String, String)> for Picks {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(list: I) -> Picks {
        Picks(list.into_iter().collect())
    }
}

/// How an engine picks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice<'a> {
    /// The first variant that is made for the adapter, that it can run, that is worth it and not just for those who ask, else
    /// the kernel's own text.
    #[default]
    Best,
    /// Always the kernel's own text, which every device runs.
    Portable,
    /// The variant of this name wherever the adapter can run it, else the kernel's own text.
    Only(&'a str),
    /// The text that was found for the command; without one that the adapter can run, as [`Choice::Best`].
    Picked(&'a Picks),
}

/// The variant of `command` that an adapter with these traits runs; none means the kernel's own text.
pub fn choose(traits: &Traits, command: &Command, choice: Choice<'_>) -> Option<&'static Variant> {
    let kernel: &'static Kernel = command.kernel;
    let named = |name: &str| kernel.variants.iter().find(|v| v.name == name && v.can_run(traits, command));
    let best = || made_for(traits, command).find(|v| !v.only_on_request() && (v.worth)(&Job::of(command)));
    match choice {
        Choice::Best => best(),
        Choice::Portable => None,
        Choice::Only(name) => named(name),
        Choice::Picked(picks) => match picks.get(command) {
            Some(name) if name == kernel.name => None,
            Some(name) => named(name).or_else(best),
            None => best(),
        },
    }
}

/// Variants for adapters of this kind that this one can run for `command`.
fn made_for(traits: &Traits, command: &Command) -> impl Iterator<Item = &'static Variant> {
    let kind = if traits.software { MadeFor::Software } else { MadeFor::Hardware };
    command.kernel.variants.iter().filter(move |v| v.made_for == kind && v.can_run(traits, command))
}

/// Names of the texts that might be the quickest for `command`: first what [`Choice::Best`] takes, then other variants for such
/// adapters, and the kernel's own text, by the kernel's name.
pub fn candidates(traits: &Traits, command: &Command) -> Vec<&'static str> {
    let kernel: &'static Kernel = command.kernel;
    let mut names = vec![choose(traits, command, Choice::Best).map_or(kernel.name, |v| v.name)];
    for name in made_for(traits, command).map(|v| v.name).chain([kernel.name]) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
