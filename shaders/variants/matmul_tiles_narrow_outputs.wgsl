// For matmul_tiles.wgsl and matmul_subgroups.wgsl: any width of the outputs, operands are words.

@group(0) @binding(3) var<storage, read> bias: array<f32>;                // [outputs]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;             // [B, outputs]
@group(0) @binding(1) var<storage, read> dz: array<f32>;                  // [B, outputs]
@group(0) @binding(1) var<storage, read> tn_dz: array<f32>;               // [B, outputs]

// Four columns from one on, none beyond the last.
fn outputs_from(column: u32) -> vec4<u32> {
    return min(vec4<u32>(column, column + 1u, column + 2u, column + 3u), vec4<u32>(layer.outputs - 1u));
}

// Zero beyond the last column.
fn outputs_live(column: u32, v: vec4<f32>) -> vec4<f32> {
    return select(vec4<f32>(), v, vec4<u32>(column, column + 1u, column + 2u, column + 3u) < vec4<u32>(layer.outputs));
}

fn dz_at(row: u32, column: u32) -> vec4<f32> {
    if (row >= step.batch || column >= layer.outputs) {
        return vec4<f32>();
    }
    let at = row * layer.outputs + outputs_from(column);
    return outputs_live(column, vec4<f32>(dz[at.x], dz[at.y], dz[at.z], dz[at.w]));
}

fn tn_dz_at(row: u32, column: u32) -> vec4<f32> {
    if (row >= step.batch || column >= layer.outputs) {
        return vec4<f32>();
    }
    let at = row * layer.outputs + outputs_from(column);
    return outputs_live(column, vec4<f32>(tn_dz[at.x], tn_dz[at.y], tn_dz[at.z], tn_dz[at.w]));
}

fn biases(column: u32) -> vec4<f32> {
    let at = outputs_from(column);
    return vec4<f32>(bias[at.x], bias[at.y], bias[at.z], bias[at.w]);
}

fn store_y(row: u32, column: u32, v: vec4<f32>) {
    for (var c = 0u; c < 4u; c++) {
        if (column + c < layer.outputs) {
            y[row * layer.outputs + column + c] = v[c];
        }
    }
}
