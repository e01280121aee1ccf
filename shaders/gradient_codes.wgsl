// Gradients as codes, for workers that send them to each other.
//   row_gradient_scale  scale[k] = max(max |g| over the touched rows of table k, 1e-8) / n
//   row_gradient_codes  code[u, d] = clamp(round(g[u, d] / scale[k_u]), -n - 1, n)
//   add_errors          g[i] += error[i]            what was not sent before
//   group_codes         code[i] = clamp(round(g[i] / scale[i / group]), -n - 1, n)
//                       error[i] = g[i] - scale[i / group] code[i]
// Codes lie flat, 32 / bits in a word, wherever rows and groups end; what is left of the last word is 0.
// A NaN has the code 0. n = 2^(bits - 1) - 1. arXiv 2410.20046, section 3.3 and appendix B.

struct RowScaleParams {
    dim: u32,
    max_code: f32,
}
@group(0) @binding(0) var<uniform> row_scale: RowScaleParams;
@group(0) @binding(1) var<storage, read> row_tables: array<u32>;           // [U] ascending
@group(0) @binding(2) var<storage, read> row_gradients: array<f32>;        // [U, D]
@group(0) @binding(3) var<storage, read_write> table_scales: array<f32>;   // [K]

var<workgroup> best: array<u32, 256>;

// The first live row that belongs to `table` or a later one.
fn first_row(table: u32) -> u32 {
    var low = 0u;
    var high = step.touched;
    while (low < high) {
        let middle = (low + high) / 2u;
        if (row_tables[middle] < table) {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    return low;
}

@compute @workgroup_size(256)
fn row_gradient_scale(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let k = flat_group(id, groups);
    let end = first_row(k + 1u) * row_scale.dim;
    var mine = 0u;
    // Four values a turn: a lane's loads do not wait for each other, and no table is too long for drivers
    // that count turns. Looking at the last value twice does no harm.
    for (var i = first_row(k) * row_scale.dim + lane; i < end; i += 1024u) {
        let a = max(abs_bits(row_gradients[i]), abs_bits(row_gradients[min(i + 256u, end - 1u)]));
        let b = max(abs_bits(row_gradients[min(i + 512u, end - 1u)]), abs_bits(row_gradients[min(i + 768u, end - 1u)]));
        mine = max(mine, max(a, b));
    }
    best[lane] = mine;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            best[lane] = max(best[lane], best[lane + half]);
        }
    }
    if (lane == 0u && k < arrayLength(&table_scales)) {
        table_scales[k] = scale_of(best[0], row_scale.max_code);
    }
}

struct RowCodesParams {
    dim: u32,
    bits: u32,
    max_code: f32,
}
@group(0) @binding(0) var<uniform> row: RowCodesParams;
@group(0) @binding(3) var<storage, read> row_scales: array<f32>;        // [K]
@group(0) @binding(4) var<storage, read_write> row_codes: array<u32>;   // [ceil(U D bits / 32)]

@compute @workgroup_size(64)
fn row_gradient_codes(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    let per_word = 32u / row.bits;
    let first = i * per_word;
    let live = step.touched * row.dim;
    if (first >= live) {
        return;
    }
    let count = min(per_word, live - first);
    var word = 0u;
    for (var j = 0u; j < count; j++) {
        let scale = row_scales[row_tables[(first + j) / row.dim]];
        let code = code_of(row_gradients[first + j], scale, row.max_code);
        word = insertBits(word, bitcast<u32>(i32(code)), j * row.bits, row.bits);
    }
    row_codes[i] = word;
}

struct AddErrorsParams {
    len: u32,
}
@group(0) @binding(0) var<uniform> add: AddErrorsParams;
@group(0) @binding(1) var<storage, read> errors: array<f32>;                // [len]
@group(0) @binding(2) var<storage, read_write> corrected: array<f32>;       // [len]

@compute @workgroup_size(64)
fn add_errors(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    if (i < add.len) {
        corrected[i] = corrected[i] + errors[i];
    }
}

struct GroupCodesParams {
    len: u32,
    group_len: u32,
    bits: u32,
    max_code: f32,
}
@group(0) @binding(0) var<uniform> group: GroupCodesParams;
@group(0) @binding(1) var<storage, read> gradients: array<f32>;             // [len]
@group(0) @binding(2) var<storage, read> group_scales: array<f32>;          // [len / group_len]
@group(0) @binding(3) var<storage, read_write> codes: array<u32>;           // [ceil(len bits / 32)]
@group(0) @binding(4) var<storage, read_write> unsent: array<f32>;          // [len]

@compute @workgroup_size(64)
fn group_codes(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    let per_word = 32u / group.bits;
    let first = i * per_word;
    if (first >= group.len) {
        return;
    }
    let count = min(per_word, group.len - first);
    var word = 0u;
    for (var j = 0u; j < count; j++) {
        let g = gradients[first + j];
        let scale = group_scales[(first + j) / group.group_len];
        let code = code_of(g, scale, group.max_code);
        unsent[first + j] = g - scale * code;
        word = insertBits(word, bitcast<u32>(i32(code)), j * group.bits, group.bits);
    }
    codes[i] = word;
}
