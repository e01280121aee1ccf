// For matmul_texels.wgsl: the inputs' width is a multiple of four, a texel holds four floats.

// Elements first .. first + 4.
fn four(t: texture_2d<f32>, first: u32, live: u32) -> vec4<f32> {
    return texel(t, first / 4u);
}

@group(0) @binding(3) var<storage, read_write> dx4: array<vec4<f32>>;   // [B, inputs]
@group(0) @binding(3) var<storage, read_write> dw4: array<vec4<f32>>;   // [outputs, inputs]
@group(0) @binding(4) var<storage, read> gate4: array<vec4<f32>>;       // [B, inputs]

fn store_dx(row: u32, column: u32, v: vec4<f32>) {
    if (column < layer.inputs) {
        dx4[(row * layer.inputs + column) / 4u] = v;
    }
}

fn store_dw(row: u32, column: u32, v: vec4<f32>) {
    if (column < layer.inputs) {
        dw4[(row * layer.inputs + column) / 4u] = v;
    }
}

fn gates(row: u32, column: u32) -> vec4<f32> {
    return gate4[(row * layer.inputs + column) / 4u];
}
