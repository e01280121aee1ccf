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
use crate::plan::variant::{Choice, Picks, Traits, candidates, choose};
use crate::plan::{Command, Plan, Role, StepUniform, Variant, View};
use std::collections::{BTreeMap, BTreeSet};

mod agreement;
pub use agreement::difference;

/// Runs that are timed, after one that is not; the quickest counts.
const RUNS: usize = 5;
/// Seconds after which no other text is tried.
const PATIENCE: f64 = 10.0;
/// The usual text stays unless another takes at most this part of its time.
const GAIN: f64 = 0.95;

/// Says which texts run the commands of a plan, before it is loaded.
pub trait Chooser: std::fmt::Debug {
    /// For `plan`; commands without a pick get the usual text.
    fn picks(&mut self, adapter: &GpuAdapter, plan: &Plan) -> Picks;
}

/// What tuning found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuned {
    /// The texts.
    pub picks: Picks,
    /// Texts that were left out, and why, for the user.
    pub warnings: Vec<String>,
}

/// A command to be timed.
#[derive(Debug)]
struct Probe {
    command: Command,
    /// Samples that its views hold.
    batch: usize,
    names: Vec<&'static str>,
    seconds: Vec<f64>,
}

impl Probe {
    /// Whether the text number `round` is one that nobody gets without asking: a driver may do it wrong.
    fn is_doubtful(&self, round: usize) -> bool {
        let variant = self.names.get(round).and_then(|name| self.command.kernel.variants.iter().find(|v| v.name == *name));
        variant.is_some_and(Variant::only_on_request)
    }
}

/// Whether the texts of this command are timed at all.
pub fn is_timed(command: &Command) -> bool {
    matmul::KERNELS.contains(&command.kernel)
}

/// `known`, and what was found for the other matrix products of `plan`. `clock` gives seconds, `progress` hears of rounds
/// begun before and rounds in all; a round times one text of each product. After ten seconds no further round begins, and
/// the quickest of the texts that were timed counts. A text [for those who ask](Variant::only_on_request) counts only if it gives
/// what the usual text gives ([`difference`]); drivers err there.
///
/// # Errors
/// When the device cannot be had or is lost.
pub async fn tune(
    adapter: &GpuAdapter,
    plan: &Plan,
    known: &Picks,
    clock: Clock<'_>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Tuned> {
    let (mut picks, mut warnings) = (known.clone(), Vec::new());
    let mut probes = probes(&adapter.traits, plan, known);
    let rounds = probes.iter().map(|p| p.names.len()).max().unwrap_or(0);
    let schedule = Schedule::new(bench(&mut probes), &adapter.limits)?;
    let begin = clock();
    for round in 0..rounds {
        if clock() - begin > PATIENCE {
            break;
        }
        progress(round, rounds);
        match time_round(adapter, &schedule, &mut probes, round, clock).await {
            Err(e) if probes.iter().any(|p| p.is_doubtful(round)) => {
                let doubtful: BTreeSet<&str> = probes.iter().filter(|p| p.is_doubtful(round)).map(|p| p.names[round]).collect();
                let names = doubtful.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                warnings.push(format!("not timed: {names}: {e}"));
                probes.iter_mut().filter(|p| p.names.len() > round).for_each(|p| p.seconds.push(f64::NAN));
            }
            outcome => outcome?,
        }
    }
    for probe in &mut probes {
        let name = proved(adapter, probe, &mut warnings).await;
        picks.set(&probe.command, name);
    }
    Ok(Tuned { picks, warnings })
}

/// The quickest text, but of those that a driver may do wrong none that differs from the usual one.
async fn proved(adapter: &GpuAdapter, probe: &mut Probe, warnings: &mut Vec<String>) -> &'static str {
    loop {
        let name = quickest(&probe.names, &probe.seconds);
        let place = probe.names.iter().position(|n| *n == name).unwrap_or(0);
        if !probe.is_doubtful(place) {
            return name;
        }
        let Some(reason) = objection(adapter, &probe.command, probe.names[0], name).await else { return name };
        warnings.push(format!("`{name}` is quick here, but not used: {reason}"));
        probe.seconds[place] = f64::NAN;
    }
}

/// Why the text `name` cannot stand for the usual one, if it cannot.
async fn objection(adapter: &GpuAdapter, command: &Command, usual: &str, name: &str) -> Option<String> {
    difference(adapter, command, usual, name).await.unwrap_or_else(|e| Some(e.to_string()))
}

