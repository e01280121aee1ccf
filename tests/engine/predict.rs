//! A packed model against the same values in full precision, on both engines and for every cut.

use dqrm::config::{Config, Device, Format, Interaction, Loss, Quant, ScalePer, Schema, Shape};
use dqrm::data::ids::Mapper;
use dqrm::data::{Batch, Block};
use dqrm::model::Network;
use dqrm::ops::case::random;
use dqrm::packed::{self, Coding, Input, Manifest, Packed, Rule, Source, WritePlan};
use dqrm::predictor::{Incoming, Predictor};
use dqrm::quant::Bits;
use dqrm::session::Session;
use pollster::block_on;

/// Weights that depend on their names only.
struct Weights;

impl Source for Weights {
    fn read(&mut self, name: &str, start: u64, values: &mut [f32]) -> dqrm::Result<()> {
        values.copy_from_slice(&random(name, start as usize + values.len())[start as usize..]);
        Ok(())
    }
}

/// What is tried.
struct Variant {
    dim: usize,
    bits: Bits,
    mlp_bits: Bits,
    row_scales: bool,
    mlp_scales: ScalePer,
    rule: Rule,
    interaction: Interaction,
}

const ROWS: [u64; 4] = [9, 1, 700, 33];
const MAX_BAG: usize = 5;

impl Variant {
    fn shape(&self) -> Shape {
        let (k, dim) = (ROWS.len(), self.dim);
        let input = if self.interaction == Interaction::Dot { dim + k * (k + 1) / 2 } else { dim * (k + 1) };
        let (bottom, top) = (vec![3, 17, dim], vec![input, 33, 1]);
        Shape { dense: 3, dim, bottom, top, rows: ROWS.to_vec(), interaction: self.interaction, diagonal: false, loss: Loss::Bce }
    }

    fn packed(&self) -> Packed {
        Packed::decode(std::sync::Arc::new(self.file())).unwrap()
    }

    /// The bytes of a packed file.
    fn file(&self) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        let mut schema = Schema::criteo(3, ROWS.len());
        (schema.categorical, schema.multi_hot, schema.multi_hot_max) = (Vec::new(), schema.categorical, MAX_BAG);
        let plan = WritePlan {
            manifest: Manifest {
                shape: self.shape(),
                tables: Coding { bits: self.bits, offset: 0.0 },
                mlps: Coding { bits: self.mlp_bits, offset: 0.0 },
                input: Input { format: Format::Text, schema, generator: None },
                method: "test".into(),
                step: 0,
            },
            rule: self.rule,
            row_scales: self.row_scales,
            mlp_scales: self.mlp_scales,
            quantize_bias: true,
            ids: Mapper::modulo(&ROWS).to_bytes(),
        };
        packed::write(&path, &plan, &mut Weights, &mut |_, _| {}).unwrap();
        std::fs::read(&path).unwrap()
    }
}

/// Samples whose bags hold 0 to `MAX_BAG` ids.
fn block(samples: usize) -> Block {
    let mut block = Block::new();
    block.samples = samples;
    block.dense = random("dense", samples * 3);
    let mut n = 0u64;
    for bag in 0..samples * ROWS.len() {
        for _ in 0..bag % (MAX_BAG + 1) {
            n += 1;
            block.ids.push((n.wrapping_mul(2_654_435_761) % ROWS[bag % ROWS.len()]) as u32);
        }
        block.end_bag();
    }
    block
}

/// Logits of a model in FP32 whose weights are the packed ones' values.
fn full_precision(packed: &Packed, block: &Block) -> Vec<f32> {
    let shape = &packed.manifest().shape;
    let quant = Quant { embedding_bits: Bits::None, mlp_bits: Bits::None, ..Quant::default() };
    let config = Config { device: Device::Cpu, quant, ..Config::default() };
    let mut session = block_on(Session::load(shape, &config, &[MAX_BAG; 4])).unwrap();
    for (k, &rows) in ROWS.iter().enumerate() {
        session.write(&format!("emb_l.{k}.weight"), 0, &packed.table_rows(k, 0, rows as usize)).unwrap();
    }
    for layer in Network::new(shape).layers() {
        session.write(&format!("{}.weight", layer.name), 0, &packed.layer_weights(layer)).unwrap();
        session.write(&format!("{}.bias", layer.name), 0, &packed.floats(&format!("{}.bias", layer.name))).unwrap();
    }
    session.begin_evaluation().unwrap();
    block_on(session.logits(&Batch::prepare(block, session.tables()).unwrap())).unwrap()
}

