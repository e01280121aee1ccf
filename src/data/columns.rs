//! Which column holds what, for one file.

use crate::config::{Column, Schema};
use crate::error::{Error, Result};

/// The columns of one file, numbered from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    /// `None` when the header does not name the label.
    pub label: Option<usize>,
    pub dense: Vec<usize>,
    pub categorical: Vec<usize>,
    pub multi_hot: Vec<usize>,
    /// Columns of a line with a label.
    pub width: usize,
}

/// The one byte that separates.
pub(super) fn separator(text: &str, key: &str) -> Result<u8> {
    match text.as_bytes() {
        [c] if c.is_ascii() && *c != b'\n' && *c != b'\r' => Ok(*c),
        _ => Err(Error::Config(format!("data.schema.{key} is {text:?}; one ASCII character that does not end a line is needed"))),
    }
}

/// Checks what does not depend on a file.
pub(super) fn check(schema: &Schema) -> Result<()> {
    let fail = |text: String| Err(Error::Config(text));
    let features = || schema.dense.iter().chain(&schema.categorical).chain(&schema.multi_hot);
    if features().next().is_none() {
        return fail("data.schema names no dense, categorical or multi-hot column".into());
    }
    let columns = || features().chain([&schema.label]);
    if columns().any(|c| matches!(c, Column::Number(0))) {
        return fail("data.schema names column 0; columns are counted from 1".into());
    }
    if columns().any(|c| matches!(c, Column::Number(n) if *n > super::lines::MAX_LINE)) {
        return fail(format!("data.schema names a column beyond {}, the most bytes of a line", super::lines::MAX_LINE));
    }
    if let Some(Column::Name(name)) = columns().find(|c| !schema.header && matches!(c, Column::Name(_))) {
        return fail(format!("data.schema names column `{name}`, but has header = false; set header = true or number the columns from 1"));
    }
    if features().any(|c| *c == schema.label) {
        return fail(format!("data.schema uses the label's column ({}) as a feature too", shown(&schema.label)));
    }
    if schema.multi_hot_max == 0 {
        return fail("data.schema.multi_hot_max is 0; a bag must have room for one category".into());
    }
    let inner = if schema.multi_hot.is_empty() { None } else { Some(separator(&schema.multi_hot_separator, "multi_hot_separator")?) };
    if inner == Some(separator(&schema.separator, "separator")?) {
        return fail(format!("data.schema.separator and multi_hot_separator are both {:?}", schema.separator));
    }
    Ok(())
}

fn shown(column: &Column) -> String {
    match column {
        Column::Number(n) => n.to_string(),
        Column::Name(name) => format!("`{name}`"),
    }
}

impl Columns {
    /// The columns of a file whose first line has `fields`: names if there is a header, else
    /// values. With `optional`, the label may be absent.
    ///
    /// # Errors
    /// Why the first line does not fit, with its column (0 for the whole line).
    pub(super) fn new(schema: &Schema, fields: &[&[u8]], optional: bool) -> Result<Columns, (usize, String)> {
        let at = |column: &Column| match column {
            Column::Number(n) => Ok(n - 1),
            Column::Name(name) => fields.iter().position(|f| *f == name.as_bytes()).ok_or_else(|| unknown(name, fields)),
        };
        let all = |columns: &[Column]| columns.iter().map(at).collect::<Result<Vec<usize>, _>>();
        let label = match at(&schema.label) {
            Err(_) if optional => None,
            other => Some(other?),
        };
        let (dense, categorical, multi_hot) = (all(&schema.dense)?, all(&schema.categorical)?, all(&schema.multi_hot)?);
        if let (Some(l), true) = (label, schema.header)
            && dense.iter().chain(&categorical).chain(&multi_hot).any(|&c| c == l)
        {
            return Err((l + 1, "the label's column is used as a feature too".into()));
        }
        let least = 1 + dense.iter().chain(&categorical).chain(&multi_hot).chain(&label).copied().max().unwrap_or(0);
        let exact = *schema == Schema::criteo(schema.dense.len(), schema.categorical.len());
        let short = optional && label.is_some() && fields.len() + 1 == least;
        let width = if exact || short { least } else { fields.len() };
        if width < least {
            return Err((0, format!("{} columns, but the schema needs {least}", fields.len())));
        }
        Ok(Columns { label, dense, categorical, multi_hot, width })
    }

    /// The same for lines without the label's column: those right of it move one to the left.
    pub(super) fn without_label(&self) -> Columns {
        let Some(label) = self.label else { return self.clone() };
        let moved = |columns: &[usize]| columns.iter().map(|&c| c - usize::from(c > label)).collect();
        Columns {
            label: None,
            dense: moved(&self.dense),
            categorical: moved(&self.categorical),
            multi_hot: moved(&self.multi_hot),
            width: self.width - 1,
        }
    }
}

fn unknown(name: &str, fields: &[&[u8]]) -> (usize, String) {
    let mut names: Vec<(f64, String)> = fields
        .iter()
        .take(1000)
        .map(|f| String::from_utf8_lossy(&f[..f.len().min(100)]).into_owned())
        .map(|f| (strsim::jaro_winkler(&name.to_lowercase(), &f.to_lowercase()), f))
        .collect();
    names.sort_by(|a, b| b.0.total_cmp(&a.0));
    let near: Vec<String> = names.iter().take(3).map(|(_, f)| format!("`{}`", f.escape_debug())).collect();
    (0, format!("the header has no column `{name}`; the nearest names are {}", near.join(", ")))
}
