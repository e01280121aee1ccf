//! Evaluations of a run: the validation part as it goes on, the test part at its end. With workers each rank
//! evaluates a part of the batches, and all get all results.

use super::{Observe, Trainer, folder};
use crate::checkpoint::Checkpoint;
use crate::config::Checkpoints;
use crate::data::loader::Share;
use crate::error::{Error, Result};
use crate::metrics::Summary;
use crate::train::ranks;
use crate::train::waits::mean_ms;
use crate::train::{Evaluation, Event, Outcome, device_text};
use std::ops::Range;
use std::sync::atomic::Ordering;

const PHASE: &str = "evaluation";
/// Samples whose results travel at a time.
const ROUND: usize = 1 << 20;

impl Trainer<'_> {
    /// Evaluates a part of the data; `None` when it is empty. A request to stop ends it early, unless ranks have to agree
    /// on it.
    fn part(&mut self, name: &str, range: Range<u64>) -> Result<Option<Evaluation>> {
        if range.is_empty() {
            return Ok(None);
        }
        let batch = self.config.train.eval_batch as u64;
        let steps = (range.end - range.start).div_ceil(batch);
        let share = self.stepper.shares()[0];
        let together = self.stepper.team().is_some();
        let mine = if together {
            steps * share.rank as u64 / share.world as u64..steps * (share.rank as u64 + 1) / share.world as u64
        } else {
            0..steps
        };
        self.session.begin_evaluation()?;
        let (mut logits, mut labels) = (Vec::new(), Vec::new());
        let mut batches = self.loader(range, false, batch as usize, mine, Share::default())?.peekable();
        while let Some(batch) = batches.next() {
            let batch = batch?;
            self.announce(&mut batches);
            logits.extend(pollster::block_on(self.session.logits(&batch))?);
            labels.extend(&batch.labels);
            if self.stopped() {
                return Ok(None);
            }
        }
        if together {
            (logits, labels) = self.collect(steps * batch, &logits, &labels)?;
        }
        if let Some(bad) = logits.iter().find(|l| !l.is_finite()) {
            return Err(self.not_finite(self.step.saturating_sub(1), *bad, None));
        }
        Ok(Some(Evaluation::new(name, self.step, self.epoch_steps, Summary::from_logits(&logits, &labels))))
    }

    /// The results of all ranks, in order; at most `most` samples. Agrees on stopping, too.
    fn collect(&mut self, most: u64, logits: &[f32], labels: &[f32]) -> Result<(Vec<f32>, Vec<f32>)> {
        let stop = self.asked_to_stop();
        let Some(team) = self.stepper.team() else { return Ok((logits.to_vec(), labels.to_vec())) };
        let mut of_ranks = vec![(Vec::new(), Vec::new()); team.seat().world];
        for round in 0..(most as usize).div_ceil(ROUND).max(1) {
            let cut = |values: &[f32]| values[values.len().min(round * ROUND)..values.len().min((round + 1) * ROUND)].to_vec();
            let (logits, labels) = (cut(logits), cut(labels));
            let mine = [vec![f32::from(u8::from(stop))], logits, labels].concat();
            let all = team.gather(PHASE, bytemuck::cast_slice(&mine), None, 8 * ROUND as u64 + 4)?;
            for (rank, bytes) in all.iter().enumerate() {
                if bytes.len() % 8 != 4 {
                    return Err(Error::Data(format!(
                        "rank {rank} sent {} bytes of results, which is no whole number of samples",
                        bytes.len()
                    )));
                }
                let floats: Vec<f32> = bytemuck::pod_collect_to_vec(bytes);
                let (logits, labels) = floats[1..].split_at(floats.len() / 2);
                of_ranks[rank].0.extend_from_slice(logits);
                of_ranks[rank].1.extend_from_slice(labels);
                self.stop_agreed |= floats[0] != 0.0;
            }
        }
        let (logits, labels): (Vec<_>, Vec<_>) = of_ranks.into_iter().unzip();
        Ok((logits.concat(), labels.concat()))
    }

    /// Evaluates the validation part and keeps the weights when they are the best so far. The best
    /// is chosen among the evaluations that the settings ask for; one where the run is cut short
    /// (`provisional`) counts only while there is no other, so that a run made longer later gives
    /// what it would have given in one piece. Weights that were never quantized are not candidates, unless
    /// the run ends before it quantizes.
    pub(super) fn validate(&mut self, provisional: bool, observe: Observe<'_>) -> Result<Option<Evaluation>> {
        let result = self.part("validation", self.data.parts.validation.clone())?;
        if self.stopped() {
            return Err(self.interrupted(observe));
        }
        let Some(evaluation) = result else { return Ok(None) };
        let pretraining = self.session.pretraining();
        let provisional = provisional || pretraining;
        let candidate = !pretraining || self.step == self.steps;
        let better = |auc: f64| candidate && self.best.is_none_or(|(best, _)| auc > best && !provisional);
        if let Some(auc) = evaluation.summary.auc.filter(|&auc| better(auc)) {
            if self.config.train.checkpoints == Checkpoints::All {
                self.write(folder::BEST, Some((auc, provisional)), observe)?;
            }
            (self.best, self.best_now) = (Some((auc, self.step)), Some(self.step));
        }
        if let Some(journal) = &mut self.journal {
            journal.evaluation(&evaluation)?;
        }
        observe(&Event::Evaluated(&evaluation));
        Ok(Some(evaluation))
    }

    /// Evaluates the test part with the last and with the best weights.
    pub(super) fn finish(&mut self, validation: Option<Evaluation>, observe: Observe<'_>) -> Result<Outcome> {
        let test = self.data.parts.test.clone();
        let end = self.part("test", test.clone())?;
        if self.stopped() {
            return Err(self.interrupted(observe));
        }
        let best = match (self.best, &end) {
            (Some(_), Some(end)) if self.best_now == Some(self.step) => {
                Some(Evaluation { part: "test at best validation".into(), ..end.clone() })
            }
            (Some((_, step)), Some(_)) if self.config.train.checkpoints == Checkpoints::All => {
                if self.journal.is_some() {
                    Checkpoint::open(&self.options.dir.join(folder::BEST))?.load_inference(&mut self.session)?;
                }
                if let Some(team) = self.stepper.team() {
                    ranks::share_tensors(team, &mut self.session, PHASE)?;
                }
                let at_end = std::mem::replace(&mut self.step, step);
                let best = self.part("test at best validation", test.clone())?;
                self.step = at_end;
                best
            }
            _ => None,
        };
        if self.stopped() {
            return Err(self.interrupted(observe));
        }
        for evaluation in end.iter().chain(&best) {
            if let Some(journal) = &mut self.journal {
                journal.evaluation(evaluation)?;
            }
            observe(&Event::Evaluated(evaluation));
        }
        Ok(Outcome {
            dir: self.options.dir.clone(),
            device: device_text(self.session.device()),
            steps: self.steps,
            teacher_auc: if self.journal.is_some() { self.data.teacher_auc(test)? } else { None },
            fp32_bytes: self.data.shape.fp32_bytes(),
            packed_bytes: self.data.shape.packed_bytes(&self.config.quant),
            samples_per_second: self.rate(),
            data_wait_ms: mean_ms((0, self.first_step), (self.waited.load(Ordering::Relaxed), self.step)),
            data_wait_share: self.waited.load(Ordering::Relaxed) as f64 / 1e9 / self.trained.as_secs_f64().max(1e-9),
            skipped_rows: self.data.skipped,
            best_validation_auc: self.best.map(|b| b.0),
            validation,
            end,
            best,
        })
    }
}
