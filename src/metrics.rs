//! How good predictions are: area under the ROC curve, log loss, accuracy, normalized entropy,
//! calibration. All sums are in f64.

use serde::Serialize;

/// The metrics of one set of predictions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Samples n.
    pub samples: u64,
    /// Area under the ROC curve; `None` when one class is missing or a logit is not a number.
    pub auc: Option<f64>,
    /// Mean binary cross-entropy, in nats; NaN when there is no sample.
    pub log_loss: f64,
    /// Share of samples whose rounded probability is the label (a probability of 0.5 rounds to 0); NaN when there is no sample.
    pub accuracy: f64,
    /// Log loss over the entropy of the base rate: 1 is as good as always predicting the mean
    /// (He et al. 2014, "Practical lessons from predicting clicks on ads at Facebook"); `None` when one class is missing.
    pub normalized_entropy: Option<f64>,
    /// Mean probability over mean label; `None` when no label is positive.
    pub calibration: Option<f64>,
    /// Mean label; NaN when there is no sample.
    pub positive_rate: f64,
}

impl Summary {
    /// The metrics of `logits` against `labels`, both `[n]`.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn from_logits(logits: &[f32], labels: &[f32]) -> Summary {
        assert_eq!(logits.len(), labels.len(), "one label per logit");
        let n = logits.len() as f64;
        let (mut loss, mut correct, mut probability, mut positive) = (0.0, 0u64, 0.0, 0.0);
        for (&x, &t) in logits.iter().zip(labels) {
            let p = sigmoid(x as f64);
            loss += log_loss(x as f64, t as f64);
            correct += u64::from(if p > 0.5 { t == 1.0 } else { t == 0.0 });
            probability += p;
            positive += t as f64;
        }
        let rate = positive / n;
        let entropy = -(rate * rate.ln() + (1.0 - rate) * (1.0 - rate).ln());
        let mixed = rate > 0.0 && rate < 1.0;
        Summary {
            samples: logits.len() as u64,
            auc: auc_of(logits.iter().map(|&x| x as f64).zip(labels.iter().copied()).collect()),
            log_loss: loss / n,
            accuracy: correct as f64 / n,
            normalized_entropy: mixed.then(|| loss / n / entropy),
            calibration: (positive > 0.0).then(|| probability / positive),
            positive_rate: rate,
        }
    }
}

/// `1 / (1 + e^-x)` without overflow.
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// Binary cross-entropy of the logit `x` against the target `t`: `max(x, 0) - x t + ln(1 + e^-|x|)`.
pub fn log_loss(x: f64, t: f64) -> f64 {
    x.max(0.0) - x * t + (-x.abs()).exp().ln_1p()
}

/// The exact area under the ROC curve: the probability that a positive sample's score is above a
/// negative one's, ties counted half (the rank sum of Mann and Whitney). Labels of 0.5 and more
/// are positive. `None` when one class is missing or a score is not a number.
///
/// # Panics
/// When the lengths differ.
pub fn auc(scores: &[f64], labels: &[f32]) -> Option<f64> {
    assert_eq!(scores.len(), labels.len(), "one label per score");
    auc_of(scores.iter().copied().zip(labels.iter().copied()).collect())
}

