//! The flags of `train` and how they override the settings.

use super::profile;
use super::workers::WorkerArgs;
use crate::config::{
    Checkpoints, Config, DenseOptimizer, Device, EmbeddingScale, Ids, Method, OnBadRow, Preset, RowOptimizer, ScalePer, TablePlace,
};
use crate::config_file;
use crate::error::{Error, Result};
use crate::quant::Bits;
use crate::train::{CONFIG, free_name};
use crate::tuning_file::{Tune, Tuning};
use clap::Args;
use std::path::PathBuf;

const TRAIN_EXAMPLES: &str = "\
Examples:
  dqrm train                                            synthetic clicks, tiny model, about a minute
  dqrm train --data train.tsv.gz --preset kaggle --lr 1 --epochs 2
  dqrm train my.toml --seed 1 --out runs/mine           every setting of the file, another seed
  dqrm train --bits none --mlp-bits none                the same model in FP32
  dqrm train --method lsq                               scales that are learned
  dqrm train --resume runs/mine                         after Ctrl-C
  dqrm train --workers 4                                four workers that exchange INT8 gradients
  dqrm train --workers 4 --network 1Gbps,0.2ms          as if they stood in a cluster
  torchrun --no-python --nproc-per-node 4 dqrm train    launched by torchrun (mpirun, srun … likewise)
  dqrm train my.toml --init weights.safetensors         from the weights of another training
  dqrm train --preset terabyte --dry-run                memory, bindings and time of a step, before anything is allocated
  dqrm train --max-steps 100 --profile                  where the time goes, command by command
  dqrm train --preset mlperf --tables host --table-dir /scratch    tables larger than the memory

Every setting can stand in the TOML file; the resolved ones are written to OUT/config.toml.";

/// Settings of `dqrm train`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = TRAIN_EXAMPLES)]
pub struct TrainArgs {
    /// Settings in TOML; flags override them
    pub config: Option<PathBuf>,

    /// Files in time order, plain or .gz (Criteo TSV unless the TOML has a schema)
    #[arg(long, value_name = "FILE", num_args = 1.., help_heading = "Data")]
    pub data: Vec<String>,
    /// How categories become rows
    #[arg(long, value_name = "dictionary|modulo|direct", value_parser = choice::<Ids>, help_heading = "Data")]
    pub ids: Option<Ids>,
    /// Rows of every table with --ids modulo
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub modulo: Option<u64>,
    /// What a malformed line does: stop, or be left out and counted
    #[arg(long, value_name = "error|skip", value_parser = choice::<OnBadRow>, help_heading = "Data")]
    pub on_bad_row: Option<OnBadRow>,
    /// Synthetic clicks to make, before the split
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub samples: Option<u64>,

    /// tiny, kaggle, terabyte or mlperf
    #[arg(long, value_name = "NAME", value_parser = choice::<Preset>, help_heading = "Model")]
    pub preset: Option<Preset>,
    /// No table gets more rows than this
    #[arg(long, value_name = "N", help_heading = "Model")]
    pub max_rows: Option<u64>,
    /// Where the tables live: in the device's memory, or on the host, from where a step's rows go to the device and back [default: the file's, else device]
    #[arg(long, value_name = "device|host", value_parser = choice::<TablePlace>, help_heading = "Model")]
    pub tables: Option<TablePlace>,
    /// Keep tables on the host in a file in this folder, which vanishes with the run [default: in memory where they take at most half of what is free and the rest of the model fits too, else in the run's folder]
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    pub table_dir: Option<String>,
    /// Start from a PyTorch-named state dict (emb_l.0.weight, bot_l.0.weight, top_l.0.bias …)
    #[arg(long, value_name = "FILE", conflicts_with = "resume", help_heading = "Model")]
    pub init: Option<PathBuf>,

