//! The rules of the house, read from the sources: which way dependencies point, who prints, how
//! long a file may be.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `folder` with this extension, by their path from the root, with their text.
fn files(folder: &str, extension: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found.retain(|path| path.extension().is_some_and(|e| e == extension));
    found.sort();
    let name = |path: &Path| path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
    let read = |path: &PathBuf| (name(path), std::fs::read_to_string(path).unwrap().replace("\r\n", "\n"));
    found.iter().map(read).collect()
}

/// The library and the binary, without modules of unit tests.
fn sources() -> Vec<(String, String)> {
    let mut sources = files("src", "rs");
    sources.retain(|(name, _)| !name.ends_with("tests.rs"));
    assert!(sources.len() > 30, "only {} source files were found", sources.len());
    sources
}

/// Lines without comments and without the trailing test module.
fn code(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|w| w[0] == "#[cfg(test)]" && w[1].starts_with("mod tests {")).unwrap_or(lines.len());
    lines[..tests].iter().copied().filter(|line| !line.trim_start().starts_with("//")).collect()
}

/// True when `name` stands in `line` as a whole path segment or identifier.
fn names(line: &str, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(name).any(|(at, _)| !line[..at].ends_with(part) && !line[at + name.len()..].starts_with(part))
}

/// The modules of the crate that a file uses: first segments after `crate::`, and those inside `crate::{…}`.
fn uses(text: &str) -> Vec<String> {
    let joined = code(text).join("\n");
    let mut found = Vec::new();
    for (at, _) in joined.match_indices("crate::") {
        let rest = &joined[at + "crate::".len()..];
        let segment = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group.split('}').next().unwrap().split(',').map(segment)),
            None => found.push(segment(rest)),
        }
    }
    found
}

#[test]
fn only_the_gpu_engine_names_wgpu() {
    let naming: Vec<String> =
        sources().into_iter().filter(|(_, text)| code(text).iter().any(|l| names(l, "wgpu"))).map(|(name, _)| name).collect();
    let elsewhere: Vec<_> = naming.iter().filter(|name| *name != "src/engine/gpu.rs" && !name.starts_with("src/engine/gpu/")).collect();
    assert!(!naming.is_empty() && elsewhere.is_empty(), "{elsewhere:?}");
}

#[test]
fn only_the_server_is_asynchronous() {
    let naming: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| code(text).iter().any(|l| ["tokio", "hyper", "hyper_util", "axum"].iter().any(|name| names(l, name))))
        .map(|(name, _)| name)
        .collect();
    let elsewhere: Vec<_> = naming.iter().filter(|name| *name != "src/serve.rs" && !name.starts_with("src/serve/")).collect();
    assert!(!naming.is_empty() && elsewhere.is_empty(), "{elsewhere:?}");
}

#[test]
fn dependencies_point_down() {
    // (files that begin with, modules they may use)
    let layers: &[(&[&str], &[&str])] = &[
        (&["src/error.rs", "src/rng.rs"], &[]),
        (&["src/mapped.rs"], &["error"]),
        (&["src/computer.rs"], &[]),
        (&["src/quant.rs", "src/quant/"], &["error"]),
        (&["src/plan/"], &["error"]),
        (&["src/engine/"], &["error", "plan"]),
        (&["src/ops/"], &["plan", "params", "quant", "rng", "config", "tables", "data", "error"]),
        (&["src/lab.rs", "src/lab/"], &["engine", "error", "lab", "ops", "params", "plan"]),
        (&["src/tune.rs", "src/tune/"], &["engine", "error", "ops", "plan"]),
        (&["src/tuning_file.rs"], &["engine", "error", "ops", "plan", "tune"]),
        (&["src/tables.rs", "src/metrics.rs", "src/tensor_file.rs"], &["error"]),
        (&["src/model.rs", "src/step.rs", "src/step/"], &["config", "model", "ops", "plan", "quant", "tables"]),
        (&["src/onnx.rs", "src/onnx/"], &["config", "data", "error", "model", "packed", "quant", "whole_file"]),
        (&["src/data/"], &["error", "mapped", "partial", "tables", "config", "rng", "metrics", "data"]),
        (&["src/packed.rs", "src/packed/"], &["config", "engine", "error", "mapped", "model", "partial", "quant", "tensor_file"]),
        (
            &["src/predictor.rs", "src/predictor/"],
            &["config", "data", "engine", "error", "model", "ops", "packed", "plan", "quant", "session", "step", "tables"],
        ),
        (&["src/profile.rs"], &["data", "engine", "ops", "plan"]),
        (
            &["src/bench.rs", "src/bench/"],
            &[
                "bench",
                "config",
                "data",
                "engine",
                "error",
                "metrics",
                "model",
                "ops",
                "packed",
                "plan",
                "predictor",
                "quant",
                "rng",
                "session",
                "step",
                "tables",
            ],
        ),
        (&["src/serve.rs", "src/serve/"], &["config", "data", "error", "metrics", "packed", "predictor", "session", "serve"]),
        (&["src/import/"], &["checkpoint", "config", "import"]),
        (
            &["src/session.rs", "src/session/"],
            &["config", "data", "dist", "engine", "error", "model", "ops", "plan", "rng", "step", "tables", "tune"],
        ),
        (&["src/host_tables"], &["computer", "error", "session"]),
        (&["src/dist/frame.rs", "src/dist/ledger.rs", "src/dist/union.rs"], &[]),
        (&["src/dist/ids"], &["data", "tables"]),
        (&["src/dist/layout.rs", "src/dist/rows.rs", "src/dist/mlps.rs", "src/dist/exchange"], &["config", "model", "quant", "dist"]),
        (&["src/dist/"], &["config", "data", "dist", "error", "model", "quant", "tables"]),
    ];
    let sources = sources();
    for (prefixes, allowed) in layers {
        let members: Vec<_> = sources.iter().filter(|(name, _)| prefixes.iter().any(|p| name.starts_with(p))).collect();
        assert!(!members.is_empty(), "no file begins with {prefixes:?}");
        for (name, text) in members {
            for used in uses(text) {
                assert!(allowed.contains(&used.as_str()), "{name} uses crate::{used}; allowed are {allowed:?}");
            }
        }
    }
}

