//! Textures that hold copies of views, for variants that read texels. Where a copy is needed is found at load.

use crate::plan::schedule::Schedule;
use crate::plan::variant::TEXTURE_WIDTH;
use crate::plan::{Access, Command, View};
use std::collections::HashMap;

/// What is copied: slot, first element, elements, floats in a texel.
type Key = (usize, usize, usize, usize);

/// One texture.
#[derive(Debug)]
struct Texels {
    key: Key,
    texture: wgpu::Texture,
}

/// All textures of an engine.
#[derive(Debug, Default)]
pub(super) struct Mirrors {
    list: Vec<Texels>,
    found: HashMap<Key, usize>,
    /// Those that hold what their views hold, at the place of a phase that is being recorded.
    fresh: Vec<bool>,
}

impl Mirrors {
    /// No variant reads texels.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Begins a phase: nothing is known of the textures' content.
    pub(super) fn begin_phase(&mut self) {
        self.fresh.fill(false);
    }

    /// The texture of a view with `floats` in a texel, made when there is none.
    pub(super) fn texture(&mut self, device: &wgpu::Device, schedule: &Schedule, view: &View, floats: usize) -> usize {
        let key = (schedule.slot(view), view.offset, view.len, floats);
        if let Some(&index) = self.found.get(&key) {
            return index;
        }
        let texels = (view.len / floats) as u32;
        // llvmpipe compiles shaders anew for sides that are powers of two
        let height = texels.div_ceil(TEXTURE_WIDTH).max(3);
        let height = if height.is_power_of_two() { height + 1 } else { height };
        let texture = device.create_texture(&wgpu::TextureDescriptor {
            label: Some("texels"),
            size: wgpu::Extent3d { width: TEXTURE_WIDTH, height, depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: if floats == 4 { wgpu::TextureFormat::Rgba32Float } else { wgpu::TextureFormat::R32Float },
            usage: wgpu::TextureUsages::TEXTURE_BINDING | wgpu::TextureUsages::COPY_DST,
            view_formats: &[],
        });
        self.found.insert(key, self.list.len());
        self.list.push(Texels { key, texture });
        self.fresh.push(false);
        self.list.len() - 1
    }

    /// What a shader sees.
    pub(super) fn view(&self, index: usize) -> wgpu::TextureView {
        self.list[index].texture.create_view(&wgpu::TextureViewDescriptor::default())
    }

    /// Those of `textures` that must be copied before the next command.
    pub(super) fn stale(&mut self, textures: &[usize]) -> Vec<usize> {
        let mut stale = Vec::new();
        for &t in textures {
            if !std::mem::replace(&mut self.fresh[t], true) {
                stale.push(t);
            }
        }
        stale
    }

    /// Notes what a command writes.
    pub(super) fn written(&mut self, schedule: &Schedule, command: &Command) {
        for (binding, view) in command.kernel.bindings.iter().zip(&command.views) {
            if binding.access != Access::Read {
                let slot = schedule.slot(view);
                self.list.iter().zip(&mut self.fresh).filter(|(t, _)| t.key.0 == slot).for_each(|(_, fresh)| *fresh = false);
            }
        }
    }

    /// Records the copy of a view to its texture: whole rows of texels, then the rest.
    pub(super) fn copy(&self, encoder: &mut wgpu::CommandEncoder, slots: &[wgpu::Buffer], index: usize) {
        let Texels { key: (slot, offset, len, floats), texture } = &self.list[index];
        let (texels, bytes) = ((len / floats) as u32, 4 * *floats as u64);
        let (rows, rest) = (texels / TEXTURE_WIDTH, texels % TEXTURE_WIDTH);
        let mut part = |first_row: u32, width: u32, height: u32| {
            let offset = 4 * *offset as u64 + u64::from(first_row) * u64::from(TEXTURE_WIDTH) * bytes;
            let layout = wgpu::TexelCopyBufferLayout { offset, bytes_per_row: Some(TEXTURE_WIDTH * bytes as u32), rows_per_image: None };
            let origin = wgpu::Origin3d { x: 0, y: first_row, z: 0 };
            encoder.copy_buffer_to_texture(
                wgpu::TexelCopyBufferInfo { buffer: &slots[*slot], layout },
                wgpu::TexelCopyTextureInfo { origin, ..texture.as_image_copy() },
                wgpu::Extent3d { width, height, depth_or_array_layers: 1 },
            );
        };
        if rows > 0 {
            part(0, TEXTURE_WIDTH, rows);
        }
        if rest > 0 {
            part(rows, rest, 1);
        }
    }
}
