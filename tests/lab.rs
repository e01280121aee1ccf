//! `dqrm kernels` as its user meets it: what it lists, what it finds in a replaced shader, where it points to.

mod common;

use common::gpu;
use dqrm::ops::kernels;
use dqrm::plan::Kernel;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// The lab, in `dir`: (exit code, standard output, standard error).
fn run(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let output = command(dir, args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dqrm"));
    command.current_dir(dir).arg("kernels").args(args).stdin(Stdio::null());
    command
}

fn succeed(dir: &Path, args: &[&str]) -> String {
    let (code, out, err) = run(dir, args);
    assert_eq!(code, 0, "{args:?}: {out}{err}");
    out
}

/// Runs it, expects exit code 1 and an error with all `words`; gives standard output.
fn fail(dir: &Path, args: &[&str], words: &[&str]) -> String {
    let (code, out, err) = run(dir, args);
    assert_eq!(code, 1, "{args:?}: {out}{err}");
    let error = err.split("error: ").nth(1).unwrap_or_else(|| panic!("{args:?}: {err}"));
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
    assert!(!err.contains("panicked"), "{err}");
    out
}

fn kernel(name: &str) -> &'static Kernel {
    kernels().into_iter().find(|k| k.name == name).unwrap()
}

/// Writes the text of a kernel's op to `my.wgsl`, with `from` replaced; gives the line of the replacement.
fn changed(dir: &Path, name: &str, from: &str, to: &str) -> usize {
    let source = kernel(name).source;
    let at = source.find(from).unwrap_or_else(|| panic!("`{from}` is not in the text of {name}"));
    std::fs::write(dir.join("my.wgsl"), source.replacen(from, to, 1)).unwrap();
    source[..at].matches('\n').count() + 1
}

#[test]
fn the_list_shows_every_kernel_and_its_text() {
    let dir = tempfile::tempdir().unwrap();
    let list = succeed(dir.path(), &["list"]);
    for kernel in kernels() {
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(kernel.name));
        assert!(line.is_some_and(|line| line.contains(kernel.op)), "{}: {list}", kernel.name);
    }
    assert!(list.contains("dx[b, i] = sum_o dz[b, o] w[o, i]"), "formulas come from the shaders: {list}");
    let detail = succeed(dir.path(), &["list", "matmul_nt"]);
    let cases = dqrm::ops::cases().iter().filter(|case| dqrm::lab::describe::runs(case, kernel("matmul_nt"))).count();
    let cases = format!("{cases} cases");
    let shader = ["shaders/matmul.wgsl", "shaders/shared/step.wgsl", "8 x 8", "inputs: u32, outputs: u32, relu: u32", "array<f32>, read"];
    for words in shader.into_iter().chain([cases.as_str()]) {
        assert!(detail.contains(words), "{words}: {detail}");
    }
    assert_eq!(succeed(dir.path(), &["list", "matmul", "--source"]), kernel("matmul_nt").wgsl(), "what is compiled, each text once");
    fail(dir.path(), &["list", "matmull"], &["no kernel or op is called `matmull`", "did you mean `matmul`?"]);
}

#[test]
fn kernels_agree_with_their_twins_on_every_device() {
    let dir = tempfile::tempdir().unwrap();
    let cpu = succeed(dir.path(), &["check", "concat", "--device", "cpu"]);
    assert!(cpu.contains("the CPU engine") && cpu.contains("ok       concat B 7, K 3, D 5") && cpu.contains("2 kernels, 3 cases"), "{cpu}");
    let Some(adapter) = gpu() else { return };
    let found = succeed(dir.path(), &["check", "concat_forward"]);
    assert!(found.contains(&adapter.name) && found.contains("1 kernel, 3 cases"), "{found}");
    // The text that `list --source` prints, shared parts and all, can be put in its place.
    std::fs::write(dir.path().join("my.wgsl"), succeed(dir.path(), &["list", "concat", "--source"])).unwrap();
    let found = succeed(dir.path(), &["check", "--swap", "concat=my.wgsl"]);
    assert!(found.contains("my.wgsl for concat_forward, concat_backward") && found.contains("2 kernels, 3 cases"), "{found}");
}

#[test]
fn a_wrong_replacement_is_found_with_its_first_wrong_element() {
    if gpu().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    changed(dir.path(), "row_sgd", "table[at] - step.lr_rows *", "table[at] + step.lr_rows *");
    let out = fail(dir.path(), &["check", "--swap", "row_update=my.wgsl"], &["3 of 9 cases of 3 kernels went wrong"]);
    assert!(out.contains("WRONG    row_update Sgd one row\n         `row_sgd`: `shard 0`[0] is "), "{out}");
    assert!(out.contains("expected ") && out.contains("1 of 1 values differ by more than 1e-5 of the value + 1.0e-6"), "{out}");
    assert!(out.contains("ok       row_update Adagrad"), "the other kernels are as they were: {out}");
    // What is not written, and what is written behind a buffer's end.
    changed(dir.path(), "concat_forward", "if (b >= step.batch) {", "if (b >= step.batch || at == 3u) {");
    let out = fail(dir.path(), &["check", "--swap", "concat_forward=my.wgsl"], &["went wrong"]);
    assert!(out.contains("`concat_forward`: 1 of 140 values of `joined` were not written, the first is [3]"), "{out}");
}

