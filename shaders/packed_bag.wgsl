// Rows of packed embedding tables, for prediction.
//   gather_packed  gathered[u, d] = (code[row_u, d] + offset) * scale      one dispatch for each shard
// An invocation reads one word of codes (eight of four bits) of one touched row. A row has
// ceil(D bits / 8) bytes and may begin inside a word. The scale is that of the table or of the row.

struct GatherPackedParams {
    dim: u32,
    shard: u32,
    bits: u32,
    row_bytes: u32,
    row_scales: u32,  // 1: a scale for each row of the shard, 0: one for each table
    offset: f32,
}
@group(0) @binding(0) var<uniform> gather: GatherPackedParams;
@group(0) @binding(1) var<storage, read> rows: array<u32>;           // [U] row in its shard
@group(0) @binding(2) var<storage, read> row_tables: array<u32>;     // [U]
@group(0) @binding(3) var<storage, read> shard_offsets: array<u32>;  // [S + 1]
@group(0) @binding(4) var<storage, read> scales: array<f32>;         // [K] or [rows of the shard]
@group(0) @binding(5) var<storage, read> codes: array<u32>;          // bytes of the shard's rows
@group(0) @binding(6) var<storage, read_write> gathered: array<f32>; // [U, D]

// Four bytes from byte `at` on.
fn word_at(at: u32) -> u32 {
    let low = codes[at / 4u];
    let shift = at % 4u * 8u;
    if (shift == 0u) {
        return low;
    }
    // The last row's last word may reach beyond the end; those bits are not used.
    let high = codes[min(at / 4u + 1u, arrayLength(&codes) - 1u)];
    return (low >> shift) | (high << (32u - shift));
}

@compute @workgroup_size(64)
fn gather_packed(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    let per_word = 32u / gather.bits;
    let words = (gather.dim + per_word - 1u) / per_word;
    let u = shard_offsets[gather.shard] + i / words;
    if (u >= shard_offsets[gather.shard + 1u]) {
        return;
    }
    let row = rows[u];
    let word = word_at(row * gather.row_bytes + i % words * 4u);
    let scale = scales[select(row_tables[u], row, gather.row_scales != 0u)];
    let first = i % words * per_word;
    let count = min(per_word, gather.dim - first);
    for (var j = 0u; j < count; j++) {
        gathered[u * gather.dim + first + j] = (code_at(word, j, gather.bits) + gather.offset) * scale;
    }
}
