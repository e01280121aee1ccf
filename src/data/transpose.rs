//! Ids sample by sample as ids table by table, and back. Four tables at a time: their values stand side by side where rows are
//! read or written, and in four streams where columns are.

/// Rows that are done for all columns, while they stay in the first cache.
const TILE: usize = 64;

/// The rows of `values`, each `columns` long, as columns one after another.
pub(super) fn to_columns(values: &[u32], columns: usize, out: &mut [u32]) {
    if values.is_empty() || columns == 0 {
        return;
    }
    let rows = values.len() / columns;
    for (tile, first) in values.chunks(TILE * columns).zip((0..).step_by(TILE)) {
        let here = first..first + tile.len() / columns;
        let mut fours = out.chunks_exact_mut(4 * rows);
        let mut column = 0;
        for four in &mut fours {
            let (a, rest) = four.split_at_mut(rows);
            let (b, rest) = rest.split_at_mut(rows);
            let (c, d) = rest.split_at_mut(rows);
            let places = a[here.clone()].iter_mut().zip(&mut b[here.clone()]).zip(&mut c[here.clone()]).zip(&mut d[here.clone()]);
            for (row, (((a, b), c), d)) in tile.chunks_exact(columns).zip(places) {
                let values = &row[column..column + 4];
                (*a, *b, *c, *d) = (values[0], values[1], values[2], values[3]);
            }
            column += 4;
        }
        for out in fours.into_remainder().chunks_exact_mut(rows) {
            out[here.clone()].iter_mut().zip(tile[column..].iter().step_by(columns)).for_each(|(out, value)| *out = *value);
            column += 1;
        }
    }
}

/// The columns of `values`, each `rows` long, as rows one after another.
pub(super) fn to_rows(values: &[u32], rows: usize, out: &mut [u32]) {
    if values.is_empty() || rows == 0 {
        return;
    }
    let columns = values.len() / rows;
    let mut column = 0;
    let mut fours = values.chunks_exact(4 * rows);
    for four in &mut fours {
        let (a, rest) = four.split_at(rows);
        let (b, rest) = rest.split_at(rows);
        let (c, d) = rest.split_at(rows);
        for ((((row, a), b), c), d) in out.chunks_exact_mut(columns).zip(a).zip(b).zip(c).zip(d) {
            row[column..column + 4].copy_from_slice(&[*a, *b, *c, *d]);
        }
        column += 4;
    }
    for values in fours.remainder().chunks_exact(rows) {
        out.iter_mut().skip(column).step_by(columns).zip(values).for_each(|(out, value)| *out = *value);
        column += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_goes_there_and_back() {
        for rows in [0usize, 1, 3, 4, 63, 64, 65, 200] {
            for columns in [0usize, 1, 2, 3, 4, 5, 26] {
                let values: Vec<u32> = (0..(rows * columns) as u32).collect();
                let (mut turned, mut back) = (vec![0; values.len()], vec![0; values.len()]);
                to_columns(&values, columns, &mut turned);
                for (i, &value) in turned.iter().enumerate() {
                    assert_eq!(value as usize, i % rows * columns + i / rows, "{rows} rows, {columns} columns");
                }
                to_rows(&turned, rows, &mut back);
                assert_eq!(back, values, "{rows} rows, {columns} columns");
            }
        }
    }
}
