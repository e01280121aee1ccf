// For matmul_texels.wgsl: any width of the inputs, a texel holds one float.

// Elements first .. first + 4; those from `live` on are zero.
fn four(t: texture_2d<f32>, first: u32, live: u32) -> vec4<f32> {
    let v = vec4<f32>(texel(t, first).x, texel(t, first + 1u).x, texel(t, first + 2u).x, texel(t, first + 3u).x);
    return select(vec4<f32>(), v, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(live));
}

@group(0) @binding(3) var<storage, read_write> dx: array<f32>;   // [B, inputs]
@group(0) @binding(3) var<storage, read_write> dw: array<f32>;   // [outputs, inputs]
@group(0) @binding(4) var<storage, read> gate: array<f32>;       // [B, inputs]

fn store_dx(row: u32, column: u32, v: vec4<f32>) {
    for (var c = 0u; c < 4u; c++) {
        if (column + c < layer.inputs) {
            dx[row * layer.inputs + column + c] = v[c];
        }
    }
}

fn store_dw(row: u32, column: u32, v: vec4<f32>) {
    for (var c = 0u; c < 4u; c++) {
        if (column + c < layer.inputs) {
            dw[row * layer.inputs + column + c] = v[c];
        }
    }
}

fn gates(row: u32, column: u32) -> vec4<f32> {
    let at = row * layer.inputs + column;
    return vec4<f32>(gate[at], gate[at + 1u], gate[at + 2u], gate[at + 3u]);
}
