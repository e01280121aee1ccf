//! Clicks made up by a planted teacher: nothing to download, any length, and every sample is a
//! function of (seed, index), so it can be computed alone, in any order, on any thread.
//!
//! Dense features are heavy-tailed counts with missing values, ids follow a Zipf law, and labels
//! are drawn from the probability of the teacher's formula (`teacher.rs`). Nobody can rank the
//! labels better in expectation than that probability does, so [`Clicks::teacher_probability`]
//! gives the best AUC a model can be asked for.

use super::teacher::Teacher;
use super::zipf::Zipf;
use super::{Block, Samples};
use crate::config::Synthetic;
use crate::error::{Error, Result};
use crate::metrics::sigmoid;
use crate::rng::{Permutation, Stream};

/// Median, spread (deviation of the logarithm) and missing share of counts, of the order of
/// Criteo's 13; a fourteenth feature is again like the first.
const COUNTS: [(f64, f64, f64); 13] = [
    (1.5, 1.3, 0.45),
    (4.0, 2.2, 0.0),
    (7.0, 1.5, 0.21),
    (5.0, 1.0, 0.22),
    (2800.0, 2.1, 0.03),
    (32.0, 1.6, 0.22),
    (4.0, 1.6, 0.04),
    (8.0, 1.2, 0.0),
    (38.0, 1.6, 0.04),
    (0.8, 0.7, 0.45),
    (1.5, 0.9, 0.04),
    (0.6, 1.2, 0.40),
    (5.0, 1.1, 0.22),
];

/// Missing shares of categories, table by table, repeated; a missing one is the table's most frequent row.
const MISSING: [f64; 7] = [0.0, 0.0, 0.03, 0.0, 0.12, 0.0, 0.40];

/// Ranks whose row is kept in memory, and whose ids have an effect on the label: the rest are
/// seen too seldom to learn from.
pub(super) const HOT: u64 = 2048;

/// A sample before its ids become rows: ranks by frequency, 0 first.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Dense features, transformed, `[D]`.
    pub dense: Vec<f32>,
    /// Where each bag begins in `ranks`, and the end, `[K + 1]`.
    pub offsets: Vec<usize>,
    /// Frequency ranks.
    pub ranks: Vec<u64>,
}

/// One table's ids.
#[derive(Debug)]
struct Ids {
    zipf: Zipf,
    missing: f64,
    rows: Permutation,
    /// Rows of the most frequent ranks.
    hot: Vec<u32>,
}

/// The generator.
#[derive(Debug)]
pub struct Clicks {
    samples: u64,
    bag: usize,
    dense: usize,
    rows: Vec<u64>,
    max_bag: Vec<usize>,
    ids: Vec<Ids>,
    id_draws: Stream,
    dense_draws: Stream,
    labels: Stream,
    teacher: Teacher,
}

impl Clicks {
    /// Clicks with `dense` features and one table for each of `rows` (0 counts as 1).
    pub fn new(config: &Synthetic, seed: u64, dense: usize, rows: Vec<u64>) -> Clicks {
        let root = Stream::new(seed, 0x434c_4943_4b53);
        let rows: Vec<u64> = rows.into_iter().map(|r| r.clamp(1, u32::MAX as u64)).collect();
        let table = |(k, &n): (usize, &u64)| {
            let rows = Permutation::new(n, root.sub(1).sub(k as u64));
            let hot = (0..n.min(HOT)).map(|rank| rows.apply(rank) as u32).collect();
            Ids { zipf: Zipf::new(n, config.zipf), missing: MISSING[k % MISSING.len()], rows, hot }
        };
        let bag = config.bag.max(1);
        let mut clicks = Clicks {
            samples: config.samples,
            bag,
            dense,
            max_bag: vec![bag; rows.len()],
            ids: rows.iter().enumerate().map(table).collect(),
            id_draws: root.sub(2),
            dense_draws: root.sub(3),
            labels: root.sub(4),
            teacher: Teacher::new(root.sub(5), dense, &rows),
            rows,
        };
        let mut teacher = clicks.teacher.clone();
        teacher.calibrate(config.positive_rate, |index, draft| clicks.draw(index, draft));
        clicks.teacher = teacher;
        clicks
    }

