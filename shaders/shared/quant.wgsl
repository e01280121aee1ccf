// The only rounding in WGSL; src/quant.rs is its twin. Symmetric, zero point 0, half to even.

fn is_nan_bits(bits: u32) -> bool {
    return (bits & 0x7fffffffu) > 0x7f800000u;
}

// Bits of |x|: their order as integers is the order of the magnitudes, and NaN is the largest.
fn abs_bits(x: f32) -> u32 {
    return bitcast<u32>(x) & 0x7fffffffu;
}

// max(max_abs, 1e-8) / n from the bits of max_abs; NaN stays NaN.
fn scale_of(max_bits: u32, max_code: f32) -> f32 {
    return bitcast<f32>(max(max_bits, 0x322bcc77u)) / max_code;
}

// clamp(round(w / scale), -n - 1, n) * scale; NaN gives NaN.
fn fake_quant(w: f32, scale: f32, max_code: f32) -> f32 {
    let t = w * (1.0 / scale);
    if (is_nan_bits(bitcast<u32>(t))) {
        return t;
    }
    return round(clamp(t, -max_code - 1.0, max_code)) * scale;
}

// clamp(round(w / scale), -n - 1, n); NaN gives 0, so that the result may become an integer.
fn code_of(w: f32, scale: f32, max_code: f32) -> f32 {
    let t = w * (1.0 / scale);
    if (is_nan_bits(bitcast<u32>(t))) {
        return 0.0;
    }
    return round(clamp(t, -max_code - 1.0, max_code));
}
