// Dot interaction as in interaction.wgsl, for software adapters: vectors come as texels, four floats to one (D is a
// multiple of four), and a grid with a row for each sample needs no division. Sums are taken in the same order.

struct InteractionParams {
    tables: u32,
    dim: u32,
    diagonal: u32,
}
@group(0) @binding(0) var<uniform> dot_of: InteractionParams;
@group(0) @binding(1) var dense: texture_2d<f32>;                  // [B, D]
@group(0) @binding(2) var pooled: texture_2d<f32>;                 // [B, K, D]
@group(0) @binding(3) var<storage, read_write> joined: array<f32>; // [B, D + pairs]

fn width() -> u32 {
    let vectors = dot_of.tables + 1u;
    return dot_of.dim + select(vectors * (vectors - 1u), vectors * (vectors + 1u), dot_of.diagonal != 0u) / 2u;
}

// First pair of row i.
fn row_start(i: u32) -> u32 {
    return select(i * (i - 1u), i * (i + 1u), dot_of.diagonal != 0u) / 2u;
}

// The row of a pair: the root's floor, made right where it was rounded.
fn row_of(pair: u32) -> u32 {
    let root = sqrt(8.0 * f32(pair) + 1.0);
    var i = u32(select(0.5 * (root + 1.0), 0.5 * (root - 1.0), dot_of.diagonal != 0u));
    i = select(i, i - 1u, row_start(i) > pair);
    return select(i, i + 1u, row_start(i + 1u) <= pair);
}

// The dot product in the order of its terms.
fn add_dot(sum: f32, a: vec4<f32>, b: vec4<f32>) -> f32 {
    let p = a * b;
    return (((sum + p.x) + p.y) + p.z) + p.w;
}

@compute @workgroup_size(64)
fn interaction_forward_texels(@builtin(global_invocation_id) id: vec3<u32>) {
    let b = id.y;
    let column = id.x;
    let all = width();
    if (b >= step.batch || column >= all) {
        return;
    }
    let fours = dot_of.dim / 4u;
    let first = b * fours;                      // texel of the dense vector
    let table = b * dot_of.tables * fours;      // texel of the first table's vector
    let pair = max(column, dot_of.dim) - dot_of.dim;
    let i = row_of(pair);
    let j = pair - row_start(i);
    var sum = 0.0;
    for (var d = 0u; d < opaque(fours, b); d++) {
        let zero = texel(dense, first + d);
        let left = select(texel(pooled, table + (max(i, 1u) - 1u) * fours + d), zero, i == 0u);
        let right = select(texel(pooled, table + (max(j, 1u) - 1u) * fours + d), zero, j == 0u);
        sum = add_dot(sum, left, right);
    }
    let direct = texel(dense, first + min(column / 4u, fours - 1u));
    let low = select(direct.x, direct.y, column % 2u == 1u);
    let high = select(direct.z, direct.w, column % 2u == 1u);
    let copied = select(low, high, column % 4u >= 2u);
    joined[b * all + column] = select(sum, copied, column < dot_of.dim);
}

@group(0) @binding(3) var d_joined: texture_2d<f32>;                        // [B, D + pairs], one float to a texel
@group(0) @binding(4) var<storage, read_write> d_dense4: array<vec4<f32>>;  // [B, D]
@group(0) @binding(5) var<storage, read_write> d_pooled4: array<vec4<f32>>; // [B, K, D]

@compute @workgroup_size(64)
fn interaction_backward_texels(@builtin(global_invocation_id) id: vec3<u32>) {
    let b = id.y;
    let fours = dot_of.dim / 4u;
    let i = id.x / fours;
    let d = id.x % fours;
    if (b >= step.batch || i > dot_of.tables) {
        return;
    }
    let first = b * fours + d;
    let table = b * dot_of.tables * fours + d;
    let upstream = b * width() + dot_of.dim;
    let own = row_start(i);
    let zero = texel(dense, first);
    // j = 0, then the tables; a vector meets itself only on the diagonal, where it counts twice.
    var sum = vec4<f32>();
    if (i > 0u) {
        sum += texel(d_joined, upstream + own).x * zero;
    } else if (opaque(dot_of.diagonal, b) != 0u) {
        sum += 2.0 * texel(d_joined, upstream).x * zero;
    }
    for (var j = 1u; j <= opaque(dot_of.tables, b); j++) {
        let at = select(row_start(j) + i, own + j, j < i);
        let g = texel(d_joined, upstream + at).x;
        let term = select(g, 2.0 * g, i == j) * texel(pooled, table + (j - 1u) * fours);
        sum = select(sum + term, sum, i == j && dot_of.diagonal == 0u);
    }
    if (i == 0u) {
        let at = b * width() + 4u * d;
        let direct = vec4<f32>(texel(d_joined, at).x, texel(d_joined, at + 1u).x, texel(d_joined, at + 2u).x, texel(d_joined, at + 3u).x);
        d_dense4[first] = select(sum + direct, vec4<f32>(), zero <= vec4<f32>());
    } else {
        d_pooled4[table + (i - 1u) * fours] = sum;
    }
}
