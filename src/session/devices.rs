//! Which device runs a model, and what there is to choose from.

use crate::config::Device;
use crate::engine::gpu::{self, GpuAdapter};
use crate::error::{Error, Result};

/// One adapter, for `dqrm devices`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Adapter {
    /// Name.
    pub name: String,
    /// `Vulkan`, `Metal`, `Dx12`, `BrowserWebGpu`, or `cpu`.
    pub backend: String,
    /// `discrete`, `integrated`, `virtual`, `software`, `other`, `cpu engine`.
    pub kind: String,
    /// Driver and its version.
    pub driver: String,
    /// Largest storage binding, in bytes (u64::MAX for the CPU engine).
    pub max_storage_binding: u64,
    /// Largest buffer, in bytes.
    pub max_buffer: u64,
    /// Storage buffers a shader may use.
    pub max_storage_buffers: u32,
    /// Workgroup memory, in bytes.
    pub max_workgroup_storage: u32,
    /// Invocations in a workgroup.
    pub max_invocations: u32,
    /// Features that matter here: `subgroups 32..32`, `f16`, `timestamps` ….
    pub features: Vec<String>,
    /// What `--device auto` would take.
    pub chosen_by_auto: bool,
}

/// All adapters, the CPU engine last.
pub async fn adapters() -> Vec<Adapter> {
    let found = gpu::adapters().await;
    let auto = found.iter().position(|a| !a.is_software());
    let mut list: Vec<Adapter> = found.iter().enumerate().map(|(i, a)| describe(a, auto == Some(i))).collect();
    list.push(Adapter {
        name: format!("CPU engine, {} threads", rayon::current_num_threads()),
        backend: "cpu".into(),
        kind: "cpu engine".into(),
        driver: "none needed".into(),
        max_storage_binding: u64::MAX,
        max_buffer: u64::MAX,
        max_storage_buffers: u32::MAX,
        max_workgroup_storage: u32::MAX,
        max_invocations: u32::MAX,
        features: Vec::new(),
        chosen_by_auto: auto.is_none(),
    });
    list
}

fn describe(a: &GpuAdapter, chosen_by_auto: bool) -> Adapter {
    Adapter {
        name: a.name.clone(),
        backend: a.backend.clone(),
        kind: a.kind.into(),
        driver: a.driver.clone(),
        max_storage_binding: a.limits.max_binding,
        max_buffer: a.limits.max_buffer,
        max_storage_buffers: a.limits.max_storage_buffers as u32,
        max_workgroup_storage: a.max_workgroup_storage,
        max_invocations: a.limits.max_invocations,
        features: a.features.clone(),
        chosen_by_auto,
    }
}

/// The adapter for `device`, or none for the CPU engine, and a word on why.
pub(crate) async fn choose(device: &Device) -> Result<(Option<GpuAdapter>, String)> {
    if *device == Device::Cpu {
        return Ok((None, "asked for".into()));
    }
    let mut found = gpu::adapters().await;
    let names: Vec<String> = found.iter().map(|a| format!("`{}`", a.name)).collect();
    let names = if names.is_empty() { "none".into() } else { names.join(", ") };
    match device {
        Device::Auto => match found.iter().position(|a| !a.is_software()) {
            Some(i) => Ok((Some(found.swap_remove(i)), "the first GPU".into())),
            None if found.is_empty() => Ok((None, "no GPU found, so the CPU engine".into())),
            None => Ok((None, format!("no GPU found (only the software adapter {names}, slower than the CPU engine), so the CPU engine"))),
        },
        Device::Gpu if found.is_empty() => Err(Error::Device(
            "no graphics adapter was found; install a Vulkan driver (Debian: mesa-vulkan-drivers) or use --device cpu".into(),
        )),
        Device::Gpu => Ok((Some(found.swap_remove(0)), "asked for".into())),
        Device::Named(name) => match found.iter().position(|a| a.name.to_lowercase().contains(&name.to_lowercase())) {
            Some(i) => Ok((Some(found.swap_remove(i)), format!("asked for `{name}`"))),
            None => Err(Error::Device(format!("no adapter's name contains `{name}`; found: {names}; `auto`, `cpu` and `gpu` work too"))),
        },
        Device::Cpu => Ok((None, "asked for".into())),
    }
}
