// What changes each step; StepUniform in src/plan/kernel.rs.
struct Step {
    batch: u32,      // live samples
    touched: u32,    // live touched rows
    slot: u32,       // place in the ring of results
    inv_batch: f32,  // 1 / batch
    lr: f32,         // learning rate of the MLPs
    lr_rows: f32,    // learning rate of the tables
    adam_1: f32,     // 1 / (1 - beta1^t)
    adam_2: f32,     // 1 / (1 - beta2^t)
}
@group(1) @binding(0) var<uniform> step: Step;
