// Loss from logits and its gradient.
//   loss_gradient  bce: l = max(x, 0) - x t + log(1 + exp(-|x|)),   d = (p - t) / B
//                  mse: l = (p - t)^2,                              d = 2 (p - t) p (1 - p) / B
//                  with p = 1 / (1 + exp(-x)); the logits are kept in the ring of results
//   mean_loss      ring[slot] = sum of l / B, in a fixed order

struct LossParams {
    mse: u32,
    stride: u32,  // samples in one slot of the ring of logits
}
@group(0) @binding(0) var<uniform> settings: LossParams;
@group(0) @binding(1) var<storage, read> logits: array<f32>;              // [B]
@group(0) @binding(2) var<storage, read> labels: array<f32>;              // [B]
@group(0) @binding(3) var<storage, read_write> losses: array<f32>;        // [B]
@group(0) @binding(4) var<storage, read_write> d_logits: array<f32>;      // [B]
@group(0) @binding(5) var<storage, read_write> logit_ring: array<f32>;    // [slots, stride]

@compute @workgroup_size(64)
fn loss_gradient(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let b = flat_index(id, groups);
    if (b >= step.batch) {
        return;
    }
    let x = logits[b];
    let t = labels[b];
    let e = exp(-abs(x));
    let p = select(1.0, e, x < 0.0) / (1.0 + e);
    let mse = settings.mse != 0u;
    losses[b] = select(select(0.0, x, x > 0.0) - x * t + log(1.0 + e), (p - t) * (p - t), mse);
    d_logits[b] = select((p - t) * step.inv_batch, 2.0 * (p - t) * p * (1.0 - p) * step.inv_batch, mse);
    logit_ring[step.slot * settings.stride + b] = x;
}

struct MeanParams {
    unused: u32,
}
@group(0) @binding(0) var<uniform> mean: MeanParams;
@group(0) @binding(1) var<storage, read> sample_losses: array<f32>;      // [B]
@group(0) @binding(2) var<storage, read_write> loss_ring: array<f32>;    // [slots]

var<workgroup> lanes: array<f32, 64>;

@compute @workgroup_size(64)
fn mean_loss(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var b = lane; b < step.batch; b += 64u) {
        sum += sample_losses[b];
    }
    lanes[lane] = sum;
    for (var half = 32u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            lanes[lane] += lanes[lane + half];
        }
    }
    if (lane == 0u) {
        loss_ring[step.slot] = lanes[0] * step.inv_batch;
    }
}
