//! Scores of a committed packed model against probabilities that an independent program computed (`tests/packed/reference.py`).

use dqrm::Result;
use dqrm::config::Device;
use dqrm::model::Network;
use dqrm::packed::Packed;
use dqrm::predictor::Incoming;
use dqrm_web::scores::{Scores, summary};
use pollster::block_on;
use std::sync::Arc;

fn file(name: &str) -> Vec<u8> {
    std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/packed").join(name)).unwrap()
}

fn scores() -> Scores {
    let file = file("v1.safetensors");
    let mut incoming = Incoming::new("v1.safetensors", file.len() as u64, Device::Cpu, 4).unwrap();
    file.chunks(100).try_for_each(|piece| block_on(incoming.push(piece))).unwrap();
    let (predictor, packed) = incoming.finish().unwrap();
    Scores::packed(predictor, &packed, file.len()).unwrap()
}

fn expected() -> Vec<f32> {
    String::from_utf8(file("probabilities.txt")).unwrap().lines().map(|line| line.parse().unwrap()).collect()
}

fn close(found: &[f32], wanted: &[f32]) {
    assert_eq!(found.len(), wanted.len());
    for (i, (a, b)) in found.iter().zip(wanted).enumerate() {
        // Logits of about unit size, summed in another order.
        assert!((a - b).abs() <= 1e-6, "row {i}: {a}, expected {b}");
    }
}

/// All of a text in pieces.
fn pushed(scores: &mut Scores, text: &[u8], piece: usize) -> Result<(Vec<f32>, Vec<f32>)> {
    scores.begin("rows.csv")?;
    let (mut found, mut labels) = (Vec::new(), Vec::new());
    let pieces: Vec<&[u8]> = text.chunks(piece).collect();
    for (i, piece) in pieces.iter().enumerate() {
        found.extend(block_on(scores.push(piece, i + 1 == pieces.len()))?);
        labels.extend_from_slice(scores.labels());
    }
    Ok((found, labels))
}

#[test]
fn rows_in_pieces_of_any_length_have_the_reference_probabilities() {
    let (mut scores, text) = (scores(), file("rows.csv"));
    for piece in [1, 10, 64, text.len()] {
        let (found, labels) = pushed(&mut scores, &text, piece).unwrap();
        close(&found, &expected());
        assert_eq!(labels.len(), found.len());
    }
}

#[test]
fn fp32_weights_with_the_packed_values_give_the_same() {
    let mut scores = scores();
    let packed = Packed::decode(Arc::new(file("v1.safetensors"))).unwrap();
    let shape = &packed.manifest().shape;
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    for (k, &rows) in shape.rows.iter().enumerate() {
        tensors.push((format!("emb_l.{k}.weight"), vec![rows as usize, shape.dim], packed.table_rows(k, 0, rows as usize)));
    }
    for layer in Network::new(shape).layers() {
        let (outputs, inputs) = (layer.linear.outputs, layer.linear.inputs);
        tensors.push((format!("{}.weight", layer.name), vec![outputs, inputs], packed.layer_weights(layer)));
        tensors.push((format!("{}.bias", layer.name), vec![outputs], packed.floats(&format!("{}.bias", layer.name))));
    }
    let bytes = |leave_out: &str| {
        let all = tensors.iter().filter(|t| t.0 != leave_out);
        let raw: Vec<(String, Vec<usize>, Vec<u8>)> =
            all.map(|(name, shape, values)| (name.clone(), shape.clone(), values.iter().flat_map(|v| v.to_le_bytes()).collect())).collect();
        let views = raw
            .iter()
            .map(|(name, shape, data)| (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap()));
        safetensors::serialize(views, None).unwrap()
    };
    let mut full = block_on(Scores::full(&bytes(""), &scores, Device::Cpu)).unwrap();
    let text = file("rows.csv");
    close(&pushed(&mut full, &text, 100).unwrap().0, &expected());
    assert!(full.describe()["bits"].is_null() && scores.describe()["bits"]["tables"] == 4, "{}", scores.describe());
    let missing = block_on(Scores::full(&bytes("top_l.0.bias"), &scores, Device::Cpu)).unwrap_err().to_string();
    assert!(missing.contains("lacks the tensor `top_l.0.bias`"), "{missing}");
    assert!(block_on(Scores::full(b"nothing", &scores, Device::Cpu)).is_err());
    close(&pushed(&mut scores, &text, 100).unwrap().0, &expected());
}

#[test]
fn candidates_are_rows_without_header_and_label() {
    let mut scores = scores();
    let rows = "3,10,5,2,1;3\n3,10,5,4,\n";
    let found = block_on(scores.rank(rows)).unwrap();
    let text = format!("age,price,user,item,tags\n{rows}");
    assert_eq!(found, pushed(&mut scores, text.as_bytes(), 1000).unwrap().0);
    let bad = block_on(scores.rank("3,10,5,2,1;3\n3,old,5,4,\n")).unwrap_err().to_string();
    assert!(bad.contains("line 2, column 2"), "{bad}");
}

#[test]
fn malformed_rows_are_left_out_and_counted() {
    let mut scores = scores();
    let text = b"click,age,price,user,item,tags\n1,3,4,5,6,7\n0,x,4,5,6,7\n,3\n0,1,2,3,4,\n";
    let (found, labels) = pushed(&mut scores, text, 5).unwrap();
    assert_eq!((found.len(), labels.as_slice()), (2, &[1.0, 0.0][..]));
    assert_eq!(scores.skipped()["skipped"], 2);
    assert!(scores.skipped()["messages"][0].as_str().unwrap().contains("line 3"), "{}", scores.skipped());
    let fail = |scores: &mut Scores, text: &[u8]| pushed(scores, text, 9).unwrap_err().to_string();
    assert!(fail(&mut scores, b"click,age,cost,user,item,tags\n").contains("price"));
    assert!(fail(&mut scores, b"click,age,price,user,item,tags\n").contains("there is no row"));
}

#[test]
fn summaries_count_labelled_rows_only() {
    let all = summary(&[0.9, 0.1, 0.5, 1.0], &[1.0, 0.0, f32::NAN, 1.0]);
    assert_eq!((all["samples"].as_u64(), all["auc"].as_f64()), (Some(3), Some(1.0)));
    let loss = -(0.9f64.ln() + 0.9f64.ln()) / 3.0;
    assert!((all["log_loss"].as_f64().unwrap() - loss).abs() < 1e-6, "{all}");
    assert_eq!(summary(&[0.5], &[f32::NAN])["samples"], 0);
    assert!(summary(&[0.0, 1.0], &[1.0, 0.0])["log_loss"].as_f64().unwrap().is_finite());
}
