//! A store behaves like plain memory, whatever was announced.

use super::*;
use crate::rng::Stream;

/// What a store should hold: rows of weights and state.
struct Plain {
    layout: RowLayout,
    rows: Vec<Vec<u32>>,
}

fn layout(state: usize) -> RowLayout {
    RowLayout { rows: vec![700, 1, 300, 256, 5], dim: 3, state }
}

/// Memory, and files in a folder that lives as long as the test: one for which all rows wait, one for which some do and one for which
/// none does.
fn stores(layout: RowLayout) -> (tempfile::TempDir, [HostTables; 4]) {
    let dir = tempfile::tempdir().unwrap();
    let in_file = |held| HostTables::create_holding(dir.path(), layout.clone(), held).unwrap();
    let stores = [HostTables::in_memory(layout.clone()).unwrap(), in_file(1 << 20), in_file(60 * 40), in_file(0)];
    (dir, stores)
}

impl Plain {
    fn new(layout: RowLayout) -> Plain {
        Plain { rows: vec![vec![0; layout.width()]; layout.total_rows() as usize], layout }
    }

    fn read(&self, numbers: Vec<u64>) -> Rows {
        let dim = self.layout.dim;
        let part = |from: usize, to: usize| numbers.iter().flat_map(|&n| self.rows[n as usize][from..to].to_vec()).collect();
        Rows { weights: part(0, dim), state: part(dim, self.layout.width()), numbers: numbers.clone() }
    }

    fn write(&mut self, rows: &Rows) {
        let (dim, state) = (self.layout.dim, self.layout.state);
        for (i, &n) in rows.numbers.iter().enumerate() {
            let values = [&rows.weights[i * dim..(i + 1) * dim], &rows.state[i * state..(i + 1) * state]];
            self.rows[n as usize] = values.concat();
        }
    }

    /// First row of each table, and the end.
    fn base(&self, table: usize) -> usize {
        self.layout.rows[..table].iter().sum::<u64>() as usize
    }

    fn largest(&self) -> Vec<u32> {
        let of =
            |k: usize| self.rows[self.base(k)..self.base(k + 1)].iter().flat_map(|row| &row[..self.layout.dim]).map(|w| w & 0x7fff_ffff);
        (0..self.layout.rows.len()).map(|k| of(k).max().unwrap()).collect()
    }

    fn values(&mut self, table: usize, state: bool) -> Vec<&mut u32> {
        let (from, to) = if state { (self.layout.dim, self.layout.width()) } else { (0, self.layout.dim) };
        let rows = self.base(table)..self.base(table + 1);
        self.rows[rows].iter_mut().flat_map(|row| &mut row[from..to]).collect()
    }
}

