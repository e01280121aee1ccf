//! Sorting one table's ids, so that each can be listed once.

/// Fewer ids than this are sorted by comparing them.
const FEW: usize = 256;
/// The widest digit of a radix sort, in bits: 4,096 counters stay in the first cache.
const DIGIT: u32 = 12;

/// Memory that is used again for every table.
#[derive(Debug, Default)]
pub(super) struct Sorter {
    /// Ids of a table in the order of the samples.
    pub(super) ids: Vec<u32>,
    counters: Vec<u32>,
    /// (id, occurrence) in one word each.
    pairs: Vec<u64>,
    spare: Vec<u64>,
    room: Vec<u32>,
}

impl Sorter {
    /// Every occurrence as its id above its number in `ids` (32 bits each), sorted, and room for two numbers for each. Ids
    /// must be below `rows`.
    pub(super) fn sorted(&mut self, rows: u64) -> (&[u64], &mut [u32], &mut [u32]) {
        self.pairs.clear();
        self.pairs.extend(self.ids.iter().zip(0u64..).map(|(&id, i)| u64::from(id) << 32 | i));
        if self.ids.len() < FEW {
            self.pairs.sort_unstable();
        } else {
            let bits = 64 - rows.saturating_sub(1).leading_zeros();
            let passes = bits.div_ceil(DIGIT).max(1);
            let digit = bits.div_ceil(passes).max(1);
            (0..passes).for_each(|pass| self.pass(32 + pass * digit, digit));
        }
        let n = self.pairs.len();
        self.room.resize(2 * n, 0);
        let (a, b) = self.room.split_at_mut(n);
        (&self.pairs, a, b)
    }

    /// Sorts by `digit` bits from `shift` on; equal ones keep their order.
    fn pass(&mut self, shift: u32, digit: u32) {
        let mask = (1usize << digit) - 1;
        self.counters.clear();
        self.counters.resize(mask + 1, 0);
        for &pair in &self.pairs {
            self.counters[(pair >> shift) as usize & mask] += 1;
        }
        starts(&mut self.counters);
        self.spare.resize(self.pairs.len(), 0);
        for &pair in &self.pairs {
            let place = &mut self.counters[(pair >> shift) as usize & mask];
            self.spare[*place as usize] = pair;
            *place += 1;
        }
        std::mem::swap(&mut self.pairs, &mut self.spare);
    }
}

/// Counts become the sums of those before.
fn starts(counters: &mut [u32]) {
    let mut sum = 0;
    for counter in counters {
        sum += std::mem::replace(counter, sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn all_ways_sort_alike() {
        let (s, mut sorter) = (Stream::new(1, 1), Sorter::default());
        for (case, (n, rows)) in (0u64..).zip([
            (0, 1),
            (1, 1),
            (255, 10),
            (255, 1 << 30),
            (256, 1),
            (256, 2),
            (300, 4096),
            (300, 4097),
            (2048, 10_131_227),
            (5000, u64::from(u32::MAX)),
        ]) {
            // half of the ids are frequent
            let id = |i: u64| s.sub(case).below(i, if i.is_multiple_of(2) { rows } else { rows.min(7) }) as u32;
            sorter.ids = (0..n).map(id).collect();
            if let Some(last) = sorter.ids.last_mut() {
                *last = (rows - 1) as u32;
            }
            let mut wanted: Vec<(u32, u32)> = sorter.ids.iter().copied().zip(0..).collect();
            wanted.sort();
            let found: Vec<(u32, u32)> = sorter.sorted(rows).0.iter().map(|&pair| ((pair >> 32) as u32, pair as u32)).collect();
            assert_eq!(found, wanted, "{n} ids of {rows} rows");
        }
    }
}
