// A copy, four values at a time: what memory gives where nothing is computed.
//   copy  copied[i] = source[i]

struct CopyParams {
    quads: u32,
}
@group(0) @binding(0) var<uniform> settings: CopyParams;
@group(0) @binding(1) var<storage, read> source: array<vec4<f32>>;        // [quads]
@group(0) @binding(2) var<storage, read_write> copied: array<vec4<f32>>;  // [quads]

@compute @workgroup_size(64)
fn copy(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = flat_index(id, groups);
    if (i < settings.quads) {
        copied[i] = source[i];
    }
}
