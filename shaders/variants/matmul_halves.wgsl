// Operands of products on cooperative matrices in two f16 halves; src/ops/matmul/halves.rs is the twin. Each row of an operand is
// multiplied by a power of two that brings its largest magnitude into 2^14..2^15, so that nothing overflows and what f16
// cannot hold is small beside the row:
//   x 2^e = high + low / 2^11, both rounded to the 11 bits of f16      (22 bits or more together)
//   measure  row_max[r]         = bits of the largest magnitude of row r; of the left operand, then of the right one
//   pack     left16, right16    = the halves in tiles, row by row of tiles; all high ones, then all low ones; zeros to whole tiles
// The kernel's own file says what the operands are (left, right), and ends with what follows the product.
// A row with NaN or an infinity makes NaN of all its results.

@group(0) @binding(9) var<storage, read_write> row_max: array<u32>;
@group(0) @binding(10) var<storage, read_write> left16: array<f16>;
@group(0) @binding(11) var<storage, read_write> right16: array<f16>;
@group(0) @binding(12) var<storage, read_write> sums: array<f32>;

// Element of the operands, zero outside of them; rows of the right operand follow those of the left one.
fn operand(row: u32, term: u32) -> f32 {
    let n = size();
    let before = tiles().x * TILE;
    if (term < n.z && row < n.x) {
        return left(row, term);
    }
    if (term < n.z && row >= before && row - before < n.y) {
        return right(row - before, term);
    }
    return 0.0;
}

fn abs_bits(v: f32) -> u32 {
    return bitcast<u32>(v) & 0x7fffffffu;
}

// e such that the largest magnitude times 2^e lies in 2^14..2^15, as far as 2^e and its inverse are plain floats.
fn exponent(most: u32) -> i32 {
    return clamp(141 - i32(most >> 23u), -113, 126);
}

fn power(e: i32) -> f32 {
    return bitcast<f32>(u32(e + 127) << 23u);
}

// Rounded to 11 bits, half to even; zero below 2^-14, the smallest f16 with all of its bits.
fn half(v: f32) -> f32 {
    let bits = bitcast<u32>(v);
    let rounded = bitcast<f32>((bits + 0xfffu + ((bits >> 13u) & 1u)) & 0xffffe000u);
    return select(rounded, 0.0, abs_bits(v) < 0x38800000u);
}

var<workgroup> largest: array<u32, 64>;

// Eight rows, eight invocations to each.
@compute @workgroup_size(8, 8)
fn measure(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let row = group.y * 8u + index / 8u;
    let terms = size().z;
    var most = 0u;
    for (var term = index % 8u; term < terms; term += 8u) {
        most = max(most, abs_bits(operand(row, term)));
    }
    largest[index] = most;
    workgroupBarrier();
    let tiles = tiles();
    if (index % 8u == 0u && row < (tiles.x + tiles.y) * TILE) {
        for (var i = 1u; i < 8u; i++) {
            most = max(most, largest[index + i]);
        }
        row_max[row] = most;
    }
}

@compute @workgroup_size(8, 8)
fn pack(@builtin(global_invocation_id) id: vec3<u32>) {
    let tiles = tiles();
    let before = tiles.x * TILE;
    if (id.x >= tiles.z * TILE || id.y >= before + tiles.y * TILE) {
        return;
    }
    let most = row_max[id.y];
    let value = select(operand(id.y, id.x) * power(exponent(most)), 0.0, most >= 0x7f800000u);
    let high = half(value);
    let low = half((value - high) * 2048.0);
    let row = select(id.y, id.y - before, id.y >= before);
    let at = (row / TILE * tiles.z + id.x / TILE) * AREA + row % TILE * TILE + id.x % TILE;
    if (id.y < before) {
        left16[at] = f16(high);
        left16[at + before * tiles.z * TILE] = f16(low);
    } else {
        right16[at] = f16(high);
        right16[at + tiles.y * tiles.z * AREA] = f16(low);
    }
}

// The sum of products of a left and a right row.
fn joined(row: u32, column: u32) -> f32 {
    let tiles = tiles();
    let left_max = row_max[row];
    let right_max = row_max[tiles.x * TILE + column];
    let worst = max(left_max, right_max);
    if (worst >= 0x7f800000u) {
        return bitcast<f32>(worst | 0x00400000u);
    }
    let e = -exponent(left_max) - exponent(right_max);
    let at = (row / TILE * tiles.y + column / TILE) * AREA + row % TILE * TILE + column % TILE;
    // in two steps, neither of which leaves the range before the other
    return sums[at] * power(e / 2) * power(e - e / 2);
}