fn auc_of(mut samples: Vec<(f64, f32)>) -> Option<f64> {
    if samples.iter().any(|(score, _)| score.is_nan()) {
        return None;
    }
    // 0.0 and -0.0 are the same score, so not `total_cmp`
    samples.sort_unstable_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(std::cmp::Ordering::Equal));
    // Twice the number of pairs in the right order, a tie counting 1: exact in integers.
    let (mut below, mut positives, mut twice) = (0u64, 0u64, 0u128);
    for tied in samples.chunk_by(|a, b| a.0 == b.0) {
        let p = tied.iter().filter(|(_, label)| *label >= 0.5).count() as u64;
        let n = tied.len() as u64 - p;
        twice += p as u128 * (2 * below + n) as u128;
        below += n;
        positives += p;
    }
    (positives > 0 && below > 0).then(|| twice as f64 / (2.0 * positives as f64 * below as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    fn brute_force(scores: &[f64], labels: &[f32]) -> Option<f64> {
        let (mut wins, mut pairs) = (0.0, 0.0);
        for (&a, _) in scores.iter().zip(labels).filter(|(_, t)| **t >= 0.5) {
            for (&b, _) in scores.iter().zip(labels).filter(|(_, t)| **t < 0.5) {
                pairs += 1.0;
                wins += if a > b { 1.0 } else { 0.5 * f64::from(a == b) };
            }
        }
        (pairs > 0.0).then_some(wins / pairs)
    }

    #[test]
    fn auc_is_the_share_of_pairs_in_the_right_order() {
        for (seed, n, levels) in [(1, 2, 2), (2, 50, 3), (3, 300, 7), (4, 300, 1 << 40), (5, 1, 1), (6, 120, 1)] {
            let (s, l) = (Stream::new(seed, 0), Stream::new(seed, 1));
            let scores: Vec<f64> = (0..n).map(|i| s.below(i, levels) as f64 - 2.0).collect();
            let labels: Vec<f32> = (0..n).map(|i| l.below(i, 2) as f32).collect();
            let (fast, slow) = (auc(&scores, &labels), brute_force(&scores, &labels));
            assert!(fast == slow || (fast.unwrap() - slow.unwrap()).abs() < 1e-12, "{fast:?} {slow:?}");
        }
    }

    #[test]
    fn auc_has_no_value_without_both_classes_or_with_a_nan() {
        assert_eq!(auc(&[1.0, 2.0], &[1.0, 1.0]), None);
        assert_eq!(auc(&[], &[]), None);
        assert_eq!(auc(&[f64::NAN, 2.0], &[1.0, 0.0]), None);
        assert_eq!(auc(&[0.0, -0.0], &[1.0, 0.0]), Some(0.5), "zeros of both signs tie");
        assert_eq!(auc(&[f64::INFINITY, f64::NEG_INFINITY], &[1.0, 0.0]), Some(1.0));
    }

    #[test]
    fn a_small_case_by_hand() {
        let s = Summary::from_logits(&[0.0, 2.0, -1.0, 1.0], &[0.0, 1.0, 1.0, 0.0]);
        let p = |x: f64| 1.0 / (1.0 + (-x).exp());
        let loss = -((0.5f64).ln() + p(2.0).ln() + p(-1.0).ln() + (1.0 - p(1.0)).ln()) / 4.0;
        assert!((s.log_loss - loss).abs() < 1e-12);
        assert_eq!((s.samples, s.accuracy, s.positive_rate, s.auc), (4, 0.5, 0.5, Some(0.5)));
        assert!((s.normalized_entropy.unwrap() - loss / 2f64.ln()).abs() < 1e-12);
        assert!((s.calibration.unwrap() - (0.5 + p(2.0) + p(-1.0) + p(1.0)) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn predicting_the_base_rate_has_normalized_entropy_one() {
        let labels: Vec<f32> = (0..1000).map(|i| f32::from(i % 4 == 0)).collect();
        let s = Summary::from_logits(&vec![(1.0f32 / 3.0).ln(); 1000], &labels);
        assert!((s.normalized_entropy.unwrap() - 1.0).abs() < 1e-6 && (s.calibration.unwrap() - 1.0).abs() < 1e-6);
        assert_eq!(s.auc, Some(0.5));
    }

    #[test]
    fn extremes_stay_finite_and_absences_are_named() {
        let s = Summary::from_logits(&[1e30, -1e30], &[1.0, 0.0]);
        assert_eq!((s.log_loss, s.accuracy), (0.0, 1.0));
        assert!((Summary::from_logits(&[-500.0], &[1.0]).log_loss - 500.0).abs() < 1e-9);
        let s = Summary::from_logits(&[0.3], &[0.0]);
        assert_eq!((s.auc, s.normalized_entropy, s.calibration), (None, None, None));
        assert!(Summary::from_logits(&[], &[]).log_loss.is_nan());
    }
}
