//! The program as its user meets it: messages, exit codes, files.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The program, in `dir`.
fn dqrm(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dqrm"));
    command.current_dir(dir).args(args).stdin(Stdio::null());
    command
}

/// Runs it and gives (exit code, standard output, standard error).
fn run(dir: &Path, args: &[&str]) -> (i32, String, String) {
    told(dqrm(dir, args).output().unwrap())
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// Runs it, expects success, gives standard output.
fn succeed(dir: &Path, args: &[&str]) -> String {
    let (code, out, err) = run(dir, args);
    assert_eq!(code, 0, "{args:?}: {err}");
    out
}

/// Runs it, expects one sentence with all `words` and exit code 1.
fn fail(dir: &Path, args: &[&str], words: &[&str]) {
    let (code, out, err) = run(dir, args);
    assert_eq!((code, out.as_str()), (1, ""), "{args:?}: {err}");
    let last = err.lines().rfind(|line| !line.is_empty()).unwrap_or("");
    assert!(last.starts_with("error: "), "{err}");
    for word in words {
        assert!(last.contains(word), "`{word}` is not in: {last}");
    }
    assert!(!err.contains("panicked"), "{err}");
}

/// A short run on synthetic clicks in `dir/name`.
fn train(dir: &Path, name: &str, more: &[&str]) -> PathBuf {
    succeed(dir, &[&["train", "--device", "cpu", "--samples", "12000", "--out", name][..], more].concat());
    dir.join(name)
}

fn bytes(path: PathBuf) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// `metrics.jsonl` without what depends on the clock.
fn metrics(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let parse = |line: &str| {
        let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
        value.as_object_mut().unwrap().remove("samples_per_second");
        value.as_object_mut().unwrap().remove("data_wait_ms");
        value
    };
    text.lines().map(parse).collect()
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Lines in Criteo's layout whose label depends on the first category.
fn criteo(lines: usize) -> Vec<String> {
    let mut state = 1u64;
    let mut random = move |n: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % n
    };
    let mut line = || {
        let first = random(4);
        let label = u64::from(random(4) < first);
        let dense = (0..13).map(|_| if random(5) == 0 { String::new() } else { random(100).to_string() }).collect::<Vec<_>>();
        let others = (0..25).map(|_| format!("{:08x}", random(20))).collect::<Vec<_>>();
        format!("{label}\t{}\t{first:08x}\t{}", dense.join("\t"), others.join("\t"))
    };
    (0..lines).map(|_| line()).collect()
}

/// Writes lines to a file and gives its name.
fn put(dir: &Path, name: &str, lines: &[String]) -> String {
    std::fs::write(dir.join(name), lines.join("\n") + "\n").unwrap();
    name.into()
}

#[test]
fn help_is_grouped_and_has_examples() {
    let dir = tempfile::tempdir().unwrap();
    let text = succeed(dir.path(), &["train", "--help"]);
    for heading in ["Data:", "Model:", "Quantization:", "Training:", "Run:", "Examples:"] {
        assert!(text.contains(heading), "{heading}");
    }
    for command in ["eval", "predict", "export", "comm", "devices"] {
        assert!(succeed(dir.path(), &[command, "--help"]).contains("--json"));
    }
    assert_eq!(run(dir.path(), &["train", "--bits", "5"]).0, 2);
    let (code, _, err) = run(dir.path(), &["train", "--preset", "kagle"]);
    assert!(code == 2 && err.contains("did you mean `kaggle`?"), "{err}");
}

#[test]
fn settings_that_cannot_be_used_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let with = |text: &str, words: &[&str]| {
        std::fs::write(dir.join("c.toml"), text).unwrap();
        fail(dir, &["train", "c.toml", "--device", "cpu"], words);
    };
    with("[train]\nepoch = 2\n", &["`c.toml`, line 2", "`epoch` in [train]", "`epochs`"]);
    with("[model]\npreset = \"kaggel\"\n", &["line 2, key `preset`", "`kaggle`"]);
    with("[train]\nbatch = \"big\"\n", &["line 2, key `batch`"]);
    with("[model]\ndim = 5\n", &["model.dim is 5"]);
    with("[data]\nsplit = [0.5, 0.5, 0.5]\n", &["data.split"]);
    with("[data]\nformat = \"criteo\"\n", &["data.files is empty"]);
    fail(dir, &["train", "--data", "absent.tsv"], &["absent.tsv"]);
    fail(dir, &["train", "absent.toml"], &["cannot read `absent.toml`"]);
    fail(dir, &["train", "--device", "no such adapter"], &["no such adapter", "cpu"]);
    fail(dir, &["train", "--lr", "inf"], &["optim.lr"]);
    assert!(!dir.join("runs").exists(), "nothing is left behind");
}

#[test]
fn a_run_writes_its_files_and_prints_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let table = succeed(dir, &["train", "--device", "cpu", "--samples", "12000"]);
    for word in ["test, end of run", "test, best validation", "teacher", "bytes in FP32", "in INT4", "samples/s", "Next:"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    let run = dir.join("runs/tiny-int4-seed0");
    for name in ["config.toml", "metrics.jsonl", "last.safetensors", "best.safetensors"] {
        assert!(run.join(name).exists(), "{name}");
    }
    let summary = json(&succeed(dir, &["train", "--device", "cpu", "--samples", "12000", "--json"]));
    assert_eq!(summary["dir"], "runs/tiny-int4-seed0-2");
    assert!(summary["teacher_auc"].as_f64().unwrap() > summary["end"]["auc"].as_f64().unwrap());
    fail(dir, &["train", "--out", "runs/tiny-int4-seed0"], &["holds a run already", "--resume"]);
    let report = json(&succeed(dir, &["eval", "runs/tiny-int4-seed0", "--last", "--device", "cpu", "--json"]));
    assert_eq!(report["auc"], summary["end"]["auc"], "eval agrees with the end of the same run");
    assert!(json(&succeed(dir, &["devices", "--json"])).as_array().unwrap().last().unwrap()["presets"][0]["fits"].as_bool().unwrap());
}

#[test]
fn the_same_run_twice_and_a_longer_run_in_two_parts_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let flags = ["--epochs", "2", "--eval-every", "40", "--batch", "96", "--optimizer", "rwsadagrad", "--lr", "0.02", "--period", "7"];
    let whole = train(dir, "whole", &flags);
    let again = train(dir, "again", &flags);
    let parts = train(dir, "parts", &[&flags[..], &["--max-steps", "61"]].concat());
    assert_ne!(bytes(whole.join("last.safetensors")), bytes(parts.join("last.safetensors")));
    succeed(dir, &["train", "--resume", "parts", "--max-steps", "130"]);
    succeed(dir, &["train", "--resume", "parts", "--max-steps", "0"]);
    for other in [again, parts] {
        assert_eq!(bytes(other.join("last.safetensors")), bytes(whole.join("last.safetensors")));
        assert_eq!(metrics(&other), metrics(&whole));
    }
    fail(dir, &["train", "--resume", "whole", "--lr", "0.5"], &["other settings"]);
    fail(dir, &["train", "--resume", "whole", "--max-steps", "3"], &["at step 200", "only 3 steps"]);
    fail(dir, &["train", "--resume", "nowhere"], &["nowhere/config.toml"]);
}

#[test]
fn tables_on_the_host_give_the_same_bytes_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let flags = ["--epochs", "2", "--eval-every", "40", "--batch", "96", "--optimizer", "rwsadagrad", "--lr", "0.02", "--period", "7"];
    let on_device = train(dir, "device", &flags);
    let on_host = train(dir, "host", &[&flags[..], &["--tables", "host"]].concat());
    let moved = train(dir, "moved", &[&flags[..], &["--tables", "host", "--table-dir", "scratch", "--max-steps", "61"]].concat());
    assert_eq!(std::fs::read_dir(dir.join("scratch")).unwrap().count(), 0, "the file vanishes with the run");
    succeed(dir, &["train", "--resume", "moved", "--tables", "device", "--max-steps", "130"]);
    succeed(dir, &["train", "--resume", "moved", "--tables", "host", "--max-steps", "0"]);
    for other in [&on_host, &moved] {
        for file in ["last.safetensors", "best.safetensors"] {
            assert_eq!(bytes(other.join(file)), bytes(on_device.join(file)), "{file} of {}", other.display());
        }
        assert_eq!(metrics(other), metrics(&on_device));
        assert_eq!(std::fs::read_dir(other).unwrap().count(), 4, "{}", other.display());
    }
    let evaluated = |run: &str| json(&succeed(dir, &["eval", run, "--last", "--device", "cpu", "--json"]))["auc"].clone();
    assert_eq!(evaluated("host"), evaluated("device"));
    fail(dir, &["train", "--tables", "host", "--workers", "2"], &["--tables host", "workers"]);
    fail(dir, &["train", "--tables", "host", "--method", "lsq"], &["lsq", "--tables device"]);
    fail(dir, &["train", "--table-dir", "x"], &["--table-dir", "--tables host"]);
}

