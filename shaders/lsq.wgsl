// Learned step sizes (Esser et al. 2020, arXiv 1902.08153). A weight w is quantized to round(clamp(t, -n - 1, n)) s
// with t = w / s, by the kernels that also serve found scales (gather_rows, fake_quant_weights). Here:
//   abs_sums            sum[g] = sum over a group of |w|
//   step_sizes          s[i] = factor * (sum over some of those sums), factor = 2 / (elements sqrt(n)): the first s
//   lsq_gradient        for each group of MLP weights: masks dL/dw in place, gives dL/ds
//   lsq_row_gradient    for each touched row: masks dL/dw in place, gives the row's part of dL/ds
//   lsq_table_gradient  dL/ds of a table from its touched rows
//   lsq_update          s -= lr dL/ds, at least 1e-8
// dq/dw is 1 where -n - 1 <= t <= n, else 0; dq/ds is round(t) - t there, else the bound; dL/ds is scaled by
// 1 / sqrt(n elements). Every sum has a fixed order.

const MIN_STEP = 1e-8;

var<workgroup> parts: array<f32, 64>;

fn workgroup_sum(lane: u32, mine: f32) -> f32 {
    parts[lane] = mine;
    for (var half = 32u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            parts[lane] += parts[lane + half];
        }
    }
    return parts[0];  // only lane 0 may use it
}

// At least MIN_STEP; NaN stays NaN.
fn positive(s: f32) -> f32 {
    if (is_nan_bits(bitcast<u32>(s))) {
        return s;
    }
    return max(s, MIN_STEP);
}

// (dq/ds, dq/dw) at t; NaN stays NaN.
fn slopes(t: f32, max_code: f32) -> vec2<f32> {
    if (is_nan_bits(bitcast<u32>(t))) {
        return vec2(t, 1.0);
    }
    let bound = clamp(t, -max_code - 1.0, max_code);
    if (bound != t) {
        return vec2(bound, 0.0);
    }
    return vec2(round(t) - t, 1.0);
}

struct AbsSumParams {
    start: u32,      // first element
    count: u32,      // elements
    group_len: u32,  // elements of a group
    first: u32,      // where the results begin
}
@group(0) @binding(0) var<uniform> summing: AbsSumParams;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(64)
fn abs_sums(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = flat_group(group, groups);
    let from_here = g * summing.group_len;
    let end = min(from_here + summing.group_len, summing.count);
    var mine = 0.0;
    for (var i = from_here + lane; i < end; i += 64u) {
        mine += abs(weights[summing.start + i]);
    }
    let all = workgroup_sum(lane, mine);
    if (lane == 0u && from_here < summing.count) {
        sums[summing.first + g] = all;
    }
}

struct StepSizeParams {
    first: u32,   // first sum of the first scale
    count: u32,   // sums of one scale
    place: u32,   // the first scale
    scales: u32,  // how many
    factor: f32,  // 2 / (elements of one scale * sqrt(n))
}
@group(0) @binding(0) var<uniform> sizing: StepSizeParams;
@group(0) @binding(1) var<storage, read> all_sums: array<f32>;
@group(0) @binding(2) var<storage, read_write> scales: array<f32>;

@compute @workgroup_size(64)
fn step_sizes(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = flat_group(group, groups);
    var mine = 0.0;
    if (g < sizing.scales) {
        for (var i = lane; i < sizing.count; i += 64u) {
            mine += all_sums[sizing.first + g * sizing.count + i];
        }
    }
    let all = workgroup_sum(lane, mine);
    if (lane == 0u && g < sizing.scales) {
        scales[sizing.place + g] = positive(all * sizing.factor);
    }
}

struct LsqParams {
    groups: u32,
    group_len: u32,
    max_code: f32,
    factor: f32,  // 1 / sqrt(n * group_len)
}
@group(0) @binding(0) var<uniform> lsq: LsqParams;
@group(0) @binding(1) var<storage, read> values: array<f32>;            // [groups, group_len]
@group(0) @binding(2) var<storage, read> value_scales: array<f32>;      // [groups]
@group(0) @binding(3) var<storage, read_write> gradients: array<f32>;   // [groups, group_len]
@group(0) @binding(4) var<storage, read_write> d_scales: array<f32>;    // [groups]

