//! The GPU engine: the only file of the library that names wgpu. Pipelines, buffers and bind groups
//! are made at load; a step is one encoder, one compute pass, one submission.

use super::{Engine, Local};
use crate::error::{Error, Result};
use crate::plan::schedule::{Limits, Schedule};
use crate::plan::variant::{self, Choice, Form, Traits, Variant};
use crate::plan::{Access, Command, Kernel, StepUniform, View};
use std::collections::VecDeque;
use texels::Mirrors;

mod texels;

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
        if features.contains(wgpu::Features::SUBGROUP) {
            names.push(format!("subgroups {}..{}", info.subgroup_min_size, info.subgroup_max_size));
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
                subgroups: features.contains(wgpu::Features::SUBGROUP).then_some((info.subgroup_min_size, info.subgroup_max_size)),
                max_texture_side: limits.max_texture_dimension_2d,
            },
            adapter,
        }
    }

    /// True for llvmpipe, SwiftShader, WARP and their like.
    pub fn is_software(&self) -> bool {
        self.kind == "software"
    }
}

/// All adapters, real GPUs first.
pub async fn adapters() -> Vec<GpuAdapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    let instance = wgpu::Instance::new(descriptor);
    let mut found: Vec<GpuAdapter> = if cfg!(target_arch = "wasm32") {
        let options = wgpu::RequestAdapterOptions { power_preference: wgpu::PowerPreference::HighPerformance, ..Default::default() };
        instance.request_adapter(&options).await.ok().into_iter().map(GpuAdapter::new).collect()
    } else {
        instance.enumerate_adapters(wgpu::Backends::PRIMARY).await.into_iter().map(GpuAdapter::new).collect()
    };
    let rank = |kind| ["discrete", "integrated", "virtual", "other", "software"].iter().position(|k| *k == kind);
    found.sort_by_key(|a| rank(a.kind));
    found
}

struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    grid: [u32; 3],
    label: String,
    /// Textures it reads.
    textures: Vec<usize>,
    /// Those of them that are copied anew when its phase runs.
    stale: Vec<usize>,
}

/// A schedule on a GPU.
pub struct GpuEngine {
    device: wgpu::Device,
    queue: wgpu::Queue,
    schedule: Schedule,
    slots: Vec<wgpu::Buffer>,
    mirrors: Mirrors,
    phases: Vec<Vec<Dispatch>>,
    step: wgpu::Buffer,
    step_group: wgpu::BindGroup,
    belt: wgpu::util::StagingBelt,
    encoder: Option<wgpu::CommandEncoder>,
    in_flight: VecDeque<wgpu::SubmissionIndex>,
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
        GpuEngine::load_with(adapter, schedule, Choice::Best).await
    }

    /// Like [`GpuEngine::load`], with variants of kernels picked as `choice` says.
    pub async fn load_with(adapter: &GpuAdapter, schedule: Schedule, choice: Choice<'_>) -> Result<GpuEngine> {
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("dqrm"),
            required_limits: adapter.adapter.limits(),
            required_features: adapter.adapter.features() & wgpu::Features::SUBGROUP,
            ..Default::default()
        };
        let opened = adapter.adapter.request_device(&descriptor).await;
        let (device, queue) = opened.map_err(|e| Error::Device(format!("cannot open `{}`: {e}", adapter.name)))?;
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
        let loader = Loader { device: &device, schedule: &schedule, slots: &slots, params: &params, step_layout: &step_layout };
        let phases = loader.phases(&mut mirrors, &|command| variant::choose(&adapter.traits, command, choice));

        validation.pop().await.map_or(Ok(()), |e| Err(device_error("the driver refused the plan")(e)))?;
        memory.pop().await.map_or(Ok(()), |e| {
            Err(device_error("the device has too little memory; use model.max_rows, a smaller batch or --device cpu")(e))
        })?;
        let belt = wgpu::util::StagingBelt::new(device.clone(), STAGING_CHUNK);
        Ok(GpuEngine { device, queue, schedule, slots, mirrors, phases, step, step_group, belt, encoder: None, in_flight: VecDeque::new() })
    }

    fn encoder(&mut self) -> wgpu::CommandEncoder {
        self.encoder.take().unwrap_or_else(|| self.device.create_command_encoder(&Default::default()))
    }

    fn stage(&mut self, encoder: &mut wgpu::CommandEncoder, target: &wgpu::Buffer, offset: u64, bytes: &[u8]) {
        if let Some(size) = wgpu::BufferSize::new(bytes.len() as u64) {
            self.belt.write_buffer(encoder, target, offset, size).copy_from_slice(bytes);
        }
    }

    fn submit(&mut self, encoder: wgpu::CommandEncoder) -> wgpu::SubmissionIndex {
        self.belt.finish_and_recall_on_submit(&encoder);
        let index = self.queue.submit([encoder.finish()]);
        self.in_flight.push_back(index.clone());
        index
    }

    /// Waits until few submissions are under way. Does nothing in the browser, which keeps its own pace.
    fn throttle(&mut self) -> Result<()> {
        if self.in_flight.len() > IN_FLIGHT {
            let oldest = self.in_flight.pop_front();
            self.poll(wgpu::PollType::Wait { submission_index: oldest, timeout: None })?;
        }
        self.poll(wgpu::PollType::Poll)
    }

    fn poll(&self, how: wgpu::PollType) -> Result<()> {
        self.device.poll(how).map(|_| ()).map_err(|e| Error::Device(format!("the device stopped answering: {e}")))
    }

    /// Runs commands; `alone` makes all copies they read, whatever came before.
    fn dispatch(&mut self, list: &[(usize, std::ops::Range<usize>)], step: &StepUniform, alone: bool) -> Result<()> {
        let mut encoder = self.encoder();
        let target = self.step.clone();
        self.stage(&mut encoder, &target, 0, bytemuck::bytes_of(step));
        let dispatches: Vec<&Dispatch> = list.iter().flat_map(|(phase, range)| &self.phases[*phase][range.clone()]).collect();
        let copies = |d: &Dispatch| !if alone { &d.textures } else { &d.stale }.is_empty();
        let mut rest = dispatches.as_slice();
        while let Some(first) = rest.first() {
            for &texture in if alone { &first.textures } else { &first.stale } {
                self.mirrors.copy(&mut encoder, &self.slots, texture);
            }
            let count = 1 + rest[1..].iter().position(|d| copies(d)).unwrap_or(rest.len() - 1);
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_bind_group(1, &self.step_group, &[]);
            for d in &rest[..count] {
                pass.set_pipeline(&d.pipeline);
                pass.set_bind_group(0, &d.group, &[]);
                pass.insert_debug_marker(&d.label);
                pass.dispatch_workgroups(d.grid[0], d.grid[1], d.grid[2]);
            }
            rest = &rest[count..];
        }
        self.submit(encoder);
        self.throttle()
    }
}