    /// dqrm (scales from the largest weight), hawq (the same, each step), ptq (train in FP32, evaluate quantized), lsq (learned scales), pact (DoReFa's grid) [default: the file's, else dqrm]
    #[arg(long, value_name = "METHOD", value_parser = choice::<Method>, help_heading = "Quantization")]
    pub method: Option<Method>,
    /// Bits of the embedding rows: 2, 4, 8, 16 or none [default: the file's, else 4]
    #[arg(long, value_name = "BITS", value_parser = bits, help_heading = "Quantization")]
    pub bits: Option<Bits>,
    /// Bits of the MLP weights [default: those of --bits, else the file's, else 4]
    #[arg(long, value_name = "BITS", value_parser = bits, help_heading = "Quantization")]
    pub mlp_bits: Option<Bits>,
    /// Steps between two refreshes of a table's scale [default: the file's, else 200]
    #[arg(long, value_name = "P", help_heading = "Quantization")]
    pub period: Option<u64>,
    /// A scale for each embedding table, or for each row of it [default: the file's, else table]
    #[arg(long, value_name = "table|row", value_parser = choice::<EmbeddingScale>, help_heading = "Quantization")]
    pub scales: Option<EmbeddingScale>,
    /// A scale for each output row of an MLP's matrix, or for the matrix [default: the file's, else channel]
    #[arg(long, value_name = "channel|matrix", value_parser = choice::<ScalePer>, help_heading = "Quantization")]
    pub mlp_scale: Option<ScalePer>,
    /// Epochs in FP32 before quantization starts [default: the file's, else 0]
    #[arg(long, value_name = "N", help_heading = "Quantization")]
    pub pretrain_epochs: Option<u64>,

    /// Passes over the training part
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub epochs: Option<u64>,
    /// Stop after so many steps
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub max_steps: Option<u64>,
    /// Samples per step
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub batch: Option<usize>,
    /// Learning rate
    #[arg(long, value_name = "X", help_heading = "Training")]
    pub lr: Option<f64>,
    /// Optimizer: sgd, adagrad, rwsadagrad (tables; adagrad for the MLPs) or adam (MLPs; sgd for the tables)
    #[arg(long, value_name = "NAME", value_parser = optimizer, help_heading = "Training")]
    pub optimizer: Option<(RowOptimizer, DenseOptimizer)>,
    /// Seed of the weights, the synthetic clicks and the order of the samples
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64), help_heading = "Training")]
    pub seed: Option<u64>,
    /// Evaluate on the validation part every so many steps too, not only after each epoch
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub eval_every: Option<u64>,

    /// Which checkpoints are kept: the newest and the best, the newest, or none [default: the file's, else all]
    #[arg(long, value_name = "all|last|none", value_parser = choice::<Checkpoints>, help_heading = "Training")]
    pub checkpoints: Option<Checkpoints>,

    /// Workers that train together
    #[command(flatten)]
    pub workers: WorkerArgs,

    /// Device and output of the run
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Time the texts that a GPU could run for matrix products: not at all, where the user's cache has no answer, or all anew; not with workers [default: off; a resumed run keeps what it found]
    #[arg(long, value_name = "off|cached|fresh", num_args = 0..=1, default_missing_value = "cached", value_parser = choice::<Tune>, help_heading = "Run")]
    pub tune: Option<Tune>,
    /// The run's folder [default: runs/PRESET-BITS-seedS (with the method, unless dqrm), numbered when it exists]
    #[arg(long, value_name = "DIR", conflicts_with = "resume", help_heading = "Run")]
    pub out: Option<PathBuf>,
    /// Time every command of some steps; print a table at the end and write a timeline for Perfetto [file: OUT/profile.json]
    #[arg(long, value_name = "FILE.json", num_args = 0..=1, default_missing_value = "", value_parser = profile::file, help_heading = "Run")]
    pub profile: Option<PathBuf>,
    /// Steps to time, after ten that are not counted
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000), help_heading = "Run")]
    pub profile_steps: u64,
    /// Say what the run would take (memory, bindings, bytes and time of a step on this device) and stop
    #[arg(long, conflicts_with_all = ["profile", "resume", "init"], help_heading = "Run")]
    pub dry_run: bool,
    /// Go on with a run that was stopped
    #[arg(long, value_name = "DIR", conflicts_with = "config", help_heading = "Run")]
    pub resume: Option<PathBuf>,
}

