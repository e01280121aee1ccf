//! From training to ONNX: trains small models, packs them, exports them, and writes inputs and
//! probabilities as .npy files beside each, for `tests/onnx/check.py` to compare with onnxruntime.
//!
//! ```text
//! cargo run --release --example 04_onnx -- FOLDER
//! python3 tests/onnx/check.py FOLDER
//! ```
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use dqrm::Result;
use dqrm::checkpoint::Checkpoint;
use dqrm::config::{Config, Device, Interaction, Method, ScalePer, Shape};
use dqrm::data::synthetic::Clicks;
use dqrm::data::{Block, Samples};
use dqrm::metrics::sigmoid;
use dqrm::packed::{self, Rule, WritePlan};
use dqrm::quant::Bits;
use dqrm::train::{self, ExportFormat, ExportOptions, Options, PackOptions, Ranks, Start, Trained};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Samples to compare.
const COMPARED: u64 = 1000;

/// A model to train and export.
struct Case {
    name: &'static str,
    bits: Bits,
    mlp_bits: Bits,
    row_scales: bool,
    method: Method,
    /// Pack again on the grid without zero, MLPs too.
    dorefa: bool,
    bag: usize,
    bottom: usize,
    dim: usize,
    interaction: Interaction,
    diagonal: bool,
}

const INT4: Case = Case {
    name: "int4",
    bits: Bits::B4,
    mlp_bits: Bits::B4,
    row_scales: false,
    method: Method::Dqrm,
    dorefa: false,
    bag: 1,
    bottom: 64,
    dim: 8,
    interaction: Interaction::Dot,
    diagonal: false,
};

/// Every width, scales by table and by row, a grid without zero, bags of several ids, rows that do not
/// fill their last byte, and both interactions.
const CASES: &[Case] = &[
    Case { dim: 32, ..INT4 },
    Case { name: "int8", bits: Bits::B8, mlp_bits: Bits::B8, dim: 16, ..INT4 },
    Case { name: "int4_row_scales", row_scales: true, ..INT4 },
    Case { name: "fp32", bits: Bits::None, mlp_bits: Bits::None, ..INT4 },
    Case { name: "fp32_bags", bits: Bits::None, mlp_bits: Bits::None, bag: 3, ..INT4 },
    Case { name: "int4_bags", bag: 4, mlp_bits: Bits::None, ..INT4 },
    Case { name: "int4_bags_row_scales", bag: 3, row_scales: true, dim: 7, ..INT4 },
    Case { name: "int2_odd_cat", bits: Bits::B2, mlp_bits: Bits::B2, dim: 5, interaction: Interaction::Cat, ..INT4 },
    Case { name: "int16_diagonal", bits: Bits::B16, mlp_bits: Bits::B16, diagonal: true, ..INT4 },
    Case { name: "pact_int4", method: Method::Pact, mlp_bits: Bits::None, dim: 9, ..INT4 },
    Case { name: "lsq_int4", method: Method::Lsq, ..INT4 },
    Case { name: "dorefa_int8_bags", bottom: 8, dorefa: true, bits: Bits::B8, mlp_bits: Bits::B8, bag: 2, ..INT4 },
];

impl Case {
    fn config(&self) -> Config {
        let mut c = Config { device: Device::Cpu, ..Config::default() };
        c.model.dim = Some(self.dim);
        c.model.bottom = Some(vec![self.bottom, self.dim]);
        c.model.interaction = self.interaction;
        c.model.interaction_diagonal = self.diagonal;
        (c.quant.embedding_bits, c.quant.mlp_bits, c.quant.method) = (self.bits, self.mlp_bits, self.method);
        c.data.synthetic.samples = 20_000;
        c.data.synthetic.bag = self.bag;
        c
    }

