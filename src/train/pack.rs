//! From a run's folder to a packed model and its card.

use super::evaluate::{Which, checkpoint_path};
use super::{broken, card, folder, resolve, schema};
use crate::checkpoint::Checkpoint;
use crate::config::{Config, EmbeddingScale, Format, Method, Schema, Shape};
use crate::data::ids::Mapper;
use crate::error::{Error, Result};
use crate::packed::{self, Coding, Generator, Input, Manifest, Rule, Source, WritePlan, Written};
use crate::quant::Bits;
use std::path::{Path, PathBuf};

/// How to pack.
#[derive(Debug, Clone, Default)]
pub struct PackOptions {
    /// Which checkpoint; the best when there is one.
    pub which: Option<Which>,
    /// Width of the tables' codes; the run's own when not given.
    pub bits: Option<Bits>,
    /// Width of the MLPs' codes; the run's own when not given, that of `bits` after FP32 training.
    pub mlp_bits: Option<Bits>,
    /// A scale for each embedding row.
    pub row_scales: bool,
    /// Quantize a run that was trained in FP32.
    pub ptq: bool,
    /// The file; `model.safetensors` in the run's folder when not given.
    pub out: Option<PathBuf>,
}

/// What was packed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Packing {
    /// The packed model.
    pub model: PathBuf,
    /// The model card.
    pub card: PathBuf,
    /// The checkpoint it was made from.
    pub checkpoint: PathBuf,
    /// Steps it was trained for.
    pub step: u64,
    /// How it was quantized.
    pub method: String,
    /// Width of the tables' codes.
    pub bits: Bits,
    /// Width of the MLPs' codes.
    pub mlp_bits: Bits,
    /// Bytes of the weights in FP32.
    pub fp32_bytes: u64,
    /// Bytes of the parts of the file.
    #[serde(flatten)]
    pub written: Written,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Source for Checkpoint {
    fn read(&mut self, name: &str, start: u64, values: &mut [f32]) -> Result<()> {
        Checkpoint::read(self, name, start, values)
    }
}

/// Packs the model of the run in `dir`. `progress` gets (values done, in all).
///
/// # Errors
/// A folder without a run, a run that cannot be packed so, weights that are not finite, a full disk.
pub fn pack(dir: &Path, options: &PackOptions, progress: &mut dyn FnMut(u64, u64)) -> Result<Packing> {
    let config = folder::read_config(dir)?;
    let config = resolve(&config)?;
    let path = checkpoint_path(dir, options.which)?;
    let model = options.out.clone().unwrap_or_else(|| dir.join(folder::PACKED));
    if model.exists() && !packed::is_packed(&model) {
        return Err(Error::Config(format!("`{}` exists and is no packed model; give another --out", model.display())));
    }
    let card = model.with_extension("md");
    card::check(&card, &model)?;
    let (widths, mut warnings) = widths(&config, options)?;
    let mut checkpoint = Checkpoint::open(&path)?;
    checkpoint.verify()?;
    let shape = checkpoint.header.shape.clone().ok_or_else(|| broken(&path, "has no `dqrm.shape`"))?;
    checkpoint.check_weights(&shape)?;
    let ids = id_mapping(&config, &shape, dir)?;
    let step = checkpoint.header.step;
    let (method, rule) = rule(&config, options, widths)?;
    if unquantized(&mut checkpoint)? {
        warnings.push("the checkpoint is from before quantization started (quant.pretrain_epochs)".into());
    }
    let manifest = Manifest {
        shape: shape.clone(),
        tables: Coding { bits: widths.0, offset: 0.0 },
        mlps: Coding { bits: widths.1, offset: 0.0 },
        input: input(&config, &shape)?,
        method: method.clone(),
        step,
    };
    refuse_sums(&config, &manifest)?;
    let plan = WritePlan {
        manifest,
        rule,
        row_scales: options.row_scales || config.quant.embedding_scale == EmbeddingScale::Row,
        mlp_scales: config.quant.mlp_scale,
        quantize_bias: config.quant.quantize_bias,
        ids,
    };
    let written = packed::write(&model, &plan, &mut checkpoint, progress)?;
    let packing = Packing {
        card: card.clone(),
        checkpoint: path,
        step,
        method,
        bits: widths.0,
        mlp_bits: widths.1,
        fp32_bytes: shape.fp32_bytes(),
        written,
        warnings,
        model,
    };
    crate::partial::write(&card, card::text(dir, &config, &plan, &packing)?.as_bytes())?;
    Ok(packing)
}

