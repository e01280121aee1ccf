//! Where samples come from: files, their columns, the generator.

use serde::{Deserialize, Serialize};

/// No bag holds more categories.
pub const MAX_BAG: usize = 65_536;

/// Layout of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Clicks made up by the generator.
    #[default]
    Synthetic,
    /// Criteo TSV: label, 13 integers, 26 categories of 8 hex digits.
    Criteo,
    /// Delimited text after `[data.schema]`.
    Text,
    /// MLPerf's binary Criteo rows of 40 `int32`.
    Binary,
    /// Parquet files, columns after `[data.schema]`.
    Parquet,
}

/// How raw categories become row numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Ids {
    /// First-seen order over the training part; row 0 is kept for ids never seen there.
    #[default]
    Dictionary,
    /// The value modulo the table's rows.
    Modulo,
    /// The value is the row; one beyond the table is an error (or a line to skip).
    Direct,
}

/// What a malformed line does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum OnBadRow {
    /// Stop and name the place.
    #[default]
    Error,
    /// Leave the line out and count it.
    Skip,
}

/// Where the samples come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// Input files in time order, plain or gzip; empty means synthetic clicks.
    pub files: Vec<String>,
    /// Their layout.
    pub format: Format,
    /// How categories become rows.
    pub ids: Ids,
    /// The modulus when `ids = "modulo"` and the model gives no rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modulo: Option<u64>,
    /// Fractions of train, validation and test, in file order.
    pub split: [f64; 3],
    /// Shuffle the training part, another order each epoch.
    pub shuffle: bool,
    /// What a malformed line does.
    pub on_bad_row: OnBadRow,
    /// Folder for prepared data, reused by later runs on the same files.
    pub cache: String,
    /// Columns, for `format = "text"`.
    pub schema: Schema,
    /// The generator, for `format = "synthetic"`.
    pub synthetic: Synthetic,
}

impl Default for Data {
    fn default() -> Self {
        Data {
            files: Vec::new(),
            format: Format::Synthetic,
            ids: Ids::Dictionary,
            modulo: None,
            split: [0.8, 0.1, 0.1],
            shuffle: true,
            on_bad_row: OnBadRow::Error,
            cache: "runs/cache".into(),
            schema: Schema::default(),
            synthetic: Synthetic::default(),
        }
    }
}

/// How a category is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum IdText {
    /// Any text; hashed to 64 bits (XXH3).
    #[default]
    Text,
    /// Hexadecimal digits, up to 16.
    Hex,
    /// A decimal number without sign.
    Int,
}

/// The columns of delimited text, numbered from 1 or, when the file has a header, named.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schema {
    /// Between columns: one character, `\t` for a tab.
    pub separator: String,
    /// The first line of each file holds names.
    pub header: bool,
    /// The label's column.
    pub label: Column,
    /// A label is positive when its number is at least this.
    pub label_threshold: f64,
    /// Dense columns.
    pub dense: Vec<Column>,
    /// Dense values become ln(max(x, 0) + 1); otherwise they are used as they are.
    pub dense_log: bool,
    /// Columns with one category each; an empty field is the value 0 (or the empty text).
    pub categorical: Vec<Column>,
    /// Columns with several categories each; an empty field is an empty bag. These tables follow the categorical ones.
    pub multi_hot: Vec<Column>,
    /// Between the categories of a multi-hot column.
    pub multi_hot_separator: String,
    /// More categories than this in one field are an error; at most [`MAX_BAG`].
    pub multi_hot_max: usize,
    /// How categories are spelled.
    pub id_text: IdText,
    /// Columns of a line with a label, where columns are numbered: a line without label has one fewer. A run
    /// learns it from its data; left out, the first line of a file says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
}

impl Default for Schema {
    fn default() -> Self {
        Schema {
            separator: "\t".into(),
            header: false,
            label: Column::Number(1),
            label_threshold: 0.5,
            dense: Vec::new(),
            dense_log: true,
            categorical: Vec::new(),
            multi_hot: Vec::new(),
            multi_hot_separator: ",".into(),
            multi_hot_max: 64,
            id_text: IdText::Text,
            width: None,
        }
    }
}

impl Schema {
    /// Criteo's layout with `dense` integers and `tables` one-hot categories.
    pub fn criteo(dense: usize, tables: usize) -> Schema {
        Schema {
            dense: (2..2 + dense).map(Column::Number).collect(),
            categorical: (2 + dense..2 + dense + tables).map(Column::Number).collect(),
            id_text: IdText::Hex,
            ..Schema::default()
        }
    }

    /// Columns that are used, the label's last.
    pub fn columns(&self) -> impl Iterator<Item = &Column> {
        self.dense.iter().chain(&self.categorical).chain(&self.multi_hot).chain([&self.label])
    }

    /// True when a column is found by counting, so that it matters how many there are.
    pub fn numbered(&self) -> bool {
        !self.header || self.columns().any(|c| matches!(c, Column::Number(_)))
    }

    /// Tables: one per categorical column, then one per multi-hot column.
    pub fn tables(&self) -> usize {
        self.categorical.len() + self.multi_hot.len()
    }
}

/// One column of a text file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// Counted from 1.
    Number(usize),
    /// As spelled in the header.
    Name(String),
}

/// The synthetic click generator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Synthetic {
    /// Samples in all, before the split.
    pub samples: u64,
    /// Exponent of the Zipf distribution of ids.
    pub zipf: f64,
    /// Share of positive labels aimed at (Criteo Kaggle: 0.256).
    pub positive_rate: f64,
    /// Categories per bag; 1 is one-hot.
    pub bag: usize,
}

impl Default for Synthetic {
    fn default() -> Self {
        Synthetic { samples: 6_000_000, zipf: 1.1, positive_rate: 0.256, bag: 1 }
    }
}
