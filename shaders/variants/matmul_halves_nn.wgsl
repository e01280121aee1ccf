// Operands of matmul_nn and matmul_nn_gated in halves, and what follows their product.

@group(0) @binding(1) var<storage, read> dz: array<f32>;          // [B, outputs]
@group(0) @binding(2) var<storage, read> nn_w: array<f32>;        // [outputs, inputs]
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;    // [B, inputs]
@group(0) @binding(4) var<storage, read> gate: array<f32>;        // [B, inputs]

fn left(row: u32, term: u32) -> f32 {
    return dz[row * layer.outputs + term];
}

fn right(row: u32, term: u32) -> f32 {
    return nn_w[term * layer.inputs + row];
}

@compute @workgroup_size(8, 8)
fn finish_nn(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < layer.inputs && id.y < step.batch) {
        dx[id.y * layer.inputs + id.x] = joined(id.y, id.x);
    }
}

@compute @workgroup_size(8, 8)
fn finish_nn_gated(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < layer.inputs && id.y < step.batch) {
        let at = id.y * layer.inputs + id.x;
        dx[at] = select(joined(id.y, id.x), 0.0, gate[at] <= 0.0);
    }
}
