//! Predictions over HTTP are those of `dqrm predict`, bit for bit, whatever they are batched with.

use crate::client::{INFER, Server, below_header, lines, model, predicted, rows, succeed};
use serde_json::{Value, json};
use std::path::Path;

/// A request with tensors.
fn tensors(inputs: &[Value]) -> String {
    json!({ "inputs": inputs }).to_string()
}

fn tensor(name: &str, datatype: &str, shape: &[usize], data: Value) -> Value {
    json!({ "name": name, "datatype": datatype, "shape": shape, "data": data })
}

/// Lines of the tests' model as tensors: numbers as they stand there.
fn as_tensors(lines: &[String], strings: bool) -> String {
    let (mut dense, mut ids, mut offsets) = (Vec::new(), Vec::new(), vec![0]);
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        dense.extend(fields[..2].iter().map(|text| if text.is_empty() { json!(0) } else { serde_json::from_str(text).unwrap() }));
        for field in &fields[2..] {
            let one = offsets.len() % 3 != 0;
            let bag: Vec<&str> = field.split(';').filter(|id| one || !id.is_empty()).collect();
            ids.extend(bag.iter().map(|id| match strings {
                true => json!(id),
                false => json!(id.parse::<u64>().unwrap_or(0)),
            }));
            offsets.push(ids.len());
        }
    }
    let datatype = if strings { "BYTES" } else { "INT64" };
    tensors(&[
        tensor("dense", "FP32", &[lines.len(), 2], Value::Array(dense)),
        tensor("ids", datatype, &[ids.len()], Value::Array(ids)),
        tensor("offsets", "INT64", &[offsets.len()], json!(offsets)),
    ])
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn the_server_and_its_model_describe_themselves() {
    let server = Server::with_model(&[]);
    assert_eq!(server.get("/v2", "").json()["name"], "dqrm");
    for path in ["/v2/health/live", "/v2/health/ready", "/v2/models/dqrm/ready"] {
        assert_eq!(server.get(path, "").status, 200, "{path}");
    }
    assert_eq!(server.get("/v2/health/live", "").json(), json!({ "live": true }));
    assert_eq!(server.get("/v2/models/dqrm/ready", "").json(), json!({ "name": "dqrm", "ready": true }));
    let about = server.get("/v2/models/dqrm", "").json();
    assert_eq!(
        about["inputs"],
        json!([
            { "name": "dense", "datatype": "FP32", "shape": [-1, 2] },
            { "name": "ids", "datatype": "UINT64", "shape": [-1] },
            { "name": "offsets", "datatype": "INT64", "shape": [-1] },
            { "name": "rows", "datatype": "BYTES", "shape": [-1] },
        ])
    );
    assert_eq!(about["outputs"][0], json!({ "name": "probability", "datatype": "FP32", "shape": [-1] }));
    for path in ["/v2/models/other", "/v2/models/other/ready", "/v2/models/dqrm/versions/1"] {
        let answer = server.get(path, "");
        assert!(answer.status == 404 && !answer.error().is_empty(), "{path}");
    }
    assert_eq!(server.post("/v2/models/other/infer", "{}").status, 404);
    assert_eq!(server.get(INFER, "").status, 405);
    for path in ["/v2/models/%ff", "/v2/models/%ff/ready"] {
        let answer = server.get(path, "");
        assert!(answer.status == 400 && answer.error().contains("UTF-8"), "{path}");
    }
    assert_eq!(server.post("/v2/models/%ff/infer", "{}").status, 400);
}

#[test]
fn bags_lines_and_tensors_give_what_predict_gives() {
    let dir = tempfile::tempdir().unwrap();
    let lines = &lines()[1..];
    std::fs::write(dir.path().join("rows.csv"), format!("age,price,user,item,tags\n{}\n", lines.join("\n"))).unwrap();
    let wanted = predicted(dir.path(), &model(), "rows.csv");
    assert_eq!(wanted.len(), lines.len());
    for batch in ["1", "3", "5", "7", "2048"] {
        let server = Server::with_model(&["--batch", batch]);
        for body in [below_header(lines), as_tensors(lines, false), as_tensors(lines, true)] {
            assert_eq!(bits(&server.infer(&body)), bits(&wanted), "batches of {batch}: {body}");
        }
    }
    let server = Server::with_model(&[]);
    for (i, line) in lines.iter().enumerate() {
        let one = [line.clone()];
        for body in [below_header(&one), as_tensors(&one, false)] {
            assert_eq!(bits(&server.infer(&body)), bits(&wanted[i..=i]), "row {i} alone");
        }
    }
}

