//! MLPerf's binary Criteo files, read in place: a row is 40 little-endian `int32`: label (0 or 1), 13 counts before the
//! logarithm, 26 categories as row numbers (Meta's DLRM and MLPerf's reference write and read them so).

use super::dataset::Watch;
use super::fields;
use super::ids::Mapper;
use super::{Block, Samples};
use crate::config::Ids;
use crate::error::{Error, Result};
use crate::mapped::{self, Mapped};
use rayon::prelude::*;
use std::path::Path;

/// Dense features of a row.
pub const DENSE: usize = 13;
/// Tables of a row.
pub const TABLES: usize = 26;
/// Bytes of a row.
pub const ROW: usize = 4 * (1 + DENSE + TABLES);
/// Rows that are scanned at a time.
const SCAN: usize = 1 << 16;

/// The values of a row.
type Words = [[u8; 4]];

/// Rows of several binary files, one after the other.
#[derive(Debug)]
pub struct Binary {
    files: Vec<File>,
    rows: u64,
    mapper: Mapper,
}

#[derive(Debug)]
struct File {
    name: String,
    bytes: Mapped,
    /// Number of its first row.
    first: u64,
}

impl File {
    fn records(&self) -> &[[u8; ROW]] {
        self.bytes.as_chunks::<ROW>().0
    }

    /// A row that cannot be used; `column` is counted from 1.
    fn wrong(&self, row: u64, column: usize, reason: String) -> Error {
        Error::Data(format!("`{}`, row {row} (the first is 0), value {column} of {}: {reason}", self.name, ROW / 4))
    }
}

fn words(record: &[u8; ROW]) -> &Words {
    record.as_chunks::<4>().0
}

/// The label of a row.
fn label(words: &Words) -> Result<f32, String> {
    match i32::from_le_bytes(words[0]) {
        0 => Ok(0.0),
        1 => Ok(1.0),
        other => Err(format!("the label is {other}; 0 and 1 are possible")),
    }
}

/// The category at `table`.
fn category(words: &Words, table: usize) -> Result<u32, String> {
    let value = i32::from_le_bytes(words[1 + DENSE + table]);
    u32::try_from(value).map_err(|_| format!("the category {value} is negative"))
}

impl Binary {
    /// Opens `files`. A category is the row of its table, out of `rows`; with [`Ids::Modulo`] it is taken modulo the rows.
    /// Without `rows`, all files are read once to find the largest category of each table. `max_rows` limits the tables
    /// that are found so; categories are then taken modulo. `watch` gets (bytes done, bytes in all, rows done).
    ///
    /// # Errors
    /// Files that cannot be read or do not hold whole rows; when all are read, the first row with a label other than 0 and 1
    /// or a negative category.
    pub fn open(files: &[String], ids: Ids, rows: Option<&[u64]>, max_rows: Option<u64>, watch: &mut Watch<'_>) -> Result<Binary> {
        let mut binary = Binary { files: Vec::new(), rows: 0, mapper: Mapper::direct(&[1; TABLES]) };
        for name in files {
            let bytes = mapped::open(Path::new(name))?;
            if bytes.is_empty() || !bytes.len().is_multiple_of(ROW) {
                return Err(Error::Data(format!(
                    "`{name}` has {} bytes; binary rows have {ROW} bytes each (40 int32: label, {DENSE} counts, {TABLES} categories)",
                    bytes.len()
                )));
            }
            let first = binary.rows;
            binary.rows += (bytes.len() / ROW) as u64;
            binary.files.push(File { name: name.clone(), bytes, first });
        }
        if binary.rows == 0 {
            return Err(Error::Data("there is no binary file to read".into()));
        }
        binary.mapper = match rows {
            Some(rows) if rows.len() != TABLES => {
                return Err(Error::Config(format!("model.rows names {} tables, but binary rows have {TABLES} categories", rows.len())));
            }
            Some(rows) if ids == Ids::Modulo => Mapper::modulo(rows),
            Some(rows) => Mapper::direct(rows),
            None => {
                let found = binary.scan(watch)?;
                let capped: Vec<u64> = found.iter().map(|&n| n.min(max_rows.unwrap_or(u64::MAX))).collect();
                if capped == found && ids != Ids::Modulo { Mapper::direct(&found) } else { Mapper::modulo(&capped) }
            }
        };
        Ok(binary)
    }

