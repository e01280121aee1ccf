// For matmul_texels.wgsl: any width of the outputs, a texel holds one float.

// Elements first .. first + 4; those from `live` on are zero.
fn four_outputs(t: texture_2d<f32>, first: u32, live: u32) -> vec4<f32> {
    let v = vec4<f32>(texel(t, first).x, texel(t, first + 1u).x, texel(t, first + 2u).x, texel(t, first + 3u).x);
    return select(vec4<f32>(), v, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(live));
}

@group(0) @binding(4) var<storage, read_write> y: array<f32>;    // [B, outputs]

fn store_y(row: u32, column: u32, v: vec4<f32>) {
    for (var c = 0u; c < 4u; c++) {
        if (column + c < layer.outputs) {
            y[row * layer.outputs + column + c] = v[c];
        }
    }
}