#[test]
fn checkpoints_that_are_not_wanted_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let all = train(dir, "all", &["--eval-every", "20"]);
    let last = train(dir, "last", &["--eval-every", "20", "--checkpoints", "last"]);
    let none = train(dir, "none", &["--eval-every", "20", "--checkpoints", "none"]);
    let kept = |run: &Path| ["last.safetensors", "best.safetensors"].map(|name| run.join(name).exists());
    assert_eq!([&all, &last, &none].map(|run| kept(run)), [[true, true], [true, false], [false, false]]);
    assert_eq!(bytes(last.join("last.safetensors")), bytes(all.join("last.safetensors")));
    fail(dir, &["train", "--resume", "none"], &["has no last.safetensors"]);
}

#[test]
fn every_method_goes_on_where_it_was_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    // an epoch has 100 steps
    let variants: [(&str, &[&str]); 4] = [
        ("lsq", &["--method", "lsq", "--pretrain-epochs", "1"]),
        ("pact", &["--method", "pact"]),
        ("ptq", &["--method", "ptq"]),
        ("dqrm", &["--scales", "row", "--pretrain-epochs", "1"]),
    ];
    for (name, more) in variants {
        let flags = [&["--epochs", "2", "--eval-every", "40", "--batch", "96", "--lr", "0.2"][..], more].concat();
        let whole = train(dir, &format!("{name}-whole"), &flags);
        let stopped = format!("{name}-parts");
        let parts = train(dir, &stopped, &[&flags[..], &["--max-steps", "61"]].concat());
        succeed(dir, &["train", "--resume", &stopped, "--max-steps", "100"]);
        succeed(dir, &["train", "--resume", &stopped, "--max-steps", "130"]);
        succeed(dir, &["train", "--resume", &stopped, "--max-steps", "0"]);
        for file in ["last.safetensors", "best.safetensors"] {
            assert_eq!(bytes(parts.join(file)), bytes(whole.join(file)), "{name}: {file}");
        }
        assert_eq!(metrics(&parts), metrics(&whole), "{name}");
    }
}

#[test]
fn a_run_stopped_before_it_quantizes_is_evaluated_in_fp32() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let stop = ["--epochs", "2", "--batch", "96", "--lr", "0.2", "--max-steps", "100"];
    train(dir, "full", &[&stop[..], &["--bits", "none"]].concat());
    train(dir, "begun", &[&stop[..], &["--method", "lsq", "--pretrain-epochs", "1"]].concat());
    let report = |run: &str| json(&succeed(dir, &["eval", run, "--last", "--device", "cpu", "--json"]));
    let (full, begun) = (report("full"), report("begun"));
    assert_eq!((&full["auc"], &full["log_loss"]), (&begun["auc"], &begun["log_loss"]));
    assert_eq!(report("begun")["auc"], json(&succeed(dir, &["eval", "begun", "--device", "cpu", "--json"]))["auc"], "the best so far");
    succeed(dir, &["train", "--resume", "begun", "--max-steps", "101"]);
    assert_ne!(report("begun")["auc"], full["auc"], "one step later it is quantized");
}

#[test]
fn packed_models_of_every_method_predict_what_their_run_does() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let variants: [(&str, &[&str]); 4] = [
        ("lsq", &["--method", "lsq"]),
        ("pact", &["--method", "pact", "--lr", "0"]), // the weights rest, so the largest magnitude is fresh
        ("ptq", &["--method", "ptq", "--mlp-scale", "matrix"]),
        ("rows", &["--scales", "row"]),
    ];
    for (name, more) in variants {
        train(dir, name, &[&["--batch", "96"], more].concat());
        let report = |path: &str| json(&succeed(dir, &["eval", path, "--device", "cpu", "--json"]));
        let before = report(name);
        succeed(dir, &["pack", name, "--out", &format!("{name}.dqrm")]);
        let after = report(&format!("{name}.dqrm"));
        let difference = (before["log_loss"].as_f64().unwrap() - after["log_loss"].as_f64().unwrap()).abs();
        assert!(difference < 1e-6, "{name}: {before} {after}");
    }
    fail(dir, &["pack", "lsq", "--bits", "8", "--out", "other.dqrm"], &["learned its scales for INT4", "leave --bits"]);
    fail(dir, &["train", "--method", "pact", "--scales", "row"], &["one scale for a whole table"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_the_resumed_run_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let flags = ["train", "--device", "cpu", "--samples", "200000", "--out"];
    let mut child = dqrm(dir, &[&flags[..], &["stopped"]].concat()).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("run ")), "the run began");
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.last().unwrap().contains("dqrm train --resume stopped"), "{rest:?}");
    succeed(dir, &["train", "--resume", "stopped"]);
    succeed(dir, &[&flags[..], &["whole"]].concat());
    assert_eq!(bytes(dir.join("stopped/last.safetensors")), bytes(dir.join("whole/last.safetensors")));
    assert_eq!(bytes(dir.join("stopped/best.safetensors")), bytes(dir.join("whole/best.safetensors")));
    assert_eq!(metrics(&dir.join("stopped")), metrics(&dir.join("whole")));
}

#[test]
fn a_checkpoint_that_cannot_be_trusted_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let run = train(dir, "run", &["--max-steps", "20"]);
    let other = train(dir, "other", &["--max-steps", "20", "--max-rows", "100"]);
    let path = run.join("last.safetensors");
    let good = bytes(path.clone());
    let attempts: [&[&str]; 2] = [&["train", "--resume", "run", "--max-steps", "30"], &["eval", "run", "--last", "--device", "cpu"]];
    for args in attempts {
        std::fs::write(&path, &good[..good.len() - 100]).unwrap();
        fail(dir, args, &["run/last.safetensors", "truncated", &good.len().to_string()]);
        let mut altered = good.clone();
        altered[good.len() / 2] ^= 4;
        std::fs::write(&path, altered).unwrap();
        fail(dir, args, &["run/last.safetensors", "altered"]);
        std::fs::write(&path, "").unwrap();
        fail(dir, args, &["run/last.safetensors", "0 bytes"]);
    }
    std::fs::copy(other.join("last.safetensors"), &path).unwrap();
    fail(dir, attempts[0], &["belongs to another model"]);
    fail(dir, &["eval", "nowhere"], &["not a run's folder"]);
    std::fs::write(&path, &good).unwrap();
    succeed(dir, attempts[0]);
}

#[test]
fn a_state_dict_can_be_started_from() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    train(dir, "first", &["--max-steps", "20"]);
    train(dir, "second", &["--init", "first/last.safetensors", "--max-steps", "1", "--lr", "0"]);
    let weights = |run: &str| {
        let file = bytes(dir.join(run).join("last.safetensors"));
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        ["emb_l.3.weight", "bot_l.0.weight", "top_l.2.bias"].map(|name| tensors.tensor(name).unwrap().data().to_vec())
    };
    assert_eq!(weights("first"), weights("second"));
    fail(
        dir,
        &["train", "--init", "first/last.safetensors", "--max-rows", "50", "--device", "cpu"],
        &["`emb_l.0.weight` has shape [1460, 8] there"],
    );
    fail(dir, &["train", "--init", "first/config.toml", "--device", "cpu"], &["first/config.toml", "not a safetensors file"]);
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let flags = ["train", "--device", "cpu", "--samples", "12000", "--out"];
    fail(dir, &[&flags[..], &["high", "--lr", "1e30"]].concat(), &["the loss became", "step", "No checkpoint", "--lr"]);
    let mut lines: Vec<String> = (0..640).map(|i| format!("{}\t{}\tc{}", i % 3 / 2, i % 7, i % 5)).collect();
    lines[300] = "1\t3e38\tc1".into();
    put(dir, "rising.tsv", &lines);
    let settings = "[train]\nbatch = 32\ncheckpoint_every = 1\n[data]\nfiles = [\"rising.tsv\"]\nshuffle = false\n\
                    [data.schema]\ndense = [2]\ncategorical = [3]\ndense_log = false\n";
    std::fs::write(dir.join("c.toml"), settings).unwrap();
    let words = ["the loss became NaN at step", "`rising/last.safetensors` (step", "is kept"];
    fail(dir, &["train", "c.toml", "--device", "cpu", "--out", "rising", "--bits", "none"], &words);
    let (code, _, err) = run(dir, &["train", "--resume", "rising"]);
    assert!(code == 1 && err.contains("resumed at step"), "the kept checkpoint is whole: {err}");
}

