//! `dqrm` trains Deep Quantized Recommendation Models: a DLRM whose embedding tables and MLPs are
//! fake-quantized (to INT4, say) while it trains, after arXiv 2410.20046. Shaders in WGSL run on any
//! GPU through wgpu; the CPU engine runs the same plan where there is none.
//!
//! # Example
//!
//! Some steps of the smallest model, quantized to INT4, on clicks that are made up on the way.
//!
//! ```
//! use dqrm::config::{Config, Device, Synthetic};
//! use dqrm::data::{Batch, Block, Samples, synthetic::Clicks};
//! use dqrm::session::Session;
//!
//! # fn main() -> dqrm::Result<()> {
//! let config = Config { device: Device::Cpu, ..Config::default() };
//! let shape = config.model.shape(None, None)?;
//! let clicks = Clicks::new(&Synthetic::default(), config.seed, shape.dense, shape.rows.clone());
//! let mut session = pollster::block_on(Session::load(&shape, &config, clicks.max_bag()))?;
//! session.initialise(config.seed, &mut |_, _| {})?;
//! for step in 0..20 {
//!     let numbers: Vec<u64> = (step * 128..(step + 1) * 128).collect();
//!     let mut block = Block::new();
//!     clicks.fetch(&numbers, &mut block)?;
//!     session.train_step(step, &Batch::prepare(&block, session.tables())?)?;
//! }
//! for result in pollster::block_on(session.history())? {
//!     println!("step {}: loss {:.4}", result.step, result.loss);
//!     assert!(result.loss.is_finite());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! `examples/03_train_tiny.rs` goes on from here to an AUC on clicks that were never trained on.
//!
//! # A tour, in reading order
//!
//! What a number is:
//!
//! 1. [`quant`]: range, scale and rounding of a quantized weight. Shaders and twins obey this file.
//! 2. [`rng`]: random values and permutations without state, each a function of (seed, stream, index).
//! 3. [`error`]: one error type whose variants carry the facts.
//!
//! What a step does, as data:
//!
//! 4. [`plan`]: named buffers and an ordered list of commands. [`plan::kernel`] is one entry point of
//!    a shader with its bindings and its plain Rust twin; [`plan::schedule`] checks a plan against a
//!    device's limits and gives every buffer its place.
//! 5. [`ops`]: the operations, each with its derivative, its kernels, its twins and its test cases.
//! 6. [`tables`]: how embedding tables are cut into bindings.
//! 7. [`model`]: the network's parameters, and forward and backward written out by hand.
//! 8. [`step`]: records the phases of a run: refresh, gradients, update, quantize, evaluate.
//!
//! What runs it:
//!
//! 9. [`engine`]: [`engine::gpu`] runs the shaders, [`engine::cpu`] the twins; [`lab`] looks at kernels
//!    one by one: against their twins, with another text, with a clock.
//! 10. [`session`]: a model loaded on an engine: steps, evaluations, named tensors. [`host_tables`] keeps tables
//!     that are too large for the device in this computer's memory or in a file.
//!
//! What it is fed with, and what is kept:
//!
//! 11. [`config`]: every setting; [`config_file`] reads them from TOML.
//! 12. [`data`]: samples from text, from prepared files or from the generator, and batches with each
//!     touched row listed once.
//! 13. [`metrics`]: AUC, log loss, accuracy, normalized entropy, calibration.
//! 14. [`tensor_file`]: the frame of a safetensors file.
//! 15. [`checkpoint`]: weights, optimizer state and scales in one such file.
//! 16. [`packed`]: a finished model as codes and scales, and [`predictor`], which runs it.
//! 17. [`import`]: weights of a PyTorch DLRM, from safetensors and `.pt` files.
//! 18. [`onnx`], [`state_dict`]: models and weights for other programs.
//! 19. [`profile`], [`bench`](mod@bench): where a step's time goes, and what the device gives at best.
//! 20. [`mod@train`]: the loop: next batch, step, report, evaluate, save; and packing a run.
//! 21. `serve` (feature `serve`): a page and a packed model over HTTP.
//! 22. [`cli`]: the commands. The only part that prints.
//!
//! # Letters
//!
//! In comments on shapes, **B** is the samples of a batch, **K** the tables, **D** the width of an
//! embedding row (or, of dense features, their number), **U** the rows a batch touches, each counted
//! once, and **S** the shards, the pieces that all tables together are cut into.
//!
//! # Features
//!
//! `lab` adds the checks of shader texts to [`lab`], for which it needs naga; `cli` includes it.
//! `cli`, on by default, is everything that needs an operating system: files, threads for loading,
//! the terminal. Without it the modules `bench`, `checkpoint`, `cli`, `config_file`, `host_tables`, `import`, `onnx`, `state_dict` and
//! `train`, and the parts of `data` that read files, are left out. `serve`, on by default too, is `dqrm serve`, the only
//! part with an async runtime; `page` puts the web page, which must have been built, into the program.

#[cfg(feature = "cli")]
pub mod bench;
#[cfg(feature = "cli")]
pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
mod computer;
pub mod config;
#[cfg(feature = "cli")]
pub mod config_file;
pub mod data;
pub mod dist;
pub mod engine;
pub mod error;
#[cfg(feature = "cli")]
pub mod host_tables;
#[cfg(feature = "cli")]
pub mod import;
pub mod lab;
#[cfg(feature = "cli")]
mod mapped;
pub mod metrics;
pub mod model;
#[cfg(feature = "cli")]
pub mod onnx;
pub mod ops;
pub mod packed;
#[cfg(feature = "cli")]
mod partial;
pub mod plan;
pub mod predictor;
pub mod profile;
pub mod quant;
pub mod rng;
#[cfg(feature = "serve")]
pub mod serve;
pub mod session;
#[cfg(feature = "cli")]
pub mod state_dict;
pub mod step;
pub mod tables;
pub mod tensor_file;
#[cfg(feature = "cli")]
pub mod train;
pub mod tune;
#[cfg(feature = "cli")]
pub mod tuning_file;
#[cfg(feature = "cli")]
mod whole_file;

pub use error::{Error, Result};
