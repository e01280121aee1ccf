//! A model loaded on an engine: the plans recorded, the buffers made, ready to step.

use crate::config::{Config, Shape};
use crate::data::Batch;
use crate::error::Result;

/// One named tensor of the model or of its optimizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// PyTorch's name (`emb_l.0.weight`, `bot_l.0.bias`), or `dqrm.…` for state that PyTorch's model lacks
    /// (`dqrm.scale.emb_l` `[K]`, `dqrm.adagrad.<name>`, `dqrm.adam_m.<name>` …).
    pub name: String,
    /// Dimensions.
    pub shape: Vec<u64>,
}

impl Tensor {
    /// Values in all.
    pub fn len(&self) -> u64 {
        self.shape.iter().product()
    }

    /// True when a dimension is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True for weights, false for optimizer state and scales.
    pub fn is_weight(&self) -> bool {
        !self.name.starts_with("dqrm.")
    }
}

/// What a finished step left behind.
#[derive(Debug, Clone, PartialEq)]
pub struct StepResult {
    /// Step number.
    pub step: u64,
    /// Mean loss of its batch, before its update.
    pub loss: f32,
    /// Logits of its batch, before its update.
    pub logits: Vec<f32>,
}

/// What was chosen to run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// `cpu` or `gpu`.
    pub engine: &'static str,
    /// The adapter's name, or the number of threads.
    pub name: String,
    /// Why this one, when that deserves a word (`no GPU found, so …`).
    pub reason: String,
}

/// A model on an engine.
#[derive(Debug)]
pub struct Session {}

impl Session {
    /// Steps whose results are kept until [`Session::history`] must be called.
    pub const RING: usize = 32;

    /// Records, checks and loads the plans. `max_bag` is the most ids a bag of each table may have.
    /// Weights are zero until [`Session::initialise`] or [`Session::write`].
    pub async fn load(_shape: &Shape, _config: &Config, _max_bag: &[usize]) -> Result<Session> {
        unimplemented!()
    }

    /// The device in use.
    pub fn device(&self) -> &DeviceInfo {
        unimplemented!()
    }

    /// The tables' cut, which [`Batch::prepare`] needs.
    pub fn tables(&self) -> &crate::tables::Tables {
        unimplemented!()
    }

    /// Weights as published: tables uniform in ±sqrt(1/rows), matrices normal with deviation
    /// sqrt(2/(in+out)), biases normal with sqrt(1/out). `progress` gets (values done, values in all).
    pub fn initialise(&mut self, _seed: u64, _progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        unimplemented!()
    }

    /// Every tensor: weights in the order of a DLRM state dict, then optimizer state and scales.
    /// Writing all of them back restores the session exactly.
    pub fn tensors(&self) -> &[Tensor] {
        unimplemented!()
    }

    /// Values `start..start + len` of a tensor, row-major.
    pub async fn read(&mut self, _name: &str, _start: u64, _len: usize) -> Result<Vec<f32>> {
        unimplemented!()
    }

    /// Replaces values of a tensor from `start` on.
    pub fn write(&mut self, _name: &str, _start: u64, _values: &[f32]) -> Result<()> {
        unimplemented!()
    }

    /// One training step: scale refresh when due, gradients, update. The batch may have any number of
    /// samples from 1 to the configured batch. Does not wait for the device.
    pub fn train_step(&mut self, _step: u64, _batch: &Batch) -> Result<()> {
        unimplemented!()
    }

    /// Results of the steps since the last call; at most [`Session::RING`] steps may lie between calls.
    pub async fn history(&mut self) -> Result<Vec<StepResult>> {
        unimplemented!()
    }

    /// Logits of a batch of at most `eval_batch` samples, without learning. Call
    /// [`Session::begin_evaluation`] once after training steps.
    pub async fn logits(&mut self, _batch: &Batch) -> Result<Vec<f32>> {
        unimplemented!()
    }

    /// Quantizes the MLPs from the current weights for the evaluations that follow. Table scales
    /// stay those of the last training step; they are computed only if none exists yet.
    pub fn begin_evaluation(&mut self) -> Result<()> {
        unimplemented!()
    }

    /// The first buffer, in the order of a step, that holds a value that is not finite, with a count:
    /// "`top_l.0.weight` (12 of 187904 values)".
    pub async fn first_not_finite(&mut self, _batch: Option<&Batch>) -> Result<Option<String>> {
        unimplemented!()
    }
}

/// One adapter, for `dqrm devices`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Adapter {
    /// Name.
    pub name: String,
    /// `Vulkan`, `Metal`, `Dx12`, `BrowserWebGpu`, or `cpu`.
    pub backend: String,
    /// `discrete`, `integrated`, `virtual`, `software`, `cpu engine`.
    pub kind: String,
    /// Driver and its version.
    pub driver: String,
    /// Largest storage binding, in bytes (u64::MAX for the CPU engine).
    pub max_storage_binding: u64,
    /// Largest buffer, in bytes.
    pub max_buffer: u64,
    /// Storage buffers a shader may use.
    pub max_storage_buffers: u32,
    /// Workgroup memory, in bytes.
    pub max_workgroup_storage: u32,
    /// Invocations in a workgroup.
    pub max_invocations: u32,
    /// Features that matter here: `subgroups 32..32`, `f16`, `timestamps` ….
    pub features: Vec<String>,
    /// What `--device auto` would take.
    pub chosen_by_auto: bool,
}

/// All adapters, the CPU engine last.
pub async fn adapters() -> Vec<Adapter> {
    unimplemented!()
}
