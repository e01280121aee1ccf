//! DLRM in Burn with its wgpu backend, FP32, timed as the other programs here are (see `../README.md`).
//!
//! ```text
//! cargo run --release -- FILE [--device NAME] [--joined]
//! ```
//!
//! FILE holds the first weights and the batches (`cargo bench --bench peers -- --write FILE`); NAME is part of an
//! adapter's name. Standard input has one number a line, the seconds of a round; each is answered with one line of JSON.
//! `--joined` keeps all tables in one tensor, so that a step looks up once instead of once for each table.

use burn::module::{Module, Param};
use burn::nn::loss::BinaryCrossEntropyLossConfig;
use burn::nn::{Embedding, Linear};
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, DeviceKind, Int, Tensor, TensorData};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::BufRead;
use std::time::Instant;

/// Steps at most whose losses are read together.
const RING: usize = 32;

/// A safetensors file.
struct File {
    header: HashMap<String, Value>,
    bytes: Vec<u8>,
    start: usize,
}

impl File {
    fn read(path: &str) -> File {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("cannot read `{path}`: {e}"));
        let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        File { header: serde_json::from_slice(&bytes[8..start]).expect("a header in JSON"), bytes, start }
    }

    fn note(&self, name: &str) -> f64 {
        self.header["__metadata__"][name].as_str().expect("a note").parse().expect("a number")
    }

    /// Dimensions and values; all types here have four bytes.
    fn tensor<T>(&self, name: &str, value: fn([u8; 4]) -> T) -> (Vec<usize>, Vec<T>) {
        let numbers = |key: &str| -> Vec<usize> {
            let list = self.header[name][key].as_array().expect("a list");
            list.iter().map(|n| n.as_u64().expect("a length") as usize).collect()
        };
        let at = numbers("data_offsets");
        let words = self.bytes[self.start + at[0]..self.start + at[1]].chunks_exact(4);
        (numbers("shape"), words.map(|word| value(word.try_into().unwrap())).collect())
    }

    fn floats(&self, name: &str) -> TensorData {
        let (shape, values) = self.tensor(name, f32::from_le_bytes);
        TensorData::new(values, shape)
    }

    fn layers(&self, part: &str, device: &Device) -> Vec<Linear> {
        let names = (0..).map(|i| format!("{part}.{}", 2 * i)).take_while(|n| self.header.contains_key(&format!("{n}.weight")));
        let layer = |name: String| {
            let weight = Tensor::<2>::from_data(self.floats(&format!("{name}.weight")), device).transpose();
            let bias = Tensor::<1>::from_data(self.floats(&format!("{name}.bias")), device);
            Linear { weight: Param::from_data(weight.into_data(), device), bias: Some(Param::from_tensor(bias)) }
        };
        names.map(layer).collect()
    }
}

/// Bottom MLP, one row of each table, products of all pairs, top MLP.
#[derive(Module, Debug)]
struct Dlrm {
    tables: Vec<Embedding>,
    bottom: Vec<Linear>,
    top: Vec<Linear>,
}

impl Dlrm {
    fn new(file: &File, joined: bool, device: &Device) -> Dlrm {
        let mut tables: Vec<_> =
            (0..file.note("tables") as usize).map(|k| file.tensor(&format!("emb_l.{k}.weight"), f32::from_le_bytes)).collect();
        if joined {
            let (rows, dim) = (tables.iter().map(|t| t.0[0]).sum(), tables[0].0[1]);
            tables = vec![(vec![rows, dim], tables.into_iter().flat_map(|t| t.1).collect())];
        }
        let table = |(shape, values)| Embedding { weight: Param::from_data(TensorData::new::<f32, Vec<usize>>(values, shape), device) };
        Dlrm { tables: tables.into_iter().map(table).collect(), bottom: file.layers("bot_l", device), top: file.layers("top_l", device) }
    }

    /// The rows of a batch `[B, K, D]`; `ids` is `[K, B]`, or `[B, K]` for one joined table.
    fn rows(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        if let [table] = self.tables.as_slice() {
            return table.forward(ids);
        }
        let batch = ids.dims()[1];
        let one = |(k, table): (usize, &Embedding)| table.forward(ids.clone().slice([k..k + 1, 0..batch]).reshape([batch, 1]));
        Tensor::cat(self.tables.iter().enumerate().map(one).collect(), 1)
    }

    /// The mean loss; `pairs` are the places of the products below the diagonal.
    fn loss(&self, dense: Tensor<2>, ids: Tensor<2, Int>, labels: Tensor<1, Int>, pairs: Tensor<1, Int>) -> Tensor<1> {
        let device = labels.device();
        let x = self.bottom.iter().fold(dense, |x, layer| relu(layer.forward(x)));
        let [batch, _] = x.dims();
        let vectors = Tensor::cat(vec![x.clone().unsqueeze_dim::<3>(1), self.rows(ids)], 1);
        let count = vectors.dims()[1];
        let products = vectors.clone().matmul(vectors.transpose()).reshape([batch, count * count]);
        let mut x = Tensor::cat(vec![x, products.select(1, pairs)], 1);
        for (i, layer) in self.top.iter().enumerate() {
            x = layer.forward(x);
            if i + 1 < self.top.len() {
                x = relu(x);
            }
        }
        BinaryCrossEntropyLossConfig::new().with_logits(true).init(&device).forward(x.reshape([batch]), labels)
    }
}

/// Data of one batch, on the host.
struct Batch {
    dense: TensorData,
    labels: TensorData,
    ids: TensorData,
    size: usize,
    touched: usize,
}

