// Fake quantization of one layer of the MLPs, weights and bias together, a scale for each output row.
//   layer_quant  scale[o] = max(max over i of |w[o, i]|, 1e-8) / n
//                q[o, i]  = clamp(round(w[o, i] / scale[o]), -n - 1, n) * scale[o], the bias of row o likewise
// arXiv 2410.20046, section 3.3; `QuantLinear` of the published code.

struct LayerQuantParams {
    inputs: u32,
    outputs: u32,
    bias_at: u32,   // where the bias begins in the layer
    biases: u32,    // 1 when the bias is quantized too, 0 when it is copied
    max_code: f32,
}
@group(0) @binding(0) var<uniform> params: LayerQuantParams;
@group(0) @binding(1) var<storage, read> layer: array<f32>;            // [outputs, inputs], zeros, [outputs]
@group(0) @binding(2) var<storage, read_write> scales: array<f32>;     // [outputs]
@group(0) @binding(3) var<storage, read_write> quantized: array<f32>;  // as layer

var<workgroup> best: array<u32, 64>;

// One workgroup a row.
@compute @workgroup_size(64)
fn layer_quant(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(id, groups);
    let first = row * params.inputs;
    var mine = 0u;
    if (row < params.outputs) {
        for (var i = lane; i < params.inputs; i += 64u) {
            mine = max(mine, abs_bits(layer[first + i]));
        }
    }
    best[lane] = mine;
    for (var half = 32u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            best[lane] = max(best[lane], best[lane + half]);
        }
    }
    workgroupBarrier();
    if (row >= params.outputs) {
        return;
    }
    let scale = scale_of(best[0], params.max_code);
    for (var i = lane; i < params.inputs; i += 64u) {
        quantized[first + i] = fake_quant(layer[first + i], scale, params.max_code);
    }
    if (lane == 0u) {
        scales[row] = scale;
        let bias = layer[params.bias_at + row];
        quantized[params.bias_at + row] = select(bias, fake_quant(bias, scale, params.max_code), params.biases != 0u);
    }
    // What lies between the weights and the bias.
    for (var i = params.outputs * params.inputs + 64u * row + lane; i < params.bias_at; i += 64u * params.outputs) {
        quantized[i] = 0.0;
    }
}