    /// The probability that the label of sample `index` was drawn with.
    pub fn teacher_probability(&self, index: u64) -> f64 {
        let mut draft = Draft::default();
        self.draw(index, &mut draft);
        sigmoid(self.teacher.logit(&draft))
    }

    /// Features and ranks of one sample.
    fn draw(&self, index: u64, draft: &mut Draft) {
        let draws = self.dense_draws.sub(index);
        draft.dense.clear();
        for d in 0..self.dense as u64 {
            let (median, spread, missing) = COUNTS[d as usize % COUNTS.len()];
            let present = missing == 0.0 || draws.uniform((d + 1) << 32) >= missing;
            let count = if present { (median * (spread * draws.normal(d)).exp()).round() } else { 0.0 };
            draft.dense.push((count as f32 + 1.0).ln());
        }
        let draws = self.id_draws.sub(index);
        draft.ranks.clear();
        draft.offsets.clear();
        draft.offsets.push(0);
        for (k, ids) in self.ids.iter().enumerate() {
            // numbers 0 and 1 of a table decide size and absence, the rest the ids
            let at = (k as u64) << 32;
            let size = if self.bag == 1 { 1 } else { draws.below(at, self.bag as u64 + 1) };
            if size > 0 && ids.missing > 0.0 && draws.uniform(at + 1) < ids.missing {
                draft.ranks.push(0);
            } else {
                draft.ranks.extend((1..=size).map(|slot| ids.zipf.sample(&draws, at + (slot << 16))));
            }
            draft.offsets.push(draft.ranks.len());
        }
    }

    fn row(&self, table: usize, rank: u64) -> u32 {
        let ids = &self.ids[table];
        ids.hot.get(rank as usize).copied().unwrap_or_else(|| ids.rows.apply(rank) as u32)
    }
}

impl Samples for Clicks {
    fn len(&self) -> u64 {
        self.samples
    }

    fn dense(&self) -> usize {
        self.dense
    }

    fn rows(&self) -> &[u64] {
        &self.rows
    }

    fn max_bag(&self) -> &[usize] {
        &self.max_bag
    }

    fn fetch(&self, indices: &[u64], block: &mut Block) -> Result<()> {
        let mut draft = Draft::default();
        for &index in indices {
            if index >= self.samples {
                return Err(Error::Data(format!("sample {index} does not exist; there are {}", self.samples)));
            }
            self.draw(index, &mut draft);
            let clicked = self.labels.uniform(index) < sigmoid(self.teacher.logit(&draft));
            block.labels.push(f32::from(clicked));
            block.dense.extend_from_slice(&draft.dense);
            for (k, bag) in draft.offsets.windows(2).enumerate() {
                block.ids.extend(draft.ranks[bag[0]..bag[1]].iter().map(|&rank| self.row(k, rank)));
                block.end_bag();
            }
            block.samples += 1;
        }
        Ok(())
    }
}

