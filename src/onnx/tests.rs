use super::graph::Graph;
use super::*;
use crate::config::{Format, Interaction, Loss, ScalePer, Schema, Shape};
use crate::data::ids::Mapper;
use crate::packed::{self, Coding, Input, Rule, WritePlan};
use crate::quant::{Bits, pack};
use crate::rng::Stream;
use prost::Message;
use std::collections::HashSet;

/// Standard operators of opset 18 that a model may use.
const ALLOWED: &[&str] = &[
    "Add",
    "BitShift",
    "BitwiseAnd",
    "BitwiseXor",
    "Cast",
    "Concat",
    "DequantizeLinear",
    "Gather",
    "Gemm",
    "GreaterOrEqual",
    "Less",
    "Log",
    "MatMul",
    "Max",
    "Mul",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Sigmoid",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
    "Where",
];

/// Weights that are functions of name and place.
struct Made;

impl Source for Made {
    fn read(&mut self, name: &str, start: u64, values: &mut [f32]) -> Result<()> {
        let stream = Stream::new(name.bytes().fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b))), 1);
        values.iter_mut().zip(start..).for_each(|(v, i)| *v = stream.uniform(i) as f32 - 0.5);
        Ok(())
    }
}

/// Two one-hot tables, one multi-hot table.
fn manifest(bits: Bits, mlp_bits: Bits, dim: usize, interaction: Interaction) -> Manifest {
    let (dense, rows) = (3, vec![4000, 7, 900]);
    let joined = if interaction == Interaction::Dot { dim + 6 } else { 4 * dim };
    let mut schema = Schema::criteo(dense, 2);
    schema.multi_hot = vec![crate::config::Column::Number(99)];
    Manifest {
        shape: Shape {
            dense,
            dim,
            bottom: vec![dense, 5, dim],
            top: vec![joined, 33, 1],
            rows,
            interaction,
            diagonal: false,
            loss: Loss::Bce,
        },
        tables: Coding { bits, offset: 0.0 },
        mlps: Coding { bits: mlp_bits, offset: 0.0 },
        input: Input { format: Format::Text, schema, generator: None },
        method: "ptq".into(),
        step: 3,
    }
}

fn pack_file(path: &Path, manifest: Manifest, rule: Rule, row_scales: bool) -> Packed {
    let ids = Mapper::modulo(&manifest.shape.rows).to_bytes();
    let plan = WritePlan { manifest, rule, row_scales, mlp_scales: ScalePer::Channel, quantize_bias: false, ids };
    packed::write(path, &plan, &mut Made, &mut |_, _| {}).unwrap();
    packed::open(path).unwrap()
}

fn decode(path: &Path) -> proto::Model {
    proto::Model::decode(std::fs::read(path).unwrap().as_slice()).unwrap()
}

/// Every node is standard and gets what came before it; no name is given twice; outputs are made.
fn check_wiring(model: &proto::Model) {
    let graph = model.graph.as_ref().unwrap();
    let given = graph.initializer.iter().map(|t| t.name.as_str()).chain(graph.input.iter().map(|i| i.name.as_str()));
    let mut known: HashSet<&str> = HashSet::new();
    for name in given {
        assert!(known.insert(name), "`{name}` stands twice");
    }
    for node in &graph.node {
        assert!(ALLOWED.contains(&node.op_type.as_str()), "{}", node.op_type);
        for input in &node.input {
            assert!(known.contains(input.as_str()), "{} takes `{input}`, which nothing makes before it", node.op_type);
        }
        for output in &node.output {
            assert!(known.insert(output), "`{output}` is made twice");
        }
    }
    let used: HashSet<&str> = graph.node.iter().flat_map(|n| n.input.iter().map(String::as_str)).collect();
    for tensor in &graph.initializer {
        assert!(used.contains(tensor.name.as_str()), "`{}` is not used", tensor.name);
        assert_eq!(tensor.data_location == proto::EXTERNAL, tensor.raw_data.is_empty(), "{}", tensor.name);
    }
    let outputs: Vec<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(outputs, ["probability", "logit"]);
    assert!(outputs.iter().all(|name| known.contains(name)));
    assert_eq!((model.ir_version, model.opset_import[0].version, model.opset_import[0].domain.as_str()), (8, 18, ""));
}

fn tensor<'a>(model: &'a proto::Model, name: &str) -> &'a proto::Tensor {
    model.graph.as_ref().unwrap().initializer.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("`{name}`"))
}

