//! Features that wgpu calls experimental. A device has them only when a text that was asked for needs them.

use crate::plan::Variant;

const COOPERATIVE: wgpu::Features = wgpu::Features::SHADER_F16.union(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);

/// Sides of the cooperative matrices with f16 operands and f32 sums that an adapter has.
pub(super) fn cooperative(adapter: &wgpu::Adapter) -> &'static [u32] {
    use wgpu::CooperativeScalarType::{F16, F32};
    let found = if adapter.features().contains(COOPERATIVE) { adapter.cooperative_matrix_properties() } else { Vec::new() };
    let has = |side: u32| found.iter().any(|p| [p.m_size, p.n_size, p.k_size] == [side; 3] && (p.ab_type, p.cr_type) == (F16, F32));
    match (has(16), has(8)) {
        (true, true) => &[16, 8],
        (true, false) => &[16],
        (false, true) => &[8],
        (false, false) => &[],
    }
}

/// What a device must have for these variants, beside what every device is opened with.
pub(super) fn features(picked: &[Option<&'static Variant>]) -> wgpu::Features {
    let cooperative = picked.iter().flatten().any(|v| v.cooperative.is_some());
    if cooperative { COOPERATIVE } else { wgpu::Features::empty() }
}

/// Leave to use those of `features` that are experimental, if there are any.
pub(super) fn leave(features: wgpu::Features) -> wgpu::ExperimentalFeatures {
    if !features.intersects(wgpu::Features::all_experimental_mask()) {
        return wgpu::ExperimentalFeatures::disabled();
    }
    #[expect(
        unsafe_code,
        reason = "the only way to cooperative matrices: wgpu wants it acknowledged that its checks of them may have gaps. Only texts of this crate are compiled with them, and only for those who ask"
    )]
    // SAFETY: the texts stay within their buffers by their own arithmetic; tests run each on every case, with guards behind every buffer.
    unsafe {
        wgpu::ExperimentalFeatures::enabled()
    }
}