/// Numbers that repeat from call to call, so that rows written are read again soon.
fn some_numbers(draws: &Stream, round: u64, total: u64) -> Vec<u64> {
    let mut numbers: Vec<u64> = (0..40).map(|i| draws.below(round * 100 + i, total) / (1 + round % 3 * 7)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn changed(mut rows: Rows, draws: &Stream, round: u64) -> Rows {
    let value = |i: usize| draws.normal((round << 32) + i as u64) as f32 * if (round + i as u64).is_multiple_of(5) { 1e-3 } else { 1.0 };
    rows.weights.iter_mut().enumerate().for_each(|(i, w)| *w = value(i).to_bits());
    rows.state.iter_mut().enumerate().for_each(|(i, w)| *w = value(i + 1000).to_bits());
    rows
}

#[test]
fn announced_or_not_rows_are_as_if_all_were_in_place() {
    for (state, mut store) in [0, 1, 3].into_iter().flat_map(|state| stores(layout(state)).1.map(|store| (state, store))) {
        let mut plain = Plain::new(layout(state));
        let (draws, total) = (Stream::new(1, state as u64), layout(state).total_rows());
        let numbers = |round: u64| some_numbers(&draws, round, total);
        for round in 0..300 {
            let rows = store.read(numbers(round)).unwrap();
            assert_eq!(rows, plain.read(numbers(round)), "round {round}, {state} values of state");
            match round % 7 {
                0 => {}
                1 => store.announce(numbers(round + 5)).unwrap(), // something else is read next
                _ => store.announce(numbers(round + 1)).unwrap(),
            }
            if round % 11 < 2 {
                assert_eq!(store.largest().unwrap(), plain.largest(), "round {round}");
            }
            if round % 5 > 0 {
                let rows = changed(rows, &draws, round);
                plain.write(&rows);
                store.write(rows).unwrap();
            }
            if round % 13 == 0 {
                assert_eq!(store.largest().unwrap(), plain.largest(), "round {round}, behind what was written");
            }
        }
    }
}

#[test]
fn the_largest_magnitude_falls_when_its_row_shrinks_and_shows_a_nan() {
    for mut store in stores(layout(0)).1 {
        let mut set = |number: u64, value: f32| {
            store.write(Rows { numbers: vec![number], weights: vec![0, value.to_bits(), 0], state: Vec::new() }).unwrap();
            f32::from_bits(store.largest().unwrap()[0])
        };
        assert_eq!(set(3, -5.0), 5.0);
        assert_eq!(set(600, 4.0), 5.0);
        assert_eq!(set(4, 3.0), 5.0);
        assert_eq!(set(3, 1.0), 4.0, "another block holds the largest now");
        assert_eq!(set(600, 0.0), 3.0, "and now another row of the first block");
        assert!(set(699, f32::NAN).is_nan());
        assert_eq!(set(699, 0.0), 3.0);
    }
}

#[test]
fn tables_are_filled_and_copied_in_pieces_of_any_length() {
    for (state, mut store) in [0, 2].into_iter().flat_map(|state| stores(layout(state)).1.map(|store| (state, store))) {
        let mut plain = Plain::new(layout(state));
        let make = |first: u64, values: &mut [f32]| values.iter_mut().zip(first..).for_each(|(v, i)| *v = -(i as f32));
        for (first, count) in [(0, 100), (100, 412), (512, 188)] {
            store.announce(vec![0, 150]).unwrap();
            store.fill(0, first, count, &make).unwrap();
        }
        plain.values(0, false).into_iter().enumerate().for_each(|(i, v)| *v = (-(i as f32)).to_bits());
        assert_eq!(store.read(vec![0, 150]).unwrap(), plain.read(vec![0, 150]), "what was announced before is not stale");
        assert_eq!(store.largest().unwrap(), plain.largest());
        let mut pieces = vec![(0, false, 5, 1000), (2, false, 0, 900), (3, false, 1, 767), (0, false, 770, 1)];
        if state > 0 {
            pieces.extend([(0, true, 3, 999), (4, true, 0, 10)]);
        }
        for (table, of_state, start, len) in pieces {
            let values: Vec<f32> = (0..len).map(|i| (i as f32 - 400.0) * 0.5).collect();
            store.write_values(table, of_state, start as u64, &values).unwrap();
            plain.values(table, of_state).into_iter().skip(start).zip(&values).for_each(|(to, v)| *to = v.to_bits());
            assert_eq!(store.largest().unwrap(), plain.largest(), "{table} {of_state} {start} {len}");
            let mut back = vec![0.0; len];
            store.read_values(table, of_state, start as u64, &mut back).unwrap();
            assert_eq!(back, values);
        }
        let all: Vec<u64> = (0..layout(state).total_rows()).collect();
        assert_eq!(store.read(all.clone()).unwrap(), plain.read(all));
        assert_eq!(store.read(Vec::new()).unwrap(), Rows::default());
    }
}

#[test]
fn rows_filled_again_lose_their_state() {
    for mut store in stores(layout(1)).1 {
        store.write(Rows { numbers: vec![2, 701], weights: vec![7; 6], state: vec![9, 9] }).unwrap();
        store.fill(0, 1, 3, &|_, values| values.fill(3.0)).unwrap();
        let rows = store.read(vec![2, 701]).unwrap();
        assert_eq!((rows.weights, rows.state), ([[3f32.to_bits(); 3], [7; 3]].concat(), vec![0, 9]));
    }
}

#[test]
fn stores_say_where_they_keep_rows_and_refuse_more_than_any_memory() {
    assert_eq!(stores(layout(0)).1.each_ref().map(RowStore::place), ["memory", "a file", "a file", "a file"]);
    let text = HostTables::in_memory(RowLayout { rows: vec![u64::MAX / 2; 3], dim: 128, state: 0 }).unwrap_err().to_string();
    assert!(text.contains("larger than any memory"), "{text}");
    let text = HostTables::in_memory(RowLayout { rows: vec![1 << 50], dim: 128, state: 0 }).unwrap_err().to_string();
    assert!(text.contains("refuses 576460752303423488 bytes"), "{text}");
}

/// Rows of many pages and of several regions of the file, changed here and there, in runs and again and again.
#[test]
fn rows_that_wait_come_to_their_places_in_the_file() {
    let layout = RowLayout { rows: vec![30_000, 90_000], dim: 6, state: 2 };
    let (dir, draws) = (tempfile::tempdir().unwrap(), Stream::new(5, 1));
    let mut store = HostTables::create_holding(dir.path(), layout.clone(), 3_000 * held::bytes_of_row(8)).unwrap();
    let mut plain = Plain::new(layout);
    for round in 0..60 {
        let from = draws.below(round, 119_000);
        let mut numbers: Vec<u64> = (0..200).map(|i| draws.below(1000 + round * 1000 + i, 120_000)).chain(from..from + 150).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let rows = changed(plain.read(numbers), &draws, round);
        plain.write(&rows);
        store.write(rows).unwrap();
        store.announce(vec![round]).unwrap();
        store.wait().unwrap();
        if round == 40 {
            let mut values = vec![0.0; 700];
            store.read_values(1, false, 100, &mut values).unwrap();
            assert_eq!(values.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), {
                let all = plain.values(1, false);
                all[100..800].iter().map(|w| **w).collect::<Vec<_>>()
            });
        }
    }
    let all: Vec<u64> = (0..120_000).collect();
    assert_eq!(store.idle().unwrap().read(all.clone()), plain.read(all.clone()), "some held, some in the file");
    let kept = store.kept.clone();
    let mut kept = kept.lock().unwrap();
    let place::Place::File(file) = kept.place_mut() else { panic!("not in a file") };
    assert!(file.held_rows() > 500 && file.held_rows() <= 3_000, "{}", file.held_rows());
    file.flush(0..120_000).unwrap();
    assert_eq!(file.held_rows(), 0);
    assert_eq!(kept.read(all.clone()), plain.read(all), "all in the file");
}

#[cfg(unix)]
#[test]
fn a_write_that_fails_is_an_error_and_loses_no_row() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = HostTables::create_holding(dir.path(), layout(1), 0).unwrap();
    let mut plain = Plain::new(layout(1));
    let rows = Rows { numbers: vec![2, 5, 701], weights: (1..10).collect(), state: vec![20, 21, 22] };
    if let place::Place::File(file) = store.kept.lock().unwrap().place_mut() {
        file.break_file();
    }
    plain.write(&rows);
    store.write(rows).unwrap();
    store.announce(vec![2, 3]).unwrap();
    let text = store.read(vec![2, 3]).unwrap_err().to_string();
    let parts =
        ["cannot write changed rows to the tables' file in", &dir.path().display().to_string(), "Bad file descriptor", "--table-dir"];
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    let numbers = vec![2, 3, 5, 701];
    assert_eq!(store.kept.lock().unwrap().read(numbers.clone()), plain.read(numbers), "the rows are still there");
    assert!(store.read(vec![2]).is_err() && store.largest().is_err(), "and nobody is told that all is well");
    assert!(store.fill(0, 0, 10, &|_, _| {}).is_err());
}

#[test]
fn rows_that_wait_take_an_eighth_of_what_there_is_and_at_least_64_mib_where_they_may() {
    let layout = |rows| RowLayout { rows: vec![rows], dim: 16, state: 0 };
    let of = |rows, available| bytes_held(&layout(rows), available);
    assert_eq!(of(100_000_000, Some(1 << 40)), 100_000_000 * 84 / 8);
    assert_eq!(of(100_000_000, Some(2 << 30)), 256 << 20);
    assert_eq!(of(2_000_000, Some(2 << 30)), 64 << 20);
    assert_eq!([of(10, Some(2 << 30)), of(10, Some(80)), of(10, Some(0))], [840, 10, 0]);
    assert_eq!(of(100_000_000, None), 64 << 20);
}
