// The scale of each embedding table: max |w| / n over the whole table, in two steps.
//   table_absmax  partial[g] = max over 16,384 elements of |w|, as bits (so NaN wins)
//   table_scale   scale[k]   = max(max over the table's partials, 1e-8) / n
// arXiv 2410.20046, section 3.2 (refreshed only every P steps).

struct AbsmaxParams {
    start: u32,    // first element in the shard
    count: u32,    // elements
    partial: u32,  // where the results begin
}
@group(0) @binding(0) var<uniform> absmax: AbsmaxParams;
@group(0) @binding(1) var<storage, read> table: array<f32>;             // [rows of the shard, D]
@group(0) @binding(2) var<storage, read_write> partials: array<u32>;

var<workgroup> best: array<u32, 64>;

fn workgroup_max(lane: u32, mine: u32) -> u32 {
    best[lane] = mine;
    for (var half = 32u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            best[lane] = max(best[lane], best[lane + half]);
        }
    }
    return best[0];  // only lane 0 may use it
}

@compute @workgroup_size(64)
fn table_absmax(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = flat_group(group, groups);
    var mine = 0u;
    for (var j = 0u; j < 256u; j++) {
        let i = g * 16384u + j * 64u + lane;
        if (i < absmax.count) {
            mine = max(mine, abs_bits(table[absmax.start + i]));
        }
    }
    let all = workgroup_max(lane, mine);
    if (lane == 0u && g * 16384u < absmax.count) {
        partials[absmax.partial + g] = all;
    }
}

struct TableScaleParams {
    first: u32,     // first partial of the table
    count: u32,     // its partials
    table: u32,
    max_code: f32,
}
@group(0) @binding(0) var<uniform> of: TableScaleParams;
@group(0) @binding(1) var<storage, read> table_partials: array<u32>;
@group(0) @binding(2) var<storage, read_write> scales: array<f32>;       // [K]

@compute @workgroup_size(64)
fn table_scale(@builtin(local_invocation_index) lane: u32) {
    var mine = 0u;
    for (var i = lane; i < of.count; i += 64u) {
        mine = max(mine, table_partials[of.first + i]);
    }
    let all = workgroup_max(lane, mine);
    if (lane == 0u) {
        scales[of.table] = scale_of(all, of.max_code);
    }
}
