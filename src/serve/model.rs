//! The model that is served, and its part of the Open Inference Protocol.

use super::Settings;
use super::batches::{self, Loaded, NotTaken, Queue, Rules};
use super::inputs::{Asked, Inputs, MODEL, Output, not_finite};
use super::refused::{Refused, json};
use crate::data::Block;
use crate::data::ids::Mapper;
use crate::error::{Error, Result};
use crate::metrics::sigmoid;
use crate::packed;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Mutex;

/// A model on its device.
#[derive(Debug)]
pub(super) struct Model {
    inputs: Inputs,
    queue: Queue,
    pub(super) loaded: Loaded,
    /// False when its last batch failed.
    well: AtomicBool,
    /// Held by whoever tries whether a model that failed answers again.
    trial: Mutex<()>,
}

#[derive(Serialize)]
struct Inferred<'a> {
    model_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<Tensor>,
}

#[derive(Serialize)]
struct Tensor {
    name: &'static str,
    datatype: &'static str,
    shape: [usize; 1],
    data: Vec<f32>,
}

impl Model {
    /// Loads the packed file `path`.
    ///
    /// # Errors
    /// A file that is no packed model or is damaged, a device that does not exist or is too small.
    pub(super) fn load(path: &Path, settings: &Settings) -> Result<Model> {
        let broken = |reason: String| Error::Checkpoint { path: path.into(), reason };
        if path.is_dir() {
            return Err(broken("is a folder, but a packed file is served; `dqrm pack` makes one of a run".into()));
        }
        let packed = packed::open(path)?;
        let (shape, schema) = (&packed.manifest().shape, &packed.manifest().input.schema);
        let mapper = Mapper::from_bytes(packed.ids()).map_err(|e| broken(e.to_string()))?;
        if mapper.rows() != shape.rows {
            return Err(broken(format!("its tables have {:?} rows, but its id mapping gives {:?}", shape.rows, mapper.rows())));
        }
        if (schema.dense.len(), schema.tables()) != (shape.dense, shape.tables()) {
            return Err(broken(format!(
                "has {} dense features and {} tables, but its columns are {} and {}",
                shape.dense,
                shape.tables(),
                schema.dense.len(),
                schema.tables()
            )));
        }
        let inputs = Inputs::new(packed.manifest(), mapper, settings.max_rows).map_err(|e| broken(e.to_string()))?;
        let rules = Rules { batch: settings.batch, wait: settings.batch_wait, queue: settings.queue };
        let (queue, loaded) = batches::start(packed, settings.device.clone(), rules)?;
        Ok(Model { inputs, queue, loaded, well: AtomicBool::new(true), trial: Mutex::new(()) })
    }

    /// True when requests can be expected to be answered. After a failure one caller at a time asks for a sample, to see whether
    /// the model has recovered.
    pub(super) async fn ready(&self) -> bool {
        if self.well.load(Ordering::Relaxed) {
            return true;
        }
        let Ok(_trial) = self.trial.try_lock() else { return false };
        self.logits(self.inputs.sample()).await.is_ok()
    }

    /// Inputs and outputs as the protocol describes them.
    pub(super) fn metadata(&self) -> serde_json::Value {
        self.inputs.metadata()
    }

    /// Reads the body of a request.
    pub(super) fn read(&self, body: &[u8]) -> Result<Asked, Refused> {
        self.inputs.read(body)
    }

    /// Logits of samples, through the queue; remembers whether the model is well.
    async fn logits(&self, block: Block) -> Result<Vec<f32>, Refused> {
        let gone = || {
            self.well.store(false, Ordering::Relaxed);
            Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "the thread with the model has ended; start the server again")
        };
        let answer = self.queue.push(block).map_err(|why| match why {
            NotTaken::Full => Refused::busy("too many requests wait already; try again"),
            NotTaken::Gone => gone(),
        })?;
        let answer = answer.await.map_err(|_| gone())?;
        self.well.store(answer.is_ok(), Ordering::Relaxed);
        answer.map_err(|e| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the model failed: {e}")))
    }

    /// Answers a request.
    pub(super) async fn infer(&self, asked: Asked) -> Result<Response, Refused> {
        let logits = self.logits(asked.block).await?;
        if logits.iter().any(|x| !x.is_finite()) {
            return Err(not_finite());
        }
        let tensor = |&output: &Output| Tensor {
            name: output.name(),
            datatype: "FP32",
            shape: [logits.len()],
            data: match output {
                Output::Logit => logits.clone(),
                Output::Probability => logits.iter().map(|&x| sigmoid(f64::from(x)) as f32).collect(),
            },
        };
        let outputs = asked.outputs.iter().map(tensor).collect();
        Ok(json(&Inferred { model_name: MODEL, id: asked.id.as_deref(), outputs }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pollster::block_on;

    #[test]
    fn readiness_follows_the_model() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/packed/v1.safetensors");
        let settings = Settings { device: crate::config::Device::Cpu, ..Settings::default() };
        let model = Model::load(Path::new(path), &settings).unwrap();
        let logits = block_on(model.logits(model.inputs.sample()));
        assert!(logits.is_ok_and(|x| x.len() == 1 && x[0].is_finite()), "the sample is one that the model takes");
        let script = vec![Ok(vec![0.5]), Err("lost".into()), Err("lost".into()), Ok(vec![0.5])];
        let model = Model { queue: batches::scripted(script), ..model };
        let ask = || block_on(model.logits(model.inputs.sample()));
        assert!(ask().is_ok() && block_on(model.ready()));
        assert!(ask().is_err_and(|e| e.sentence.contains("lost")));
        assert!(!block_on(model.ready()), "asked again, and failed again");
        assert!(block_on(model.ready()), "asked again, and recovered");
        assert!(ask().is_err_and(|e| e.sentence.contains("has ended")), "taken, but its thread is gone");
        assert!(!block_on(model.ready()) && !block_on(model.ready()));
    }
}
