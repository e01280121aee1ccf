use super::*;
use crate::config::{Format, Interaction, Loss, ScalePer, Schema, Shape};
use crate::data::ids::Mapper;
use crate::error::{Error, Result};
use crate::ops::case::random;
use crate::quant::{Bits, fake_quant, scale};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Weights in memory.
pub(crate) struct Weights(pub(crate) HashMap<String, Vec<f32>>);

impl Source for Weights {
    fn read(&mut self, name: &str, start: u64, values: &mut [f32]) -> Result<()> {
        let all = self.0.get(name).ok_or_else(|| Error::Data(format!("no tensor `{name}`")))?;
        values.copy_from_slice(&all[start as usize..start as usize + values.len()]);
        Ok(())
    }
}

fn shape() -> Shape {
    Shape {
        dense: 3,
        dim: 5,
        bottom: vec![3, 4, 5],
        top: vec![11, 6, 1],
        rows: vec![7, 300, 1],
        interaction: Interaction::Dot,
        diagonal: false,
        loss: Loss::Bce,
    }
}

/// Weights of a shape; tables a tenth as large as the MLPs.
pub(crate) fn weights(shape: &Shape) -> Weights {
    let mut all = HashMap::new();
    for (k, &rows) in shape.rows.iter().enumerate() {
        let name = format!("emb_l.{k}.weight");
        all.insert(name.clone(), random(&name, rows as usize * shape.dim).iter().map(|w| 0.1 * w).collect());
    }
    for layer in Network::new(shape).layers() {
        let names = [
            (format!("{}.weight", layer.name), layer.linear.inputs * layer.linear.outputs),
            (format!("{}.bias", layer.name), layer.linear.outputs),
        ];
        all.extend(names.map(|(name, len)| (name.clone(), random(&name, len))));
    }
    Weights(all)
}

pub(crate) fn plan(shape: &Shape, bits: Bits, mlp_bits: Bits) -> WritePlan {
    let schema = Schema::criteo(shape.dense, shape.tables());
    WritePlan {
        manifest: Manifest {
            shape: shape.clone(),
            tables: Coding { bits, offset: 0.0 },
            mlps: Coding { bits: mlp_bits, offset: 0.0 },
            input: Input { format: Format::Text, schema, generator: None },
            method: "dqrm".into(),
            step: 9,
        },
        rule: Rule::MaxAbs,
        row_scales: false,
        mlp_scales: ScalePer::Channel,
        quantize_bias: true,
        ids: Mapper::modulo(&shape.rows).to_bytes(),
    }
}

fn written(plan: &WritePlan, source: &mut Weights) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let report = write(&path, plan, source, &mut |_, _| {}).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(report.bytes, bytes.len() as u64);
    assert_eq!(encode(plan, source, &mut |_, _| {}).unwrap(), (bytes.clone(), report), "in memory as in the file");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no partial file is left");
    bytes
}

fn small() -> Vec<u8> {
    written(&plan(&shape(), Bits::B4, Bits::B4), &mut weights(&shape()))
}

fn decode(bytes: &[u8]) -> std::result::Result<Packed, String> {
    Packed::decode(Arc::new(bytes.to_vec()))
}

use std::sync::Arc;

#[test]
fn every_width_reads_back_as_fake_quantization_gives_it() {
    let shape = shape();
    for bits in [Bits::B2, Bits::B4, Bits::B8, Bits::B16] {
        for (row_scales, mlp_bits, mlp_scales) in
            [(false, bits, ScalePer::Channel), (true, bits, ScalePer::Matrix), (false, Bits::None, ScalePer::Channel)]
        {
            let mut source = weights(&shape);
            let plan = WritePlan { row_scales, mlp_scales, ..plan(&shape, bits, mlp_bits) };
            let packed = decode(&written(&plan, &mut source)).unwrap();
            packed.verify().unwrap();
            assert_eq!((packed.row_scales(), packed.manifest()), (row_scales, &plan.manifest));
            assert_eq!(packed.ids(), plan.ids);
            assert_eq!(packed.codes().len() as u64, bits.packed_bytes(308, 5));
            let quantized = |values: &[f32], group: usize, bits: Bits| -> Vec<f32> {
                let largest = |g: &[f32]| g.iter().fold(0f32, |m, v| m.max(v.abs()));
                let n = bits.max_code();
                let one = |g: &[f32]| -> Vec<f32> {
                    let s = scale(largest(g), n);
                    g.iter().map(|&w| fake_quant(w, s, 1.0 / s, n as f32) + 0.0).collect()
                };
                values.chunks(group).flat_map(one).collect()
            };
            for (k, &rows) in shape.rows.iter().enumerate() {
                let full = &source.0[&format!("emb_l.{k}.weight")];
                let group = if row_scales { 5 } else { full.len() };
                assert_eq!(packed.table_rows(k, 0, rows as usize), quantized(full, group, bits), "{bits}, table {k}");
            }
            for layer in Network::new(&shape).layers() {
                let full = &source.0[&format!("{}.weight", layer.name)];
                let group = if mlp_scales == ScalePer::Channel { layer.linear.inputs } else { full.len() };
                let wanted = if mlp_bits.quantized() { quantized(full, group, bits) } else { full.clone() };
                assert_eq!(packed.layer_weights(layer), wanted, "{bits}, {}", layer.name);
            }
        }
    }
}

