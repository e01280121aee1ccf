//! The training of the page on the CPU engine: it learns, its packed file is the model, and wrong settings are refused.

use dqrm::config::Device;
use dqrm::data::{Batch, Block, Samples};
use dqrm::metrics::Summary;
use dqrm::packed::Packed;
use dqrm::predictor::Incoming;
use dqrm_web::ads::{self, Clicks};
use dqrm_web::scores::Scores;
use dqrm_web::train::{Settings, Training};
use pollster::block_on;
use serde_json::json;
use std::sync::Arc;

fn training(settings: &str) -> Training {
    block_on(Training::load(Device::Cpu, Settings::from_json(settings).unwrap())).unwrap()
}

fn mean(losses: &[f32]) -> f32 {
    losses.iter().sum::<f32>() / losses.len() as f32
}

#[test]
fn training_lowers_the_loss_and_finds_an_order() {
    let mut all = training(r#"{"train": 20000, "validation": 4000}"#);
    let before = block_on(all.evaluate()).unwrap();
    let losses = block_on(all.steps(300)).unwrap();
    assert_eq!((losses.len(), all.done().0, all.steps_per_epoch()), (300, 300, 157));
    let after = block_on(all.evaluate()).unwrap();
    assert!(mean(&losses[250..]) < mean(&losses[..20]) - 0.02, "{losses:?}");
    assert!(after.auc.unwrap() > 0.7 && after.auc > before.auc && after.log_loss < before.log_loss, "{before:?} {after:?}");
    assert!(all.describe()["best"]["auc"].as_f64().unwrap() > after.auc.unwrap(), "nobody beats the true probabilities");
}

#[test]
fn the_order_is_seeded_and_calls_may_be_cut_anywhere() {
    let settings = r#"{"train": 1000, "validation": 100, "batch": 64, "seed": 7}"#;
    let whole = block_on(training(settings).steps(40)).unwrap();
    let mut pieces = training(settings);
    let mut found = Vec::new();
    for n in [1, 0, 16, 17, 6] {
        found.extend(block_on(pieces.steps(n)).unwrap());
        // looking at the model changes nothing
        block_on(pieces.evaluate()).unwrap();
    }
    assert_eq!(found, whole);
    let other = block_on(training(r#"{"train": 1000, "validation": 100, "batch": 64, "seed": 8}"#).steps(40)).unwrap();
    assert_ne!(other, whole);
}

#[test]
fn the_learning_rate_can_be_changed_on_the_way() {
    let settings = r#"{"train": 1000, "validation": 500, "bits": null}"#;
    let (mut kept, mut slowed) = (training(settings), training(settings));
    slowed.set_learning_rate(1e-9).unwrap();
    let start = block_on(kept.evaluate()).unwrap().log_loss;
    for training in [&mut kept, &mut slowed] {
        block_on(training.steps(30)).unwrap();
    }
    let (kept, slowed) = (block_on(kept.evaluate()).unwrap().log_loss, block_on(slowed.evaluate()).unwrap().log_loss);
    assert!((slowed - start).abs() < 1e-3 && kept < start - 0.01, "{start}: {kept}, {slowed}");
}

#[test]
fn the_packed_file_is_the_model_for_rows_and_for_text() {
    for bits in [2, 4, 8] {
        let mut training = training(&json!({ "bits": bits, "train": 5000, "validation": 1500, "period": 1000 }).to_string());
        block_on(training.steps(60)).unwrap();
        let wanted = block_on(training.evaluate()).unwrap();
        let bytes = block_on(training.pack()).unwrap();
        Packed::decode(Arc::new(bytes.clone())).unwrap().verify().unwrap();

        let mut incoming = Incoming::new("trained here", bytes.len() as u64, Device::Cpu, 512).unwrap();
        bytes.chunks(10_000).try_for_each(|piece| block_on(incoming.push(piece))).unwrap();
        let (mut predictor, packed) = incoming.finish().unwrap();
        let clicks = Clicks::new(2, 1 << 40..(1 << 40) + 1500);
        let mut block = Block::new();
        clicks.fetch(&(0..512).collect::<Vec<_>>(), &mut block).unwrap();
        let direct = block_on(predictor.logits(&Batch::prepare(&block, predictor.tables()).unwrap())).unwrap();

        let mut scores = Scores::packed(predictor, &packed, bytes.len()).unwrap();
        let text: String = [ads::header()].into_iter().chain((0..1500).map(|i| clicks.line(i))).map(|line| line + "\n").collect();
        scores.begin("clicks").unwrap();
        let found = block_on(scores.push(text.as_bytes(), true)).unwrap();
        assert_eq!(scores.skipped()["skipped"], 0);
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        // from text the same rows, so the same logits
        direct.iter().zip(&found).for_each(|(&x, &p)| assert!((sigmoid(x) - p).abs() < 1e-6, "{x} {p}"));
        let logits: Vec<f32> = found.iter().map(|p| (p / (1.0 - p)).ln()).collect();
        let found = Summary::from_logits(&logits, scores.labels());
        // packed weights are multiplied in another order
        assert!((found.auc.unwrap() - wanted.auc.unwrap()).abs() < 1e-4, "INT{bits}: {found:?} {wanted:?}");
        assert!((found.log_loss - wanted.log_loss).abs() < 1e-5, "INT{bits}: {found:?} {wanted:?}");
    }
}

#[test]
fn settings_that_cannot_be_are_refused_with_a_sentence() {
    for (settings, says) in [
        (r#"{"bits": 3}"#, "`bits` is 3; 2, 4, 8, 16 and null (FP32) are possible"),
        (r#"{"bits": -4}"#, "the settings cannot be used"),
        (r#"{"batch": 0}"#, "`batch` is 0; 1 to 4096 are possible"),
        (r#"{"batch": 1000000000}"#, "`batch` is 1000000000"),
        (r#"{"period": 0}"#, "`period` is 0"),
        (r#"{"learning_rate": 0}"#, "`learning_rate` is 0; a number above 0"),
        (r#"{"learning_rate": -1}"#, "`learning_rate` is -1"),
        (r#"{"learning_rate": 1e300}"#, "`learning_rate` is 1"),
        (r#"{"train": 0}"#, "`train` is 0"),
        (r#"{"train": 18446744073709551615}"#, "`train` is 18446744073709551615; 1 to 1000000"),
        (r#"{"validation": 0}"#, "`validation` is 0"),
        (r#"{"validation": 1e99}"#, "the settings cannot be used"),
        (r#"{"period": 1, "colour": "red"}"#, "unknown field `colour`"),
        ("[1", "the settings cannot be used"),
    ] {
        let error = Settings::from_json(settings).unwrap_err().to_string();
        assert!(error.contains(says), "{settings}: {error}");
    }
    assert_eq!(Settings::from_json("{}").unwrap(), Settings::default());
    assert_eq!(Settings::from_json(r#"{"bits": null}"#).unwrap().bits, None);
}

#[test]
fn what_cannot_be_done_is_refused_with_a_sentence() {
    let mut training = training(r#"{"bits": null, "train": 200, "validation": 50}"#);
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(training.set_learning_rate(rate).unwrap_err().to_string().contains("`learning_rate` is"), "{rate}");
    }
    assert!(block_on(training.pack()).unwrap_err().to_string().contains("trained in FP32"));
    assert!(block_on(training.steps(1 << 40)).unwrap_err().to_string().contains("call again"));
    training.set_learning_rate(100.0).unwrap();
    let error = (0..20).find_map(|_| block_on(training.steps(20)).err()).map(|e| e.to_string()).unwrap_or_default();
    assert!(error.contains("smaller learning rate"), "{error}");
    let error = block_on(Training::load("no such adapter".to_owned().into(), Settings::default())).unwrap_err().to_string();
    assert!(error.contains("no such adapter"), "{error}");
}
