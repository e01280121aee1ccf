//! `dqrm` trains Deep Quantized Recommendation Models: a DLRM whose embedding tables and MLPs are
//! fake-quantized (to INT4, say) while it trains. Shaders in WGSL run on any GPU through wgpu; the
//! CPU engine runs the same plan where there is none.

#[cfg(feature = "cli")]
pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod data;
pub mod engine;
pub mod error;
pub mod metrics;
pub mod model;
pub mod ops;
pub mod plan;
pub mod quant;
pub mod rng;
pub mod session;
pub mod step;
pub mod tables;
#[cfg(feature = "cli")]
pub mod train;

pub use error::{Error, Result};
