//! What a device gives at best, measured in about a second: memory traffic of a large copy, arithmetic of a large
//! matrix product with the engine's own kernels, and what a dispatch, a submission and an upload cost. Rates of other
//! kernels are shares of these, and a step's time is predicted from them.

use crate::engine::Engine;
use crate::engine::cpu::CpuEngine;
use crate::engine::gpu::{GpuAdapter, GpuEngine};
use crate::error::Result;
use crate::ops::{Cost, copy, matmul};
use crate::plan::schedule::{Limits, Schedule};
use crate::plan::{Elem, Plan, Role, StepUniform, View};
use crate::session::devices;
use pollster::block_on;
use std::time::Instant;

/// Bytes of each of the two buffers of the copy, where the device allows as much: far more than any cache holds.
const COPY: u64 = 256 << 20;
/// Sides of the square matrices, tried in turn while they take little time.
const SIDES: [usize; 3] = [512, 1024, 4096];
/// No larger product is tried when it would take so many seconds.
const SLOW: f64 = 0.1;
/// Seconds that each rate is measured for, at least one run.
const FILL: f64 = 0.12;
/// Timings of each rate.
const TIMINGS: usize = 5;
/// Dispatches behind one another that show what one costs.
const DISPATCHES: usize = 200;
/// Bytes of the upload.
const UPLOAD: usize = 4 << 20;

/// The most that a device gave.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Ceiling {
    /// Memory traffic of a copy: the bytes read and the bytes written, together, in a second.
    pub bytes_per_second: f64,
    /// Operations of a matrix product in a second; a product and its addition are two.
    pub flops_per_second: f64,
    /// Side of the square matrices of that product.
    pub side: usize,
    /// Bytes of one buffer of the copy.
    pub copied: u64,
    /// Seconds that a dispatch takes that does nearly nothing and waits for the one before it.
    pub dispatch_seconds: f64,
    /// Seconds from a submission of one such dispatch until its result is read.
    pub submission_seconds: f64,
    /// Bytes that the host writes to the device in a second.
    pub upload_bytes_per_second: f64,
}

impl Ceiling {
    /// The least seconds that something of this cost takes.
    pub fn seconds(&self, cost: Cost) -> f64 {
        (cost.bytes as f64 / self.bytes_per_second).max(cost.flops as f64 / self.flops_per_second)
    }
}

/// The plan of the measurements.
struct Probe {
    engine: Box<dyn Engine>,
    copy: View,
    small: View,
    upload: View,
    product: View,
    /// Phases: the large copy, two small copies, then three products of each side.
    sides: Vec<usize>,
}

const LARGE: usize = 0;
const SMALL: usize = 1;
const PRODUCTS: usize = 2;

fn record(bytes: u64) -> (Plan, [View; 4]) {
    let mut plan = Plan::new();
    let mut buffer = |name: &str, len: usize| plan.buffer(name, "", len, Elem::F32, Role::Persistent);
    let values = (bytes / 4) as usize / 4 * 4;
    let (source, copied) = (buffer("source", values), buffer("copied", values));
    let (a, b) = (buffer("small", 64), buffer("small copied", 64));
    let upload = buffer("upload", UPLOAD / 4);
    let most = SIDES[SIDES.len() - 1];
    let (x, w, y) = (buffer("x", most * most), buffer("w", most * most), buffer("y", most * most));
    let bias = buffer("bias", most);
    plan.phase("copy");
    copy::record(&mut plan, "large", source, copied);
    plan.phase("dispatches");
    copy::record(&mut plan, "there", a, b);
    copy::record(&mut plan, "back", b, a);
    for side in SIDES {
        let layer = matmul::Linear { inputs: side, outputs: side, relu: false };
        let [x, w, y] = [x, w, y].map(|view| view.slice(0, side * side));
        plan.phase("forward");
        matmul::forward(&mut plan, "x wt", layer, side, x, w, bias.slice(0, side), y);
        plan.phase("to the inputs");
        matmul::backward_input(&mut plan, "x w", layer, side, x, w, None, y);
        plan.phase("to the weights");
        matmul::backward_weights(&mut plan, "xt w", layer, x, w, y, bias.slice(0, side));
    }
    (plan, [copied, a, upload, y])
}

impl Probe {
    fn load(adapter: Option<&GpuAdapter>, bytes: u64) -> Result<Probe> {
        let (plan, [copy, small, upload, product]) = record(bytes);
        let engine: Box<dyn Engine> = match adapter {
            Some(a) => Box::new(block_on(GpuEngine::load(a, Schedule::new(plan, &a.limits)?))?),
            None => Box::new(CpuEngine::load(Schedule::new(plan, &CpuEngine::limits(None))?)),
        };
        Ok(Probe { engine, copy, small, upload, product, sides: SIDES.to_vec() })
    }

