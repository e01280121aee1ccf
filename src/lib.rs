//! `dqrm` trains Deep Quantized Recommendation Models: a DLRM whose embedding tables and MLPs are
//! fake-quantized (to INT4, say) while it trains. Shaders in WGSL run on any GPU through wgpu; the
//! CPU engine runs the same plan where there is none.

pub mod error;
pub mod rng;
pub mod quant;
pub mod config;
pub mod tables;
pub mod plan;
pub mod engine;
pub mod ops;
pub mod data;
pub mod metrics;
pub mod model;
pub mod step;
pub mod session;
#[cfg(feature = "cli")]
pub mod config_file;
#[cfg(feature = "cli")]
pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod train;
#[cfg(feature = "cli")]
pub mod cli;

pub use error::{Error, Result};
