//! What workers would exchange: the batches of some steps, and the real exchange with gradients of zeros. Nothing is
//! trained and no table is allocated.

use super::assemble::{Assembled, Preparing, assemble, resolve};
use crate::config::{Config, GradientScale, RowSums, Shape, Workers};
use crate::data::loader::{Order, Share, fetch_batch};
use crate::dist::exchange::{Exchange, Refused, Report, Scaled, Seat};
use crate::dist::frame::Limits;
use crate::dist::hub;
use crate::dist::ids::RowLists;
use crate::dist::layout::{Layout, Part};
use crate::dist::ledger::{Bytes, Ledger};
use crate::dist::rows::Coded;
use crate::dist::transport::network::Network;
use crate::dist::union::Union;
use crate::error::{Error, Result};
use crate::quant::Bits;
use crate::step::touched_by_table;
use crate::tables::Tables;
use serde::Serialize;
use std::sync::Arc;

/// Workers that can be played, at most.
pub const MAX_PLAYED: usize = 64;
/// Memory that playing them may take, in bytes.
const MAX_MEMORY: u64 = 4 << 30;

/// What workers would exchange in a step; means over the sampled steps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comm {
    /// Workers.
    pub workers: usize,
    /// Samples of a step at each of them.
    pub batch: usize,
    /// Steps that were sampled.
    pub steps: u64,
    /// Embedding tables.
    pub tables: usize,
    /// Their rows.
    pub rows: u64,
    /// Width of a row.
    pub dim: usize,
    /// Parameters of the MLPs.
    pub mlp_parameters: u64,
    /// Ids in a worker's batch.
    pub ids: u64,
    /// Different rows that they name.
    pub worker_rows: u64,
    /// Different rows that all workers name together.
    pub union_rows: u64,
    /// The rows of all workers together over the sum of what each names: 1 when they share none.
    pub ratio: f64,
    /// The link that times are for: `1Gbps,0.2ms`.
    pub network: Option<String>,
    /// Ways to exchange gradients, from the most bytes on.
    pub schemes: Vec<Scheme>,
}

/// One way to exchange gradients.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scheme {
    /// In a few words.
    pub name: String,
    /// True when the bytes were counted as the exchange made them, false when they are computed for comparison.
    pub counted: bool,
    /// A worker's gradient, each value once.
    pub gradient: GradientBytes,
    /// All of it.
    pub total: u64,
    /// The gradient of all parameters in FP32 over this one.
    pub factor: f64,
    /// Bytes that leave a worker.
    pub sent: u64,
    /// Bytes that come to a worker.
    pub received: u64,
    /// The more of the two at the worker where it is most.
    pub busiest: u64,
    /// How long the busiest worker's link is in use, in milliseconds, and twice its latency.
    pub milliseconds: Option<f64>,
}

/// The bytes of a gradient by what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct GradientBytes {
    /// Values of embedding rows.
    pub embeddings: u64,
    /// Values of the MLPs.
    pub mlps: u64,
    /// Which rows they are.
    pub ids: u64,
    /// Scales of both.
    pub scales: u64,
    /// Headers of frames, and reports.
    pub framing: u64,
}

impl GradientBytes {
    fn total(&self) -> u64 {
        [self.embeddings, self.mlps, self.ids, self.scales, self.framing].into_iter().fold(0, u64::saturating_add)
    }
}

impl From<Bytes> for GradientBytes {
    fn from(b: Bytes) -> GradientBytes {
        GradientBytes { embeddings: b.rows, mlps: b.mlps, ids: b.ids, scales: b.scales, framing: b.framing }
    }
}

/// One step: the rows of each worker's batch, and how many ids named them.
struct Sampled {
    lists: Vec<RowLists>,
    ids: u64,
}

