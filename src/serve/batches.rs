//! One thread has the model. It takes all requests that wait, runs them as one batch, and begins again: under load batches
//! grow by themselves, without load nobody waits.

use crate::config::Device;
use crate::data::{Batch, Block};
use crate::error::{Error, Result};
use crate::packed::Packed;
use crate::predictor::Predictor;
use crate::session::DeviceInfo;
use pollster::block_on;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Logits of a request, or why there are none.
pub(super) type Answer = std::result::Result<Vec<f32>, String>;

/// Samples of a request, and where their logits go.
struct Job {
    block: Block,
    reply: oneshot::Sender<Answer>,
}

/// The way to the thread with the model.
#[derive(Debug, Clone)]
pub(super) struct Queue(SyncSender<Job>);

/// Why a request was not taken.
#[derive(Debug, PartialEq)]
pub(super) enum NotTaken {
    /// As many wait as may.
    Full,
    /// The thread is gone.
    Gone,
}

/// What was loaded.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The device in use.
    pub device: DeviceInfo,
    /// The most samples of one batch.
    pub batch: usize,
    /// Bytes of all buffers, tables included.
    pub bytes: u64,
}

/// How requests become batches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// The most samples of a batch, where it is not less than what regular answers need.
    pub(super) batch: usize,
    /// How long the first request of a batch that is not full waits for others.
    pub(super) wait: Duration,
    /// The most requests that wait.
    pub(super) queue: usize,
}

/// Loads a model in a thread of its own, which ends when the last queue is dropped.
pub(super) fn start(packed: Packed, device: Device, rules: Rules) -> Result<(Queue, Loaded)> {
    let (sender, jobs) = sync_channel(rules.queue);
    let (loaded, first) = sync_channel(1);
    let run = move || match block_on(Predictor::load(&packed, &device, rules.batch.max(Predictor::REGULAR))) {
        Ok(predictor) => {
            let predictor = predictor.regular();
            let about = Loaded { device: predictor.device().clone(), batch: predictor.batch(), bytes: predictor.device_bytes() };
            drop(packed);
            if loaded.send(Ok(about)).is_ok() {
                work(predictor, &jobs, rules.wait);
            }
        }
        // whoever waits for it is gone only when the program ends
        Err(error) => drop(loaded.send(Err(error))),
    };
    std::thread::Builder::new().name("predictions".into()).spawn(run).map_err(Error::io("start", "a thread for predictions"))?;
    let about = first.recv().map_err(|_| Error::Device("the thread that loads the model ended".into()))??;
    Ok((Queue(sender), about))
}

impl Queue {
    /// Puts samples at the end of the queue.
    pub(super) fn push(&self, block: Block) -> Result<oneshot::Receiver<Answer>, NotTaken> {
        let (reply, answer) = oneshot::channel();
        match self.0.try_send(Job { block, reply }) {
            Ok(()) => Ok(answer),
            Err(TrySendError::Full(_)) => Err(NotTaken::Full),
            Err(TrySendError::Disconnected(_)) => Err(NotTaken::Gone),
        }
    }
}

fn work(mut predictor: Predictor, jobs: &Receiver<Job>, wait: Duration) {
    while let Ok(first) = jobs.recv() {
        let until = Instant::now() + wait;
        let (mut samples, mut together) = (first.block.samples, vec![first]);
        while samples < predictor.batch() {
            let left = until.saturating_duration_since(Instant::now());
            let next = if left.is_zero() { jobs.try_recv().ok() } else { jobs.recv_timeout(left).ok() };
            let Some(next) = next else { break };
            samples += next.block.samples;
            together.push(next);
        }
        together.retain(|job| !job.reply.is_closed()); // nobody waits for it any more
        run(&mut predictor, together);
    }
}