/// The CPU engine, and the first adapter where there is one.
fn devices() -> Vec<String> {
    std::iter::once("cpu".to_owned()).chain(common::gpu().map(|adapter| adapter.name)).collect()
}

#[test]
fn the_first_step_that_went_wrong_is_named_however_late_its_loss_comes() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let settings = "[train]\nbatch = 8\n[data]\nfiles = [\"wrong.tsv\"]\nsplit = [1, 0, 0]\nshuffle = false\n\
                    [data.schema]\ndense = [2]\ncategorical = [3]\ndense_log = false\n";
    std::fs::write(dir.join("c.toml"), settings).unwrap();
    for bad in [0, 15, 40] {
        let mut lines: Vec<String> = (0..8 * 90).map(|i| format!("{}\t{}\tc{}", i % 3 / 2, i % 7, i % 5)).collect();
        for (i, label, value) in [(2, 0, "3e38"), (3, 1, "3e38"), (4, 0, "-3e38"), (5, 1, "-3e38")] {
            lines[8 * bad + i] = format!("{label}\t{value}\tc1");
        }
        put(dir, "wrong.tsv", &lines);
        for device in devices() {
            let told = |out: &str, every: &str| {
                let args = ["train", "c.toml", "--device", &device, "--bits", "none", "--eval-every", every, "--out", out];
                let (code, _, err) = run(dir, &args);
                std::fs::remove_dir_all(dir.join(out)).unwrap();
                assert_eq!(code, 1, "{err}");
                err.lines()
                    .find_map(|line| line.split_once("the loss became ")?.1.split_once(';'))
                    .unwrap_or_else(|| panic!("{err}"))
                    .0
                    .to_owned()
            };
            // every loss is looked at before the next step
            let each = told("each", "1");
            assert_eq!(each, format!("NaN at step {}", bad + 1), "{device}");
            assert_eq!(told("late", "0"), each, "{device}");
        }
    }
}

#[test]
fn reports_are_the_same_whenever_results_come() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let settings = "[train]\nbatch = 1024\nmax_steps = 150\n[data]\nsplit = [0.99, 0.01, 0]\n[data.synthetic]\nsamples = 160000\n";
    std::fs::write(dir.join("c.toml"), settings).unwrap();
    for device in devices() {
        let reports = |out: &str, every: &str| {
            let args = ["train", "c.toml", "--preset", "tiny", "--device", &device, "--eval-every", every, "--out", out];
            succeed(dir, &args);
            let mut lines = metrics(&dir.join(out));
            lines.retain(|line| line["kind"] == "train");
            std::fs::remove_dir_all(dir.join(out)).unwrap();
            lines
        };
        let late = reports("late", "0");
        assert_eq!(late.iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>(), [32, 64, 96, 128]);
        // each evaluation waits for all results first
        assert_eq!(late, reports("often", "7"), "{device}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_and_the_old_checkpoint_stays() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let run = train(dir, "run", &["--max-steps", "5"]);
    let good = bytes(run.join("last.safetensors"));
    let script = format!("trap '' XFSZ; ulimit -f 200; exec '{}' train --resume run --max-steps 9", env!("CARGO_BIN_EXE_dqrm"));
    let (code, _, err) = told(Command::new("sh").args(["-c", &script]).current_dir(dir).output().unwrap());
    assert!(code == 1 && err.contains("error: cannot write `run/last.safetensors.partial`"), "{err}");
    assert_eq!(bytes(run.join("last.safetensors")), good);
    assert!(!run.join("last.safetensors.partial").exists());
    let rows = put(dir, "rows.tsv", &criteo(50));
    fail(dir, &["predict", "run", "--data", &rows, "--out", "/dev/full", "--device", "cpu"], &["cannot write `/dev/full`"]);
}

#[test]
fn clicks_in_files_train_evaluate_and_predict() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let lines = criteo(3000);
    put(dir, "clicks.tsv", &lines);
    let flags = ["train", "--device", "cpu", "--data", "clicks.tsv", "--epochs", "3", "--lr", "0.5", "--out", "run", "--json"];
    let summary = json(&succeed(dir, &flags));
    assert!(summary["end"]["auc"].as_f64().unwrap() > 0.6, "{summary}");
    let report = json(&succeed(dir, &["eval", "run", "--data", "clicks.tsv", "--last", "--json"]));
    assert_eq!((report["samples"].as_u64(), report["skipped_rows"].as_u64()), (Some(3000), Some(0)));
    let with_labels = succeed(dir, &["predict", "run", "--data", "clicks.tsv"]);
    assert_eq!(with_labels.lines().count(), 3000);
    assert!(with_labels.lines().all(|p| (0.0..=1.0).contains(&p.parse::<f32>().unwrap())));
    let bare: Vec<String> = lines.iter().map(|line| line.split_once('\t').unwrap().1.to_owned()).collect();
    let mut child = dqrm(dir, &["predict", "run"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let text = bare.join("\n") + "\n";
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()).unwrap());
    let (code, out, err) = told(child.wait_with_output().unwrap());
    writer.join().unwrap();
    assert_eq!(code, 0, "{err}");
    assert_eq!(out, with_labels, "rows without labels from standard input give the same");
    put(dir, "bare.tsv", &bare);
    succeed(dir, &["predict", "run", "--data", "bare.tsv", "--out", "p.csv"]);
    assert_eq!(std::fs::read_to_string(dir.join("p.csv")).unwrap(), with_labels);
}

#[test]
fn a_small_file_cannot_ask_for_much_memory() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let run = train(dir, "run", &["--max-steps", "5"]);
    for (rows, dim, bottom) in [(4_294_967_295u64, 1024, 1024), (1, 1 << 20, 1 << 20)] {
        let top = dim + 351;
        let shape = serde_json::json!({"dense": 13, "dim": dim, "bottom": [13, bottom], "top": [top, 1], "rows": vec![rows; 26],
            "interaction": "dot", "diagonal": false, "loss": "bce"});
        if top > 1 << 20 {
            let shape = shape.to_string();
            write_hostile(&run.join("last.safetensors"), &shape);
            fail(dir, &["eval", "run", "--last", "--device", "cpu"], &["last.safetensors", "`dqrm.shape` that cannot be used", "1048576"]);
            continue;
        }
        write_hostile(&run.join("last.safetensors"), &shape.to_string());
        std::fs::remove_file(run.join("best.safetensors")).unwrap();
        for args in [&["eval", "run", "--device", "cpu"][..], &["predict", "run", "--device", "cpu"], &["pack", "run"]] {
            fail(dir, args, &["run/last.safetensors", "has no tensor `emb_l.0.weight`"]);
        }
        fail(dir, &["train", "--resume", "run", "--max-steps", "9"], &["run/last.safetensors", "belongs to another model"]);
        fail(
            dir,
            &["train", "--device", "cpu", "--init", "run/last.safetensors", "--out", "new"],
            &["run/last.safetensors", "has no tensor `emb_l.0.weight`"],
        );
        assert!(!dir.join("new").exists());
    }
}

/// A file without tensors that claims to be a checkpoint of this shape, with the right checksum.
fn write_hostile(path: &Path, shape: &str) {
    let header = |sum: &str| {
        let text = serde_json::json!({"__metadata__": {"dqrm.checksum": sum, "dqrm.shape": shape}}).to_string();
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    };
    let sum = xxhash_rust::xxh3::xxh3_64(&header("0000000000000000"));
    std::fs::write(path, header(&format!("{sum:016x}"))).unwrap();
}

#[test]
fn a_refused_resumption_leaves_the_settings_alone() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let run = train(dir, "run", &["--max-steps", "20"]);
    let before = bytes(run.join("config.toml"));
    fail(dir, &["train", "--resume", "run", "--max-steps", "10"], &["is at step 20", "only 10 steps"]);
    assert_eq!(bytes(run.join("config.toml")), before);
    std::fs::remove_file(run.join("last.safetensors")).unwrap();
    fail(dir, &["train", "--resume", "run", "--max-steps", "30"], &["nothing to resume"]);
    assert_eq!(bytes(run.join("config.toml")), before);
}

