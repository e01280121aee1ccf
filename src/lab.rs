//! The shader lab: what is known of a kernel, whether a text of it (the crate's own or somebody's
//! experiment) does what its twin does, and how fast it is. Bytes, texts and figures in, findings out:
//! no file, no clock and no terminal, so that tests, `dqrm kernels` and a web page share it.
//!
//! - [`describe`]: a kernel's formula, bindings and texts.
//! - [`compare`]: runs a [`Case`](crate::ops::Case) on an engine and compares it with the twins.
//! - [`finding`]: something to say of a text, and where.
//! - `inspect`: errors in a shader's text, and whether it fits what the kernel declares, by naga (feature `lab`).
//! - [`swap`]: kernels with another text.
//! - [`timing`]: how long a kernel takes.

use crate::engine::Engine;
use crate::engine::cpu::CpuEngine;
use crate::engine::gpu::{GpuAdapter, GpuEngine};
use crate::error::Result;
use crate::plan::Plan;
use crate::plan::schedule::Schedule;
use crate::plan::variant::Choice;

pub mod compare;
pub mod describe;
pub mod finding;
#[cfg(feature = "lab")]
pub mod inspect;
pub mod swap;
mod text;
pub mod timing;

/// Loads a plan on an adapter, or on the CPU engine. An adapter gets the kernels' own texts, which every adapter can run:
/// a variant made for it would take the place of the text that is looked at.
///
/// # Errors
/// A plan that does not fit the device, or a shader that the driver refuses.
pub async fn load(adapter: Option<&GpuAdapter>, plan: Plan) -> Result<Box<dyn Engine>> {
    load_text(adapter, plan, Choice::Portable).await
}

/// The same with other texts on an adapter.
///
/// # Errors
/// As [`load`].
pub async fn load_text(adapter: Option<&GpuAdapter>, plan: Plan, choice: Choice<'_>) -> Result<Box<dyn Engine>> {
    Ok(match adapter {
        None => Box::new(CpuEngine::load(Schedule::new(plan, &CpuEngine::limits(None))?)),
        Some(adapter) => Box::new(GpuEngine::load_with(adapter, Schedule::new(plan, &adapter.limits)?, choice, false).await?),
    })
}
