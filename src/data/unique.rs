//! Listing one table's ids, each once and in order, with the places where it occurs.

/// Fewer ids than this are sorted by comparing them.
const FEW: usize = 128;
/// The widest digit of a radix sort, in bits: its counters stay in the first cache.
const DIGIT: u32 = 11;

/// Memory that is used again for every table.
///
/// Occurrences are walked through in two halves at the same time, each with its own counters: two increments of one counter
/// wait for each other, and some ids are very frequent.
#[derive(Debug, Default)]
pub(super) struct Lister {
    /// Of each row or digit, in each half: how often it occurs, then where the next one goes.
    counters: Vec<[u32; 2]>,
    /// By row: its place in the list.
    places: Vec<u32>,
    /// (id, occurrence) in one word each.
    pairs: Vec<u64>,
    spare: Vec<u64>,
}

impl Lister {
    /// Appends every different one of `ids`, which are at most `largest`, to `distinct` in rising order, and to `ends` where its
    /// occurrences end, when the first begins at `filled`. Gives `each` every occurrence, its id's place in the list, and
    /// where it belongs among all occurrences in the order of the ids.
    pub(super) fn list(
        &mut self,
        ids: &[u32],
        largest: u32,
        filled: u32,
        distinct: &mut Vec<u32>,
        ends: &mut Vec<u32>,
        each: impl FnMut(usize, u32, u32),
    ) {
        if (largest as usize) < ids.len() {
            self.by_row(ids, largest as usize + 1, filled, distinct, ends, each);
        } else {
            self.sort(ids, largest);
            self.by_run(filled, distinct, ends, each);
        }
    }

    /// Counts the occurrences of each row.
    fn by_row(
        &mut self,
        ids: &[u32],
        rows: usize,
        filled: u32,
        distinct: &mut Vec<u32>,
        ends: &mut Vec<u32>,
        mut each: impl FnMut(usize, u32, u32),
    ) {
        tally(&mut self.counters, rows, ids, |id| id as usize);
        self.places.resize(rows.max(self.places.len()), 0);
        let (before, listed) = (distinct.len(), rows.min(ids.len()));
        distinct.resize(before + listed + 1, 0);
        ends.resize(ends.len() + listed + 1, 0);
        let room = ends.len() - listed - 1;
        let (distinct_room, ends_room) = (&mut distinct[before..], &mut ends[room..]);
        let (mut end, mut found) = (0, 0);
        for ((id, counter), place) in (0..).zip(&mut self.counters).zip(&mut self.places) {
            let [a, b] = *counter;
            *counter = [end, end + a];
            end += a + b;
            *place = found as u32;
            // without a branch, which would often be guessed wrongly: what comes next writes over a row that does not occur
            distinct_room[found] = id;
            ends_room[found] = filled + end;
            found += usize::from(a + b > 0);
        }
        distinct.truncate(before + found);
        ends.truncate(room + found);
        in_halves(ids, |half, occurrence, id| {
            let next = &mut self.counters[id as usize][half];
            each(occurrence, self.places[id as usize], *next);
            *next += 1;
        });
    }

    /// Every occurrence as its id above its number in `ids` (32 bits each), sorted.
    fn sort(&mut self, ids: &[u32], largest: u32) {
        let pair = |id: u32, i: usize| u64::from(id) << 32 | i as u64;
        self.pairs.resize(ids.len(), 0);
        if ids.len() < FEW {
            self.pairs.iter_mut().zip(ids).enumerate().for_each(|(i, (place, &id))| *place = pair(id, i));
            self.pairs.sort_unstable();
            return;
        }
        let bits = (32 - largest.leading_zeros()).max(1);
        let digit = bits.div_ceil(bits.div_ceil(DIGIT));
        self.spare.resize(ids.len(), 0);
        pass(&mut self.counters, digit, ids, &mut self.pairs, |id| id, pair);
        for shift in (digit..bits).step_by(digit as usize) {
            pass(&mut self.counters, digit, &self.pairs, &mut self.spare, |pair| (pair >> 32 >> shift) as u32, |pair, _| pair);
            std::mem::swap(&mut self.pairs, &mut self.spare);
        }
    }