#[test]
fn rows_without_label_keep_their_columns_where_unused_ones_follow() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let lines: Vec<String> = (0..2000).map(|i| format!("{}\t{}\t{}\t{}\t7", i % 3 / 2, i % 7, i % 3, i % 5)).collect();
    put(dir, "clicks.tsv", &lines);
    let settings = "[model]\ndim = 4\nbottom = [4]\ntop = [1]\n[data]\nfiles = [\"clicks.tsv\"]\n\
                    [data.schema]\ndense = [2]\ncategorical = [3]\nid_text = \"int\"\n";
    std::fs::write(dir.join("c.toml"), settings).unwrap();
    succeed(dir, &["train", "c.toml", "--device", "cpu", "--out", "run", "--lr", "1"]);
    succeed(dir, &["pack", "run", "--out", "m.safetensors"]);
    let bare: Vec<String> = lines.iter().map(|line| line.split_once('\t').unwrap().1.to_owned()).collect();
    put(dir, "bare.tsv", &bare);
    for model in ["run", "m.safetensors"] {
        let predict = |file: &str| succeed(dir, &["predict", model, "--data", file, "--device", "cpu"]);
        assert_eq!(predict("bare.tsv"), predict("clicks.tsv"), "{model}");
    }
    succeed(dir, &["train", "--resume", "run", "--epochs", "2"]);
    put(dir, "wide.tsv", &bare.iter().map(|line| format!("1\t1\t{line}")).collect::<Vec<_>>());
    fail(dir, &["predict", "run", "--data", "wide.tsv"], &["6 columns, but 5 (or 4) are expected"]);
}

#[test]
fn predictions_appear_when_they_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    train(dir, "run", &["--max-steps", "5"]);
    let lines = criteo(50);
    put(dir, "x", &lines);
    let wanted = succeed(dir, &["predict", "run", "--data", "x"]);
    succeed(dir, &["predict", "run", "--data", "x", "--out", "x"]);
    assert_eq!(std::fs::read_to_string(dir.join("x")).unwrap(), wanted, "the input was read before it was replaced");
    put(dir, "bad.tsv", &[&lines[..], &["no row".to_owned()]].concat());
    std::fs::write(dir.join("p.csv"), "old").unwrap();
    fail(dir, &["predict", "run", "--data", "bad.tsv", "--out", "p.csv"], &["line 51"]);
    assert_eq!(bytes(dir.join("p.csv")), b"old");
    assert!(!dir.join("p.csv.partial").exists());
}

#[test]
fn malformed_lines_are_named_or_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let mut lines = criteo(600);
    lines[6] = lines[6].replacen('\t', "\tx", 1);
    lines[9] = "0\t1\t2".into();
    put(dir, "bad.tsv", &lines);
    let base = ["train", "--device", "cpu", "--data", "bad.tsv", "--out", "run", "--json"];
    fail(dir, &base, &["bad.tsv, line 7, column 2"]);
    let summary = json(&succeed(dir, &[&base[..], &["--on-bad-row", "skip"]].concat()));
    assert_eq!(summary["skipped_rows"], 2);
    fail(dir, &["eval", "run", "--data", "bad.tsv", "--on-bad-row", "error"], &["line 7, column 2"]);
    let report = json(&succeed(dir, &["eval", "run", "--data", "bad.tsv", "--json"]));
    assert_eq!((report["samples"].as_u64(), report["skipped_rows"].as_u64()), (Some(598), Some(2)));
    put(dir, "narrow.tsv", &["0\t1\t2".into()]);
    fail(dir, &["predict", "run", "--data", "narrow.tsv", "--on-bad-row", "error"], &["narrow.tsv, line 1"]);
    std::fs::write(dir.join("empty.tsv"), "").unwrap();
    fail(dir, &["train", "--data", "empty.tsv"], &["empty.tsv"]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    put(dir, "clicks.tsv", &criteo(3000));
    succeed(dir, &["train", "--device", "cpu", "--data", "clicks.tsv", "--out", "run", "--max-steps", "2"]);
    let mut child = dqrm(dir, &["predict", "run", "--data", "clicks.tsv"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let (_, _, err) = told(child.wait_with_output().unwrap());
    assert!(!err.contains("panicked") && !err.contains("error"), "{err}");
}

/// Numbers, one a line.
fn numbers(text: &str) -> Vec<f64> {
    text.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn a_packed_run_predicts_as_the_run_does() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    put(dir, "train.tsv", &criteo(3000));
    let flags = [
        "train",
        "--device",
        "cpu",
        "--data",
        "train.tsv",
        "--out",
        "run",
        "--batch",
        "64",
        "--period",
        "1",
        "--lr",
        "0.2",
        "--epochs",
        "6",
    ];
    succeed(dir, &flags);
    let report = json(&succeed(dir, &["pack", "run", "--json"]));
    let packed = dir.join("run/model.safetensors");
    assert_eq!(report["bytes"], bytes(packed.clone()).len());
    let parts: u64 = ["code_bytes", "scale_bytes", "mlp_bytes", "id_bytes"].iter().map(|k| report[k].as_u64().unwrap()).sum();
    let whole = report["bytes"].as_u64().unwrap();
    assert!(parts < whole && whole - parts < 20_000, "{parts} of {whole} bytes; the rest is the header");
    let card = String::from_utf8(bytes(dir.join("run/model.md"))).unwrap();
    for word in ["`train.tsv`", "INT4", "| validation |", "dqrm predict model.safetensors", "| codes of the tables |"] {
        assert!(card.contains(word), "{word}: {card}");
    }
    let predict =
        |model: &str, device: &str| numbers(&succeed(dir, &["predict", model, "--data", "train.tsv", "--device", device, "--verify"]));
    let run = predict("run", "cpu");
    let mine = predict("run/model.safetensors", "cpu");
    // The packed scales are one update newer than those of the last step.
    let far = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(mine.len() == 3000 && far(&run, &mine) < 0.05, "{}", far(&run, &mine));
    let spread = mine.iter().fold(0.0, |m: f64, p| m.max(*p)) - mine.iter().fold(1.0, |m: f64, p| m.min(*p));
    assert!(spread > 0.1, "the model says something");
    let report = json(&succeed(dir, &["eval", "run/model.safetensors", "--data", "train.tsv", "--device", "cpu", "--json"]));
    assert!(report["auc"].as_f64().unwrap() > 0.6 && report["samples"] == 3000);
    for (name, flags) in
        [("wide", &["--bits", "8"][..]), ("rows", &["--scales", "row"]), ("sixteen", &["--bits", "16", "--mlp-bits", "none"])]
    {
        let out = format!("{name}.safetensors");
        succeed(dir, &[&["pack", "run", "--out", &out][..], flags].concat());
        assert!(far(&mine, &predict(&out, "cpu")) < 0.2, "{name}");
        assert!(dir.join(format!("{name}.md")).exists());
    }
    fail(dir, &["pack", "run", "--ptq"], &["trained as INT4", "leave it out"]);
    let before = bytes(packed.clone());
    succeed(dir, &["pack", "run"]);
    assert_eq!(bytes(packed), before, "packed again, the same bytes");
}

#[test]
fn what_cannot_be_packed_or_read_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let rows = put(dir, "rows.tsv", &criteo(20));
    train(dir, "full", &["--max-steps", "3", "--max-rows", "50", "--bits", "none", "--mlp-bits", "none"]);
    fail(dir, &["pack", "full"], &["trained in FP32", "--ptq"]);
    fail(dir, &["pack", "full", "--ptq", "--bits", "none"], &["nothing to pack"]);
    fail(dir, &["pack", "nowhere"], &["`nowhere` is not a run's folder"]);
    fail(dir, &["pack", "full", "--ptq", "--out", "rows.tsv"], &["`rows.tsv` exists and is no packed model"]);
    fail(dir, &["pack", "full", "--ptq", "--out", "x.md"], &["the model and its card at once"]);
    std::fs::write(dir.join("mine.md"), "# My notes\n").unwrap();
    fail(dir, &["pack", "full", "--ptq", "--out", "mine.safetensors"], &["`mine.md` exists and is no card"]);
    assert!(!dir.join("mine.safetensors").exists() && !dir.join("x.md").exists());
    let packed = succeed(dir, &["pack", "full", "--ptq"]);
    assert!(packed.contains("full/model.safetensors (tables INT4, MLPs INT4"), "{packed}");
    let path = dir.join("full/model.safetensors");
    let good = bytes(path.clone());
    let predict = ["predict", "full/model.safetensors", "--data", &rows, "--device", "cpu"];
    succeed(dir, &predict);
    succeed(dir, &["eval", "full/model.safetensors", "--device", "cpu"]); // made-up clicks can be made again
    fail(dir, &["predict", "full/model.safetensors", "--last"], &["only a run's folder"]);
    fail(dir, &["predict", "full/last.safetensors", "--data", &rows], &["is not a packed model", "dqrm pack"]);
    fail(dir, &["predict", "rows.tsv", "--data", &rows], &["`rows.tsv`", "header"]);
    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    fail(dir, &predict, &["is truncated", &good.len().to_string()]);
    std::fs::write(&path, b"short").unwrap();
    fail(dir, &predict, &["has 5 bytes"]);
    let mut altered = good.clone();
    let header = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let tensors = json(std::str::from_utf8(&good[8..8 + header]).unwrap());
    let code = 8 + header + tensors["emb_l.2.weight.codes"]["data_offsets"][0].as_u64().unwrap() as usize;
    altered[code] ^= 1;
    std::fs::write(&path, &altered).unwrap();
    succeed(dir, &predict);
    fail(dir, &[&predict[..], &["--verify"]].concat(), &["tables that were altered"]);
    let end = good.len() - 1; // the id mapping
    altered[end] ^= 1;
    std::fs::write(&path, &altered).unwrap();
    fail(dir, &predict, &["was altered after it was written"]);
}

#[test]
fn direct_ids_beyond_their_table_are_named_with_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let toml = "[model]\ndim = 4\nbottom = [4]\ntop = [4, 1]\nrows = [5, 300]\n[data]\nfiles = [\"a.csv\"]\nformat = \"text\"\nids = \"direct\"\n\
                [data.schema]\nseparator = \",\"\ndense = [2]\ncategorical = [3]\nmulti_hot = [4]\nmulti_hot_separator = \";\"\nid_text = \"int\"\n";
    std::fs::write(dir.join("c.toml"), toml).unwrap();
    let lines: Vec<String> = (0..200).map(|i| format!("{},{i},{},{};{}", i % 2, i % 5, i % 300, (7 * i) % 300)).collect();
    put(dir, "a.csv", &lines);
    succeed(dir, &["train", "c.toml", "--device", "cpu", "--out", "run", "--batch", "16"]);
    succeed(dir, &["pack", "run"]);
    for model in ["run", "run/model.safetensors"] {
        assert_eq!(numbers(&succeed(dir, &["predict", model, "--data", "a.csv", "--device", "cpu"])).len(), 200);
        put(dir, "b.csv", &[lines[0].clone(), "1,2,5,0".into()]);
        fail(
            dir,
            &["predict", model, "--data", "b.csv", "--device", "cpu"],
            &["b.csv, line 2, column 3: row 5 of table 0 does not exist; the table has 5 rows"],
        );
        put(dir, "b.csv", &["1,2,4,7;300".into()]);
        fail(dir, &["predict", model, "--data", "b.csv", "--device", "cpu"], &["b.csv, line 1, column 4: row 300 of table 1"]);
        put(dir, "b.csv", &[lines[0].clone(), "1,2,99999999999,0".into(), lines[1].clone()]);
        let report = json(&succeed(dir, &["predict", model, "--data", "b.csv", "--device", "cpu", "--on-bad-row", "skip", "--json"]));
        assert_eq!((&report["samples"], &report["skipped_rows"]), (&2.into(), &1.into()));
    }
    std::fs::write(dir.join("c.toml"), toml.replace("\"int\"", "\"text\"")).unwrap();
    fail(dir, &["train", "c.toml", "--device", "cpu"], &["id_text", "int"]);
    std::fs::write(dir.join("c.toml"), toml.replace("rows = [5, 300]\n", "")).unwrap();
    fail(dir, &["train", "c.toml", "--device", "cpu"], &["needs model.rows"]);
}

