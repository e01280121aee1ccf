//! What the header of a packed model says besides its tensors.

use crate::config::{Format, MAX_BAG, Schema, Shape, Synthetic};
use crate::quant::Bits;
use serde::{Deserialize, Serialize};

/// No sample holds more ids in all its bags.
const MAX_IDS: usize = 1 << 22;

/// The grid of some weights: value = (code + offset) × scale.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coding {
    /// Width of a code; `none` means FP32 (MLPs only).
    pub bits: Bits,
    /// Added to every code: 0, or 1/2 for DoReFa's grid, which has no zero.
    pub offset: f32,
}

/// What goes into the model, and how raw data becomes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Layout of the data that it was trained on.
    pub format: Format,
    /// Columns, transformation of dense values, threshold of the label.
    pub schema: Schema,
    /// For models trained on made-up clicks: what makes the same clicks again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub generator: Option<Generator>,
}

/// Settings of made-up clicks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generator {
    /// The run's seed.
    pub seed: u64,
    /// Train, validation and test.
    pub split: [f64; 3],
    /// The generator's own settings.
    pub synthetic: Synthetic,
}

/// What the header says besides the tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The network.
    pub shape: Shape,
    /// The tables' grid.
    pub tables: Coding,
    /// The MLPs' grid.
    pub mlps: Coding,
    /// What goes in.
    pub input: Input,
    /// How it was quantized: `dqrm`, `ptq`, `lsq` ….
    pub method: String,
    /// Steps it was trained for.
    pub step: u64,
}

impl Manifest {
    /// The most ids that a bag of each table may have.
    pub fn max_bag(&self) -> Vec<usize> {
        if let Some(generator) = &self.input.generator {
            return vec![generator.synthetic.bag; self.shape.tables()];
        }
        let schema = &self.input.schema;
        schema.categorical.iter().map(|_| 1).chain(schema.multi_hot.iter().map(|_| schema.multi_hot_max)).collect()
    }

    /// Sizes within reason for a file of `size` bytes, parts that fit each other.
    pub(super) fn check(&self, size: u64) -> Result<(), String> {
        let shape = &self.shape;
        shape.validate().map_err(|e| format!("has a shape that cannot be used: {e}"))?;
        let weights: u64 = [&shape.bottom, &shape.top].iter().flat_map(|w| w.windows(2)).map(|w| w[0] as u64 * w[1] as u64).sum();
        if weights > size.saturating_mul(4) {
            return Err(format!("has layers of {weights} weights, more than a file of {size} bytes can hold"));
        }
        if !self.tables.bits.quantized() {
            return Err("has tables without a bit width; a packed model's tables are quantized".into());
        }
        for (what, coding) in [("tables", self.tables), ("MLPs", self.mlps)] {
            if coding.offset != 0.0 && coding.offset != 0.5 {
                return Err(format!("has {what} whose codes are offset by {}; 0 and 0.5 are possible", coding.offset));
            }
        }
        let bags = self.max_bag();
        if bags.len() != shape.tables() {
            return Err(format!("has {} tables, but its data has {} columns for them", shape.tables(), bags.len()));
        }
        if let Some(bag) = bags.iter().find(|&&b| b == 0 || b > MAX_BAG) {
            return Err(format!("has bags of {bag} ids; 1 to {MAX_BAG} are possible"));
        }
        if bags.iter().sum::<usize>() > MAX_IDS {
            return Err(format!("takes {} ids a sample; at most {MAX_IDS} are possible", bags.iter().sum::<usize>()));
        }
        let dense = self.input.schema.dense.len();
        if self.input.generator.is_none() && dense != shape.dense {
            return Err(format!("takes {} dense features, but its data has {dense}", shape.dense));
        }
        Ok(())
    }
}
