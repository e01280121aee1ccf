// For matmul_tiles.wgsl and matmul_subgroups.wgsl: any width of the inputs, operands are words.

@group(0) @binding(1) var<storage, read> x: array<f32>;                   // [B, inputs]
@group(0) @binding(2) var<storage, read> w: array<f32>;                   // [outputs, inputs]
@group(0) @binding(2) var<storage, read> nn_w: array<f32>;                // [outputs, inputs]
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;            // [B, inputs]
@group(0) @binding(4) var<storage, read> gate: array<f32>;                // [B, inputs]
@group(0) @binding(2) var<storage, read> tn_x: array<f32>;                // [B, inputs]
@group(0) @binding(3) var<storage, read_write> dw: array<f32>;            // [outputs, inputs]

// Four columns from one on, none beyond the last.
fn inputs_from(column: u32) -> vec4<u32> {
    return min(vec4<u32>(column, column + 1u, column + 2u, column + 3u), vec4<u32>(layer.inputs - 1u));
}

// Zero beyond the last column.
fn inputs_live(column: u32, v: vec4<f32>) -> vec4<f32> {
    return select(vec4<f32>(), v, vec4<u32>(column, column + 1u, column + 2u, column + 3u) < vec4<u32>(layer.inputs));
}

fn x_at(row: u32, column: u32) -> vec4<f32> {
    if (row >= step.batch || column >= layer.inputs) {
        return vec4<f32>();
    }
    let at = row * layer.inputs + inputs_from(column);
    return inputs_live(column, vec4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]));
}

fn w_at(row: u32, column: u32) -> vec4<f32> {
    if (row >= layer.outputs || column >= layer.inputs) {
        return vec4<f32>();
    }
    let at = row * layer.inputs + inputs_from(column);
    return inputs_live(column, vec4<f32>(w[at.x], w[at.y], w[at.z], w[at.w]));
}

fn nn_w_at(row: u32, column: u32) -> vec4<f32> {
    if (row >= layer.outputs || column >= layer.inputs) {
        return vec4<f32>();
    }
    let at = row * layer.inputs + inputs_from(column);
    return inputs_live(column, vec4<f32>(nn_w[at.x], nn_w[at.y], nn_w[at.z], nn_w[at.w]));
}

fn tn_x_at(row: u32, column: u32) -> vec4<f32> {
    if (row >= step.batch || column >= layer.inputs) {
        return vec4<f32>();
    }
    let at = row * layer.inputs + inputs_from(column);
    return inputs_live(column, vec4<f32>(tn_x[at.x], tn_x[at.y], tn_x[at.z], tn_x[at.w]));
}

fn gates(row: u32, column: u32) -> vec4<f32> {
    if (row >= step.batch || column >= layer.inputs) {
        return vec4<f32>();
    }
    let at = row * layer.inputs + inputs_from(column);
    return inputs_live(column, vec4<f32>(gate[at.x], gate[at.y], gate[at.z], gate[at.w]));
}

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