#[test]
fn packed_files_of_earlier_versions_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packed");
    let expected = numbers(&std::fs::read_to_string(folder.join("probabilities.txt")).unwrap());
    for device in ["cpu", "gpu"] {
        if device == "gpu" && std::env::var_os("DQRM_REQUIRE_GPU").is_none() {
            writeln!(std::io::stderr(), "skipped on a gpu: DQRM_REQUIRE_GPU is not set").unwrap();
            continue;
        }
        let found = numbers(&succeed(&folder, &["predict", "v1.safetensors", "--verify", "--data", "rows.csv", "--device", device]));
        assert_eq!(found.len(), expected.len());
        for (i, (a, b)) in expected.iter().zip(&found).enumerate() {
            assert!((a - b).abs() < 1e-6, "row {i} on {device}: {b}, expected {a}");
        }
    }
}

#[test]
fn models_are_exported_for_other_programs() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    put(dir, "clicks.tsv", &criteo(1500));
    succeed(dir, &["train", "--device", "cpu", "--data", "clicks.tsv", "--out", "run", "--max-steps", "5"]);
    succeed(dir, &["pack", "run"]);
    let packed = "run/model.safetensors";

    let report = json(&succeed(dir, &["export", packed, "--format", "onnx", "--json"]));
    assert_eq!((report["file"].as_str(), report["bits"].as_u64()), (Some("run/model.onnx"), Some(4)));
    assert_eq!(report["bytes"].as_u64(), Some(bytes(dir.join("run/model.onnx")).len() as u64));
    let text = succeed(dir, &["export", "run", "--format", "onnx", "--last", "--external-data"]);
    assert!(text.contains("run/last.safetensors") && text.contains("run/fp32.onnx.data") && text.contains("keep it"), "{text}");
    assert!(dir.join("run/fp32.onnx.data").exists());

    let (_, _, err) = run(dir, &["export", "run", "--format", "safetensors", "--last"]);
    assert!(err.contains("trained with INT4 tables"), "{err}");
    let (file, last) = (bytes(dir.join("run/fp32.safetensors")), bytes(dir.join("run/last.safetensors")));
    let [weights, checkpoint] = [&file, &last].map(|b| safetensors::SafeTensors::deserialize(b).unwrap());
    let wanted: Vec<&str> = checkpoint.names().into_iter().filter(|n| !n.starts_with("dqrm.")).collect();
    assert_eq!((weights.len(), wanted.len()), (wanted.len(), 26 + 12));
    for name in wanted {
        let (a, b) = (weights.tensor(name).unwrap(), checkpoint.tensor(name).unwrap());
        assert!(a.shape() == b.shape() && a.data() == b.data(), "{name}");
    }
    succeed(dir, &["export", packed, "--format", "safetensors", "--out", "d.safetensors"]);
    succeed(dir, &["train", "--device", "cpu", "--data", "clicks.tsv", "--init", "d.safetensors", "--max-steps", "1", "--out", "again"]);

    let onnx = ["export", packed, "--format", "onnx"];
    fail(dir, &onnx, &["`run/model.onnx` exists", "--force"]);
    succeed(dir, &[&onnx[..], &["--force"]].concat());
    fail(dir, &["export", packed, "--format", "safetensors", "--force", "--out", packed], &["is what is to be exported"]);
    fail(dir, &[&onnx[..], &["--out", "run"]].concat(), &["is a folder"]);
    fail(dir, &[&onnx[..], &["--out", "absent/m.onnx"]].concat(), &["cannot create `absent/m.onnx"]);
    fail(dir, &[&onnx[..], &["--best", "--out", "b.onnx"]].concat(), &["only a run's folder"]);
    fail(dir, &["export", packed, "--format", "safetensors", "--external-data"], &["--external-data is for --format onnx"]);
    fail(dir, &["export", "nowhere", "--format", "onnx"], &["not a run's folder"]);
    fail(dir, &["export", "clicks.tsv", "--format", "onnx"], &["clicks.tsv", "not a safetensors file"]);
    fail(dir, &["export", "run/last.safetensors", "--format", "onnx"], &["is not a packed model", "dqrm pack"]);
    let mut altered = bytes(dir.join(packed));
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    std::fs::write(dir.join("altered.safetensors"), altered).unwrap();
    fail(dir, &["export", "altered.safetensors", "--format", "onnx"], &["altered"]);
    assert!(!dir.join("altered.onnx").exists() && !dir.join("altered.onnx.partial").exists());
}