#[test]
fn packed_models_keep_their_bytes_and_no_table_of_floats() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("m.safetensors"), folder.path().join("m.onnx"));
    for (bits, kind) in [(Bits::B2, 2), (Bits::B4, 2), (Bits::B8, 3), (Bits::B16, 5)] {
        for (dim, row_scales, rule) in [(8, false, Rule::MaxAbs), (5, true, Rule::MaxAbs), (7, false, Rule::DoReFa)] {
            let mlps = if dim == 5 { Bits::None } else { bits };
            let packed = pack_file(&path, manifest(bits, mlps, dim, Interaction::Dot), rule, row_scales);
            let written = write_packed(&out, &packed, Options::default(), &mut |_, _| {}).unwrap();
            assert_eq!(written, Written { bytes: std::fs::metadata(&out).unwrap().len(), data: None, data_bytes: 0 });
            let model = decode(&out);
            check_wiring(&model);
            for (k, &rows) in packed.manifest().shape.rows.iter().enumerate() {
                let name = format!("emb_l.{k}.weight.codes");
                let codes = tensor(&model, &name);
                assert_eq!((codes.raw_data.as_slice(), codes.data_type, codes.dims[0]), (packed.tensor(&name), kind, rows as i64));
                let width = if bits.width() < 8 { pack::row_bytes(bits, dim) } else { dim };
                assert_eq!(codes.dims[1], width as i64);
            }
            let floats = model.graph.as_ref().unwrap().initializer.iter().filter(|t| t.data_type == proto::dtype::FLOAT);
            for t in floats.filter(|t| packed.manifest().shape.rows.contains(&(*t.dims.first().unwrap_or(&0) as u64)) && t.dims[0] > 33) {
                assert!(row_scales && t.dims.len() == 1 && t.name.ends_with(".scale"), "{} {:?}", t.name, t.dims);
            }
        }
    }
}

#[test]
fn the_graph_adds_less_than_two_percent_to_a_model_of_usual_size() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("m.safetensors"), folder.path().join("m.onnx"));
    let mut m = manifest(Bits::B4, Bits::B4, 16, Interaction::Dot);
    m.shape.rows = vec![20_000, 30_000, 40_000];
    let packed = pack_file(&path, m, Rule::MaxAbs, false);
    let written = write_packed(&out, &packed, Options::default(), &mut |_, _| {}).unwrap();
    let plain = std::fs::metadata(&path).unwrap().len() - packed.ids().len() as u64;
    assert!((written.bytes as f64 / plain as f64 - 1.0).abs() < 0.02, "{} of {plain} bytes", written.bytes);
}

#[test]
fn full_precision_models_hold_the_weights_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("m.onnx");
    for interaction in [Interaction::Dot, Interaction::Cat] {
        let m = manifest(Bits::None, Bits::None, 4, interaction);
        let ids = Mapper::dictionary(3, Some(9)).to_bytes();
        let mut calls = Vec::new();
        let mut progress = |done, total| calls.push((done, total));
        let written = write_full(&out, &m, &ids[..ids::HEADER], &mut Made, Options::default(), &mut progress).unwrap();
        assert!(calls.is_sorted() && calls.last() == Some(&(written.bytes, written.bytes)));
        let model = decode(&out);
        check_wiring(&model);
        let table = tensor(&model, "emb_l.0.weight");
        let mut values = vec![0.0; 16_000];
        Made.read("emb_l.0.weight", 0, &mut values).unwrap();
        assert_eq!((table.raw_data.as_slice(), table.dims.as_slice()), (bytemuck::cast_slice(&values), &[4000, 4][..]));
        let notes: Vec<_> = model.metadata_props.iter().map(|n| (n.key.as_str(), n.value.as_str())).collect();
        assert!(notes.contains(&("dqrm.ids", r#"{"kind":"dictionary","max_rows":9}"#)), "{notes:?}");
        let manifest = notes.iter().find(|(key, _)| *key == "dqrm.manifest").unwrap().1;
        assert_eq!(serde_json::from_str::<Manifest>(manifest).unwrap(), m);
        let inputs: Vec<_> = model.graph.as_ref().unwrap().input.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(inputs, ["dense", "ids", "ids_2"]);
    }
    let packed = manifest(Bits::B4, Bits::None, 4, Interaction::Dot);
    let ids = Mapper::modulo(&packed.shape.rows).to_bytes();
    assert!(write_full(&out, &packed, &ids, &mut Made, Options::default(), &mut |_, _| {}).is_err());
}

#[test]
fn streamed_bytes_are_those_of_the_whole_message() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("m.safetensors"), folder.path().join("m.onnx"));
    let packed = pack_file(&path, manifest(Bits::B4, Bits::B4, 7, Interaction::Cat), Rule::MaxAbs, true);
    for external_data in [false, true] {
        write_packed(&out, &packed, Options { external_data }, &mut |_, _| {}).unwrap();
        assert_eq!(std::fs::read(&out).unwrap(), decode(&out).encode_to_vec(), "external data: {external_data}");
    }
}

