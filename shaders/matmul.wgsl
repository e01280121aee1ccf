// The matrix products of a linear layer; weights are (outputs, inputs), samples are rows.
//   matmul_nt        y[b, o]  = act(sum_i x[b, i] w[o, i] + bias[o])      forward, ReLU fused
//   matmul_nn        dx[b, i] = sum_o dz[b, o] w[o, i]                    to the inputs
//   matmul_nn_gated  the same, zero where the input (a ReLU's output) is not positive
//   matmul_tn        dw[o, i] = sum_b dz[b, o] x[b, i]                    to the weights
//   bias_gradient    db[o]    = sum_b dz[b, o]
// Portable form: each invocation keeps a 4 x 4 tile of the result in registers and reads operands
// straight from storage; no workgroup memory, no barrier. Edge tiles read clamped, store guarded.

struct MatmulParams {
    inputs: u32,
    outputs: u32,
    relu: u32,
}
@group(0) @binding(0) var<uniform> layer: MatmulParams;

@group(0) @binding(1) var<storage, read> x: array<f32>;         // [B, inputs]
@group(0) @binding(2) var<storage, read> w: array<f32>;         // [outputs, inputs]
@group(0) @binding(3) var<storage, read> bias: array<f32>;      // [outputs]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;   // [B, outputs]

// Keeps NaN, unlike max(v, 0).
fn relu(v: f32) -> f32 {
    return select(v, 0.0, v <= 0.0);
}

@compute @workgroup_size(8, 8)
fn matmul_nt(@builtin(global_invocation_id) id: vec3<u32>) {
    let o0 = id.x * 4u;
    let b0 = id.y * 4u;
    if (o0 >= layer.outputs || b0 >= step.batch) {
        return;
    }
    let n = layer.inputs;
    let ob = min(vec4<u32>(o0, o0 + 1u, o0 + 2u, o0 + 3u), vec4<u32>(layer.outputs - 1u)) * n;
    let bb = min(vec4<u32>(b0, b0 + 1u, b0 + 2u, b0 + 3u), vec4<u32>(step.batch - 1u)) * n;
    var s0 = vec4<f32>();
    var s1 = vec4<f32>();
    var s2 = vec4<f32>();
    var s3 = vec4<f32>();
    for (var i = 0u; i < n; i++) {
        let v = vec4<f32>(w[ob.x + i], w[ob.y + i], w[ob.z + i], w[ob.w + i]);
        s0 += x[bb.x + i] * v;
        s1 += x[bb.y + i] * v;
        s2 += x[bb.z + i] * v;
        s3 += x[bb.w + i] * v;
    }
    let sums = array<vec4<f32>, 4>(s0, s1, s2, s3);
    for (var r = 0u; r < 4u; r++) {
        for (var c = 0u; c < 4u; c++) {
            if (b0 + r < step.batch && o0 + c < layer.outputs) {
                let v = sums[r][c] + bias[o0 + c];
                y[(b0 + r) * layer.outputs + o0 + c] = select(v, relu(v), layer.relu != 0u);
            }
        }
    }
}

@group(0) @binding(1) var<storage, read> dz: array<f32>;          // [B, outputs]
@group(0) @binding(2) var<storage, read> nn_w: array<f32>;        // [outputs, inputs]
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;    // [B, inputs]

fn nn_tile(b0: u32, i0: u32) -> array<vec4<f32>, 4> {
    let n = layer.outputs;
    let ii = min(vec4<u32>(i0, i0 + 1u, i0 + 2u, i0 + 3u), vec4<u32>(layer.inputs - 1u));
    let bb = min(vec4<u32>(b0, b0 + 1u, b0 + 2u, b0 + 3u), vec4<u32>(step.batch - 1u)) * n;
    var s0 = vec4<f32>();
    var s1 = vec4<f32>();
    var s2 = vec4<f32>();
    var s3 = vec4<f32>();
    for (var o = 0u; o < n; o++) {
        let row = o * layer.inputs;
        let v = vec4<f32>(nn_w[row + ii.x], nn_w[row + ii.y], nn_w[row + ii.z], nn_w[row + ii.w]);
        s0 += dz[bb.x + o] * v;
        s1 += dz[bb.y + o] * v;
        s2 += dz[bb.z + o] * v;
        s3 += dz[bb.w + o] * v;
    }
    return array<vec4<f32>, 4>(s0, s1, s2, s3);
}

