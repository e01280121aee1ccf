//! Rows of text before their categories are rows of tables.

/// Longer lines are malformed.
pub const MAX_LINE: usize = 1 << 20;

/// Malformed lines that are named when they are skipped.
pub(super) const MESSAGES: usize = 10;

/// May lines lack the label?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels {
    /// A line without label is malformed.
    Required,
    /// A line may have one column fewer: then it has no label.
    Optional,
}

/// Rows with their categories as keys.
#[derive(Debug, Clone, PartialEq)]
pub struct RawBlock {
    /// Rows n.
    pub samples: usize,
    /// Labels, 0 or 1, where the line has one, `[n]`.
    pub labels: Vec<Option<f32>>,
    /// Dense features, transformed, `[n, D]`.
    pub dense: Vec<f32>,
    /// Where each bag begins in `keys`, row by row, and the end: `[n * K + 1]`, bag (b, k) at `b * K + k`.
    pub offsets: Vec<u32>,
    /// Categories.
    pub keys: Vec<u64>,
}

impl Default for RawBlock {
    fn default() -> Self {
        RawBlock { samples: 0, labels: Vec::new(), dense: Vec::new(), offsets: vec![0], keys: Vec::new() }
    }
}

impl RawBlock {
    /// A block without rows.
    pub fn new() -> RawBlock {
        RawBlock::default()
    }

    /// Takes all rows out and keeps the memory.
    pub fn clear(&mut self) {
        self.truncate(0, 0, 0, 1);
    }

    pub(super) fn truncate(&mut self, samples: usize, dense: usize, keys: usize, offsets: usize) {
        self.samples = samples;
        self.labels.truncate(samples);
        self.dense.truncate(dense);
        self.keys.truncate(keys);
        self.offsets.truncate(offsets);
    }
}
