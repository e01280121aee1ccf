//! The code for the rows that a batch touches.

use super::BATCHES;
use crate::common::{Spread, seconds};
use dqrm::config::Shape;
use dqrm::data::synthetic::Clicks;
use dqrm::data::{Block, Samples};
use dqrm::dist::ids::{self, RowLists};
use std::hint::black_box;

/// Calls that one timing is of, one for each batch in turn.
const CALLS: usize = 4 * BATCHES;

/// The rows that batches of `size` samples touch.
fn row_lists(clicks: &Clicks, size: usize) -> dqrm::Result<Vec<RowLists>> {
    let (mut block, k_count) = (Block::new(), clicks.rows().len());
    let one = |i: usize| {
        block.clear();
        clicks.fetch(&((i * size) as u64..((i + 1) * size) as u64).collect::<Vec<_>>(), &mut block)?;
        let mut lists = RowLists::new();
        for k in 0..k_count {
            let bags = block.offsets.windows(2).skip(k).step_by(k_count);
            let mut rows: Vec<u32> = bags.flat_map(|bag| &block.ids[bag[0] as usize..bag[1] as usize]).copied().collect();
            rows.sort_unstable();
            rows.dedup();
            lists.push_table(&rows);
        }
        Ok(lists)
    };
    (0..BATCHES).map(one).collect()
}

/// Microseconds of one call of `f`, which is called with the batches' numbers in turn.
fn micros(runs: usize, mut f: impl FnMut(usize)) -> Spread {
    let mut timing = || seconds(|| (0..CALLS).for_each(|i| f(i % BATCHES))) * 1e6 / CALLS as f64;
    timing();
    Spread::of(&(0..runs).map(|_| timing()).collect::<Vec<_>>())
}

/// Prints bytes, and megabytes of row numbers a second, of the code for touched rows.
pub(crate) fn print(shape: &Shape, clicks: &Clicks, runs: usize) -> dqrm::Result<()> {
    println!("\ntouched rows, a mean batch of {BATCHES}; times are medians of {runs}; MB/s are of row numbers as u32");
    println!(
        "{:>6} {:>10} {:>10} {:>10} {:>9} {:>10} {:>9} {:>10} {:>9} {:>10}",
        "batch", "rows", "as u32 B", "coded B", "bits/row", "encode us", "MB/s", "decode us", "MB/s", "bound B"
    );
    for size in super::SIZES {
        let lists = row_lists(clicks, size)?;
        let most = vec![size as u64; shape.tables()];
        let mut out = Vec::new();
        let coded: Vec<Vec<u8>> = lists.iter().map(|l| encoded(l, shape, std::mem::take(&mut out))).collect();
        let rows = lists.iter().map(RowLists::len).sum::<usize>() as f64 / BATCHES as f64;
        let bytes = coded.iter().map(Vec::len).sum::<usize>() as f64 / BATCHES as f64;
        let encode = micros(runs, |i| out = black_box(encoded(&lists[i], shape, std::mem::take(&mut out))));
        let mut back = RowLists::new();
        let decode = micros(runs, |i| {
            ids::decode_into(&coded[i], &shape.rows, &most, &mut back).expect("what was encoded is decoded");
            black_box(&back);
        });
        println!(
            "{size:>6} {rows:>10.0} {:>10.0} {bytes:>10.0} {:>9.2} {:>10.1} {:>9.0} {:>10.1} {:>9.0} {:>10}",
            4.0 * rows,
            8.0 * bytes / rows,
            encode.median,
            4.0 * rows / encode.median,
            decode.median,
            4.0 * rows / decode.median,
            ids::most_bytes(&shape.rows, &most)
        );
    }
    Ok(())
}

/// The lists as bytes, in the memory of `out`.
fn encoded(lists: &RowLists, shape: &Shape, mut out: Vec<u8>) -> Vec<u8> {
    out.clear();
    ids::encode(lists, &shape.rows, &mut out);
    out
}
