//! `data.tsv`: label, integers, categories, tab-separated, one sample per line, no header.

use crate::case::{Case, EVAL_BATCH, Empty};
use dqrm::data::Block;
use dqrm::{Error, Result};
use std::path::Path;

/// The samples of a case, cut.
#[derive(Debug)]
pub(crate) struct Data {
    /// One block per training step of a pass, the last may be smaller.
    pub(crate) train: Vec<Block>,
    /// The evaluation part.
    pub(crate) eval: Vec<Block>,
    /// The largest bag of each table.
    pub(crate) max_bag: Vec<usize>,
}

/// Reads and cuts the samples.
pub(crate) fn read(path: &Path, case: &Case) -> Result<Data> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let text = str::from_utf8(&bytes).map_err(|e| Error::Data(format!("`{}` is not text: {e}", path.display())))?;
    let lines: Vec<&str> = text.lines().collect();
    let needed = case.train_rows.saturating_add(case.eval_rows);
    if lines.len() < needed {
        let (train, eval) = (case.train_rows, case.eval_rows);
        return Err(Error::Data(format!(
            "`{}` has {} lines; {train} for training and {eval} for evaluation are needed",
            path.display(),
            lines.len()
        )));
    }
    let file = path.display().to_string();
    let blocks = |from: usize, count: usize, size: usize| -> Result<Vec<Block>> {
        let pieces = lines[from..from + count].chunks(size).enumerate();
        pieces.map(|(i, piece)| block(&file, from + i * size, piece, case)).collect()
    };
    let train = blocks(0, case.train_rows, case.batch)?;
    let eval = blocks(case.train_rows, case.eval_rows, EVAL_BATCH)?;
    let mut max_bag = vec![1; case.rows.len()];
    for block in train.iter().chain(&eval) {
        for (bag, ends) in block.offsets.windows(2).enumerate() {
            let max = &mut max_bag[bag % case.rows.len()];
            *max = (ends[1] as usize - ends[0] as usize).max(*max);
        }
    }
    Ok(Data { train, eval, max_bag })
}

/// The samples of `lines`, the first of which stands after `before` other lines.
fn block(file: &str, before: usize, lines: &[&str], case: &Case) -> Result<Block> {
    let mut block = Block::new();
    for (i, line) in lines.iter().enumerate() {
        let bad = |column: usize, reason: String| Error::Row { file: file.to_string(), line: (before + i + 1) as u64, column, reason };
        let fields: Vec<&str> = line.split('\t').collect();
        let expected = 1 + case.dense + case.rows.len();
        if fields.len() != expected {
            return Err(Error::Data(format!("{file}, line {}: {} fields, but {expected} are expected", before + i + 1, fields.len())));
        }
        block.labels.push(label(fields[0]).map_err(|e| bad(1, e))?);
        for (j, field) in fields[1..=case.dense].iter().enumerate() {
            block.dense.push(integer(field).map_err(|e| bad(2 + j, e))?);
        }
        for (k, field) in fields[1 + case.dense..].iter().enumerate() {
            bag(field, case, case.rows[k], &mut block.ids).map_err(|e| bad(2 + case.dense + k, e))?;
            block.end_bag();
        }
        block.samples += 1;
    }
    Ok(block)
}

fn label(field: &str) -> Result<f32, String> {
    field.parse().ok().filter(|x: &f32| x.is_finite()).ok_or_else(|| format!("label `{field}` is not a number"))
}

/// ln(v + 1), with empty and negative fields as 0.
fn integer(field: &str) -> Result<f32, String> {
    if field.is_empty() {
        return Ok(0.0);
    }
    let value: i64 = field.parse().map_err(|_| format!("`{field}` is not an integer"))?;
    Ok((value.max(0) as f32 + 1.0).ln())
}

/// Appends the rows of one field.
fn bag(field: &str, case: &Case, rows: u64, ids: &mut Vec<u32>) -> Result<(), String> {
    match (field.is_empty(), case.empty_categorical) {
        (true, Empty::EmptyBag) => {}
        (true, Empty::ZeroValue) => ids.push(0),
        (false, _) if case.multi_hot => {
            for part in field.split(',') {
                ids.push(row(part, rows)?);
            }
        }
        (false, _) => ids.push(row(field, rows)?),
    }
    Ok(())
}

/// The value of up to 8 hexadecimal digits, modulo the rows of the table.
fn row(text: &str, rows: u64) -> Result<u32, String> {
    let fits = (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    match u32::from_str_radix(text, 16) {
        Ok(value) if fits => Ok((value as u64 % rows) as u32),
        _ => Err(format!("category `{text}` is not a number of up to 8 hexadecimal digits")),
    }
}
