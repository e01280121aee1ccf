//! [`Training`] as JavaScript calls it.

use crate::train::{Settings, Training};
use crate::{device, thrown};
use serde_json::json;
use wasm_bindgen::prelude::*;

/// A small model that learns from clicks on ads.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Trainer {
    inner: Training,
}

#[wasm_bindgen]
impl Trainer {
    /// A model with its first weights on `device_name` (`auto`, `gpu`, `cpu`); `settings` is JSON, and what it leaves out has defaults.
    ///
    /// # Errors
    /// Settings that cannot be used, a device that does not exist or is too small.
    pub async fn load(device_name: String, settings: String) -> Result<Trainer, JsValue> {
        let settings = Settings::from_json(&settings).map_err(thrown)?;
        Ok(Trainer { inner: Training::load(device(&device_name), settings).await.map_err(thrown)? })
    }

    /// Settings, device, size of the model, and the best AUC and log loss that can be expected, as JSON.
    pub fn describe(&self) -> String {
        self.inner.describe().to_string()
    }

    /// Trains `n` steps; gives steps and epochs done, and the new losses, as JSON.
    ///
    /// # Errors
    /// A number of steps that cannot be, a loss that is no number any more, a lost device.
    pub async fn steps(&mut self, n: u32) -> Result<String, JsValue> {
        let losses = self.inner.steps(u64::from(n)).await.map_err(thrown)?;
        let (step, epoch) = self.inner.done();
        Ok(json!({ "step": step, "epoch": epoch, "losses": losses }).to_string())
    }

    /// AUC, log loss and more on the validation clicks, as the packed model would do, as JSON.
    ///
    /// # Errors
    /// A lost device.
    pub async fn evaluate(&mut self) -> Result<String, JsValue> {
        let summary = self.inner.evaluate().await.map_err(thrown)?;
        serde_json::to_string(&summary).map_err(thrown)
    }

    /// Changes the learning rate of the steps that follow.
    ///
    /// # Errors
    /// A rate out of range.
    pub fn set_learning_rate(&mut self, value: f64) -> Result<(), JsValue> {
        self.inner.set_learning_rate(value).map_err(thrown)
    }

    /// The packed file of the present weights.
    ///
    /// # Errors
    /// A model in FP32, weights that are not finite, a lost device.
    pub async fn pack(&mut self) -> Result<Vec<u8>, JsValue> {
        self.inner.pack().await.map_err(thrown)
    }
}