fn make_buffer(device: &wgpu::Device, label: &str, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
}

fn buffer_entry(binding: u32, ty: wgpu::BufferBindingType) -> wgpu::BindGroupLayoutEntry {
    let ty = wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None };
    wgpu::BindGroupLayoutEntry { binding, visibility: wgpu::ShaderStages::COMPUTE, ty, count: None }
}

fn uniform_entry(binding: u32) -> wgpu::BindGroupLayoutEntry {
    buffer_entry(binding, wgpu::BufferBindingType::Uniform)
}

fn texture_entry(binding: u32) -> wgpu::BindGroupLayoutEntry {
    let ty = wgpu::BindingType::Texture {
        sample_type: wgpu::TextureSampleType::Float { filterable: false },
        view_dimension: wgpu::TextureViewDimension::D2,
        multisampled: false,
    };
    wgpu::BindGroupLayoutEntry { binding, visibility: wgpu::ShaderStages::COMPUTE, ty, count: None }
}

/// Picks the variant of a command.
type Pick<'a> = &'a dyn Fn(&Command) -> Option<&'static Variant>;

/// Makes the dispatches of a schedule; one pipeline for each kernel or variant.
struct Loader<'a> {
    device: &'a wgpu::Device,
    schedule: &'a Schedule,
    slots: &'a [wgpu::Buffer],
    params: &'a wgpu::Buffer,
    step_layout: &'a wgpu::BindGroupLayout,
}

