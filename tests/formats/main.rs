//! Files made by PyTorch (`tests/import/make.py`): the run that `dqrm import` makes of each predicts what PyTorch
//! does. Files that lie: one sentence each. Damaged files of every kind: an answer, and no panic.

#[path = "../../fuzz/decoders.rs"]
mod decoders;
mod hostile;
mod mutated;

use std::path::{Path, PathBuf};
use std::process::Command;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import")
}

/// Runs the program in `dir`; gives (success, standard output, standard error).
fn dqrm(dir: &Path, args: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_dqrm")).current_dir(dir).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn succeed(dir: &Path, args: &[&str]) -> String {
    let (success, out, err) = dqrm(dir, args);
    assert!(success, "{args:?}: {err}");
    out
}

/// Expects one sentence with all `words`.
fn fail(dir: &Path, args: &[&str], words: &[&str]) {
    let (success, out, err) = dqrm(dir, args);
    assert!(!success && out.is_empty() && err.starts_with("error: ") && err.lines().count() == 1, "{args:?}: {out}{err}");
    words.iter().for_each(|word| assert!(err.contains(word), "`{word}` is not in: {err}"));
}

fn input(name: &str) -> String {
    folder().join(name).to_str().unwrap().to_owned()
}

fn predictions(dir: &Path, run: &str, rows: &str) -> Vec<f64> {
    let out = succeed(dir, &["predict", run, "--data", &input(rows), "--device", "cpu"]);
    out.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn every_kind_of_file_predicts_what_pytorch_does() {
    let scratch = tempfile::tempdir().unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&std::fs::read(folder().join("expected.json")).unwrap()).unwrap();
    let files = expected.as_object().unwrap();
    assert!(files.len() >= 19);
    for (name, probabilities) in files {
        let out = succeed(scratch.path(), &["import", &input(name), "--out", name]);
        assert!(out.contains("interaction") && out.contains("modulo the table's rows"), "{out}");
        let rows = if name.starts_with("criteo") { "criteo.tsv" } else { "small.tsv" };
        let found = predictions(scratch.path(), name, rows);
        let wanted: Vec<f64> = probabilities.as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect();
        assert_eq!((found.len(), wanted.len()), (20, 20), "{name}");
        let worst = found.iter().zip(&wanted).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst <= 1e-6, "{name}: {worst:e}");
    }
}

#[test]
fn the_report_says_what_was_found() {
    let scratch = tempfile::tempdir().unwrap();
    let report = |name: &str, more: &[&str]| -> serde_json::Value {
        serde_json::from_str(&succeed(scratch.path(), &[&["import", &input(name), "--json"][..], more].concat())).unwrap()
    };
    let found = report("checkpoint.pt", &[]);
    assert_eq!(found["dir"], "runs/checkpoint");
    assert_eq!(found["rows"], serde_json::json!([7, 1, 12, 30]));
    assert_eq!((&found["bottom"], &found["top"]), (&serde_json::json!([5, 6, 3]), &serde_json::json!([13, 4, 1])));
    assert_eq!(found["ignored"], serde_json::json!([]), "the optimizer's state stands beside the state dict");
    assert_eq!(report("checkpoint.pt", &[])["dir"], "runs/checkpoint-2");
    assert_eq!(report("cat.pt", &[])["interaction"], "cat");
    assert_eq!(report("diagonal.pt", &[])["interaction"], "diagonal");
    assert_eq!(report("half.pt", &[])["types"], serde_json::json!(["F16"]));
    let found = report("dqrm.pt", &["--bits", "4", "--mlp-bits", "8", "--loss", "mse"]);
    assert_eq!((&found["embedding_bits"], &found["mlp_bits"]), (&4.into(), &8.into()));
    assert_eq!(found["ignored"].as_array().unwrap().len(), 4 * 6 + 4 * 4);
    let config = std::fs::read_to_string(scratch.path().join("runs/dqrm/config.toml")).unwrap();
    assert!(config.contains("loss = \"mse\"") && config.contains("format = \"text\""), "{config}");
    fail(
        scratch.path(),
        &["import", &input("cat.pt"), "--interaction", "dot"],
        &["15 values", "13 (dot), 18 (dot with diagonal), 15 (cat)"],
    );
}

