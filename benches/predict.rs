//! Predictions per second from a packed file, from row numbers to probabilities: sorting the ids,
//! gathering, both MLPs. Rows are drawn uniformly from every table, so large tables are read cold.
//!
//! ```text
//! cargo bench --bench predict -- --model MODEL.safetensors [--device cpu|gpu|NAME] [--rounds N] [--seconds S]
//!                                [--onnx A.onnx,B.onnx] [--python PYTHON]
//! ```
//!
//! With `--onnx` each round also runs onnxruntime (through `benches/onnx_speed.py`) on those files, so
//! that all see the same machine.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod common;

use common::{Options, Spread};
use dqrm::config::Device;
use dqrm::data::{Batch, Block};
use dqrm::metrics::sigmoid;
use dqrm::packed::{self, Packed};
use dqrm::predictor::Predictor;
use dqrm::rng::Stream;
use pollster::block_on;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

const USAGE: &str = "use --model FILE, --device cpu|gpu|NAME, --rounds N, --seconds S, --onnx FILES, --python PYTHON";
const BATCHES: [usize; 3] = [1, 128, 2048];

/// Samples with one uniform row of every table.
fn blocks(packed: &Packed, samples: usize, count: usize) -> Vec<Block> {
    let shape = &packed.manifest().shape;
    let stream = Stream::new(7, samples as u64);
    let mut n = 0u64;
    let mut next = || {
        n += 1;
        stream.uniform(n)
    };
    let one = |_| {
        let mut block = Block::new();
        block.samples = samples;
        for _ in 0..samples {
            block.dense.extend((0..shape.dense).map(|_| next() as f32));
            for &rows in &shape.rows {
                block.ids.push((next() * rows as f64) as u32);
                block.end_bag();
            }
        }
        block
    };
    (0..count).map(one).collect()
}

/// Probabilities of the blocks in turn until `limit` seconds have passed; gives samples per second.
fn rate(predictor: &mut Predictor, blocks: &[Block], limit: f64) -> dqrm::Result<f64> {
    let (start, mut samples, mut sum) = (Instant::now(), 0, 0.0);
    for block in blocks.iter().cycle() {
        let batch = Batch::prepare(block, predictor.tables())?;
        sum += block_on(predictor.logits(&batch))?.iter().map(|&x| sigmoid(f64::from(x))).sum::<f64>();
        samples += block.samples;
        if start.elapsed().as_secs_f64() > limit {
            break;
        }
    }
    assert!(sum.is_finite(), "a probability is no number");
    Ok(samples as f64 / start.elapsed().as_secs_f64())
}

/// Samples per second of onnxruntime, as its script prints them.
fn onnxruntime(python: &str, file: &str, batch: usize, seconds: f64) -> f64 {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/onnx_speed.py");
    let args =
        [file.to_owned(), "--batch".into(), batch.to_string(), "--rounds".into(), "1".into(), "--seconds".into(), seconds.to_string()];
    let output = Command::new(python).arg(script).args(args).output().unwrap_or_else(|e| panic!("{python}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default();
    let value: serde_json::Value =
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    value["rows_per_second"].as_f64().unwrap_or(f64::NAN)
}

fn main() -> dqrm::Result<()> {
    let options = Options::parse(USAGE, &[], &["--model", "--device", "--rounds", "--seconds", "--onnx", "--python"]);
    let Some(model) = options.text("--model") else {
        println!("skipped: no packed file given; {USAGE}");
        return Ok(());
    };
    let device = Device::from(options.text("--device").unwrap_or("cpu").to_owned());
    let (rounds, limit) = (options.value("--rounds", 5usize), options.value("--seconds", 1.0));
    let onnx: Vec<&str> = options.text("--onnx").map(|t| t.split(',').collect()).unwrap_or_default();
    let python = options.text("--python").unwrap_or("python3");

    let start = Instant::now();
    let packed = packed::open(Path::new(model))?;
    let opened = start.elapsed();
    let mut predictor = block_on(Predictor::load(&packed, &device, 2048))?;
    let loaded = start.elapsed();
    let first = blocks(&packed, 1, 1);
    let before = start.elapsed();
    rate(&mut predictor, &first, 0.0)?;
    let predicted = loaded + (start.elapsed() - before);
    let ms = |d: std::time::Duration| d.as_secs_f64() * 1e3;
    println!("model    {model}, {} bytes of codes", packed.codes().len());
    println!("device   {} ({}), {} bytes of buffers", predictor.device().engine, predictor.device().name, predictor.device_bytes());
    println!("ready    mapped and checked {:.1} ms, loaded {:.1} ms, first prediction {:.1} ms", ms(opened), ms(loaded), ms(predicted));

    println!("\n| batch | program | samples/s | least | most |\n|---|---|---|---|---|");
    for batch in BATCHES {
        let work = blocks(&packed, batch.min(predictor.batch()), if batch == 1 { 4096 } else { 64 });
        let mut rates = vec![Vec::new(); 1 + onnx.len()];
        rate(&mut predictor, &work, 0.2)?;
        for round in 0..rounds {
            eprintln!("batch {batch}, round {} of {rounds}", round + 1);
            rates[0].push(rate(&mut predictor, &work, limit)?);
            for (file, rates) in onnx.iter().zip(&mut rates[1..]) {
                rates.push(onnxruntime(python, file, batch, limit));
            }
        }
        let names = std::iter::once("dqrm, packed").chain(onnx.iter().copied());
        for (name, rates) in names.zip(&rates) {
            let s = Spread::of(rates);
            println!("| {batch} | {name} | {:.0} | {:.0} | {:.0} |", s.median, s.min, s.max);
        }
    }
    Ok(())
}
