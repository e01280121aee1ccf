//! [`Scores`] as JavaScript calls them.

use crate::scores::{self, Scores};
use crate::{device, thrown};
use dqrm::predictor;
use wasm_bindgen::prelude::*;

/// A packed file on its way to a device, in pieces, in order.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Incoming {
    inner: predictor::Incoming,
    size: usize,
}

#[wasm_bindgen]
impl Incoming {
    /// A file of `size` bytes called `name`, for `device` (`auto`, `gpu`, `cpu`) and batches of up to `batch` rows.
    ///
    /// # Errors
    /// A size that cannot be.
    #[wasm_bindgen(constructor)]
    pub fn new(device: &str, batch: usize, name: &str, size: f64) -> Result<Incoming, JsValue> {
        // JavaScript counts bytes in floats.
        let whole = size.is_finite() && size >= 0.0 && size.fract() == 0.0;
        let bytes = Some(size as u64).filter(|_| whole).ok_or_else(|| thrown(format!("`{name}` cannot have {size} bytes")))?;
        let inner = predictor::Incoming::new(name, bytes, crate::device(device), batch).map_err(thrown)?;
        Ok(Incoming { inner, size: bytes as usize })
    }

    /// Takes the next bytes; ready when the device may be given more.
    ///
    /// # Errors
    /// A file that cannot be used, as soon as that shows; a lost device.
    pub async fn push(&mut self, piece: Vec<u8>) -> Result<(), JsValue> {
        self.inner.push(&piece).await.map_err(thrown)
    }

    /// The model, when everything has come and its checksums are right.
    ///
    /// # Errors
    /// A file that is not complete or was altered.
    pub async fn finish(self) -> Result<Scorer, JsValue> {
        let (predictor, packed) = self.inner.finish().map_err(thrown)?;
        Ok(Scorer { inner: Scores::packed(predictor, &packed, self.size).map_err(thrown)? })
    }
}

/// A model that scores rows of text.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Scorer {
    inner: Scores,
}

#[wasm_bindgen]
impl Scorer {
    /// FP32 weights (a safetensors file, PyTorch's names) that take what `like` takes.
    ///
    /// # Errors
    /// Weights of another shape, a device that does not exist or is too small.
    pub async fn full(weights: Vec<u8>, like: &Scorer, device_name: String) -> Result<Scorer, JsValue> {
        let inner = Scores::full(&weights, &like.inner, device(&device_name)).await.map_err(thrown)?;
        Ok(Scorer { inner })
    }

    /// What the model is and takes, as JSON.
    pub fn describe(&self) -> String {
        self.inner.describe().to_string()
    }

    /// Begins a new text, called `name` in messages.
    ///
    /// # Errors
    /// A schema that contradicts itself.
    pub fn begin(&mut self, name: &str) -> Result<(), JsValue> {
        self.inner.begin(name).map_err(thrown)
    }

    /// Click probabilities of the rows that a piece of text completes; malformed rows are left out and counted.
    ///
    /// # Errors
    /// A header that lacks a column, a text without rows, a lost device.
    pub async fn push(&mut self, text: Vec<u8>, last: bool) -> Result<Vec<f32>, JsValue> {
        self.inner.push(&text, last).await.map_err(thrown)
    }

    /// Labels of the rows scored last; NaN where a row has none.
    pub fn labels(&self) -> Vec<f32> {
        self.inner.labels().to_vec()
    }

    /// Malformed rows of the present text, as JSON.
    pub fn skipped(&self) -> String {
        self.inner.skipped().to_string()
    }

    /// Click probabilities of rows without header and label: dense columns, then categories, then columns of several, in the order of
    /// [`Scorer::describe`] where columns have names.
    ///
    /// # Errors
    /// A malformed row, a lost device.
    pub async fn rank(&mut self, rows: String) -> Result<Vec<f32>, JsValue> {
        self.inner.rank(&rows).await.map_err(thrown)
    }
}

/// AUC, log loss and more of probabilities whose rows have labels, as JSON.
#[wasm_bindgen]
pub fn summary(probabilities: &[f32], labels: &[f32]) -> String {
    scores::summary(probabilities, labels).to_string()
}
