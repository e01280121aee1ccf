//! Something to say of a shader's text, and where.

use std::fmt;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It cannot run.
    Error,
    /// It runs, but not as the crate's own shaders do.
    Note,
}

/// A place in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: String,
    /// The line, the first is 1.
    pub line: usize,
    /// The column in characters, the first is 1.
    pub column: usize,
    /// Characters that are meant, in this line.
    pub width: usize,
    /// The line's text.
    pub text: String,
    /// What is the matter there.
    pub label: String,
}

/// Something to say of a shader's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was found and what was expected.
    pub message: String,
    /// Where; the first is the main one.
    pub places: Vec<Place>,
    /// What may help.
    pub hints: Vec<String>,
}

impl Finding {
    /// An error that stands nowhere in particular.
    pub fn error(message: String) -> Finding {
        Finding { severity: Severity::Error, message, places: Vec::new(), hints: Vec::new() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.places.first() {
            Some(p) => write!(f, "{}:{}:{}: {}", p.file, p.line, p.column, self.message)?,
            None => write!(f, "{}", self.message)?,
        }
        let margin = self.places.iter().map(|p| p.line.to_string().len()).max().unwrap_or(1) + 1;
        for (i, place) in self.places.iter().enumerate() {
            if i > 0 {
                write!(f, "\n{:margin$} --> {}:{}:{}", "", place.file, place.line, place.column)?;
            }
            let (line, before) = (place.text.replace('\t', "    "), place.text.chars().take(place.column - 1));
            let indent: usize = before.map(|c| if c == '\t' { 4 } else { 1 }).sum();
            write!(f, "\n{:margin$}|\n{:<margin$}| {line}", "", place.line)?;
            let caret = format!("{:margin$}| {:indent$}{} {}", "", "", "^".repeat(place.width.max(1)), place.label);
            write!(f, "\n{}", caret.trim_end())?;
        }
        self.hints.iter().try_for_each(|hint| write!(f, "\n{:margin$}= {hint}", ""))
    }
}
