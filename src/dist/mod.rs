//! Workers that train one model together: each takes a part of every batch, and only the rows that
//! were touched travel, in INT8 (arXiv 2410.20046 section 3.3 and appendix B).
//!
//! Pure, bytes in and bytes out:
//!
//! 1. [`frame`]: what travels: a header of 32 bytes and a payload, checked before it is believed.
//! 2. [`layout`]: what the gradients of a model consist of, and who sums which.
//! 3. [`ids`]: the rows that a batch touches, in as few bytes as four ways to write them give; [`union`] merges
//!    those of all ranks.
//! 4. [`rows`], [`mlps`]: gradients as they travel, and their sums.
//! 5. [`exchange`]: a step of a rank as a state machine; [`ledger`] counts its bytes; [`hub`] carries the frames of
//!    ranks that live in one place.
//!
//! With sockets and clocks:
//!
//! 6. [`transport`]: how frames get from rank to rank.
//! 7. [`team`]: a rank among its peers: the exchange over a transport, with deadlines.
//! 8. [`launch`]: who this worker is, from flags and the launcher's environment.
//!
//! A **rank** is a worker's number, the **world size** their count.

pub mod exchange;
pub mod frame;
pub mod hub;
pub mod ids;
#[cfg(feature = "cli")]
pub mod launch;
pub mod layout;
pub mod ledger;
pub mod mlps;
pub mod rows;
#[cfg(feature = "cli")]
pub mod team;
#[cfg(feature = "cli")]
pub mod transport;
pub mod union;
