// SGD as in dense_update.wgsl and row_update.wgsl, for software adapters: four values an invocation, gradients as
// texels.

struct DenseParams {
    len: u32,
    eps: f32,
    beta1: f32,
    beta2: f32,
}
@group(0) @binding(0) var<uniform> all: DenseParams;
@group(0) @binding(1) var gradients: texture_2d<f32>;
@group(0) @binding(2) var<storage, read_write> weights4: array<vec4<f32>>;

@compute @workgroup_size(64)
fn dense_sgd_texels(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    if (4u * i < all.len) {
        weights4[i] = weights4[i] - step.lr * texel(gradients, i);
    }
}

struct RowParams {
    dim: u32,
    shard: u32,
    eps: f32,
}
@group(0) @binding(0) var<uniform> row: RowParams;
@group(0) @binding(1) var<storage, read> rows: array<u32>;
@group(0) @binding(2) var<storage, read> shard_offsets: array<u32>;
@group(0) @binding(3) var row_gradients: texture_2d<f32>;
@group(0) @binding(4) var<storage, read_write> table4: array<vec4<f32>>;

@compute @workgroup_size(64)
fn row_sgd_texels(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    let fours = row.dim / 4u;
    let u = shard_offsets[row.shard] + i / fours;
    if (u >= shard_offsets[row.shard + 1u]) {
        return;
    }
    let d = i % fours;
    let at = rows[u] * fours + d;
    table4[at] = table4[at] - step.lr_rows * texel(row_gradients, u * fours + d);
}
