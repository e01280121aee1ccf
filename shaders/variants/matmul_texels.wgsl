// The matrix products of matmul.wgsl for software adapters with subgroups of 8, where fetching operands costs far
// more than multiplying them: a subgroup computes 32 x 32 results in registers, each lane four columns of 32 rows.
// A lane fetches four rows' values and all lanes get them by broadcast; operands come as texels, which llvmpipe
// fetches several times faster than words of buffers. No workgroup memory, no barrier. Terms are added in the same
// order as in matmul.wgsl.
// matmul_wide.wgsl or matmul_narrow.wgsl follows for what has rows of the inputs' width (four floats in a texel where
// that is a multiple of four, else one), matmul_wide_outputs.wgsl or
// matmul_narrow_outputs.wgsl for what has rows of the outputs'.

struct MatmulParams {
    inputs: u32,
    outputs: u32,
    relu: u32,
}
@group(0) @binding(0) var<uniform> layer: MatmulParams;

// Four columns of eight rows.
struct Rows {
    r0: vec4<f32>,
    r1: vec4<f32>,
    r2: vec4<f32>,
    r3: vec4<f32>,
    r4: vec4<f32>,
    r5: vec4<f32>,
    r6: vec4<f32>,
    r7: vec4<f32>,
}

// Four terms, one after another.
fn add_row(sum: vec4<f32>, a: vec4<f32>, b: mat4x4<f32>) -> vec4<f32> {
    var s = sum + a.x * b[0];
    s += a.y * b[1];
    s += a.z * b[2];
    s += a.w * b[3];
    return s;
}

// `a`: this lane's row at four k; `b`: four columns at each of these k.
fn add(t: ptr<function, Rows>, a: vec4<f32>, b: mat4x4<f32>) {
    (*t).r0 = add_row((*t).r0, subgroupBroadcast(a, 0u), b);
    (*t).r1 = add_row((*t).r1, subgroupBroadcast(a, 1u), b);
    (*t).r2 = add_row((*t).r2, subgroupBroadcast(a, 2u), b);
    (*t).r3 = add_row((*t).r3, subgroupBroadcast(a, 3u), b);
    (*t).r4 = add_row((*t).r4, subgroupBroadcast(a, 4u), b);
    (*t).r5 = add_row((*t).r5, subgroupBroadcast(a, 5u), b);
    (*t).r6 = add_row((*t).r6, subgroupBroadcast(a, 6u), b);
    (*t).r7 = add_row((*t).r7, subgroupBroadcast(a, 7u), b);
}

@group(0) @binding(1) var x: texture_2d<f32>;                   // [B, inputs]
@group(0) @binding(2) var w: texture_2d<f32>;                   // [outputs, inputs]
@group(0) @binding(3) var<storage, read> bias: array<f32>;      // [outputs]

fn put_y(row: u32, column: u32, sum: vec4<f32>, offset: vec4<f32>) {
    let z = sum + offset;
    if (row < step.batch) {
        store_y(row, column, select(z, select(z, vec4<f32>(), z <= vec4<f32>()), layer.relu != 0u));
    }
}

fn put_ys(t: Rows, row: u32, column: u32, offset: vec4<f32>) {
    put_y(row, column, t.r0, offset);
    put_y(row + 1u, column, t.r1, offset);
    put_y(row + 2u, column, t.r2, offset);
    put_y(row + 3u, column, t.r3, offset);
    put_y(row + 4u, column, t.r4, offset);
    put_y(row + 5u, column, t.r5, offset);
    put_y(row + 6u, column, t.r6, offset);
    put_y(row + 7u, column, t.r7, offset);
}

