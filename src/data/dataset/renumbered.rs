//! Prepared data with the rows that another mapping gives its categories: those of a model that was trained on other files.

use super::Prepared;
use crate::data::Samples;
use crate::data::ids::Mapper;
use crate::error::{Error, Result};

/// By table and place, the row; what stands at place 0 is for places that do not exist.
#[derive(Debug)]
pub(super) struct Renumbering {
    by_place: Vec<Vec<u32>>,
    rows: Vec<u64>,
}

impl Renumbering {
    /// Rows of each table.
    pub(super) fn rows(&self) -> &[u64] {
        &self.rows
    }

    /// The row of the category at place `seen`.
    pub(super) fn row(&self, table: usize, seen: u32) -> u32 {
        let rows = &self.by_place[table];
        rows.get(seen as usize).unwrap_or(&rows[0]).to_owned()
    }
}

impl Prepared {
    /// The same samples, with the rows that `mapper` gives their categories. That takes the categories themselves, which a
    /// folder keeps for its training part.
    ///
    /// # Errors
    /// A folder that holds row numbers, or categories that it did not keep; a category that is no row of a mapping without
    /// dictionary.
    pub fn renumbered(mut self, mapper: &Mapper) -> Result<Prepared> {
        if mapper.to_bytes() == self.mapper.to_bytes() {
            return Ok(self);
        }
        let fail = |text: String| Error::Config(format!("`{}` {text}", self.path().display()));
        let advice = "give the files that it was prepared from";
        if !self.mapper.is_dictionary() {
            return Err(fail(format!("holds row numbers instead of categories, and the model numbers its rows in another way; {advice}")));
        }
        if mapper.tables() != self.mapper.tables() {
            return Err(fail(format!("has {} tables, but the model has {}", self.mapper.tables(), mapper.tables())));
        }
        let known = self.mapper.known();
        if let Some((k, (known, all))) = known.iter().zip(self.distinct()).enumerate().find(|(_, (known, all))| known < all) {
            return Err(fail(format!(
                "numbers its categories in another way than the model, and keeps only those of its training part ({known} of {all} in \
                 table {k}); {advice}, or prepare them again with --split 1,0,0"
            )));
        }
        let mut by_place = Vec::with_capacity(known.len());
        for table in 0..known.len() {
            let keys = self.mapper.keys(table);
            let rows: Vec<u32> = std::iter::once(0).chain(keys.iter().map(|&key| mapper.row(table, key))).collect();
            let limit = mapper.rows()[table];
            if let Some(at) = rows.iter().position(|&row| u64::from(row) >= limit) {
                let key = at.checked_sub(1).map_or(0, |at| keys[at]);
                return Err(fail(format!("has the category {key} in table {table}, but the model's table has {limit} rows")));
            }
            by_place.push(rows);
        }
        self.renumbering = Some(Renumbering { by_place, rows: mapper.rows().to_vec() });
        debug_assert_eq!(self.rows(), mapper.rows());
        Ok(self)
    }
}
