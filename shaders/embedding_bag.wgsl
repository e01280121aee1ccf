// Embedding bags over touched rows (the host lists each touched row once, sorted).
//   gather_rows   gathered[u, d] = q(table[row_u, d])           one dispatch for each shard
//   pool_bags     pooled[b, k, d] = sum over the bag of gathered[.., d]
//   bag_gradient  gradient[u, d] = sum over the samples that used u of d_pooled[b, k_u, d]
// q is fake quantization with the table's scale, or the identity; pool_bags may quantize the sum
// instead. Gradients pass q unchanged (straight-through). arXiv 2410.20046, section 3.1.

struct GatherParams {
    dim: u32,
    shard: u32,
    max_code: f32,  // 0: no quantization
}
@group(0) @binding(0) var<uniform> gather: GatherParams;
@group(0) @binding(1) var<storage, read> rows: array<u32>;           // [U] row in its shard
@group(0) @binding(2) var<storage, read> row_tables: array<u32>;     // [U]
@group(0) @binding(3) var<storage, read> shard_offsets: array<u32>;  // [S + 1]
@group(0) @binding(4) var<storage, read> scales: array<f32>;         // [K]
@group(0) @binding(5) var<storage, read> table: array<f32>;          // [rows of the shard, D]
@group(0) @binding(6) var<storage, read_write> gathered: array<f32>; // [U, D]

@compute @workgroup_size(64)
fn gather_rows(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    let u = shard_offsets[gather.shard] + i / gather.dim;
    if (u >= shard_offsets[gather.shard + 1u]) {
        return;
    }
    let d = i % gather.dim;
    var value = table[rows[u] * gather.dim + d];
    if (gather.max_code > 0.0) {
        value = fake_quant(value, scales[row_tables[u]], gather.max_code);
    }
    gathered[u * gather.dim + d] = value;
}

struct PoolParams {
    tables: u32,
    dim: u32,
    max_code: f32,  // 0: the sum is not quantized
}
@group(0) @binding(0) var<uniform> pool: PoolParams;
@group(0) @binding(1) var<storage, read> bag_offsets: array<u32>;    // [B * K + 1]
@group(0) @binding(2) var<storage, read> bag_rows: array<u32>;       // [ids] place among the touched rows
@group(0) @binding(3) var<storage, read> pool_scales: array<f32>;    // [K]
@group(0) @binding(4) var<storage, read> pool_gathered: array<f32>;  // [U, D]
@group(0) @binding(5) var<storage, read_write> pooled: array<f32>;   // [B, K, D]

@compute @workgroup_size(64)
fn pool_bags(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    let bag = i / pool.dim;
    if (bag >= step.batch * pool.tables) {
        return;
    }
    let d = i % pool.dim;
    var sum = 0.0;
    for (var j = bag_offsets[bag]; j < bag_offsets[bag + 1u]; j++) {
        sum += pool_gathered[bag_rows[j] * pool.dim + d];
    }
    if (pool.max_code > 0.0) {
        sum = fake_quant(sum, pool_scales[bag % pool.tables], pool.max_code);
    }
    pooled[i] = sum;
}

struct BagGradientParams {
    tables: u32,
    dim: u32,
}
@group(0) @binding(0) var<uniform> bag: BagGradientParams;
@group(0) @binding(1) var<storage, read> row_offsets: array<u32>;       // [U + 1]
@group(0) @binding(2) var<storage, read> row_samples: array<u32>;       // [ids] in order
@group(0) @binding(3) var<storage, read> gradient_tables: array<u32>;   // [U]
@group(0) @binding(4) var<storage, read> d_pooled: array<f32>;          // [B, K, D]
@group(0) @binding(5) var<storage, read_write> row_gradients: array<f32>; // [U, D]

@compute @workgroup_size(64)
fn bag_gradient(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    let u = i / bag.dim;
    if (u >= step.touched) {
        return;
    }
    let d = i % bag.dim;
    let k = gradient_tables[u];
    var sum = 0.0;
    for (var j = row_offsets[u]; j < row_offsets[u + 1u]; j++) {
        sum += d_pooled[(row_samples[j] * bag.tables + k) * bag.dim + d];
    }
    row_gradients[i] = sum;
}
