// Operands of matmul_nt in halves, and what follows their product.

@group(0) @binding(1) var<storage, read> x: array<f32>;         // [B, inputs]
@group(0) @binding(2) var<storage, read> w: array<f32>;         // [outputs, inputs]
@group(0) @binding(3) var<storage, read> bias: array<f32>;      // [outputs]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;   // [B, outputs]

fn left(row: u32, term: u32) -> f32 {
    return x[row * layer.inputs + term];
}

fn right(row: u32, term: u32) -> f32 {
    return w[row * layer.inputs + term];
}

@compute @workgroup_size(8, 8)
fn finish_nt(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= layer.outputs || id.y >= step.batch) {
        return;
    }
    let v = joined(id.y, id.x) + bias[id.x];
    y[id.y * layer.outputs + id.x] = select(v, 0.0, layer.relu != 0u && v <= 0.0); // keeps NaN
}
