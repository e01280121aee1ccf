//! Three workers add up the gradients of one step, without a network: each is a state machine, and what they say to each
//! other is carried in memory. Shows what travels and that all end with the same sums.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use dqrm::Error;
use dqrm::config::{Model, Workers};
use dqrm::dist::exchange::{Exchange, Report, Seat};
use dqrm::dist::hub;
use dqrm::dist::ids::RowLists;
use dqrm::dist::layout::{Layout, Part};
use dqrm::dist::rows::Coded;
use dqrm::dist::team;
use std::sync::Arc;

const WORLD: usize = 3;

fn main() -> dqrm::Result<()> {
    let model = Model { rows: Some(vec![1000, 8]), dim: Some(4), bottom: Some(vec![8, 4]), top: Some(vec![8, 1]), ..Model::default() };
    let layout = Arc::new(Layout::new(&model.shape(None, None)?));
    let workers = Workers { count: WORLD, ..Workers::default() };
    let rank = |rank| Exchange::new(Seat { rank, world: WORLD, attempt: 0 }, layout.clone(), &workers, vec![4, 4], 0);
    let mut ranks: Vec<Exchange> = (0..WORLD).map(rank).collect();
    let refused = |r: dqrm::dist::exchange::Refused| Error::Plan(format!("rank {} {}", r.rank, r.reason));

    for (i, rank) in ranks.iter_mut().enumerate() {
        // The rows that this worker's batch touched: one that all touch, one of its own, and one of the small table.
        let mut rows = RowLists::new();
        rows.push_table(&[7, 100 + i as u32]);
        rows.push_table(&[i as u32]);
        rank.post_ids(0, rows).map_err(refused)?;
        // Their gradients: codes of 8 bits and a scale for each table. 10 steps of 0.1 are 1.
        rank.post_rows(0, Coded { scales: vec![0.1, 0.5], bytes: vec![10; 3 * 4] }).map_err(refused)?;
        for part in Part::ALL {
            let coded = Coded { scales: vec![0.01; layout.groups(part)], bytes: vec![1; layout.bytes(part, 8)] };
            rank.post_part(0, part, &coded).map_err(refused)?;
        }
        rank.post_report(0, Report { samples: 128, loss: 0.2, ..Report::default() }).map_err(refused)?;
    }
    let limits = team::limits(&ranks[0]);
    hub::deliver(&mut ranks, &limits, |rank, _, from, frame| rank.accept(from, frame)).map_err(refused)?;

    let mut sums = Vec::new();
    for rank in &mut ranks {
        sums.push(rank.take(0).map_err(refused)?.ok_or_else(|| Error::Plan("something is missing".into()))?);
    }
    assert!(sums.iter().all(|s| *s == sums[0]), "every rank has the same bits");
    let merged = &sums[0];
    for table in 0..2 {
        for (i, row) in merged.rows.table(table).iter().enumerate() {
            let at = (merged.rows.offsets()[table] + i) * 4;
            println!("table {table}, row {row:>3}: gradient {:.3}", merged.row_gradients[at]);
        }
    }
    assert!((merged.row_gradients[0] - 3.0).abs() < 1e-5, "row 7 was touched by all three");
    let bytes = ranks[0].ledger();
    println!("a gradient is {} bytes, of which {} say which rows", bytes.gradient.step(), bytes.gradient.ids);
    println!("rank 0 sent {} bytes and received {}", bytes.sent.step(), bytes.received.step());
    Ok(())
}
