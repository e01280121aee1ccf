// Textures that stand for arrays of floats, one or four to a texel; src/plan/variant.rs.
fn texel(t: texture_2d<f32>, i: u32) -> vec4<f32> {
    return textureLoad(t, vec2<u32>(i % 4096u, i / 4096u), 0);
}
