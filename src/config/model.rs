//! The network's shape: presets, what a file may say, and the shape that comes out.

use super::{EmbeddingScale, Method, Quant, ScalePer};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// No layer is wider, and no embedding row.
pub const MAX_WIDTH: usize = 1 << 20;
/// No MLP has more layers.
pub const MAX_LAYERS: usize = 256;
/// No model has more tables.
pub const MAX_TABLES: usize = 65_536;

/// Published shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Small enough to train in a minute on two cores.
    #[default]
    Tiny,
    /// Criteo Kaggle, width 16 (DLRM `bench/dlrm_s_criteo_kaggle.sh`).
    Kaggle,
    /// Criteo Terabyte, width 64, ids modulo 10 million.
    Terabyte,
    /// MLPerf, width 128, ids modulo 40 million.
    Mlperf,
}

/// How the dense vector and the pooled embeddings meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Interaction {
    /// Dot products of all pairs (strict lower triangle), after the dense vector.
    #[default]
    Dot,
    /// All vectors side by side.
    Cat,
}

/// The loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Binary cross-entropy from logits, mean over the batch.
    #[default]
    Bce,
    /// Mean squared error of the probability (DLRM's own default, used by its debug run).
    Mse,
}

/// Where the embedding tables and the state of their optimizer live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum TablePlace {
    /// In the device's memory.
    #[default]
    Device,
    /// In this computer's memory or in a memory-mapped file; a step's rows go to the device and come back.
    Host,
}

impl TablePlace {
    fn is_default(&self) -> bool {
        *self == TablePlace::Device
    }
}

/// The network's shape. Every field that is left out comes from the preset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// Which published shape fills in what is not given here.
    pub preset: Preset,
    /// Dense features per sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense: Option<usize>,
    /// Width of an embedding row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dim: Option<usize>,
    /// Widths of the bottom MLP's layers, without the input; the last must be `dim`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bottom: Option<Vec<usize>>,
    /// Widths of the top MLP's layers, without the input; the last must be 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top: Option<Vec<usize>>,
    /// Rows of each table; left out, they come from the data's dictionary, its modulus or the preset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<Vec<u64>>,
    /// No table gets more rows than this; ids are taken modulo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<u64>,
    /// Dot or cat.
    pub interaction: Interaction,
    /// Keep the diagonal of the dot interaction (DLRM's `--arch-interaction-itself`).
    pub interaction_diagonal: bool,
    /// What is minimised.
    pub loss: Loss,
    /// Where the tables live. It changes speed and memory, never a result.
    #[serde(skip_serializing_if = "TablePlace::is_default")]
    pub tables: TablePlace,
    /// The folder of the file that holds the tables while a run lasts, with `tables = "host"`. Left out, they are kept in memory where
    /// they take at most half of what is free and the rest of the model fits too, else in a file in the run's own folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_dir: Option<String>,
}

/// Rows of the 26 tables of Criteo Kaggle (training logs of the published code).
pub const KAGGLE_ROWS: [u64; 26] = [
    1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18,
    15, 286181, 105, 142572,
];

/// Rows of Criteo Terabyte with ids modulo 10 million (published code).
pub const TERABYTE_ROWS: [u64; 26] = [
    9980200, 26095, 17224, 7383, 20152, 3, 7112, 1435, 62, 9756762, 1332128, 314263, 10, 2208, 11168, 122, 4, 971, 14, 9994101, 7267918,
    9946670, 415284, 12422, 102, 36,
];

/// Rows of the MLPerf model with ids modulo 40 million (`torchrec_dlrm/README.MD` of facebookresearch/dlrm).
pub const MLPERF_ROWS: [u64; 26] = [
    40000000, 39060, 17295, 7424, 20265, 3, 7122, 1543, 63, 40000000, 3067956, 405282, 10, 2209, 11938, 155, 4, 976, 14, 40000000,
    40000000, 40000000, 590152, 12973, 108, 36,
];

