// The number of an invocation in a grid of workgroups of 64 that may fold into y
// (a dimension holds at most 65,535 workgroups).
fn flat_index(id: vec3<u32>, groups: vec3<u32>) -> u32 {
    return id.y * (groups.x * 64u) + id.x;
}

// The number of a workgroup in such a grid.
fn flat_group(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.y * groups.x + group.x;
}
