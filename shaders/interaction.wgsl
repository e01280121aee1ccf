// Dot interaction. T = [dense vector, pooled rows of table 0 .. K-1], K + 1 vectors of width D.
//   interaction_forward   out[b] = concat(T_0, T_i . T_j for j < i, row by row)   (j <= i with the diagonal)
//   interaction_backward  d_T_i = sum_j g_ij T_j, plus the direct path to T_0, whose part is zero where T_0 (a
//                         ReLU's output) is not positive
// facebookresearch/dlrm dlrm_s_pytorch.py `interact_features`.

struct InteractionParams {
    tables: u32,
    dim: u32,
    diagonal: u32,
}
@group(0) @binding(0) var<uniform> dot_of: InteractionParams;
@group(0) @binding(1) var<storage, read> dense: array<f32>;        // [B, D]
@group(0) @binding(2) var<storage, read> pooled: array<f32>;       // [B, K, D]
@group(0) @binding(3) var<storage, read_write> joined: array<f32>; // [B, D + pairs]

fn width() -> u32 {
    let vectors = dot_of.tables + 1u;
    return dot_of.dim + select(vectors * (vectors - 1u), vectors * (vectors + 1u), dot_of.diagonal != 0u) / 2u;
}

// First pair of row i.
fn row_start(i: u32) -> u32 {
    return select(i * (i - 1u), i * (i + 1u), dot_of.diagonal != 0u) / 2u;
}

fn vector_at(b: u32, i: u32, d: u32) -> f32 {
    if (i == 0u) {
        return dense[b * dot_of.dim + d];
    }
    return pooled[(b * dot_of.tables + i - 1u) * dot_of.dim + d];
}

@compute @workgroup_size(64)
fn interaction_forward(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(id, groups);
    let b = at / width();
    if (b >= step.batch) {
        return;
    }
    let column = at % width();
    if (column < dot_of.dim) {
        joined[at] = dense[b * dot_of.dim + column];
        return;
    }
    let pair = column - dot_of.dim;
    var i = select(1u, 0u, dot_of.diagonal != 0u);
    while (row_start(i + 1u) <= pair) {
        i++;
    }
    let j = pair - row_start(i);
    var sum = 0.0;
    for (var d = 0u; d < dot_of.dim; d++) {
        sum += vector_at(b, i, d) * vector_at(b, j, d);
    }
    joined[at] = sum;
}

@group(0) @binding(3) var<storage, read> d_joined: array<f32>;       // [B, D + pairs]
@group(0) @binding(4) var<storage, read_write> d_dense: array<f32>;  // [B, D]
@group(0) @binding(5) var<storage, read_write> d_pooled: array<f32>; // [B, K, D]

@compute @workgroup_size(64)
fn interaction_backward(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(id, groups);
    let vectors = dot_of.tables + 1u;
    let b = at / (vectors * dot_of.dim);
    if (b >= step.batch) {
        return;
    }
    let i = (at / dot_of.dim) % vectors;
    let d = at % dot_of.dim;
    let upstream = b * width() + dot_of.dim;
    var sum = 0.0;
    for (var j = 0u; j < i; j++) {
        sum += d_joined[upstream + row_start(i) + j] * vector_at(b, j, d);
    }
    if (dot_of.diagonal != 0u) {
        sum += 2.0 * d_joined[upstream + row_start(i) + i] * vector_at(b, i, d);
    }
    for (var j = i + 1u; j < vectors; j++) {
        sum += d_joined[upstream + row_start(j) + i] * vector_at(b, j, d);
    }
    if (i == 0u) {
        let total = sum + d_joined[b * width() + d];
        d_dense[b * dot_of.dim + d] = select(total, 0.0, dense[b * dot_of.dim + d] <= 0.0);
    } else {
        d_pooled[(b * dot_of.tables + i - 1u) * dot_of.dim + d] = sum;
    }
}
