// Scales of rows and fake quantization as in fake_quant.wgsl, for software adapters: weights come as texels, a row of
// the grid is a group, and nobody waits for anybody.
// WIDE: four floats in a texel, groups are multiples of four. Else one float in a texel.

struct GroupScaleParams {
    group_len: u32,
    max_code: f32,
}
@group(0) @binding(0) var<uniform> group: GroupScaleParams;
@group(0) @binding(1) var weights: texture_2d<f32>;                 // [groups, group_len]
@group(0) @binding(2) var<storage, read_write> scales: array<f32>;  // [groups]

fn largest(v: vec4<f32>) -> u32 {
    return max(max(abs_bits(v.x), abs_bits(v.y)), max(abs_bits(v.z), abs_bits(v.w)));
}

// One invocation a group.
@compute @workgroup_size(8)
fn group_scale_texels(@builtin(global_invocation_id) id: vec3<u32>) {
    let g = id.x;
    if (g >= arrayLength(&scales)) {
        return;
    }
    var best = 0u;
    if (WIDE) {
        let fours = opaque(group.group_len / 4u, g);
        for (var i = 0u; i < fours; i++) {
            best = max(best, largest(texel(weights, g * fours + i)));
        }
    } else {
        for (var i = 0u; i < opaque(group.group_len, g); i++) {
            best = max(best, abs_bits(texel(weights, g * group.group_len + i).x));
        }
    }
    scales[g] = scale_of(best, group.max_code);
}

struct FakeQuantParams {
    len: u32,
    group_len: u32,
    max_code: f32,
}
@group(0) @binding(0) var<uniform> quantize: FakeQuantParams;
@group(0) @binding(1) var values: texture_2d<f32>;                    // [len]
@group(0) @binding(2) var value_scales: texture_2d<f32>;              // [len / group_len], one float in a texel
@group(0) @binding(3) var<storage, read_write> quantized: array<f32>; // [len]

// Four values of group id.y.
@compute @workgroup_size(64)
fn fake_quant_weights_texels(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = 4u * id.x;
    let n = quantize.group_len;
    if (i >= n) {
        return;
    }
    let at = id.y * n + i;
    let scale = texel(value_scales, id.y).x;
    let max_code = quantize.max_code;
    if (WIDE) {
        let v = texel(values, at / 4u);
        quantized[at] = fake_quant(v.x, scale, max_code);
        quantized[at + 1u] = fake_quant(v.y, scale, max_code);
        quantized[at + 2u] = fake_quant(v.z, scale, max_code);
        quantized[at + 3u] = fake_quant(v.w, scale, max_code);
    } else {
        quantized[at] = fake_quant(texel(values, at).x, scale, max_code);
        if (i + 1u < n) {
            quantized[at + 1u] = fake_quant(texel(values, at + 1u).x, scale, max_code);
        }
        if (i + 2u < n) {
            quantized[at + 2u] = fake_quant(texel(values, at + 2u).x, scale, max_code);
        }
        if (i + 3u < n) {
            quantized[at + 3u] = fake_quant(texel(values, at + 3u).x, scale, max_code);
        }
    }
}