#[test]
fn external_data_is_aligned_and_complete() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("m.safetensors"), folder.path().join("m.onnx"));
    let packed = pack_file(&path, manifest(Bits::B4, Bits::B8, 9, Interaction::Dot), Rule::MaxAbs, false);
    let written = write_packed(&out, &packed, Options { external_data: true }, &mut |_, _| {}).unwrap();
    let data = std::fs::read(folder.path().join("m.onnx.data")).unwrap();
    assert_eq!((written.data, written.data_bytes), (Some(folder.path().join("m.onnx.data")), data.len() as u64));
    assert!(written.bytes < 12_000, "{}", written.bytes);
    let model = decode(&out);
    check_wiring(&model);
    let (mut outside, mut end) = (0, 0);
    for t in model.graph.as_ref().unwrap().initializer.iter().filter(|t| t.data_location == proto::EXTERNAL) {
        let value = |key: &str| t.external_data.iter().find(|e| e.key == key).unwrap().value.as_str();
        let (offset, length): (usize, usize) = (value("offset").parse().unwrap(), value("length").parse().unwrap());
        assert_eq!((value("location"), offset % 64), ("m.onnx.data", 0));
        assert!(offset >= end && offset < end + 64);
        assert_eq!(&data[offset..offset + length], packed.tensor(&t.name), "{}", t.name);
        (outside, end) = (outside + 1, offset + length);
    }
    assert_eq!((outside, end), (2, data.len()), "tables 0 and 2; the rest is small");
}

#[test]
fn a_model_of_two_gigabytes_goes_outside_by_itself() {
    let mut m = manifest(Bits::None, Bits::None, 64, Interaction::Dot);
    m.shape.rows[0] = (1 << 31) / 256;
    let weights = Weights { manifest: &m, table_scales: Vec::new(), layer_scales: vec![0; 4] };
    let graph: Graph = graph::build(&weights);
    let layout = Layout::new(&graph, &[], None);
    assert!(layout.bytes > write::MAX_MESSAGE);
    let layout = Layout::new(&graph, &[], Some("d"));
    assert!(layout.bytes < 10_000 && layout.data_bytes > 1 << 31, "{} {}", layout.bytes, layout.data_bytes);
}

#[test]
fn a_source_that_ends_early_leaves_nothing_behind() {
    struct Broken;
    impl Source for Broken {
        fn read(&mut self, name: &str, _: u64, _: &mut [f32]) -> Result<()> {
            Err(Error::Data(format!("no {name}")))
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (out, m) = (folder.path().join("m.onnx"), manifest(Bits::None, Bits::None, 4, Interaction::Dot));
    let ids = Mapper::modulo(&m.shape.rows).to_bytes();
    for external_data in [false, true] {
        let error = write_full(&out, &m, &ids, &mut Broken, Options { external_data }, &mut |_, _| {}).unwrap_err();
        assert_eq!(error.to_string(), "no emb_l.0.weight");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
    assert!(
        write_full(&out, &m, b"DQRM-IDS", &mut Made, Options::default(), &mut |_, _| {}).unwrap_err().to_string().contains("id mapping")
    );
}

#[test]
fn dequantized_weights_are_read_in_any_piece() {
    let folder = tempfile::tempdir().unwrap();
    let packed = pack_file(&folder.path().join("m.safetensors"), manifest(Bits::B4, Bits::B4, 7, Interaction::Dot), Rule::DoReFa, false);
    let mut source = crate::state_dict::Dequantized(&packed);
    let all = packed.table_rows(2, 0, 900);
    let mut piece = vec![0.0; 20];
    source.read("emb_l.2.weight", 33, &mut piece).unwrap();
    assert_eq!(piece, all[33..53]);
    for (name, start) in [("emb_l.2.weight", 6300 - 19), ("emb_l.3.weight", 0), ("emb_l.x.weight", 0), ("bot_l.0.weight", 0), ("none", 0)] {
        assert!(source.read(name, start, &mut piece).unwrap_err().to_string().contains(name), "{name}");
    }
}
