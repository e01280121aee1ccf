// DoReFa's grid for weights: tanh, divided by its largest magnitude, on 2^k values in -1..=1.
//   gather_dorefa   gathered[u, d] = g(table[row_u, d])   one dispatch for each shard
//   dorefa_weights  quantized[i]   = g(values[i])
// g(w) = (c + 1/2) spacing, c = round((2n + 1) (tanh(w) / (2 tanh(m)) + 1/2)) - (n + 1), spacing = 2 / (2n + 1),
// m the largest magnitude of the table or matrix. Gradients pass unchanged (straight-through).
// Zhou et al. 2016, arXiv 1606.06160, section 2.3; called PACT in arXiv 2410.20046, section 4.

// src/quant/dorefa.rs is its twin.
fn rational_tanh(x: f32) -> f32 {
    let c = clamp(x, -7.905311, 7.905311);
    let x2 = c * c;
    var p = -2.7607684e-16 * x2 + 2.000188e-13;
    p = p * x2 - 8.604672e-11;
    p = p * x2 + 5.1222973e-8;
    p = p * x2 + 1.48572235e-5;
    p = p * x2 + 6.3726195e-4;
    p = p * x2 + 4.8935246e-3;
    var q = 1.1982584e-6 * x2 + 1.1853471e-4;
    q = q * x2 + 2.2684347e-3;
    q = q * x2 + 4.893525e-3;
    return select(c * p / q, c, abs(c) < 4e-4);
}

fn on_grid(w: f32, max_abs: f32, max_code: f32, spacing: f32) -> f32 {
    if (is_nan_bits(bitcast<u32>(w))) {
        return w;
    }
    if (is_nan_bits(bitcast<u32>(max_abs))) {
        return max_abs;
    }
    let steps = 2.0 * max_code + 1.0;
    let t = steps * (rational_tanh(w) * (0.5 / rational_tanh(max_abs)) + 0.5);
    return (round(clamp(t, 0.0, steps)) - (max_code + 1.0) + 0.5) * spacing;
}

struct GatherDorefaParams {
    dim: u32,
    shard: u32,
    max_code: f32,
    spacing: f32,
}
@group(0) @binding(0) var<uniform> gather: GatherDorefaParams;
@group(0) @binding(1) var<storage, read> rows: array<u32>;           // [U] row in its shard
@group(0) @binding(2) var<storage, read> row_tables: array<u32>;     // [U]
@group(0) @binding(3) var<storage, read> shard_offsets: array<u32>;  // [S + 1]
@group(0) @binding(4) var<storage, read> largest: array<f32>;        // [K]
@group(0) @binding(5) var<storage, read> table: array<f32>;          // [rows of the shard, D]
@group(0) @binding(6) var<storage, read_write> gathered: array<f32>; // [U, D]

@compute @workgroup_size(64)
fn gather_dorefa(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    let u = shard_offsets[gather.shard] + i / gather.dim;
    if (u >= shard_offsets[gather.shard + 1u]) {
        return;
    }
    let d = i % gather.dim;
    let value = table[rows[u] * gather.dim + d];
    gathered[u * gather.dim + d] = on_grid(value, largest[row_tables[u]], gather.max_code, gather.spacing);
}

struct DorefaParams {
    len: u32,
    max_code: f32,
    spacing: f32,
}
@group(0) @binding(0) var<uniform> weights: DorefaParams;
@group(0) @binding(1) var<storage, read> values: array<f32>;          // [len]
@group(0) @binding(2) var<storage, read> max_abs: array<f32>;         // [1]
@group(0) @binding(3) var<storage, read_write> quantized: array<f32>; // [len]

@compute @workgroup_size(64)
fn dorefa_weights(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    if (i < weights.len) {
        quantized[i] = on_grid(values[i], max_abs[0], weights.max_code, weights.spacing);
    }
}
