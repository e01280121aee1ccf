//! Several ranks in one place: their frames are carried from one to the other in memory, encoded, checked and
//! decoded as on a network.

use super::exchange::{Exchange, Refused};
use super::frame::{Frame, Limits, Reader};

/// Carries frames between all ranks of a job until nobody has anything to say. `accept(exchange, to, from, frame)` hands
/// a frame to rank `to`, usually by [`Exchange::accept`].
///
/// # Errors
/// What a rank would not take.
pub fn deliver(
    exchanges: &mut [Exchange],
    limits: &Limits,
    mut accept: impl FnMut(&mut Exchange, usize, usize, Frame) -> Result<Option<Frame>, Refused>,
) -> Result<(), Refused> {
    loop {
        let mut quiet = true;
        for from in 0..exchanges.len() {
            for out in exchanges[from].outgoing() {
                quiet = false;
                for (to, exchange) in exchanges.iter_mut().enumerate() {
                    if to == from || out.to.is_some_and(|only| only != to) {
                        continue;
                    }
                    let mut reader = Reader::new(limits.clone(), from as u32, 0);
                    reader.push(&out.bytes);
                    if let Some(frame) = reader.next_frame().map_err(|reason| Refused { rank: from, reason })? {
                        accept(exchange, to, from, frame)?;
                    }
                }
            }
        }
        if quiet {
            return Ok(());
        }
    }
}
