//! What there is to run on.

use crate::thrown;
use dqrm::engine::gpu::{self, GpuAdapter};
use serde_json::json;
use wasm_bindgen::prelude::*;

/// The adapter, if there is one, with its limits, and the CPU engine's threads.
///
/// # Errors
/// None in practice; the text is JSON.
#[wasm_bindgen]
pub async fn devices() -> Result<String, JsValue> {
    let found = gpu::adapters().await;
    let text = serde_json::to_string(&json!({ "gpu": found.first().map(described), "threads": 1 }));
    text.map_err(thrown)
}

fn described(adapter: &GpuAdapter) -> serde_json::Value {
    let limits = &adapter.limits;
    json!({
        "name": adapter.name,
        "backend": adapter.backend,
        "kind": adapter.kind,
        "driver": adapter.driver,
        "limits": {
            "max_binding": limits.max_binding,
            "max_buffer": limits.max_buffer,
            "max_storage_buffers": limits.max_storage_buffers,
            "max_groups": limits.max_groups,
            "max_invocations": limits.max_invocations,
        },
        "features": adapter.features,
    })
}