#[test]
fn plans_numbers_the_lab_and_the_exchange_know_no_files_sockets_threads_or_clocks() {
    let pure = [
        "src/lab",
        "src/plan/",
        "src/tune.rs",
        "src/tune/",
        "src/quant",
        "src/dist/frame",
        "src/dist/ids",
        "src/dist/layout",
        "src/dist/rows",
        "src/dist/mlps",
        "src/dist/union",
        "src/dist/exchange",
        "src/dist/ledger",
    ];
    for (name, text) in sources().iter().filter(|(name, _)| pure.iter().any(|prefix| name.starts_with(prefix))) {
        for line in code(text) {
            let found =
                ["std::fs", "std::io", "std::net", "std::env", "std::thread", "std::time"].iter().find(|path| line.contains(**path));
            assert!(found.is_none(), "{name}: {line}");
        }
    }
}

#[test]
fn only_programs_print() {
    for (name, text) in sources() {
        if name == "src/main.rs" || name.starts_with("src/cli/") {
            continue;
        }
        for line in code(&text) {
            assert!(!["print!", "println!", "eprint!", "eprintln!", "dbg!"].iter().any(|m| names(line, m)), "{name} prints: {line}");
        }
    }
}

#[test]
fn unsafe_code_stands_in_five_files() {
    let naming: Vec<String> =
        sources().into_iter().filter(|(_, text)| code(text).iter().any(|l| names(l, "unsafe"))).map(|(name, _)| name).collect();
    assert_eq!(
        naming,
        ["src/engine/gpu/experimental.rs", "src/host_tables/file.rs", "src/mapped.rs", "src/ops/product/block.rs", "src/ops/product.rs"]
    );
}

#[test]
fn ops_and_shaders_come_in_pairs() {
    let stem = |name: &str| Path::new(name).file_stem().unwrap().to_string_lossy().to_string();
    let shaders: Vec<String> = files("shaders", "wgsl")
        .iter()
        .filter(|(name, _)| !name.starts_with("shaders/shared/") && !name.starts_with("shaders/variants/"))
        .map(|(name, _)| stem(name))
        .collect();
    let ops: Vec<(String, String)> = files("src/ops", "rs").into_iter().filter(|(_, text)| text.contains("pub const KERNELS")).collect();
    assert_eq!(shaders, ops.iter().map(|(name, _)| stem(name)).collect::<Vec<_>>());
    assert!(shaders.len() >= 9);
    for (name, text) in &ops {
        assert!(text.contains(&format!("shaders/{}.wgsl", stem(name))), "{name} does not include its shader");
    }
    for kernel in dqrm::ops::kernels() {
        assert!(shaders.iter().any(|s| s == kernel.op), "{} says it belongs to `{}`", kernel.name, kernel.op);
    }
}

#[test]
fn files_stay_short() {
    let mut long = Vec::new();
    for (name, text) in sources().into_iter().chain(files("shaders", "wgsl")) {
        let lines: Vec<&str> = text.lines().collect();
        let tests = lines.windows(2).position(|w| w[0] == "#[cfg(test)]" && w[1].starts_with("mod tests {"));
        let count = tests.unwrap_or(lines.len());
        if count > 400 {
            long.push(format!("{name}: {count} lines"));
        }
    }
    assert!(long.is_empty(), "at most 400 lines, tests aside: {long:?}");
}
