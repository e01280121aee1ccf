//! Which column holds what, for one file.

use crate::config::{Column, MAX_BAG, Schema};
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
    let columns = || schema.columns();
    if columns().any(|c| matches!(c, Column::Number(0))) {
        return fail("data.schema names column 0; columns are counted from 1".into());
    }
    if columns().any(|c| matches!(c, Column::Number(n) if *n > super::raw::MAX_LINE)) {
        return fail(format!("data.schema names a column beyond {}, the most bytes of a line", super::raw::MAX_LINE));
    }
    let last = columns().map(|c| if let Column::Number(n) = c { *n } else { 0 }).max().unwrap_or(0);
    if let Some(width) = schema.width.filter(|&width| width < last || width > super::raw::MAX_LINE) {
        return fail(format!(
            "data.schema.width is {width}, but column {last} is used; a line has at most {} columns",
            super::raw::MAX_LINE
        ));
    }
    if let Some(Column::Name(name)) = columns().find(|c| !schema.header && matches!(c, Column::Name(_))) {
        return fail(format!("data.schema names column `{name}`, but has header = false; set header = true or number the columns from 1"));
    }
    if features().any(|c| *c == schema.label) {
        return fail(format!("data.schema uses the label's column ({}) as a feature too", shown(&schema.label)));
    }
    if schema.multi_hot_max == 0 || schema.multi_hot_max > MAX_BAG {
        return fail(format!("data.schema.multi_hot_max is {}; a bag has room for 1 to {MAX_BAG} categories", schema.multi_hot_max));
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
        let known = schema.width.filter(|_| schema.numbered());
        if schema.header {
            return Columns::of_header(schema, fields, optional, known);
        }
        let columns = Columns::resolve(schema, fields, false)?;
        let least = columns.width;
        let exact = *schema == Schema::criteo(schema.dense.len(), schema.categorical.len());
        let short = optional && fields.len() + 1 == least;
        let width = known.unwrap_or(if exact || short { least } else { fields.len() });
        if width < least {
            return Err((0, format!("{} columns, but the schema needs {least}", fields.len())));
        }
        Ok(Columns { width, ..columns })
    }

    /// The columns of a file whose first line holds names. The label's column is absent when the header
    /// does not name it, has one column fewer than it should, or names a feature in its place.
    fn of_header(schema: &Schema, names: &[&[u8]], optional: bool, known: Option<usize>) -> Result<Columns, (usize, String)> {
        let named = |column: &Column| matches!(column, Column::Name(name) if !names.contains(&name.as_bytes()));
        let short = optional && known == Some(names.len() + 1);
        let features = || schema.columns().filter(|c| **c != schema.label);
        let absent = match &schema.label {
            Column::Number(_) => short,
            label => optional && named(label),
        };
        if let Some(width) = known.filter(|&width| width != names.len() && !(absent && short)) {
            return Err((0, format!("the header has {} columns, but {width} are expected (data.schema.width)", names.len())));
        }
        if let (Column::Name(name), true, true) = (&schema.label, absent, features().any(|c| matches!(c, Column::Number(_)))) {
            let reason =
                format!("the header has no column `{name}` for the label, so it is not known where numbered columns are; name them all");
            return Err((0, reason));
        }
        let columns = Columns::resolve(schema, names, absent)?;
        let in_place = |columns: &Columns| columns.label.filter(|l| columns.features().any(|c| c == *l));
        let columns = match in_place(&columns) {
            Some(_) if optional && known.is_none() => Columns::resolve(schema, names, true)?,
            Some(l) => {
                return Err((l + 1, format!("`{}` is a feature, but stands in the label's column", String::from_utf8_lossy(names[l]))));
            }
            None => columns,
        };
        if names.len() < columns.width {
            return Err((0, format!("{} columns, but the schema needs {}", names.len(), columns.width)));
        }
        Ok(Columns { width: names.len(), ..columns })
    }

    /// Where each column stands, and the least width that holds them. `absent`: there is no label, and
    /// numbered columns right of it stand one further left.
    fn resolve(schema: &Schema, names: &[&[u8]], absent: bool) -> Result<Columns, (usize, String)> {
        let at = |column: &Column| match (column, &schema.label) {
            (Column::Number(n), Column::Number(label)) if absent && n > label => Ok(n - 2),
            (Column::Number(n), _) => Ok(n - 1),
            (Column::Name(name), _) => names.iter().position(|f| *f == name.as_bytes()).ok_or_else(|| unknown(name, names)),
        };
        let all = |columns: &[Column]| columns.iter().map(at).collect::<Result<Vec<usize>, _>>();
        let (dense, categorical, multi_hot) = (all(&schema.dense)?, all(&schema.categorical)?, all(&schema.multi_hot)?);
        let label = if absent { None } else { Some(at(&schema.label)?) };
        let columns = Columns { label, dense, categorical, multi_hot, width: 0 };
        let width = 1 + columns.features().chain(label).max().unwrap_or(0);
        Ok(Columns { width, ..columns })
    }

    fn features(&self) -> impl Iterator<Item = usize> {
        self.dense.iter().chain(&self.categorical).chain(&self.multi_hot).copied()
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
