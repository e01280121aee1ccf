// What the stages of a product on cooperative matrices agree on. A product has left rows (those of the result), right rows (the
// result's columns) and terms. Constants in front: TILE, and what the terms are, OVER: 0 inputs, 1 outputs, 2 samples.

struct MatmulParams {
    inputs: u32,
    outputs: u32,
    relu: u32,
}
@group(0) @binding(0) var<uniform> layer: MatmulParams;

const AREA = TILE * TILE;
const LOW = 0.00048828125; // 2^-11

// Left rows, right rows and terms of this step.
fn size() -> vec3<u32> {
    let forward = vec3<u32>(step.batch, layer.outputs, layer.inputs);
    return select(select(forward.yzx, forward.xzy, OVER == 1u), forward, OVER == 0u);
}

// The same in whole tiles; rows come in pairs of them.
fn tiles() -> vec3<u32> {
    let pair = 2u * TILE;
    let n = size();
    return vec3<u32>((n.x + pair - 1u) / pair * 2u, (n.y + pair - 1u) / pair * 2u, (n.z + TILE - 1u) / TILE);
}