#[test]
fn equal_weights_give_equal_files() {
    assert_eq!(small(), small());
}

#[test]
fn learned_scales_are_taken_as_they_are() {
    let shape = shape();
    let mut source = weights(&shape);
    source.0.insert("dqrm.scale.emb_l".into(), vec![0.5, 0.25, 0.125]);
    for layer in Network::new(&shape).layers() {
        source.0.insert(format!("dqrm.scale.{}.weight", layer.name), vec![0.25; layer.linear.outputs]);
        source.0.insert(format!("dqrm.scale.{}.bias", layer.name), vec![0.75]);
    }
    let plan = WritePlan { rule: Rule::Learned, ..plan(&shape, Bits::B4, Bits::B4) };
    let packed = decode(&written(&plan, &mut source)).unwrap();
    assert_eq!(packed.floats("emb_l.1.weight.scale"), [0.25]);
    assert!(packed.floats("bot_l.0.bias").iter().all(|b| (b / 0.75).fract() == 0.0), "biases lie on their own grid");
    source.0.insert("dqrm.scale.emb_l".into(), vec![0.5, -0.25, 0.125]);
    let folder = tempfile::tempdir().unwrap();
    let error = write(&folder.path().join("m"), &plan, &mut source, &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("scale -0.25"), "{error}");
}

#[test]
fn scales_of_training_can_be_kept() {
    let shape = shape();
    let mut source = weights(&shape);
    let fresh = decode(&written(&plan(&shape, Bits::B4, Bits::B4), &mut source)).unwrap();
    source.0.insert("dqrm.scale.emb_l".into(), vec![0.5, 0.001, 0.125]);
    let plan = WritePlan { rule: Rule::Kept, ..plan(&shape, Bits::B4, Bits::B4) };
    let kept = decode(&written(&plan, &mut source)).unwrap();
    for k in 0..3 {
        assert_eq!(kept.floats(&format!("emb_l.{k}.weight.scale")), [[0.5], [0.001], [0.125]][k]);
    }
    // what lies beyond the range stands at its end
    let found = kept.table_rows(1, 0, 300);
    assert!(source.0["emb_l.1.weight"].iter().zip(&found).any(|(w, v)| w.abs() > 0.008 && v.abs() == 7.0 * 0.001));
    for layer in Network::new(&shape).layers() {
        assert_eq!(kept.layer_weights(layer), fresh.layer_weights(layer), "the MLPs' scales are always their own");
    }
    source.0.insert("dqrm.scale.emb_l".into(), vec![0.5, 0.0, 0.125]);
    let error = encode(&plan, &mut source, &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("scale 0"), "{error}");
}

#[test]
fn dorefas_grid_has_no_zero() {
    let shape = shape();
    let mut source = weights(&shape);
    let plan = WritePlan { rule: Rule::DoReFa, ..plan(&shape, Bits::B4, Bits::B4) };
    let packed = decode(&written(&plan, &mut source)).unwrap();
    assert_eq!((packed.manifest().tables.offset, packed.manifest().mlps.offset), (0.5, 0.5));
    for k in 0..3 {
        let full = &source.0[&format!("emb_l.{k}.weight")];
        let largest = full.iter().fold(0f64, |m, &v| m.max(f64::from(v).tanh().abs()));
        for (w, got) in full.iter().zip(packed.table_rows(k, 0, shape.rows[k] as usize)) {
            let unit = f64::from(*w).tanh() / (2.0 * largest) + 0.5;
            let wanted = 2.0 * (15.0 * unit).round() / 15.0 - 1.0;
            assert!((wanted - f64::from(got)).abs() < 1e-6, "{w}: {got}, not {wanted}");
        }
    }
}

