// Optimizer steps on touched rows, in place, one dispatch for each shard. Each row occurs once, so
// no two invocations meet and no atomics are needed.
//   row_sgd         w -= lr g
//   row_adagrad     s += g^2;          w -= lr g / (sqrt(s) + eps)   one s for each element
//   row_rwsadagrad  s += mean_d(g^2);  w -= lr g / (sqrt(s) + eps)   one s for each row
// facebookresearch/dlrm optim/rwsadagrad.py for the last.

struct RowParams {
    dim: u32,
    shard: u32,
    eps: f32,
}
@group(0) @binding(0) var<uniform> row: RowParams;
@group(0) @binding(1) var<storage, read> rows: array<u32>;           // [U] row in its shard
@group(0) @binding(2) var<storage, read> shard_offsets: array<u32>;  // [S + 1]
@group(0) @binding(3) var<storage, read> row_gradients: array<f32>;  // [U, D]
@group(0) @binding(4) var<storage, read_write> table: array<f32>;    // [rows of the shard, D]
@group(0) @binding(5) var<storage, read_write> state: array<f32>;    // like table, or [rows of the shard]

@compute @workgroup_size(64)
fn row_sgd(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    let u = shard_offsets[row.shard] + i / row.dim;
    if (u >= shard_offsets[row.shard + 1u]) {
        return;
    }
    let d = i % row.dim;
    let at = rows[u] * row.dim + d;
    table[at] = table[at] - step.lr_rows * row_gradients[u * row.dim + d];
}

@compute @workgroup_size(64)
fn row_adagrad(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    let u = shard_offsets[row.shard] + i / row.dim;
    if (u >= shard_offsets[row.shard + 1u]) {
        return;
    }
    let d = i % row.dim;
    let at = rows[u] * row.dim + d;
    let g = row_gradients[u * row.dim + d];
    let s = state[at] + g * g;
    state[at] = s;
    table[at] = table[at] - step.lr_rows * g / (sqrt(s) + row.eps);
}

@compute @workgroup_size(64)
fn row_rwsadagrad(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let u = shard_offsets[row.shard] + flat_index(id, groups);
    if (u >= shard_offsets[row.shard + 1u]) {
        return;
    }
    var squares = 0.0;
    for (var d = 0u; d < row.dim; d++) {
        let g = row_gradients[u * row.dim + d];
        squares += g * g;
    }
    let s = state[rows[u]] + squares / f32(row.dim);
    state[rows[u]] = s;
    let rate = step.lr_rows / (sqrt(s) + row.eps);
    for (var d = 0u; d < row.dim; d++) {
        let at = rows[u] * row.dim + d;
        table[at] = table[at] - rate * row_gradients[u * row.dim + d];
    }
}