#[test]
fn weights_go_out_and_come_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    put(dir, "clicks.tsv", &criteo(1500));
    let flags = ["--bits", "none", "--mlp-bits", "none", "--ids", "modulo", "--modulo", "50", "--batch", "64"];
    succeed(dir, &[&["train", "--device", "cpu", "--data", "clicks.tsv", "--out", "run"][..], &flags].concat());
    succeed(dir, &["export", "run", "--last", "--format", "safetensors", "--out", "state.safetensors"]);
    succeed(dir, &["import", "state.safetensors", "--out", "back"]);
    let files = ["run", "back"].map(|name| bytes(dir.join(name).join("last.safetensors")));
    let [ours, theirs] = [&files[0], &files[1]].map(|b| safetensors::SafeTensors::deserialize(b).unwrap());
    let names: Vec<&str> = ours.names().into_iter().filter(|n| !n.starts_with("dqrm.")).collect();
    assert_eq!(names.len(), 26 + 12);
    for name in names {
        assert!(ours.tensor(name).unwrap().data() == theirs.tensor(name).unwrap().data(), "{name}");
    }
    let predict = |model: &[&str]| succeed(dir, &[&["predict"][..], model, &["--data", "clicks.tsv", "--device", "cpu"]].concat());
    assert_eq!(predict(&["run", "--last"]), predict(&["back"]));
    // Both pack to the same codes, and the codes predict alike.
    succeed(dir, &["pack", "run", "--last", "--ptq", "--out", "a.safetensors"]);
    succeed(dir, &["pack", "back", "--ptq", "--out", "b.safetensors"]);
    assert_eq!(predict(&["a.safetensors"]), predict(&["b.safetensors"]));
    // A packed model's values on their grid again: the same codes, the same values.
    succeed(dir, &["export", "a.safetensors", "--format", "safetensors", "--out", "values.safetensors"]);
    succeed(dir, &["import", "values.safetensors", "--out", "grid"]);
    succeed(dir, &["pack", "grid", "--ptq", "--out", "c.safetensors"]);
    for (a, c) in numbers(&predict(&["a.safetensors"])).iter().zip(numbers(&predict(&["c.safetensors"]))) {
        assert!((a - c).abs() < 1e-5, "{a} and {c}");
    }
}

/// A line of `dqrm comm --json`: the scheme whose name begins with `name`.
fn scheme<'a>(comm: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let schemes = comm["schemes"].as_array().unwrap();
    schemes.iter().find(|s| s["name"].as_str().unwrap().starts_with(name)).unwrap_or_else(|| panic!("no {name} in {comm}"))
}

#[test]
fn what_workers_would_send_adds_up() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let flags = ["comm", "--samples", "4000", "--batch", "32", "--steps", "2", "--max-rows", "500", "--network", "8Mbps,1ms"];
    for workers in ["2", "3", "6"] {
        let args = [&flags[..], &["--workers", workers]].concat();
        let found = json(&succeed(dir, &[&args[..], &["--json"]].concat()));
        for scheme in found["schemes"].as_array().unwrap() {
            let of = |key: &str| scheme[key].as_u64().unwrap_or_else(|| panic!("{key} of {scheme}"));
            let parts: u64 = scheme["gradient"].as_object().unwrap().values().map(|v| v.as_u64().unwrap()).sum();
            assert_eq!(of("total"), parts, "{scheme}");
            assert_eq!(of("sent"), of("received"), "all together send what all together receive: {scheme}");
            assert!(of("busiest") >= of("sent") && of("sent") > 0, "{scheme}");
            assert!((scheme["milliseconds"].as_f64().unwrap() - (of("busiest") as f64 / 1e3 + 2.0)).abs() < 1e-6, "{scheme}");
        }
        let total = |name: &str| scheme(&found, name)["total"].as_u64().unwrap();
        let order = ["INT4", "INT8", "INT16", "FP32, touched", "FP32, all"].map(total);
        assert!(order.is_sorted_by(|a, b| a < b), "{order:?}");
        let text = succeed(dir, &args);
        assert!(text.contains(&format!("{workers} workers with 32 samples each, the mean of 2 steps")), "{text}");
        assert!(text.contains("INT8, averaged scales"), "{text}");
    }
    let again = |seed: &str| succeed(dir, &[&flags[..], &["--json", "--seed", seed]].concat());
    assert_eq!(again("1"), again("1"));
    assert_ne!(again("1"), again("2"));
    assert_eq!(json(&again("1"))["workers"], 4);
}

#[test]
fn workers_would_send_the_rows_of_real_files() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let file = put(dir, "clicks.tsv", &criteo(300));
    let found = json(&succeed(dir, &["comm", "--data", &file, "--batch", "16", "--workers", "2", "--steps", "50", "--json"]));
    // 240 to train on, 32 in a step; 26 ids in each sample; tables of at most 21 rows, one of 5
    assert_eq!((&found["steps"], &found["ids"], &found["tables"]), (&7.into(), &(16 * 26).into(), &26.into()));
    assert!(found["rows"].as_u64().unwrap() <= 25 * 21 + 5, "{found}");
    assert!(found["union_rows"].as_u64().unwrap() <= found["rows"].as_u64().unwrap());
    fail(dir, &["comm", "--data", "none.tsv"], &["none.tsv"]);
}

#[test]
fn wrong_flags_of_comm_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    for (flags, says) in [
        (["--network", "1Gb"], "as in 1Gbps"),
        (["--network", "1Gbps,2"], "as in"),
        (["--workers", "0"], "1..=64"),
        (["--workers", "65"], "1..=64"),
        (["--steps", "0"], "1..=10000"),
        (["--preset", "kagle"], "did you mean `kaggle`?"),
    ] {
        let (code, out, err) = run(dir, &["comm", flags[0], flags[1]]);
        assert!(code == 2 && out.is_empty() && err.contains(says), "{flags:?}: {err}");
    }
    fail(dir, &["comm", "--batch", "0"], &["train.batch", "at least 1"]);
    fail(dir, &["comm", "--preset", "mlperf", "--workers", "64", "--batch", "2048", "--steps", "1"], &["GiB of memory", "fewer workers"]);
}

#[test]
fn a_profile_is_a_table_and_a_timeline() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let (code, out, err) = run(
        dir,
        &["train", "--device", "cpu", "--samples", "12000", "--out", "a", "--max-steps", "20", "--profile", "--profile-steps", "4"],
    );
    assert_eq!(code, 0, "{err}");
    for word in ["profile   4 steps, 128 samples each", "gradients: matmul_nt", "update: row_sgd", "GFLOP/s", "clock around each command"] {
        assert!(out.contains(word), "{word}: {out}");
    }
    let events: Vec<serde_json::Value> = serde_json::from_slice(&bytes(dir.join("a/profile.json"))).unwrap();
    let named = |kind: &str| -> Vec<&str> {
        events.iter().filter(|e| e["ph"] == "M" && e["name"] == kind).map(|e| e["args"]["name"].as_str().unwrap()).collect()
    };
    assert_eq!((named("process_name"), named("thread_name").len()), (vec!["dqrm"], 3));
    let complete: Vec<_> = events.iter().filter(|e| e["ph"] == "X").collect();
    assert!(complete.iter().all(|e| e["dur"].as_f64().unwrap() >= 0.0 && e["name"].as_str().is_some_and(|n| !n.is_empty())));
    assert_eq!(complete.iter().filter(|e| e["name"] == "row_sgd shard 0").count(), 4);
    // Timing commands changes nothing that is computed.
    train(dir, "b", &["--max-steps", "20"]);
    assert_eq!(bytes(dir.join("a/last.safetensors")), bytes(dir.join("b/last.safetensors")));
    fail(dir, &["train", "--profile", "--workers", "2", "--samples", "12000", "--out", "c"], &["without workers"]);
    assert_eq!(run(dir, &["train", "--profile", "my.toml"]).0, 2, "settings are not taken for a timeline");
}

