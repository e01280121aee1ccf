//! Gradients to codes and back, one thread.

use crate::common::{Spread, seconds};
use dqrm::quant::{self, gradient};
use dqrm::rng::Stream;
use std::hint::black_box;

/// Values of a call.
const VALUES: usize = 1 << 20;

/// Prints megabytes of FP32 values a second of finding a scale, quantizing, and adding codes to sums.
pub(crate) fn print(runs: usize) {
    let stream = Stream::new(3, 0);
    let values: Vec<f32> = (0..VALUES as u64).map(|i| stream.uniform(i) as f32 - 0.5).collect();
    println!("\ncodes of {VALUES} gradients, one thread; MB/s are of FP32 values, medians of {runs} (least to largest)");
    println!("{:>12} {:>6} {:>10} {:>24}", "", "bits", "us", "MB/s");
    line("max_abs", 32, runs, || {
        black_box(gradient::max_abs(black_box(&values)));
    });
    for bits in [4, 8, 16] {
        let scale = quant::scale(gradient::max_abs(&values), gradient::max_code(bits));
        let mut codes = Vec::with_capacity(gradient::bytes(VALUES, bits));
        line("quantize", bits, runs, || {
            codes.clear();
            gradient::quantize(black_box(&values), scale, bits, &mut codes);
            black_box(&codes);
        });
        let mut sums = vec![0.0f32; VALUES];
        line("add_scaled", bits, runs, || {
            gradient::add_scaled(black_box(&codes), bits, scale, &mut sums);
            black_box(&sums);
        });
    }
}

fn line(name: &str, bits: u32, runs: usize, mut f: impl FnMut()) {
    f();
    let times: Vec<f64> = (0..runs).map(|_| 1e6 * seconds(&mut f)).collect();
    let us = Spread::of(&times);
    let rate = |us: f64| 4.0 * VALUES as f64 / us;
    let spread = format!("{:.0} ({:.0} to {:.0})", rate(us.median), rate(us.max), rate(us.min));
    println!("{name:>12} {bits:>6} {:>10.1} {spread:>24}", us.median);
}
