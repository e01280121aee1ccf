//! Workers that train one model together: each takes a part of every batch, and only the rows that
//! were touched travel, in INT8 (arXiv 2410.20046 section 3.3 and appendix B).
//!
//! 1. [`frame`]: what travels: a header of 32 bytes and a payload, checked before it is believed.
//! 2. [`transport`]: how frames get from rank to rank.
//! 3. [`launch`]: who this worker is, from flags and the launcher's environment.
//!
//! A **rank** is a worker's number, the **world size** their count.

pub mod frame;
#[cfg(feature = "cli")]
pub mod launch;
#[cfg(feature = "cli")]
pub mod transport;
