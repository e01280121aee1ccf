//! Sorting one table's ids and listing each once.

/// Tables up to this many rows are counted row by row.
const COUNTED: usize = 4096;
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
}

impl Sorter {
    /// Gives `each` every occurrence (its number in `ids`), sorted by id and then by number, with whether its id is
    /// another than that of the occurrence before. Ids must be below `rows`.
    pub(super) fn sorted(&mut self, rows: u64, each: impl FnMut(u32, u32, bool)) {
        if self.ids.len() >= FEW && rows <= COUNTED as u64 {
            return self.counted(rows as usize, each);
        }
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
        list(&self.pairs, each);
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

    /// The same with a counter for each row.
    fn counted(&mut self, rows: usize, each: impl FnMut(u32, u32, bool)) {
        self.counters.clear();
        self.counters.resize(rows, 0);
        for &id in &self.ids {
            self.counters[id as usize] += 1;
        }
        starts(&mut self.counters);
        self.spare.resize(self.ids.len(), 0);
        for (&id, i) in self.ids.iter().zip(0u64..) {
            let place = &mut self.counters[id as usize];
            self.spare[*place as usize] = u64::from(id) << 32 | i;
            *place += 1;
        }
        list(&self.spare, each);
    }
}

fn list(sorted: &[u64], mut each: impl FnMut(u32, u32, bool)) {
    let mut last = None;
    for &pair in sorted {
        let id = (pair >> 32) as u32;
        each(id, pair as u32, last != Some(id));
        last = Some(id);
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
            let id = |i: u64| s.sub(case).below(i, if i % 2 == 0 { rows } else { rows.min(7) }) as u32;
            sorter.ids = (0..n).map(id).collect();
            if let Some(last) = sorter.ids.last_mut() {
                *last = (rows - 1) as u32;
            }
            let mut wanted: Vec<(u32, u32)> = sorter.ids.iter().copied().zip(0..).collect();
            wanted.sort();
            let mut found = Vec::new();
            let mut firsts = Vec::new();
            sorter.sorted(rows, |id, i, first| {
                found.push((id, i));
                if first {
                    firsts.push(id);
                }
            });
            assert_eq!(found, wanted, "{n} ids of {rows} rows");
            wanted.dedup_by_key(|(id, _)| *id);
            assert_eq!(firsts, wanted.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        }
    }
}
