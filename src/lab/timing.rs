//! How long a kernel takes. A kernel is run again and again in one submission, between two looks at the
//! clock, and the last run is waited for; nothing is subtracted. Several texts of a kernel take turns, so
//! that whatever else the computer does falls on all of them.

use crate::engine::{Clock, Engine, Local};
use crate::error::{Error, Result};
use crate::ops::Case;
use crate::plan::{Kernel, Phase, Plan, StepUniform, View};

/// The most runs in one submission.
const MAX_RUNS: usize = 4096;
/// Timings of which the median is taken: at least, at most.
const TIMINGS: (usize, usize) = (5, 200);

/// Repeated timings of one thing, in seconds a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// Half of the timings took less.
    pub median: f64,
    /// A tenth took less.
    pub low: f64,
    /// A tenth took more.
    pub high: f64,
    /// Number of timings.
    pub timings: usize,
    /// Runs in each.
    pub runs: usize,
}

impl Timing {
    /// Of seconds a run; there is at least one.
    fn of(mut seconds: Vec<f64>, runs: usize) -> Timing {
        seconds.sort_by(f64::total_cmp);
        let last = seconds.len() - 1;
        let half = seconds.len() / 2;
        let median = if last.is_multiple_of(2) { seconds[half] } else { (seconds[half - 1] + seconds[half]) / 2.0 };
        Timing { median, low: seconds[last / 10], high: seconds[last - last / 10], timings: last + 1, runs }
    }
}

/// The plan in which a kernel of a case is timed: the case (which computes what the kernel reads), then a
/// phase of this kernel's commands alone. None when the case does not run it.
pub fn plan(case: &Case, kernel: &Kernel) -> Option<Plan> {
    let mut plan = case.plan.clone();
    let commands: Vec<_> = plan.phases.iter().flat_map(|p| &p.commands).filter(|c| c.kernel == kernel).cloned().collect();
    if commands.is_empty() {
        return None;
    }
    plan.phases.push(Phase { name: "timed", commands });
    Some(plan)
}

/// A loaded plan of [`plan`].
#[derive(Debug)]
pub struct Contestant {
    engine: Box<dyn Engine>,
    step: StepUniform,
    seen: View,
    timed: usize,
}

impl Contestant {
    /// Writes a case's inputs and runs it once.
    ///
    /// # Errors
    /// What the device says.
    pub async fn new(mut engine: Box<dyn Engine>, case: &Case) -> Result<Contestant> {
        case.inputs.iter().try_for_each(|(view, words)| engine.write(*view, words))?;
        engine.run(&[0], &case.step)?;
        let seen = case.checks.first().ok_or_else(|| Error::Plan(format!("the case `{}` compares nothing", case.name)))?;
        let mut contestant = Contestant { engine, step: case.step, seen: View { len: 1, ..seen.0 }, timed: case.plan.phases.len() };
        contestant.run(1).await?;
        Ok(contestant)
    }

    /// Runs the kernel `runs` times and waits for the last.
    fn run(&mut self, runs: usize) -> Local<'_, Result<()>> {
        Box::pin(async move {
            self.engine.run(&vec![self.timed; runs], &self.step)?;
            self.engine.read(self.seen).await.map(|_| ())
        })
    }
}

/// Times contestants in turns for about `seconds` in all.
///
/// # Errors
/// What the device says.
pub async fn race(contestants: &mut [Contestant], seconds: f64, clock: Clock<'_>) -> Result<Vec<Timing>> {
    let mut runs = Vec::new();
    for contestant in contestants.iter_mut() {
        runs.push(enough(contestant, seconds, clock).await?);
    }
    let mut timings: Vec<Vec<f64>> = vec![Vec::new(); contestants.len()];
    let start = clock();
    for turn in 0..TIMINGS.1 {
        if turn >= TIMINGS.0 && clock() - start >= seconds {
            break;
        }
        // Who begins changes, so that nobody always follows the same one.
        for i in 0..contestants.len() {
            let i = (i + turn) % contestants.len();
            let before = clock();
            contestants[i].run(runs[i]).await?;
            timings[i].push((clock() - before) / runs[i] as f64);
        }
    }
    Ok(timings.into_iter().zip(runs).map(|(list, runs)| Timing::of(list, runs)).collect())
}

/// Runs in one submission such that waiting for it counts little: a fiftieth of the time there is, at most 50 ms.
async fn enough(contestant: &mut Contestant, seconds: f64, clock: Clock<'_>) -> Result<usize> {
    let wanted = (seconds / 50.0).min(0.05);
    let mut runs = 1;
    loop {
        let before = clock();
        contestant.run(runs).await?;
        let took = clock() - before;
        if took >= wanted || runs == MAX_RUNS {
            return Ok(runs);
        }
        let factor = (1.2 * wanted / took.max(1e-9)).clamp(2.0, 32.0);
        runs = ((runs as f64 * factor) as usize).min(MAX_RUNS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab;
    use crate::ops;
    use crate::ops::matmul::BIAS_GRADIENT;
    use std::sync::Mutex;

    #[test]
    fn medians_and_spreads() {
        let timing = Timing::of(vec![3.0, 1.0, 2.0], 7);
        assert_eq!((timing.median, timing.low, timing.high, timing.timings, timing.runs), (2.0, 1.0, 3.0, 3, 7));
        let many = Timing::of((0..101).map(f64::from).collect(), 1);
        assert_eq!((many.median, many.low, many.high), (50.0, 10.0, 90.0));
        assert_eq!(Timing::of(vec![1.0, 3.0], 1).median, 2.0);
    }

    #[test]
    fn contestants_take_turns_and_are_timed_by_the_clock_they_are_given() {
        let case = ops::matmul::cases().remove(1);
        let load = || {
            let engine = pollster::block_on(lab::load(None, plan(&case, &BIAS_GRADIENT).unwrap())).unwrap();
            pollster::block_on(Contestant::new(engine, &case)).unwrap()
        };
        // A clock that goes on by 10 ms whenever somebody looks.
        let now = Mutex::new(0.0);
        let clock = || {
            let mut now = now.lock().unwrap();
            *now += 0.01;
            *now
        };
        let timings = pollster::block_on(race(&mut [load(), load()], 0.5, &clock)).unwrap();
        assert_eq!(timings.len(), 2);
        for timing in timings {
            assert_eq!(timing.runs, 1);
            assert!(timing.timings >= TIMINGS.0 && (timing.median - 0.01).abs() < 1e-9, "{timing:?}");
        }
        assert!(plan(&case, &ops::concat::CONCAT_FORWARD).is_none());
    }
}