    /// One more than the largest category of each table.
    fn scan(&self, watch: &mut Watch<'_>) -> Result<Vec<u64>> {
        let (mut most, mut done) = ([0u32; TABLES], 0);
        for file in &self.files {
            for (step, records) in file.records().chunks(SCAN * rayon::current_num_threads()).enumerate() {
                let first = step * SCAN * rayon::current_num_threads();
                let parts: Vec<[u32; TABLES]> = records
                    .par_chunks(SCAN)
                    .enumerate()
                    .map(|(i, part)| {
                        let mut most = [0; TABLES];
                        for (row, record) in ((first + i * SCAN) as u64..).zip(part) {
                            label(words(record)).map_err(|reason| file.wrong(row, 1, reason))?;
                            for (table, most) in most.iter_mut().enumerate() {
                                let id = category(words(record), table).map_err(|reason| file.wrong(row, 2 + DENSE + table, reason))?;
                                *most = id.max(*most);
                            }
                        }
                        Ok(most)
                    })
                    .collect::<Result<_>>()?;
                for part in parts {
                    most.iter_mut().zip(part).for_each(|(most, id)| *most = id.max(*most));
                }
                done += records.len() as u64;
                watch(done * ROW as u64, self.rows * ROW as u64, done);
            }
        }
        Ok(most.iter().map(|&id| u64::from(id) + 1).collect())
    }

    /// From categories to rows.
    pub fn mapper(&self) -> &Mapper {
        &self.mapper
    }

    /// Appends one row.
    fn decode(&self, file: &File, row: u64, record: &[u8; ROW], block: &mut Block) -> Result<()> {
        let words = words(record);
        block.labels.push(label(words).map_err(|reason| file.wrong(row, 1, reason))?);
        block.dense.extend(words[1..=DENSE].iter().map(|w| fields::log(i32::from_le_bytes(*w) as f32)));
        let direct = self.mapper.limits().is_some();
        for (table, &rows) in self.mapper.rows().iter().enumerate() {
            let id = category(words, table).and_then(|id| match u64::from(id) {
                id if direct && id >= rows => Err(format!("row {id} of table {table} does not exist; the table has {rows} rows")),
                id => Ok((id % rows) as u32),
            });
            block.ids.push(id.map_err(|reason| file.wrong(row, 2 + DENSE + table, reason))?);
            block.end_bag();
        }
        block.samples += 1;
        Ok(())
    }
}

impl Samples for Binary {
    fn len(&self) -> u64 {
        self.rows
    }

    fn dense(&self) -> usize {
        DENSE
    }

    fn rows(&self) -> &[u64] {
        self.mapper.rows()
    }

    fn max_bag(&self) -> &[usize] {
        &[1; TABLES]
    }

