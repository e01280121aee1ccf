// Codes in words of four bytes, the first in the lowest bits, two's complement; src/quant/pack.rs.

// The code number `j` of a word.
fn code_at(word: u32, j: u32, bits: u32) -> f32 {
    return f32(extractBits(bitcast<i32>(word), j * bits, bits));
}
