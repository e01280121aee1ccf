//! `dqrm kernels`: the shader lab on the command line.

use crate::config::Device;
use crate::config_file::nearest;
use crate::engine::gpu::{self, GpuAdapter};
use crate::error::{Error, Result};
use crate::lab::swap::Swap;
use crate::ops;
use crate::plan::Kernel;
use crate::session::devices;
use clap::{Args, Subcommand};
use std::fmt::Write;
use std::path::{Path, PathBuf};

mod check;
mod list;
mod time;
mod watch;

pub(super) use time::TimeArgs;

const EXAMPLES: &str = "\
Examples:
  dqrm kernels list                                         every kernel with its formula
  dqrm kernels list matmul --source > my_matmul.wgsl        a text to change
  dqrm kernels check --swap matmul=my_matmul.wgsl --watch   compared whenever it is saved
  dqrm kernels time --swap matmul=my_matmul.wgsl            its speed beside the original's";

/// The largest replacement that is read, in bytes.
const MAX_TEXT: u64 = 1 << 20;

/// Settings of `dqrm kernels`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct KernelsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: KernelsCommand,
}

/// The subcommands.
#[derive(Debug, Clone, Subcommand)]
pub enum KernelsCommand {
    /// List kernels with their formulas, or show one with its bindings and its text
    List(list::ListArgs),
    /// Compare kernels, or replacements of them, with their twins on all cases
    Check(check::CheckArgs),
    /// Time kernels, beside replacements of them, at the shapes of the Kaggle model
    Time(TimeArgs),
}

/// What `check` and `time` have in common.
#[derive(Debug, Clone, Default, Args)]
pub struct LabArgs {
    /// Kernels, or ops for all kernels of theirs [default: those of --swap, else all]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// gpu (any adapter), cpu (the twins), auto, or part of an adapter's name [default: gpu where there is one]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Take the text of a kernel, or of all kernels of an op, from a file
    #[arg(long, value_name = "NAME=FILE", value_parser = spec)]
    pub swap: Vec<Spec>,
    /// Do it again whenever a file of --swap changes, until Ctrl-C
    #[arg(long, requires = "swap")]
    pub watch: bool,
}

/// A replacement as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    name: String,
    file: PathBuf,
}

fn spec(text: &str) -> Result<Spec, String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok(Spec { name: name.into(), file: file.into() }),
        _ => Err("it has the form NAME=FILE, a kernel or an op and a file with WGSL: matmul=my_matmul.wgsl".into()),
    }
}

/// Runs a subcommand.
pub(super) fn run(args: &KernelsArgs) -> Result<()> {
    match &args.command {
        KernelsCommand::List(args) => list::run(args),
        KernelsCommand::Check(args) => {
            let bench = args.lab.bench()?;
            watch::run(&args.lab, |swaps| check::run(&bench, swaps))
        }
        KernelsCommand::Time(args) => time(args),
    }
}

/// Times kernels; `dqrm bench kernels` is another name for it.
pub(super) fn time(args: &TimeArgs) -> Result<()> {
    let bench = args.lab.bench()?;
    watch::run(&args.lab, |swaps| time::run(&bench, args, swaps))
}

/// Kernels of these names, or of the ops of these names; all when there are none.
fn select(names: &[String]) -> Result<Vec<&'static Kernel>> {
    let all = ops::kernels();
    let known = || all.iter().flat_map(|k| [k.name, k.op]);
    for name in names {
        if !known().any(|k| k == name) {
            let near = nearest(name, known()).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            return Err(Error::Config(format!("no kernel or op is called `{name}`{near} (`dqrm kernels list` shows all)")));
        }
    }
    Ok(all.iter().copied().filter(|k| names.is_empty() || names.iter().any(|n| n == k.name || n == k.op)).collect())
}

/// Where kernels run, and which.
struct Bench {
    adapter: Option<GpuAdapter>,
    kernels: Vec<&'static Kernel>,
}

impl LabArgs {
    /// Finds kernels and device.
    fn bench(&self) -> Result<Bench> {
        let swapped: Vec<String> = self.swap.iter().map(|s| s.name.clone()).collect();
        let replaced = select(&swapped)?;
        let mut kernels = select(&self.names)?;
        if !self.swap.is_empty() {
            kernels.retain(|k| replaced.contains(k));
        }
        if kernels.is_empty() {
            let text = format!("none of `{}` has a text of --swap, which is for `{}`", self.names.join("`, `"), swapped.join("`, `"));
            return Err(Error::Config(text));
        }
        let adapter = match &self.device {
            Some(device) => pollster::block_on(devices::choose(&Device::from(device.clone())))?.0,
            None => pollster::block_on(gpu::adapters()).into_iter().next(),
        };
        if adapter.is_none() && !self.swap.is_empty() {
            let text = "a replacement is WGSL, which needs a graphics adapter: use --device gpu (a software one will do, Debian: mesa-vulkan-drivers)";
            return Err(Error::Device(text.into()));
        }
        Ok(Bench { adapter, kernels })
    }

    /// Reads the replacements.
    fn swaps(&self) -> Result<Vec<Swap>> {
        let mut swaps: Vec<Swap> = Vec::new();
        for spec in &self.swap {
            let swap = Swap::new(&select(std::slice::from_ref(&spec.name))?, &spec.file.to_string_lossy(), &text(&spec.file)?)?;
            if let Some((kernel, file)) = swap.kernels().find_map(|k| Some((k.name, replacement(&swaps, k)?))) {
                return Err(Error::Config(format!("`{kernel}` is replaced by `{file}` and by `{}`; it can have one text", swap.file())));
            }
            swaps.push(swap);
        }
        Ok(swaps)
    }
}

/// A file with a shader.
fn text(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
    if size > MAX_TEXT {
        return Err(Error::Shader(format!("`{}` has {size} bytes; a shader may have {MAX_TEXT}", path.display())));
    }
    std::fs::read_to_string(path).map_err(Error::io("read", path))
}

impl Bench {
    /// What it is called in the results.
    fn device(&self) -> String {
        match &self.adapter {
            Some(a) => format!("{} ({})", a.name, a.backend),
            None => "the CPU engine, which runs the twins".into(),
        }
    }

    /// The kernels to look at: of those of `swaps` when there are any.
    fn kernels<'a>(&'a self, swaps: &'a [Swap]) -> impl Iterator<Item = &'static Kernel> + 'a {
        self.kernels.iter().copied().filter(|k| swaps.is_empty() || replacement(swaps, k).is_some())
    }

    /// Device and texts, to stand above the results.
    fn title(&self, swaps: &[Swap]) -> String {
        let mut out = format!("device   {}\n", self.device());
        for swap in swaps {
            let names: Vec<&str> = self.kernels(swaps).filter(|k| swap.replacement(k).is_some()).map(|k| k.name).collect();
            let _ = writeln!(out, "text     {} for {}", swap.file(), names.join(", "));
        }
        let mut said = Vec::new();
        for note in swaps.iter().flat_map(Swap::notes).map(ToString::to_string) {
            if !said.contains(&note) {
                let _ = writeln!(out, "note     {}", note.replace('\n', "\n         "));
                said.push(note);
            }
        }
        out
    }
}

/// The file whose text stands for a kernel.
fn replacement<'a>(swaps: &'a [Swap], kernel: &Kernel) -> Option<&'a str> {
    swaps.iter().find(|swap| swap.replacement(kernel).is_some()).map(Swap::file)
}
