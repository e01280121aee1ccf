//! How weights are quantized: method, widths, scales.

use crate::error::{Error, Result};
use crate::quant::Bits;
use serde::{Deserialize, Serialize};

/// How weights are quantized while training. arXiv 2410.20046 section 4 compares these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Scale = largest magnitude / largest code; a table's is refreshed every P steps (the paper's method).
    #[default]
    Dqrm,
    /// Post-training quantization: steps in FP32; evaluations quantize with fresh scales.
    Ptq,
    /// Learned step size (Esser et al. 2020, arXiv 1902.08153): the scales are trained too.
    Lsq,
    /// What the paper calls PACT, which is DoReFa's grid for weights (Zhou et al. 2016, arXiv 1606.06160):
    /// tanh, divided by its largest magnitude, on a grid in -1..=1. Biases stay FP32.
    Pact,
    /// As [`Method::Dqrm`], the scale of each whole table found anew in every step.
    Hawq,
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Method::Dqrm => "dqrm",
            Method::Ptq => "ptq",
            Method::Lsq => "lsq",
            Method::Pact => "pact",
            Method::Hawq => "hawq",
        })
    }
}

/// One scale per output row, or one per matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum ScalePer {
    /// One scale per output row of the weight matrix.
    #[default]
    Channel,
    /// One scale per weight matrix.
    Matrix,
}

/// One scale per embedding table, or one per row of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum EmbeddingScale {
    /// One scale per table, kept between refreshes.
    #[default]
    Table,
    /// One scale per row, found from the row itself at every look-up: no state and no period.
    Row,
}

/// Fake quantization while training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quant {
    /// How weights are quantized.
    pub method: Method,
    /// Width of the embedding rows: 2, 4, 8, 16 or "none".
    pub embedding_bits: Bits,
    /// Width of the MLP weights: 2, 4, 8, 16 or "none".
    pub mlp_bits: Bits,
    /// Table scales are recomputed at steps 0, P, 2P … (the paper uses 200 on Kaggle). Only method
    /// `dqrm` reads it: `hawq` and `pact` look at the whole tables in every step, `lsq` learns its scales,
    /// `ptq` finds them for each evaluation, and scales of rows are always fresh.
    pub period: u64,
    /// Granularity of the embedding scales; `row` goes with `dqrm`, `hawq` and `ptq`.
    pub embedding_scale: EmbeddingScale,
    /// Granularity of the MLP scales; `pact` always has one per matrix.
    pub mlp_scale: ScalePer,
    /// Quantize biases too: with the scale of their row, or, in `lsq`, a learned one of their own. `pact`
    /// leaves them in FP32.
    pub quantize_bias: bool,
    /// Sum the bag first and quantize the sum, as the published code does; the default quantizes
    /// rows, which is what a packed table can hold. One-hot bags give the same result.
    pub pool_then_quantize: bool,
    /// Epochs in FP32 before quantization starts; evaluations until then are in FP32 too.
    pub pretrain_epochs: u64,
}

impl Default for Quant {
    fn default() -> Self {
        Quant {
            method: Method::Dqrm,
            embedding_bits: Bits::B4,
            mlp_bits: Bits::B4,
            period: 200,
            embedding_scale: EmbeddingScale::Table,
            mlp_scale: ScalePer::Channel,
            quantize_bias: true,
            pool_then_quantize: false,
            pretrain_epochs: 0,
        }
    }
}

impl Quant {
    /// Something is quantized at all.
    pub fn quantized(&self) -> bool {
        self.embedding_bits.quantized() || self.mlp_bits.quantized()
    }

    /// Steps between two refreshes of the tables' scales; none where steps never refresh them.
    pub fn refresh_every(&self) -> Option<u64> {
        match self.method {
            _ if !self.has_table_scales() => None,
            Method::Dqrm => Some(self.period),
            Method::Hawq | Method::Pact => Some(1),
            Method::Ptq | Method::Lsq => None,
        }
    }

    /// Each table has a scale, which is found before its rows are looked up.
    pub fn has_table_scales(&self) -> bool {
        self.embedding_bits.quantized() && self.embedding_scale == EmbeddingScale::Table
    }

    /// The tables' scales are state of the training and stand in checkpoints; those of `ptq` are made
    /// for each evaluation.
    pub fn keeps_table_scales(&self) -> bool {
        self.has_table_scales() && self.method != Method::Ptq
    }

    /// The MLPs' scales are learned.
    pub fn learns_mlp_scales(&self) -> bool {
        self.method == Method::Lsq && self.mlp_bits.quantized()
    }

    /// Training begins in FP32 and goes on quantized.
    pub fn pretrains(&self) -> bool {
        self.pretrain_epochs > 0 && self.quantized() && self.method != Method::Ptq
    }

