// For matmul_tiles.wgsl and matmul_subgroups.wgsl: what a layer is, and its results with what is fused into their store; rows
// behind the last one are not stored.

struct MatmulParams {
    inputs: u32,
    outputs: u32,
    relu: u32,
}
@group(0) @binding(0) var<uniform> layer: MatmulParams;

// Four columns of four rows.
struct Results {
    r0: vec4<f32>,
    r1: vec4<f32>,
    r2: vec4<f32>,
    r3: vec4<f32>,
}

fn put_y(row: u32, column: u32, sum: vec4<f32>) {
    if (row < step.batch) {
        let z = sum + biases(column);
        store_y(row, column, select(z, select(z, vec4<f32>(), z <= vec4<f32>()), layer.relu != 0u));
    }
}

fn put_ys(s: Results, row: u32, column: u32) {
    put_y(row, column, s.r0);
    put_y(row + 1u, column, s.r1);
    put_y(row + 2u, column, s.r2);
    put_y(row + 3u, column, s.r3);
}

fn put_dx(row: u32, column: u32, v: vec4<f32>) {
    if (row < step.batch) {
        store_dx(row, column, v);
    }
}

fn put_dxs(s: Results, row: u32, column: u32) {
    put_dx(row, column, s.r0);
    put_dx(row + 1u, column, s.r1);
    put_dx(row + 2u, column, s.r2);
    put_dx(row + 3u, column, s.r3);
}

// Zero where the gate is not positive.
fn put_gated(row: u32, column: u32, v: vec4<f32>) {
    if (row < step.batch) {
        store_dx(row, column, select(v, vec4<f32>(), gates(row, column) <= vec4<f32>()));
    }
}

fn put_gated_rows(s: Results, row: u32, column: u32) {
    put_gated(row, column, s.r0);
    put_gated(row + 1u, column, s.r1);
    put_gated(row + 2u, column, s.r2);
    put_gated(row + 3u, column, s.r3);
}

fn put_dw(row: u32, column: u32, v: vec4<f32>) {
    if (row < layer.outputs) {
        store_dw(row, column, v);
    }
}

fn put_dws(s: Results, row: u32, column: u32) {
    put_dw(row, column, s.r0);
    put_dw(row + 1u, column, s.r1);
    put_dw(row + 2u, column, s.r2);
    put_dw(row + 3u, column, s.r3);
}
