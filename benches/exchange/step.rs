//! Where the time of a worker's step goes, on the CPU engine and without a network: computing, quantizing and reading the
//! gradients, and what the exchange does with them. All ranks are played in turn on one session; frames are carried
//! in memory.

use super::{BATCHES, SIZES};
use crate::common::Spread;
use dqrm::config::{Config, Device, Shape, Train, Workers};
use dqrm::data::synthetic::Clicks;
use dqrm::data::{Batch, Block, Samples};
use dqrm::dist::exchange::{Exchange, Refused, Report, Scaled, Seat};
use dqrm::dist::frame::{Kind, Limits, Reader};
use dqrm::dist::layout::{Layout, Part};
use dqrm::dist::team;
use dqrm::plan::StepUniform;
use dqrm::quant::Bits;
use dqrm::session::{Session, Stage};
use dqrm::{Error, Result};
use pollster::block_on;
use std::sync::Arc;
use std::time::Instant;

/// The parts of a step, in milliseconds of one rank.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    /// Forward and backward pass.
    compute: f64,
    /// The update of the model.
    update: f64,
    /// Scales and codes of the rows, the top MLP and the bottom MLP.
    rows: f64,
    top: f64,
    bottom: f64,
    /// Reading them from the engine.
    read: f64,
    /// Making frames of them.
    post: f64,
    /// Checking and copying the frames of peers.
    frames: f64,
    /// Coding the rows' numbers, decoding the peers' and merging them.
    ids: f64,
    /// Summing what this rank owns, quantizing the sums and making frames of them.
    own: f64,
    /// The sums of the step from everything that came.
    sums: f64,
}

