// Embedding bags as in embedding_bag.wgsl, for software adapters: an invocation takes four columns (D is a multiple of
// four), rows that were gathered and gradients come as texels. Sums are taken in the same order.

struct GatherParams {
    dim: u32,
    shard: u32,
    max_code: f32,
}
@group(0) @binding(0) var<uniform> gather: GatherParams;
@group(0) @binding(1) var<storage, read> rows: array<u32>;
@group(0) @binding(2) var<storage, read> row_tables: array<u32>;
@group(0) @binding(3) var<storage, read> shard_offsets: array<u32>;
@group(0) @binding(4) var<storage, read> scales: array<f32>;
@group(0) @binding(5) var<storage, read> table4: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> gathered4: array<vec4<f32>>;

fn quantized(v: vec4<f32>, scale: f32, max_code: f32) -> vec4<f32> {
    return vec4<f32>(
        fake_quant(v.x, scale, max_code),
        fake_quant(v.y, scale, max_code),
        fake_quant(v.z, scale, max_code),
        fake_quant(v.w, scale, max_code),
    );
}

@compute @workgroup_size(64)
fn gather_rows_fours(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    let fours = gather.dim / 4u;
    let u = shard_offsets[gather.shard] + i / fours;
    if (u >= shard_offsets[gather.shard + 1u]) {
        return;
    }
    let d = i % fours;
    let value = table4[rows[u] * fours + d];
    if (opaque(select(0u, 1u, gather.max_code > 0.0), i) != 0u) {
        gathered4[u * fours + d] = quantized(value, scales[row_tables[u]], gather.max_code);
    } else {
        gathered4[u * fours + d] = value;
    }
}

struct PoolParams {
    tables: u32,
    dim: u32,
    max_code: f32,
}
@group(0) @binding(0) var<uniform> pool: PoolParams;
@group(0) @binding(1) var<storage, read> bag_offsets: array<u32>;
@group(0) @binding(2) var<storage, read> bag_rows: array<u32>;
@group(0) @binding(3) var<storage, read> pool_scales: array<f32>;
@group(0) @binding(4) var pool_gathered: texture_2d<f32>;
@group(0) @binding(5) var<storage, read_write> pooled4: array<vec4<f32>>;

@compute @workgroup_size(64)
fn pool_bags_texels(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    let fours = pool.dim / 4u;
    let bag = i / fours;
    if (bag >= step.batch * pool.tables) {
        return;
    }
    let d = i % fours;
    let end = bag_offsets[bag + 1u];
    var sum = vec4<f32>();
    for (var j = bag_offsets[bag]; j < end; j++) {
        sum += texel(pool_gathered, bag_rows[j] * fours + d);
    }
    if (opaque(select(0u, 1u, pool.max_code > 0.0), i) != 0u) {
        sum = quantized(sum, pool_scales[bag % pool.tables], pool.max_code);
    }
    pooled4[i] = sum;
}

struct BagGradientParams {
    tables: u32,
    dim: u32,
}
@group(0) @binding(0) var<uniform> bag: BagGradientParams;
@group(0) @binding(1) var<storage, read> row_offsets: array<u32>;
@group(0) @binding(2) var<storage, read> row_samples: array<u32>;
@group(0) @binding(3) var<storage, read> gradient_tables: array<u32>;
@group(0) @binding(4) var d_pooled: texture_2d<f32>;
@group(0) @binding(5) var<storage, read_write> row_gradients4: array<vec4<f32>>;

@compute @workgroup_size(64)
fn bag_gradient_texels(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    let fours = bag.dim / 4u;
    let u = i / fours;
    if (u >= step.touched) {
        return;
    }
    let column = gradient_tables[u] * fours + i % fours;
    let sample = bag.tables * fours;
    let end = row_offsets[u + 1u];
    var sum = vec4<f32>();
    for (var j = row_offsets[u]; j < end; j++) {
        sum += texel(d_pooled, row_samples[j] * sample + column);
    }
    row_gradients4[i] = sum;
}