fn batches(file: &File, joined: bool) -> Vec<Batch> {
    let (shape, ids) = file.tensor("ids", i32::from_le_bytes);
    let (width, dense) = file.tensor("dense", f32::from_le_bytes);
    let (_, labels) = file.tensor("labels", f32::from_le_bytes);
    let (size, tables, width) = (shape[1], shape[2], width[2]);
    let rows: Vec<i32> =
        (0..tables).map(|k| file.header[&format!("emb_l.{k}.weight")]["shape"][0].as_i64().expect("rows") as i32).collect();
    let first: Vec<i32> = rows
        .iter()
        .scan(0, |at, n| {
            *at += n;
            Some(*at - n)
        })
        .collect();
    let batch = |i: usize| {
        let ids = &ids[i * size * tables..(i + 1) * size * tables];
        let joined_ids: Vec<i32> = ids.iter().enumerate().map(|(j, id)| id + first[j % tables]).collect();
        let touched = joined_ids.iter().collect::<std::collections::HashSet<_>>().len();
        let by_table = (0..tables).flat_map(|k| ids.iter().skip(k).step_by(tables).copied()).collect();
        Batch {
            dense: TensorData::new(dense[i * size * width..(i + 1) * size * width].to_vec(), [size, width]),
            labels: TensorData::new(labels[i * size..(i + 1) * size].iter().map(|&y| y as i32).collect(), [size]),
            ids: if joined { TensorData::new(joined_ids, [size, tables]) } else { TensorData::new(by_table, [tables, size]) },
            size,
            touched,
        }
    };
    (0..shape[0]).map(batch).collect()
}

struct Trainer {
    /// None only within a step, which takes the model and gives it back.
    model: Option<Dlrm>,
    optimizer: ModuleOptimizer,
    lr: f64,
    batches: Vec<Batch>,
    pairs: Tensor<1, Int>,
    device: Device,
    number: usize,
    ring: usize,
}

impl Trainer {
    fn step(&mut self) -> Tensor<1> {
        let batch = &self.batches[self.number % self.batches.len()];
        let dense = Tensor::from_data(batch.dense.clone(), &self.device);
        let labels = Tensor::from_data(batch.labels.clone(), &self.device);
        let ids = Tensor::from_data(batch.ids.clone(), &self.device);
        let model = self.model.take().expect("a model between steps");
        let loss = model.loss(dense, ids, labels, self.pairs.clone());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        self.model = Some(self.optimizer.step(self.lr, model, gradients));
        self.number += 1;
        loss
    }

    /// Reads a loss and waits for the step's update.
    fn finish(&self, loss: Tensor<1>) -> f32 {
        let loss = loss.into_data().try_to_vec::<f32>().expect("a loss")[0];
        self.device.sync().expect("the device finishes");
        assert!(loss.is_finite(), "the loss is no number");
        loss
    }

    /// Steps for at least `limit` seconds, all of them finished.
    fn round(&mut self, limit: f64) -> Value {
        let (start, first) = (Instant::now(), self.number);
        loop {
            let mut loss = self.step();
            for _ in 1..self.ring {
                loss = self.step();
            }
            let loss = self.finish(loss);
            let elapsed = start.elapsed().as_secs_f64();
            if elapsed >= limit {
                let steps = self.number - first;
                let rate = (steps * self.batches[0].size) as f64 / elapsed;
                return json!({"samples_per_second": rate, "steps": steps, "loss": loss});
            }
        }
    }
}

/// The first adapter whose name contains `name`, and its whole name.
fn adapter(name: &str) -> (Device, String) {
    use DeviceKind::{Cpu, DefaultDevice, DiscreteGpu, IntegratedGpu, VirtualGpu};
    let kinds = [DefaultDevice, DiscreteGpu(0), DiscreteGpu(1), IntegratedGpu(0), VirtualGpu(0), Cpu];
    let mut found = Vec::new();
    for kind in kinds {
        if let Ok((device, setup)) = Device::wgpu_options().device_kind(kind).init_with_setup() {
            let info = setup.adapter.get_info();
            if info.name.to_lowercase().contains(&name.to_lowercase()) {
                return (device, format!("{} ({:?})", info.name, info.backend));
            }
            found.push(info.name);
        }
    }
    panic!("no adapter has `{name}` in its name; found: {found:?}");
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let path = words.first().expect("use FILE [--device NAME] [--joined]");
    let joined = words.iter().any(|w| w == "--joined");
    let name = words.iter().position(|w| w == "--device").and_then(|at| words.get(at + 1)).map_or("", String::as_str);
    let (plain, name) = adapter(name);
    let device = plain.clone().autodiff();
    let file = File::read(path);
    let batches = batches(&file, joined);
    let touched = batches.iter().map(|b| b.touched).sum::<usize>() as f64 / batches.len() as f64;
    let n = file.note("tables") as i32 + 1;
    let pairs: Vec<i32> = (0..n).flat_map(|i| (0..i).map(move |j| i * n + j)).collect();
    let mut trainer = Trainer {
        model: Some(Dlrm::new(&file, joined, &device)),
        optimizer: SgdConfig::new().init(),
        lr: file.note("lr"),
        batches,
        pairs: Tensor::from_data(TensorData::new(pairs.clone(), [pairs.len()]), &device),
        device,
        number: 0,
        ring: 1,
    };
    let mut losses = Vec::new();
    let mut seconds = 0.0;
    for _ in 0..file.note("first") as usize {
        let start = Instant::now();
        let loss = trainer.step();
        losses.push(trainer.finish(loss));
        seconds = start.elapsed().as_secs_f64();
    }
    trainer.ring = ((0.25 / seconds) as usize).clamp(1, RING);
    println!("{}", json!({"version": "burn 0.22.1", "device": name, "touched": touched, "losses": losses}));
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line");
        let limit = line.trim().parse().unwrap_or_else(|_| panic!("`{line}` is no number of seconds"));
        println!("{}", trainer.round(limit));
    }
}