#[test]
fn weights_that_are_no_numbers_are_not_packed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    for (name, place, value) in
        [("emb_l.1.weight", 1234, f32::NAN), ("top_l.2.bias", 0, f32::INFINITY), ("bot_l.0.weight", 3, f32::NEG_INFINITY)]
    {
        for row_scales in [false, true] {
            let mut source = weights(&shape());
            source.0.get_mut(name).unwrap()[place] = value;
            let plan = WritePlan { row_scales, ..plan(&shape(), Bits::B4, Bits::B4) };
            let error = write(&path, &plan, &mut source, &mut |_, _| {}).unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}` has the value {value} at place {place}")), "{error}");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
        }
    }
}

#[test]
fn what_could_not_be_opened_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let refused = |edit: fn(&mut Manifest), says: &str| {
        let mut plan = plan(&shape(), Bits::B4, Bits::B4);
        edit(&mut plan.manifest);
        let error = write(&path, &plan, &mut weights(&shape()), &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.contains("cannot be packed: it ") && error.contains(says), "`{error}` does not say `{says}`");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    };
    refused(|m| m.input.schema.dense.clear(), "takes 3 dense features, but its data has 0");
    refused(|m| m.input.schema.categorical.truncate(2), "has 3 tables, but its data has 2 columns for them");
    refused(
        |m| {
            m.input.schema.multi_hot = m.input.schema.categorical.split_off(2);
            m.input.schema.multi_hot_max = 65_537;
        },
        "has bags of 65537 ids; 1 to 65536 are possible",
    );
    refused(|m| m.tables.bits = Bits::None, "tables without a bit width");
}

#[test]
fn every_cut_is_refused() {
    let bytes = small();
    for n in 0..bytes.len() {
        assert!(decode(&bytes[..n]).is_err(), "cut at {n} of {}", bytes.len());
    }
    assert!(decode(&[bytes, vec![0]].concat()).unwrap_err().contains("longer"));
}

#[test]
fn every_altered_byte_is_noticed() {
    let bytes = small();
    for i in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[i] ^= 0x11;
        if let Ok(packed) = decode(&altered) {
            assert!(packed.codes().contains(&i), "byte {i} is no code of a table");
            assert!(packed.verify().unwrap_err().contains("altered"), "byte {i}");
        }
    }
}

/// A file with this header and these values, with the checksums that belong to it.
fn sealed(mut header: Value, values: &[u8]) -> Vec<u8> {
    let offsets = |name: &str| {
        header[name]["data_offsets"].as_array().map(|a| [0, 1].map(|i| a.get(i).and_then(Value::as_u64).unwrap_or(0) as usize))
    };
    let first = offsets("emb_l.0.weight.codes").unwrap_or([0, 0]);
    let last = offsets("emb_l.2.weight.codes").unwrap_or(first);
    let codes = first[0].min(values.len())..last[1].clamp(first[0].min(values.len()), values.len());
    let hex = |sum: u64| Value::String(format!("{sum:016x}"));
    header["__metadata__"][CODES_CHECKSUM_KEY] = hex(xxhash_rust::xxh3::xxh3_64(&values[codes.clone()]));
    let text = |header: &Value| {
        let text = header.to_string();
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    };
    header["__metadata__"][CHECKSUM_KEY] = hex(0);
    let mut hash = Xxh3::new();
    hash.update(&values[..codes.start]);
    hash.update(&values[codes.end..]);
    hash.update(&text(&header));
    header["__metadata__"][CHECKSUM_KEY] = hex(hash.digest());
    [text(&header), values.to_vec()].concat()
}

/// The parts of a correct file.
fn parts() -> (Value, Vec<u8>) {
    let bytes = small();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + len]).unwrap(), bytes[8 + len..].to_vec())
}

/// A correct file with another manifest.
fn with_manifest(edit: impl FnOnce(&mut Value)) -> String {
    let (mut header, values) = parts();
    let mut manifest: Value = serde_json::from_str(header["__metadata__"][MANIFEST_KEY].as_str().unwrap()).unwrap();
    edit(&mut manifest);
    header["__metadata__"][MANIFEST_KEY] = Value::String(manifest.to_string());
    decode(&sealed(header, &values)).unwrap_err()
}

#[test]
fn a_forged_file_with_right_checksums_is_read() {
    let (header, values) = parts();
    decode(&sealed(header, &values)).unwrap().verify().unwrap();
}

#[test]
fn each_lie_of_the_header_is_named() {
    type Edit = fn(&mut Value);
    let lies: [(Edit, &str); 14] = [
        (|h| h["__metadata__"][VERSION_KEY] = json!("2"), "version 2 of the packed format"),
        (|h| h["__metadata__"][VERSION_KEY] = json!("0"), "version 0"),
        (|h| h["__metadata__"][VERSION_KEY] = json!("one"), "not a whole number"),
        (|h| drop(h["__metadata__"].as_object_mut().unwrap().remove(VERSION_KEY)), "is not a packed model"),
        (|h| drop(h["__metadata__"].as_object_mut().unwrap().remove(MANIFEST_KEY)), "has no `dqrm.manifest`"),
        (|h| h["__metadata__"][MANIFEST_KEY] = json!("{"), "cannot be used"),
        (|h| h["emb_l.1.weight.codes"]["dtype"] = json!("I8"), "`emb_l.1.weight.codes` as I8"),
        (|h| h["emb_l.1.weight.codes"]["shape"] = json!([150, 6]), "as U8 [150, 6]; U8 [300, 3] is needed"),
        (|h| h["emb_l.1.weight.codes"]["shape"] = json!([u64::MAX, 3]), "header"),
        (|h| h["emb_l.1.weight.scale"]["shape"] = json!([1, 1]), "F32 [7] is needed"),
        (|h| h["bot_l.0.bias"]["data_offsets"] = json!([0, 16]), "header"),
        (|h| h["dqrm.ids"]["data_offsets"][1] = json!(1u64 << 60), "header"),
        (
            |h| {
                h["extra"] = json!({"dtype": "U8", "shape": [0], "data_offsets": [h["dqrm.ids"]["data_offsets"][1], h["dqrm.ids"]["data_offsets"][1]]})
            },
            "extra",
        ),
        (|h| drop(h.as_object_mut().unwrap().remove("dqrm.ids")), "the file has"),
    ];
    for (edit, says) in lies {
        let (mut header, values) = parts();
        edit(&mut header);
        let error = decode(&sealed(header, &values)).unwrap_err();
        assert!(error.contains(says), "`{error}` does not say `{says}`");
    }
}

#[test]
fn each_lie_of_the_manifest_is_named() {
    type Edit = fn(&mut Value);
    let lies: [(Edit, &str); 13] = [
        (|m| m["surprise"] = json!(1), "surprise"),
        (|m| m["shape"]["rows"] = json!([7, 301, 1]), "[301, 3] is needed"),
        (|m| m["shape"]["rows"] = json!([7, u64::MAX, 1]), "32 bits wide"),
        (|m| m["shape"]["rows"] = json!([7, 300]), "the interaction gives"),
        (|m| m["shape"]["bottom"] = json!([3, 1u64 << 40, 5]), "width 1099511627776"),
        (|m| m["shape"]["bottom"] = json!([3, 1 << 20, 5]), "weights, more than a file"),
        (|m| m["shape"]["bottom"] = json!(vec![3; 1000]), "more than the limit of 256"),
        (|m| m["shape"]["bottom"] = json!([]), "model.bottom"),
        (|m| m["tables"]["bits"] = json!("none"), "tables are quantized"),
        (|m| m["tables"]["offset"] = json!(0.3), "offset by 0.3"),
        (|m| m["mlps"]["bits"] = json!(8), "bot_l.0.weight.codes"),
        (|m| m["input"]["schema"]["multi_hot"] = json!([5]), "3 tables, but its data has 4 columns"),
        (|m| m["input"]["schema"]["dense"] = json!([1]), "takes 3 dense features, but its data has 1"),
    ];
    for (edit, says) in lies {
        let error = with_manifest(edit);
        assert!(error.contains(says), "`{error}` does not say `{says}`");
    }
    let error = with_manifest(|m| {
        m["input"]["schema"]["categorical"] = json!([1, 2]);
        m["input"]["schema"]["multi_hot"] = json!([3]);
        m["input"]["schema"]["multi_hot_max"] = json!(1u64 << 60);
    });
    assert!(error.contains("has bags of 1152921504606846976 ids; 1 to 65536 are possible"), "{error}");
}

#[test]
fn scales_and_biases_are_checked_before_use() {
    let place = |name: &str| parts().0[name]["data_offsets"][0].as_u64().unwrap() as usize;
    for (name, value, says) in [
        ("emb_l.1.weight.scale", f32::NAN, "has the value NaN at place 0 of `emb_l.1.weight.scale`; a scale is finite and not negative"),
        ("emb_l.0.weight.scale", f32::INFINITY, "value inf"),
        ("top_l.0.weight.scale", -0.5, "value -0.5"),
        ("top_l.0.bias", f32::NEG_INFINITY, "value -inf at place 0 of `top_l.0.bias`; it must be finite"),
    ] {
        let (header, mut values) = parts();
        let at = place(name);
        values[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let error = decode(&sealed(header, &values)).unwrap_err();
        assert!(error.contains(says), "`{error}` does not say `{says}`");
    }
}

/// Small numbers for mutations, the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides.max(1)
    }

    /// Alters a few places: another byte, a piece doubled, a piece cut out.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.roll(3) {
            let at = self.roll(bytes.len());
            let end = (at + self.roll(12)).min(bytes.len());
            match self.roll(4) {
                0 => drop(bytes.drain(at..end)),
                1 => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                2 if at < bytes.len() => bytes[at] = b"0123456789{}[]\",:-.eE"[self.roll(21)],
                _ if at < bytes.len() => bytes[at] ^= 1 << self.roll(8),
                _ => {}
            }
        }
    }
}

#[test]
fn random_damage_is_refused_or_harmless() {
    let (header, values) = parts();
    let mut dice = Dice(1);
    let (mut read, mut refused) = (0, 0);
    for round in 0..6_000 {
        // Half of the rounds damage the header and make its checksums right again, a quarter the values.
        let bytes = match round % 4 {
            0 | 1 => {
                let mut text = header.to_string().into_bytes();
                dice.mutate(&mut text);
                match serde_json::from_slice(&text) {
                    Ok(header @ Value::Object(_)) if header["__metadata__"].is_object() => sealed(header, &values),
                    _ => [&(text.len() as u64).to_le_bytes()[..], &text, &values].concat(),
                }
            }
            2 => {
                let mut values = values.clone();
                dice.mutate(&mut values);
                sealed(header.clone(), &values)
            }
            _ => {
                let mut bytes = small_file().to_vec();
                dice.mutate(&mut bytes);
                bytes
            }
        };
        match decode(&bytes) {
            Err(reason) => {
                assert!(!reason.is_empty());
                refused += 1;
            }
            Ok(packed) => {
                read += 1;
                predict_one(&packed);
            }
        }
    }
    assert!(read > 100 && refused > 1000, "{read} were read, {refused} refused");
}

fn small_file() -> &'static [u8] {
    static FILE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    FILE.get_or_init(small)
}

/// Whatever was read can be predicted with, or says why not.
fn predict_one(packed: &Packed) {
    use crate::data::{Batch, Block};
    let Ok(mut predictor) = pollster::block_on(crate::predictor::Predictor::load(packed, &crate::config::Device::Cpu, 4)) else { return };
    let shape = &packed.manifest().shape;
    let mut block = Block::new();
    block.samples = 1;
    block.dense = vec![0.5; shape.dense];
    for &rows in &shape.rows {
        block.ids.push(rows as u32 - 1);
        block.end_bag();
    }
    let batch = Batch::prepare(&block, predictor.tables()).unwrap();
    assert_eq!(pollster::block_on(predictor.logits(&batch)).unwrap().len(), 1);
}

#[test]
fn kaggles_tables_take_their_own_size_and_little_more() {
    // A file of the true size that is mostly a hole: only the parts that are checked have content.
    let shape = crate::config::Model { preset: crate::config::Preset::Kaggle, ..Default::default() }.shape(None, None).unwrap();
    let plan = plan(&shape, Bits::B4, Bits::B4);
    let wanted = layout(&plan.manifest, false, true, plan.ids.len() as u64);
    let header = write::header(&plan.manifest, &wanted).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kaggle.safetensors");
    let size: u64 = wanted.iter().map(|(_, dtype, shape)| shape.iter().product::<u64>() * if *dtype == "F32" { 4 } else { 1 }).sum();
    let mut out = output::Output::new(std::fs::File::create(&path).unwrap(), &path);
    out.put(&header, output::Part::Header).unwrap();
    for (name, dtype, shape) in &wanted {
        let bytes = shape.iter().product::<u64>() as usize * if *dtype == "F32" { 4 } else { 1 };
        match (name == IDS, name.starts_with("emb_l") && *dtype == "U8") {
            (true, _) => out.put(&plan.ids, output::Part::Rest).unwrap(),
            (_, true) => out.skip(bytes as u64).unwrap(),
            _ => out.put(&vec![0; bytes], output::Part::Rest).unwrap(),
        }
    }
    assert_eq!(out.finish(header.clone()).unwrap().0, size + header.len() as u64);
    let packed = open(&path).unwrap();
    assert_eq!(packed.codes().len(), 270_100_616);
    // What llvmpipe and a browser allow.
    let (bytes, shards, batch) = crate::predictor::sizes(&packed, 128 << 20, 2048).unwrap();
    assert_eq!((shards, batch), (3, 2048));
    assert!(bytes < 300_000_000, "{bytes} bytes of buffers");
}
