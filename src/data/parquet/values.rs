//! The values of one column of a row group, some rows at a time.

use super::columns::Role;
use super::limits;
use crate::config::Schema;
use crate::data::fields;
use parquet::basic::Type as Physical;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::{ColumnReader, get_column_reader};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::RowGroupReader;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Values of some rows.
#[derive(Debug, Default)]
pub(super) struct Values {
    /// Of a label or dense feature, one for each row.
    pub(super) floats: Vec<f32>,
    /// Of a table.
    pub(super) keys: Vec<u64>,
    /// Elements of each row, where the column holds lists.
    pub(super) sizes: Vec<u32>,
    /// Rows that cannot be used, with the reason.
    pub(super) bad: Vec<(usize, String)>,
}

/// Pages that may not hold more than their row group's description says, nor make the decoder take more memory than [`limits`]
/// allow.
pub(super) struct Limited {
    pub(super) pages: Box<dyn PageReader>,
    /// Bytes and values that may still come.
    pub(super) left: (u64, u64),
    /// For lists: values that may still come before the next rows are asked for.
    pub(super) budget: Option<Arc<AtomicU64>>,
    /// Largest levels, where values are texts.
    pub(super) texts: Option<(i16, i16)>,
}

impl Limited {
    fn count(&mut self, page: Option<Page>) -> Result<Option<Page>> {
        let Some(page) = page else { return Ok(None) };
        let dictionary = matches!(page, Page::DictionaryPage { .. });
        let values = if dictionary { 0 } else { u64::from(page.num_values()) };
        let left = (self.left.0.checked_sub(page.buffer().len() as u64), self.left.1.checked_sub(values));
        let (Some(bytes), Some(values_left)) = left else {
            return Err(ParquetError::General("its pages hold more than the footer says".into()));
        };
        if let Some(budget) = &self.budget {
            let before = budget.load(Ordering::Relaxed);
            if before == 0 {
                let most = limits::MAX_VALUES;
                return Err(ParquetError::General(format!(
                    "lists of a few rows have more than {most} values, which is the most at once; write the file with smaller pages"
                )));
            }
            budget.store(before.saturating_sub(values), Ordering::Relaxed);
        }
        if let Some((max_rep, max_def)) = self.texts {
            limits::texts(&page, max_rep, max_def).map_err(ParquetError::General)?;
        }
        self.left = (bytes, values_left);
        Ok(Some(page))
    }
}

impl Iterator for Limited {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Result<Page>> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Limited {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        self.count(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.pages.at_record_boundary()
    }
}

/// A column being read.
pub(super) struct Column {
    reader: ColumnReader,
    max_def: i16,
    /// For a list, the definition level from which there is an element.
    list: Option<i16>,
    /// Values that pages may still bring before the next rows are asked for; counts for lists.
    budget: Arc<AtomicU64>,
}

/// Levels and values as they come.
struct Raw<T> {
    def: Vec<i16>,
    rep: Vec<i16>,
    values: Vec<T>,
}

/// One place of a row.
enum Cell<'a, T> {
    Value(&'a T),
    Null,
}

impl Column {
    /// Opens leaf `leaf`, whose pages hold at most `limit` bytes and values, behind its first `skip` rows.
    pub(super) fn open(group: &dyn RowGroupReader, leaf: usize, list: Option<i16>, limit: (u64, u64), skip: usize) -> Result<Column> {
        let pages = group.get_column_page_reader(leaf)?;
        let descr = group.metadata().schema_descr().column(leaf);
        let max_def = descr.max_def_level();
        let text = descr.physical_type() == Physical::BYTE_ARRAY;
        let (texts, budget) = (text.then(|| (descr.max_rep_level(), max_def)), Arc::new(AtomicU64::new(u64::MAX)));
        let pages = Limited { pages, left: limit, budget: list.map(|_| budget.clone()), texts };
        let mut column = Column { reader: get_column_reader(descr, Box::new(pages)), max_def, list, budget };
        let skipped = match &mut column.reader {
            ColumnReader::BoolColumnReader(r) => r.skip_records(skip)?,
            ColumnReader::Int32ColumnReader(r) => r.skip_records(skip)?,
            ColumnReader::Int64ColumnReader(r) => r.skip_records(skip)?,
            ColumnReader::FloatColumnReader(r) => r.skip_records(skip)?,
            ColumnReader::DoubleColumnReader(r) => r.skip_records(skip)?,
            ColumnReader::ByteArrayColumnReader(r) => r.skip_records(skip)?,
            _ => 0,
        };
        if skipped < skip {
            return Err(ParquetError::General(format!("a column has {skipped} rows where {skip} were read before")));
        }
        Ok(column)
    }