/// Runs all jobs in as few batches as they fit.
fn run(predictor: &mut Predictor, jobs: Vec<Job>) {
    let blocks: Vec<&Block> = jobs.iter().map(|job| &job.block).collect();
    let logits = pieces(&blocks, predictor.batch(), &mut |block| {
        let batch = Batch::prepare(block, predictor.tables())?;
        block_on(predictor.logits(&batch))
    });
    let mut rest = match &logits {
        Ok(logits) => logits.as_slice(),
        Err(error) => {
            log::error!("a batch failed: {error}");
            &[]
        }
    };
    for job in jobs {
        let answer = match &logits {
            Ok(_) => {
                let (own, others) = rest.split_at(job.block.samples);
                rest = others;
                Ok(own.to_vec())
            }
            Err(error) => Err(error.to_string()),
        };
        // a client that has gone meanwhile does not need it
        let _ = job.reply.send(answer);
    }
}

/// The samples of `blocks` one after the other in blocks of up to `most`; what `predict` gives for them, joined.
fn pieces(blocks: &[&Block], most: usize, predict: &mut dyn FnMut(&Block) -> Result<Vec<f32>>) -> Result<Vec<f32>> {
    let (mut logits, mut block) = (Vec::new(), Block::new());
    for from in blocks {
        let mut start = 0;
        while start < from.samples {
            let count = (most - block.samples).min(from.samples - start);
            block.append(from, start, count);
            start += count;
            if block.samples == most {
                logits.extend(predict(&block)?);
                block.clear();
            }
        }
    }
    if block.samples > 0 {
        logits.extend(predict(&block)?);
    }
    Ok(logits)
}

/// A queue whose requests get these answers, one after the other; then its thread is gone.
#[cfg(test)]
pub(super) fn scripted(answers: Vec<Answer>) -> Queue {
    let (sender, jobs) = sync_channel::<Job>(8);
    std::thread::spawn(move || {
        for (answer, job) in answers.into_iter().zip(&jobs) {
            assert!(job.block.samples > 0 && job.reply.send(answer).is_ok());
        }
        drop(jobs.recv()); // taken, but never answered
    });
    Queue(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `samples` samples of two tables and one dense feature, the first of which is number `first`: one id, and as many as its number modulo 3.
    fn block(first: usize, samples: usize) -> Block {
        let mut block = Block::new();
        for i in first..first + samples {
            block.dense.push(i as f32);
            block.ids.push(i as u32);
            block.end_bag();
            block.ids.extend((0..i % 3).map(|j| (100 * i + j) as u32));
            block.end_bag();
            block.samples += 1;
        }
        block
    }

    #[test]
    fn samples_keep_their_values_and_their_order_however_they_are_cut() {
        let sizes = [1, 4, 7, 2, 13, 1];
        let mut first = 0;
        let blocks: Vec<Block> = sizes.iter().map(|&n| (block(first, n), first += n).0).collect();
        let all = block(0, first);
        for most in [1, 2, 5, 28, 100] {
            let (mut joined, mut sizes) = (Block::new(), Vec::new());
            let logits = pieces(&blocks.iter().collect::<Vec<_>>(), most, &mut |piece| {
                joined.append(piece, 0, piece.samples);
                sizes.push(piece.samples);
                Ok(piece.dense.clone())
            });
            assert_eq!((joined, logits.unwrap()), (all.clone(), all.dense.clone()), "{most}");
            let (last, full) = sizes.split_last().unwrap();
            assert!(full.iter().all(|&n| n == most) && *last <= most, "{sizes:?}");
        }
    }

    #[test]
    fn a_full_queue_takes_no_more() {
        let (sender, jobs) = sync_channel(2);
        let queue = Queue(sender);
        assert!((0..2).all(|i| queue.push(block(i, 1)).is_ok()));
        assert_eq!(queue.push(block(2, 1)).err(), Some(NotTaken::Full));
        drop(jobs.recv());
        assert!(queue.push(block(3, 1)).is_ok());
        drop(jobs);
        assert_eq!(queue.push(block(4, 1)).err(), Some(NotTaken::Gone));
    }
}
