// Touched rows on a grid of their own: each row's scale comes from the row itself.
//   gather_row_scaled  gathered[u, d] = q(table[row_u, d]), scale = max(max over the row of |w|, 1e-8) / n
// One dispatch for each shard. Nothing is kept: a row's scale is never older than the row.

struct RowScaleParams {
    dim: u32,
    shard: u32,
    max_code: f32,
}
@group(0) @binding(0) var<uniform> gather: RowScaleParams;
@group(0) @binding(1) var<storage, read> rows: array<u32>;           // [U] row in its shard
@group(0) @binding(2) var<storage, read> shard_offsets: array<u32>;  // [S + 1]
@group(0) @binding(3) var<storage, read> table: array<f32>;          // [rows of the shard, D]
@group(0) @binding(4) var<storage, read_write> gathered: array<f32>; // [U, D]

@compute @workgroup_size(64)
fn gather_row_scaled(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    let u = shard_offsets[gather.shard] + i / gather.dim;
    if (u >= shard_offsets[gather.shard + 1u]) {
        return;
    }
    let d = i % gather.dim;
    let first = rows[u] * gather.dim;
    var largest = 0u;
    for (var j = 0u; j < gather.dim; j++) {
        largest = max(largest, abs_bits(table[first + j]));
    }
    gathered[u * gather.dim + d] = fake_quant(table[first + d], scale_of(largest, gather.max_code), gather.max_code);
}
