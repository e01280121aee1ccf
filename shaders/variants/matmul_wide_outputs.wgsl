// For matmul_texels.wgsl: the outputs' width is a multiple of four, a texel holds four floats.

fn four_outputs(t: texture_2d<f32>, first: u32, live: u32) -> vec4<f32> {
    return texel(t, first / 4u);
}

@group(0) @binding(4) var<storage, read_write> y4: array<vec4<f32>>;    // [B, outputs]

fn store_y(row: u32, column: u32, v: vec4<f32>) {
    if (column < layer.outputs) {
        y4[(row * layer.outputs + column) / 4u] = v;
    }
}
