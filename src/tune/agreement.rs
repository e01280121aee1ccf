//! Whether a text gives what another gives on an adapter, for texts that nobody has seen run on such a device.

use crate::engine::Engine;
use crate::engine::gpu::{GpuAdapter, GpuEngine};
use crate::error::Result;
use crate::ops::case::{POISON, Tolerance, random};
use crate::ops::matmul;
use crate::plan::schedule::Schedule;
use crate::plan::variant::{Choice, Picks};
use crate::plan::{Access, Command, Elem, Plan, Role, StepUniform, View};

/// What the operands are multiplied by, in turns: of unit size, as small as gradients, and large.
const SCALES: [f32; 4] = [1.0, 1.0 / (1 << 23) as f32, 1.0, 1024.0];

/// The first result of `command`, a matrix product, that differs by more than its cases allow when the text `name` computes it in
/// place of `usual`; nothing when all results agree, several times with other operands.
///
/// # Errors
/// When the device cannot be had, refuses a text or is lost.
pub async fn difference(adapter: &GpuAdapter, command: &Command, usual: &str, name: &str) -> Result<Option<String>> {
    let (command, plan) = alone(command);
    let mut engines = Vec::new();
    for name in [usual, name] {
        let mut picks = Picks::default();
        picks.set(&command, name);
        let schedule = Schedule::new(plan.clone(), &adapter.limits)?;
        engines.push(GpuEngine::load_with(adapter, schedule, Choice::Picked(&picks), false).await?);
    }
    let step = StepUniform::evaluate(matmul::samples(&command), 0);
    let tolerance = matmul::tolerance(&command);
    for (turn, scale) in SCALES.into_iter().enumerate() {
        let mut found = Vec::new();
        for engine in &mut engines {
            found.push(results(engine, &command, &step, turn, scale).await?);
        }
        if let Some((i, usual, other)) = first_beyond(&found[0], &found[1], tolerance, scale) {
            return Ok(Some(format!("result {i} of `{}` is {other:e}, by the usual text {usual:e}", Picks::key(&command))));
        }
    }
    Ok(None)
}

/// A plan with `command` alone, each view a buffer.
fn alone(command: &Command) -> (Command, Plan) {
    let mut plan = Plan::new();
    plan.phase("product");
    let buffer = |(i, view): (usize, &View)| plan.buffer(format!("operand {i}"), "", view.len, Elem::F32, Role::Persistent);
    let views = command.views.iter().enumerate().map(buffer).collect();
    let command = Command { views, ..command.clone() };
    plan.phases[0].commands.push(command.clone());
    (command, plan)
}

/// What the command writes, from the operands of a turn. The second operand, the weights or a layer's input, keeps its size, so that
/// results are as large as `scale`.
async fn results(engine: &mut GpuEngine, command: &Command, step: &StepUniform, turn: usize, scale: f32) -> Result<Vec<f32>> {
    let bound = || command.kernel.bindings.iter().zip(&command.views).enumerate();
    for (i, (binding, view)) in bound() {
        let scale = if i == 1 { 1.0 } else { scale };
        let values = random(&format!("operand {i}, turn {turn}"), view.len).into_iter().map(|v| (v * scale).to_bits());
        let words = if binding.access == Access::Read { values.collect() } else { vec![POISON; view.len] };
        engine.write(*view, &words)?;
    }
    engine.run(&[0], step)?;
    let mut found = Vec::new();
    for (_, (_, view)) in bound().filter(|(_, (binding, _))| binding.access != Access::Read) {
        found.extend(engine.read(*view).await?.into_iter().map(f32::from_bits));
    }
    Ok(found)
}

/// The first place where `other` is not what `usual` is, with both.
fn first_beyond(usual: &[f32], other: &[f32], tolerance: Tolerance, scale: f32) -> Option<(usize, f32, f32)> {
    let mut pairs = usual.iter().zip(other).enumerate();
    let agree = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a - b).abs() <= tolerance.relative * a.abs() + tolerance.absolute * scale;
    pairs.find(|(_, (a, b))| !agree(**a, **b)).map(|(i, (a, b))| (i, *a, *b))
}
