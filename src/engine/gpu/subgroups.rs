//! How large subgroups are.

/// The smallest and the largest subgroup of an adapter. wgpu says 4 and 64 of every adapter of Metal, which has no question for
/// it; Apple's own GPUs have 32 (gpuweb/gpuweb#6240).
pub(super) fn sizes(info: &wgpu::AdapterInfo) -> (u32, u32) {
    if info.backend == wgpu::Backend::Metal && info.name.starts_with("Apple ") {
        return (32, 32);
    }
    (info.subgroup_min_size, info.subgroup_max_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_apples_own_gpus_are_known_better() {
        let named = |backend, name: &str| {
            let info = wgpu::AdapterInfo::new(wgpu::DeviceType::IntegratedGpu, backend);
            sizes(&wgpu::AdapterInfo { name: name.into(), subgroup_min_size: 4, subgroup_max_size: 64, ..info })
        };
        assert_eq!(named(wgpu::Backend::Metal, "Apple M2 Pro"), (32, 32));
        assert_eq!(named(wgpu::Backend::Metal, "AMD Radeon Pro 5500M"), (4, 64));
        assert_eq!(named(wgpu::Backend::Vulkan, "Apple M2 Pro (G14S B1)"), (4, 64));
    }
}