@compute @workgroup_size(8, 8)
fn matmul_nn(@builtin(global_invocation_id) id: vec3<u32>) {
    let i0 = id.x * 4u;
    let b0 = id.y * 4u;
    if (i0 >= layer.inputs || b0 >= step.batch) {
        return;
    }
    let sums = nn_tile(b0, i0);
    for (var r = 0u; r < 4u; r++) {
        for (var c = 0u; c < 4u; c++) {
            if (b0 + r < step.batch && i0 + c < layer.inputs) {
                dx[(b0 + r) * layer.inputs + i0 + c] = sums[r][c];
            }
        }
    }
}

@group(0) @binding(4) var<storage, read> gate: array<f32>;        // [B, inputs]

@compute @workgroup_size(8, 8)
fn matmul_nn_gated(@builtin(global_invocation_id) id: vec3<u32>) {
    let i0 = id.x * 4u;
    let b0 = id.y * 4u;
    if (i0 >= layer.inputs || b0 >= step.batch) {
        return;
    }
    let sums = nn_tile(b0, i0);
    for (var r = 0u; r < 4u; r++) {
        for (var c = 0u; c < 4u; c++) {
            if (b0 + r < step.batch && i0 + c < layer.inputs) {
                let at = (b0 + r) * layer.inputs + i0 + c;
                dx[at] = select(sums[r][c], 0.0, gate[at] <= 0.0);
            }
        }
    }
}

@group(0) @binding(1) var<storage, read> tn_dz: array<f32>;       // [B, outputs]
@group(0) @binding(2) var<storage, read> tn_x: array<f32>;        // [B, inputs]
@group(0) @binding(3) var<storage, read_write> dw: array<f32>;    // [outputs, inputs]

@compute @workgroup_size(8, 8)
fn matmul_tn(@builtin(global_invocation_id) id: vec3<u32>) {
    let i0 = id.x * 4u;
    let o0 = id.y * 4u;
    if (i0 >= layer.inputs || o0 >= layer.outputs) {
        return;
    }
    let ii = min(vec4<u32>(i0, i0 + 1u, i0 + 2u, i0 + 3u), vec4<u32>(layer.inputs - 1u));
    let oo = min(vec4<u32>(o0, o0 + 1u, o0 + 2u, o0 + 3u), vec4<u32>(layer.outputs - 1u));
    var s0 = vec4<f32>();
    var s1 = vec4<f32>();
    var s2 = vec4<f32>();
    var s3 = vec4<f32>();
    for (var b = 0u; b < step.batch; b++) {
        let xb = b * layer.inputs;
        let zb = b * layer.outputs;
        let v = vec4<f32>(tn_x[xb + ii.x], tn_x[xb + ii.y], tn_x[xb + ii.z], tn_x[xb + ii.w]);
        s0 += tn_dz[zb + oo.x] * v;
        s1 += tn_dz[zb + oo.y] * v;
        s2 += tn_dz[zb + oo.z] * v;
        s3 += tn_dz[zb + oo.w] * v;
    }
    let sums = array<vec4<f32>, 4>(s0, s1, s2, s3);
    for (var r = 0u; r < 4u; r++) {
        for (var c = 0u; c < 4u; c++) {
            if (o0 + r < layer.outputs && i0 + c < layer.inputs) {
                dw[(o0 + r) * layer.inputs + i0 + c] = sums[r][c];
            }
        }
    }
}

@group(0) @binding(1) var<storage, read> bias_dz: array<f32>;      // [B, outputs]
@group(0) @binding(2) var<storage, read_write> d_bias: array<f32>; // [outputs]

@compute @workgroup_size(64)
fn bias_gradient(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let o = flat_index(id, groups);
    if (o >= layer.outputs) {
        return;
    }
    var sum = 0.0;
    for (var b = 0u; b < step.batch; b++) {
        sum += bias_dz[b * layer.outputs + o];
    }
    d_bias[o] = sum;
}
