//! `dqrm` for web pages: what JavaScript calls. The work is the library's; here are only conversions.
//!
//! Settings and findings pass as JSON, weights and rows as bytes. Everything runs in one worker, and what takes long is
//! asynchronous, so that a page can show progress and stop it.

use wasm_bindgen::prelude::*;

pub mod ads;
mod devices;
mod lab;
mod panics;
mod scorer;
pub mod scores;
pub mod train;
mod trainer;
mod wait;

pub use devices::devices;
pub use lab::{cases, check, kernels, time};
pub use scorer::{Incoming, Scorer, summary};
pub use trainer::Trainer;

/// An error as JavaScript sees it: one sentence.
fn thrown(error: impl std::fmt::Display) -> JsValue {
    js_sys::Error::new(&error.to_string()).into()
}

/// A device as the page names it.
fn device(name: &str) -> dqrm::config::Device {
    name.to_owned().into()
}

/// The version of the library.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").into()
}
