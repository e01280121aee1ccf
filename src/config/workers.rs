//! Settings of workers that train one model together.

use crate::error::{Error, Result};
use crate::quant::Bits;
use serde::{Deserialize, Serialize};

/// Ranks of a job, at most.
pub const MAX_WORKERS: usize = 4096;

/// Whose scale quantizes a gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum GradientScale {
    /// The sender's own: nothing is clipped, and no scale has to be agreed on.
    #[default]
    Own,
    /// The mean of all ranks' scales, as in the published code: what lies above it is clipped, and integers
    /// are summed.
    Average,
}

/// How gradients of rows are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum RowSums {
    /// `gather` for up to 4 ranks, `owner` for more.
    #[default]
    Auto,
    /// Everybody sends everything to everybody.
    Gather,
    /// Each row goes to the rank that owns it, which sends the sum to all.
    Owner,
}

/// What the learning rate is multiplied with, since the global batch is larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum LrRule {
    /// 1: `optim.lr` is meant for the global batch.
    #[default]
    None,
    /// The number of workers.
    Linear,
    /// Its square root.
    Sqrt,
}

/// Workers and what they exchange (arXiv 2410.20046 section 3.3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workers {
    /// Ranks that train together, each with `train.batch` samples a step; 0 is a run without workers.
    pub count: usize,
    /// Width of the gradients of embedding rows on the wire: 4, 8, 16 or none (FP32).
    pub row_bits: Bits,
    /// Width of the gradients of the MLPs on the wire.
    pub mlp_bits: Bits,
    /// What quantization left out of an MLP gradient is added to the next one.
    pub feedback: bool,
    /// Whose scale quantizes.
    pub scale: GradientScale,
    /// How gradients of rows are summed.
    pub rows: RowSums,
    /// How `optim.lr` grows with the workers.
    pub lr_rule: LrRule,
    /// Replicas are compared every so many steps (and at the end of each epoch); 0 means never.
    pub check_every: u64,
}

impl Default for Workers {
    fn default() -> Self {
        Workers {
            count: 0,
            row_bits: Bits::B8,
            mlp_bits: Bits::B8,
            feedback: true,
            scale: GradientScale::Own,
            rows: RowSums::Auto,
            lr_rule: LrRule::None,
            check_every: 1000,
        }
    }
}

impl Workers {
    /// True when gradients are exchanged.
    pub fn on(&self) -> bool {
        self.count > 0
    }

    /// True when nothing differs from the default.
    pub(super) fn is_default(&self) -> bool {
        *self == Workers::default()
    }

    /// True when each row has an owner that sums it.
    pub fn owned(&self) -> bool {
        match self.rows {
            RowSums::Auto => self.count > 4 && self.scale == GradientScale::Own,
            RowSums::Gather => false,
            RowSums::Owner => true,
        }
    }

    /// Checks that gradients of rows of this width can travel.
    ///
    /// # Errors
    /// Rows that would end inside a byte.
    pub fn check_width(&self, dim: usize) -> Result<()> {
        if self.on() && self.row_bits == Bits::B4 && dim % 2 == 1 {
            return Err(Error::Config(format!(
                "workers.row_bits is 4, but rows of the odd width {dim} would end inside a byte; use 8 bits, or an even model.dim"
            )));
        }
        Ok(())
    }

    /// The factor on the learning rate.
    pub fn lr_factor(&self) -> f64 {
        match self.lr_rule {
            LrRule::None => 1.0,
            LrRule::Linear => self.count.max(1) as f64,
            LrRule::Sqrt => (self.count.max(1) as f64).sqrt(),
        }
    }

    /// True when errors of the MLPs' gradients are kept.
    pub fn keeps_errors(&self) -> bool {
        self.on() && self.feedback && self.mlp_bits.quantized()
    }

    pub(super) fn validate(&self) -> Result<()> {
        let fail = |text: String| Err(Error::Config(text));
        if self.count > MAX_WORKERS {
            return fail(format!("workers.count is {}; at most {MAX_WORKERS} are possible", self.count));
        }
        for (key, bits) in [("row_bits", self.row_bits), ("mlp_bits", self.mlp_bits)] {
            if bits == Bits::B2 {
                return fail(format!("workers.{key} is 2; gradients travel in 4, 8 or 16 bits, or none for FP32"));
            }
        }
        if self.scale == GradientScale::Average {
            if self.rows == RowSums::Owner {
                return fail("workers.scale = \"average\" sums integers at every rank; use workers.rows = \"gather\"".into());
            }
            if [self.row_bits, self.mlp_bits].contains(&Bits::B16) {
                return fail(
                    "workers.scale = \"average\" sums codes of 4 or 8 bits in 16; 16 bits are possible with scale = \"own\"".into(),
                );
            }
            if self.count > 256 {
                return fail(format!(
                    "workers.scale = \"average\" sums codes in 16 bits, for at most 256 workers; workers.count is {}",
                    self.count
                ));
            }
        }
        Ok(())
    }
}
