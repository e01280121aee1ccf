// A linear layer with packed weights, for prediction.
//   packed_matmul  y[b, o] = act(scale[o] * sum_i x[b, i] (code[o, i] + offset) + bias[o])
// Each row of weights begins on a word (eight codes of four bits). An invocation keeps a tile of 4 x 4
// results and reads one word of four rows at a time: an eighth of the weights' bytes.

struct PackedMatmulParams {
    inputs: u32,
    outputs: u32,
    relu: u32,
    bits: u32,
    words: u32,    // of a row of weights
    matrix: u32,   // 1: one scale for the whole matrix
    offset: f32,
}
@group(0) @binding(0) var<uniform> layer: PackedMatmulParams;
@group(0) @binding(1) var<storage, read> x: array<f32>;        // [B, inputs]
@group(0) @binding(2) var<storage, read> codes: array<u32>;    // [outputs, words]
@group(0) @binding(3) var<storage, read> scales: array<f32>;   // [outputs] or [1]
@group(0) @binding(4) var<storage, read> bias: array<f32>;     // [outputs]
@group(0) @binding(5) var<storage, read_write> y: array<f32>;  // [B, outputs]

@compute @workgroup_size(8, 8)
fn packed_matmul(@builtin(global_invocation_id) id: vec3<u32>) {
    let o0 = id.x * 4u;
    let b0 = id.y * 4u;
    if (o0 >= layer.outputs || b0 >= step.batch) {
        return;
    }
    let per_word = 32u / layer.bits;
    let ob = min(vec4<u32>(o0, o0 + 1u, o0 + 2u, o0 + 3u), vec4<u32>(layer.outputs - 1u)) * layer.words;
    let bb = min(vec4<u32>(b0, b0 + 1u, b0 + 2u, b0 + 3u), vec4<u32>(step.batch - 1u)) * layer.inputs;
    var s0 = vec4<f32>();
    var s1 = vec4<f32>();
    var s2 = vec4<f32>();
    var s3 = vec4<f32>();
    for (var w = 0u; w < layer.words; w++) {
        let word = vec4<u32>(codes[ob.x + w], codes[ob.y + w], codes[ob.z + w], codes[ob.w + w]);
        let count = min(per_word, layer.inputs - w * per_word);
        for (var j = 0u; j < count; j++) {
            let i = w * per_word + j;
            let v = vec4<f32>(
                code_at(word.x, j, layer.bits), code_at(word.y, j, layer.bits),
                code_at(word.z, j, layer.bits), code_at(word.w, j, layer.bits)) + layer.offset;
            s0 += x[bb.x + i] * v;
            s1 += x[bb.y + i] * v;
            s2 += x[bb.z + i] * v;
            s3 += x[bb.w + i] * v;
        }
    }
    let sums = array<vec4<f32>, 4>(s0, s1, s2, s3);
    for (var r = 0u; r < 4u; r++) {
        for (var c = 0u; c < 4u; c++) {
            let o = o0 + c;
            if (b0 + r < step.batch && o < layer.outputs) {
                let v = sums[r][c] * scales[select(o, 0u, layer.matrix != 0u)] + bias[o];
                // Keeps NaN, unlike max(v, 0).
                y[(b0 + r) * layer.outputs + o] = select(v, 0.0, layer.relu != 0u && v <= 0.0);
            }
        }
    }
}
