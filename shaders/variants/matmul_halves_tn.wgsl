// Operands of matmul_tn in halves, and what follows their product.

@group(0) @binding(1) var<storage, read> tn_dz: array<f32>;       // [B, outputs]
@group(0) @binding(2) var<storage, read> tn_x: array<f32>;        // [B, inputs]
@group(0) @binding(3) var<storage, read_write> dw: array<f32>;    // [outputs, inputs]

fn left(row: u32, term: u32) -> f32 {
    return tn_dz[term * layer.outputs + row];
}

fn right(row: u32, term: u32) -> f32 {
    return tn_x[term * layer.inputs + row];
}

@compute @workgroup_size(8, 8)
fn finish_tn(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < layer.inputs && id.y < layer.outputs) {
        dw[id.y * layer.inputs + id.x] = joined(id.y, id.x);
    }
}