/// Lines like Criteo's, made up: lengths, missing values and the spread of categories are like those of the real files,
/// labels are random. For measurements and tests.
pub fn criteo_text(seed: u64, lines: std::ops::Range<u64>) -> Vec<u8> {
    let root = Stream::new(seed, 0x5445_5854);
    let rows = crate::config::KAGGLE_ROWS;
    let zipf: Vec<Zipf> = rows.iter().map(|&n| Zipf::new(n, 1.05)).collect();
    let mut text = Vec::new();
    for line in lines {
        let draws = root.sub(line);
        text.push(b'0' + u8::from(draws.uniform(0) < 0.256));
        for (d, (median, spread, missing)) in (1u64..).zip(COUNTS) {
            text.push(b'\t');
            if draws.uniform(d) >= missing {
                let value = (median * (spread * draws.normal(100 + d)).exp()).min(1e8) as u64;
                text.extend_from_slice(value.to_string().as_bytes());
            }
        }
        for (k, zipf) in (0u64..).zip(&zipf) {
            text.push(b'\t');
            if draws.uniform(200 + k) >= MISSING[k as usize % MISSING.len()] {
                let category = root.sub(k << 40).bits(zipf.sample(&draws.sub(k), 0)) as u32;
                text.extend_from_slice(format!("{category:08x}").as_bytes());
            }
        }
        text.push(b'\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KAGGLE_ROWS, Preset};
    use crate::metrics::auc;

    fn fetched(clicks: &Clicks, indices: &[u64]) -> Block {
        let mut block = Block::new();
        clicks.fetch(indices, &mut block).unwrap();
        block
    }

    #[test]
    fn a_sample_is_the_same_alone_and_in_any_company() {
        let config = Synthetic { bag: 3, ..Synthetic::default() };
        let clicks = Clicks::new(&config, 7, 5, vec![10, 100_000, 3]);
        let all = fetched(&clicks, &(0..50).collect::<Vec<_>>());
        for i in [0usize, 17, 49] {
            let one = fetched(&Clicks::new(&Synthetic { samples: 60, ..config.clone() }, 7, 5, vec![10, 100_000, 3]), &[i as u64]);
            assert_eq!(one.dense, all.dense[i * 5..i * 5 + 5]);
            assert_eq!(one.labels[0], all.labels[i]);
            assert_eq!(one.ids, all.ids[all.offsets[i * 3] as usize..all.offsets[i * 3 + 3] as usize]);
        }
        assert_ne!(all, fetched(&Clicks::new(&config, 8, 5, vec![10, 100_000, 3]), &(0..50).collect::<Vec<_>>()));
        assert!(clicks.fetch(&[config.samples], &mut Block::new()).is_err());
    }

    #[test]
    fn shapes_are_as_promised() {
        for bag in [1, 4] {
            let clicks = Clicks::new(&Synthetic { bag, ..Synthetic::default() }, 1, 13, vec![1, 2, 50, 1 << 20]);
            let block = fetched(&clicks, &(0..2000).collect::<Vec<_>>());
            assert_eq!((block.samples, block.dense.len(), block.offsets.len()), (2000, 26_000, 8001));
            let sizes: Vec<usize> = block.offsets.windows(2).map(|w| (w[1] - w[0]) as usize).collect();
            assert_eq!((*sizes.iter().min().unwrap(), *sizes.iter().max().unwrap()), if bag == 1 { (1, 1) } else { (0, 4) });
            for (i, w) in block.offsets.windows(2).enumerate() {
                assert!(block.ids[w[0] as usize..w[1] as usize].iter().all(|&id| (id as u64) < clicks.rows()[i % 4]));
            }
            assert!(block.dense.iter().all(|x| x.is_finite() && *x >= 0.0));
        }
    }

    fn teacher_quality(clicks: &Clicks, n: u64) -> (f64, f64) {
        let block = fetched(clicks, &(0..n).collect::<Vec<_>>());
        let p: Vec<f64> = (0..n).map(|i| clicks.teacher_probability(i)).collect();
        let rate = block.labels.iter().sum::<f32>() as f64 / n as f64;
        (auc(&p, &block.labels).unwrap(), rate)
    }

    #[test]
    fn the_teacher_hits_the_rate_and_an_auc_like_criteos() {
        for (seed, rate, rows) in [(0, 0.256, Preset::Tiny.rows()), (1, 0.256, KAGGLE_ROWS.to_vec()), (2, 0.03, vec![100; 3])] {
            let clicks = Clicks::new(&Synthetic { positive_rate: rate, ..Synthetic::default() }, seed, 13, rows);
            let (auc, mean) = teacher_quality(&clicks, 20_000);
            assert!((mean - rate).abs() < 0.015, "seed {seed}: {mean} of {rate}");
            assert!((auc - 0.80).abs() < 0.025, "seed {seed}: AUC {auc}");
        }
    }

    #[test]
    fn degenerate_shapes_still_work() {
        let clicks = Clicks::new(&Synthetic { zipf: 0.0, ..Synthetic::default() }, 3, 0, vec![0, 1]);
        let block = fetched(&clicks, &(0..4000).collect::<Vec<_>>());
        assert!(block.ids.iter().all(|&id| id == 0));
        assert!((block.labels.iter().sum::<f32>() / 4000.0 - 0.256).abs() < 0.03);
    }
}
