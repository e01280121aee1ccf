//! Makes the dispatches of a schedule: layouts, pipelines, bind groups.

use super::texels::Mirrors;
use crate::plan::schedule::Schedule;
use crate::plan::variant::{Form, Job, SCRATCH, Stage, Variant};
use crate::plan::{Access, Command, Kernel};

/// A command, ready to run.
pub(super) struct Dispatch {
    /// What is dispatched one after another, with the workgroups of each: one, or the stages of a variant.
    pub(super) stages: Vec<(wgpu::ComputePipeline, [u32; 3])>,
    pub(super) group: wgpu::BindGroup,
    pub(super) label: String,
    /// Textures it reads.
    pub(super) textures: Vec<usize>,
    /// Those of them that are copied anew when its phase runs.
    pub(super) stale: Vec<usize>,
}

impl Dispatch {
    pub(super) fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.insert_debug_marker(&self.label);
        for (pipeline, [x, y, z]) in &self.stages {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, &self.group, &[]);
            pass.dispatch_workgroups(*x, *y, *z);
        }
    }
}

pub(super) fn make_buffer(device: &wgpu::Device, label: &str, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
}

fn buffer_entry(binding: u32, ty: wgpu::BufferBindingType) -> wgpu::BindGroupLayoutEntry {
    let ty = wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None };
    wgpu::BindGroupLayoutEntry { binding, visibility: wgpu::ShaderStages::COMPUTE, ty, count: None }
}