    /// Seconds until phases have run, `samples` in a step, and a value of `view` was read.
    fn seconds(&mut self, phases: &[usize], samples: usize, view: View) -> Result<f64> {
        let start = Instant::now();
        self.engine.run(phases, &StepUniform::evaluate(samples, 0))?;
        block_on(self.engine.read(View { len: 1, ..view }))?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// The least seconds of one of many runs of a phase, submission apart.
    fn best(&mut self, phase: usize, samples: usize, view: View, submission: f64) -> Result<f64> {
        let once = self.seconds(&[phase], samples, view)?;
        let repeats = ((FILL / TIMINGS as f64 / once.max(1e-7)) as usize).clamp(1, 64);
        let timings = if repeats == 1 { ((FILL / once) as usize).clamp(1, TIMINGS) } else { TIMINGS };
        let mut best = f64::INFINITY;
        for _ in 0..timings {
            let all = self.seconds(&vec![phase; repeats], samples, view)?;
            best = best.min((all - submission).max(0.1 * all) / repeats as f64);
        }
        Ok(best)
    }

    fn ceiling(&mut self) -> Result<Ceiling> {
        let (small, copy, product, upload) = (self.small, self.copy, self.product, self.upload);
        self.seconds(&[SMALL], 1, small)?; // shaders are compiled, memory is touched
        let least = |probe: &mut Probe, phases: &[usize]| -> Result<f64> {
            (0..TIMINGS).try_fold(f64::INFINITY, |least, _| Ok(probe.seconds(phases, 1, small)?.min(least)))
        };
        let submission = least(self, &[SMALL])?;
        let many = least(self, &[SMALL; DISPATCHES / 2 + 1])?;
        let dispatch = (many - submission).max(0.0) / DISPATCHES as f64;

        let copied = 4 * copy.len as u64;
        self.seconds(&[LARGE], 1, copy)?;
        let bytes_per_second = 2.0 * copied as f64 / self.best(LARGE, 1, copy, submission)?;

        let (mut flops_per_second, mut best_side) = (0.0, 0);
        for (i, side) in self.sides.clone().into_iter().enumerate() {
            let mut least = f64::INFINITY;
            for kind in 0..3 {
                let phase = PRODUCTS + 3 * i + kind;
                if i == 0 {
                    self.seconds(&[phase], 32, product)?; // compiled with few samples
                }
                least = least.min(self.best(phase, side, product, submission)?);
            }
            let rate = 2.0 * (side as f64).powi(3) / least;
            if rate > flops_per_second {
                (flops_per_second, best_side) = (rate, side);
            }
            let next = self.sides.get(i + 1).map_or(f64::INFINITY, |&next| (next as f64 / side as f64).powi(3));
            if least * next > SLOW {
                break;
            }
        }

        let words = vec![1u32; UPLOAD / 4];
        let mut write = f64::INFINITY;
        for _ in 0..TIMINGS {
            let start = Instant::now();
            self.engine.write(upload, &words)?;
            self.seconds(&[SMALL], 1, small)?;
            write = write.min(start.elapsed().as_secs_f64());
        }
        Ok(Ceiling {
            bytes_per_second,
            flops_per_second,
            side: best_side,
            copied,
            dispatch_seconds: dispatch,
            submission_seconds: submission,
            upload_bytes_per_second: UPLOAD as f64 / (write - submission).max(0.1 * write),
        })
    }
}

/// Bytes of a buffer of the copy on a device with these limits.
fn copy_bytes(limits: &Limits) -> u64 {
    COPY.min(limits.max_binding).min(limits.max_buffer)
}

/// Measures `device` as [`crate::session::Session::load`] would choose it. A device whose memory is short copies less.
///
/// # Errors
/// No such device, a device that is lost.
pub fn measure(device: &crate::config::Device) -> Result<Ceiling> {
    let (adapter, _) = block_on(devices::choose(device))?;
    measure_on(adapter.as_ref())
}

/// Measures an adapter, or the CPU engine.
///
/// # Errors
/// A device that is lost.
pub fn measure_on(adapter: Option<&GpuAdapter>) -> Result<Ceiling> {
    let mut bytes = copy_bytes(&adapter.map_or_else(|| CpuEngine::limits(None), |a| a.limits.clone()));
    loop {
        match Probe::load(adapter, bytes) {
            Ok(mut probe) => return probe.ceiling(),
            Err(_) if bytes > 16 << 20 => bytes /= 2,
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_fits_the_smallest_device() {
        // WebGPU's default limits.
        let limits = Limits {
            adapter: "default".into(),
            max_binding: 128 << 20,
            max_buffer: 256 << 20,
            max_storage_buffers: 8,
            max_groups: 65_535,
            max_invocations: 256,
        };
        let (plan, _) = record(copy_bytes(&limits));
        assert_eq!(plan.buffers[0].len, 32 << 20);
        assert_eq!(plan.phases.len(), PRODUCTS + 3 * SIDES.len());
        Schedule::new(plan, &limits).unwrap();
    }

    #[test]
    fn what_takes_longer_counts() {
        let rates = Ceiling {
            bytes_per_second: 100.0,
            flops_per_second: 1000.0,
            side: 1,
            copied: 1,
            dispatch_seconds: 0.0,
            submission_seconds: 0.0,
            upload_bytes_per_second: 1.0,
        };
        assert_eq!(rates.seconds(Cost { bytes: 200, flops: 1000 }), 2.0);
        assert_eq!(rates.seconds(Cost { bytes: 200, flops: 5000 }), 5.0);
    }

    #[test]
    fn the_cpu_has_rates() {
        let c = measure(&crate::config::Device::Cpu).unwrap();
        for rate in [c.bytes_per_second, c.flops_per_second, c.upload_bytes_per_second, c.submission_seconds] {
            assert!(rate.is_finite() && rate > 0.0, "{c:?}");
        }
        assert!(SIDES.contains(&c.side) && c.copied == COPY && c.dispatch_seconds >= 0.0, "{c:?}");
    }
}
