//! The GPU engine: with its parts the only file of the library that names wgpu. Pipelines, buffers and bind groups
//! are made at load; a step is one encoder and one submission, and one compute pass unless copies to texels
//! come between.

use super::{Clock, Engine, Reading, TimedRun};
use crate::error::{Error, Result};
use crate::plan::schedule::{Limits, Schedule};
use crate::plan::variant::{self, Choice, Traits};
use crate::plan::{StepUniform, View};
use load::{Dispatch, Loader, make_buffer, uniform_entry};
use std::collections::VecDeque;
use texels::Mirrors;

#[cfg(target_arch = "wasm32")]
mod browser;
mod compile;
mod experimental;
mod faults;
mod landing;
mod load;
mod subgroups;
mod texels;

pub use compile::{Message, TRANSLATORS};
use faults::Faults;
use landing::{Arriving, Landings};

mod profile;
use profile::Stopwatch;

/// Bytes of one chunk of the staging ring that carries what the host writes.
const STAGING_CHUNK: u64 = 1 << 20;
/// Steps that may be under way before the host waits for the oldest.
const IN_FLIGHT: usize = 3;

/// An adapter and what it says of itself.
#[derive(Debug)]
pub struct GpuAdapter {
    adapter: wgpu::Adapter,
    /// Name of the adapter.
    pub name: String,
    /// `Vulkan`, `Metal` ….
    pub backend: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub kind: &'static str,
    /// Driver name and version.
    pub driver: String,
    /// Limits for schedules.
    pub limits: Limits,
    /// Workgroup memory, in bytes.
    pub max_workgroup_storage: u32,
    /// Features that matter here.
    pub features: Vec<String>,
    /// What variants of kernels are chosen by.
    pub traits: Traits,
}

impl GpuAdapter {
    fn new(adapter: wgpu::Adapter) -> GpuAdapter {
        let info = adapter.get_info();
        let (limits, features) = (adapter.limits(), adapter.features());
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "other",
        };
        let mut names = Vec::new();
        let sizes = subgroups::sizes(&info);
        if features.contains(wgpu::Features::SUBGROUP) {
            names.push(format!("subgroups {}..{}", sizes.0, sizes.1));
        }
        for (feature, name) in [
            (wgpu::Features::SHADER_F16, "f16"),
            (wgpu::Features::TIMESTAMP_QUERY, "timestamps"),
            (wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, "cooperative matrix"),
        ] {
            if features.contains(feature) {
                names.push(name.to_string());
            }
        }
        GpuAdapter {
            name: info.name.clone(),
            backend: format!("{:?}", info.backend),
            kind,
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
            limits: Limits {
                adapter: info.name,
                max_binding: limits.max_storage_buffer_binding_size,
                max_buffer: limits.max_buffer_size,
                max_storage_buffers: limits.max_storage_buffers_per_shader_stage as usize,
                max_groups: limits.max_compute_workgroups_per_dimension,
                max_invocations: limits.max_compute_invocations_per_workgroup,
            },
            max_workgroup_storage: limits.max_compute_workgroup_storage_size,
            features: names,
            traits: Traits {
                software: info.device_type == wgpu::DeviceType::Cpu,
                subgroups: features.contains(wgpu::Features::SUBGROUP).then_some(sizes),
                max_texture_side: limits.max_texture_dimension_2d,
                cooperative: experimental::cooperative(&adapter),
            },
            adapter,
        }
    }

    /// Name, backend and driver, as far as they are known: `llvmpipe (Vulkan, Mesa 22.3.6)`.
    pub fn title(&self) -> String {
        let parts = [self.backend.as_str(), self.driver.as_str()].into_iter().filter(|part| !part.is_empty());
        format!("{} ({})", self.name, parts.collect::<Vec<_>>().join(", "))
    }

    /// True for llvmpipe, SwiftShader, WARP and their like.
    pub fn is_software(&self) -> bool {
        self.kind == "software"
    }

    /// A device with all that the adapter allows, and these features.
    async fn open(&self, features: wgpu::Features) -> Result<(Held, wgpu::Queue)> {
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("dqrm"),
            required_limits: self.adapter.limits(),
            required_features: features | self.adapter.features() & wgpu::Features::SUBGROUP,
            experimental_features: experimental::leave(features),
            ..Default::default()
        };
        let failed = |e: &dyn std::fmt::Display| Error::Device(format!("cannot open `{}`: {e}", self.name));
        #[cfg(not(target_arch = "wasm32"))]
        let adapter = &self.adapter;
        #[cfg(target_arch = "wasm32")]
        let adapter = browser::adapter().await.ok_or_else(|| failed(&"the browser gives no adapter any more; reload the page"))?;
        let (device, queue) = adapter.request_device(&descriptor).await.map_err(|e| failed(&e))?;
        Ok((Held(device), queue))
    }
}