/// Flags that all commands with a model have.
#[derive(Debug, Clone, Default, Args)]
pub struct DeviceArgs {
    /// auto (a real GPU, else the CPU), cpu, gpu (any adapter), or part of an adapter's name
    #[arg(long, value_name = "DEVICE", help_heading = "Run")]
    pub device: Option<String>,
    /// The result as JSON on standard output
    #[arg(long, help_heading = "Run")]
    pub json: bool,
}

impl DeviceArgs {
    /// The device asked for.
    pub(super) fn chosen(&self) -> Option<Device> {
        self.device.clone().map(Device::from)
    }
}

pub(super) fn bits(text: &str) -> Result<Bits, String> {
    text.parse().map_err(|e: Error| e.to_string())
}

/// A value as it is spelled in the TOML.
pub(super) fn choice<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    use serde::de::{IntoDeserializer, value::StrDeserializer};
    let word: StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
    T::deserialize(word).map_err(|error| {
        let error = error.to_string();
        let known: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        match config_file::nearest(text, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? There are {}", known.join(", ")),
            None => format!("there are {}", known.join(", ")),
        }
    })
}

fn optimizer(text: &str) -> Result<(RowOptimizer, DenseOptimizer), String> {
    match text {
        "sgd" => Ok((RowOptimizer::Sgd, DenseOptimizer::Sgd)),
        "adagrad" => Ok((RowOptimizer::Adagrad, DenseOptimizer::Adagrad)),
        "rwsadagrad" => Ok((RowOptimizer::Rwsadagrad, DenseOptimizer::Adagrad)),
        "adam" => Ok((RowOptimizer::Sgd, DenseOptimizer::Adam)),
        _ => Err("there are sgd, adagrad, rwsadagrad, adam".into()),
    }
}

/// Overwrites `place` when a flag was given.
fn set<T>(place: &mut T, flag: Option<T>) {
    if let Some(value) = flag {
        *place = value;
    }
}

impl TrainArgs {
    /// The settings: those of the file (or of the run to resume), overridden by flags.
    ///
    /// # Errors
    /// A file that cannot be used, values out of range.
    pub fn config(&self) -> Result<Config> {
        let file = self.resume.as_ref().map(|dir| dir.join(CONFIG)).or_else(|| self.config.clone());
        let mut c = match &file {
            Some(path) => config_file::read(path)?,
            None => Config::default(),
        };
        set(&mut c.seed, self.seed);
        set(&mut c.device, self.device.chosen());
        set(&mut c.model.preset, self.preset);
        c.model.max_rows = self.max_rows.or(c.model.max_rows);
        set(&mut c.model.tables, self.tables);
        if self.tables == Some(TablePlace::Device) {
            c.model.table_dir = None; // of the file that is overridden
        }
        c.model.table_dir = self.table_dir.clone().or(c.model.table_dir);
        set(&mut c.quant.method, self.method);
        set(&mut c.quant.embedding_scale, self.scales);
        set(&mut c.quant.mlp_scale, self.mlp_scale);
        set(&mut c.quant.pretrain_epochs, self.pretrain_epochs);
        set(&mut c.quant.embedding_bits, self.bits);
        set(&mut c.quant.mlp_bits, self.mlp_bits.or(self.bits));
        set(&mut c.quant.period, self.period);
        set(&mut c.optim.lr, self.lr);
        if let Some((rows, dense)) = self.optimizer {
            (c.optim.embedding, c.optim.dense) = (rows, dense);
        }
        set(&mut c.train.epochs, self.epochs);
        set(&mut c.train.max_steps, self.max_steps);
        set(&mut c.train.batch, self.batch);
        set(&mut c.train.eval_every, self.eval_every);
        set(&mut c.train.checkpoints, self.checkpoints);
        set(&mut c.data.ids, self.ids);
        c.data.modulo = self.modulo.or(c.data.modulo);
        set(&mut c.data.on_bad_row, self.on_bad_row);
        set(&mut c.data.synthetic.samples, self.samples);
        if !self.data.is_empty() {
            c.data.files.clone_from(&self.data);
        }
        self.workers.apply(&mut c);
        c.validate()?;
        Ok(c)
    }

