//! The trained weights as a packed file: its codes must be those of the host's own quantization, and
//! what a predictor computes from it must be what full-precision copies of the same codes give.

use crate::arrays::{Arrays, Values};
use crate::data::Data;
use dqrm::config::{Config, Format, Schema, Shape};
use dqrm::data::Batch;
use dqrm::data::ids::Mapper;
use dqrm::model::Network;
use dqrm::packed::{self, Coding, Input, Manifest, Packed, Rule, Source, WritePlan};
use dqrm::predictor::Predictor;
use dqrm::quant::{Bits, pack};
use dqrm::{Error, Result};
use std::collections::BTreeMap;

/// Tensors in memory.
struct Weights<'a>(&'a BTreeMap<String, Vec<f32>>);

impl Source for Weights<'_> {
    fn read(&mut self, name: &str, start: u64, values: &mut [f32]) -> Result<()> {
        let all = self.0.get(name).ok_or_else(|| Error::Data(format!("no tensor `{name}`")))?;
        values.copy_from_slice(&all[start as usize..start as usize + values.len()]);
        Ok(())
    }
}

/// Writes, opens, compares the codes with `computed`, and gives the logits of the evaluation part.
pub(crate) fn logits(
    shape: &Shape,
    config: &Config,
    data: &Data,
    weights: &BTreeMap<String, Vec<f32>>,
    computed: &Arrays,
) -> Result<Vec<f32>> {
    let folder = tempfile::tempdir().map_err(Error::io("create", "a temporary folder"))?;
    let path = folder.path().join("model.safetensors");
    let quant = &config.quant;
    let mut schema = Schema::criteo(shape.dense, shape.tables());
    if let Some(&most) = data.max_bag.iter().max().filter(|&&most| most > 1) {
        (schema.categorical, schema.multi_hot, schema.multi_hot_max) = (Vec::new(), schema.categorical, most);
    }
    let plan = WritePlan {
        manifest: Manifest {
            shape: shape.clone(),
            tables: Coding { bits: quant.embedding_bits, offset: 0.0 },
            mlps: Coding { bits: quant.mlp_bits, offset: 0.0 },
            input: Input { format: Format::Text, schema, generator: None },
            method: "dqrm".into(),
            step: 0,
        },
        rule: Rule::MaxAbs,
        row_scales: false,
        mlp_scales: quant.mlp_scale,
        quantize_bias: quant.quantize_bias,
        ids: Mapper::modulo(&shape.rows).to_bytes(),
    };
    packed::write(&path, &plan, &mut Weights(weights), &mut |_, _| {})?;
    let packed = packed::open(&path)?;
    packed.verify().map_err(Error::Data)?;
    check_codes(&packed, computed)?;
    let mut predictor = pollster::block_on(Predictor::load(&packed, &config.device, config.train.eval_batch))?;
    let mut logits = Vec::new();
    for block in &data.eval {
        let batch = Batch::prepare(block, predictor.tables())?;
        logits.extend(pollster::block_on(predictor.logits(&batch))?);
    }
    Ok(logits)
}

/// Every code of the file is the host's; a bias is its code times the scale of its row.
fn check_codes(packed: &Packed, computed: &Arrays) -> Result<()> {
    let m = packed.manifest();
    let unequal = |name: &str, i: usize, got: i32, wanted: i32| {
        Err(Error::Data(format!("the packed file has code {got} at place {i} of `{name}`, the host's quantization gives {wanted}")))
    };
    let host = |name: &str| match computed.get(name).map(|a| &a.values) {
        Some(Values::Int(_, codes)) => Ok(codes),
        _ => Err(Error::Data(format!("no codes are called `{name}`"))),
    };
    let matrix = |name: &str, columns: usize, bits: Bits| -> Result<()> {
        let stride = pack::row_bytes(bits, columns);
        let bytes = packed.tensor(&format!("{name}.codes"));
        for (i, &wanted) in host(&format!("codes.{name}"))?.iter().enumerate() {
            let got = pack::code_at(&bytes[i / columns * stride..], bits, i % columns);
            if got != wanted {
                return unequal(name, i, got, wanted);
            }
        }
        Ok(())
    };
    for k in 0..m.shape.tables() {
        matrix(&format!("emb_l.{k}.weight"), m.shape.dim, m.tables.bits)?;
    }
    for layer in Network::new(&m.shape).layers().filter(|_| m.mlps.bits.quantized()) {
        matrix(&format!("{}.weight", layer.name), layer.linear.inputs, m.mlps.bits)?;
        let name = format!("{}.bias", layer.name);
        if computed.contains_key(&format!("codes.{name}")) {
            let scales = packed.floats(&format!("{}.weight.scale", layer.name));
            for (o, (&wanted, bias)) in host(&format!("codes.{name}"))?.iter().zip(packed.floats(&name)).enumerate() {
                let got = (bias / scales[o.min(scales.len() - 1)]).round() as i32;
                if got != wanted {
                    return unequal(&name, o, got, wanted);
                }
            }
        }
    }
    Ok(())
}

/// The largest difference of two lists of probabilities that may come from the same codes.
const SAME_CODES: f32 = 1e-5;

/// Compares the predictor with the simulation in full precision.
pub(crate) fn check_probabilities(simulated: &[f32], packed: &[f32]) -> Result<()> {
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    for (i, (&a, &b)) in simulated.iter().zip(packed).enumerate() {
        let difference = (sigmoid(a) - sigmoid(b)).abs();
        if difference.is_nan() || difference > SAME_CODES {
            return Err(Error::Data(format!("row {i}: the packed file gives logit {b}, the same codes in FP32 give {a}")));
        }
    }
    Ok(())
}
