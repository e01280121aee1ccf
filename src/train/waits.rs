//! How long steps waited for their batches, told by step although results come later and several at once.

use std::collections::VecDeque;

/// Nanoseconds waited in all and the number of the next step, at some moment.
type Moment = (u64, u64);

/// The waits of a run.
#[derive(Debug)]
pub(super) struct Waits {
    /// Waited in all when each step began whose result is not here.
    begun: VecDeque<u64>,
    /// At the last result, and at the last report.
    arrived: Moment,
    reported: Moment,
}

impl Waits {
    /// Of a run that begins with `step`.
    pub(super) fn new(step: u64) -> Waits {
        Waits { begun: VecDeque::new(), arrived: (0, step), reported: (0, step) }
    }

    /// A step has its batch, after waits of `total` nanoseconds in all.
    pub(super) fn begun(&mut self, total: u64) {
        self.begun.push_back(total);
    }

    /// The result of the oldest step that has none has come.
    pub(super) fn arrived(&mut self) {
        if let Some(total) = self.begun.pop_front() {
            self.arrived = (total, self.arrived.1 + 1);
        }
    }

    /// A report was made of all results so far.
    pub(super) fn reported(&mut self) {
        self.reported = self.arrived;
    }

    /// Milliseconds that a step waited, a mean over those since the last report whose results are here.
    pub(super) fn mean_ms(&self) -> f64 {
        mean_ms(self.reported, self.arrived)
    }
}

/// Milliseconds that a step waited, a mean between two moments.
pub(super) fn mean_ms(from: Moment, to: Moment) -> f64 {
    to.0.saturating_sub(from.0) as f64 / 1e6 / to.1.saturating_sub(from.1).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_one_arrival_have_the_waits_of_their_own_steps() {
        let mut waits = Waits::new(7);
        let totals = [3_000_000, 3_000_000, 8_000_000, 20_000_000];
        totals.into_iter().for_each(|total| waits.begun(total));
        waits.begun(500_000_000); // its result is under way
        let mut means = Vec::new();
        for step in 0..4 {
            waits.arrived();
            if step % 2 == 1 {
                means.push(waits.mean_ms());
                waits.reported();
            }
        }
        assert_eq!(means, [1.5, 8.5]);
        assert_eq!(waits.mean_ms(), 0.0);
    }
}
