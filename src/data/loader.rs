//! Threads that make batches ahead of time. A batch is a function of (order, step) alone, so
//! neither the number of threads nor the step one starts at changes anything.

use super::order::fetch;
pub use super::order::{Order, Share, fetch_batch};
use super::{Batch, Samples, Scratch};
use crate::error::{Error, Result};
use crate::tables::Tables;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

/// Batches each thread may be ahead.
const AHEAD: usize = 2;

/// Batches in order, made ahead by threads. Dropping it stops and joins them.
pub struct Loader {
    steps: Range<u64>,
    first: u64,
    /// Thread i makes the steps `first + i`, `first + i + threads`, ….
    channels: Vec<Receiver<Result<Batch>>>,
    /// Nanoseconds that [`Loader::next`] waited.
    waited: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").field("steps", &self.steps).field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

impl Loader {
    /// Starts `threads` threads on the batches of `steps`, counted on through the epochs
    /// ([`Order::steps_per_epoch`] each).
    ///
    /// # Errors
    /// An order without samples or beyond them, tables that are not those of the samples, a thread
    /// that cannot be started.
    pub fn new(samples: Arc<dyn Samples>, order: Order, tables: Tables, batch: usize, steps: Range<u64>, threads: usize) -> Result<Loader> {
        if batch == 0 || order.samples() == 0 || order.range.end > samples.len() {
            let (range, n) = (&order.range, samples.len());
            return Err(Error::Data(format!("cannot take batches of {batch} from the samples {} to {} of {n}", range.start, range.end)));
        }
        if tables.count() != samples.rows().len() {
            return Err(Error::Data(format!("the model has {} tables, but the samples have {}", tables.count(), samples.rows().len())));
        }
        let count = (threads.max(1) as u64).min(steps.end.saturating_sub(steps.start));
        let mut loader =
            Loader { first: steps.start, steps: steps.clone(), channels: Vec::new(), waited: Arc::default(), threads: Vec::new() };
        let shared = Arc::new((samples, order, tables));
        for i in 0..count {
            let (sender, receiver) = sync_channel(AHEAD);
            let (shared, mine) = (shared.clone(), (steps.start + i..steps.end).step_by(count as usize));
            let work = move || {
                let ((samples, order, tables), mut scratch) = (&*shared, Scratch::default());
                deliver(&sender, mine, |step| fetch(&**samples, order, tables, batch, step, &mut scratch));
            };
            let thread = std::thread::Builder::new().name(format!("loader {i}")).spawn(work);
            loader.threads.push(thread.map_err(|e| Error::Data(format!("cannot start a loader thread: {e}")))?);
            loader.channels.push(receiver);
        }
        Ok(loader)
    }

    /// Adds the nanoseconds that [`Loader::next`] waits for a batch to `waited`.
    pub fn timed(mut self, waited: &Arc<AtomicU64>) -> Loader {
        self.waited = waited.clone();
        self
    }

