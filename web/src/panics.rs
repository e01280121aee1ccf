//! What a page learns of a mistake in this program. A panic ends WebAssembly with `unreachable` and says nothing, and
//! a promise that was waited for stays open; so the text goes to the console, as an uncaught error, and into
//! `globalThis.dqrmPanic`, where a worker that sees the error finds the sentence.

use wasm_bindgen::prelude::*;

/// Called by `init()`.
#[wasm_bindgen(start)]
fn start() {
    #[cfg(target_arch = "wasm32")]
    std::panic::set_hook(Box::new(|panic| {
        let text = JsValue::from(format!("dqrm stopped by a mistake of its own: {panic}"));
        // A global object takes any property.
        let _ = js_sys::Reflect::set(&js_sys::global(), &"dqrmPanic".into(), &text);
        error(&text);
    }));
}

#[cfg(target_arch = "wasm32")]
#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console)]
    fn error(text: &JsValue);
}