    /// Lists what was sorted.
    fn by_run(&self, filled: u32, distinct: &mut Vec<u32>, ends: &mut Vec<u32>, mut each: impl FnMut(usize, u32, u32)) {
        let n = self.pairs.len();
        let (before, room) = (distinct.len(), ends.len());
        distinct.resize(before + n, 0);
        ends.resize(room + n, 0);
        let (distinct_room, ends_room) = (&mut distinct[before..], &mut ends[room..]);
        let (mut last, mut found) = (u64::MAX, 0);
        for (&pair, at) in self.pairs.iter().zip(0u32..) {
            let id = pair >> 32;
            // without a branch, as above: an id's last occurrence writes last
            found += usize::from(id != last);
            last = id;
            distinct_room[found - 1] = id as u32;
            ends_room[found - 1] = filled + at + 1;
            each(pair as u32 as usize, found as u32 - 1, at);
        }
        distinct.truncate(before + found);
        ends.truncate(room + found);
    }
}

/// Puts what `make` makes of each value and its place into `out`, sorted by the lowest `digit` bits of `key`; equal ones keep
/// their order.
fn pass<T: Copy>(
    counters: &mut Vec<[u32; 2]>,
    digit: u32,
    values: &[T],
    out: &mut [u64],
    key: impl Fn(T) -> u32,
    make: impl Fn(T, usize) -> u64,
) {
    let mask = (1usize << digit) - 1;
    tally(counters, mask + 1, values, |value| key(value) as usize & mask);
    let mut sum = 0;
    for counter in &mut *counters {
        let [a, b] = *counter;
        *counter = [sum, sum + a];
        sum += a + b;
    }
    in_halves(values, |half, i, value| {
        let next = &mut counters[key(value) as usize & mask][half];
        out[*next as usize] = make(value, i);
        *next += 1;
    });
}

/// Gives `each` the values of both halves in turn: the half, the place and the value.
fn in_halves<T: Copy>(values: &[T], mut each: impl FnMut(usize, usize, T)) {
    let (first, second) = values.split_at(values.len() / 2);
    for (i, (&a, &b)) in first.iter().zip(second).enumerate() {
        each(0, i, a);
        each(1, first.len() + i, b);
    }
    if let Some(&last) = second.get(first.len()) {
        each(1, values.len() - 1, last);
    }
}

/// Counts how often each of `size` keys occurs in each half.
fn tally<T: Copy>(counters: &mut Vec<[u32; 2]>, size: usize, values: &[T], key: impl Fn(T) -> usize) {
    counters.clear();
    counters.resize(size, [0; 2]);
    in_halves(values, |half, _, value| counters[key(value)][half] += 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn all_ways_list_alike() {
        let (s, mut lister) = (Stream::new(1, 1), Lister::default());
        for (case, (n, rows)) in (0u64..).zip([
            (1, 1),
            (3, u64::from(u32::MAX) + 1),
            (63, 10),
            (200, 1 << 30),
            (256, 1),
            (256, 2),
            (300, 300),
            (300, 301),
            (2048, 10_131_227),
            (5000, u64::from(u32::MAX) + 1),
        ]) {
            // half of the ids are frequent
            let id = |i: u64| s.sub(case).below(i, if i.is_multiple_of(2) { rows } else { rows.min(7) }) as u32;
            let mut ids: Vec<u32> = (0..n).map(id).collect();
            if let Some(last) = ids.last_mut() {
                *last = (rows - 1) as u32;
            }
            let mut sorted: Vec<(u32, u32)> = ids.iter().copied().zip(0..).collect();
            sorted.sort();
            let mut distinct: Vec<u32> = sorted.iter().map(|(id, _)| *id).collect();
            distinct.dedup();
            let (mut found, mut ends, mut placed) = (vec![9], vec![8], vec![(0, u32::MAX); n as usize]);
            lister.list(&ids, (rows - 1) as u32, 50, &mut found, &mut ends, |occurrence, place, at| {
                assert_eq!(distinct[place as usize], ids[occurrence]);
                placed[at as usize] = (ids[occurrence], occurrence as u32);
            });
            assert_eq!((found[0], &found[1..]), (9, &distinct[..]), "{n} ids of {rows} rows");
            assert_eq!(placed, sorted, "{n} ids of {rows} rows");
            let wanted: Vec<u32> = distinct.iter().map(|id| 50 + sorted.partition_point(|(other, _)| other <= id) as u32).collect();
            assert_eq!((ends[0], &ends[1..]), (8, &wanted[..]), "{n} ids of {rows} rows");
        }
    }
}
