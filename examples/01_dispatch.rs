//! One kernel by hand: record a plan with a single command, check it, load it on an engine, run it,
//! read the result. Everything the crate does is made of these steps.
//!
//! ```text
//! cargo run --example 01_dispatch
//! ```
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use dqrm::Result;
use dqrm::engine::Engine;
use dqrm::engine::cpu::CpuEngine;
use dqrm::engine::gpu::{GpuEngine, adapters};
use dqrm::ops::matmul::{self, Linear};
use dqrm::plan::schedule::Schedule;
use dqrm::plan::{Elem, Plan, Role, StepUniform, View};
use pollster::block_on;

const BATCH: usize = 2;
const LAYER: Linear = Linear { inputs: 3, outputs: 4, relu: true };

/// Writes the inputs, runs phase 0, reads the result.
fn dispatch(engine: &mut dyn Engine, inputs: &[(View, Vec<f32>)], result: View) -> Result<Vec<f32>> {
    for (view, values) in inputs {
        engine.write(*view, bytemuck::cast_slice(values))?;
    }
    engine.run(&[0], &StepUniform::evaluate(BATCH, 0))?;
    Ok(bytemuck::cast_slice(&block_on(engine.read(result))?).to_vec())
}

fn main() -> Result<()> {
    // 1. Record. A plan is plain data: named buffers, phases, commands.
    let mut plan = Plan::new();
    let x = plan.buffer("x", "[B, inputs]", BATCH * LAYER.inputs, Elem::F32, Role::Input);
    let w = plan.buffer("w", "[outputs, inputs]", LAYER.outputs * LAYER.inputs, Elem::F32, Role::Persistent);
    let bias = plan.buffer("bias", "[outputs]", LAYER.outputs, Elem::F32, Role::Persistent);
    let y = plan.buffer("y", "[B, outputs]", BATCH * LAYER.outputs, Elem::F32, Role::Persistent);
    plan.phase("forward");
    matmul::forward(&mut plan, "a linear layer", LAYER, BATCH, x, w, bias, y);
    println!("1. the plan\n{plan}");

    // 2. Schedule. Rules and limits are checked once, before any device is asked.
    let schedule = Schedule::new(plan.clone(), &CpuEngine::limits(None))?;
    println!(
        "2. the schedule: {} bytes in {} slots, {} bytes of parameters\n",
        schedule.bytes(),
        schedule.slots.len(),
        schedule.params.len()
    );

    // 3. Load, write, run, read: on the CPU, where the kernel's twin in plain Rust runs …
    let inputs = [
        (x, vec![1.0, 2.0, 3.0, -1.0, 0.5, 0.0]),
        (w, (0..12).map(|i| (i as f32 - 5.0) / 4.0).collect()),
        (bias, vec![0.0, 0.5, -1.0, 0.25]),
    ];
    let twin = dispatch(&mut CpuEngine::load(schedule), &inputs, y)?;
    println!("3. y = relu(x Wt + bias)");
    twin.chunks(LAYER.outputs).enumerate().for_each(|(b, row)| println!("   cpu, sample {b}: {row:?}"));

    // … and on an adapter, where the very same plan becomes pipelines and bind groups.
    let Some(adapter) = block_on(adapters()).into_iter().next() else {
        println!("   no graphics adapter here, so there is nothing to compare with");
        return Ok(());
    };
    let mut engine = block_on(GpuEngine::load(&adapter, Schedule::new(plan, &adapter.limits)?))?;
    let shader = dispatch(&mut engine, &inputs, y)?;
    shader.chunks(LAYER.outputs).enumerate().for_each(|(b, row)| println!("   {}, sample {b}: {row:?}", adapter.name));

    let largest = twin.iter().zip(&shader).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    println!("\n4. largest difference between twin and shader: {largest:e}");
    assert!(largest < 1e-5, "twin and shader disagree");
    Ok(())
}
