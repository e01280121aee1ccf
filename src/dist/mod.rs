//! Workers that train one model together: each takes a part of every batch, and only the rows that
//! were touched travel, in INT8 (arXiv 2410.20046 section 3.3 and appendix B).
//!
//! 1. [`frame`]: what travels: a header of 32 bytes and a payload, checked before it is believed.
//! 2. [`transport`]: how frames get from rank to rank.
//! 3. [`ids`]: the rows that a batch touches, in as few bytes as four ways to write them give.
//!
//! A **rank** is a worker's number, the **world size** their count.

pub mod frame;
pub mod ids;
#[cfg(feature = "cli")]
pub mod transport;