/// Samples up to `steps` steps of `config.workers.count` workers, and counts what they would exchange in each way.
///
/// # Errors
/// Data that cannot be used; more workers than can be played.
pub fn comm(config: &Config, steps: u64, network: Option<Network>, preparing: &mut Preparing<'_>) -> Result<Comm> {
    config.validate()?;
    let world = config.workers.count;
    if world == 0 || world > MAX_PLAYED {
        return Err(Error::Config(format!("{world} workers cannot be played; 1 to {MAX_PLAYED} are possible")));
    }
    if steps == 0 {
        return Err(Error::Config("0 steps say nothing; at least 1 is needed".into()));
    }
    let config = resolve(config)?;
    let data = assemble(&config, preparing)?;
    config.workers.check_width(data.shape.dim)?;
    let sampled = sample(&config, &data, steps, preparing)?;
    let (shape, n) = (&data.shape, sampled.len() as u64);
    let unions: u64 = sampled.iter().map(|s| Union::new(&s.lists.iter().collect::<Vec<_>>()).len() as u64).sum();
    let rows: u64 = sampled.iter().flat_map(|s| &s.lists).map(|lists| lists.len() as u64).sum();
    check_memory(shape, world as u64, rows / (n * world as u64), unions / n)?;
    let ids = sampled.iter().map(|s| s.ids).sum::<u64>() / (n * world as u64);
    let mut schemes = computed(shape, world as u64, ids);
    for (name, workers) in ways(&config.workers, shape.dim) {
        schemes.push(count(name, &workers, &config, &data, &sampled)?);
    }
    let dense = shape.fp32_bytes();
    for scheme in &mut schemes {
        scheme.factor = dense as f64 / scheme.total.max(1) as f64;
        scheme.milliseconds = network.map(|n| 1e3 * (8.0 * scheme.busiest as f64 / n.bits_per_second + 2.0 * n.latency.as_secs_f64()));
    }
    Ok(Comm {
        workers: world,
        batch: config.train.batch,
        steps: n,
        tables: shape.tables(),
        rows: shape.rows.iter().fold(0, |sum, &r| sum.saturating_add(r)),
        dim: shape.dim,
        mlp_parameters: shape.mlp_parameters(),
        ids,
        worker_rows: rows / (n * world as u64),
        union_rows: unions / n,
        ratio: if rows == 0 { 1.0 } else { unions as f64 / rows as f64 },
        network: network.map(|n| n.to_string()),
        schemes,
    })
}

/// The rows of each worker's batches in the first steps, whole batches where there are enough samples.
fn sample(config: &Config, data: &Assembled, steps: u64, preparing: &mut Preparing<'_>) -> Result<Vec<Sampled>> {
    let (world, batch) = (config.workers.count, config.train.batch);
    let order =
        |rank| Order { range: data.parts.train.clone(), shuffle: config.data.shuffle.then_some(config.seed), share: Share { rank, world } };
    let steps = steps.min((order(0).samples() / (batch as u64 * world as u64)).max(1));
    // Nothing is bound to a device: one cut without a limit.
    let tables = Tables::new(&data.shape.rows, data.shape.dim, u64::MAX)?;
    let mut sampled = Vec::new();
    for step in 0..steps {
        preparing("batches", step, steps);
        let (mut lists, mut ids) = (Vec::with_capacity(world), 0);
        for rank in 0..world {
            let batch = fetch_batch(&*data.samples, &order(rank), &tables, batch, step)?;
            ids += batch.row_samples.len() as u64;
            lists.push(RowLists::of(&batch, &tables));
        }
        sampled.push(Sampled { lists, ids });
    }
    Ok(sampled)
}

/// Bytes that leave a worker in a step as the settings say, and that come to it; the mean of some steps.
pub(super) fn exchanged(config: &Config, data: &Assembled, steps: u64, preparing: &mut Preparing<'_>) -> Result<(u64, u64)> {
    let sampled = sample(config, data, steps, preparing)?;
    let scheme = count(String::new(), &config.workers, config, data, &sampled)?;
    Ok((scheme.sent, scheme.received))
}