    /// The batch of the next step, as soon as its thread has made it.
    fn wait(&self, channel: &Receiver<Result<Batch>>) -> Option<Result<Batch>> {
        channel.try_recv().ok().or_else(|| {
            let began = Instant::now();
            let batch = channel.recv().ok();
            self.waited.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
            batch
        })
    }
}

/// Sends what `make` makes until the receiver is gone or an error was sent.
fn deliver(sender: &SyncSender<Result<Batch>>, steps: impl Iterator<Item = u64>, mut make: impl FnMut(u64) -> Result<Batch>) {
    for step in steps {
        let batch = make(step);
        let last = batch.is_err();
        if sender.send(batch).is_err() || last {
            return;
        }
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    /// The next batch; `None` after the last and after an error.
    fn next(&mut self) -> Option<Result<Batch>> {
        let step = self.steps.next()?;
        let channel = &self.channels[((step - self.first) % self.channels.len() as u64) as usize];
        let batch = self.wait(channel).unwrap_or_else(|| Err(Error::Data(format!("the loader thread of step {step} stopped early"))));
        if batch.is_err() {
            self.steps = 0..0;
        }
        Some(batch)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.channels.clear();
        for thread in self.threads.drain(..) {
            // a panic was already reported by `next`
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Block;

    /// Sample i has the dense value i and the id i % 3; the one numbered `broken` cannot be read.
    struct Numbers {
        n: u64,
        broken: u64,
        fetched: AtomicU64,
    }

    impl Samples for Numbers {
        fn len(&self) -> u64 {
            self.n
        }
        fn dense(&self) -> usize {
            1
        }
        fn rows(&self) -> &[u64] {
            &[3]
        }
        fn max_bag(&self) -> &[usize] {
            &[1]
        }
        fn fetch(&self, indices: &[u64], block: &mut Block) -> Result<()> {
            self.fetched.fetch_add(1, Ordering::SeqCst);
            for &i in indices {
                assert_ne!(i, self.broken + 1, "a panic in a thread");
                if i == self.broken {
                    return Err(Error::Data(format!("sample {i} is broken")));
                }
                block.dense.push(i as f32);
                block.ids.push((i % 3) as u32);
                block.end_bag();
                block.samples += 1;
            }
            Ok(())
        }
    }

    fn numbers(n: u64, broken: u64) -> Arc<Numbers> {
        Arc::new(Numbers { n, broken, fetched: AtomicU64::new(0) })
    }

    fn loader(samples: Arc<Numbers>, order: Order, steps: Range<u64>, threads: usize) -> Loader {
        Loader::new(samples, order, Tables::new(&[3], 4, 1 << 20).unwrap(), 4, steps, threads).unwrap()
    }

    fn batches(order: Order, steps: Range<u64>, threads: usize) -> Vec<Batch> {
        loader(numbers(40, 1 << 40), order, steps, threads).map(Result::unwrap).collect()
    }

    const SHUFFLED: Order = Order { range: 7..30, shuffle: Some(3), share: Share { rank: 0, world: 1 } };

    #[test]
    fn threads_and_the_first_step_change_nothing() {
        let one = batches(SHUFFLED, 0..15, 1);
        assert_eq!(one.len(), 15);
        assert_eq!(one, batches(SHUFFLED, 0..15, 3));
        assert_eq!(one, batches(SHUFFLED, 0..15, 40));
        assert_eq!(one[8..], batches(SHUFFLED, 8..15, 2));
        assert!(batches(SHUFFLED, 5..5, 2).is_empty());
    }

    #[test]
    fn every_sample_comes_once_an_epoch_in_another_order() {
        let spe = SHUFFLED.steps_per_epoch(4);
        assert_eq!(spe, 6);
        let epoch = |e: u64| -> Vec<f32> { batches(SHUFFLED, e * spe..(e + 1) * spe, 2).into_iter().flat_map(|b| b.dense).collect() };
        let (first, second) = (epoch(0), epoch(1));
        assert_ne!(first, second);
        for mut values in [first, second] {
            values.sort_by(f32::total_cmp);
            assert_eq!(values, (7..30).map(|i| i as f32).collect::<Vec<_>>());
        }
        assert_eq!(batches(SHUFFLED, 5..6, 1)[0].samples, 3, "the last batch is kept");
        let plain: Vec<f32> = batches(Order { shuffle: None, ..SHUFFLED }, 0..6, 2).into_iter().flat_map(|b| b.dense).collect();
        assert_eq!(plain, (7..30).map(|i| i as f32).collect::<Vec<_>>());
    }

    #[test]
    fn an_error_and_a_panic_arrive_in_their_place() {
        let order = Order { range: 0..40, shuffle: None, share: Share::default() };
        let mut failing = loader(numbers(40, 17), order.clone(), 0..10, 3);
        assert!((0..4).all(|_| failing.next().unwrap().is_ok()));
        assert_eq!(failing.next().unwrap().unwrap_err().to_string(), "sample 17 is broken");
        assert!(failing.next().is_none());
        let mut panicking = loader(numbers(40, 19), order, 5..10, 2);
        let error = panicking.next().unwrap().unwrap_err().to_string();
        assert!(error.contains("step 5 stopped early"), "{error}");
    }

    #[test]
    fn waiting_is_counted() {
        let waited = Arc::new(AtomicU64::new(0));
        // a thread that waits for the test to wait for it
        struct Slow(Arc<Numbers>);
        impl Samples for Slow {
            fn len(&self) -> u64 {
                self.0.len()
            }
            fn dense(&self) -> usize {
                1
            }
            fn rows(&self) -> &[u64] {
                self.0.rows()
            }
            fn max_bag(&self) -> &[usize] {
                self.0.max_bag()
            }
            fn fetch(&self, indices: &[u64], block: &mut Block) -> Result<()> {
                std::thread::sleep(std::time::Duration::from_millis(20));
                self.0.fetch(indices, block)
            }
        }
        let (slow, tables) = (Arc::new(Slow(numbers(8, 1 << 40))), Tables::new(&[3], 4, 1 << 20).unwrap());
        let order = Order { range: 0..8, shuffle: None, share: Share::default() };
        let loader = Loader::new(slow, order, tables, 4, 0..2, 1).unwrap().timed(&waited);
        assert_eq!(loader.map(Result::unwrap).count(), 2);
        assert!(waited.load(Ordering::Relaxed) > 0);
    }

    #[test]
    fn a_step_finds_its_batch_made_when_the_threads_kept_up() {
        let (samples, waited, threads) = (numbers(1 << 20, 1 << 40), Arc::new(AtomicU64::new(0)), 3);
        let order = Order { range: 0..1 << 20, shuffle: Some(1), share: Share::default() };
        let mut loader = loader(samples.clone(), order, 0..1 << 18, threads).timed(&waited);
        for taken in 0..50 {
            // a step that takes as long as the threads need to be as far ahead as they go: all of them made one more batch than fits
            let (full, began) = (taken + threads as u64 * (AHEAD as u64 + 1), Instant::now());
            while samples.fetched.load(Ordering::SeqCst) < full {
                assert!(began.elapsed().as_secs() < 60, "the threads make nothing ahead of step {taken}");
                std::thread::yield_now();
            }
            assert!(loader.next().unwrap().is_ok());
            assert_eq!(waited.load(Ordering::Relaxed), 0, "step {taken} waited");
        }
    }

    #[test]
    fn few_batches_are_made_ahead_and_dropping_stops() {
        let samples = numbers(1 << 30, 1 << 40);
        let order = Order { range: 0..1 << 30, shuffle: Some(1), share: Share::default() };
        let mut loader = loader(samples.clone(), order, 0..1 << 28, 2);
        assert!((0..10).all(|_| loader.next().unwrap().is_ok()));
        drop(loader);
        let fetched = samples.fetched.load(Ordering::SeqCst);
        assert!(fetched <= 10 + 2 * (AHEAD as u64 + 1), "{fetched} batches for 10");
        assert_eq!(Arc::strong_count(&samples), 1, "all threads have ended");
    }

    #[test]
    fn orders_that_do_not_fit_are_refused() {
        let tables = Tables::new(&[3], 4, 1 << 20).unwrap();
        for (range, batch) in [(0..41, 4), (5..5, 4), (0..4, 0)] {
            assert!(
                Loader::new(numbers(40, 99), Order { range, shuffle: None, share: Share::default() }, tables.clone(), batch, 0..1, 1)
                    .is_err()
            );
        }
        let two = Tables::new(&[3, 3], 4, 1 << 20).unwrap();
        assert!(Loader::new(numbers(40, 99), SHUFFLED, two, 4, 0..1, 1).unwrap_err().to_string().contains("2 tables"));
    }
}