#[test]
fn a_tuned_run_keeps_what_it_found_and_later_runs_take_it() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let kept = dir.join(if cfg!(target_os = "macos") { "Library/Caches/dqrm/tuning.json" } else { "dqrm/tuning.json" });
    let tuned = |args: &[&str]| {
        let mut command = dqrm(dir, &[&["train", "--device", "gpu"][..], args].concat());
        let (code, _, err) = told(command.envs(["XDG_CACHE_HOME", "HOME", "LOCALAPPDATA"].map(|name| (name, dir))).output().unwrap());
        assert_eq!(code, 0, "{args:?}: {err}");
        err
    };
    let small = "[model]\ndense = 5\nbottom = [8, 4]\ntop = [8, 1]\ndim = 4\nrows = [20, 30]\n[train]\nbatch = 32\neval_batch = 32\n";
    std::fs::write(dir.join("small.toml"), small).unwrap();
    let train = |name: &str, more: &[&str]| {
        tuned(&[&["small.toml", "--samples", "640", "--max-steps", "3", "--out", name][..], more].concat());
        dir.join(name)
    };
    let read = |path: PathBuf| -> serde_json::Value { serde_json::from_slice(&bytes(path)).unwrap() };
    let picks = |run: &Path| read(run.join("tuning.json"))["devices"].as_object().unwrap().values().next().unwrap()["picks"].clone();
    let first = train("first", &["--tune", "fresh"]);
    assert_eq!(bytes(first.join("tuning.json")), bytes(kept.clone()));
    let found = picks(&first);
    let product = found.as_object().unwrap().keys().next().expect("a product that was timed").clone();
    let second = train("second", &["--tune", "cached"]);
    for file in ["tuning.json", "last.safetensors"] {
        assert_eq!(bytes(second.join(file)), bytes(first.join(file)), "{file}");
    }
    // No tuning finds such a text, so who has it has it from the user's file.
    let mut marked = read(kept.clone());
    let device = marked["devices"].as_object_mut().unwrap().values_mut().next().unwrap();
    device["picks"][&product] = "a mark".into();
    std::fs::write(&kept, marked.to_string()).unwrap();
    assert_eq!(picks(&train("marked", &["--tune"]))[&product], "a mark");
    assert_eq!(bytes(kept.clone()), marked.to_string().into_bytes(), "nothing was timed, so nothing is written");
    let own = marked["devices"].as_object().unwrap().values().next().unwrap()["program"].as_str().unwrap().to_owned();
    std::fs::write(&kept, marked.to_string().replace(&own, "an elder")).unwrap();
    assert_ne!(picks(&train("elder", &["--tune"]))[&product], "a mark", "what another program timed");
    assert!(!read(kept.clone()).to_string().contains("an elder"), "the answers of both in one");
    let fresh = picks(&train("fresh", &["--tune", "fresh"]));
    assert_ne!(fresh[&product], "a mark");
    assert_eq!(read(kept.clone()), read(dir.join("fresh/tuning.json")), "the new answer takes the old one's place");
    // A run that goes on keeps its texts, whoever timed them.
    let mut begun = read(first.join("tuning.json"));
    let device = begun["devices"].as_object_mut().unwrap().values_mut().next().unwrap();
    (device["program"], device["picks"][&product]) = ("an elder".into(), "a mark".into());
    for (steps, more) in [("4", &[][..]), ("5", &["--tune"])] {
        std::fs::write(first.join("tuning.json"), begun.to_string()).unwrap();
        tuned(&[&["--resume", "first", "--max-steps", steps], more].concat());
        assert_eq!(picks(&first)[&product], "a mark", "{more:?}");
        assert!(!read(first.join("tuning.json")).to_string().contains("an elder"), "{more:?}");
    }
    // A damaged file counts as empty and is written anew; a run's own is missed.
    std::fs::write(&kept, "{\"version\": 1").unwrap();
    let run = train("damaged", &["--tune", "cached"]);
    assert_eq!(read(kept), read(run.join("tuning.json")));
    std::fs::write(second.join("tuning.json"), "{").unwrap();
    let heard = |run: &str| tuned(&["--resume", run, "--max-steps", "6"]).contains("tuning.json cannot be read");
    assert_eq!(["first", "second"].map(heard), [false, true]);
    fail(dir, &["train", "--tune", "--workers", "2", "--samples", "3000", "--out", "workers"], &["--tune", "without workers"]);
    assert!(!dir.join("workers").exists());
}

#[test]
fn a_dry_run_says_what_a_run_would_take_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let text = succeed(dir, &["train", "--device", "cpu", "--preset", "terabyte", "--dry-run"]);
    for word in
        ["embedding tables", "activations", "predicted step", "upload", "all on the device", "GB/s", "GFLOP/s", "tables in 2 bindings"]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
    let found = json(&succeed(dir, &["train", "--device", "cpu", "--preset", "kaggle", "--workers", "2", "--dry-run", "--json"]));
    let memory = |name: &str| found["memory"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap()["bytes"].as_u64().unwrap();
    assert_eq!(memory("embedding tables"), 33_762_577 * 16 * 4);
    assert!(found["device_bytes"].as_u64().unwrap() > memory("embedding tables"));
    assert!(found["exchange"][0].as_u64().unwrap() > 0 && found["predicted"]["commands"].as_f64().unwrap() > 0.0);
    let hosted = ["train", "--device", "cpu", "--preset", "tiny", "--tables", "host", "--dry-run"];
    let text = succeed(dir, &hosted);
    for word in ["tables in one binding", "a step's rows of the tables", "rows to the device and back"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_ne!(text.contains("embedding tables with state"), text.contains("file of the tables"), "in memory or in a file: {text}");
    let text = succeed(dir, &[&hosted[..], &["--table-dir", "scratch"]].concat());
    assert!(text.contains("file of the tables") && !text.contains("embedding tables with state"), "{text}");
    assert!(!dir.join("scratch").exists());
    std::fs::write(dir.join("day.tsv"), "0\t1\n").unwrap();
    let text = succeed(dir, &["train", "--device", "cpu", "--data", "day.tsv", "--preset", "kaggle", "--max-rows", "1000", "--dry-run"]);
    assert!(text.contains("not prepared yet") && text.contains("the dictionary of the data decides"), "{text}");
    assert!(!dir.join("runs").exists(), "nothing is left behind");
}

#[test]
fn benchmarks_print_a_table_and_write_figures() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let quick = ["--rounds", "2", "--seconds", "0.01", "--json", "f.json"];
    let figures = |args: &[&str], words: &[&str]| {
        let out = succeed(dir, &[args, &quick].concat());
        words.iter().for_each(|word| assert!(out.contains(word), "{word}: {out}"));
        let value = json(&String::from_utf8(bytes(dir.join("f.json"))).unwrap());
        assert!(value["machine"]["version"].is_string() && value["machine"]["date"].is_string());
        value
    };
    let tiny = ["bench", "step", "--preset", "tiny", "--max-rows", "100", "--batch", "8", "--device", "cpu"];
    let steps = figures(&tiny, &["FP32", "INT4 / FP32", "batch 8", "of ceiling"]);
    assert_eq!(steps["batches"][0]["variants"][1]["rounds"].as_array().unwrap().len(), 2);
    let data = figures(
        &["bench", "data", "--lines", "3000", "--batch", "64"],
        &["made-up text, prepared, 3,000 samples", "26 tables", "ids listed alone"],
    );
    assert!(data["prepared"]["text_bytes"].as_u64() > Some(100_000) && data["parts"][1]["shuffled"] == true, "{data}");
    let data = figures(&["bench", "data", "--preset", "tiny", "--batch", "16", "--threads", "1"], &["synthetic clicks", "samples/s"]);
    assert!(data["rates"][0]["samples_per_second"]["median"].as_f64().unwrap() > 0.0);
    let kernels = succeed(dir, &["bench", "kernels", "concat", "--device", "cpu", "--seconds", "0.01"]);
    assert!(kernels.contains("ceiling  copy") && kernels.contains("concat B 128, K 26, D 16"), "{kernels}");
    train(dir, "a", &["--max-steps", "2"]);
    succeed(dir, &["pack", "a"]);
    let infer = figures(&["bench", "infer", "--model", "a/model.safetensors", "--device", "cpu"], &["ms a call", "first prediction"]);
    assert_eq!(infer["rates"].as_array().unwrap().len(), 3);
    fail(dir, &["bench", "step", "--batch", "0", "--device", "cpu"], &["--batch 0"]);
}