pub(super) fn uniform_entry(binding: u32) -> wgpu::BindGroupLayoutEntry {
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

fn commands(schedule: &Schedule) -> impl Iterator<Item = &Command> {
    schedule.plan.phases.iter().flat_map(|p| &p.commands)
}

/// The variant of each command, in the order of phases and commands.
pub(super) fn picked(schedule: &Schedule, pick: &dyn Fn(&Command) -> Option<&'static Variant>) -> Vec<Option<&'static Variant>> {
    commands(schedule).map(pick).collect()
}

/// The scratch buffers of variants, each as large as the command that needs most of it.
pub(super) fn scratch(device: &wgpu::Device, schedule: &Schedule, picked: &[Option<&'static Variant>]) -> Vec<wgpu::Buffer> {
    let mut sizes: Vec<usize> = Vec::new();
    for (command, variant) in commands(schedule).zip(picked) {
        let words = variant.map_or(Vec::new(), |v| v.scratch(command));
        sizes.resize(sizes.len().max(words.len()), 0);
        sizes.iter_mut().zip(words).for_each(|(size, words)| *size = (*size).max(words));
    }
    let buffer = |(i, &words): (usize, &usize)| make_buffer(device, &format!("scratch {i}"), 4 * words as u64, wgpu::BufferUsages::STORAGE);
    sizes.iter().enumerate().map(buffer).collect()
}

/// The pipelines of a kernel or variant, and what they bind.
struct Made {
    name: &'static str,
    pipelines: Vec<wgpu::ComputePipeline>,
    layout: wgpu::BindGroupLayout,
}

/// Makes the dispatches of a schedule; pipelines are made once for each kernel or variant.
pub(super) struct Loader<'a> {
    pub(super) device: &'a wgpu::Device,
    pub(super) schedule: &'a Schedule,
    pub(super) slots: &'a [wgpu::Buffer],
    pub(super) params: &'a wgpu::Buffer,
    pub(super) step_layout: &'a wgpu::BindGroupLayout,
    pub(super) scratch: &'a [wgpu::Buffer],
}

impl Loader<'_> {
    /// `picked`: the variant of each command.
    pub(super) fn phases(&self, mirrors: &mut Mirrors, picked: &[Option<&'static Variant>]) -> Vec<Vec<Dispatch>> {
        let mut made: Vec<Made> = Vec::new();
        let mut offset = 0;
        let mut phases = Vec::new();
        let mut picked = picked.iter();
        for phase in &self.schedule.plan.phases {
            mirrors.begin_phase();
            let mut list = Vec::new();
            for (command, &variant) in phase.commands.iter().zip(picked.by_ref()) {
                let name = variant.map_or(command.kernel.name, |v| v.name);
                let known = made.iter().position(|m| m.name == name);
                let index = known.unwrap_or_else(|| {
                    made.push(self.make(name, command.kernel, variant));
                    made.len() - 1
                });
                let Made { pipelines, layout, .. } = &made[index];
                let bound: Vec<Option<usize>> = (0..command.views.len())
                    .map(|i| form(variant, i).floats().map(|n| mirrors.texture(self.device, self.schedule, &command.views[i], n)))
                    .collect();
                let scratch = &self.scratch[..variant.and_then(|v| v.stages).map_or(0, |s| s.scratch.len())];
                let group = self.group(layout, offset, command, mirrors, &bound, scratch);
                offset += command.params.len().next_multiple_of(256) as u64;
                let textures: Vec<usize> = bound.into_iter().flatten().collect();
                let stale = mirrors.stale(&textures);
                mirrors.written(self.schedule, command);
                let stages = pipelines.iter().cloned().zip(grids(command, variant)).collect();
                list.push(Dispatch { stages, group, label: command.label.clone(), textures, stale });
            }
            phases.push(list);
        }
        phases
    }

    fn make(&self, name: &'static str, kernel: &'static Kernel, variant: Option<&'static Variant>) -> Made {
        let mut entries = vec![uniform_entry(0)];
        for (i, binding) in kernel.bindings.iter().enumerate() {
            let read_only = binding.access == Access::Read;
            entries.push(match form(variant, i) {
                Form::Storage => buffer_entry(i as u32 + 1, wgpu::BufferBindingType::Storage { read_only }),
                Form::Texels | Form::Texels4 => texture_entry(i as u32 + 1),
            });
        }
        let scratch = variant.and_then(|v| v.stages).map_or(0, |s| s.scratch.len() as u32);
        entries.extend((0..scratch).map(|i| buffer_entry(SCRATCH + i, wgpu::BufferBindingType::Storage { read_only: false })));
        let layout = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(name), entries: &entries });
        let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(name),
            bind_group_layouts: &[Some(&layout), Some(self.step_layout)],
            immediate_size: 0,
        });
        let pipeline = |entry: &str, text: String| {
            let source = wgpu::ShaderSource::Wgsl(text.into());
            let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some(kernel.op), source });
            self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(name),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some(entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // variants write what they read there
                    zero_initialize_workgroup_memory: variant.is_none(),
                    ..Default::default()
                },
                cache: None,
            })
        };
        let pipelines = match variant {
            None => vec![pipeline(kernel.name, kernel.wgsl())],
            Some(v) => v.entries().into_iter().zip(v.texts()).map(|(entry, text)| pipeline(entry, text)).collect(),
        };
        Made { name, pipelines, layout }
    }

    /// `bound`: the texture of each view that is bound as one; `scratch`: the buffers that follow the views.
    fn group(
        &self,
        layout: &wgpu::BindGroupLayout,
        params_offset: u64,
        command: &Command,
        mirrors: &Mirrors,
        bound: &[Option<usize>],
        scratch: &[wgpu::Buffer],
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
        let shared = scratch.iter().enumerate();
        entries.extend(shared.map(|(i, b)| wgpu::BindGroupEntry { binding: SCRATCH + i as u32, resource: b.as_entire_binding() }));
        self.device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries })
    }
}

fn form(variant: Option<&Variant>, binding: usize) -> Form {
    variant.map_or(Form::Storage, |v| v.forms[binding])
}

/// Workgroups of each dispatch of a command.
fn grids(command: &Command, variant: Option<&Variant>) -> Vec<[u32; 3]> {
    let Some(variant) = variant else { return vec![command.grid] };
    let job = Job::of(command);
    let (before, behind) = variant.around();
    let grid = |stage: &Stage| (stage.grid)(&job);
    before.iter().map(grid).chain([(variant.grid)(&job)]).chain(behind.iter().map(grid)).collect()
}
