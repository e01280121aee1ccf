//! Makes the dispatches of a schedule: layouts, pipelines, bind groups.

use super::texels::Mirrors;
use crate::plan::schedule::Schedule;
use crate::plan::variant::{Form, Job, Variant};
use crate::plan::{Access, Command, Kernel};

/// A command, ready to run.
pub(super) struct Dispatch {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) group: wgpu::BindGroup,
    pub(super) grid: [u32; 3],
    pub(super) label: String,
    /// Textures it reads.
    pub(super) textures: Vec<usize>,
    /// Those of them that are copied anew when its phase runs.
    pub(super) stale: Vec<usize>,
}

impl Dispatch {
    pub(super) fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.insert_debug_marker(&self.label);
        pass.dispatch_workgroups(self.grid[0], self.grid[1], self.grid[2]);
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

/// Picks the variant of a command.
pub(super) type Pick<'a> = &'a dyn Fn(&Command) -> Option<&'static Variant>;

/// Makes the dispatches of a schedule; one pipeline for each kernel or variant.
pub(super) struct Loader<'a> {
    pub(super) device: &'a wgpu::Device,
    pub(super) schedule: &'a Schedule,
    pub(super) slots: &'a [wgpu::Buffer],
    pub(super) params: &'a wgpu::Buffer,
    pub(super) step_layout: &'a wgpu::BindGroupLayout,
}

impl Loader<'_> {
    pub(super) fn phases(&self, mirrors: &mut Mirrors, pick: Pick<'_>) -> Vec<Vec<Dispatch>> {
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
                let grid = variant.map_or(command.grid, |v| (v.grid)(&Job::of(command)));
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
            compilation_options: wgpu::PipelineCompilationOptions {
                // variants write what they read there
                zero_initialize_workgroup_memory: variant.is_none(),
                ..Default::default()
            },
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
