//! From a run's folder or a packed file to formats that other programs read.

use super::evaluate::{Which, checkpoint_path};
use super::{broken, folder, pack, resolve};
use crate::checkpoint::Checkpoint;
use crate::config::Format;
use crate::data::ids::{self, Mapper};
use crate::error::{Error, Result};
use crate::onnx;
use crate::packed::{self, Coding, Manifest, Packed};
use crate::quant::Bits;
use crate::state_dict;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// The model for any ONNX runtime.
    Onnx,
    /// The weights in FP32 under PyTorch's names.
    Safetensors,
}

/// How to export.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// What is written.
    pub format: ExportFormat,
    /// Which checkpoint of a run; the best when there is one.
    pub which: Option<Which>,
    /// The file; beside the source when not given.
    pub out: Option<PathBuf>,
    /// Replace files that exist.
    pub force: bool,
    /// ONNX: large tensors in a file of their own.
    pub external_data: bool,
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Exported {
    /// The file.
    pub file: PathBuf,
    /// What it is.
    pub format: ExportFormat,
    /// The checkpoint or packed file it was made from.
    pub source: PathBuf,
    /// Steps it was trained for.
    pub step: u64,
    /// Width of the tables' values in the file.
    pub bits: Bits,
    /// Width of the MLPs' values in the file.
    pub mlp_bits: Bits,
    /// Lengths of the files.
    #[serde(flatten)]
    pub written: onnx::Written,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Exports a packed file, or the weights of the run in a folder. `progress` gets (parts done, in all).
///
/// # Errors
/// A source that is neither or is damaged, a file that exists, a full disk.
pub fn export(path: &Path, options: &ExportOptions, progress: &mut dyn FnMut(u64, u64)) -> Result<Exported> {
    if options.external_data && options.format != ExportFormat::Onnx {
        return Err(Error::Config("--external-data is for --format onnx; a safetensors file is always one file".into()));
    }
    if !path.is_file() {
        return from_run(path, options, progress);
    }
    if options.which.is_some() {
        return Err(Error::Config(format!("`{}` is a file; only a run's folder has a best and a last checkpoint", path.display())));
    }
    from_packed(path, &packed::open(path)?, options, progress)
}

/// The file to write, which must not exist unless it may be replaced.
fn target(options: &ExportOptions, beside: PathBuf, source: &Path) -> Result<PathBuf> {
    let file = options.out.clone().unwrap_or(beside);
    let same = |a: &Path, b: &Path| a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b));
    if same(&file, source) {
        return Err(Error::Config(format!("`{}` is what is to be exported; give another --out", file.display())));
    }
    if file.is_dir() {
        return Err(Error::Config(format!("`{}` is a folder; --out names a file", file.display())));
    }
    let data = onnx::data_path(&file);
    let taken = [&file, &data].into_iter().find(|p| p.exists() && (**p == file || options.format == ExportFormat::Onnx));
    match taken.filter(|_| !options.force) {
        Some(taken) => Err(Error::Config(format!("`{}` exists; give another --out, or --force to replace it", taken.display()))),
        None => Ok(file),
    }
}

fn from_packed(path: &Path, packed: &Packed, options: &ExportOptions, progress: &mut dyn FnMut(u64, u64)) -> Result<Exported> {
    let extension = if options.format == ExportFormat::Onnx { "onnx" } else { "fp32.safetensors" };
    let file = target(options, path.with_extension(extension), path)?;
    packed.verify().map_err(|reason| broken(path, reason))?;
    let m = packed.manifest();
    let exported = |bits, mlp_bits, written| Exported {
        format: options.format,
        source: path.into(),
        step: m.step,
        bits,
        mlp_bits,
        written,
        warnings: Vec::new(),
        file: file.clone(),
    };
    if options.format == ExportFormat::Onnx {
        let written = onnx::write_packed(&file, packed, onnx::Options { external_data: options.external_data }, progress)?;
        return Ok(exported(m.tables.bits, m.mlps.bits, written));
    }
    let notes = [("dqrm.step", m.step.to_string()), ("dqrm.dequantized_from", format!("tables {}, MLPs {}", m.tables.bits, m.mlps.bits))];
    let bytes = state_dict::write(&file, &m.shape, &notes, &mut state_dict::Dequantized(packed), progress)?;
    Ok(exported(Bits::None, Bits::None, onnx::Written { bytes, data: None, data_bytes: 0 }))
}

fn from_run(dir: &Path, options: &ExportOptions, progress: &mut dyn FnMut(u64, u64)) -> Result<Exported> {
    let config = resolve(&folder::read_config(dir)?)?;
    let path = checkpoint_path(dir, options.which)?;
    let extension = if options.format == ExportFormat::Onnx { "onnx" } else { "safetensors" };
    let file = target(options, dir.join(format!("fp32.{extension}")), &path)?;
    let mut checkpoint = Checkpoint::open(&path)?;
    checkpoint.verify()?;
    let shape = checkpoint.header.shape.clone().ok_or_else(|| broken(&path, "has no `dqrm.shape`"))?;
    let step = checkpoint.header.step;
    let mut warnings = Vec::new();
    if config.quant.embedding_bits.quantized() || config.quant.mlp_bits.quantized() {
        warnings.push(format!(
            "the run was trained with {} tables and {} MLPs; these are its weights before quantization, which predict something else (`dqrm pack` it and export the packed file for the same predictions)",
            config.quant.embedding_bits, config.quant.mlp_bits
        ));
    }
    let written = match options.format {
        ExportFormat::Onnx => {
            let full = Coding { bits: Bits::None, offset: 0.0 };
            let input = pack::input(&config, &shape)?;
            let manifest = Manifest { input, tables: full, mlps: full, method: "fp32".into(), step, shape };
            let ids = match config.data.format {
                Format::Synthetic => Mapper::modulo(&manifest.shape.rows).to_bytes(),
                _ => id_header(dir)?,
            };
            let options = onnx::Options { external_data: options.external_data };
            onnx::write_full(&file, &manifest, &ids, &mut checkpoint, options, progress)?
        }
        ExportFormat::Safetensors => {
            let bytes = state_dict::write(&file, &shape, &[("dqrm.step", step.to_string())], &mut checkpoint, progress)?;
            onnx::Written { bytes, data: None, data_bytes: 0 }
        }
    };
    Ok(Exported { file, format: options.format, source: path, step, bits: Bits::None, mlp_bits: Bits::None, written, warnings })
}

/// The first bytes of the run's id mapping.
fn id_header(dir: &Path) -> Result<Vec<u8>> {
    let path = dir.join(folder::IDS);
    let mut bytes = Vec::new();
    let file = std::fs::File::open(&path).map_err(Error::io("read", &path))?;
    file.take(ids::HEADER as u64).read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
    Ok(bytes)
}
