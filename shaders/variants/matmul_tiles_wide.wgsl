// For matmul_tiles.wgsl and matmul_subgroups.wgsl: the inputs' width is a multiple of four, operands are vectors of four.

@group(0) @binding(1) var<storage, read> x4: array<vec4<f32>>;            // [B, inputs]
@group(0) @binding(2) var<storage, read> w4: array<vec4<f32>>;            // [outputs, inputs]
@group(0) @binding(2) var<storage, read> nn_w4: array<vec4<f32>>;         // [outputs, inputs]
@group(0) @binding(3) var<storage, read_write> dx4: array<vec4<f32>>;     // [B, inputs]
@group(0) @binding(4) var<storage, read> gate4: array<vec4<f32>>;         // [B, inputs]
@group(0) @binding(2) var<storage, read> tn_x4: array<vec4<f32>>;         // [B, inputs]
@group(0) @binding(3) var<storage, read_write> dw4: array<vec4<f32>>;     // [outputs, inputs]

fn x_at(row: u32, column: u32) -> vec4<f32> {
    if (row >= step.batch || column >= layer.inputs) {
        return vec4<f32>();
    }
    return x4[(row * layer.inputs + column) / 4u];
}

fn w_at(row: u32, column: u32) -> vec4<f32> {
    if (row >= layer.outputs || column >= layer.inputs) {
        return vec4<f32>();
    }
    return w4[(row * layer.inputs + column) / 4u];
}

fn nn_w_at(row: u32, column: u32) -> vec4<f32> {
    if (row >= layer.outputs || column >= layer.inputs) {
        return vec4<f32>();
    }
    return nn_w4[(row * layer.inputs + column) / 4u];
}

fn tn_x_at(row: u32, column: u32) -> vec4<f32> {
    if (row >= step.batch || column >= layer.inputs) {
        return vec4<f32>();
    }
    return tn_x4[(row * layer.inputs + column) / 4u];
}

fn gates(row: u32, column: u32) -> vec4<f32> {
    if (row >= step.batch || column >= layer.inputs) {
        return vec4<f32>();
    }
    return gate4[(row * layer.inputs + column) / 4u];
}

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
