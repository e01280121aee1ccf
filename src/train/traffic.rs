//! What workers exchanged, as it is shown and written to `metrics.jsonl`: means over the steps of a report.

use super::stepper::Stepped;
use crate::config::Shape;
use crate::dist::exchange::Times;
use crate::dist::ledger::{Bytes, Ledger};
use crate::dist::transport::network::Network;
use serde::Serialize;

/// Means over some steps, of one worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Traffic {
    /// Bytes of a step: its gradient, counted once.
    pub gradient: Bytes,
    /// Bytes of a step that left a worker.
    pub sent: Bytes,
    /// Bytes of a step that came to a worker.
    pub received: Bytes,
    /// A gradient in FP32 of all parameters, over the gradient as it was exchanged, everything counted.
    pub factor: f64,
    /// Rows that all workers together touched, over the sum of what each touched.
    pub unique_rows: f64,
    /// Milliseconds of a step at each rank.
    pub ranks: Vec<Milliseconds>,
    /// What a step would take on a network, in milliseconds, for logical workers: the slowest rank's own work, its bytes on its link
    /// and the latency twice, one after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projected: Option<f64>,
}

/// Where a step's time went at one rank, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Milliseconds {
    /// Forward and backward pass, and the update. On a GPU what is submitted; the waiting is in `compress`.
    pub compute: f64,
    /// Scales and codes, and reading them from the device.
    pub compress: f64,
    /// Waiting for peers.
    pub wait: f64,
    /// Decoding and summing.
    pub merge: f64,
}

/// Adds up steps.
#[derive(Debug, Default)]
pub(super) struct Meter {
    steps: u64,
    bytes: Ledger,
    union: u64,
    touched: u64,
    times: Vec<[u64; 4]>,
}

impl Meter {
    pub(super) fn push(&mut self, step: &Stepped) {
        self.steps += 1;
        self.bytes = self.bytes.plus(step.bytes);
        self.union += step.union;
        self.touched += step.touched;
        self.times.resize(step.times.len(), [0; 4]);
        for (sum, Times { compute, compress, wait, merge }) in self.times.iter_mut().zip(&step.times) {
            let now = [compute, compress, wait, merge].map(|&t| u64::from(t));
            sum.iter_mut().zip(now).for_each(|(sum, t)| *sum += t);
        }
    }

    /// Begins again.
    pub(super) fn clear(&mut self) {
        *self = Meter::default();
    }

    /// The means since it was cleared; `played` workers ran in this process.
    pub(super) fn mean(&self, shape: &Shape, played: usize, network: Option<Network>) -> Option<Traffic> {
        let &Meter { steps, bytes, union, touched, ref times } = self;
        if steps == 0 {
            return None;
        }
        let each = steps * played.max(1) as u64;
        let [gradient, sent, received] = [bytes.gradient, bytes.sent, bytes.received].map(|b| b.over(each));
        let ms = |sum: u64| sum as f64 / 1e3 / steps as f64;
        let dense = shape.fp32_bytes() as f64;
        let ranks: Vec<Milliseconds> =
            times.iter().map(|t| Milliseconds { compute: ms(t[0]), compress: ms(t[1]), wait: ms(t[2]), merge: ms(t[3]) }).collect();
        let projected = network.map(|network| {
            let own = ranks.iter().map(|r| r.compute + r.compress + r.merge).fold(0.0, f64::max);
            let link = network.time(sent.step().max(received.step()) as usize) + 2 * network.latency;
            own + link.as_secs_f64() * 1e3
        });
        Some(Traffic {
            projected,
            ranks,
            factor: dense / (gradient.step().max(1)) as f64,
            unique_rows: if touched == 0 { 1.0 } else { union as f64 / touched as f64 },
            gradient,
            sent,
            received,
        })
    }
}
