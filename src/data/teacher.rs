//! The planted teacher: where the synthetic labels come from.
//!
//! `logit = c + s (Σ_d w_d x_d + Σ_k a_k Σ_{i in bag k} e_k(i) + Σ_pairs b f_k · f_l + Σ_k g x_d f_k,0)`
//!
//! with `x_d` the standardised dense features, `e_k` and `f_k` (two numbers per id) standard
//! normal numbers derived from the id, summed over the bag. Tables of about a thousand rows count
//! most, and only frequent ids count at all, so that the labels can be learnt from a million
//! samples. The scale `s` and the intercept `c` are found by bisection over a few thousand
//! samples, so that the teacher's own AUC is near [`AUC`] and the mean probability is the rate
//! asked for.

use super::synthetic::{Draft, HOT};
use crate::metrics::sigmoid;
use crate::rng::Stream;

/// What the teacher's probabilities reach on their own labels, about the best published on Criteo.
const AUC: f64 = 0.80;
/// Samples the two constants are fitted on, taken from the far end of the index space.
const FIT_SAMPLES: u64 = 8192;
const FIT_FIRST: u64 = 1 << 62;
/// Tables that meet each other, at most.
const PAIRS: usize = 8;

/// What one id adds.
#[derive(Debug, Clone, Copy)]
struct Effect {
    own: f32,
    factors: [f32; 2],
}

/// The formula with all its constants.
#[derive(Debug, Clone)]
pub(super) struct Teacher {
    /// Mean and weight (over the deviation) of each dense feature.
    dense: Vec<(f64, f64)>,
    /// Effects of each table's most frequent ids.
    effects: Vec<Vec<Effect>>,
    /// Tables that meet, strongest first, and how strongly.
    pairs: Vec<(usize, usize, f64)>,
    /// (dense feature, table) that meet, and how strongly.
    mixed: Vec<(usize, usize, f64)>,
    scale: f64,
    intercept: f64,
}

/// How much a table of `rows` rows counts: most around a thousand rows.
fn strength(rows: u64) -> f64 {
    let distance = ((rows as f64).log10() - 3.0) / 1.4;
    if rows < 2 { 0.0 } else { 0.1 + (-0.5 * distance * distance).exp() }
}

impl Teacher {
    /// Constants drawn from `stream`; [`Teacher::calibrate`] must follow.
    pub(super) fn new(stream: Stream, dense: usize, rows: &[u64]) -> Teacher {
        let (weights, own, factors) = (stream.sub(0), stream.sub(1), stream.sub(2));
        let effects = |(k, &n): (usize, &u64)| {
            let a = strength(n) * (0.5 + weights.sub(1).uniform(k as u64));
            let (own, factors) = (own.sub(k as u64), factors.sub(k as u64));
            let effect = |rank| Effect {
                own: (a * own.normal(rank)) as f32,
                factors: [factors.normal(2 * rank) as f32, factors.normal(2 * rank + 1) as f32],
            };
            (0..n.min(HOT)).map(effect).collect()
        };
        let mut order: Vec<usize> = (0..rows.len()).filter(|&k| rows[k] > 1).collect();
        order.sort_by(|&a, &b| strength(rows[b]).total_cmp(&strength(rows[a])));
        let meet = |k: usize, l: usize| 0.5 * (strength(rows[k]) * strength(rows[l])).sqrt();
        Teacher {
            dense: (0..dense).map(|d| (0.0, 0.35 * weights.normal(d as u64))).collect(),
            effects: rows.iter().enumerate().map(effects).collect(),
            pairs: order.windows(2).map(|w| (w[0], w[1], meet(w[0], w[1]))).take(PAIRS).collect(),
            mixed: order.iter().take(dense.min(PAIRS / 2)).enumerate().map(|(d, &k)| (d, k, 0.3 * strength(rows[k]))).collect(),
            scale: 1.0,
            intercept: 0.0,
        }
    }

