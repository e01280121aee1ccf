// The matrix products of matmul.wgsl for GPUs with subgroups of 8 lanes or more, also where the driver picks among sizes.
// Operands come straight from storage and results stay in registers; no workgroup memory, no barrier. The order of a sum's
// terms follows from no subgroup's size, so results are the same with any.
//   matmul_nn, matmul_tn  A workgroup computes 16 rows, each invocation four columns of them. Lanes 0 to 7 of each subgroup hold
//                         the rows' operands, which all lanes get by broadcast. Terms are added in the order of matmul.wgsl.
//   matmul_nt             Both operands lie along the terms: eight lanes compute 8 x 8 results, each lane every eighth four
//                         of terms, and their sums are added at the end, in one order. Subgroups must be full, one behind
//                         the other in the workgroup; the two above work with any.
// Lanes stay to the end: where an operand ends they load zeros, and stores are guarded.
// matmul_results.wgsl follows, then matmul_tiles_wide.wgsl or matmul_tiles_narrow.wgsl for what has rows of the inputs' width
// (vectors where that is a multiple of four, else words), matmul_tiles_wide_outputs.wgsl or matmul_tiles_narrow_outputs.wgsl
// for what has rows of the outputs'.

// Four terms, one after another.
fn add_row(sum: vec4<f32>, a: vec4<f32>, b: mat4x4<f32>) -> vec4<f32> {
    var s = sum + a.x * b[0];
    s += a.y * b[1];
    s += a.z * b[2];
    s += a.w * b[3];
    return s;
}

fn add_rows(s: ptr<function, Results>, r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32>, b: mat4x4<f32>) {
    (*s).r0 = add_row((*s).r0, r0, b);
    (*s).r1 = add_row((*s).r1, r1, b);
    (*s).r2 = add_row((*s).r2, r2, b);
    (*s).r3 = add_row((*s).r3, r3, b);
}

// The terms of lanes 0 to 3, one row each.
fn add_first(s: ptr<function, Results>, a: vec4<f32>, b: mat4x4<f32>) {
    add_rows(s, subgroupBroadcast(a, 0u), subgroupBroadcast(a, 1u), subgroupBroadcast(a, 2u), subgroupBroadcast(a, 3u), b);
}

// Of lanes 4 to 7.
fn add_last(s: ptr<function, Results>, a: vec4<f32>, b: mat4x4<f32>) {
    add_rows(s, subgroupBroadcast(a, 4u), subgroupBroadcast(a, 5u), subgroupBroadcast(a, 6u), subgroupBroadcast(a, 7u), b);
}

// Lane `lane` and the one whose number differs by `bit` have sums of two rows. The lower gets the first row's, the upper the other's.
fn fold(first: vec4<f32>, other: vec4<f32>, lane: u32, bit: u32) -> vec4<f32> {
    let upper = (lane & bit) != 0u;
    return select(first, other, upper) + subgroupShuffleXor(select(other, first, upper), bit);
}

// Eight lanes' sums of eight rows: lane l gets those of row l % 8.
fn fold_rows(first: Results, last: Results, lane: u32) -> vec4<f32> {
    let r0 = fold(first.r0, last.r0, lane, 4u);
    let r1 = fold(first.r1, last.r1, lane, 4u);
    let r2 = fold(first.r2, last.r2, lane, 4u);
    let r3 = fold(first.r3, last.r3, lane, 4u);
    return fold(fold(r0, r2, lane, 2u), fold(r1, r3, lane, 2u), lane, 1u);
}

// 32 x 32 results, by sixteen times eight lanes. Eight lanes fetch 128 bytes of a row at once.
@compute @workgroup_size(128)
fn matmul_nt_subgroups(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    if (group.y * 32u >= step.batch) {
        return;
    }
    let eight = (subgroup * size + lane) / 8u;
    let b = group.y * 32u + eight / 4u * 8u;
    let o = group.x * 32u + eight % 4u * 8u;
    var left0 = Results();
    var left4 = Results();
    var right0 = Results();
    var right4 = Results();
    for (var k0 = 0u; k0 < layer.inputs; k0 += 32u) {
        let k = k0 + lane % 8u * 4u;
        let left = transpose(mat4x4<f32>(w_at(o, k), w_at(o + 1u, k), w_at(o + 2u, k), w_at(o + 3u, k)));
        let right = transpose(mat4x4<f32>(w_at(o + 4u, k), w_at(o + 5u, k), w_at(o + 6u, k), w_at(o + 7u, k)));
        let x0 = x_at(b, k);
        let x1 = x_at(b + 1u, k);
        let x2 = x_at(b + 2u, k);
        let x3 = x_at(b + 3u, k);
        add_rows(&left0, x0, x1, x2, x3, left);
        add_rows(&right0, x0, x1, x2, x3, right);
        let x4 = x_at(b + 4u, k);
        let x5 = x_at(b + 5u, k);
        let x6 = x_at(b + 6u, k);
        let x7 = x_at(b + 7u, k);
        add_rows(&left4, x4, x5, x6, x7, left);
        add_rows(&right4, x4, x5, x6, x7, right);
    }
    put_y(b + lane % 8u, o, fold_rows(left0, left4, lane));
    put_y(b + lane % 8u, o + 4u, fold_rows(right0, right4, lane));
}

