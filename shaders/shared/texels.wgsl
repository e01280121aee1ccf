// Textures that stand for arrays of floats, one or four to a texel; src/plan/variant.rs.
fn texel(t: texture_2d<f32>, i: u32) -> vec4<f32> {
    return textureLoad(t, vec2<u32>(i % 4096u, i / 4096u), 0);
}

// n, in a way that a compiler cannot trace to a uniform: lavapipe compiles a shader anew each time it is bound when
// uniforms bound its loops or decide its branches. `group` is any number of a workgroup.
fn opaque(n: u32, group: u32) -> u32 {
    return select(n, 0u, group == 0xffffffffu);
}
