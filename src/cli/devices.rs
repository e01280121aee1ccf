//! `dqrm devices`.

use super::live::grouped;
use super::{print, print_json};
use crate::config::{Model, Preset};
use crate::error::Result;
use crate::session::{Adapter, adapters};
use crate::tables::Tables;
use crate::train::memory;
use clap::Args;
use serde::Serialize;
use std::fmt::Write;

/// Settings of `dqrm devices`.
#[derive(Debug, Clone, Args)]
pub struct DevicesArgs {
    /// The list as JSON on standard output
    #[arg(long)]
    pub json: bool,
}

/// An adapter and what fits it.
#[derive(Debug, Serialize)]
struct Device {
    #[serde(flatten)]
    adapter: Adapter,
    presets: Vec<Fit>,
}

/// How a preset's tables lie on an adapter.
#[derive(Debug, Serialize)]
struct Fit {
    preset: Preset,
    /// Bytes of the tables.
    table_bytes: u64,
    /// Bindings the tables are cut into; `None` when a single row is too large for one.
    bindings: Option<usize>,
    /// This computer's memory in bytes, for the CPU engine, where the system tells.
    memory: Option<u64>,
    /// No limit forbids it. How much memory a graphics adapter has free is not known to any API.
    fits: bool,
}

fn fit(preset: Preset, adapter: &Adapter) -> Result<Fit> {
    let shape = Model { preset, ..Model::default() }.shape(None, None)?;
    let largest = adapter.max_storage_binding.min(adapter.max_buffer);
    let bindings = Tables::new(&shape.rows, shape.dim, largest).ok().map(|t| t.shards());
    let table_bytes = shape.embedding_parameters().saturating_mul(4);
    let memory = if adapter.backend == "cpu" { memory() } else { None };
    Ok(Fit { preset, table_bytes, bindings, memory, fits: bindings.is_some() && memory.is_none_or(|m| table_bytes <= m) })
}

/// Lists the adapters.
pub(super) fn run(args: &DevicesArgs) -> Result<()> {
    let presets = [Preset::Tiny, Preset::Kaggle, Preset::Terabyte, Preset::Mlperf];
    let mut devices = Vec::new();
    for adapter in pollster::block_on(adapters()) {
        let presets = presets.into_iter().map(|p| fit(p, &adapter)).collect::<Result<_>>()?;
        devices.push(Device { adapter, presets });
    }
    if args.json {
        return print_json(&devices);
    }
    let last = "\nAdagrad keeps as much again beside the tables, row-wise Adagrad one number a row.\n";
    print(&(devices.iter().map(describe).collect::<Vec<_>>().join("\n") + last))
}

fn describe(device: &Device) -> String {
    let a = &device.adapter;
    let mut text = String::new();
    let chosen = if a.chosen_by_auto { "  <- --device auto takes this one" } else { "" };
    let _ = writeln!(text, "{}  ({}, {}){chosen}", a.name, a.backend, a.kind);
    if a.backend != "cpu" {
        let _ = writeln!(text, "  driver     {}", a.driver);
        let _ = writeln!(text, "  limits     binding {}, buffer {}", size(a.max_storage_binding), size(a.max_buffer));
        let (buffers, memory) = (a.max_storage_buffers, grouped(u64::from(a.max_workgroup_storage)));
        let _ =
            writeln!(text, "             {buffers} storage buffers, {memory} bytes of workgroup memory, {} invocations", a.max_invocations);
        let _ = writeln!(text, "  features   {}", if a.features.is_empty() { "none".into() } else { a.features.join(", ") });
    }
    for fit in &device.presets {
        let name = format!("{:?}", fit.preset).to_lowercase();
        let bytes = size(fit.table_bytes);
        let how = match (fit.bindings, fit.memory.filter(|_| !fit.fits)) {
            (_, Some(memory)) => format!("do not fit: this computer's memory is {}", size(memory)),
            (None, _) => "do not fit: a row is larger than a binding".into(),
            (Some(1), _) => "one binding".into(),
            (Some(n), _) => format!("{n} bindings"),
        };
        let _ = writeln!(text, "  {name:<10} tables of {bytes:<15} {how}");
    }
    text
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    match bytes {
        u64::MAX => "without limit".into(),
        0..=1_048_575 => format!("{} bytes", grouped(bytes)),
        1_048_576..=1_073_741_823 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}
