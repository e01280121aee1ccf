// Fake quantization of MLP weights, once per step.
//   group_scale         scale[g] = max(max over the group of |w|, 1e-8) / n
//   fake_quant_weights  q[i] = clamp(round(w[i] / scale[i / group]), -n - 1, n) * scale[i / group]
// A group is an output row (or the whole matrix); a bias uses the scale of its row.
// arXiv 2410.20046, section 3.3; `QuantLinear` of the published code.

struct GroupScaleParams {
    group_len: u32,
    max_code: f32,
}
@group(0) @binding(0) var<uniform> group: GroupScaleParams;
@group(0) @binding(1) var<storage, read> weights: array<f32>;       // [groups, group_len]
@group(0) @binding(2) var<storage, read_write> scales: array<f32>;  // [groups]

var<workgroup> best: array<u32, 64>;

@compute @workgroup_size(64)
fn group_scale(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = flat_group(id, groups);
    var mine = 0u;
    if (g < arrayLength(&scales)) {
        for (var i = lane; i < group.group_len; i += 64u) {
            mine = max(mine, abs_bits(weights[g * group.group_len + i]));
        }
    }
    best[lane] = mine;
    for (var half = 32u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            best[lane] = max(best[lane], best[lane + half]);
        }
    }
    if (lane == 0u && g < arrayLength(&scales)) {
        scales[g] = scale_of(best[0], group.max_code);
    }
}

struct FakeQuantParams {
    len: u32,
    group_len: u32,
    max_code: f32,
}
@group(0) @binding(0) var<uniform> quantize: FakeQuantParams;
@group(0) @binding(1) var<storage, read> values: array<f32>;          // [len]
@group(0) @binding(2) var<storage, read> value_scales: array<f32>;    // [len / group_len]
@group(0) @binding(3) var<storage, read_write> quantized: array<f32>; // [len]

@compute @workgroup_size(64)
fn fake_quant_weights(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    if (i < quantize.len) {
        quantized[i] = fake_quant(values[i], value_scales[i / quantize.group_len], quantize.max_code);
    }
}
