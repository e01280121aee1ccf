//! `dqrm` for web pages: what JavaScript calls. The work is the library's; here are only conversions.
//!
//! Settings and findings pass as JSON, weights and rows as bytes. Everything runs in one worker, and what takes long is
//! asynchronous, so that a page can show progress and stop it.

use wasm_bindgen::prelude::*;

mod devices;
mod lab;
mod panics;
mod wait;

pub use devices::devices;
pub use lab::{cases, check, kernels, time};

/// An error as JavaScript sees it: one sentence.
fn thrown(error: impl std::fmt::Display) -> JsValue {
    js_sys::Error::new(&error.to_string()).into()
}

/// The version of the library.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").into()
}