#[test]
fn a_prepared_folder_trains_as_its_files_do() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let lines = criteo(3000);
    put(dir, "a.tsv", &lines[..1700]);
    put(dir, "b.tsv", &lines[1700..]);
    let small = ["--device", "cpu", "--preset", "tiny", "--batch", "64"];
    let text = succeed(dir, &["prepare", "a.tsv", "b.tsv", "--out", "sets/prepared", "--split", "0.7,0.2,0.1", "--json"]);
    let report = json(&text);
    assert_eq!(
        (report["rows"].as_u64(), report["train"].as_u64(), report["tables"].as_array().unwrap().len()),
        (Some(3000), Some(2100), 26)
    );
    std::fs::rename(dir.join("sets"), dir.join("moved")).unwrap();
    succeed(dir, &[&["train", "--data", "moved/prepared", "--out", "one"][..], &small].concat());
    std::fs::write(dir.join("c.toml"), "[data]\nsplit = [0.7, 0.2, 0.1]\n").unwrap();
    succeed(dir, &[&["train", "c.toml", "--data", "a.tsv", "b.tsv", "--out", "two"][..], &small].concat());
    for name in ["last.safetensors", "ids.bin"] {
        assert!(bytes(dir.join("one").join(name)) == bytes(dir.join("two").join(name)), "{name}");
    }
    let tail = metrics(&dir.join("one")).pop().unwrap();
    assert!(tail["kind"] == "evaluation");
    let journal = String::from_utf8(bytes(dir.join("one/metrics.jsonl"))).unwrap();
    assert!(journal.lines().filter(|l| l.contains("\"train\"")).all(|l| json(l)["data_wait_ms"].as_f64().unwrap() >= 0.0));
    // the test part; all rows of the folder; the same rows as text
    assert!(succeed(dir, &["eval", "one"]).contains("samples     300\n"));
    let evaluated =
        |data: &[&str]| json(&succeed(dir, &[&["eval", "one", "--json", "--data"][..], data].concat()))["auc"].as_f64().unwrap();
    assert_eq!(evaluated(&["moved/prepared"]), evaluated(&["a.tsv", "b.tsv"]));
    let predicted = |data: &[&str]| succeed(dir, &[&["predict", "one", "--data"][..], data].concat());
    assert!(predicted(&["moved/prepared"]) == predicted(&["a.tsv", "b.tsv"]));
    succeed(dir, &["train", "--resume", "one", "--epochs", "2"]);
    // categories of other data are given the model's rows, where the folder keeps them all
    let mut late = lines[1700..].to_vec();
    let last = late.last_mut().unwrap();
    last.replace_range(last.rfind('\t').unwrap() + 1.., "deadbeef");
    put(dir, "late.tsv", &late);
    succeed(dir, &["prepare", "late.tsv", "--out", "other"]);
    fail(dir, &["eval", "one", "--data", "other"], &["numbers its categories in another way", "in table 25", "--split 1,0,0"]);
    succeed(dir, &["prepare", "late.tsv", "--out", "all", "--split", "1,0,0"]);
    assert_eq!(evaluated(&["all"]), evaluated(&["late.tsv"]));
    assert!(predicted(&["all"]) == predicted(&["late.tsv"]));
    succeed(dir, &["prepare", "b.tsv", "--out", "rows", "--ids", "modulo", "--modulo", "50"]);
    fail(dir, &["eval", "one", "--data", "rows"], &["holds row numbers instead of categories"]);
    fail(dir, &["train", "--data", "moved/prepared", "--ids", "modulo", "--modulo", "9"], &["was prepared with data.ids = dictionary"]);
    fail(dir, &["prepare", "a.tsv", "--out", "other"], &["holds prepared data already"]);
    fail(dir, &["prepare", "moved/prepared", "--out", "again"], &["is prepared already"]);
    assert!(succeed(dir, &["prepare", "--verify", "moved/prepared"]).contains("verified   moved/prepared"));
    let path = dir.join("moved/prepared/rows.bin");
    let mut damaged = bytes(path.clone());
    damaged[99_999] ^= 4;
    std::fs::write(&path, damaged).unwrap();
    fail(dir, &["prepare", "--verify", "moved/prepared"], &["rows.bin do not fit their checksum"]);
}

#[test]
fn binary_rows_are_read_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let row = |i: i32| {
        let mut row = vec![i32::from(i % 7 < i % 4)];
        row.extend((0..13).map(|d| (i * (d + 3)) % 50 - 1));
        row.extend((0..26).map(|k| i % (4 + k)));
        row.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()
    };
    let rows = |range: std::ops::Range<i32>| range.flat_map(row).collect::<Vec<u8>>();
    std::fs::write(dir.join("day_0.bin"), rows(0..900)).unwrap();
    std::fs::write(dir.join("day_1.bin"), rows(900..1500)).unwrap();
    let flags = ["--device", "cpu", "--batch", "64", "--data"];
    succeed(dir, &[&["train", "--out", "run"][..], &flags, &["day_0.bin", "day_1.bin"]].concat());
    let report = json(&succeed(dir, &["eval", "run", "--json"]));
    assert_eq!(report["samples"].as_u64(), Some(150));
    assert_eq!(succeed(dir, &["predict", "run", "--data", "day_1.bin"]).lines().count(), 600);
    succeed(dir, &["pack", "run"]);
    assert_eq!(succeed(dir, &["predict", "run/model.safetensors", "--data", "day_1.bin"]).lines().count(), 600);
    std::fs::write(dir.join("c.toml"), format!("[model]\nrows = {:?}\n", [4; 26])).unwrap();
    fail(
        dir,
        &[&["train", "c.toml", "--out", "refused"][..], &flags, &["day_0.bin"]].concat(),
        &["day_0.bin`, row", "the table has 4 rows"],
    );
    std::fs::write(dir.join("cut.bin"), &rows(0..9)[1..]).unwrap();
    fail(dir, &[&["train", "--out", "no"][..], &flags, &["cut.bin"]].concat(), &["`cut.bin` has 1439 bytes"]);
    fail(dir, &["predict", "run", "--data", "cut.bin"], &["`cut.bin` has 1439 bytes"]);
}

#[test]
fn parquet_trains_evaluates_and_predicts() {
    use parquet::data_type::{Int32Type, Int64Type};
    use parquet::file::writer::SerializedFileWriter;
    use std::sync::Arc;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let write = |name: &str, rows: std::ops::Range<i32>, labelled: bool| {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let label = if labelled { "required int32 label; " } else { "" };
        let message = format!(
            "message m {{ {label}required int32 int_0; required int64 cat_0; required group cat_1 (LIST) {{ repeated group list {{ \
             required int32 element; }} }} }}"
        );
        let schema = Arc::new(parquet::schema::parser::parse_message_type(&message).unwrap());
        let mut file = SerializedFileWriter::new(std::fs::File::create(path).unwrap(), schema, Arc::default()).unwrap();
        let mut group = file.next_row_group().unwrap();
        let n = rows.len();
        let ints = |f: &dyn Fn(i32) -> i32| rows.clone().map(f).collect::<Vec<i32>>();
        let mut put = |values: Vec<i32>, levels: Option<(Vec<i16>, Vec<i16>)>, long: bool| {
            let mut column = group.next_column().unwrap().unwrap();
            let (def, rep) = levels.unzip();
            if long {
                let values: Vec<i64> = values.into_iter().map(i64::from).collect();
                column.typed::<Int64Type>().write_batch(&values, None, None).unwrap();
            } else {
                column.typed::<Int32Type>().write_batch(&values, def.as_deref(), rep.as_deref()).unwrap();
            }
            column.close().unwrap();
        };
        if labelled {
            put(ints(&|i| i32::from(i % 7 < i % 4)), None, false);
        }
        put(ints(&|i| i % 11), None, false);
        put(ints(&|i| i % 4), None, true);
        put((0..2 * n as i32).map(|i| i % 7).collect(), Some((vec![1; 2 * n], [0, 1].repeat(n))), false);
        group.close().unwrap();
        file.close().unwrap();
    };
    write("root/train/part-0.parquet", 0..600, true);
    write("root/train/part-1.parquet", 600..1000, true);
    write("root/val/part-0.parquet", 1000..1300, true);
    write("root/test/part-0.parquet", 1300..1500, true);
    write("new.parquet", 0..50, false);
    let small = ["--device", "cpu", "--batch", "64"];
    succeed(dir, &[&["train", "--out", "run", "--data", "root"][..], &small].concat());
    let evaluate = |data: &[&str]| json(&succeed(dir, &[&["eval", "run", "--json"][..], data].concat()));
    let (own, named) = (evaluate(&[]), evaluate(&["--data", "root/test"]));
    assert_eq!((own["samples"].as_u64(), &own["auc"]), (Some(200), &named["auc"]));
    assert_eq!(succeed(dir, &["predict", "run", "--data", "new.parquet"]).lines().count(), 50);
    succeed(dir, &["prepare", "root", "--out", "prepared"]);
    succeed(dir, &[&["train", "--out", "again", "--data", "prepared"][..], &small].concat());
    assert!(bytes(dir.join("run/last.safetensors")) == bytes(dir.join("again/last.safetensors")));
    std::fs::write(dir.join("broken.parquet"), b"PAR1").unwrap();
    fail(dir, &["predict", "run", "--data", "broken.parquet"], &["`broken.parquet` cannot be read as Parquet"]);
}
