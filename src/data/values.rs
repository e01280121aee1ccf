//! One value as it stands in the data, outside of any file: to a dense feature or a category.

use super::fields;
use super::ids::Mapper;
use crate::config::{Format, IdText, Schema};

/// How the values of a model's columns are read.
#[derive(Debug, Clone)]
pub struct Values {
    log: bool,
    id_text: IdText,
    /// A category that comes as a number is that number, and not the text that spells it.
    numbers: bool,
    /// Categories of each table that exist; any when there is no limit.
    limits: Option<Vec<u64>>,
}

impl Values {
    /// Of a model trained on data of `format`.
    pub fn new(format: Format, schema: &Schema, mapper: &Mapper) -> Values {
        Values {
            log: schema.dense_log,
            id_text: schema.id_text,
            // Parquet has columns of numbers, whatever the schema says of text
            numbers: schema.id_text != IdText::Text || format == Format::Parquet,
            limits: mapper.limits().map(<[u64]>::to_vec),
        }
    }

    /// A dense feature from the text of its number, transformed as the schema says.
    ///
    /// # Errors
    /// Text that is no finite number.
    pub fn dense(&self, text: &[u8]) -> Result<f32, String> {
        fields::dense(text, self.log)
    }

    /// A category of `table` from its text; the empty text is a missing one.
    ///
    /// # Errors
    /// Text that is no category, and one that does not exist where ids are rows.
    pub fn category(&self, table: usize, text: &[u8]) -> Result<u64, String> {
        fields::key(text, self.id_text).and_then(|key| self.existing(table, key))
    }

    /// A category of `table` from the decimal text of a number: for models whose categories are any text, what this very text is in a
    /// column; for others the number.
    ///
    /// # Errors
    /// As [`Values::category`], and numbers that are negative or not whole where a number is needed.
    pub fn number(&self, table: usize, text: &[u8]) -> Result<u64, String> {
        let kind = if self.numbers { IdText::Int } else { IdText::Text };
        if text.is_empty() || text.iter().any(|c| !c.is_ascii_digit() && *c != b'-') {
            return Err(format!("{} is not a whole number", fields::shown(text)));
        }
        fields::key(text, kind).and_then(|key| self.existing(table, key))
    }

    /// The category, where its table has it.
    fn existing(&self, table: usize, key: u64) -> Result<u64, String> {
        match self.limits.as_ref().and_then(|limits| limits.get(table)) {
            Some(&rows) if key >= rows => Err(format!("row {key} of table {table} does not exist; the table has {rows} rows")),
            _ => Ok(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    fn values(format: Format, id_text: IdText, mapper: &Mapper) -> Values {
        Values::new(format, &Schema { id_text, ..Schema::criteo(1, 1) }, mapper)
    }

    #[test]
    fn numbers_are_what_they_would_be_in_a_column() {
        let any = Mapper::modulo(&[10]);
        let text = values(Format::Text, IdText::Text, &any);
        assert_eq!([text.number(0, b"12"), text.category(0, b"12")], [Ok(xxh3_64(b"12")), Ok(xxh3_64(b"12"))]);
        assert_eq!(text.number(0, b"-12"), Ok(xxh3_64(b"-12")));
        let hex = values(Format::Criteo, IdText::Hex, &any);
        assert_eq!([hex.number(0, b"12"), hex.category(0, b"12")], [Ok(12), Ok(0x12)]);
        assert!(hex.number(0, b"-1").is_err());
        let parquet = values(Format::Parquet, IdText::Text, &any);
        assert_eq!([parquet.number(0, b"12"), parquet.category(0, b"12")], [Ok(12), Ok(xxh3_64(b"12"))]);
        for text in [&b"1.0"[..], b"1e2", b"", b"true"] {
            assert!(
                hex.number(0, text).is_err()
                    && parquet.number(0, text).is_err()
                    && values(Format::Text, IdText::Text, &any).number(0, text).is_err()
            );
        }
        assert_eq!([text.dense(b"7"), text.dense(b"-7")], [Ok(8f32.ln()), Ok(0.0)]);
    }

    #[test]
    fn rows_that_do_not_exist_are_refused() {
        let direct = values(Format::Text, IdText::Int, &Mapper::direct(&[10]));
        assert_eq!([direct.number(0, b"9"), direct.category(0, b"9")], [Ok(9), Ok(9)]);
        assert!(direct.number(0, b"10").unwrap_err().contains("row 10 of table 0"));
        assert!(direct.category(0, b"10").is_err());
    }
}