/// The exchange keeps what every worker has got: refuses what this computer may not have room for.
fn check_memory(shape: &Shape, world: u64, rows: u64, union: u64) -> Result<()> {
    let dim = shape.dim as u64;
    let gathered = if world <= 4 { 4 * dim } else { dim };
    let bytes = world * (world * rows * (8 + gathered) + union * 4 * dim);
    if bytes <= MAX_MEMORY {
        return Ok(());
    }
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    Err(Error::Config(format!(
        "playing {world} workers that touch {rows} rows each would take about {:.1} GiB of memory, more than {:.0}; use fewer workers or a smaller batch",
        gib(bytes),
        gib(MAX_MEMORY)
    )))
}

/// What is no scheme of this program, for comparison. Sums as in a ring, which sends (W - 1) / W of the values twice.
fn computed(shape: &Shape, world: u64, ids: u64) -> Vec<Scheme> {
    let ring = |bytes: u64| (2 * u128::from(bytes) * u128::from(world - 1) / u128::from(world)) as u64;
    let mlps = shape.mlp_parameters().saturating_mul(4);
    let scheme = |name: &str, gradient: GradientBytes, sent: u64| {
        let (name, total) = (name.into(), gradient.total());
        Scheme { name, counted: false, gradient, total, factor: 0.0, sent, received: sent, busiest: sent, milliseconds: None }
    };
    let dense = GradientBytes { embeddings: shape.embedding_parameters().saturating_mul(4), mlps, ..GradientBytes::default() };
    let sparse = GradientBytes { embeddings: ids * 4 * shape.dim as u64, mlps, ids: 8 * ids, ..GradientBytes::default() };
    vec![
        scheme("FP32, all parameters", dense, ring(dense.total())),
        scheme("FP32, each id, int64 (PyTorch)", sparse, (sparse.embeddings + sparse.ids) * (world - 1) + ring(mlps)),
    ]
}

/// The ways that are counted, those that rows of width `dim` can travel.
fn ways(own: &Workers, dim: usize) -> Vec<(String, Workers)> {
    let plain = Workers { count: own.count, ..Workers::default() };
    let bits = |bits: Bits| Workers { row_bits: bits, mlp_bits: bits, ..plain.clone() };
    let int8 = bits(Bits::B8);
    let how = |owned: bool| if owned { "sums by owner" } else { "gathered" };
    let mut ways = vec![
        ("FP32, touched rows".into(), bits(Bits::None)),
        ("INT16".into(), bits(Bits::B16)),
        (format!("INT8, {} (default)", how(int8.owned())), int8.clone()),
    ];
    if own.count > 2 {
        let other = Workers { rows: if int8.owned() { RowSums::Gather } else { RowSums::Owner }, ..int8.clone() };
        ways.push((format!("INT8, {}", how(other.owned())), other));
    }
    ways.push(("INT8, averaged scales (paper)".into(), Workers { scale: GradientScale::Average, ..int8.clone() }));
    ways.push(("INT4".into(), bits(Bits::B4)));
    // what changes no byte is not compared
    let settings = Workers { feedback: plain.feedback, lr_rule: plain.lr_rule, check_every: plain.check_every, ..own.clone() };
    if ways.iter().all(|(_, way)| *way != settings) {
        ways.push(("as the settings say".into(), settings));
    }
    ways.retain(|(_, way)| way.check_width(dim).is_ok());
    ways
}

