//! Our side of the comparison with other programs (see `README.md` here): trains one model for as long as it is
//! told, a round a line, and writes the weights and batches that all programs start from.
//!
//! ```text
//! cargo bench --bench peers -- --write FILE [--batch B] [--rows R]
//! cargo bench --bench peers -- [--device cpu|gpu|NAME] [--bits none|4] [--batch B] [--rows R] [--prepare]
//! ```
//!
//! Standard input has one number a line, the seconds of a round; each is answered with one line of JSON.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

#[path = "../common/mod.rs"]
mod common;

use common::Options;
use dqrm::config::{Config, Device, Model, Preset, Quant, Shape, Synthetic, Train};
use dqrm::data::synthetic::Clicks;
use dqrm::data::{Batch, Block, Samples};
use dqrm::error::Error;
use dqrm::quant::Bits;
use dqrm::session::{Session, Tensor};
use dqrm::tensor_file;
use pollster::block_on;
use safetensors::tensor::Dtype;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead, BufWriter, Write};
use std::time::Instant;

const USAGE: &str = "use --write FILE, --device cpu|gpu|NAME, --bits none|4, --batch B, --rows R, --prepare";
/// Seed of weights and clicks.
const SEED: u64 = 1;
/// First steps whose losses all programs tell, so that they can be compared.
const FIRST: usize = 8;

/// What all programs train: the Kaggle shape with 26 tables of equal size, and `count` batches of `size` samples.
struct Work {
    shape: Shape,
    config: Config,
    max_bag: Vec<usize>,
    blocks: Vec<Block>,
}

impl Work {
    fn new(rows: u64, size: usize, bits: Bits, device: Device) -> dqrm::Result<Work> {
        let model = Model { preset: Preset::Kaggle, rows: Some(vec![rows; 26]), ..Model::default() };
        let shape = model.shape(None, None)?;
        let quant = Quant { embedding_bits: bits, mlp_bits: bits, ..Quant::default() };
        let train = Train { batch: size, eval_batch: size, ..Train::default() };
        let config = Config { device, quant, train, ..Config::default() };
        let count = (8192 / size.max(1)).clamp(10, 64);
        let synthetic = Synthetic { samples: (count * size) as u64, ..Synthetic::default() };
        let clicks = Clicks::new(&synthetic, SEED, shape.dense, shape.rows.clone());
        let block = |i: usize| {
            let mut block = Block::new();
            clicks.fetch(&((i * size) as u64..((i + 1) * size) as u64).collect::<Vec<_>>(), &mut block)?;
            Ok(block)
        };
        let blocks = (0..count).map(block).collect::<dqrm::Result<_>>()?;
        Ok(Work { max_bag: clicks.max_bag().to_vec(), shape, config, blocks })
    }

    fn session(&self) -> dqrm::Result<Session> {
        let mut session = block_on(Session::load(&self.shape, &self.config, &self.max_bag))?;
        session.initialise(SEED, &mut |_, _| {})?;
        Ok(session)
    }

    /// A safetensors file: the first weights under PyTorch's names, `dense` `[N, B, D]`, `labels` `[N, B]`, `ids` `[N, B, K]`.
    fn write(&self, path: &str) -> dqrm::Result<()> {
        let mut session = self.session()?;
        let (count, size) = (self.blocks.len() as u64, self.blocks[0].samples as u64);
        let tables = self.shape.tables() as u64;
        let mut listed: Vec<(String, Dtype, Vec<u64>)> =
            Tensor::weights(&self.shape).into_iter().map(|t| (t.name, Dtype::F32, t.shape)).collect();
        listed.push(("dense".into(), Dtype::F32, vec![count, size, self.shape.dense as u64]));
        listed.push(("labels".into(), Dtype::F32, vec![count, size]));
        listed.push(("ids".into(), Dtype::I32, vec![count, size, tables]));
        let borrowed: Vec<_> = listed.iter().map(|(n, d, s)| (n.as_str(), *d, s.as_slice())).collect();
        let lr = self.config.optim.lr_at(0);
        let notes = BTreeMap::from([
            ("first", FIRST.to_string()),
            ("lr", lr.to_string()),
            ("period", self.config.quant.period.to_string()),
            ("tables", tables.to_string()),
        ]);
        let header = tensor_file::encode(&notes, &borrowed, 64).map_err(Error::Data)?;
        let mut bytes = vec![header];
        for tensor in Tensor::weights(&self.shape) {
            let values = block_on(session.read(&tensor.name, 0, tensor.len() as usize))?;
            bytes.push(bytemuck::cast_slice(&values).to_vec());
        }
        let part = |of: fn(&Block) -> &[u8]| self.blocks.iter().flat_map(of).copied().collect::<Vec<u8>>();
        bytes.push(part(|b| bytemuck::cast_slice(&b.dense)));
        bytes.push(part(|b| bytemuck::cast_slice(&b.labels)));
        bytes.push(part(|b| bytemuck::cast_slice(&b.ids)));
        let written = std::fs::File::create(path).and_then(|file| {
            let mut file = BufWriter::new(file);
            bytes.iter().try_for_each(|b| file.write_all(b)).and_then(|()| file.flush())
        });
        written.map_err(|e| Error::Data(format!("cannot write `{path}`: {e}")))
    }
}