/// The shape a model finally has: nothing left open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// Dense features D.
    pub dense: usize,
    /// Embedding width.
    pub dim: usize,
    /// Bottom MLP widths, input first: `[dense, …, dim]`.
    pub bottom: Vec<usize>,
    /// Top MLP widths, input first: `[interaction output, …, 1]`.
    pub top: Vec<usize>,
    /// Rows of each table.
    pub rows: Vec<u64>,
    /// Dot or cat.
    pub interaction: Interaction,
    /// Diagonal kept.
    pub diagonal: bool,
    /// What is minimised.
    pub loss: Loss,
}

impl Preset {
    fn parts(self) -> (usize, Vec<usize>, Vec<usize>, Vec<u64>) {
        match self {
            Preset::Tiny => (8, vec![64, 32, 8], vec![64, 32, 1], KAGGLE_ROWS.iter().map(|&r| r.min(2_000)).collect()),
            Preset::Kaggle => (16, vec![512, 256, 64, 16], vec![512, 256, 1], KAGGLE_ROWS.to_vec()),
            Preset::Terabyte => (64, vec![512, 256, 64], vec![512, 512, 256, 1], TERABYTE_ROWS.to_vec()),
            Preset::Mlperf => (128, vec![512, 256, 128], vec![1024, 1024, 512, 256, 1], MLPERF_ROWS.to_vec()),
        }
    }

    /// Rows of the preset's tables.
    pub fn rows(self) -> Vec<u64> {
        self.parts().3
    }
}

impl Model {
    /// Fills in the preset. `dense` and `rows` are what the data says, for what is not given here.
    pub fn shape(&self, data_dense: Option<usize>, data_rows: Option<Vec<u64>>) -> Result<Shape> {
        let (dim, bottom, top, rows) = self.preset.parts();
        let dense = self.dense.or(data_dense).unwrap_or(13);
        let dim = self.dim.unwrap_or(dim);
        let cap = self.max_rows.unwrap_or(u64::MAX);
        let rows: Vec<u64> = self.rows.clone().or(data_rows).unwrap_or(rows).into_iter().map(|r| r.min(cap)).collect();
        let bottom = self.bottom.clone().unwrap_or(bottom);
        let top = self.top.clone().unwrap_or(top);
        let input = interaction_width(self.interaction, self.interaction_diagonal, rows.len(), dim);
        let shape = Shape {
            dense,
            dim,
            bottom: std::iter::once(dense).chain(bottom).collect(),
            top: std::iter::once(input).chain(top).collect(),
            rows,
            interaction: self.interaction,
            diagonal: self.interaction_diagonal,
            loss: self.loss,
        };
        shape.validate()?;
        Ok(shape)
    }
}

/// Width of the interaction's output: the dense vector and all pairs, or all vectors side by side.
/// One too large for a word is the largest word.
fn interaction_width(interaction: Interaction, diagonal: bool, tables: usize, dim: usize) -> usize {
    let vectors = tables.saturating_add(1);
    match (interaction, diagonal) {
        (Interaction::Dot, false) => dim.saturating_add(vectors.saturating_mul(tables) / 2),
        (Interaction::Dot, true) => dim.saturating_add(vectors.saturating_mul(tables.saturating_add(2)) / 2),
        (Interaction::Cat, _) => dim.saturating_mul(vectors),
    }
}

/// a b, or the largest number when that is too large.
fn product(a: usize, b: usize) -> u64 {
    (a as u64).saturating_mul(b as u64)
}