    /// The next `rows` rows; categories that are not below `limit` are bad.
    pub(super) fn read(&mut self, rows: usize, role: Role, schema: &Schema, limit: Option<u64>) -> Result<Values> {
        let (max_def, list) = (self.max_def, self.list);
        self.budget.store(limits::MAX_VALUES, Ordering::Relaxed);
        let whole = |value: i64| u64::try_from(value).map_err(|_| format!("the category {value} is negative"));
        match &mut self.reader {
            ColumnReader::Int32ColumnReader(r) => {
                let raw = records(r, rows)?;
                match role {
                    Role::Table(_) => raw.keys(rows, max_def, list, schema, limit, 0, |v| whole(i64::from(*v))),
                    _ => raw.floats(rows, max_def, role, schema, |v| f64::from(*v)),
                }
            }
            ColumnReader::Int64ColumnReader(r) => {
                let raw = records(r, rows)?;
                match role {
                    Role::Table(_) => raw.keys(rows, max_def, list, schema, limit, 0, |v| whole(*v)),
                    _ => raw.floats(rows, max_def, role, schema, |v| *v as f64),
                }
            }
            ColumnReader::ByteArrayColumnReader(r) => {
                let key = |v: &ByteArray| fields::key(v.data(), schema.id_text);
                // a null is the empty text
                let null = fields::key(b"", schema.id_text).unwrap_or(0);
                records(r, rows)?.keys(rows, max_def, list, schema, limit, null, key)
            }
            ColumnReader::FloatColumnReader(r) => records(r, rows)?.floats(rows, max_def, role, schema, |v| f64::from(*v)),
            ColumnReader::DoubleColumnReader(r) => records(r, rows)?.floats(rows, max_def, role, schema, |v| *v),
            ColumnReader::BoolColumnReader(r) => records(r, rows)?.floats(rows, max_def, role, schema, |v| f64::from(u8::from(*v))),
            _ => Err(ParquetError::General("a column has a type that cannot be used".into())),
        }
    }
}

/// Reads exactly `rows` rows.
fn records<T: DataType>(reader: &mut parquet::column::reader::ColumnReaderImpl<T>, rows: usize) -> Result<Raw<T::T>> {
    let mut raw = Raw { def: Vec::new(), rep: Vec::new(), values: Vec::new() };
    let mut read = 0;
    while read < rows {
        let (found, _, levels) = reader.read_records(rows - read, Some(&mut raw.def), Some(&mut raw.rep), &mut raw.values)?;
        if found == 0 && levels == 0 {
            return Err(ParquetError::General(format!("a column ends after {read} of {rows} rows")));
        }
        read += found;
    }
    Ok(raw)
}

impl<T> Raw<T> {
    /// Gives `each` the cells in order, with whether a row begins there; a place without element is `None`.
    fn cells(&self, rows: usize, max_def: i16, list: Option<i16>, mut each: impl FnMut(bool, Option<Cell<'_, T>>)) -> Result<()> {
        let (mut values, mut begun) = (self.values.iter(), 0);
        let levels = if max_def == 0 { self.values.len() } else { self.def.len() };
        for i in 0..levels {
            let def = if max_def == 0 { 0 } else { self.def[i] };
            let first = list.is_none() || self.rep.get(i).is_none_or(|&rep| rep == 0);
            begun += usize::from(first);
            let missing = || ParquetError::General("a column has fewer values than its levels say".into());
            let cell = match list {
                _ if def == max_def => Some(Cell::Value(values.next().ok_or_else(missing)?)),
                Some(level) if def < level => None,
                _ => Some(Cell::Null),
            };
            if begun == 0 {
                return Err(ParquetError::General("a column begins inside a row".into()));
            }
            each(first, cell);
        }
        match begun == rows {
            true => Ok(()),
            false => Err(ParquetError::General(format!("a column has {begun} rows where {rows} are expected"))),
        }
    }

    /// Labels or dense features.
    fn floats(&self, rows: usize, max_def: i16, role: Role, schema: &Schema, value: impl Fn(&T) -> f64) -> Result<Values> {
        let mut out = Values::default();
        self.cells(rows, max_def, None, |_, cell| {
            let row = out.floats.len();
            let found = match (role, cell) {
                (Role::Label, Some(Cell::Value(v))) if value(v).is_finite() => Ok(f32::from(value(v) >= schema.label_threshold)),
                (Role::Label, Some(Cell::Value(v))) => Err(format!("the label {} is not a finite number", value(v))),
                (Role::Label, _) => Err("the label is null".into()),
                (_, Some(Cell::Value(v))) if (value(v) as f32).is_finite() => {
                    let v = value(v) as f32;
                    Ok(if schema.dense_log { fields::log(v) } else { v })
                }
                (_, Some(Cell::Value(v))) => Err(format!("{} is not a finite 32-bit number", value(v))),
                _ => Ok(0.0),
            };
            out.floats.push(found.unwrap_or_else(|reason| {
                out.bad.push((row, reason));
                0.0
            }));
        })?;
        Ok(out)
    }

    /// Categories.
    fn keys(
        &self,
        rows: usize,
        max_def: i16,
        list: Option<i16>,
        schema: &Schema,
        limit: Option<u64>,
        null: u64,
        key: impl Fn(&T) -> std::result::Result<u64, String>,
    ) -> Result<Values> {
        let mut out = Values::default();
        let (mut row, most) = (0, schema.multi_hot_max);
        self.cells(rows, max_def, list, |first, cell| {
            if first {
                row += 1;
                if list.is_some() {
                    out.sizes.push(0);
                }
            }
            let found = match cell {
                Some(Cell::Value(v)) => key(v).and_then(|key| match limit {
                    Some(rows) if key >= rows => Err(format!("row {key} does not exist; the table has {rows} rows")),
                    _ => Ok(key),
                }),
                Some(Cell::Null) if list.is_none() => Ok(null),
                Some(Cell::Null) => Err("a category inside a list is null".into()),
                None => return,
            };
            let full = out.sizes.last().is_some_and(|&size| size as usize >= most);
            let found = if full { Err(format!("the list has more than {most} categories (data.schema.multi_hot_max)")) } else { found };
            match found {
                Ok(key) => out.keys.push(key),
                Err(reason) => {
                    if out.bad.last().is_none_or(|(last, _)| *last != row - 1) {
                        out.bad.push((row - 1, reason));
                    }
                    if full {
                        return;
                    }
                    out.keys.push(0);
                }
            }
            if let Some(size) = out.sizes.last_mut() {
                *size += 1;
            }
        })?;
        Ok(out)
    }
}