    /// Fits scale and intercept to samples that `draw` makes.
    pub(super) fn calibrate(&mut self, rate: f64, mut draw: impl FnMut(u64, &mut Draft)) {
        let mut drafts: Vec<Draft> = (0..FIT_SAMPLES).map(|_| Draft::default()).collect();
        drafts.iter_mut().enumerate().for_each(|(i, draft)| draw(FIT_FIRST + i as u64, draft));
        let n = FIT_SAMPLES as f64;
        for (d, (mean, weight)) in self.dense.iter_mut().enumerate() {
            let column = || drafts.iter().map(|draft| draft.dense[d] as f64);
            *mean = column().sum::<f64>() / n;
            let variance = column().map(|x| (x - *mean) * (x - *mean)).sum::<f64>() / n;
            *weight = if variance > 0.0 { *weight / variance.sqrt() } else { 0.0 };
        }
        let mut raw: Vec<f64> = drafts.iter().map(|draft| self.raw(draft)).collect();
        raw.sort_unstable_by(f64::total_cmp);
        let (mut low, mut high) = (0.0, 64.0);
        for _ in 0..24 {
            self.scale = 0.5 * (low + high);
            self.intercept = intercept(&raw, self.scale, rate);
            if expected_auc(&raw, self.scale, self.intercept) < AUC { low = self.scale } else { high = self.scale }
        }
        if high == 64.0 {
            // Nothing tells the samples apart enough; no scale would.
            self.scale = 1.0;
            self.intercept = intercept(&raw, self.scale, rate);
        }
    }

    /// The logit of one sample.
    pub(super) fn logit(&self, draft: &Draft) -> f64 {
        self.intercept + self.scale * self.raw(draft)
    }

    fn raw(&self, draft: &Draft) -> f64 {
        let x = |d: usize| (draft.dense[d] as f64 - self.dense[d].0) * self.dense[d].1;
        let mut sum: f64 = (0..self.dense.len()).map(x).sum();
        let bag =
            |k: usize| draft.ranks[draft.offsets[k]..draft.offsets[k + 1]].iter().filter_map(move |&r| self.effects[k].get(r as usize));
        sum += (0..self.effects.len()).map(|k| bag(k).map(|e| e.own as f64).sum::<f64>()).sum::<f64>();
        let factors = |k: usize| bag(k).fold([0.0; 2], |f, e| [f[0] + e.factors[0] as f64, f[1] + e.factors[1] as f64]);
        for &(k, l, b) in &self.pairs {
            let (f, g) = (factors(k), factors(l));
            sum += b * (f[0] * g[0] + f[1] * g[1]);
        }
        sum + self.mixed.iter().map(|&(d, k, g)| g * x(d) * factors(k)[0]).sum::<f64>()
    }
}

/// The intercept at which the mean probability is `rate`.
fn intercept(raw: &[f64], scale: f64, rate: f64) -> f64 {
    let mean = |c: f64| raw.iter().map(|&x| sigmoid(c + scale * x)).sum::<f64>() / raw.len() as f64;
    let spread = scale * raw.iter().fold(0f64, |m, x| m.max(x.abs())) + 40.0;
    let (mut low, mut high) = (-spread, spread);
    while high - low > 1e-4 {
        let c = 0.5 * (low + high);
        if mean(c) < rate { low = c } else { high = c }
    }
    0.5 * (low + high)
}

/// The AUC of the probabilities against labels drawn from them, in expectation; `raw` ascends.
fn expected_auc(raw: &[f64], scale: f64, intercept: f64) -> f64 {
    let (mut positive, mut negative, mut pairs, mut own) = (0.0, 0.0, 0.0, 0.0);
    for tied in raw.chunk_by(|a, b| a == b) {
        let p = sigmoid(intercept + scale * tied[0]);
        let (plus, minus) = (p * tied.len() as f64, (1.0 - p) * tied.len() as f64);
        let itself = p * (1.0 - p) * tied.len() as f64;
        pairs += plus * negative + 0.5 * (plus * minus - itself);
        positive += plus;
        negative += minus;
        own += itself;
    }
    pairs / (positive * negative - own)
}