@compute @workgroup_size(8)
fn matmul_nt_texels(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let b0 = group.y * 32u;
    let o0 = group.x * 32u + 4u * lane;
    let n = opaque(layer.inputs, group.x);
    if (b0 >= step.batch) {
        return;
    }
    let b = min(vec4<u32>(b0, b0 + 8u, b0 + 16u, b0 + 24u) + lane, vec4<u32>(step.batch - 1u)) * n;
    let columns = min(vec4<u32>(o0, o0 + 1u, o0 + 2u, o0 + 3u), vec4<u32>(layer.outputs - 1u));
    let o = columns * n;
    var t0 = Rows();
    var t1 = Rows();
    var t2 = Rows();
    var t3 = Rows();
    for (var k = 0u; k < n; k += 4u) {
        let live = n - k;
        let ws = transpose(mat4x4<f32>(four(w, o.x + k, live), four(w, o.y + k, live), four(w, o.z + k, live), four(w, o.w + k, live)));
        add(&t0, four(x, b.x + k, live), ws);
        add(&t1, four(x, b.y + k, live), ws);
        add(&t2, four(x, b.z + k, live), ws);
        add(&t3, four(x, b.w + k, live), ws);
    }
    let offset = vec4<f32>(bias[columns.x], bias[columns.y], bias[columns.z], bias[columns.w]);
    put_ys(t0, b0, o0, offset);
    put_ys(t1, b0 + 8u, o0, offset);
    put_ys(t2, b0 + 16u, o0, offset);
    put_ys(t3, b0 + 24u, o0, offset);
}

@group(0) @binding(1) var dz: texture_2d<f32>;                    // [B, outputs]
@group(0) @binding(2) var nn_w: texture_2d<f32>;                  // [outputs, inputs]

fn put_dx(row: u32, column: u32, v: vec4<f32>) {
    if (row < step.batch) {
        store_dx(row, column, v);
    }
}

fn put_dxs(t: Rows, row: u32, column: u32) {
    put_dx(row, column, t.r0);
    put_dx(row + 1u, column, t.r1);
    put_dx(row + 2u, column, t.r2);
    put_dx(row + 3u, column, t.r3);
    put_dx(row + 4u, column, t.r4);
    put_dx(row + 5u, column, t.r5);
    put_dx(row + 6u, column, t.r6);
    put_dx(row + 7u, column, t.r7);
}

// Zero where the gate is not positive.
fn pass_gate(v: vec4<f32>, row: u32, column: u32) -> vec4<f32> {
    return select(v, vec4<f32>(), gates(min(row, step.batch - 1u), min(column, layer.inputs - 1u)) <= vec4<f32>());
}

fn pass_gates(t: Rows, row: u32, column: u32) -> Rows {
    return Rows(
        pass_gate(t.r0, row, column),
        pass_gate(t.r1, row + 1u, column),
        pass_gate(t.r2, row + 2u, column),
        pass_gate(t.r3, row + 3u, column),
        pass_gate(t.r4, row + 4u, column),
        pass_gate(t.r5, row + 5u, column),
        pass_gate(t.r6, row + 6u, column),
        pass_gate(t.r7, row + 7u, column),
    );
}

struct Tile {
    t0: Rows,
    t1: Rows,
    t2: Rows,
    t3: Rows,
}

fn nn_tile(b0: u32, i0: u32, lane: u32) -> Tile {
    let n = opaque(layer.outputs, b0);
    let b = min(vec4<u32>(b0, b0 + 8u, b0 + 16u, b0 + 24u) + lane, vec4<u32>(step.batch - 1u)) * n;
    let column = min(i0, layer.inputs - 1u);
    var t0 = Rows();
    var t1 = Rows();
    var t2 = Rows();
    var t3 = Rows();
    for (var k = 0u; k < n; k += 4u) {
        let live = n - k;
        let o = min(vec4<u32>(k, k + 1u, k + 2u, k + 3u), vec4<u32>(n - 1u)) * layer.inputs + column;
        let ws = mat4x4<f32>(four(nn_w, o.x, 4u), four(nn_w, o.y, 4u), four(nn_w, o.z, 4u), four(nn_w, o.w, 4u));
        add(&t0, four_outputs(dz, b.x + k, live), ws);
        add(&t1, four_outputs(dz, b.y + k, live), ws);
        add(&t2, four_outputs(dz, b.z + k, live), ws);
        add(&t3, four_outputs(dz, b.w + k, live), ws);
    }
    return Tile(t0, t1, t2, t3);
}

@compute @workgroup_size(8)
fn matmul_nn_texels(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let b0 = group.y * 32u;
    let i0 = group.x * 32u + 4u * lane;
    if (b0 >= step.batch) {
        return;
    }
    let tile = nn_tile(b0, i0, lane);
    put_dxs(tile.t0, b0, i0);
    put_dxs(tile.t1, b0 + 8u, i0);
    put_dxs(tile.t2, b0 + 16u, i0);
    put_dxs(tile.t3, b0 + 24u, i0);
}