impl Shape {
    /// Checks that the parts fit each other.
    pub fn validate(&self) -> Result<()> {
        let fail = |text: String| Err(Error::Config(text));
        if self.bottom.len().max(self.top.len()) > MAX_LAYERS + 1 {
            let (bottom, top) = (self.bottom.len().saturating_sub(1), self.top.len().saturating_sub(1));
            return fail(format!("the MLPs have {bottom} and {top} layers, more than the limit of {MAX_LAYERS}"));
        }
        let widest = self.bottom.iter().chain(&self.top).chain([&self.dense, &self.dim]).copied().max().unwrap_or(0);
        if widest > MAX_WIDTH || self.tables() > MAX_TABLES {
            let tables = self.tables();
            return fail(format!(
                "the model has a layer of width {widest} and {tables} tables; at most {MAX_WIDTH} and {MAX_TABLES} are possible"
            ));
        }
        if usize::try_from(self.mlp_parameters().saturating_mul(4)).is_err() {
            return fail(format!("the MLPs have {} parameters, too many for this computer's words", self.mlp_parameters()));
        }
        if self.dense == 0 || self.dim == 0 {
            return fail(format!("model.dense ({}) and model.dim ({}) must be at least 1", self.dense, self.dim));
        }
        if self.bottom.len() < 2 || self.bottom.contains(&0) {
            return fail(format!(
                "model.bottom {:?} must name at least one layer, none of width 0",
                self.bottom.get(1..).unwrap_or_default()
            ));
        }
        if self.bottom.last() != Some(&self.dim) {
            return fail(format!(
                "the last width of model.bottom is {}, but model.dim is {}; they must be equal, because the dense vector meets the embedding rows in the interaction",
                self.bottom.last().unwrap_or(&0),
                self.dim
            ));
        }
        if self.top.len() < 2 || self.top.contains(&0) || self.top.last() != Some(&1) {
            return fail(format!("model.top {:?} must end with 1 (the logit) and have no width 0", self.top.get(1..).unwrap_or_default()));
        }
        if self.bottom[0] != self.dense {
            return fail(format!("the bottom MLP takes {} values, but there are {} dense features", self.bottom[0], self.dense));
        }
        let input = interaction_width(self.interaction, self.diagonal, self.tables(), self.dim);
        if self.top[0] != input {
            return fail(format!("the top MLP takes {} values, but the interaction gives {input}", self.top[0]));
        }
        if self.rows.is_empty() {
            return fail("the model has no table; give model.rows or data with categorical columns".into());
        }
        if let Some(k) = self.rows.iter().position(|&r| r == 0) {
            return fail(format!("table {k} has 0 rows; every table needs at least 1"));
        }
        if let Some(k) = self.rows.iter().position(|&r| r > u32::MAX as u64) {
            return fail(format!("table {k} has {} rows; row numbers are 32 bits wide, so at most {} fit", self.rows[k], u32::MAX));
        }
        Ok(())
    }

    /// Tables K.
    pub fn tables(&self) -> usize {
        self.rows.len()
    }

    /// Embedding parameters. Like all counts here, one too large for 64 bits is the largest number.
    pub fn embedding_parameters(&self) -> u64 {
        self.rows.iter().fold(0u64, |sum, &r| sum.saturating_add(r)).saturating_mul(self.dim as u64)
    }

    /// MLP parameters: weights and biases.
    pub fn mlp_parameters(&self) -> u64 {
        let layers = [&self.bottom, &self.top].into_iter().flat_map(|widths| widths.windows(2));
        layers.map(|w| product(w[0].saturating_add(1), w[1])).fold(0, u64::saturating_add)
    }

    /// Bytes of the model in FP32.
    pub fn fp32_bytes(&self) -> u64 {
        self.embedding_parameters().saturating_add(self.mlp_parameters()).saturating_mul(4)
    }