/// `picks`, but the usual text where one [for those who ask](Variant::only_on_request) no longer gives what the usual one gives:
/// another program had found them, and this one makes other code of the same text. `progress` as for [`tune`].
pub async fn compare_again(adapter: &GpuAdapter, plan: &Plan, picks: Picks, progress: &mut dyn FnMut(usize, usize)) -> Tuned {
    let (mut picks, mut warnings) = (picks, Vec::new());
    let mut doubtful: BTreeMap<String, (&Command, &'static str)> = BTreeMap::new();
    for command in plan.phases.iter().flat_map(|p| &p.commands).filter(|c| is_timed(c)) {
        let taken = choose(&adapter.traits, command, Choice::Picked(&picks)).filter(|v| v.only_on_request());
        doubtful.extend(taken.map(|v| (Picks::key(command), (command, v.name))));
    }
    for (done, (command, name)) in doubtful.values().enumerate() {
        progress(done, doubtful.len());
        let usual = candidates(&adapter.traits, command)[0];
        if let Some(reason) = objection(adapter, command, usual, name).await {
            warnings.push(format!("`{name}`, which the run has used, is used no longer: {reason}"));
            picks.set(command, usual);
        }
    }
    Tuned { picks, warnings }
}

/// The commands of `plan` that have several texts and no pick, each kind once, by their batches.
fn probes(traits: &Traits, plan: &Plan, known: &Picks) -> Vec<Probe> {
    let mut seen = known.clone();
    let mut probes = Vec::new();
    for command in plan.phases.iter().flat_map(|p| &p.commands).filter(|c| is_timed(c)) {
        let names = candidates(traits, command);
        if names.len() > 1 && seen.get(command).is_none() {
            seen.set(command, names[0]);
            probes.push(Probe { command: command.clone(), batch: matmul::samples(command), names, seconds: Vec::new() });
        }
    }
    probes.sort_by_key(|p| p.batch);
    probes
}

/// A plan with the probes' commands alone, a phase for each batch; their views become those of a few buffers that all of
/// them share.
fn bench(probes: &mut [Probe]) -> Plan {
    let mut plan = Plan::new();
    let bindings = probes.iter().map(|p| p.command.views.len()).max().unwrap_or(0);
    let len = |i: usize| probes.iter().filter_map(|p| p.command.views.get(i)).map(|v| v.len).max().unwrap_or(1);
    let lens: Vec<usize> = (0..bindings).map(len).collect();
    let elem = crate::plan::Elem::F32;
    let buffers: Vec<View> =
        lens.iter().enumerate().map(|(i, &len)| plan.buffer(format!("operand {i}"), "", len, elem, Role::Persistent)).collect();
    for (phase, probes) in probes.chunk_by_mut(|a, b| a.batch == b.batch).enumerate() {
        plan.phase("probe");
        for probe in probes {
            for (view, buffer) in probe.command.views.iter_mut().zip(&buffers) {
                *view = buffer.slice(0, view.len);
            }
            plan.phases[phase].commands.push(probe.command.clone());
        }
    }
    plan
}

/// For each phase of [`bench`], a step of as many samples as its views hold.
fn steps(probes: &[Probe]) -> Vec<StepUniform> {
    probes.chunk_by(|a, b| a.batch == b.batch).map(|p| StepUniform::evaluate(p[0].batch, 0)).collect()
}

/// Times the texts number `round` of all probes that have so many.
async fn time_round(adapter: &GpuAdapter, schedule: &Schedule, probes: &mut [Probe], round: usize, clock: Clock<'_>) -> Result<()> {
    let mut picks = Picks::default();
    for probe in probes.iter() {
        picks.set(&probe.command, probe.names.get(round).unwrap_or(&probe.names[0]));
    }
    let mut engine = GpuEngine::load_with(adapter, schedule.clone(), Choice::Picked(&picks), true).await?;
    let steps = steps(probes);
    let mut best = vec![f64::INFINITY; probes.len()];
    for run in 0..=RUNS {
        let mut times = Vec::with_capacity(probes.len());
        for (phase, step) in steps.iter().enumerate() {
            times.extend(engine.run_timed(&[phase], step, clock)?.commands);
        }
        for (best, time) in best.iter_mut().zip(times).filter(|_| run > 0) {
            *best = best.min(time.seconds);
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
    use crate::ops::matmul::Linear;

    /// Records a layer for `batch` samples, with its gradients when it is `trained`.
    fn layer(plan: &mut Plan, batch: usize, trained: bool) {
        let of = Linear { inputs: 64, outputs: 68, relu: true };
        plan.phase("layer");
        let mut buffer = |len| plan.buffer(String::from("b"), "", len, crate::plan::Elem::F32, Role::Persistent);
        let [x, y, w] = [batch * of.inputs, batch * of.outputs, of.inputs * of.outputs].map(&mut buffer);
        let [dx, dy, dw] = [batch * of.inputs, batch * of.outputs, of.inputs * of.outputs].map(&mut buffer);
        let [bias, d_bias] = [of.outputs, of.outputs].map(&mut buffer);
        matmul::forward(plan, "y", of, batch, x, w, bias, y);
        if trained {
            matmul::backward_weights(plan, "dw", of, dy, x, dw, d_bias);
            matmul::backward_input(plan, "dx", of, batch, dy, w, None, dx);
            matmul::backward_input(plan, "gated", of, batch, dy, w, Some(x), dx);
        }
    }

    #[test]
    fn no_product_is_timed_with_more_samples_than_its_views_hold() {
        let mut plan = Plan::new();
        layer(&mut plan, 2048, false);
        layer(&mut plan, 128, true);
        let mut probes = probes(&Traits::default(), &plan, &Picks::default());
        assert!(probes.iter().any(|p| p.command.kernel == &matmul::MATMUL_TN), "{probes:?}");
        let (bench, steps) = (bench(&mut probes), steps(&probes));
        assert_eq!(steps.iter().map(|s| s.batch).collect::<Vec<_>>(), [128, 2048]);
        assert_eq!(bench.phases.len(), steps.len());
        for (phase, step) in bench.phases.iter().zip(&steps) {
            let batch = step.batch as usize;
            for command in &phase.commands {
                let lens: Vec<usize> = command.views.iter().map(|v| v.len).collect();
                let needed = match command.kernel.name {
                    "matmul_nt" => vec![batch * 64, 64 * 68, 68, batch * 68],
                    "matmul_nn" => vec![batch * 68, 64 * 68, batch * 64],
                    "matmul_nn_gated" => vec![batch * 68, 64 * 68, batch * 64, batch * 64],
                    "matmul_tn" => vec![batch * 68, batch * 64, 64 * 68],
                    _ => vec![batch * 68, 68],
                };
                assert_eq!(lens, needed, "{}", command.label);
            }
        }
        assert_eq!(bench.phases.iter().map(|p| p.commands.len()).sum::<usize>(), probes.len());
    }

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