    fn fetch(&self, indices: &[u64], block: &mut Block) -> Result<()> {
        for &index in indices {
            let file = &self.files[self.files.partition_point(|file| file.first <= index).saturating_sub(1)];
            let record = index.checked_sub(file.first).and_then(|row| file.records().get(row as usize));
            let Some(record) = record else {
                return Err(Error::Data(format!("row {index} does not exist; there are {}", self.rows)));
            };
            self.decode(file, index - file.first, record, block)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(label: i32, first: i32, ids: impl Fn(usize) -> i32) -> Vec<u8> {
        let mut row = vec![label];
        row.extend((0..DENSE as i32).map(|d| first + d - 1));
        row.extend((0..TABLES).map(ids));
        row.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn file(&self, name: &str, bytes: &[u8]) -> String {
            let path = self.0.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.to_str().unwrap().into()
        }

        fn open(&self, bytes: &[&[u8]], ids: Ids, rows: Option<&[u64]>, max_rows: Option<u64>) -> Result<Binary> {
            let files: Vec<String> = bytes.iter().enumerate().map(|(i, b)| self.file(&format!("day_{i}.bin"), b)).collect();
            Binary::open(&files, ids, rows, max_rows, &mut |_, _, _| {})
        }
    }

    fn folder() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    #[test]
    fn rows_of_several_files_come_at_random() {
        let (a, b) = ([row(1, 0, |t| t as i32), row(0, 5, |_| 2)].concat(), row(1, 9, |t| 100 - t as i32));
        let folder = folder();
        let binary = folder.open(&[&a, &b], Ids::Direct, None, None).unwrap();
        assert_eq!((binary.len(), binary.dense(), binary.rows()[0], binary.rows()[25]), (3, 13, 101, 76));
        let mut block = Block::new();
        binary.fetch(&[2, 0, 1], &mut block).unwrap();
        assert_eq!(block.labels, [1.0, 1.0, 0.0]);
        assert_eq!(block.dense[..3], [9f32.ln(), 10f32.ln(), 11f32.ln()]);
        assert_eq!(block.dense[13..16], [0.0, 0.0, 2f32.ln()], "a negative count is 0");
        assert_eq!((&block.ids[..2], &block.ids[26..28], block.ids[77]), (&[100, 99][..], &[0, 1][..], 2));
        assert_eq!(block.offsets, (0..=78).collect::<Vec<_>>());
        let capped = folder.open(&[&a, &b], Ids::Direct, None, Some(30)).unwrap();
        let mut block = Block::new();
        capped.fetch(&[2], &mut block).unwrap();
        assert_eq!((capped.rows()[0], block.ids[0]), (30, 100 % 30));
        for bad in [3, u64::MAX] {
            assert!(binary.fetch(&[bad], &mut Block::new()).unwrap_err().to_string().contains("does not exist"));
        }
    }

    #[test]
    fn every_lie_is_named_with_its_place() {
        let folder = folder();
        let good = row(1, 0, |_| 3);
        let fails = |bytes: &[u8], rows: Option<&[u64]>| {
            let opened = folder.open(&[&good, bytes], Ids::Direct, rows, None);
            opened.and_then(|b| b.fetch(&[0, 1], &mut Block::new())).unwrap_err().to_string()
        };
        let declared = [4u64; TABLES];
        for rows in [None, Some(&declared[..])] {
            assert!(fails(&good[..ROW - 1], rows).contains("has 159 bytes; binary rows have 160 bytes each"));
            assert!(fails(b"", rows).contains("has 0 bytes"));
            for label in [2, -1, i32::MIN, i32::MAX] {
                let error = fails(&row(label, 0, |_| 3), rows);
                assert!(error.contains("day_1.bin`, row 0") && error.contains(&format!("the label is {label}")), "{error}");
            }
            let error = fails(&row(0, 0, |t| if t == 7 { -5 } else { 0 }), rows);
            assert!(error.contains("value 22 of 40: the category -5 is negative"), "{error}");
        }
        let error = fails(&row(0, 0, |t| if t == 25 { 4 } else { 0 }), Some(&declared));
        assert!(error.contains("value 40 of 40: row 4 of table 25 does not exist; the table has 4 rows"), "{error}");
        assert!(fails(&good, Some(&[4; 25])).contains("names 25 tables"));
        let huge = folder.open(&[&row(0, i32::MAX - 20, |_| i32::MAX)], Ids::Modulo, Some(&[7; TABLES]), None).unwrap();
        let mut block = Block::new();
        huge.fetch(&[0], &mut block).unwrap();
        assert_eq!(block.ids, [(i32::MAX % 7) as u32; TABLES]);
        assert!(block.dense.iter().all(|x| x.is_finite()));
        assert!(Binary::open(&[], Ids::Direct, None, None, &mut |_, _, _| {}).is_err());
    }
}