/// An open device. A browser frees a device's memory when its garbage is collected, which may be much later; so it is told.
struct Held(wgpu::Device);

impl std::ops::Deref for Held {
    type Target = wgpu::Device;

    fn deref(&self) -> &wgpu::Device {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if cfg!(target_arch = "wasm32") {
            self.0.destroy();
        }
    }
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    wgpu::Instance::new(descriptor)
}

/// All adapters, real GPUs first; in a browser the one that it gives.
pub async fn adapters() -> Vec<GpuAdapter> {
    #[cfg(target_arch = "wasm32")]
    let mut found: Vec<GpuAdapter> = browser::named().await.into_iter().collect();
    #[cfg(not(target_arch = "wasm32"))]
    let mut found: Vec<GpuAdapter> =
        instance().enumerate_adapters(wgpu::Backends::PRIMARY).await.into_iter().map(GpuAdapter::new).collect();
    let rank = |kind| ["discrete", "integrated", "virtual", "other", "software"].iter().position(|k| *k == kind);
    found.sort_by_key(|a| rank(a.kind));
    found
}

/// A schedule on a GPU.
pub struct GpuEngine {
    device: Held,
    queue: wgpu::Queue,
    faults: Faults,
    schedule: Schedule,
    slots: Vec<wgpu::Buffer>,
    mirrors: Mirrors,
    phases: Vec<Vec<Dispatch>>,
    step: wgpu::Buffer,
    step_group: wgpu::BindGroup,
    belt: wgpu::util::StagingBelt,
    encoder: Option<wgpu::CommandEncoder>,
    in_flight: VecDeque<wgpu::SubmissionIndex>,
    stopwatch: Option<Stopwatch>,
    landings: Landings,
}

impl std::fmt::Debug for GpuEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GpuEngine({} buffers, {} phases)", self.slots.len(), self.phases.len())
    }
}

fn device_error(what: &str) -> impl FnOnce(wgpu::Error) -> Error + '_ {
    move |e| Error::Device(format!("{what}: {e}"))
}

impl GpuEngine {
    /// Opens the device and makes buffers, pipelines and bind groups.
    ///
    /// # Errors
    /// When the device cannot be had, memory does not suffice, or the driver refuses a shader.
    pub async fn load(adapter: &GpuAdapter, schedule: Schedule) -> Result<GpuEngine> {
        GpuEngine::load_with(adapter, schedule, Choice::Best, false).await
    }

    /// Like [`GpuEngine::load`], with variants of kernels picked as `choice` says; with `profile` ready for
    /// [`Engine::run_timed`].
    ///
    /// # Errors
    /// As [`GpuEngine::load`].
    pub async fn load_with(adapter: &GpuAdapter, schedule: Schedule, choice: Choice<'_>, profile: bool) -> Result<GpuEngine> {
        let timestamps = if profile { profile::features(&adapter.adapter) } else { wgpu::Features::empty() };
        let picked = load::picked(&schedule, &|command| variant::choose(&adapter.traits, command, choice));
        let (device, queue) = adapter.open(timestamps | experimental::features(&picked)).await?;
        let faults = Faults::watch(&device);
        let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);

