//! What the benchmarks share: options from the command line, and what to say of repeated timings.
#![allow(dead_code, reason = "each benchmark uses its part")]

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

/// Median, least and largest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(values: &[f64]) -> Spread {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let half = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 };
        Spread { median, min: sorted[0], max: sorted[sorted.len() - 1] }
    }
}

/// Seconds that `f` took.
pub(crate) fn seconds(f: impl FnOnce()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_secs_f64()
}