impl Loader<'_> {
    fn phases(&self, mirrors: &mut Mirrors, pick: Pick<'_>) -> Vec<Vec<Dispatch>> {
        let mut pipelines: Vec<(&'static str, wgpu::ComputePipeline, wgpu::BindGroupLayout)> = Vec::new();
        let mut offset = 0;
        let mut phases = Vec::new();
        for phase in &self.schedule.plan.phases {
            mirrors.begin_phase();
            let mut list = Vec::new();
            for command in &phase.commands {
                let variant = pick(command);
                let name = variant.map_or(command.kernel.name, |v| v.name);
                let known = pipelines.iter().position(|p| p.0 == name);
                let index = known.unwrap_or_else(|| {
                    let (pipeline, layout) = self.pipeline(command.kernel, variant);
                    pipelines.push((name, pipeline, layout));
                    pipelines.len() - 1
                });
                let (_, pipeline, layout) = &pipelines[index];
                let bound: Vec<Option<usize>> = (0..command.views.len())
                    .map(|i| form(variant, i).floats().map(|n| mirrors.texture(self.device, self.schedule, &command.views[i], n)))
                    .collect();
                let group = self.group(layout, offset, command, mirrors, &bound);
                offset += command.params.len().next_multiple_of(256) as u64;
                let textures: Vec<usize> = bound.into_iter().flatten().collect();
                let stale = mirrors.stale(&textures);
                mirrors.written(self.schedule, command);
                let grid = variant.map_or(command.grid, |v| (v.grid)(&variant::Job::of(command)));
                list.push(Dispatch { pipeline: pipeline.clone(), group, grid, label: command.label.clone(), textures, stale });
            }
            phases.push(list);
        }
        phases
    }

    fn pipeline(&self, kernel: &'static Kernel, variant: Option<&'static Variant>) -> (wgpu::ComputePipeline, wgpu::BindGroupLayout) {
        let mut entries = vec![uniform_entry(0)];
        for (i, binding) in kernel.bindings.iter().enumerate() {
            let read_only = binding.access == Access::Read;
            entries.push(match form(variant, i) {
                Form::Storage => buffer_entry(i as u32 + 1, wgpu::BufferBindingType::Storage { read_only }),
                Form::Texels | Form::Texels4 => texture_entry(i as u32 + 1),
            });
        }
        let (name, entry) = variant.map_or((kernel.name, kernel.name), |v| (v.name, v.entry));
        let layout = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(name), entries: &entries });
        let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(name),
            bind_group_layouts: &[Some(&layout), Some(self.step_layout)],
            immediate_size: 0,
        });
        let text = variant.map_or_else(|| kernel.wgsl(), Variant::wgsl);
        let module = self
            .device
            .create_shader_module(wgpu::ShaderModuleDescriptor { label: Some(kernel.op), source: wgpu::ShaderSource::Wgsl(text.into()) });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(entry),
            compilation_options: Default::default(),
            cache: None,
        });
        (pipeline, layout)
    }

    /// `bound`: the texture of each view that is bound as one.
    fn group(
        &self,
        layout: &wgpu::BindGroupLayout,
        params_offset: u64,
        command: &Command,
        mirrors: &Mirrors,
        bound: &[Option<usize>],
    ) -> wgpu::BindGroup {
        let range =
            |buffer, offset, size| wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: wgpu::BufferSize::new(size) });
        let textures: Vec<Option<wgpu::TextureView>> = bound.iter().map(|t| t.map(|t| mirrors.view(t))).collect();
        let params_len = command.params.len().next_multiple_of(16) as u64;
        let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: range(self.params, params_offset, params_len) }];
        for (i, (view, texture)) in command.views.iter().zip(&textures).enumerate() {
            let buffer = &self.slots[self.schedule.slot(view)];
            let words = || range(buffer, 4 * view.offset as u64, 4 * view.len as u64);
            let resource = texture.as_ref().map_or_else(words, wgpu::BindingResource::TextureView);
            entries.push(wgpu::BindGroupEntry { binding: i as u32 + 1, resource });
        }
        self.device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries })
    }
}

fn form(variant: Option<&Variant>, binding: usize) -> Form {
    variant.map_or(Form::Storage, |v| v.forms[binding])
}

impl Engine for GpuEngine {
    fn write(&mut self, view: View, words: &[u32]) -> Result<()> {
        let mut encoder = self.encoder();
        let target = self.slots[self.schedule.slot(&view)].clone();
        self.stage(&mut encoder, &target, 4 * view.offset as u64, bytemuck::cast_slice(words));
        if words.len() as u64 * 4 >= STAGING_CHUNK {
            self.submit(encoder); // a large upload must not pile up staging memory
            self.throttle()?;
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

    fn read(&mut self, view: View) -> Local<'_, Result<Vec<u32>>> {
        Box::pin(async move {
            let size = 4 * view.len as u64;
            let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
            let landing = make_buffer(&self.device, "readback", size, usage);
            let mut encoder = self.encoder();
            encoder.copy_buffer_to_buffer(&self.slots[self.schedule.slot(&view)], 4 * view.offset as u64, &landing, 0, size);
            self.submit(encoder);
            let (sender, receiver) = futures_channel::oneshot::channel();
            landing.map_async(wgpu::MapMode::Read, .., move |outcome| {
                let _ = sender.send(outcome); // the receiver lives until the end of this function
            });
            self.poll(wgpu::PollType::wait_indefinitely())?;
            self.in_flight.clear();
            let lost = |text: String| Error::Device(format!("reading back from the device failed: {text}"));
            receiver.await.map_err(|e| lost(e.to_string()))?.map_err(|e| lost(e.to_string()))?;
            let words = bytemuck::pod_collect_to_vec(&landing.get_mapped_range(..).map_err(|e| lost(e.to_string()))?);
            landing.unmap();
            Ok(words)
        })
    }
}