    /// Trains in `dir/run`, packs what is quantized, exports; gives the ONNX file's length.
    fn make(&self, dir: &Path) -> Result<u64> {
        let (config, run) = (self.config(), dir.join("run"));
        let options = Options {
            dir: run.clone(),
            start: Start::Fresh,
            stop: &AtomicBool::new(false),
            ranks: Ranks::Alone,
            profile: 0,
            tuning: Default::default(),
        };
        train::run(&config, options, &mut |_| {})?;
        let mut source = run.clone();
        if self.bits.quantized() {
            source = dir.join("packed.safetensors");
            let options = PackOptions { row_scales: self.row_scales, out: Some(source.clone()), ..PackOptions::default() };
            train::pack(&run, &options, &mut |_, _| {})?;
        }
        if self.dorefa {
            as_dorefa(&run, &source)?;
        }
        let out = dir.join("model.onnx");
        let external_data = self.name == "fp32_bags";
        let options = ExportOptions { format: ExportFormat::Onnx, which: None, out: Some(out), force: true, external_data };
        let exported = train::export(&source, &options, &mut |_, _| {})?;

        let clicks = clicks(&config)?;
        let mut block = Block::new();
        clicks.fetch(&(0..COMPARED).collect::<Vec<_>>(), &mut block)?;
        let logits = Trained::open(&source, None, Some(Device::Cpu))?.logits(&block)?;
        let probabilities: Vec<f32> = logits.iter().map(|&x| sigmoid(f64::from(x)) as f32).collect();
        write_inputs(dir, &block, clicks.dense(), clicks.rows().len(), self.bag > 1)?;
        write_npy(&dir.join("probability.npy"), "<f4", &[logits.len()], bytemuck::cast_slice(&probabilities))?;
        Ok(exported.written.bytes)
    }
}

fn clicks(config: &Config) -> Result<Clicks> {
    let shape: Shape = config.model.shape(None, None)?;
    Ok(Clicks::new(&config.data.synthetic, config.seed, shape.dense, shape.rows))
}

/// Packs the run's weights again, on the grid that has no zero.
fn as_dorefa(run: &Path, path: &Path) -> Result<()> {
    let model = packed::open(path)?;
    let mut manifest = model.manifest().clone();
    manifest.method = "pact".into();
    let plan = WritePlan {
        manifest,
        rule: Rule::DoReFa,
        row_scales: false,
        mlp_scales: ScalePer::Matrix,
        quantize_bias: false,
        ids: model.ids().to_vec(),
    };
    drop(model);
    packed::write(path, &plan, &mut Checkpoint::open(&run.join(train::BEST))?, &mut |_, _| {}).map(|_| ())
}

/// The inputs as the ONNX model takes them: dense columns as in the data, ids in one matrix, or for bags
/// in a matrix for each table, filled up with -1.
fn write_inputs(dir: &Path, block: &Block, dense: usize, tables: usize, bags: bool) -> Result<()> {
    // The generator gives ln(x + 1) of whole numbers x.
    let raw: Vec<f32> = block.dense.iter().map(|&x| f64::from(x).exp_m1().round() as f32).collect();
    write_npy(&dir.join("dense.npy"), "<f4", &[block.samples, dense], bytemuck::cast_slice(&raw))?;
    if !bags {
        let ids: Vec<i64> = block.ids.iter().map(|&id| i64::from(id)).collect();
        return write_npy(&dir.join("ids.npy"), "<i8", &[block.samples, tables], bytemuck::cast_slice(&ids));
    }
    for k in 0..tables {
        let bag = |b: usize| &block.ids[block.offsets[b * tables + k] as usize..block.offsets[b * tables + k + 1] as usize];
        let longest = (0..block.samples).map(|b| bag(b).len()).max().unwrap_or(0);
        let filled = |b: usize| bag(b).iter().map(|&id| i64::from(id)).chain(std::iter::repeat(-1)).take(longest);
        let ids: Vec<i64> = (0..block.samples).flat_map(filled).collect();
        write_npy(&dir.join(format!("ids_{k}.npy")), "<i8", &[block.samples, longest], bytemuck::cast_slice(&ids))?;
    }
    Ok(())
}

/// An array in NumPy's format, version 1.0.
fn write_npy(path: &Path, kind: &str, shape: &[usize], values: &[u8]) -> Result<()> {
    let shape: String = shape.iter().map(|n| format!("{n},")).collect();
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    header += &" ".repeat((header.len() + 11).next_multiple_of(64) - header.len() - 11);
    header += "\n";
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values);
    std::fs::File::create(path).and_then(|mut file| file.write_all(&bytes)).map_err(dqrm::Error::io("write", path))
}

fn main() -> Result<()> {
    let wanted = std::env::args().nth(1);
    let folder = wanted.map_or_else(|| std::env::temp_dir().join(format!("dqrm-onnx-{}", std::process::id())), Into::into);
    for case in CASES {
        let dir = folder.join(case.name);
        std::fs::create_dir_all(&dir).map_err(dqrm::Error::io("create", &dir))?;
        println!("{:<22} {:>9} bytes of ONNX", case.name, case.make(&dir)?);
    }
    println!("\nin {}; compare with onnxruntime: python3 tests/onnx/check.py FOLDER", folder.display());
    Ok(())
}