    /// Bytes of the model when packed: codes, one FP32 scale per table or embedding row, one per MLP output row
    /// or matrix, biases in FP32.
    pub fn packed_bytes(&self, quant: &Quant) -> u64 {
        let rows = self.rows.iter().map(|&r| quant.embedding_bits.packed_bytes(r, self.dim as u64)).fold(0, u64::saturating_add);
        let scales = match quant.embedding_scale {
            _ if !quant.embedding_bits.quantized() => 0,
            EmbeddingScale::Table => self.rows.len() as u64,
            EmbeddingScale::Row => self.rows.iter().copied().fold(0, u64::saturating_add),
        };
        let of_rows = quant.mlp_scale == ScalePer::Channel && quant.method != Method::Pact;
        let mut total = rows.saturating_add(scales.saturating_mul(4));
        for widths in [&self.bottom, &self.top] {
            for w in widths.windows(2) {
                let (input, output) = (w[0] as u64, w[1] as u64);
                let scales = if of_rows { output } else { 1 };
                let floats = output.saturating_add(if quant.mlp_bits.quantized() { scales } else { 0 });
                total = total.saturating_add(quant.mlp_bits.packed_bytes(output, input)).saturating_add(floats.saturating_mul(4));
            }
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_have_the_published_sizes() {
        let shape = |preset| Model { preset, ..Model::default() }.shape(None, None).unwrap();
        let kaggle = shape(Preset::Kaggle);
        assert_eq!((kaggle.top[0], kaggle.mlp_parameters(), kaggle.embedding_parameters()), (367, 475_985, 540_201_232));
        let terabyte = shape(Preset::Terabyte);
        assert_eq!((terabyte.top[0], terabyte.mlp_parameters(), terabyte.embedding_parameters()), (415, 762_177, 3_143_286_336));
        assert_eq!(shape(Preset::Mlperf).top[0], 479);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let model = Model { dim: Some(32), preset: Preset::Kaggle, ..Model::default() };
        assert!(model.shape(None, None).unwrap_err().to_string().contains("model.dim is 32"));
        let mut shape = Model::default().shape(None, None).unwrap();
        shape.top[0] += 1;
        assert!(shape.validate().unwrap_err().to_string().contains("the interaction gives 359"));
        let model = Model { rows: Some(vec![5, 0]), ..Model::default() };
        assert!(model.shape(None, None).unwrap_err().to_string().contains("table 1 has 0 rows"));
    }

    #[test]
    fn sizes_beyond_the_limits_are_refused_whatever_they_multiply_to() {
        let refused = |model: Model, says: &str| {
            let text = model.shape(None, None).unwrap_err().to_string();
            assert!(text.contains(says), "{text} does not say {says}");
        };
        let plain = Model::default;
        let huge = 1 << 62;
        refused(Model { dim: Some(huge), bottom: Some(vec![huge]), ..plain() }, "width 4611686018427388255 ");
        refused(
            Model { dim: Some(huge), bottom: Some(vec![huge]), interaction: Interaction::Cat, ..plain() },
            "width 18446744073709551615 ",
        );
        refused(Model { bottom: Some(vec![400_000_000_000, 8]), ..plain() }, "width 400000000000 and 26 tables; at most 1048576 and 65536");
        refused(Model { dense: Some(usize::MAX), ..plain() }, "width 18446744073709551615 ");
        refused(Model { top: Some([vec![2; 300], vec![1]].concat()), ..plain() }, "3 and 301 layers, more than the limit of 256");
        refused(Model { rows: Some(vec![1; 65_537]), ..plain() }, "65537 tables");
        Model { top: Some([vec![2; 255], vec![1]].concat()), ..plain() }.shape(None, None).unwrap();
    }

    #[test]
    fn counts_too_large_for_a_number_are_the_largest() {
        let shape = Shape { rows: vec![u64::MAX, 9], ..plain_shape() };
        assert_eq!((shape.embedding_parameters(), shape.fp32_bytes()), (u64::MAX, u64::MAX));
        let shape = Shape { rows: vec![1], bottom: vec![usize::MAX, usize::MAX, 8], ..plain_shape() };
        assert_eq!((shape.mlp_parameters(), shape.packed_bytes(&Quant::default())), (u64::MAX, u64::MAX));
    }

    fn plain_shape() -> Shape {
        Model::default().shape(None, None).unwrap()
    }
}