/// Titles of a table's columns and where their values stand.
type Column = (&'static str, fn(&Times) -> f64);

const COLUMNS: [Column; 11] = [
    ("compute", |t| t.compute),
    ("update", |t| t.update),
    ("rows", |t| t.rows),
    ("top", |t| t.top),
    ("bottom", |t| t.bottom),
    ("read", |t| t.read),
    ("post", |t| t.post),
    ("frames", |t| t.frames),
    ("ids", |t| t.ids),
    ("own", |t| t.own),
    ("sums", |t| t.sums),
];

/// Adds the milliseconds that `work` takes, divided among `ranks`.
fn timed<T>(place: &mut f64, ranks: usize, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let value = work();
    *place += 1e3 * began.elapsed().as_secs_f64() / ranks as f64;
    value
}

fn refused(refused: Refused) -> Error {
    Error::Plan(format!("rank {} {}", refused.rank, refused.reason))
}

/// All ranks of a job.
struct Job {
    session: Session,
    exchanges: Vec<Exchange>,
    limits: Limits,
    batches: Vec<Batch>,
}

impl Job {
    fn new(shape: &Shape, clicks: &Clicks, batch: usize, world: usize, bits: Bits) -> Result<Job> {
        let train = Train { batch, eval_batch: batch, ..Train::default() };
        let workers = Workers { count: world, row_bits: bits, mlp_bits: bits, ..Workers::default() };
        let config = Config { device: Device::Cpu, train, workers, ..Config::default() };
        let mut session = block_on(Session::load(shape, &config, clicks.max_bag()))?;
        session.initialise(1, &mut |_, _| {})?;
        let layout = Arc::new(Layout::new(shape));
        let exchange = |rank| {
            let seat = Seat { rank, world, attempt: 0 };
            Exchange::new(seat, layout.clone(), &config.workers, session.most_touched(clicks.max_bag()), 0)
        };
        let exchanges: Vec<Exchange> = (0..world).map(exchange).collect();
        let mut block = Block::new();
        let mut prepared = |i: usize| {
            block.clear();
            clicks.fetch(&((i * batch) as u64..((i + 1) * batch) as u64).collect::<Vec<_>>(), &mut block)?;
            Batch::prepare(&block, session.tables())
        };
        let batches = (0..BATCHES).map(&mut prepared).collect::<Result<_>>()?;
        Ok(Job { limits: team::limits(&exchanges[0]), session, exchanges, batches })
    }

    fn step(&mut self, step: u64) -> Result<Times> {
        let (mut t, world) = (Times::default(), self.exchanges.len());
        let mine: Vec<usize> = (0..world).map(|rank| (step as usize * world + rank) % self.batches.len()).collect();
        for (exchange, &batch) in self.exchanges.iter_mut().zip(&mine) {
            let posted = timed(&mut t.ids, world, || exchange.post_ids(step, self.session.touched_rows(&self.batches[batch])));
            posted.map_err(refused)?;
        }
        self.deliver(&mut t)?;
        let mut uniform = None;
        for (rank, &batch) in mine.iter().enumerate() {
            uniform = Some(self.gradients(step, rank, batch, &mut t)?);
        }
        self.deliver(&mut t)?;
        let mut merged = None;
        for exchange in &mut self.exchanges {
            merged = timed(&mut t.sums, world, || exchange.take(step)).map_err(refused)?;
        }
        let (Some(merged), Some(uniform)) = (merged, uniform) else { return Err(Error::Plan("a rank lacks gradients".into())) };
        timed(&mut t.update, 1, || self.session.apply(&merged, &uniform))?;
        Ok(t)
    }

    /// What one rank computes and posts.
    fn gradients(&mut self, step: u64, rank: usize, batch: usize, t: &mut Times) -> Result<StepUniform> {
        let Job { session, exchanges, batches, .. } = self;
        let world = exchanges.len();
        let (exchange, batch) = (&mut exchanges[rank], &batches[batch]);
        let uniform = timed(&mut t.compute, world, || session.begin_worker_step(step, batch, (world * batch.samples) as u64))?;
        for what in [Scaled::Part(Part::Top), Scaled::Rows, Scaled::Part(Part::Bottom)] {
            let (stage, codes) = match what {
                Scaled::Part(Part::Top) => (None, &mut t.top),
                Scaled::Rows => (Some(Stage::Rows), &mut t.rows),
                Scaled::Part(Part::Bottom) => (Some(Stage::Bottom), &mut t.bottom),
            };
            timed(&mut t.compute, world, || stage.map_or(Ok(()), |stage| session.worker_stage(step, stage, &uniform)))?;
            timed(codes, world, || session.gradient_scales(what, &uniform).and_then(|()| session.gradient_codes(what, &uniform)))?;
            let coded = timed(&mut t.read, world, || match what {
                Scaled::Rows => block_on(session.coded_rows(batch.touched())),
                Scaled::Part(part) => block_on(session.coded_part(part)),
            })?;
            let posted = timed(&mut t.post, world, || match what {
                Scaled::Rows => exchange.post_rows(step, coded),
                Scaled::Part(part) => exchange.post_part(step, part, &coded),
            });
            posted.map_err(refused)?;
        }
        let result = timed(&mut t.read, world, || block_on(session.history()))?;
        let loss = result.first().map_or(f32::NAN, |r| r.loss);
        assert!(loss.is_finite(), "the loss is no number");
        let report = Report { samples: batch.samples as u32, loss, ..Report::default() };
        timed(&mut t.post, world, || exchange.post_report(step, report)).map_err(refused)?;
        Ok(uniform)
    }

    /// Carries frames until nobody has anything to say.
    fn deliver(&mut self, t: &mut Times) -> Result<()> {
        let world = self.exchanges.len();
        loop {
            let mut quiet = true;
            for from in 0..world {
                for out in self.exchanges[from].outgoing() {
                    quiet = false;
                    for to in (0..world).filter(|&to| to != from && out.to.is_none_or(|only| only == to)) {
                        let frame = timed(&mut t.frames, world, || {
                            let mut reader = Reader::new(self.limits.clone(), from as u32, 0);
                            reader.push(&out.bytes);
                            reader.next_frame()
                        });
                        let frame = frame.map_err(Error::Plan)?.ok_or_else(|| Error::Plan("a frame in pieces".into()))?;
                        let place = if frame.kind == Kind::Ids { &mut t.ids } else { &mut t.own };
                        timed(place, world, || self.exchanges[to].accept(from, frame)).map_err(refused)?;
                    }
                }
            }
            if quiet {
                return Ok(());
            }
        }
    }
}

/// Prints the parts of a worker's step for both sizes of batches, with the rows summed by everybody (4 ranks) and by their
/// owners (8).
pub(crate) fn print(shape: &Shape, clicks: &Clicks, steps: usize) -> Result<()> {
    println!("\na worker's step without the network, ms of one rank on {} threads, medians of {steps} steps", rayon::current_num_threads());
    println!("compute: forward and backward; rows, top, bottom: scales and codes; read: from the engine; post: into frames;");
    println!("frames: checking those of peers; ids: row numbers of all ranks; own: summing the own share; sums: of everything");
    let titles: Vec<String> = COLUMNS.iter().map(|(title, _)| format!("{title:>8}")).collect();
    println!("{:>6} {:>6} {:>6} {} {:>9} {:>9}", "batch", "ranks", "codes", titles.join(" "), "exchange", "of step");
    for size in SIZES {
        for world in [4, 8] {
            for bits in [Bits::None, Bits::B8, Bits::B4] {
                let mut job = Job::new(shape, clicks, size, world, bits)?;
                (0..3).try_for_each(|step| job.step(step).map(drop))?;
                let times: Vec<Times> = (0..steps).map(|i| job.step(3 + i as u64)).collect::<Result<_>>()?;
                print_line(size, world, bits, &times);
            }
        }
    }
    Ok(())
}

fn print_line(size: usize, world: usize, bits: Bits, times: &[Times]) {
    let median = |f: fn(&Times) -> f64| Spread::of(&times.iter().map(f).collect::<Vec<_>>()).median;
    let medians = COLUMNS.map(|(_, f)| median(f));
    let (step, exchange) = (medians.iter().sum::<f64>(), medians[2..].iter().sum::<f64>());
    let cells: Vec<String> = medians.iter().map(|ms| format!("{ms:>8.3}")).collect();
    println!("{size:>6} {world:>6} {bits:>6} {} {exchange:>9.3} {:>7.1} %", cells.join(" "), 100.0 * exchange / step);
}
