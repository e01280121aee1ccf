// Optimizer steps on all MLP parameters at once: they lie in one flat buffer, their gradients in
// another of the same layout.
//   dense_sgd      w -= lr g
//   dense_adagrad  s += g^2;  w -= lr g / (sqrt(s) + eps)
//   dense_adam     m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//                  w -= lr (m c1) / (sqrt(v c2) + eps),  c_i = 1 / (1 - b_i^t)

struct DenseParams {
    len: u32,
    eps: f32,
    beta1: f32,
    beta2: f32,
}
@group(0) @binding(0) var<uniform> all: DenseParams;
@group(0) @binding(1) var<storage, read> gradients: array<f32>;
@group(0) @binding(2) var<storage, read_write> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> squares: array<f32>;
@group(0) @binding(4) var<storage, read_write> moments: array<f32>;

@compute @workgroup_size(64)
fn dense_sgd(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    if (i < all.len) {
        weights[i] = weights[i] - step.lr * gradients[i];
    }
}

@compute @workgroup_size(64)
fn dense_adagrad(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    if (i < all.len) {
        let g = gradients[i];
        let s = squares[i] + g * g;
        squares[i] = s;
        weights[i] = weights[i] - step.lr * g / (sqrt(s) + all.eps);
    }
}

@compute @workgroup_size(64)
fn dense_adam(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    if (i < all.len) {
        let g = gradients[i];
        let m = all.beta1 * moments[i] + (1.0 - all.beta1) * g;
        let v = all.beta2 * squares[i] + (1.0 - all.beta2) * g * g;
        moments[i] = m;
        squares[i] = v;
        weights[i] = weights[i] - step.lr * (m * step.adam_1) / (sqrt(v * step.adam_2) + all.eps);
    }
}