        let storage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let slots: Vec<_> = schedule
            .slots
            .iter()
            .enumerate()
            .map(|(i, &len)| make_buffer(&device, &format!("slot {i}"), 4 * len as u64, storage))
            .collect();
        let params = make_buffer(
            &device,
            "params",
            schedule.params.len().max(256) as u64,
            wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
        );
        queue.write_buffer(&params, 0, &schedule.params);
        let step =
            make_buffer(&device, "step", size_of::<StepUniform>() as u64, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST);
        let step_layout =
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some("step"), entries: &[uniform_entry(0)] });
        let step_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("step"),
            layout: &step_layout,
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: step.as_entire_binding() }],
        });
        let mut mirrors = Mirrors::default();
        let scratch = load::scratch(&device, &schedule, &picked);
        let loader =
            Loader { device: &device, schedule: &schedule, slots: &slots, params: &params, step_layout: &step_layout, scratch: &scratch };
        let phases = loader.phases(&mut mirrors, &picked);

        let stopwatch = profile.then(|| Stopwatch::new(&device, &queue, &schedule, adapter.is_software(), mirrors.is_empty()));

        validation.pop().await.map_or(Ok(()), |e| Err(device_error("the driver refused the plan")(e)))?;
        memory.pop().await.map_or(Ok(()), |e| {
            Err(device_error("the device has too little memory; use model.max_rows, a smaller batch or --device cpu")(e))
        })?;
        let belt = wgpu::util::StagingBelt::new(device.clone(), STAGING_CHUNK);
        Ok(GpuEngine {
            device,
            queue,
            faults,
            schedule,
            slots,
            mirrors,
            phases,
            step,
            step_group,
            belt,
            encoder: None,
            in_flight: VecDeque::new(),
            stopwatch,
            landings: Landings::default(),
        })
    }

    fn encoder(&mut self) -> wgpu::CommandEncoder {
        self.encoder.take().unwrap_or_else(|| self.device.create_command_encoder(&Default::default()))
    }

    /// Writes before what `encoder` records from now on. A browser has staging memory of its own, and no mapped buffers for
    /// a device that was lost; every dispatch is submitted at once, so its order is the same.
    fn stage(&mut self, encoder: &mut wgpu::CommandEncoder, target: &wgpu::Buffer, offset: u64, bytes: &[u8]) {
        if cfg!(target_arch = "wasm32") {
            self.queue.write_buffer(target, offset, bytes);
        } else if let Some(size) = wgpu::BufferSize::new(bytes.len() as u64) {
            self.belt.write_buffer(encoder, target, offset, size).copy_from_slice(bytes);
        }
    }

    fn submit(&mut self, encoder: wgpu::CommandEncoder) -> wgpu::SubmissionIndex {
        self.belt.finish_and_recall_on_submit(&encoder);
        self.queue.submit([encoder.finish()])
    }

    /// Counts `submitted` as under way and waits until few are. Does nothing in the browser, which keeps its own pace.
    fn throttle(&mut self, submitted: wgpu::SubmissionIndex) -> Result<()> {
        self.in_flight.push_back(submitted);
        if self.in_flight.len() > IN_FLIGHT {
            let oldest = self.in_flight.pop_front();
            self.poll(wgpu::PollType::Wait { submission_index: oldest, timeout: None })?;
        }
        self.poll(wgpu::PollType::Poll)
    }

    fn poll(&self, how: wgpu::PollType) -> Result<()> {
        self.faults.poll(&self.device, how)
    }

    /// Runs commands; `alone` makes all copies they read, whatever came before.
    fn dispatch(&mut self, list: &[(usize, std::ops::Range<usize>)], step: &StepUniform, alone: bool) -> Result<()> {
        let mut encoder = self.encoder();
        let target = self.step.clone();
        self.stage(&mut encoder, &target, 0, bytemuck::bytes_of(step));
        let mut pass: Option<wgpu::ComputePass<'static>> = None;
        for d in list.iter().flat_map(|(phase, range)| &self.phases[*phase][range.clone()]) {
            let copies = if alone { &d.textures } else { &d.stale };
            if !copies.is_empty() {
                drop(pass.take());
                copies.iter().for_each(|&texture| self.mirrors.copy(&mut encoder, &self.slots, texture));
            }
            let pass = pass.get_or_insert_with(|| {
                let mut begun = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()).forget_lifetime();
                begun.set_bind_group(1, &self.step_group, &[]);
                begun
            });
            d.record(pass);
        }
        drop(pass);
        let submitted = self.submit(encoder);
        self.throttle(submitted)
    }
}

impl Engine for GpuEngine {
    fn write(&mut self, view: View, words: &[u32]) -> Result<()> {
        let mut encoder = self.encoder();
        let target = self.slots[self.schedule.slot(&view)].clone();
        self.stage(&mut encoder, &target, 4 * view.offset as u64, bytemuck::cast_slice(words));
        if words.len() as u64 * 4 >= STAGING_CHUNK {
            let submitted = self.submit(encoder); // a large upload must not pile up staging memory
            self.throttle(submitted)?;
        } else {
            self.encoder = Some(encoder);
        }
        Ok(())
    }

    fn run(&mut self, phases: &[usize], step: &StepUniform) -> Result<()> {
        let list: Vec<_> = phases.iter().map(|&p| (p, 0..self.phases[p].len())).collect();
        self.dispatch(&list, step, false)
    }

    fn run_command(&mut self, phase: usize, command: usize, step: &StepUniform) -> Result<()> {
        self.dispatch(&[(phase, command..command + 1)], step, true)
    }

    fn run_timed(&mut self, phases: &[usize], step: &StepUniform, clock: Clock<'_>) -> Result<TimedRun> {
        self.run_with_stopwatch(phases, step, clock)
    }

    fn begin_read(&mut self, views: &[View]) -> Result<Box<dyn Reading>> {
        let landing = self.landings.take(&self.device, views.iter().map(|view| 4 * view.len as u64).sum());
        let (mut encoder, mut end) = (self.encoder(), 0);
        for view in views {
            let (slot, size) = (&self.slots[self.schedule.slot(view)], 4 * view.len as u64);
            encoder.copy_buffer_to_buffer(slot, 4 * view.offset as u64, &landing, end, size);
            end += size;
        }
        let index = self.submit(encoder);
        Ok(Box::new(Arriving::begin(&self.device, &self.faults, &self.landings, landing, end, index)))
    }
}
