// The matrix products of matmul.wgsl for GPUs. SIDE x SIDE invocations, a slice, compute TILE x TILE results, each of
// them 4 x 4; operands pass through workgroup memory, DEPTH terms at a time, as vectors of four rows or four columns.
// Where there are few tiles, SLICES slices share one: each takes every SLICES-th run of DEPTH terms, and their sums
// are added at the end, in order. Each invocation fetches one block of 4 x 4 operands ahead, half of them on the left.
// All that workgroups read there they have written before. Edge tiles read clamped and zero, store guarded.
// `const TILE` and `const SLICES` stand in front. matmul_results.wgsl follows, then matmul_tiles_wide.wgsl or
// matmul_tiles_narrow.wgsl for what has rows of the inputs' width (vectors where that is a multiple of four, else words),
// matmul_tiles_wide_outputs.wgsl or matmul_tiles_narrow_outputs.wgsl for what has rows of the outputs'.

const SIDE = TILE / 4u;
const SLICE = SIDE * SIDE;
const DEPTH = TILE / 2u;
const DEEP = DEPTH / 4u;         // blocks along the terms
const OPERAND = DEPTH * SIDE;    // vectors of one operand
const STRIDE = DEPTH * SLICES;   // terms of one turn

// For each slice its left operand [DEPTH][SIDE], then its right one; at the end its sums.
var<workgroup> tiles: array<vec4<f32>, SLICES * 2u * OPERAND>;

// Where an invocation stands.
struct Place {
    slice: u32,   // its slice
    lane: u32,    // within the slice
    right: bool,  // it fetches blocks of the right operand
    block: u32,   // which one
    base: u32,    // where that operand begins in `tiles`
}

fn place(index: u32) -> Place {
    let slice = index / SLICE;
    let lane = index % SLICE;
    let right = lane >= SLICE / 2u;
    let block = lane % (SLICE / 2u);
    return Place(slice, lane, right, block, slice * 2u * OPERAND + select(0u, OPERAND, right));
}

// A block's place: which four rows or columns (x), which four terms (y).
fn across(block: u32) -> vec2<u32> {
    return vec2<u32>(block % SIDE, block / SIDE);
}

fn along(block: u32) -> vec2<u32> {
    return vec2<u32>(block / DEEP, block % DEEP);
}

// Neighbours in either direction lie in different banks.
fn turned(quad: u32, deep: u32) -> u32 {
    return quad ^ (deep * (8u / DEEP));
}

// Keeps a block: each vector of `m` belongs to one term.
fn keep(base: u32, at: vec2<u32>, m: mat4x4<f32>) {
    let first = base + 4u * at.y * SIDE + turned(at.x, at.y);
    tiles[first] = m[0];
    tiles[first + SIDE] = m[1];
    tiles[first + 2u * SIDE] = m[2];
    tiles[first + 3u * SIDE] = m[3];
}

fn add_term(s: ptr<function, Results>, l: vec4<f32>, r: vec4<f32>) {
    (*s).r0 += l.x * r;
    (*s).r1 += l.y * r;
    (*s).r2 += l.z * r;
    (*s).r3 += l.w * r;
}

// Adds the products of what lies in workgroup memory.
fn multiply(s: ptr<function, Results>, me: Place) {
    let left = me.slice * 2u * OPERAND;
    let right = left + OPERAND;
    for (var deep = 0u; deep < DEEP; deep++) {
        let l = left + 4u * deep * SIDE + turned(me.lane / SIDE, deep);
        let r = right + 4u * deep * SIDE + turned(me.lane % SIDE, deep);
        add_term(s, tiles[l], tiles[r]);
        add_term(s, tiles[l + SIDE], tiles[r + SIDE]);
        add_term(s, tiles[l + 2u * SIDE], tiles[r + 2u * SIDE]);
        add_term(s, tiles[l + 3u * SIDE], tiles[r + 3u * SIDE]);
    }
}

// The slices' sums, added: invocation `index` gets row index / SLICE of lane index % SLICE. Only for four slices.
fn added(s: Results, me: Place, index: u32) -> vec4<f32> {
    let first = me.slice * 4u * SLICE + me.lane;
    tiles[first] = s.r0;
    tiles[first + SLICE] = s.r1;
    tiles[first + 2u * SLICE] = s.r2;
    tiles[first + 3u * SLICE] = s.r3;
    workgroupBarrier();
    var sum = tiles[index];
    for (var slice = 1u; slice < SLICES; slice++) {
        sum += tiles[slice * 4u * SLICE + index];
    }
    return sum;
}

fn nt_block(me: Place, b0: u32, o0: u32, k0: u32) -> mat4x4<f32> {
    let at = along(me.block);
    let k = k0 + me.slice * DEPTH + 4u * at.y;
    if (me.right) {
        let o = o0 + 4u * at.x;
        return transpose(mat4x4<f32>(w_at(o, k), w_at(o + 1u, k), w_at(o + 2u, k), w_at(o + 3u, k)));
    }
    let b = b0 + 4u * at.x;
    return transpose(mat4x4<f32>(x_at(b, k), x_at(b + 1u, k), x_at(b + 2u, k), x_at(b + 3u, k)));
}

