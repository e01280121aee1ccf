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

use common::Options;
use dqrm::bench::Spread;
use dqrm::bench::infer::{BATCHES, Ready, rate};
use dqrm::config::Device;
use std::path::Path;
use std::process::Command;

const USAGE: &str = "use --model FILE, --device cpu|gpu|NAME, --rounds N, --seconds S, --onnx FILES, --python PYTHON";

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

    let mut ready = Ready::load(Path::new(model), &device)?;
    let [opened, loaded, predicted] = ready.milliseconds;
    let (device, bytes) = (ready.device(), ready.predictor.device_bytes());
    println!("model    {model}, {} bytes of codes", ready.code_bytes());
    println!("device   {} ({}), {bytes} bytes of buffers", device.engine, device.name);
    println!("ready    mapped and checked {opened:.1} ms, loaded {loaded:.1} ms, first prediction {predicted:.1} ms");

    println!("\n| batch | program | samples/s | least | most |\n|---|---|---|---|---|");
    for batch in BATCHES {
        let work = ready.blocks(batch);
        let mut rates = vec![Vec::new(); 1 + onnx.len()];
        rate(&mut ready.predictor, &work, 0.2)?;
        for round in 0..rounds {
            eprintln!("batch {batch}, round {} of {rounds}", round + 1);
            rates[0].push(rate(&mut ready.predictor, &work, limit)?);
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