@compute @workgroup_size(64)
fn lsq_gradient(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = flat_group(group, groups);
    var mine = 0.0;
    if (g < lsq.groups) {
        let inverse = 1.0 / value_scales[g];
        for (var i = lane; i < lsq.group_len; i += 64u) {
            let at = g * lsq.group_len + i;
            let slope = slopes(values[at] * inverse, lsq.max_code);
            let gradient = gradients[at];
            mine += gradient * slope.x;
            gradients[at] = select(0.0, gradient, slope.y > 0.0);
        }
    }
    let all = workgroup_sum(lane, mine);
    if (lane == 0u && g < lsq.groups) {
        d_scales[g] = all * lsq.factor;
    }
}

struct LsqRowParams {
    dim: u32,
    shard: u32,
    max_code: f32,
}
@group(0) @binding(0) var<uniform> rowwise: LsqRowParams;
@group(0) @binding(1) var<storage, read> rows: array<u32>;                // [U] row in its shard
@group(0) @binding(2) var<storage, read> row_tables: array<u32>;          // [U]
@group(0) @binding(3) var<storage, read> shard_offsets: array<u32>;       // [S + 1]
@group(0) @binding(4) var<storage, read> table_scales: array<f32>;        // [K]
@group(0) @binding(5) var<storage, read> table: array<f32>;               // [rows of the shard, D]
@group(0) @binding(6) var<storage, read_write> row_gradients: array<f32>; // [U, D]
@group(0) @binding(7) var<storage, read_write> row_sums: array<f32>;      // [U]

@compute @workgroup_size(64)
fn lsq_row_gradient(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let u = shard_offsets[rowwise.shard] + flat_index(id, groups);
    if (u >= shard_offsets[rowwise.shard + 1u]) {
        return;
    }
    let inverse = 1.0 / table_scales[row_tables[u]];
    var sum = 0.0;
    for (var d = 0u; d < rowwise.dim; d++) {
        let at = u * rowwise.dim + d;
        let slope = slopes(table[rows[u] * rowwise.dim + d] * inverse, rowwise.max_code);
        let gradient = row_gradients[at];
        sum += gradient * slope.x;
        row_gradients[at] = select(0.0, gradient, slope.y > 0.0);
    }
    row_sums[u] = sum;
}

struct LsqTableParams {
    dim: u32,
    max_code: f32,
}
@group(0) @binding(0) var<uniform> tablewise: LsqTableParams;
@group(0) @binding(1) var<storage, read> tables_of_rows: array<u32>;       // [U] ascending
@group(0) @binding(2) var<storage, read> sums_of_rows: array<f32>;         // [U]
@group(0) @binding(3) var<storage, read_write> d_table_scales: array<f32>; // [K]

// The first touched row of table k or of a later one.
fn first_row(k: u32) -> u32 {
    var low = 0u;
    var high = step.touched;
    while (low < high) {
        let middle = (low + high) / 2u;
        if (tables_of_rows[middle] < k) {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    return low;
}

@compute @workgroup_size(64)
fn lsq_table_gradient(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = first_row(group.x);
    let end = first_row(group.x + 1u);
    var mine = 0.0;
    for (var u = first + lane; u < end; u += 64u) {
        mine += sums_of_rows[u];
    }
    let all = workgroup_sum(lane, mine);
    if (lane == 0u) {
        let elements = f32(max(end - first, 1u)) * f32(tablewise.dim);
        d_table_scales[group.x] = all / sqrt(tablewise.max_code * elements);
    }
}

struct LsqUpdateParams {
    len: u32,
    of_tables: u32,  // 1: the tables' learning rate, 0: that of the MLPs
}
@group(0) @binding(0) var<uniform> updating: LsqUpdateParams;
@group(0) @binding(1) var<storage, read> scale_gradients: array<f32>;
@group(0) @binding(2) var<storage, read_write> learned: array<f32>;

@compute @workgroup_size(64)
fn lsq_update(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    if (i < updating.len) {
        learned[i] = positive(learned[i] - select(step.lr, step.lr_rows, updating.of_tables != 0u) * scale_gradients[i]);
    }
}