fn predicted(packed: &Packed, device: &Device, batch: usize, max_binding: u64, block: &Block) -> Vec<f32> {
    let mut predictor = block_on(Predictor::load_cut(packed, device, batch, max_binding)).unwrap();
    let batch = Batch::prepare(block, predictor.tables()).unwrap();
    block_on(predictor.logits(&batch)).unwrap()
}

fn variants() -> Vec<Variant> {
    let plain = || Variant {
        dim: 8,
        bits: Bits::B4,
        mlp_bits: Bits::B4,
        row_scales: false,
        mlp_scales: ScalePer::Channel,
        rule: Rule::MaxAbs,
        interaction: Interaction::Dot,
    };
    vec![
        plain(),
        Variant { dim: 5, row_scales: true, ..plain() }, // rows of 3 bytes: words lie across rows
        Variant { dim: 7, bits: Bits::B2, mlp_bits: Bits::B2, mlp_scales: ScalePer::Matrix, ..plain() },
        Variant { dim: 3, bits: Bits::B8, mlp_bits: Bits::None, interaction: Interaction::Cat, ..plain() },
        Variant { dim: 9, bits: Bits::B16, mlp_bits: Bits::B8, row_scales: true, ..plain() },
        Variant { dim: 6, rule: Rule::DoReFa, mlp_scales: ScalePer::Matrix, ..plain() },
    ]
}

fn agree(device: &Device) {
    for (v, variant) in variants().iter().enumerate() {
        let packed = variant.packed();
        for samples in [1, 3, 70] {
            let block = block(samples);
            let wanted = full_precision(&packed, &block);
            for max_binding in [u64::MAX, 256] {
                let got = predicted(&packed, device, 128, max_binding, &block);
                assert_eq!(got.len(), samples);
                for (i, (a, b)) in wanted.iter().zip(&got).enumerate() {
                    // Sums of some dozens of products in another order; logits of about unit size.
                    let close = (a - b).abs() <= 1e-5 * (1.0 + a.abs());
                    assert!(close, "variant {v}, {samples} samples, bindings of {max_binding}: row {i} gives {b}, FP32 gives {a}");
                }
            }
        }
    }
}

#[test]
fn packed_models_give_what_their_values_give_on_the_cpu() {
    agree(&Device::Cpu);
}

#[test]
fn packed_models_give_what_their_values_give_on_a_gpu() {
    if crate::common::gpu().is_some() {
        agree(&Device::Gpu);
    }
}

/// Sends a file in pieces of `piece` bytes.
fn sent(file: &[u8], piece: usize, device: &Device, max_binding: u64) -> dqrm::Result<(Predictor, Packed)> {
    let mut incoming = Incoming::new("m.safetensors", file.len() as u64, device.clone(), 70)?.cut(max_binding);
    for (i, piece) in file.chunks(piece).enumerate() {
        block_on(incoming.push(piece))?;
        assert!(incoming.received() > i);
    }
    incoming.finish()
}

fn pieces_agree(device: &Device) {
    for (v, variant) in variants().iter().enumerate() {
        let (file, block) = (variant.file(), block(70));
        let packed = variant.packed();
        let wanted = predicted(&packed, device, 70, u64::MAX, &block);
        for (piece, max_binding) in [(1, u64::MAX), (7, 256), (1000, 256), (file.len(), 256)] {
            let (mut predictor, rest) = sent(&file, piece, device, max_binding).unwrap();
            let batch = Batch::prepare(&block, predictor.tables()).unwrap();
            let got = block_on(predictor.logits(&batch)).unwrap();
            assert_eq!(got, wanted, "variant {v} in pieces of {piece}, bindings of {max_binding}");
            assert_eq!((rest.ids(), rest.manifest()), (packed.ids(), packed.manifest()));
            assert!(rest.tensor("emb_l.0.weight.codes").is_empty() && rest.table_rows(0, 0, 1).is_empty(), "the codes are not kept");
            rest.verify().unwrap();
        }
    }
}

#[test]
fn models_that_come_in_pieces_are_the_same_on_the_cpu() {
    pieces_agree(&Device::Cpu);
}

#[test]
fn models_that_come_in_pieces_are_the_same_on_a_gpu() {
    if crate::common::gpu().is_some() {
        pieces_agree(&Device::Gpu);
    }
}

