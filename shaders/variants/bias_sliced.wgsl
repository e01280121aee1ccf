// The gradient of the bias of matmul.wgsl for GPUs:
//   d_bias[o] = sum_b dz[b, o]
// A workgroup has 16 columns; 16 invocations share each, every one of them takes each sixteenth sample. Their sums are
// added in order.

struct MatmulParams {
    inputs: u32,
    outputs: u32,
    relu: u32,
}
@group(0) @binding(0) var<uniform> layer: MatmulParams;
@group(0) @binding(1) var<storage, read> bias_dz: array<f32>;      // [B, outputs]
@group(0) @binding(2) var<storage, read_write> d_bias: array<f32>; // [outputs]

var<workgroup> sums: array<f32, 256>;

@compute @workgroup_size(16, 16)
fn bias_gradient_sliced(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(local_invocation_id) at: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let o = min(id.x, layer.outputs - 1u);
    var sum = 0.0;
    for (var b = at.y; b < step.batch; b += 16u) {
        sum += bias_dz[b * layer.outputs + o];
    }
    sums[index] = sum;
    workgroupBarrier();
    if (at.y == 0u && id.x < layer.outputs) {
        for (var slice = 1u; slice < 16u; slice++) {
            sum += sums[slice * 16u + at.x];
        }
        d_bias[id.x] = sum;
    }
}