/// Counts one way over all steps.
fn count(name: String, workers: &Workers, config: &Config, data: &Assembled, sampled: &[Sampled]) -> Result<Scheme> {
    let layout = Arc::new(Layout::new(&data.shape));
    let most = touched_by_table(config.train.batch, &data.shape.rows, data.samples.max_bag());
    let (mut all, mut busiest) = (Ledger::default(), 0);
    for step in sampled {
        let ledgers = play(workers, &layout, &most, &step.lists)?;
        busiest += ledgers.iter().map(|l| l.sent.step().max(l.received.step())).max().unwrap_or(0);
        all = ledgers.into_iter().fold(all, Ledger::plus);
    }
    let each = (sampled.len() * workers.count) as u64;
    let gradient = GradientBytes::from(all.gradient.over(each));
    Ok(Scheme {
        name,
        counted: true,
        gradient,
        total: gradient.total(),
        factor: 0.0,
        sent: all.sent.step() / each,
        received: all.received.step() / each,
        busiest: busiest / sampled.len() as u64,
        milliseconds: None,
    })
}

/// One step of all workers, whose batches touch `lists`, with gradients of zeros. Gives each worker's bytes.
fn play(workers: &Workers, layout: &Arc<Layout>, most: &[u64], lists: &[RowLists]) -> Result<Vec<Ledger>> {
    const STEP: u64 = 0;
    let world = workers.count;
    let mut ranks: Vec<Exchange> =
        (0..world).map(|rank| Exchange::new(Seat { rank, world, attempt: 0 }, layout.clone(), workers, most.to_vec(), STEP)).collect();
    let mut limits = Limits::none();
    ranks.iter().for_each(|rank| rank.allow(&mut limits));
    let deliver = |ranks: &mut [Exchange]| hub::deliver(ranks, &limits, |exchange, _, from, frame| exchange.accept(from, frame));
    let [row_bits, mlp_bits] = [workers.row_bits, workers.mlp_bits].map(|b| b.width());
    let zeros =
        |scales: usize, bits: u32, bytes: usize| Coded { scales: vec![1.0; if bits < 32 { scales } else { 0 }], bytes: vec![0; bytes] };
    let parts = Part::ALL.map(|part| zeros(layout.groups(part), mlp_bits, layout.bytes(part, mlp_bits)));
    let mut run = || -> Result<(), Refused> {
        for (rank, lists) in ranks.iter_mut().zip(lists) {
            rank.post_ids(STEP, lists.clone())?;
        }
        deliver(&mut ranks)?;
        for rank in &mut ranks {
            for what in [Scaled::Part(Part::Top), Scaled::Rows, Scaled::Part(Part::Bottom)] {
                if rank.averages(what) {
                    let scales = if let Scaled::Part(part) = what { layout.groups(part) } else { layout.rows.len() };
                    rank.post_scales(STEP, what, &vec![1.0; scales])?;
                }
            }
        }
        deliver(&mut ranks)?;
        for (rank, lists) in ranks.iter_mut().zip(lists) {
            rank.post_part(STEP, Part::Top, &parts[Part::Top as usize])?;
            rank.post_rows(STEP, zeros(layout.rows.len(), row_bits, (lists.len() * layout.dim * row_bits as usize).div_ceil(8)))?;
            rank.post_part(STEP, Part::Bottom, &parts[Part::Bottom as usize])?;
            rank.post_report(STEP, Report::default())?;
        }
        deliver(&mut ranks)
    };
    run().map_err(|refused| Error::Plan(format!("logical worker {} {}", refused.rank, refused.reason)))?;
    if let Some(rank) = ranks.iter_mut().position(|rank| !rank.missing(STEP).is_empty()) {
        return Err(Error::Plan(format!("logical worker {rank} lacks gradients")));
    }
    Ok(ranks.iter().map(Exchange::ledger).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Model, Preset};

    fn tiny(workers: usize) -> Config {
        let mut config = Config { model: Model { preset: Preset::Tiny, ..Model::default() }, ..Config::default() };
        (config.workers.count, config.train.batch, config.data.synthetic.samples) = (workers, 32, 4000);
        config
    }

    fn of(config: &Config) -> Comm {
        comm(config, 3, Some("8Mbps,1ms".parse().unwrap()), &mut |_, _, _| {}).unwrap()
    }

    fn named<'a>(comm: &'a Comm, name: &str) -> &'a Scheme {
        comm.schemes.iter().find(|s| s.name.starts_with(name)).unwrap()
    }

    /// Bytes by hand, for the sizes that follow from the counts of rows alone.
    #[test]
    fn values_take_what_their_width_says() {
        let comm = of(&tiny(3));
        let values = comm.worker_rows * comm.dim as u64;
        for (name, bits) in [("FP32, touched", 32), ("INT16", 16), ("INT8", 8), ("INT8, averaged", 8), ("INT4", 4)] {
            let scheme = named(&comm, name);
            // means are rounded down
            assert!(scheme.gradient.embeddings.abs_diff(values * bits / 8) <= comm.dim as u64 * bits / 8, "{name}: {scheme:?}");
            assert!(scheme.gradient.mlps.abs_diff(comm.mlp_parameters * bits / 8) <= 8, "{name}: {scheme:?}");
            assert_eq!((scheme.counted, scheme.sent), (true, scheme.received));
            assert!(scheme.busiest >= scheme.sent);
            let wire = scheme.busiest as f64 / 1e3 + 2.0;
            assert!((scheme.milliseconds.unwrap() - wire).abs() < 1e-9, "a byte takes a microsecond");
        }
        assert_eq!(named(&comm, "FP32, touched").gradient.scales, 0);
        assert!(comm.worker_rows <= comm.ids && comm.worker_rows <= comm.union_rows && comm.union_rows <= 3 * comm.worker_rows + 3);
    }

    #[test]
    fn settings_that_differ_get_a_line() {
        let mut config = tiny(2);
        config.workers.feedback = false;
        assert!(of(&config).schemes.iter().all(|s| s.name != "as the settings say"), "feedback changes no byte");
        config.workers.mlp_bits = Bits::B16;
        let comm = of(&config);
        let own = named(&comm, "as the settings say");
        assert_eq!(
            (own.gradient.embeddings, own.gradient.mlps),
            (named(&comm, "INT8").gradient.embeddings, named(&comm, "INT16").gradient.mlps)
        );
    }

    #[test]
    fn rows_of_odd_width_do_not_travel_in_four_bits() {
        let mut config = tiny(2);
        (config.model.dim, config.model.bottom) = (Some(3), Some(vec![5, 3]));
        assert!(of(&config).schemes.iter().all(|s| s.name != "INT4"));
        config.workers.row_bits = Bits::B4;
        assert!(comm(&config, 1, None, &mut |_, _, _| {}).unwrap_err().to_string().contains("odd width 3"));
    }

    #[test]
    fn one_worker_sends_nothing() {
        let comm = of(&tiny(1));
        assert!(comm.schemes.iter().all(|s| s.sent == 0 && s.received == 0 && s.total > 0), "{comm:?}");
        assert_eq!(comm.union_rows, comm.worker_rows);
    }

    #[test]
    fn few_samples_give_fewer_steps_of_whole_batches() {
        let mut config = tiny(2);
        config.data.synthetic.samples = 200; // 160 to train on, 64 a step
        assert_eq!(of(&config).steps, 2);
        config.train.batch = 1000;
        assert_eq!(of(&config).steps, 1);
    }

    #[test]
    fn what_cannot_be_played_is_refused() {
        let refused = |edit: fn(&mut Config), steps: u64, says: &str| {
            let mut config = tiny(2);
            edit(&mut config);
            let text = comm(&config, steps, None, &mut |_, _, _| {}).unwrap_err().to_string();
            assert!(text.contains(says), "{text}");
        };
        refused(|c| c.workers.count = 65, 1, "65 workers cannot be played; 1 to 64");
        refused(|_| {}, 0, "at least 1");
        let shape = Model::default().shape(None, None).unwrap();
        assert!(check_memory(&shape, 64, 100_000, 5_000_000).unwrap_err().to_string().contains("fewer workers or a smaller batch"));
    }
}
