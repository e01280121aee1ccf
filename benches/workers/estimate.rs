//! How long all this will take, from a few steps.

use super::cost;
use super::quality;
use super::runs::Runs;
use dqrm::Result;
use std::collections::HashSet;

/// Steps of the probe.
const STEPS: u64 = 40;
/// Seconds of a run besides its steps: weights, a checkpoint, threads.
const AROUND: f64 = 1.0;

/// Says on standard error what will be done and about how long it takes.
pub(crate) fn print(runs: &mut Runs) -> Result<()> {
    let args = &runs.args;
    let wanted = |table: &str| args.table == "all" || args.table == table;
    let mut keys = HashSet::new();
    for (table, plan) in [("4", quality::plan_4(args)), ("6", quality::plan_6(args)), ("10", quality::plan_10(args))] {
        if wanted(table) && args.epochs > 0 {
            keys.extend(plan.iter().flat_map(|(s, count, batch)| args.seeds.iter().map(|&seed| runs.key(s, *count, *batch, seed))));
        }
    }
    let step = runs.simulated_ms(STEPS)? / 1e3;
    let epoch = step * runs.epoch_steps(args.workers * args.batch) as f64;
    let quality = keys.len() as f64 * (args.epochs as f64 * epoch + AROUND);
    let mut timing = 0.0;
    if wanted("4") && args.steps > 0 {
        for scheme in cost::SCHEMES {
            for network in cost::networks()? {
                let sent = cost::sent_bytes(runs, &scheme);
                let wire = network.map_or(0.0, |n| n.time(sent as usize).as_secs_f64());
                timing += args.rounds as f64 * (args.steps as f64 * (step + wire) + AROUND);
            }
        }
    }
    eprintln!(
        "a step of {} logical workers takes about {:.1} ms, an epoch {epoch:.0} s; {} runs for quality about {:.0} min, timing about {:.0} min",
        args.workers,
        1e3 * step,
        keys.len(),
        (quality / 60.0).ceil(),
        (timing / 60.0).ceil()
    );
    Ok(())
}
