// The `cat` interaction: the dense vector and all pooled rows side by side.
//   concat_forward   out[b] = concat(dense, pooled_0, .., pooled_{K-1})
//   concat_backward  the parts back; the dense part is zero where the dense vector (a ReLU's output) is
//                    not positive

struct ConcatParams {
    tables: u32,
    dim: u32,
}
@group(0) @binding(0) var<uniform> concat: ConcatParams;
@group(0) @binding(1) var<storage, read> dense: array<f32>;        // [B, D]
@group(0) @binding(2) var<storage, read> pooled: array<f32>;       // [B, K, D]
@group(0) @binding(3) var<storage, read_write> joined: array<f32>; // [B, (K + 1) D]

@compute @workgroup_size(64)
fn concat_forward(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(id, groups);
    let width = (concat.tables + 1u) * concat.dim;
    let b = at / width;
    if (b >= step.batch) {
        return;
    }
    let column = at % width;
    if (column < concat.dim) {
        joined[at] = dense[b * concat.dim + column];
    } else {
        joined[at] = pooled[b * concat.tables * concat.dim + column - concat.dim];
    }
}

@group(0) @binding(2) var<storage, read> d_joined: array<f32>;       // [B, (K + 1) D]
@group(0) @binding(3) var<storage, read_write> d_dense: array<f32>;  // [B, D]
@group(0) @binding(4) var<storage, read_write> d_pooled: array<f32>; // [B, K, D]

@compute @workgroup_size(64)
fn concat_backward(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(id, groups);
    let width = (concat.tables + 1u) * concat.dim;
    let b = at / width;
    if (b >= step.batch) {
        return;
    }
    let column = at % width;
    if (column < concat.dim) {
        let to = b * concat.dim + column;
        d_dense[to] = select(d_joined[at], 0.0, dense[to] <= 0.0);
    } else {
        d_pooled[b * concat.tables * concat.dim + column - concat.dim] = d_joined[at];
    }
}
