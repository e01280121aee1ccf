//! What the benchmarks share: options from the command line, and what to say of repeated timings.
#![allow(dead_code, unused_imports, reason = "each benchmark uses its part")]

use std::time::Instant;

/// Options as `--name value` or `--name`; `--bench`, which cargo adds, is dropped.
pub(crate) struct Options {
    words: Vec<String>,
}

impl Options {
    /// Reads the command line; stops with a word on anything that is neither in `flags` nor in `values`.
    pub(crate) fn parse(usage: &str, flags: &[&str], values: &[&str]) -> Options {
        let words: Vec<String> = std::env::args().skip(1).filter(|w| w != "--bench").collect();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let valid = flags.contains(&word.as_str()) || (values.contains(&word.as_str()) && rest.next().is_some());
            if !valid {
                eprintln!("cannot use `{word}`; {usage}");
                std::process::exit(2);
            }
        }
        Options { words }
    }

    /// True when `name` was given.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.words.iter().any(|w| w == name)
    }

    /// The text after `name`.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let at = self.words.iter().position(|w| w == name)?;
        self.words.get(at + 1).map(String::as_str)
    }

    /// The value after `name`, or `default`.
    pub(crate) fn value<T: std::str::FromStr>(&self, name: &str, default: T) -> T {
        let Some(text) = self.text(name) else { return default };
        text.parse().unwrap_or_else(|_| {
            eprintln!("cannot use `{text}` for {name}");
            std::process::exit(2);
        })
    }
}

pub(crate) use dqrm::bench::Spread;

/// Seconds that `f` took.
pub(crate) fn seconds(f: impl FnOnce()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_secs_f64()
}

/// Seconds of processor time of this process, its own and the system's for it, and pages that it had to wait for or be given; all 0
/// where the system does not tell.
pub(crate) fn usage() -> [f64; 3] {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = stat.rsplit(')').next().unwrap_or("").split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
    fields.get(7..13).map_or([0.0; 3], |f| [f[4] / 100.0, f[5] / 100.0, f[0] + f[2]])
}
