//! Runs golden cases (a folder with `case.json`, `init.safetensors`, `data.tsv` and
//! `expected.safetensors`) and compares every quantity with its tolerance.
//!
//! ```text
//! cargo run --release --example golden -- DIR… [--device cpu|gpu|NAME] [--texts best|portable|NAME|all] [--dump FILE.safetensors] [--loose]
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod arrays;
mod case;
mod compare;
mod data;
mod dump;
mod packed;
mod run;
mod sweep;
mod texts;

use dqrm::config::Device;
use dqrm::ops::kernels;
use dqrm::plan::Variant;
use dqrm::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use texts::Texts;

const USAGE: &str = "\
usage: golden DIR… [--device auto|cpu|gpu|NAME] [--texts best|portable|NAME|all] [--dump FILE.safetensors] [--loose]

  DIR       a case, or a folder of cases
  --device  what to run on; cpu unless given
  --texts   on a graphics adapter, which texts of the kernels: those that any run there gets (best, unless
            given), the kernels' own (portable), or a variant wherever the adapter can run it and the kernels'
            own elsewhere (its name; --help lists them); all: these two and each variant of the matrix
            products in turn, a line each. But for best, packed files are not predicted from
  --dump    writes what was computed, named as in expected.safetensors (which may then be missing);
            with several cases, to FILE-<case>.safetensors
  --loose   takes the tolerances for arithmetic that is not correctly rounded

example: golden tests/golden/cases --device gpu --texts matmul_tn_tiles64";

#[derive(Debug)]
struct Options {
    dirs: Vec<PathBuf>,
    device: Device,
    /// None stands for all in turn.
    texts: Option<Texts>,
    dump: Option<PathBuf>,
    loose: bool,
}

fn variants() -> impl Iterator<Item = &'static Variant> {
    kernels().into_iter().flat_map(|k| k.variants)
}

/// The names of all variants, kernel by kernel.
fn variant_names() -> String {
    let names = |list: &[Variant]| list.iter().map(|v| format!("\n    {}", v.name)).collect::<String>();
    let with = kernels().into_iter().filter(|k| !k.variants.is_empty());
    with.map(|k| format!("\n  of {}:{}", k.name, names(k.variants))).collect()
}

fn texts(value: &str) -> Result<Option<Texts>> {
    Ok(Some(match value {
        "all" => return Ok(None),
        "best" => Texts::Best,
        "portable" => Texts::Portable,
        name => {
            let found = variants().find(|v| v.name == name);
            Texts::Only(found.ok_or_else(|| Error::Config(format!("`{name}` is no variant; --help lists them all")))?)
        }
    }))
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Option<Options>> {
    let mut options = Options { dirs: Vec::new(), device: Device::Cpu, texts: Some(Texts::Best), dump: None, loose: false };
    while let Some(arg) = args.next() {
        let (flag, mut value) = match arg.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => (flag.to_string(), Some(value.to_string())),
            _ => (arg, None),
        };
        let mut value = || value.take().or_else(|| args.next()).ok_or_else(|| Error::Config(format!("`{flag}` needs a value")));
        match flag.as_str() {
            "-h" | "--help" => return Ok(None),
            "--device" => options.device = Device::from(value()?),
            "--texts" => options.texts = texts(&value()?)?,
            "--dump" => options.dump = Some(value()?.into()),
            "--loose" => options.loose = true,
            _ if flag.starts_with('-') => return Err(Error::Config(format!("`{flag}` is not an option of this program"))),
            _ => options.dirs.push(flag.into()),
        }
    }
    let wrong = if options.dirs.is_empty() {
        "no folder was given"
    } else if options.device == Device::Cpu && options.texts != Some(Texts::Best) {
        "--texts chooses what a graphics adapter runs; say which with --device, gpu or a name"
    } else if options.texts.is_none() && options.dump.is_some() {
        "--dump writes what one choice of texts gives; take another than --texts all"
    } else {
        return Ok(Some(options));
    };
    Err(Error::Config(wrong.into()))
}

/// `dir` itself when it is a case, or the cases in it, by name.
fn cases(dir: &Path) -> Result<Vec<PathBuf>> {
    if dir.join("case.json").is_file() {
        return Ok(vec![dir.to_path_buf()]);
    }
    let entries = std::fs::read_dir(dir).map_err(Error::io("read", dir))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("read", dir))?.path();
        if path.join("case.json").is_file() {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() { Err(Error::Data(format!("`{}` holds no case.json, nor does a folder in it", dir.display()))) } else { Ok(found) }
}

/// The last part of a path.
fn name(dir: &Path) -> String {
    let whole = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    whole.file_name().map_or_else(|| "case".into(), |name| name.to_string_lossy().into_owned())
}

/// Runs one case and prints its table; whether all is well, and how many commands had a variant.
fn one(dir: &Path, options: &Options, texts: Texts, several: bool) -> Result<(bool, usize)> {
    let outcome = run::examine(dir, &options.device, texts, options.loose, options.dump.is_some())?;
    println!("{} on {}", name(dir), outcome.device);
    if texts != Texts::Best {
        println!("  {} commands with a variant, all others with their kernels' own texts", outcome.forced.varied);
    }
    if let Some(file) = &options.dump {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let path = if several { file.with_file_name(format!("{stem}-{}.safetensors", name(dir))) } else { file.clone() };
        dump::write(&path, &outcome.computed)?;
        println!("  {} arrays written to `{}`", outcome.computed.len(), path.display());
    }
    let varied = outcome.forced.varied;
    match outcome.report {
        Some(report) => {
            print!("{report}");
            Ok((report.ok(), varied))
        }
        None => {
            println!("  nothing to compare with: no expected.safetensors");
            Ok((true, varied))
        }
    }
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}\n\nvariants{}", variant_names());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let (mut unreadable, mut agree, mut found) = (0, 0, Vec::new());
    for dir in &options.dirs {
        match cases(dir) {
            Ok(list) => found.extend(list),
            Err(error) => {
                eprintln!("error: {error}");
                unreadable += 1;
            }
        }
    }
    let Some(texts) = options.texts else {
        let agree = sweep::sweep(&found, &options.device, options.loose);
        return if agree && unreadable == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    };
    let mut varied = 0;
    for dir in &found {
        match one(dir, &options, texts, found.len() > 1) {
            Ok((well, commands)) => {
                agree += usize::from(well);
                varied += commands;
            }
            Err(error) => eprintln!("error: {}: {error}", name(dir)),
        }
    }
    println!("{agree} of {} cases agree", found.len());
    if let Texts::Only(variant) = texts
        && varied == 0
    {
        eprintln!("error: no command of these cases ran `{}` here; --texts all says what each text needs", variant.name);
        return ExitCode::FAILURE;
    }
    if agree == found.len() && unreadable == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