#[test]
fn errors_point_at_the_line_of_the_users_file() {
    if gpu().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let swap = ["check", "--swap", "matmul=my.wgsl"];
    let line = changed(dir.path(), "matmul_nt", "var s2 = vec4<f32>();", "var s2 = vec4<f32>(;");
    fail(dir.path(), &swap, &[&format!("my.wgsl:{line}:"), "var s2 = vec4<f32>(;", "^"]);
    let line = changed(dir.path(), "matmul_tn", "tn_dz[zb + oo.y]", "tn_dz[zb + pp.y]");
    fail(dir.path(), &swap, &[&format!("my.wgsl:{line}:"), "no definition in scope for identifier: `pp`"]);
    let line = changed(dir.path(), "matmul_nt", "@binding(3) var<storage, read> bias", "@binding(5) var<storage, read> bias");
    fail(dir.path(), &swap, &[&format!("my.wgsl:{line}:"), "`bias` is @group(0) @binding(5)", "(0, 1) to (0, 4)"]);
    let line = changed(dir.path(), "bias_gradient", "var<storage, read> bias_dz", "var<storage, read_write> bias_dz");
    fail(dir.path(), &swap, &[&format!("my.wgsl:{line}:"), "`read_write` here and `read` in Rust (`bias_dz`)"]);
    fail(dir.path(), &["check", "--swap", "loss=my.wgsl"], &["no compute entry point `loss_gradient`, `mean_loss`; it has `matmul_nt`"]);
    fail(dir.path(), &["check", "--swap", "matmul=absent.wgsl"], &["cannot read `absent.wgsl`"]);
    fail(dir.path(), &["check", "loss", "--swap", "matmul=my.wgsl"], &["none of `loss`"]);
    std::fs::write(dir.path().join("my.wgsl"), kernel("matmul_nt").source).unwrap();
    let twice = ["check", "--swap", "matmul=my.wgsl", "--swap", "matmul_nt=my.wgsl"];
    fail(dir.path(), &twice, &["`matmul_nt` is replaced by `my.wgsl` and by `my.wgsl`"]);
    fail(dir.path(), &["check", "--swap", "matmul=my.wgsl", "--device", "cpu"], &["needs a graphics adapter"]);
    assert_eq!(run(dir.path(), &["check", "--swap", "my.wgsl"]).0, 2, "a replacement has the form NAME=FILE");
}

#[test]
fn times_are_written_beside_the_originals() {
    if gpu().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    changed(dir.path(), "concat_forward", "let width", "let  width");
    let out = succeed(dir.path(), &["time", "--swap", "concat_forward=my.wgsl", "--seconds", "0.01", "--json", "t.json"]);
    for word in ["ceiling  copy", "GB/s", "concat B 2048, K 26, D 16", "times as fast", "3 cases: all as the twins say"] {
        assert!(out.contains(word), "{word}: {out}");
    }
    let text = std::fs::read_to_string(dir.path().join("t.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(report["copy_bytes_per_second"].as_f64().unwrap() > 0.0 && report["product_flops_per_second"].as_f64().unwrap() > 0.0);
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 4, "two shapes, two texts: {text}");
    for (result, name) in results.iter().zip(["original", "my.wgsl"].iter().cycle()) {
        let number = |key: &str| result[key].as_f64().unwrap();
        assert_eq!((result["text"].as_str(), result["kernel"].as_str()), (Some(*name), Some("concat_forward")));
        assert!(number("seconds") > 0.0 && number("seconds_low") <= number("seconds") && number("seconds") <= number("seconds_high"));
        assert!(number("timings") >= 5.0 && number("runs_per_timing") >= 1.0);
        assert!((number("bytes_per_second") * number("seconds") / number("bytes") - 1.0).abs() < 1e-6);
        assert!(number("share_of_ceiling") > 0.0 && number("times_as_fast") > 0.0);
    }
    assert_eq!(results[0]["bytes"], 4 * 128 * 16 * (1 + 26 + 27), "what is read, and what is written");
}

#[test]
fn a_watched_file_is_checked_again_when_it_changes() {
    if gpu().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    changed(dir.path(), "concat_forward", "let width", "let  width");
    let mut child = command(dir.path(), &["check", "--swap", "concat_forward=my.wgsl", "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut until = |word: &str| {
        let mut seen = Vec::new();
        for line in lines.by_ref() {
            let found = line.contains(word);
            seen.push(line);
            if found {
                return seen.join("\n");
            }
        }
        panic!("`{word}` never came: {seen:?}");
    };
    assert!(until("waiting for a change of my.wgsl").contains("3 cases"));
    let line = changed(dir.path(), "concat_forward", "let width = ", "let width == ");
    assert!(until("waiting for a change").contains(&format!("error: my.wgsl:{line}:")));
    changed(dir.path(), "concat_forward", "joined[at] = dense[", "joined[at] = 2.0 * dense[");
    assert!(until("waiting for a change").contains("WRONG"));
    changed(dir.path(), "concat_forward", "let width", "let   width");
    assert!(until("waiting for a change").contains("all as the twins say"));
    child.kill().unwrap();
    child.wait().unwrap();
}
