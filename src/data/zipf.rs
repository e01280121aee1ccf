//! Zipf-distributed ranks in constant time.

use crate::rng::Stream;

/// Ranks `0..n` with probability proportional to `1 / (rank + 1)^q`, by rejection-inversion
/// (Hörmann and Derflinger 1996, "Rejection-inversion to generate variates from monotone discrete
/// distributions"): no table, a little over one draw per sample whatever `n`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Zipf {
    n: u64,
    q: f64,
    /// The integral's value left of rank 1 and right of rank n.
    low: f64,
    high: f64,
    /// Distance from the rank within which a draw is accepted at once.
    sure: f64,
}

impl Zipf {
    /// The law on `n` ranks (at least 1) with exponent `q >= 0`.
    pub(super) fn new(n: u64, q: f64) -> Zipf {
        let mut zipf = Zipf { n, q, low: 0.0, high: 0.0, sure: 0.0 };
        zipf.low = zipf.integral(1.5) - 1.0;
        zipf.high = zipf.integral(n as f64 + 0.5);
        zipf.sure = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.density(2.0));
        zipf
    }

    /// A rank, from the numbers `first`, `first + 1`, … of `draws`.
    pub(super) fn sample(&self, draws: &Stream, first: u64) -> u64 {
        let mut number = first;
        loop {
            let u = self.high + draws.uniform(number) * (self.low - self.high);
            let x = self.inverse(u);
            let k = x.round().clamp(1.0, self.n as f64);
            if k - x <= self.sure || u >= self.integral(k + 0.5) - self.density(k) {
                return k as u64 - 1;
            }
            number += 1;
        }
    }

    fn density(&self, x: f64) -> f64 {
        (-self.q * x.ln()).exp()
    }

    /// `(x^(1-q) - 1) / (1 - q)`, the integral of the density from 1.
    fn integral(&self, x: f64) -> f64 {
        let t = (1.0 - self.q) * x.ln();
        if t.abs() < 1e-9 { x.ln() } else { t.exp_m1() / (1.0 - self.q) }
    }

    fn inverse(&self, y: f64) -> f64 {
        let t = ((1.0 - self.q) * y).max(-1.0);
        if t.abs() < 1e-9 { y.exp() } else { (t.ln_1p() / (1.0 - self.q)).exp() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_are_those_of_the_law() {
        let draws = Stream::new(11, 2);
        let samples = 100_000u64;
        for (n, q) in [(1u64, 1.1), (2, 1.0), (10, 0.0), (10, 0.5), (10, 1.0), (1000, 1.1), (50, 3.0)] {
            let zipf = Zipf::new(n, q);
            let mut counts = vec![0u64; n as usize];
            (0..samples).for_each(|i| counts[zipf.sample(&draws, i << 16) as usize] += 1);
            let total: f64 = (1..=n).map(|k| (k as f64).powf(-q)).sum();
            for (rank, &count) in counts.iter().enumerate().take(20) {
                let p = (rank as f64 + 1.0).powf(-q) / total;
                let deviation = (samples as f64 * p * (1.0 - p)).sqrt();
                assert!((count as f64 - samples as f64 * p).abs() <= 5.0 * deviation + 1.0, "n {n} q {q} rank {rank}: {count}");
            }
        }
    }

    #[test]
    fn large_tables_stay_in_range() {
        let draws = Stream::new(1, 2);
        for q in [0.0, 0.3, 1.0, 1.1, 50.0] {
            let zipf = Zipf::new(u32::MAX as u64, q);
            assert!((0..20_000).all(|i| zipf.sample(&draws, i << 16) < u32::MAX as u64));
        }
    }
}