    /// Whether texts are timed, and where the answers are kept.
    pub(super) fn tuning(&self) -> Tuning {
        Tuning { mode: self.tune.unwrap_or_default(), cache: user_cache() }
    }

    /// The run's folder.
    pub fn folder(&self, config: &Config) -> PathBuf {
        if let Some(dir) = self.resume.as_ref().or(self.out.as_ref()) {
            return dir.clone();
        }
        let preset = format!("{:?}", config.model.preset).to_lowercase();
        let bits = config.quant.embedding_bits.to_string().to_lowercase();
        let method = match config.quant.method {
            Method::Dqrm => String::new(),
            other => format!("-{other}"),
        };
        free_name(&PathBuf::from(format!("runs/{preset}-{bits}{method}-seed{}", config.seed)))
    }
}

/// The user's folder for what may be lost.
fn user_cache() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = if cfg!(windows) {
        absolute("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        absolute("HOME").map(|home| home.join("Library/Caches"))
    } else {
        absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))
    };
    base.map(|dir| dir.join("dqrm"))
}

/// The flags of `dqrm train` in a line, for tests.
#[cfg(test)]
pub(super) fn parse(flags: &str) -> Result<TrainArgs, String> {
    let words = ["dqrm", "train"].into_iter().chain(flags.split_whitespace());
    match <super::Cli as clap::Parser>::try_parse_from(words).map_err(|e| e.to_string())?.command {
        super::Command::Train(args) => Ok(*args),
        _ => Err("another command".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_override_the_settings() {
        let args =
            parse("--preset kaggle --bits none --data a b --lr 0.5 --optimizer rwsadagrad --ids modulo --modulo 9 --device llvm").unwrap();
        let config = args.config().unwrap();
        assert_eq!((config.model.preset, config.quant.embedding_bits, config.quant.mlp_bits), (Preset::Kaggle, Bits::None, Bits::None));
        assert_eq!((config.data.files.len(), config.optim.lr, config.data.modulo), (2, 0.5, Some(9)));
        assert_eq!((config.optim.embedding, config.optim.dense), (RowOptimizer::Rwsadagrad, DenseOptimizer::Adagrad));
        assert_eq!(config.device, Device::Named("llvm".into()));
        assert_eq!(args.folder(&config), PathBuf::from("runs/kaggle-fp32-seed0"));
        let args = parse("--method lsq --mlp-scale matrix --pretrain-epochs 2 --seed 3").unwrap();
        let config = args.config().unwrap();
        assert_eq!((config.quant.method, config.quant.mlp_scale, config.quant.pretrain_epochs), (Method::Lsq, ScalePer::Matrix, 2));
        assert_eq!(args.folder(&config), PathBuf::from("runs/tiny-int4-lsq-seed3"));
        assert_eq!(parse("--scales row").unwrap().config().unwrap().quant.embedding_scale, EmbeddingScale::Row);
        let config = parse("--bits 8 --mlp-bits 4").unwrap().config().unwrap();
        assert_eq!((config.quant.embedding_bits, config.quant.mlp_bits), (Bits::B8, Bits::B4));
    }

    #[test]
    fn wrong_flags_are_explained() {
        assert!(parse("--preset kagle").unwrap_err().contains("did you mean `kaggle`?"));
        assert!(parse("--bits 5").unwrap_err().contains("use 2, 4, 8, 16 or none"));
        assert!(parse("--method hawk").unwrap_err().contains("did you mean `hawq`?"));
        assert!(parse("--method lsq --scales row").unwrap().config().unwrap_err().to_string().contains("whole table"));
        assert!(parse("--optimizer sdg").unwrap_err().contains("sgd, adagrad"));
        assert!(parse("--resume a --out b").is_err());
        assert!(parse("--batch 0").unwrap().config().unwrap_err().to_string().contains("at least 1"));
    }
}
