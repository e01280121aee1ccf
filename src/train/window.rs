//! What the training loop knows of recent steps: predictions made before their update, and labels.

use crate::metrics::Summary;

/// A report is made about every so many samples; enough for an AUC with a standard error near 0.004.
const SAMPLES: u64 = 32_768;

/// Steps between two reports.
pub(super) fn report_every(batch: usize) -> u64 {
    (SAMPLES / batch as u64).clamp(1, 256)
}

/// Steps since the last report. Part of a checkpoint, so that a resumed run reports the same numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Window {
    losses: Vec<f32>,
    logits: Vec<f32>,
    labels: Vec<f32>,
}

const NAMES: [&str; 3] = ["dqrm.window.losses", "dqrm.window.logits", "dqrm.window.labels"];

impl Window {
    /// Takes in a step.
    pub(super) fn push(&mut self, loss: f32, logits: &[f32], labels: &[f32]) {
        self.losses.push(loss);
        self.logits.extend(logits);
        self.labels.extend(labels);
    }

    /// Mean loss; NaN without steps.
    pub(super) fn loss(&self) -> f64 {
        self.losses.iter().map(|&l| l as f64).sum::<f64>() / self.losses.len() as f64
    }

    /// AUC of the predictions, when both labels occur.
    pub(super) fn auc(&self) -> Option<f64> {
        Summary::from_logits(&self.logits, &self.labels).auc
    }

    /// True without steps.
    pub(super) fn is_empty(&self) -> bool {
        self.losses.is_empty()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.losses.clear();
        self.logits.clear();
        self.labels.clear();
    }

    /// As tensors of a checkpoint.
    pub(super) fn tensors(&self) -> Vec<(String, Vec<f32>)> {
        NAMES.iter().zip([&self.losses, &self.logits, &self.labels]).map(|(n, v)| ((*n).to_owned(), v.clone())).collect()
    }

    /// From tensors of a checkpoint; `None` when they do not fit each other.
    pub(super) fn from_tensors(tensors: &[(String, Vec<f32>)]) -> Option<Window> {
        let find = |name: &str| tensors.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        let [losses, logits, labels] = NAMES.map(find);
        let window = Window { losses: losses?, logits: logits?, labels: labels? };
        (window.logits.len() == window.labels.len()).then_some(window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_survives_a_checkpoint() {
        let mut window = Window::default();
        window.push(0.5, &[1.0, -1.0], &[1.0, 0.0]);
        assert_eq!(Window::from_tensors(&window.tensors()), Some(window.clone()));
        assert_eq!(window.loss(), 0.5);
        let mut tensors = window.tensors();
        tensors[1].1.pop();
        assert_eq!(Window::from_tensors(&tensors), None);
        window.clear();
        assert!(window.is_empty());
    }

    #[test]
    fn reports_come_after_about_as_many_samples_whatever_the_batch() {
        assert_eq!([1, 128, 2048, 100_000].map(report_every), [256, 256, 16, 1]);
    }
}
