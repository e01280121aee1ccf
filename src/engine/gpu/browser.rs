//! Adapters in a browser: each gives one device only, and wgpu passes no name on.

use super::{GpuAdapter, instance};
use js_sys::wasm_bindgen::{JsCast, JsValue};
use js_sys::{Array, Function, Promise, Reflect};
use wasm_bindgen_futures::JsFuture;

/// The adapter that the browser gives, if it gives one; a new one each time.
pub(super) async fn adapter() -> Option<wgpu::Adapter> {
    let options = wgpu::RequestAdapterOptions { power_preference: wgpu::PowerPreference::HighPerformance, ..Default::default() };
    instance().request_adapter(&options).await.ok()
}

/// The same, with its name.
pub(super) async fn named() -> Option<GpuAdapter> {
    let mut found = GpuAdapter::new(adapter().await?);
    if found.name.is_empty() {
        found.name = name().await.unwrap_or_else(|| "the browser's adapter".into());
        found.limits.adapter.clone_from(&found.name);
    }
    Some(found)
}

/// Vendor and architecture, as `nvidia ampere`; nothing where the browser keeps them to itself.
async fn name() -> Option<String> {
    let get = |of: &JsValue, key: &str| Reflect::get(of, &key.into()).ok().filter(|value| !value.is_undefined() && !value.is_null());
    let gpu = get(&get(&js_sys::global(), "navigator")?, "gpu")?;
    let options = js_sys::Object::new();
    Reflect::set(&options, &"powerPreference".into(), &"high-performance".into()).ok()?;
    let request: Function = get(&gpu, "requestAdapter")?.dyn_into().ok()?;
    let promise: Promise = Reflect::apply(&request, &gpu, &Array::of1(&options)).ok()?.dyn_into().ok()?;
    let info = get(&JsFuture::from(promise).await.ok()?, "info")?;
    let words: Vec<String> = ["vendor", "architecture"].iter().filter_map(|key| get(&info, key)?.as_string()).collect();
    Some(words.join(" ").trim().to_string()).filter(|name| !name.is_empty())
}