@compute @workgroup_size(256)
fn matmul_nt_tiles(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let b0 = group.y * TILE;
    let o0 = group.x * TILE;
    if (b0 >= step.batch) {
        return;
    }
    let me = place(index);
    var s = Results();
    var block = nt_block(me, b0, o0, 0u);
    for (var k0 = 0u; k0 < layer.inputs; k0 += STRIDE) {
        keep(me.base, along(me.block), block);
        workgroupBarrier();
        block = nt_block(me, b0, o0, k0 + STRIDE);
        multiply(&s, me);
        workgroupBarrier();
    }
    let row = b0 + 4u * (me.lane / SIDE);
    let column = o0 + 4u * (me.lane % SIDE);
    if (SLICES == 1u) {
        put_ys(s, row, column);
    } else {
        put_y(row + me.slice, column, added(s, me, index));
    }
}

fn nn_block(me: Place, b0: u32, i0: u32, k0: u32) -> mat4x4<f32> {
    let k1 = k0 + me.slice * DEPTH;
    if (me.right) {
        let at = across(me.block);
        let i = i0 + 4u * at.x;
        let k = k1 + 4u * at.y;
        return mat4x4<f32>(nn_w_at(k, i), nn_w_at(k + 1u, i), nn_w_at(k + 2u, i), nn_w_at(k + 3u, i));
    }
    let at = along(me.block);
    let b = b0 + 4u * at.x;
    let k = k1 + 4u * at.y;
    return transpose(mat4x4<f32>(dz_at(b, k), dz_at(b + 1u, k), dz_at(b + 2u, k), dz_at(b + 3u, k)));
}

fn nn_sums(me: Place, b0: u32, i0: u32) -> Results {
    var s = Results();
    var at = along(me.block);
    if (me.right) {
        at = across(me.block);
    }
    var block = nn_block(me, b0, i0, 0u);
    for (var k0 = 0u; k0 < layer.outputs; k0 += STRIDE) {
        keep(me.base, at, block);
        workgroupBarrier();
        block = nn_block(me, b0, i0, k0 + STRIDE);
        multiply(&s, me);
        workgroupBarrier();
    }
    return s;
}

@compute @workgroup_size(256)
fn matmul_nn_tiles(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let b0 = group.y * TILE;
    let i0 = group.x * TILE;
    if (b0 >= step.batch) {
        return;
    }
    let me = place(index);
    let s = nn_sums(me, b0, i0);
    let row = b0 + 4u * (me.lane / SIDE);
    let column = i0 + 4u * (me.lane % SIDE);
    if (SLICES == 1u) {
        put_dxs(s, row, column);
    } else {
        put_dx(row + me.slice, column, added(s, me, index));
    }
}

@compute @workgroup_size(256)
fn matmul_nn_gated_tiles(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let b0 = group.y * TILE;
    let i0 = group.x * TILE;
    if (b0 >= step.batch) {
        return;
    }
    let me = place(index);
    let s = nn_sums(me, b0, i0);
    let row = b0 + 4u * (me.lane / SIDE);
    let column = i0 + 4u * (me.lane % SIDE);
    if (SLICES == 1u) {
        put_gated_rows(s, row, column);
    } else {
        put_gated(row + me.slice, column, added(s, me, index));
    }
}

fn tn_block(me: Place, o0: u32, i0: u32, k0: u32) -> mat4x4<f32> {
    let at = across(me.block);
    let b = k0 + me.slice * DEPTH + 4u * at.y;
    if (me.right) {
        let i = i0 + 4u * at.x;
        return mat4x4<f32>(tn_x_at(b, i), tn_x_at(b + 1u, i), tn_x_at(b + 2u, i), tn_x_at(b + 3u, i));
    }
    let o = o0 + 4u * at.x;
    return mat4x4<f32>(tn_dz_at(b, o), tn_dz_at(b + 1u, o), tn_dz_at(b + 2u, o), tn_dz_at(b + 3u, o));
}

@compute @workgroup_size(256)
fn matmul_tn_tiles(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let o0 = group.y * TILE;
    let i0 = group.x * TILE;
    let me = place(index);
    var s = Results();
    var block = tn_block(me, o0, i0, 0u);
    for (var k0 = 0u; k0 < step.batch; k0 += STRIDE) {
        keep(me.base, across(me.block), block);
        workgroupBarrier();
        block = tn_block(me, o0, i0, k0 + STRIDE);
        multiply(&s, me);
        workgroupBarrier();
    }
    let row = o0 + 4u * (me.lane / SIDE);
    let column = i0 + 4u * (me.lane % SIDE);
    if (SLICES == 1u) {
        put_dws(s, row, column);
    } else {
        put_dw(row + me.slice, column, added(s, me, index));
    }
}