/// A session, its batches and the number of its next step.
struct Runner {
    session: Session,
    blocks: Vec<Block>,
    /// Sorted before the clock starts; none when that belongs to a step.
    batches: Option<Vec<Batch>>,
    step: u64,
    /// Steps whose losses are read together.
    ring: usize,
}

impl Runner {
    fn new(work: Work, prepare: bool) -> dqrm::Result<Runner> {
        let session = work.session()?;
        let batches = if prepare {
            None
        } else {
            Some(work.blocks.iter().map(|b| Batch::prepare(b, session.tables())).collect::<dqrm::Result<_>>()?)
        };
        Ok(Runner { session, blocks: work.blocks, batches, step: 0, ring: 1 })
    }

    /// Touched rows, the mean of all batches.
    fn touched(&self) -> dqrm::Result<f64> {
        let touched = |b: &Block| Ok(Batch::prepare(b, self.session.tables())?.touched());
        let all: Vec<usize> = self.blocks.iter().map(touched).collect::<dqrm::Result<_>>()?;
        Ok(all.iter().sum::<usize>() as f64 / all.len() as f64)
    }

    /// One step; gives its samples.
    fn step(&mut self) -> dqrm::Result<usize> {
        let at = self.step as usize % self.blocks.len();
        match &self.batches {
            Some(batches) => self.session.train_step(self.step, &batches[at])?,
            None => {
                let batch = Batch::prepare(&self.blocks[at], self.session.tables())?;
                self.session.train_step(self.step, &batch)?;
            }
        }
        self.step += 1;
        Ok(self.blocks[at].samples)
    }

    /// Losses of the steps since the last call; waits for the device.
    fn losses(&mut self) -> dqrm::Result<Vec<f32>> {
        Ok(block_on(self.session.history())?.iter().map(|r| r.loss).collect())
    }

    /// Losses of the first steps. Then so many steps are read together as take a quarter of a second.
    fn first(&mut self) -> dqrm::Result<Vec<f32>> {
        let mut losses = Vec::new();
        for _ in 0..FIRST {
            let start = Instant::now();
            self.step()?;
            losses.extend(self.losses()?);
            self.ring = ((0.25 / start.elapsed().as_secs_f64()) as usize).clamp(1, Session::RING);
        }
        Ok(losses)
    }

    /// Steps for at least `limit` seconds, all of them finished.
    fn round(&mut self, limit: f64) -> dqrm::Result<serde_json::Value> {
        let (start, first, mut samples) = (Instant::now(), self.step, 0);
        loop {
            for _ in 0..self.ring {
                samples += self.step()?;
            }
            let losses = self.losses()?;
            if !losses.iter().all(|loss| loss.is_finite()) {
                return Err(Error::Data("the loss is no number".into()));
            }
            let elapsed = start.elapsed().as_secs_f64();
            if elapsed >= limit {
                let rate = samples as f64 / elapsed;
                return Ok(json!({"samples_per_second": rate, "steps": self.step - first, "loss": losses.last()}));
            }
        }
    }
}

fn run() -> dqrm::Result<()> {
    let options = Options::parse(USAGE, &["--prepare"], &["--write", "--device", "--bits", "--batch", "--rows"]);
    let bits: Bits = options.value("--bits", "none".to_string()).parse()?;
    let device = Device::from(options.value("--device", "cpu".to_string()));
    let work = Work::new(options.value("--rows", 100_000), options.value("--batch", 128), bits, device)?;
    if let Some(path) = options.text("--write") {
        return work.write(path);
    }
    let mut runner = Runner::new(work, options.flag("--prepare"))?;
    let touched = runner.touched()?;
    let device = runner.session.device().name.clone();
    let ready =
        json!({"version": format!("dqrm {}", env!("CARGO_PKG_VERSION")), "device": device, "touched": touched, "losses": runner.first()?});
    println!("{ready}");
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| Error::Data(format!("cannot read standard input: {e}")))?;
        let limit = line.trim().parse().map_err(|_| Error::Config(format!("`{line}` is no number of seconds")))?;
        println!("{}", runner.round(limit)?);
    }
    Ok(())
}

fn main() {
    if let Err(error) = run() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
