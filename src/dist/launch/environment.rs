//! Looking things up in an environment that nobody vouches for.

use crate::error::{Error, Result};

/// The environment, as a lookup by name.
pub(super) struct Env<'a>(pub(super) &'a dyn Fn(&str) -> Option<String>);

impl Env<'_> {
    /// A variable; an empty one is as good as none.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    /// A whole number from 0 to `most`.
    ///
    /// # Errors
    /// Something else.
    pub(super) fn number(&self, name: &str, most: u64) -> Result<Option<u64>> {
        let Some(value) = self.text(name) else { return Ok(None) };
        match digits(&value) {
            Some(number) if number <= most => Ok(Some(number)),
            Some(_) => Err(Error::Config(format!("`{name}` is `{}`; at most {most} is possible", shown(&value)))),
            None => Err(Error::Config(format!("`{name}` is `{}`; a whole number from 0 to {most} was expected", shown(&value)))),
        }
    }

    /// Like [`Env::number`], for what a launcher that set other variables must have set too.
    ///
    /// # Errors
    /// No such variable, or no such number.
    pub(super) fn required(&self, name: &str, most: u64, source: &str) -> Result<u64> {
        let missing = || Error::Config(format!("{source} started this process, but `{name}` is not set; give --rank and --world"));
        self.number(name, most)?.ok_or_else(missing)
    }

    /// The name of a job: at most 256 bytes, no control characters.
    ///
    /// # Errors
    /// Another one.
    pub(super) fn job(&self, name: &str) -> Result<Option<String>> {
        self.text(name).map(|value| job(name, value)).transpose()
    }
}

/// Checks the name of a job that came from `origin`.
pub(super) fn job(origin: &str, value: String) -> Result<String> {
    match value.len() <= 256 && !value.chars().any(char::is_control) {
        true => Ok(value),
        false => Err(Error::Config(format!("`{origin}` is `{}`; a job's name has up to 256 bytes on one line", shown(&value)))),
    }
}

/// Digits only: no sign, no blank, no point. What is too large for `u64` becomes its maximum.
pub(super) fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().unwrap_or(u64::MAX))
}

/// A value for an error message: its first 60 characters, on one line.
pub(super) fn shown(value: &str) -> String {
    let mut text: String = value.chars().take(60).flat_map(char::escape_debug).collect();
    if value.chars().nth(60).is_some() {
        text.push('…');
    }
    text
}