    /// The quantization of training steps: none in method `ptq`.
    pub(crate) fn in_steps(&self) -> Quant {
        if self.method == Method::Ptq { self.full_precision() } else { self.clone() }
    }

    /// The same without any quantization.
    pub(crate) fn full_precision(&self) -> Quant {
        Quant { embedding_bits: Bits::None, mlp_bits: Bits::None, ..self.clone() }
    }

    /// Checks that the parts fit each other.
    pub(super) fn validate(&self) -> Result<()> {
        let fail = |text: String| Err(Error::Config(text));
        let (method, plain) = (self.method, Quant::default());
        let of_rows = self.embedding_scale == EmbeddingScale::Row;
        if self.period == 0 {
            return fail("quant.period is 0; the smallest period is 1 (a fresh scale every step)".into());
        }
        if self.period != plain.period && self.period != 1 && (method != Method::Dqrm || of_rows) {
            let why = match method {
                Method::Lsq => "method `lsq` learns its scales".to_owned(),
                Method::Ptq => "method `ptq` finds its scales for each evaluation".to_owned(),
                Method::Hawq | Method::Pact => format!("method `{method}` looks at the whole tables in every step"),
                Method::Dqrm => "a scale for each embedding row is fresh at every look-up".to_owned(),
            };
            return fail(format!("quant.period is {}, but {why}; leave it out", self.period));
        }
        if of_rows && matches!(method, Method::Lsq | Method::Pact) {
            return fail(format!(
                "quant.embedding_scale is \"row\", but method `{method}` has one scale for a whole table; use \"table\", or method dqrm, hawq or ptq"
            ));
        }
        if self.pool_then_quantize && of_rows {
            return fail(
                "quant.pool_then_quantize quantizes sums of rows, so quant.embedding_scale cannot be \"row\"; use \"table\"".into(),
            );
        }
        if self.pool_then_quantize && matches!(method, Method::Lsq | Method::Pact) {
            return fail(format!("quant.pool_then_quantize goes with methods dqrm, hawq and ptq; `{method}` quantizes rows"));
        }
        if self.pretrain_epochs > 0 && method == Method::Ptq {
            return fail(format!(
                "quant.pretrain_epochs is {}, but method `ptq` trains in FP32 throughout; leave it out",
                self.pretrain_epochs
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(words: &[&str], change: impl FnOnce(&mut Quant)) {
        let mut quant = Quant::default();
        change(&mut quant);
        let text = quant.validate().unwrap_err().to_string();
        words.iter().for_each(|word| assert!(text.contains(word), "`{word}` is not in: {text}"));
    }

    #[test]
    fn combinations_without_a_meaning_are_refused() {
        use Method::{Hawq, Lsq, Pact, Ptq};
        refused(&["quant.period is 0"], |q| q.period = 0);
        refused(&["quant.period is 50", "`hawq`", "every step"], |q| (q.method, q.period) = (Hawq, 50));
        refused(&["quant.period is 50", "learns its scales"], |q| (q.method, q.period) = (Lsq, 50));
        refused(&["quant.period is 50", "each evaluation"], |q| (q.method, q.period) = (Ptq, 50));
        refused(&["quant.period is 50", "every look-up"], |q| (q.embedding_scale, q.period) = (EmbeddingScale::Row, 50));
        for method in [Lsq, Pact] {
            refused(&["\"row\"", "whole table"], |q| (q.method, q.embedding_scale) = (method, EmbeddingScale::Row));
            refused(&["pool_then_quantize", "quantizes rows"], |q| (q.method, q.pool_then_quantize) = (method, true));
        }
        refused(&["sums of rows"], |q| (q.embedding_scale, q.pool_then_quantize) = (EmbeddingScale::Row, true));
        refused(&["pretrain_epochs is 2", "FP32 throughout"], |q| (q.method, q.pretrain_epochs) = (Ptq, 2));
        for method in [Method::Dqrm, Ptq, Lsq, Pact, Hawq] {
            for bits in [Bits::None, Bits::B2, Bits::B16] {
                Quant { method, embedding_bits: bits, ..Quant::default() }.validate().unwrap();
                Quant { method, mlp_bits: bits, period: 1, ..Quant::default() }.validate().unwrap();
            }
        }
    }

    #[test]
    fn each_method_has_its_period() {
        let every = |method| Quant { method, ..Quant::default() }.refresh_every();
        assert_eq!([every(Method::Dqrm), every(Method::Hawq), every(Method::Pact)], [Some(200), Some(1), Some(1)]);
        assert_eq!([every(Method::Ptq), every(Method::Lsq)], [None, None]);
        assert_eq!(Quant { embedding_scale: EmbeddingScale::Row, ..Quant::default() }.refresh_every(), None);
    }
}
