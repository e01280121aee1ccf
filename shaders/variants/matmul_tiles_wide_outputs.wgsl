// For matmul_tiles.wgsl and matmul_subgroups.wgsl: the outputs' width is a multiple of four, operands are vectors of four.

@group(0) @binding(3) var<storage, read> bias4: array<vec4<f32>>;         // [outputs]
@group(0) @binding(4) var<storage, read_write> y4: array<vec4<f32>>;      // [B, outputs]
@group(0) @binding(1) var<storage, read> dz4: array<vec4<f32>>;           // [B, outputs]
@group(0) @binding(1) var<storage, read> tn_dz4: array<vec4<f32>>;        // [B, outputs]

fn dz_at(row: u32, column: u32) -> vec4<f32> {
    if (row >= step.batch || column >= layer.outputs) {
        return vec4<f32>();
    }
    return dz4[(row * layer.outputs + column) / 4u];
}

fn tn_dz_at(row: u32, column: u32) -> vec4<f32> {
    if (row >= step.batch || column >= layer.outputs) {
        return vec4<f32>();
    }
    return tn_dz4[(row * layer.outputs + column) / 4u];
}

fn biases(column: u32) -> vec4<f32> {
    return bias4[min(column, layer.outputs - 1u) / 4u];
}

fn store_y(row: u32, column: u32, v: vec4<f32>) {
    if (column < layer.outputs) {
        y4[(row * layer.outputs + column) / 4u] = v;
    }
}
