//! The rows that all workers together touch, and where each worker's rows are among them.

use super::ids::RowLists;

/// The union of several ranks' lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Union {
    /// Every row that some rank touches, once.
    pub lists: RowLists,
    /// For each rank, the place of each of its rows in the union, ascending.
    pub places: Vec<Vec<u32>>,
}

impl Union {
    /// Merges the lists of all ranks, table by table.
    pub fn new(ranks: &[&RowLists]) -> Union {
        let tables = ranks.first().map_or(0, |lists| lists.tables());
        let mut union = Union { lists: RowLists::default(), places: ranks.iter().map(|l| Vec::with_capacity(l.len())).collect() };
        let (mut keys, mut merged): (Vec<u64>, Vec<u32>) = (Vec::new(), Vec::new());
        for table in 0..tables {
            let first = union.lists.len();
            keys.clear();
            merged.clear();
            for (rank, lists) in ranks.iter().enumerate() {
                keys.extend(lists.table(table).iter().map(|&row| u64::from(row) << 32 | rank as u64));
            }
            // runs that are sorted already are merged by this sort, not sorted again
            keys.sort();
            for &key in &keys {
                let (row, rank) = ((key >> 32) as u32, key as u32 as usize);
                if merged.last() != Some(&row) {
                    merged.push(row);
                }
                union.places[rank].push((first + merged.len() - 1) as u32);
            }
            union.lists.push_table(&merged);
        }
        union
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.lists.len()
    }

    /// True when no rank touches any row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows that `owner` of `world` ranks sums: a run of the union, all runs of nearly equal length.
    pub fn owned(&self, owner: usize, world: usize) -> std::ops::Range<usize> {
        self.len() * owner / world..self.len() * (owner + 1) / world
    }

    /// Which of a rank's rows lie in a run of the union.
    pub fn within(&self, rank: usize, run: &std::ops::Range<usize>) -> std::ops::Range<usize> {
        let places = &self.places[rank];
        places.partition_point(|&p| (p as usize) < run.start)..places.partition_point(|&p| (p as usize) < run.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(tables: &[&[u32]]) -> RowLists {
        let mut lists = RowLists::default();
        tables.iter().for_each(|rows| lists.push_table(rows));
        lists
    }

    #[test]
    fn every_row_stands_once_and_is_found_by_its_ranks() {
        let ranks = [lists(&[&[1, 5, 9], &[], &[0]]), lists(&[&[5, 7], &[], &[]]), lists(&[&[], &[], &[0, 3]])];
        let union = Union::new(&ranks.iter().collect::<Vec<_>>());
        assert_eq!(union.lists, lists(&[&[1, 5, 7, 9], &[], &[0, 3]]));
        assert_eq!(union.places, [vec![0, 1, 3, 4], vec![1, 2], vec![4, 5]]);
        let runs: Vec<_> = (0..4).map(|owner| union.owned(owner, 4)).collect();
        assert_eq!(runs, [0..1, 1..3, 3..4, 4..6]);
        assert_eq!(union.within(0, &runs[1]), 1..2);
        assert_eq!(union.within(2, &runs[3]), 0..2);
        assert_eq!(runs.iter().map(|run| union.within(0, run).len()).sum::<usize>(), 4);
    }
}