@compute @workgroup_size(8)
fn matmul_nn_gated_texels(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let b0 = group.y * 32u;
    let i0 = group.x * 32u + 4u * lane;
    if (b0 >= step.batch) {
        return;
    }
    let tile = nn_tile(b0, i0, lane);
    put_dxs(pass_gates(tile.t0, b0, i0), b0, i0);
    put_dxs(pass_gates(tile.t1, b0 + 8u, i0), b0 + 8u, i0);
    put_dxs(pass_gates(tile.t2, b0 + 16u, i0), b0 + 16u, i0);
    put_dxs(pass_gates(tile.t3, b0 + 24u, i0), b0 + 24u, i0);
}

@group(0) @binding(1) var tn_dz: texture_2d<f32>;                 // [B, outputs]
@group(0) @binding(2) var tn_x: texture_2d<f32>;                  // [B, inputs]

fn put_dw(row: u32, column: u32, v: vec4<f32>) {
    if (row < layer.outputs) {
        store_dw(row, column, v);
    }
}

// Every fourth row.
fn put_dws(t: Rows, row: u32, column: u32) {
    put_dw(row, column, t.r0);
    put_dw(row + 4u, column, t.r1);
    put_dw(row + 8u, column, t.r2);
    put_dw(row + 12u, column, t.r3);
    put_dw(row + 16u, column, t.r4);
    put_dw(row + 20u, column, t.r5);
    put_dw(row + 24u, column, t.r6);
    put_dw(row + 28u, column, t.r7);
}

// Four values of sample b, zero behind the last sample.
fn dz_of(b: u32, column: u32) -> vec4<f32> {
    let v = four_outputs(tn_dz, min(b, step.batch - 1u) * layer.outputs + column, 4u);
    return select(vec4<f32>(), v, b < step.batch);
}

fn x_of(b: u32, column: u32) -> vec4<f32> {
    let v = four(tn_x, min(b, step.batch - 1u) * layer.inputs + column, 4u);
    return select(vec4<f32>(), v, b < step.batch);
}

@compute @workgroup_size(8)
fn matmul_tn_texels(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let o0 = group.y * 32u;
    let i0 = group.x * 32u + 4u * lane;
    let row = min(o0 + 4u * lane, layer.outputs - 1u);
    let column = min(i0, layer.inputs - 1u);
    var t0 = Rows();
    var t1 = Rows();
    var t2 = Rows();
    var t3 = Rows();
    for (var b = 0u; b < opaque(step.batch, group.x); b += 4u) {
        let zs = transpose(mat4x4<f32>(
            dz_of(b, row),
            dz_of(b + 1u, row),
            dz_of(b + 2u, row),
            dz_of(b + 3u, row),
        ));
        let xs = mat4x4<f32>(
            x_of(b, column),
            x_of(b + 1u, column),
            x_of(b + 2u, column),
            x_of(b + 3u, column),
        );
        add(&t0, zs[0], xs);
        add(&t1, zs[1], xs);
        add(&t2, zs[2], xs);
        add(&t3, zs[3], xs);
    }
    put_dws(t0, o0, i0);
    put_dws(t1, o0 + 1u, i0);
    put_dws(t2, o0 + 2u, i0);
    put_dws(t3, o0 + 3u, i0);
}

@group(0) @binding(1) var bias_dz: texture_2d<f32>;                      // [B, outputs]
@group(0) @binding(2) var<storage, read_write> d_bias4: array<vec4<f32>>; // [outputs]

// Four columns an invocation.
@compute @workgroup_size(8)
fn bias_gradient_texels(@builtin(global_invocation_id) id: vec3<u32>) {
    let fours = layer.outputs / 4u;
    if (id.x >= fours) {
        return;
    }
    var sum = vec4<f32>();
    for (var b = 0u; b < opaque(step.batch, id.x); b++) {
        sum += texel(bias_dz, b * fours + id.x);
    }
    d_bias4[id.x] = sum;
}
