//! Rows that changed and are not in the file yet. A row of 64 bytes in a file costs the disk a page of 4 KiB, or whatever larger unit
//! the system caches it in; held back until others of the same page have changed too, it costs a part of that, and a row that
//! changes again before costs nothing.
//!
//! The file is cut into regions. When more rows are held than there should be, the next region in turn gives up all of its rows,
//! in the order of their places. So each region is written about equally often, and never much at once.

use hashbrown::HashMap;
use std::ops::Range;

/// Rows for which room is made at a time once as many are held as should be.
const SLACK: usize = 1 << 12;

/// Bytes of the file that form a region.
const REGION: u64 = 1 << 20;
/// Bytes beside its values that a held row takes, about: its entry in a table that is two thirds full, and its place when it is free.
const BESIDE: u64 = 20;

/// Bytes of memory that holding a row of `width` words takes.
pub(super) fn bytes_of_row(width: usize) -> u64 {
    4 * width as u64 + BESIDE
}

/// Held rows.
pub(super) struct Held {
    width: usize,
    /// Rows of a region.
    region: u64,
    /// Of each region: where in `values` its rows are, by their numbers in the region.
    places: Vec<HashMap<u32, u32>>,
    /// `[places, width]`
    values: Vec<u32>,
    /// Places without a row.
    free: Vec<u32>,
    /// Rows that may be held for longer than a step.
    most: usize,
    /// The region that is written next.
    next: usize,
}

impl Held {
    /// None of `rows` rows of `width` words; they shall take no more than `bytes`, or what the system gives.
    pub(super) fn new(rows: u64, width: usize, bytes: u64) -> Held {
        let region = (REGION / (4 * width as u64)).max(1);
        let mut most = (bytes / bytes_of_row(width)).min(rows).min(u32::MAX as u64 / 2) as usize;
        let mut values = Vec::new();
        // the system finds pages for it when they are first written
        while values.try_reserve_exact(most.saturating_mul(width)).is_err() {
            most /= 2;
        }
        let places = (0..rows.div_ceil(region)).map(|_| HashMap::new()).collect();
        Held { width, region, places, values, free: Vec::new(), most, next: 0 }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.values.len() / self.width - self.free.len()
    }

    /// The region of a row, and its number there.
    fn region_of(&self, number: u64) -> (usize, u32) {
        ((number / self.region) as usize, (number % self.region) as u32)
    }

    fn span(&self, place: u32) -> Range<usize> {
        place as usize * self.width..(place as usize + 1) * self.width
    }

    /// A row, if it is held.
    pub(super) fn get(&self, number: u64) -> Option<&[u32]> {
        let (region, at) = self.region_of(number);
        self.places[region].get(&at).map(|&place| &self.values[self.span(place)])
    }

    /// A row to be changed, held from now on; `row` is what it is now where it was not.
    pub(super) fn hold(&mut self, number: u64, row: &[u32]) -> &mut [u32] {
        let (region, at) = self.region_of(number);
        let (values, free, width) = (&mut self.values, &mut self.free, self.width);
        let new = || match free.pop() {
            Some(place) => {
                values[place as usize * width..][..width].copy_from_slice(row);
                place
            }
            None => {
                if values.len() == values.capacity() {
                    values.reserve_exact(SLACK * width); // a step holds all its rows before the first are written
                }
                values.extend_from_slice(row);
                (values.len() / width - 1) as u32
            }
        };
        let place = *self.places[region].entry(at).or_insert_with(new);
        let span = self.span(place);
        &mut self.values[span]
    }

    /// The held ones of some rows, in any order.
    pub(super) fn among(&self, rows: Range<u64>) -> impl Iterator<Item = (u64, &[u32])> {
        let regions = if rows.is_empty() { 0..0 } else { self.region_of(rows.start).0..self.region_of(rows.end - 1).0 + 1 };
        let of_region = move |region: usize| {
            let first = region as u64 * self.region;
            self.places[region].iter().map(move |(&at, &place)| (first + at as u64, &self.values[self.span(place)]))
        };
        regions.flat_map(of_region).filter(move |(number, _)| rows.contains(number))
    }

    /// The numbers of rows to be written now, so that no more stay than may, ascending.
    pub(super) fn due(&mut self) -> Vec<u64> {
        let (mut numbers, count) = (Vec::new(), self.len());
        while count - numbers.len() > self.most {
            let first = self.next as u64 * self.region;
            numbers.extend(self.places[self.next].keys().map(|&at| first + at as u64));
            self.next = (self.next + 1) % self.places.len();
        }
        numbers.sort_unstable();
        numbers
    }

    /// Gives up rows, which are written.
    pub(super) fn release(&mut self, numbers: &[u64]) {
        for &number in numbers {
            let (region, at) = self.region_of(number);
            self.free.extend(self.places[region].remove(&at));
            if self.places[region].is_empty() {
                self.places[region] = HashMap::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_more_rows_stay_than_may_and_regions_take_turns() {
        let (rows, width) = (200_000, 16); // 13 regions of 16,384 rows
        let mut held = Held::new(rows, width, 300 * bytes_of_row(width));
        let mut there = BTreeSet::new();
        let mut written = Vec::new();
        for round in 0..400u64 {
            for i in 0..50 {
                let number = crate::rng::Stream::new(round, 3).below(i, rows);
                let row = held.hold(number, &[number as u32; 16]);
                assert_eq!(row, [number as u32; 16], "nothing else is in its place");
                there.insert(number);
            }
            assert_eq!(held.len(), there.len());
            let due = held.due();
            assert!(due.is_sorted() && due.iter().all(|number| there.contains(number)));
            held.release(&due);
            due.iter().for_each(|number| assert!(there.remove(number) && held.get(*number).is_none()));
            assert!(held.len() <= 300 && (round < 10 || held.len() > 300 - 250), "{}", held.len());
            written.extend(due);
        }
        assert!(held.values.len() <= 350 * width, "free places are taken again");
        let per_region = written.iter().fold([0; 13], |mut count, number| {
            count[(number / 16_384) as usize] += 1;
            count
        });
        assert!(per_region[..12].iter().all(|&n| n > 1_000), "{per_region:?}");
        there.iter().for_each(|&number| assert_eq!(held.get(number).unwrap(), [number as u32; 16]));
        let among: BTreeSet<u64> = held.among(16_000..40_000).map(|(number, _)| number).collect();
        assert_eq!(among, there.range(16_000..40_000).copied().collect());
        assert_eq!(held.among(5..5).count(), 0);
    }

    #[test]
    fn a_row_that_is_held_keeps_its_values_whatever_the_file_has() {
        let mut held = Held::new(10, 2, 1000);
        held.hold(3, &[1, 2])[1] = 7;
        assert_eq!(held.hold(3, &[8, 9]), [1, 7]);
        assert_eq!((held.get(3), held.get(4)), (Some(&[1, 7][..]), None));
    }

    #[test]
    fn without_memory_every_row_is_due() {
        let mut held = Held::new(10, 2, 0);
        held.hold(9, &[1, 2]);
        held.hold(3, &[1, 2]);
        assert_eq!(held.due(), [3, 9]);
    }
}