#[test]
fn damage_is_found_in_models_that_come_in_pieces() {
    let file = variants()[0].file();
    let codes = Packed::decode(std::sync::Arc::new(file.clone())).unwrap().codes();
    let refused = |file: &[u8]| sent(file, 64, &Device::Cpu, u64::MAX).unwrap_err().to_string();
    let altered = |at: usize| {
        let mut file = file.clone();
        file[at] ^= 1;
        refused(&file)
    };
    for at in [codes.start, codes.end - 1] {
        assert!(altered(at).contains("`m.safetensors` has tables that were altered"), "{}", altered(at));
    }
    for at in [codes.start - 1, codes.end, file.len() - 1] {
        assert!(altered(at).contains("was altered after it was written"), "{}", altered(at));
    }
    for end in 0..file.len() {
        assert!(sent(&file[..end], 64, &Device::Cpu, u64::MAX).is_err(), "{end} of {} bytes", file.len());
    }
    let mut short = Incoming::new("m", file.len() as u64, Device::Cpu, 1).unwrap();
    block_on(short.push(&file[..file.len() - 1])).unwrap();
    assert!(short.finish().unwrap_err().to_string().contains("is truncated"));
    let mut long = Incoming::new("m", file.len() as u64, Device::Cpu, 1).unwrap();
    block_on(long.push(&file)).unwrap();
    assert!(block_on(long.push(b"x")).unwrap_err().to_string().contains("is longer than it should be"));
    assert!(refused(b"not a model at all").contains("is not a safetensors file"));
}

/// Samples `start .. end` of a block.
fn part(block: &Block, start: usize, end: usize) -> Block {
    let mut part = Block::new();
    part.append(block, start, end - start);
    part
}

#[test]
fn what_stands_beside_a_sample_changes_no_bit() {
    let samples = 300;
    let all = block(samples);
    for (v, variant) in variants().iter().enumerate() {
        let packed = variant.packed();
        let mut predictor = block_on(Predictor::load(&packed, &Device::Cpu, samples)).unwrap().regular();
        let mut bits = |block: &Block| -> Vec<u32> {
            let batch = Batch::prepare(block, predictor.tables()).unwrap();
            block_on(predictor.logits(&batch)).unwrap().iter().map(|v| v.to_bits()).collect()
        };
        let wanted = bits(&all);
        for size in [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 129, 257] {
            let starts = (0..samples).step_by(size);
            let found: Vec<u32> = starts.flat_map(|start| bits(&part(&all, start, (start + size).min(samples)))).collect();
            assert!(found == wanted, "variant {v}, {size} at a time");
        }
        // a predictor with room for less than it takes otherwise
        for room in [1, 3] {
            let mut small = block_on(Predictor::load(&packed, &Device::Cpu, room)).unwrap().regular();
            let mut logits = |start: usize, end: usize| {
                let batch = Batch::prepare(&part(&all, start, end), small.tables()).unwrap();
                block_on(small.logits(&batch)).unwrap()
            };
            let one: Vec<f32> = (0..30).flat_map(|i| logits(i, i + 1)).collect();
            let some: Vec<f32> = (0..30).step_by(room).flat_map(|i| logits(i, i + room)).collect();
            assert_eq!(one, some, "variant {v}, room for {room}");
        }
    }
}

#[test]
fn no_full_precision_copy_of_a_table_exists() {
    let packed = variants()[0].packed();
    let predictor = block_on(Predictor::load(&packed, &Device::Cpu, 1)).unwrap();
    let values = (ROWS.iter().sum::<u64>() * 8) as usize;
    let largest = predictor.plan().buffers.iter().max_by_key(|b| b.len).unwrap();
    assert!(largest.len <= values / 8, "`{}` has {} words; the tables have {values} values", largest.name, largest.len);
}

#[test]
fn batches_beyond_the_capacity_or_of_another_model_are_refused() {
    let packed = variants()[0].packed();
    let mut predictor = block_on(Predictor::load(&packed, &Device::Cpu, 2)).unwrap();
    assert_eq!(predictor.batch(), 2);
    let batch = Batch::prepare(&block(3), predictor.tables()).unwrap();
    assert!(block_on(predictor.logits(&batch)).unwrap_err().to_string().contains("does not fit"));
    let other = dqrm::tables::Tables::new(&ROWS, 8, 64).unwrap();
    let batch = Batch::prepare(&block(2), &other).unwrap();
    assert!(block_on(predictor.logits(&batch)).unwrap_err().to_string().contains("another model"));
}
