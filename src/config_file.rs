//! Settings as TOML text: every mistake is named with its file, line and key, and the nearest
//! word that would have been right.

use crate::config::Config;
use crate::error::{Error, Result};
use std::path::Path;

/// A settings file larger than this is not a settings file, in bytes.
pub const MAX_BYTES: u64 = 1 << 20;

/// Reads and checks a settings file.
///
/// # Errors
/// A file that cannot be read, and everything [`parse`] refuses.
pub fn read(path: &Path) -> Result<Config> {
    let found = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
    if found > MAX_BYTES {
        return Err(Error::Config(format!("`{}` has {found} bytes; a settings file has at most {MAX_BYTES}", path.display())));
    }
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    parse(&text, &path.display().to_string())
}

/// Settings from TOML text; `name` is the file as messages call it.
///
/// # Errors
/// Text that is not TOML, unknown keys, and values of a wrong type or out of range.
pub fn parse(text: &str, name: &str) -> Result<Config> {
    let config: Config = toml::from_str(text).map_err(|error| Error::Config(explain(text, name, &error)))?;
    config.validate().map_err(|error| Error::Config(format!("`{name}`: {error}")))?;
    Ok(config)
}

/// Settings as TOML text.
///
/// # Errors
/// Values that TOML cannot hold (integers above 2^63 - 1).
pub fn to_text(config: &Config) -> Result<String> {
    toml::to_string(config).map_err(|error| Error::Config(format!("the settings cannot be written as TOML: {error}")))
}

/// Writes the settings to a file.
///
/// # Errors
/// As [`to_text`], and a file that cannot be written.
pub fn write(config: &Config, path: &Path) -> Result<()> {
    crate::partial::write(path, to_text(config)?.as_bytes())
}

/// One sentence: file, line, key, what is wrong, what is near.
fn explain(text: &str, name: &str, error: &toml::de::Error) -> String {
    let message = error.message().trim().replace('\n', "; ");
    let Some(span) = error.span() else { return format!("`{name}`: {message}") };
    let start = span.start.min(text.len());
    let before = text.get(..start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let full = text.lines().nth(line - 1).unwrap_or("");
    let place = format!("`{name}`, line {line}");
    let words: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if message.starts_with("unknown field") {
        return match words.split_first() {
            Some((key, known)) => format!("{place}: there is no key `{key}` {}; {}", section(before), suggest(key, known)),
            None => format!("{place}: {message}"),
        };
    }
    let key = full.split_once('=').map_or("", |(key, _)| key.trim());
    let place = if key.is_empty() { place } else { format!("{place}, key `{key}`") };
    match words.split_first() {
        Some((value, known)) if message.starts_with("unknown variant") => {
            format!("{place}: `{value}` is not a possible value; {}", suggest(value, known))
        }
        _ => format!("{place}: {message}"),
    }
}

/// "in [optim]" or "at the top level", for the last section header in `before`.
fn section(before: &str) -> String {
    let whole = before.rsplit_once('\n').map_or("", |(whole, _)| whole);
    match whole.lines().rev().map(str::trim).find(|line| line.starts_with('[')) {
        Some(header) => format!("in {}", header.split(']').next().unwrap_or(header).to_owned() + "]"),
        None => "at the top level".into(),
    }
}

/// "did you mean `x`?" when something is near, and what is possible.
fn suggest(word: &str, known: &[&str]) -> String {
    let near = nearest(word, known.iter().copied());
    let list = known.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");
    match near {
        Some(near) => format!("the nearest one is `{near}` (there are {list})"),
        None => format!("there are {list}"),
    }
}

/// The word that is most like `word`, if any is like it at all.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let score = |k: &str| strsim::jaro_winkler(&word.to_lowercase(), &k.to_lowercase());
    let best = known.into_iter().map(|k| (score(k), k)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.6).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::Bits;

    fn message(text: &str) -> String {
        parse(text, "run.toml").unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let mut config = Config { seed: 7, ..Config::default() };
        config.quant.mlp_bits = Bits::None;
        config.model.rows = Some(vec![3, 4]);
        config.data.schema.categorical = vec![crate::config::Column::Name("item".into()), crate::config::Column::Number(3)];
        assert_eq!(parse(&to_text(&config).unwrap(), "x").unwrap(), config);
        assert_eq!(parse("", "x").unwrap(), Config::default());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_one() {
        let text = message("seed = 1\n\n[train]\nbatch = 32\nepoch = 2\n");
        assert!(
            text.contains("`run.toml`, line 5") && text.contains("`epoch` in [train]") && text.contains("nearest one is `epochs`"),
            "{text}"
        );
        let text = message("sede = 1\n");
        assert!(text.contains("line 1") && text.contains("`sede` at the top level") && text.contains("`seed`"), "{text}");
        let text = message("[data.synthetic]\nzpif = 1.0\n");
        assert!(text.contains("line 2") && text.contains("[data.synthetic]") && text.contains("nearest one is `zipf`"), "{text}");
    }

    #[test]
    fn wrong_types_and_values_are_named_with_their_key() {
        let text = message("[train]\nbatch = \"many\"\n");
        assert!(text.contains("line 2, key `batch`") && text.contains("string"), "{text}");
        let text = message("[model]\npreset = \"kagle\"\n");
        assert!(text.contains("line 2, key `preset`") && text.contains("nearest one is `kaggle`"), "{text}");
        let text = message("[quant]\nembedding_bits = 5\n");
        assert!(text.contains("line 2, key `embedding_bits`") && text.contains("2, 4, 8, 16 or none"), "{text}");
        let text = message("[train]\nbatch = -4\n");
        assert!(text.contains("line 2, key `batch`"), "{text}");
        let text = message("[train\nbatch = 4\n");
        assert!(text.contains("line 1"), "{text}");
        assert!(message("[train]\nbatch = 0\n").contains("at least 1"));
    }
}
