//! The default model of the page: its files open, and are as good as the notes beside them say.

use dqrm::config::Device;
use dqrm::predictor::Incoming;
use dqrm_web::ads::{self, Clicks};
use dqrm_web::scores::{Scores, summary};
use pollster::block_on;

fn file(name: &str) -> Vec<u8> {
    std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("model").join(name)).unwrap()
}

/// The AUC in the row of the notes that begins with `name`.
fn stated(name: &str) -> f64 {
    let notes = String::from_utf8(file("README.md")).unwrap();
    let row = notes.lines().find(|line| line.starts_with(&format!("| `{name}`"))).unwrap();
    row.split('|').nth(4).unwrap().trim().parse().unwrap()
}

fn int4() -> Scores {
    let bytes = file("clicks.int4.safetensors");
    let mut incoming = Incoming::new("clicks.int4.safetensors", bytes.len() as u64, Device::Cpu, 1024).unwrap();
    block_on(incoming.push(&bytes)).unwrap();
    let (predictor, packed) = incoming.finish().unwrap();
    Scores::packed(predictor, &packed, bytes.len()).unwrap()
}

#[test]
fn both_models_have_the_auc_that_is_stated() {
    let int4 = int4();
    let full = block_on(Scores::full(&file("clicks.fp32.safetensors"), &int4, Device::Cpu)).unwrap();
    // the run's test part
    let clicks = Clicks::new(1, 950_000..1_000_000);
    let text: String = [ads::header()].into_iter().chain((0..50_000).map(|i| clicks.line(i))).map(|line| line + "\n").collect();
    for (name, mut scores) in [("clicks.int4.safetensors", int4), ("clicks.fp32.safetensors", full)] {
        scores.begin("clicks").unwrap();
        let found = block_on(scores.push(text.as_bytes(), true)).unwrap();
        let auc = summary(&found, scores.labels())["auc"].as_f64().unwrap();
        assert!((auc - stated(name)).abs() < 1e-4, "{name}: {auc}, stated {}", stated(name));
        assert_eq!(scores.skipped()["skipped"], 0);
    }
}

#[test]
fn the_page_knows_the_columns_the_ads_and_the_visitor() {
    let stored: serde_json::Value = serde_json::from_slice(&file("clicks.json")).unwrap();
    assert!(stored == ads::description(), "web/model/make writes clicks.json anew");
    let described = int4().describe();
    let listed = |key: &str| described["columns"][key].as_array().unwrap().clone();
    let model: Vec<_> = [listed("dense"), listed("categorical"), listed("multi_hot")].concat();
    let page: Vec<_> = stored["columns"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!(model, page);
}

/// A row of the ranking: the visitor's and the ad's values in the order of the columns.
fn row(description: &serde_json::Value, visitor: &serde_json::Value, ad: &serde_json::Value) -> String {
    let value = |name: &str| match visitor.get(name).or(ad["values"].get(name)).unwrap() {
        serde_json::Value::Array(several) => several.iter().map(|v| v.as_str().unwrap()).collect::<Vec<_>>().join(","),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    description["columns"].as_array().unwrap().iter().map(|c| value(c["name"].as_str().unwrap())).collect::<Vec<_>>().join("\t")
}

/// The topics of the ten ads that rank first for the default visitor with some values changed.
fn first_ten(changes: serde_json::Value) -> Vec<String> {
    let description = ads::description();
    let mut visitor = description["visitor"].clone();
    changes.as_object().unwrap().iter().for_each(|(name, value)| visitor[name] = value.clone());
    let ads = description["ads"].as_array().unwrap();
    let rows: String = ads.iter().map(|ad| row(&description, &visitor, ad) + "\n").collect();
    let found = block_on(int4().rank(&rows)).unwrap();
    let mut order: Vec<usize> = (0..ads.len()).collect();
    order.sort_by(|&a, &b| found[b].total_cmp(&found[a]));
    order[..10].iter().map(|&i| ads[i]["values"]["topic"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn rankings_are_what_a_person_expects() {
    let count = |topics: &[String], topic: &str| topics.iter().filter(|t| *t == topic).count();
    let gamer = first_ten(serde_json::json!({ "interests": ["gaming"], "site": "gaming" }));
    assert!(count(&gamer, "gaming") >= 6, "{gamer:?}");
    let cook = first_ten(serde_json::json!({ "interests": ["food"], "site": "food", "hour": "12" }));
    assert!(count(&cook, "food") >= 6 && count(&cook, "gaming") == 0, "{cook:?}");
    let reader = first_ten(serde_json::json!({ "interests": ["books"], "site": "news", "age": "65+" }));
    assert!(count(&reader, "books") >= 5, "{reader:?}");
}
