//! Writes the made-up clicks as tab-separated text with a header, for `dqrm train`; with `--describe`, what a page must know of them.
//!
//! `cargo run --release --example clicks -- clicks.tsv 1000000`

use dqrm_web::ads::{self, Clicks};
use std::io::{BufWriter, Write};

/// Seed of the default model's clicks.
const SEED: u64 = 1;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, what) = match arguments.as_slice() {
        [path, what] => (path, what.as_str()),
        _ => return Err("usage: clicks FILE SAMPLES, or clicks FILE --describe".into()),
    };
    let mut out = BufWriter::new(std::fs::File::create(path)?);
    if what == "--describe" {
        writeln!(out, "{}", serde_json::to_string(&ads::description())?)?;
    } else {
        let samples: u64 = what.parse()?;
        let clicks = Clicks::new(SEED, 0..samples);
        writeln!(out, "{}", ads::header())?;
        for index in 0..samples {
            writeln!(out, "{}", clicks.line(index))?;
        }
    }
    out.flush()?;
    Ok(())
}
