//! Times the texts that an adapter could run for matrix products, at the shapes of a plan, and says which are the
//! quickest. Looks at no clock and no file of its own: the clock is given, and what was found is data.
//!
//! Only matrix products: what other kernels cost depends on the data (which rows a batch touches), or they have one text
//! on an adapter.

use crate::engine::gpu::{GpuAdapter, GpuEngine};
use crate::engine::{Clock, Engine};
use crate::error::Result;
use crate::ops::matmul;
use crate::plan::schedule::Schedule;
use crate::plan::variant::{Choice, Picks, candidates};
use crate::plan::{Command, Plan, Role, StepUniform, View};

/// Runs that are timed, after one that is not; the quickest counts.
const RUNS: usize = 5;
/// Seconds after which no other text is tried.
const PATIENCE: f64 = 10.0;
/// The usual text stays unless another takes at most this part of its time.
const GAIN: f64 = 0.95;

/// Says which texts run the commands of a plan, before it is loaded.
pub trait Chooser: std::fmt::Debug {
    /// For `plan` with steps of up to `batch` samples; commands without a pick get the usual text.
    fn picks(&mut self, adapter: &GpuAdapter, plan: &Plan, batch: usize) -> Picks;
}

/// A command to be timed.
struct Probe {
    command: Command,
    names: Vec<&'static str>,
    seconds: Vec<f64>,
}

/// Whether the texts of this command are timed at all.
pub fn is_timed(command: &Command) -> bool {
    matmul::KERNELS.contains(&command.kernel)
}

/// `known`, and what was found for the other matrix products of `plan`. `clock` gives seconds, `progress` hears of texts
/// tried and texts in all. After ten seconds no further text is tried, and the quickest of the others counts.
///
/// # Errors
/// When the device cannot be had or is lost.
pub async fn tune(
    adapter: &GpuAdapter,
    plan: &Plan,
    batch: usize,
    known: &Picks,
    clock: Clock<'_>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Picks> {
    let mut picks = known.clone();
    let mut probes = probes(adapter, plan, known);
    let rounds = probes.iter().map(|p| p.names.len()).max().unwrap_or(0);
    let schedule = Schedule::new(bench(&mut probes), &adapter.limits)?;
    let begin = clock();
    for round in 0..rounds {
        if clock() - begin > PATIENCE {
            break;
        }
        progress(round, rounds);
        time_round(adapter, &schedule, &mut probes, round, batch, clock).await?;
    }
    for probe in &probes {
        picks.set(&probe.command, quickest(&probe.names, &probe.seconds));
    }
    Ok(picks)
}

/// The commands of `plan` that have several texts and no pick, each kind once.
fn probes(adapter: &GpuAdapter, plan: &Plan, known: &Picks) -> Vec<Probe> {
    let mut seen = known.clone();
    let mut probes = Vec::new();
    for command in plan.phases.iter().flat_map(|p| &p.commands).filter(|c| is_timed(c)) {
        let names = candidates(&adapter.traits, command);
        if names.len() > 1 && seen.get(command).is_none() {
            seen.set(command, names[0]);
            probes.push(Probe { command: command.clone(), names, seconds: Vec::new() });
        }
    }
    probes
}

/// A plan with the probes' commands alone, whose views become those of a few buffers that all of them share.
fn bench(probes: &mut [Probe]) -> Plan {
    let mut plan = Plan::new();
    plan.phase("probe");
    let bindings = probes.iter().map(|p| p.command.views.len()).max().unwrap_or(0);
    let len = |i: usize| probes.iter().filter_map(|p| p.command.views.get(i)).map(|v| v.len).max().unwrap_or(1);
    let lens: Vec<usize> = (0..bindings).map(len).collect();
    let elem = crate::plan::Elem::F32;
    let buffers: Vec<View> =
        lens.iter().enumerate().map(|(i, &len)| plan.buffer(format!("operand {i}"), "", len, elem, Role::Persistent)).collect();
    for probe in probes {
        for (view, buffer) in probe.command.views.iter_mut().zip(&buffers) {
            *view = buffer.slice(0, view.len);
        }
        plan.phases[0].commands.push(probe.command.clone());
    }
    plan
}

/// Times the texts number `round` of all probes that have so many.
async fn time_round(
    adapter: &GpuAdapter,
    schedule: &Schedule,
    probes: &mut [Probe],
    round: usize,
    batch: usize,
    clock: Clock<'_>,
) -> Result<()> {
    let mut picks = Picks::default();
    for probe in probes.iter() {
        picks.set(&probe.command, probe.names.get(round).unwrap_or(&probe.names[0]));
    }
    let mut engine = GpuEngine::load_with(adapter, schedule.clone(), Choice::Picked(&picks), true).await?;
    let step = StepUniform::evaluate(batch, 0);
    let mut best = vec![f64::INFINITY; probes.len()];
    for run in 0..=RUNS {
        let timed = engine.run_timed(&[0], &step, clock)?;
        for command in timed.commands.iter().filter(|_| run > 0) {
            best[command.command] = best[command.command].min(command.seconds);
        }
    }
    for (probe, seconds) in probes.iter_mut().zip(best) {
        if round < probe.names.len() {
            probe.seconds.push(seconds);
        }
    }
    Ok(())
}

/// The first name is the usual one; the last ones may not have been timed.
fn quickest(names: &[&'static str], seconds: &[f64]) -> &'static str {
    let usual = (names[0], seconds.first().copied().unwrap_or(0.0));
    let timed = names.iter().copied().zip(seconds.iter().copied());
    timed.filter(|(_, time)| *time <= GAIN * usual.1).min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or(usual).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_text_stays_unless_another_is_clearly_quicker() {
        let names = ["usual", "tiles", "plain"];
        assert_eq!(quickest(&names, &[1.0, 0.97, 2.0]), "usual");
        assert_eq!(quickest(&names, &[1.0, 0.9, 0.8]), "plain");
        assert_eq!(quickest(&names, &[1.0, 0.5, 0.8]), "tiles");
        assert_eq!(quickest(&names, &[f64::INFINITY, 0.5, f64::NAN]), "tiles");
        assert_eq!(quickest(&names, &[1.0, 0.5]), "tiles");
        assert_eq!(quickest(&names, &[]), "usual");
    }
}