#[test]
fn the_outputs_that_are_asked_for_come_in_that_order_with_the_id() {
    let server = Server::with_model(&[]);
    let body = |more: Value| {
        let mut body: Value = serde_json::from_str(&below_header(&lines()[1..6])).unwrap();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body.to_string()
    };
    let answer =
        server.post(INFER, &body(json!({ "id": "a \"b\" é", "outputs": [{ "name": "logit" }, { "name": "probability" }] }))).json();
    assert_eq!((answer["id"].as_str(), answer["model_name"].as_str()), (Some("a \"b\" é"), Some("dqrm")));
    let values = |i: usize| -> Vec<f64> { answer["outputs"][i]["data"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect() };
    assert_eq!([&answer["outputs"][0]["name"], &answer["outputs"][1]["name"]], ["logit", "probability"]);
    for (logit, probability) in values(0).into_iter().zip(values(1)) {
        assert!((1.0 / (1.0 + (-logit).exp()) - probability).abs() < 1e-6);
    }
    let answer = server.post(INFER, &body(json!({ "parameters": { "priority": 1 }, "outputs": [] }))).json();
    assert!(answer.get("id").is_none() && answer["outputs"].as_array().unwrap().len() == 1);
}

#[test]
fn categories_are_texts_or_numbers_and_one_hot_models_need_no_offsets() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    // categories of eight hexadecimal digits, some of which the training part never saw
    let line = |i: u64| {
        let random = |j: u64| ((i * 1000 + j).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) & 0xffff;
        let dense: Vec<String> =
            (0..13).map(|j| if (i + j).is_multiple_of(5) { String::new() } else { (random(j) % 300).to_string() }).collect();
        let ids: Vec<String> = (13..39).map(|j| format!("{:08x}", 0xa000_0000 + random(j) % (20 + i / 40))).collect();
        (dense, ids)
    };
    let text = |i: u64, label: &str| {
        let (dense, ids) = line(i);
        format!("{label}{}\t{}", dense.join("\t"), ids.join("\t"))
    };
    let put = |name: &str, lines: Vec<String>| std::fs::write(dir.join(name), lines.join("\n") + "\n").unwrap();
    put("train.tsv", (0..1000).map(|i| text(i, ["0\t", "1\t", "0\t"][i as usize % 3])).collect());
    succeed(dir, &["train", "--device", "cpu", "--data", "train.tsv", "--max-steps", "7", "--out", "run"]);
    succeed(dir, &["pack", "run", "--last", "--out", "m.safetensors"]);
    let numbers: Vec<u64> = (900..1000).collect();
    put("new.tsv", numbers.iter().map(|&i| text(i, "")).collect());
    let wanted = predicted(dir, Path::new("m.safetensors"), "new.tsv");
    let server = Server::start(&["--model", dir.join("m.safetensors").to_str().unwrap()]);
    let about = server.get("/v2/models/dqrm", "").json();
    assert_eq!(about["inputs"][1], json!({ "name": "ids", "datatype": "UINT64", "shape": [-1, 26] }));
    let (n, mut dense, mut texts, mut keys) = (numbers.len(), Vec::new(), Vec::new(), Vec::new());
    for &i in &numbers {
        let (values, ids) = line(i);
        dense.push(values.iter().map(|v| v.parse().unwrap_or(0)).collect::<Vec<i64>>());
        keys.push(ids.iter().map(|id| u64::from_str_radix(id, 16).unwrap()).collect::<Vec<_>>());
        texts.push(ids);
    }
    let dense = || tensor("dense", "FP32", &[n, 13], json!(dense));
    let flat: Vec<u64> = keys.concat();
    for body in [
        rows(&numbers.iter().map(|&i| text(i, "")).collect::<Vec<_>>()),
        rows(&numbers.iter().map(|&i| text(i, "1\t")).collect::<Vec<_>>()),
        tensors(&[dense(), tensor("ids", "BYTES", &[n, 26], json!(texts))]),
        tensors(&[dense(), tensor("ids", "UINT64", &[n, 26], json!(keys))]),
        tensors(&[tensor("ids", "INT64", &[n, 26], json!(flat)), dense()]),
        tensors(&[
            dense(),
            tensor("ids", "UINT64", &[26 * n], json!(flat)),
            tensor("offsets", "INT64", &[26 * n + 1], json!((0..=26 * n).collect::<Vec<_>>())),
        ]),
    ] {
        assert_eq!(bits(&server.infer(&body)), bits(&wanted));
    }
    for size in [1, 2, 5, 41] {
        let found: Vec<f32> =
            numbers.chunks(size).flat_map(|part| server.infer(&rows(&part.iter().map(|&i| text(i, "")).collect::<Vec<_>>()))).collect();
        assert_eq!(bits(&found), bits(&wanted), "{size} at a time");
    }
}

#[test]
fn a_model_of_synthetic_clicks_can_be_served() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    succeed(dir, &["train", "--device", "cpu", "--samples", "12000", "--max-steps", "5", "--out", "run"]);
    succeed(dir, &["pack", "run", "--last", "--out", "m.safetensors"]);
    let line = format!("{}{}", "3\t".repeat(13), vec!["1f"; 26].join("\t"));
    std::fs::write(dir.join("new.tsv"), line.clone() + "\n").unwrap();
    let wanted = predicted(dir, Path::new("m.safetensors"), "new.tsv");
    let server = Server::start(&["--model", dir.join("m.safetensors").to_str().unwrap()]);
    let body = tensors(&[tensor("dense", "FP32", &[1, 13], json!(vec![3; 13])), tensor("ids", "UINT64", &[1, 26], json!(vec![0x1f; 26]))]);
    assert_eq!(bits(&server.infer(&body)), bits(&wanted));
    assert_eq!(bits(&server.infer(&rows(&[line]))), bits(&wanted));
}
