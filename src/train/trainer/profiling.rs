//! Steps whose commands are timed.

use super::{Observe, Trainer};
use crate::data::Batch;
use crate::data::loader::Loader;
use crate::error::Result;
use crate::profile::{HostTimes, Profile};
use crate::train::Event;
use std::iter::Peekable;
use std::time::Instant;

/// Steps before those that count: shaders are compiled, memory is touched, the engine finds out how to time commands.
const WARM_UP: u64 = 10;

/// Some steps to profile.
pub(super) struct Profiler {
    origin: Instant,
    /// The first step that counts.
    first: u64,
    /// Steps that count.
    steps: u64,
    profile: Profile,
}

impl Profiler {
    /// `wanted` steps of a run of `steps` that begins at `first`; none where that is 0.
    pub(super) fn new(wanted: u64, first: u64, steps: u64, device: &str) -> Option<Profiler> {
        let left = steps.saturating_sub(first);
        let warm_up = left.saturating_sub(wanted).clamp(1, WARM_UP);
        let profiler = || Profiler { origin: Instant::now(), first: first + warm_up, steps: wanted, profile: Profile::new(device) };
        (wanted > 0 && left > 0).then(profiler)
    }
}

impl Trainer<'_> {
    /// One step with the times of its commands; `None` when nothing is profiled (any more).
    pub(super) fn timed_step(&mut self, batches: &mut Peekable<Loader>, observe: Observe<'_>) -> Option<Result<Batch>> {
        let origin = self.profiler.as_ref()?.origin;
        let clock = || origin.elapsed().as_secs_f64();
        let wait = clock();
        let batch = match batches.next()? {
            Ok(batch) => batch,
            Err(error) => return Some(Err(error)),
        };
        self.announce(batches);
        let begin = clock();
        let run = match self.session.train_step_timed(self.step, &batch, &clock) {
            Ok(run) => run,
            Err(error) => return Some(Err(error)),
        };
        let profiler = self.profiler.as_mut()?;
        if self.step >= profiler.first {
            profiler.profile.push(self.session.plan(), self.step, &batch, HostTimes { wait, begin, end: clock() }, &run);
        }
        if profiler.profile.steps == profiler.steps {
            self.end_profile(observe);
        }
        Some(Ok(batch))
    }

    /// Tells what was profiled, once.
    pub(super) fn end_profile(&mut self, observe: Observe<'_>) {
        if let Some(profiler) = self.profiler.take() {
            observe(&Event::Profiled(&profiler.profile));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_runs_warm_up_less() {
        let first = |wanted, first, steps| Profiler::new(wanted, first, steps, "").map(|p| p.first);
        assert_eq!(first(20, 0, 1000), Some(10));
        assert_eq!(first(20, 0, 25), Some(5));
        assert_eq!(first(20, 0, 20), Some(1), "the first step is never counted");
        assert_eq!(first(20, 500, 1000), Some(510));
        assert_eq!(first(0, 0, 1000), None);
        assert_eq!(first(20, 1000, 1000), None);
    }
}
