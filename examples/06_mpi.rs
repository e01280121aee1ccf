//! Frames of several sizes from every rank to every other, through MPI. Each rank checks what it gets: all frames of
//! a peer, in order, bit for bit.
//!
//! ```text
//! cargo build --release --features mpi --example 06_mpi
//! mpirun -np 3 target/release/examples/06_mpi
//! ```
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use dqrm::dist::frame::{Frame, Kind, Limits};
use dqrm::dist::transport::mpi::Mpi;
use dqrm::dist::transport::{Lost, Transport};
use dqrm::{Error, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of the payloads: none, some, more than MPI sends eagerly, a message to the byte, several messages.
const SIZES: [usize; 8] = [0, 1, 1000, 65_536, (1 << 20) - 32, 1 << 20, 5_000_001, 17];
const ROUNDS: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes that only this rank sends in this step.
fn payload(from: usize, step: u64, len: usize) -> Vec<u8> {
    let start = from as u64 * 1_000_003 + step * 7919;
    (start..start + len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn encoded(from: usize, kind: Kind, step: u64, payload: Vec<u8>) -> Arc<[u8]> {
    Frame { kind, part: 0, attempt: 0, from: from as u32, step, payload }.encode().into()
}

fn lost(lost: Lost) -> Error {
    Error::Peer { rank: lost.rank, reason: lost.reason, step: 0, phase: "example", kept: String::new() }
}

fn main() -> Result<()> {
    let mut limits = Limits::none();
    limits.allow(Kind::Rows, SIZES.into_iter().max().unwrap_or(0) as u64);
    let mut mpi = Mpi::start(limits, 0)?;
    let (me, world) = (mpi.rank(), mpi.world());
    let others: Vec<usize> = (0..world).filter(|&rank| rank != me).collect();

    let began = Instant::now();
    let (mut frames, mut bytes) = (0, 0);
    let mut due = vec![0u64; world];
    for round in 0..ROUNDS {
        for (i, len) in SIZES.into_iter().enumerate() {
            let step = round * SIZES.len() as u64 + i as u64;
            let frame = encoded(me, Kind::Rows, step, payload(me, step, len));
            others.iter().try_for_each(|&to| mpi.send(to, &frame)).map_err(lost)?;
        }
        while others.iter().any(|&rank| due[rank] < (round + 1) * SIZES.len() as u64) {
            let Some((from, frame)) = mpi.receive(PATIENCE).map_err(lost)? else {
                return Err(Error::Data(format!("rank {me}: no frame within {PATIENCE:?}")));
            };
            let expected = payload(from, due[from], SIZES[due[from] as usize % SIZES.len()]);
            assert!(frame.step == due[from] && frame.payload == expected, "rank {me}: frame {} of rank {from}", due[from]);
            due[from] += 1;
            (frames, bytes) = (frames + 1, bytes + frame.payload.len());
        }
    }
    println!("rank {me} of {world}: {frames} frames, {bytes} bytes, all as they were sent; {:.2} s", began.elapsed().as_secs_f64());

    let bye = encoded(me, Kind::Bye, 0, Vec::new());
    others.iter().try_for_each(|&to| mpi.send(to, &bye)).map_err(lost)?;
    mpi.flush(PATIENCE);
    Ok(())
}
