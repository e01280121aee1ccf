//! The model that is served, and its part of the Open Inference Protocol.

use super::Settings;
use super::batches::{self, Loaded, NotTaken, Queue, Rules};
use super::inputs::{Asked, Inputs, MODEL, Output, not_finite};
use super::refused::{Refused, json};
use crate::data::ids::Mapper;
use crate::error::{Error, Result};
use crate::metrics::sigmoid;
use crate::packed;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// A model on its device.
#[derive(Debug)]
pub(super) struct Model {
    inputs: Inputs,
    queue: Queue,
    pub(super) loaded: Loaded,
    /// False when its last batch failed.
    well: AtomicBool,
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
        Ok(Model { inputs, queue, loaded, well: AtomicBool::new(true) })
    }

    /// True when requests can be expected to be answered.
    pub(super) fn ready(&self) -> bool {
        self.well.load(Ordering::Relaxed)
    }

    /// Inputs and outputs as the protocol describes them.
    pub(super) fn metadata(&self) -> serde_json::Value {
        self.inputs.metadata()
    }

    /// Reads the body of a request.
    pub(super) fn read(&self, body: &[u8]) -> Result<Asked, Refused> {
        self.inputs.read(body)
    }

    /// Answers a request.
    pub(super) async fn infer(&self, asked: Asked) -> Result<Response, Refused> {
        let gone = || Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "the thread with the model has ended; start the server again");
        let answer = self.queue.push(asked.block).map_err(|why| match why {
            NotTaken::Full => Refused::busy("too many requests wait already; try again"),
            NotTaken::Gone => {
                self.well.store(false, Ordering::Relaxed);
                gone()
            }
        })?;
        let answer = answer.await.map_err(|_| gone())?;
        self.well.store(answer.is_ok(), Ordering::Relaxed);
        let logits = answer.map_err(|e| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the model failed: {e}")))?;
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
