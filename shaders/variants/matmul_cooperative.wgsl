// Matrix products of f16 tiles with f32 sums on cooperative matrices. Each f32 operand is two f16 matrices, high + low / 2^11
// (matmul_halves.wgsl makes them); of their four products the three that matter are summed:
//   sums = high high + (high low + low high) / 2^11
// The first is added up outside of the matrix unit, whose own sums may be cut off instead of rounded (Ootomo and Yokota,
// "Recovering single precision accuracy from Tensor Cores while surpassing the FP32 theoretical peak performance",
// arXiv 2203.03341). Tiles are loaded from storage and stored to storage, without workgroup memory and barriers.
// Constants in front: TILE, and Left, Right and Sums, the matrices of that side.

@group(0) @binding(10) var<storage, read_write> left16: array<f16>;
@group(0) @binding(11) var<storage, read_write> right16: array<f16>;
@group(0) @binding(12) var<storage, read_write> sums: array<f32>;

// A subgroup computes blocks of 2 x 2 tiles.
@compute @workgroup_size(64)
fn matmul_cooperative(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    let tiles = tiles();
    let columns = tiles.y / 2u;
    let blocks = columns * (tiles.x / 2u);
    let run = tiles.z * AREA;            // one row of tiles
    let left_low = tiles.x * run;
    let right_low = tiles.y * run;
    for (var block = group.x * subgroups + subgroup; block < blocks; block += groups.x * subgroups) {
        let row = block / columns * 2u;
        let column = block % columns * 2u;
        let zero = Sums();
        var high00 = Sums();
        var high01 = Sums();
        var high10 = Sums();
        var high11 = Sums();
        var low00 = Sums();
        var low01 = Sums();
        var low10 = Sums();
        var low11 = Sums();
        for (var term = 0u; term < run; term += AREA) {
            let l0 = row * run + term;
            let l1 = l0 + run;
            let r0 = column * run + term;
            let r1 = r0 + run;
            let lh0 = coopLoadT<Left>(&left16[l0], TILE);
            let lh1 = coopLoadT<Left>(&left16[l1], TILE);
            let ll0 = coopLoadT<Left>(&left16[left_low + l0], TILE);
            let ll1 = coopLoadT<Left>(&left16[left_low + l1], TILE);
            let rh0 = coopLoad<Right>(&right16[r0], TILE);
            let rh1 = coopLoad<Right>(&right16[r1], TILE);
            let rl0 = coopLoad<Right>(&right16[right_low + r0], TILE);
            let rl1 = coopLoad<Right>(&right16[right_low + r1], TILE);
            high00 = high00 + coopMultiplyAdd(lh0, rh0, zero);
            high01 = high01 + coopMultiplyAdd(lh0, rh1, zero);
            high10 = high10 + coopMultiplyAdd(lh1, rh0, zero);
            high11 = high11 + coopMultiplyAdd(lh1, rh1, zero);
            low00 = coopMultiplyAdd(lh0, rl0, coopMultiplyAdd(ll0, rh0, low00));
            low01 = coopMultiplyAdd(lh0, rl1, coopMultiplyAdd(ll0, rh1, low01));
            low10 = coopMultiplyAdd(lh1, rl0, coopMultiplyAdd(ll1, rh0, low10));
            low11 = coopMultiplyAdd(lh1, rl1, coopMultiplyAdd(ll1, rh1, low11));
        }
        let at = (row * tiles.y + column) * AREA;
        let below = at + tiles.y * AREA;
        coopStoreT(high00 + low00 * LOW, &sums[at], TILE);
        coopStoreT(high01 + low01 * LOW, &sums[at + AREA], TILE);
        coopStoreT(high10 + low10 * LOW, &sums[below], TILE);
        coopStoreT(high11 + low11 * LOW, &sums[below + AREA], TILE);
    }
}