#[test]
fn an_imported_run_evaluates_trains_and_goes_on() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let rows = input("criteo.tsv");
    succeed(dir, &["import", &input("criteo.pt"), "--bits", "4"]);
    let eval = |run: &str| -> serde_json::Value {
        serde_json::from_str(&succeed(dir, &["eval", run, "--data", &rows, "--device", "cpu", "--json"])).unwrap()
    };
    assert_eq!(eval("runs/criteo")["samples"], 20);
    fail(dir, &["eval", "runs/criteo"], &["data.files is empty", "--data"]);
    let settings = ["train", "runs/criteo/config.toml", "--data", &rows, "--device", "cpu", "--out", "next"];
    fail(dir, &["train", "runs/criteo/config.toml", "--device", "cpu"], &["data.files is empty"]);
    succeed(dir, &[&settings[..], &["--init", "runs/criteo/last.safetensors", "--lr", "0"]].concat());
    let (before, after) = (predictions(dir, "runs/criteo", "criteo.tsv"), predictions(dir, "next", "criteo.tsv"));
    assert_eq!(before, after, "a step of size 0 in INT4: the scales of the tables are the same too");
    fail(dir, &["import", &input("criteo.pt"), "--out", "next"], &["`next` holds a run already"]);
}

#[test]
fn ids_of_another_run_are_taken_when_their_tables_fit() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    succeed(dir, &["import", &input("small.pt"), "--out", "a"]);
    succeed(dir, &["import", &input("half.pt"), "--out", "b", "--ids", "a/ids.bin"]);
    assert_eq!(std::fs::read(dir.join("a/ids.bin")).unwrap(), std::fs::read(dir.join("b/ids.bin")).unwrap());
    fail(dir, &["import", &input("criteo.pt"), "--ids", "a/ids.bin"], &["`a/ids.bin`", "4 tables", "26"]);
    fail(dir, &["import", &input("small.pt"), "--ids", "a/config.toml"], &["`a/config.toml`", "DQRM-IDS"]);
    let mut dictionary = dqrm::data::ids::Mapper::dictionary(4, None).to_bytes();
    std::fs::write(dir.join("d.bin"), &dictionary).unwrap();
    fail(dir, &["import", &input("small.pt"), "--ids", "d.bin"], &["table 0 has 1 rows there", "`emb_l.0.weight` has 7"]);
    dictionary.pop();
    std::fs::write(dir.join("d.bin"), &dictionary).unwrap();
    fail(dir, &["import", &input("small.pt"), "--ids", "d.bin"], &["`d.bin`", "id mapping"]);
    assert!(!dir.join("runs").exists(), "nothing is left behind");
}

#[test]
fn a_dictionary_becomes_part_of_the_run() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    // A run on the same rows has a dictionary; its own weights, imported with it, predict the same.
    let flags = ["train", "--data", &input("criteo.tsv"), "--device", "cpu", "--bits", "none", "--out", "own"];
    succeed(dir, &flags);
    succeed(dir, &["import", "own/last.safetensors", "--ids", "own/ids.bin", "--out", "again"]);
    let own = succeed(dir, &["predict", "own", "--last", "--data", &input("criteo.tsv"), "--device", "cpu"]);
    let again = succeed(dir, &["predict", "again", "--data", &input("criteo.tsv"), "--device", "cpu"]);
    assert_eq!(own, again);
}

#[test]
fn a_file_of_another_kind_is_explained() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    fail(dir, &["import", &input("legacy.pt")], &["before version 1.6", "`torch.save(torch.load(f), f)`"]);
    fail(dir, &["import", &input("small.tsv")], &["neither a `.pt` nor a safetensors file"]);
    fail(dir, &["import", "absent.pt"], &["cannot read `absent.pt`"]);
    fail(dir, &["import", "."], &["`.`"]);
    std::fs::write(dir.join("empty.pt"), "").unwrap();
    fail(dir, &["import", "empty.pt"], &["neither a `.pt` nor a safetensors file"]);
    std::fs::write(dir.join("bare.pt"), b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x94.").unwrap();
    fail(dir, &["import", "bare.pt"], &["a bare pickle"]);
    assert!(!dir.join("runs").exists(), "nothing is left behind");
}

#[test]
fn weights_that_are_not_finite_are_named_and_nothing_is_left() {
    let scratch = tempfile::tempdir().unwrap();
    let mut file = std::fs::read(folder().join("small.safetensors")).unwrap();
    let end = file.len();
    file[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(scratch.path().join("nan.safetensors"), file).unwrap();
    fail(scratch.path(), &["import", "nan.safetensors", "--out", "run"], &["`nan.safetensors`", "is NaN", "only finite weights"]);
    assert!(!scratch.path().join("run").exists());
}