/// The method's name, and how grids are found.
fn rule(config: &Config, options: &PackOptions, widths: (Bits, Bits)) -> Result<(String, Rule)> {
    let quant = &config.quant;
    let method = if options.ptq { Method::Ptq } else { quant.method };
    if method == Method::Lsq && widths != (quant.embedding_bits, quant.mlp_bits) {
        return Err(Error::Config(format!(
            "the run learned its scales for {} (tables) and {} (MLPs); other widths need scales of their own; leave --bits and --mlp-bits out",
            quant.embedding_bits, quant.mlp_bits
        )));
    }
    let rule = match method {
        Method::Dqrm | Method::Hawq | Method::Ptq => Rule::MaxAbs,
        Method::Lsq => Rule::Learned,
        Method::Pact => Rule::DoReFa,
    };
    Ok((method.to_string(), rule))
}

/// The run begins in FP32 and had not made a quantized step yet.
fn unquantized(checkpoint: &mut Checkpoint) -> Result<bool> {
    const FLAG: &str = "dqrm.quantizing";
    let mut quantizing = [1.0];
    if checkpoint.header.entry(FLAG).is_some() {
        checkpoint.read(FLAG, 0, &mut quantizing)?;
    }
    Ok(quantizing[0] == 0.0)
}

/// Widths of tables and MLPs, and what is unusual about them.
fn widths(config: &Config, options: &PackOptions) -> Result<((Bits, Bits), Vec<String>)> {
    let (trained, trained_mlp) = (config.quant.embedding_bits, config.quant.mlp_bits);
    if options.bits == Some(Bits::None) {
        return Err(Error::Config("--bits none leaves nothing to pack; `dqrm export` writes FP32 weights".into()));
    }
    if !trained.quantized() && !options.ptq {
        return Err(Error::Config(
            "the run was trained in FP32; with --ptq it is quantized now, which costs accuracy (train with --bits 4 to avoid that)".into(),
        ));
    }
    if trained.quantized() && options.ptq {
        return Err(Error::Config(format!("the run's tables were trained as {trained}; --ptq is for runs in FP32, leave it out")));
    }
    let tables = options.bits.unwrap_or(if trained.quantized() { trained } else { Bits::B4 });
    let mlps = options.mlp_bits.unwrap_or(if trained.quantized() || trained_mlp.quantized() { trained_mlp } else { tables });
    let mut warnings = Vec::new();
    for (what, trained, packed) in [("tables", trained, tables), ("MLPs", trained_mlp, mlps)] {
        if trained != packed && !options.ptq {
            warnings.push(format!("the {what} were trained as {trained} and are packed as {packed}, so they are quantized after training"));
        }
    }
    Ok(((tables, mlps), warnings))
}

/// Sums of bags are not rows: a packed table cannot hold them.
fn refuse_sums(config: &Config, manifest: &Manifest) -> Result<()> {
    let several = manifest.max_bag().iter().any(|&bag| bag > 1);
    if config.quant.pool_then_quantize && config.quant.embedding_bits.quantized() && several {
        return Err(Error::Config(
            "the run quantized the sums of its bags (quant.pool_then_quantize); a packed table holds rows, and with several ids in a bag the two differ"
                .into(),
        ));
    }
    Ok(())
}

/// The id mapping as bytes.
fn id_mapping(config: &Config, shape: &Shape, dir: &Path) -> Result<Vec<u8>> {
    if config.data.format == Format::Synthetic {
        return Ok(Mapper::modulo(&shape.rows).to_bytes());
    }
    let path = dir.join(folder::IDS);
    let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
    let rows = Mapper::from_bytes(&bytes).map_err(|e| broken(&path, e.to_string()))?.rows().to_vec();
    if rows != shape.rows {
        return Err(broken(&path, format!("gives {rows:?} rows, but the model has {:?}", shape.rows)));
    }
    Ok(bytes)
}

/// What goes into the run's model.
pub(super) fn input(config: &Config, shape: &Shape) -> Result<Input> {
    let data = &config.data;
    if data.format != Format::Synthetic {
        return Ok(Input { format: data.format, schema: schema(config)?, generator: None });
    }
    let generator = Generator { seed: config.seed, split: data.split, synthetic: data.synthetic.clone() };
    Ok(Input { format: data.format, schema: Schema::criteo(shape.dense, shape.tables()), generator: Some(generator) })
}