// Sixteen rows.
struct Rows {
    r0: Results,
    r4: Results,
    r8: Results,
    r12: Results,
}

// Lanes hold four terms of a row of dz each; a subgroup fetches consecutive columns of a row of w.
fn nn_rows(b0: u32, i0: u32, lane: u32) -> Rows {
    let b = b0 + lane % 8u;
    var r0 = Results();
    var r4 = Results();
    var r8 = Results();
    var r12 = Results();
    for (var k = 0u; k < layer.outputs; k += 4u) {
        let w = mat4x4<f32>(nn_w_at(k, i0), nn_w_at(k + 1u, i0), nn_w_at(k + 2u, i0), nn_w_at(k + 3u, i0));
        let first = dz_at(b, k);
        let last = dz_at(b + 8u, k);
        add_first(&r0, first, w);
        add_last(&r4, first, w);
        add_first(&r8, last, w);
        add_last(&r12, last, w);
    }
    return Rows(r0, r4, r8, r12);
}

// The rows are the workgroup's, so the columns may go by `index`, in whatever way a driver makes subgroups of invocations.
@compute @workgroup_size(64)
fn matmul_nn_subgroups(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let b0 = group.y * 16u;
    let i0 = group.x * 256u + 4u * index;
    if (b0 >= step.batch) {
        return;
    }
    let s = nn_rows(b0, i0, lane);
    put_dxs(s.r0, b0, i0);
    put_dxs(s.r4, b0 + 4u, i0);
    put_dxs(s.r8, b0 + 8u, i0);
    put_dxs(s.r12, b0 + 12u, i0);
}

@compute @workgroup_size(64)
fn matmul_nn_gated_subgroups(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let b0 = group.y * 16u;
    let i0 = group.x * 256u + 4u * index;
    if (b0 >= step.batch) {
        return;
    }
    let s = nn_rows(b0, i0, lane);
    put_gated_rows(s.r0, b0, i0);
    put_gated_rows(s.r4, b0 + 4u, i0);
    put_gated_rows(s.r8, b0 + 8u, i0);
    put_gated_rows(s.r12, b0 + 12u, i0);
}

// Adds a term of four rows.
fn add_term(s: ptr<function, Results>, a: vec4<f32>, b: vec4<f32>) {
    (*s).r0 += a.x * b;
    (*s).r1 += a.y * b;
    (*s).r2 += a.z * b;
    (*s).r3 += a.w * b;
}

// Lanes hold four rows of one sample each: 0 to 3 sixteen rows of a sample, 4 to 7 those of the next one. A subgroup fetches
// consecutive columns of a sample of x.
@compute @workgroup_size(64)
fn matmul_tn_subgroups(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let o0 = group.y * 16u;
    let i0 = group.x * 256u + 4u * index;
    let o = o0 + lane % 4u * 4u;
    let sample = lane % 8u / 4u;
    var r0 = Results();
    var r4 = Results();
    var r8 = Results();
    var r12 = Results();
    for (var b = 0u; b < step.batch; b += 2u) {
        let a = tn_dz_at(b + sample, o);
        let first = tn_x_at(b, i0);
        add_term(&r0, subgroupBroadcast(a, 0u), first);
        add_term(&r4, subgroupBroadcast(a, 1u), first);
        add_term(&r8, subgroupBroadcast(a, 2u), first);
        add_term(&r12, subgroupBroadcast(a, 3u), first);
        let last = tn_x_at(b + 1u, i0);
        add_term(&r0, subgroupBroadcast(a, 4u), last);
        add_term(&r4, subgroupBroadcast(a, 5u), last);
        add_term(&r8, subgroupBroadcast(a, 6u), last);
        add_term(&r12, subgroupBroadcast(a, 7u), last);
    }
    put_dws(r0, o0, i0);
    put_dws(r4, o0 + 4u, i0);
    put_dws(r8, o0 + 8u, i0);
    put_dws(r12, o0 + 12u, i0);
}
