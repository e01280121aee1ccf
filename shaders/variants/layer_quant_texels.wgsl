// Fake quantization of a layer as in layer_quant.wgsl, for software adapters: the layer comes as texels, and an
// invocation makes a row, so that nobody waits for anybody.
// WIDE: four floats in a texel, rows are multiples of four. Else one float in a texel.

struct LayerQuantParams {
    inputs: u32,
    outputs: u32,
    bias_at: u32,
    biases: u32,
    max_code: f32,
}
@group(0) @binding(0) var<uniform> params: LayerQuantParams;
@group(0) @binding(1) var layer: texture_2d<f32>;                      // [outputs, inputs], zeros, [outputs]
@group(0) @binding(2) var<storage, read_write> scales: array<f32>;     // [outputs]
@group(0) @binding(3) var<storage, read_write> quantized: array<f32>;  // as layer

fn largest(v: vec4<f32>) -> u32 {
    return max(max(abs_bits(v.x), abs_bits(v.y)), max(abs_bits(v.z), abs_bits(v.w)));
}

fn element(i: u32) -> f32 {
    if (WIDE) {
        return texel(layer, i / 4u)[i % 4u];
    }
    return texel(layer, i).x;
}

@compute @workgroup_size(8)
fn layer_quant_texels(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= arrayLength(&scales)) {
        return;
    }
    let first = row * params.inputs;
    var best = 0u;
    if (WIDE) {
        let fours = opaque(params.inputs / 4u, row);
        for (var i = 0u; i < fours; i++) {
            best = max(best, largest(texel(layer, first / 4u + i)));
        }
    } else {
        for (var i = 0u; i < opaque(params.inputs, row); i++) {
            best = max(best, abs_bits(texel(layer, first + i).x));
        }
    }
    let max_code = params.max_code;
    let scale = scale_of(best, max_code);
    if (WIDE) {
        let fours = opaque(params.inputs / 4u, row);
        for (var i = 0u; i < fours; i++) {
            let v = texel(layer, first / 4u + i);
            let at = first + 4u * i;
            quantized[at] = fake_quant(v.x, scale, max_code);
            quantized[at + 1u] = fake_quant(v.y, scale, max_code);
            quantized[at + 2u] = fake_quant(v.z, scale, max_code);
            quantized[at + 3u] = fake_quant(v.w, scale, max_code);
        }
    } else {
        for (var i = 0u; i < opaque(params.inputs, row); i++) {
            quantized[first + i] = fake_quant(texel(layer, first + i).x, scale, max_code);
        }
    }
    scales[row] = scale;
    let bias = element(params.bias_at + row);
    quantized[params.bias_at + row] = select(bias, fake_quant(bias, scale, max_code), params.biases != 0u);
    // What lies between the weights and the bias.
    for (var i = opaque(params.outputs * params.inputs + row, row); i < params.bias_at; i += params.outputs) {
        quantized[i] = 0.0;
    }
}
