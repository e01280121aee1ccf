//! What a run would take, found out before anything of it is allocated: the plan is recorded and scheduled, which is
//! data, one batch is made, and the device's ceilings are measured.

use super::assemble::{Assembled, Preparing, assemble, input, resolve};
use super::{comm, tables};
use crate::bench::ceiling::{self, Ceiling};
use crate::bench::predict::{Predicted, StepCost, moved, predict, step_cost};
use crate::computer;
use crate::config::{Config, Format, Ids, Shape, Synthetic, TablePlace};
use crate::data::loader::{Order, Share, fetch_batch};
use crate::data::synthetic::Clicks;
use crate::data::{Samples, dataset};
use crate::engine::cpu::CpuEngine;
use crate::error::{Error, Result};
use crate::host_tables;
use crate::plan::schedule::{Limits, Schedule};
use crate::plan::{BufferDecl, Role};
use crate::session::{DeviceInfo, RowLayout, Session, devices};
use crate::step;
use std::sync::Arc;

/// Bytes of a chunk of the memory that carries uploads to a GPU, and how many steps' uploads may be under way.
const STAGING: (u64, u64) = (1 << 20, 4);
/// Batches that a loader thread has made or is making.
const AHEAD: u64 = 3;
/// Copies of a step's rows between a store and the device: read ahead, on their way, written back.
const ROWS_UNDER_WAY: u64 = 3;
/// Steps whose exchange between workers is counted.
const EXCHANGED: u64 = 2;

/// A part of the memory.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Part {
    /// What for.
    pub name: &'static str,
    /// Bytes.
    pub bytes: u64,
    /// False for memory of the host that a run needs beside the device's.
    pub on_device: bool,
}

/// What a run would take.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct DryRun {
    /// `cpu` or `gpu`.
    pub engine: &'static str,
    /// The device.
    pub device: String,
    /// Largest binding and largest buffer in bytes, and storage buffers of a shader; `None` without limits.
    pub limits: Option<(u64, u64, usize)>,
    /// Tables K.
    pub tables: usize,
    /// Rows of all tables.
    pub rows: u64,
    /// Width of a row.
    pub dim: usize,
    /// Parameters of the tables.
    pub embedding_parameters: u64,
    /// Parameters of the MLPs.
    pub mlp_parameters: u64,
    /// Samples of a step.
    pub batch: usize,
    /// Memory by what it is for.
    pub memory: Vec<Part>,
    /// Bytes on the device.
    pub device_bytes: u64,
    /// Whether the device's memory is this computer's (the CPU engine, software adapters).
    pub shared: bool,
    /// Memory that is free on this computer, in bytes, where the tables lie there and the system tells.
    pub available: Option<u64>,
    /// Bytes of the file that holds tables on the host, where memory does not.
    pub file_bytes: Option<u64>,
    /// Bindings the tables are cut into; one for a step's rows of tables on the host.
    pub bindings: usize,
    /// Bytes of the largest buffer.
    pub largest_buffer: u64,
    /// The most storage buffers that a command binds.
    pub most_bound: usize,
    /// Different rows that a step touches.
    pub touched: u64,
    /// What a step moves and computes.
    pub step: StepCost,
    /// Bytes that the host reads back of a step: loss and logits, and rows of tables on the host.
    pub readback: u64,
    /// Bytes that leave a worker in a step, and that come to it.
    pub exchange: Option<(u64, u64)>,
    /// Steps between two refreshes of the tables' scales.
    pub refresh_every: Option<u64>,
    /// What the device gives at best.
    pub ceiling: Ceiling,
    /// The predicted time of a step.
    pub predicted: Predicted,
    /// Samples in a second at that time.
    pub samples_per_second: f64,
    /// What could not be known.
    pub notes: Vec<String>,
}

impl DryRun {
    /// Whether the memory suffices; `None` where no system tells how much there is.
    pub fn fits(&self) -> Option<bool> {
        let of_device = if self.shared { self.device_bytes } else { 0 };
        self.available.map(|available| of_device.saturating_add(self.host_bytes()) <= available)
    }

    /// Bytes of this computer's memory beside the device's.
    pub fn host_bytes(&self) -> u64 {
        self.memory.iter().filter(|part| !part.on_device).map(|part| part.bytes).sum()
    }
}

/// The shape and the samples, or others that stand for them, without preparing data; and what is not known.
fn known(config: &Config, preparing: &mut Preparing<'_>) -> Result<(Assembled, Vec<String>)> {
    if config.data.format == Format::Binary || dataset::is_folder(&config.data.files) {
        return Ok((assemble(config, preparing)?, Vec::new())); // read where it is
    }
    let assembled = |shape: Shape, samples: Arc<dyn Samples>, parts: dataset::Parts| Assembled {
        shape,
        samples,
        parts,
        clicks: None,
        ids: None,
        width: None,
        skipped: 0,
        messages: Vec::new(),
    };
    let stand_in = |shape: Shape, synthetic: &Synthetic| {
        let clicks = Arc::new(Clicks::new(synthetic, config.seed, shape.dense, shape.rows.clone()));
        let parts = dataset::Parts::new(clicks.len(), config.data.split);
        assembled(shape, clicks, parts)
    };
    if config.data.format == Format::Synthetic {
        return Ok((stand_in(config.model.shape(None, None)?, &config.data.synthetic), Vec::new()));
    }
    let (schema, moduli) = input(config)?;
    if let Some(prepared) = dataset::open_existing(&config.data, &schema, moduli.as_deref(), config.model.max_rows)? {
        let model = crate::config::Model { rows: None, ..config.model.clone() };
        let shape = model.shape(Some(prepared.dense()), Some(prepared.rows().to_vec()))?;
        let parts = prepared.parts();
        return Ok((assembled(shape, Arc::new(prepared), parts), Vec::new()));
    }
    let mut notes = vec!["the data is not prepared yet: which rows a step touches is taken from synthetic clicks".to_owned()];
    if schema.tables() > schema.categorical.len() {
        notes.push("columns with several categories are counted with one, since the data alone tells how many there are".into());
    }
    let preset = config.model.preset.rows();
    let rows = match moduli {
        Some(rows) => rows,
        None if config.data.ids == Ids::Dictionary && preset.len() == schema.tables() => {
            notes.push("the rows of the tables are the preset's; the dictionary of the data decides".into());
            let most = config.model.max_rows.unwrap_or(u64::MAX);
            preset.into_iter().map(|rows| rows.min(most)).collect()
        }
        None => {
            let text =
                "the rows of the tables are not known before the data is prepared; train for a step (--max-steps 1), or use --ids modulo";
            return Err(Error::Config(text.into()));
        }
    };
    let shape = crate::config::Model { rows: None, ..config.model.clone() }.shape(Some(schema.dense.len()), Some(rows))?;
    Ok((stand_in(shape, &Synthetic::default()), notes))
}

/// The device's memory by what it is for. Buffers that live shortly share memory, so their part is what the others leave.
fn memory_of(schedule: &Schedule) -> Vec<Part> {
    let (plan, total) = (&schedule.plan, schedule.bytes());
    let kinds: [(&'static str, &[&str]); 6] = [
        ("embedding tables", &["tables."]),
        ("state of the tables' optimizer", &["table_state."]),
        ("a step's rows of the tables, with state", &["touched_rows", "touched_state."]),
        ("MLPs, their scales and quantized copy", &["weights", "weights_quantized", "mlp_scales", "scales"]),
        ("state of the MLPs' optimizer", &["weight_state."]),
        ("gradients", &["gradients", "row_gradients"]),
    ];
    let matches = |name: &str, list: &[&str]| list.iter().any(|n| if n.ends_with('.') { name.starts_with(n) } else { name == *n });
    let sum = |of: &dyn Fn(&BufferDecl) -> bool| plan.buffers.iter().filter(|b| of(b)).map(|b| 4 * b.len as u64).sum::<u64>();
    let mut parts = Vec::new();
    for (name, list) in kinds {
        parts.push(Part { name, bytes: sum(&|b| b.role != Role::Input && matches(&b.name, list)), on_device: true });
    }
    let of_workers = |b: &BufferDecl| b.name.starts_with("exchange.") && b.role != Role::Scratch;
    parts.push(Part { name: "the batch", bytes: sum(&|b| b.role == Role::Input && !of_workers(b)), on_device: true });
    parts.push(Part { name: "what workers exchange", bytes: sum(&of_workers), on_device: true });
    let left = total.saturating_sub(parts.iter().map(|p| p.bytes).sum());
    parts.push(Part { name: "activations, results and scratch", bytes: left, on_device: true });
    parts.push(Part { name: "parameters of commands", bytes: schedule.params.len() as u64, on_device: true });
    parts.retain(|p| p.bytes > 0);
    parts
}

/// What tables on the host need: memory, or a file of so many bytes and memory for rows that wait for it, of which `held` are held at
/// most; and the rows that are read ahead, at work and written back.
fn memory_of_hosted(layout: &RowLayout, in_memory: bool, held: u64, touched: u64) -> (Vec<Part>, Option<u64>) {
    let whole = tables::bytes(layout);
    let rows = ROWS_UNDER_WAY * touched * (4 * layout.width() as u64 + 8);
    let parts = [
        ("embedding tables with state", if in_memory { whole } else { 0 }),
        ("changed rows that wait for the file, at most", if in_memory { 0 } else { held }),
        ("their blocks' largest magnitudes", host_tables::bytes_of_largest(&layout.rows)),
        ("rows under way, about", rows),
    ];
    let parts = parts.into_iter().filter(|p| p.1 > 0).map(|(name, bytes)| Part { name, bytes, on_device: false }).collect();
    (parts, (!in_memory).then_some(whole))
}

/// What the host needs beside the model, about: staging memory for a GPU, and the batches that loader threads make ahead.
fn memory_beside(config: &Config, gpu: bool, upload: u64, batch: u64) -> Vec<Part> {
    let staging = if gpu { (upload.div_ceil(STAGING.0) + 1) * STAGING.0 * STAGING.1 } else { 0 };
    let ahead = AHEAD * config.train.loader_threads.max(1) as u64 * batch;
    let parts = [("uploads under way, about", staging), ("batches made ahead, about", ahead)];
    parts.into_iter().filter(|p| p.1 > 0).map(|(name, bytes)| Part { name, bytes, on_device: false }).collect()
}

/// Finds out what training as `config` says would take.
///
/// # Errors
/// Settings or data that cannot be used, no such device, a shape that does not fit it.
pub fn dry_run(config: &Config, preparing: &mut Preparing<'_>) -> Result<DryRun> {
    dry_run_with(config, computer::available(), preparing)
}

/// [`dry_run`] where `available` bytes of memory can be had.
fn dry_run_with(config: &Config, available: Option<u64>, preparing: &mut Preparing<'_>) -> Result<DryRun> {
    let config = resolve(config)?;
    config.validate()?;
    let (data, mut notes) = known(&config, preparing)?;
    let (shape, max_bag) = (&data.shape, data.samples.max_bag());
    Session::check(shape, &config, max_bag)?;
    let (adapter, reason) = pollster::block_on(devices::choose(&config.device))?;
    let limits = adapter.as_ref().map_or_else(|| CpuEngine::limits(None), |a| a.limits.clone());
    let cut = Session::cut(shape, &config, &limits, u64::MAX)?;
    let recorded = step::record(shape, &config, &cut, max_bag, Session::RING);
    let bindings = recorded.shards.len();
    let layout = (config.model.tables == TablePlace::Host).then(|| RowLayout::of(shape, &config));
    let schedule = Schedule::new(recorded.plan, &limits)?;
    let order = Order { range: data.parts.train.clone(), shuffle: config.data.shuffle.then_some(config.seed), share: Share::default() };
    let batch = fetch_batch(&*data.samples, &order, &cut, config.train.batch, 0)?;
    if batch.samples < config.train.batch {
        notes.push(format!("the training part has only {} samples; the step is of as many", batch.samples));
    }
    let exchange = if (1..=comm::MAX_PLAYED).contains(&config.workers.count) {
        notes.push("the predicted time is that of one worker's computing, without the exchange".into());
        Some(comm::exchanged(&config, &data, EXCHANGED, preparing)?)
    } else {
        None
    };
    preparing("ceilings of the device", 0, 1);
    let ceiling = ceiling::measure(&config.device)?;
    let plan = &schedule.plan;
    let (hosted, refresh_every) = (layout.as_ref().map(RowLayout::width), config.quant.refresh_every());
    let step = step_cost(plan, &batch, hosted);
    let predicted = predict(plan, &batch, hosted, refresh_every, &ceiling);

    let shared = adapter.as_ref().is_none_or(|a| a.is_software());
    let (mut memory, mut file_bytes) = (memory_of(&schedule), None);
    if let Some(layout) = &layout {
        let (in_memory, held) = (tables::in_memory(shape, &config, max_bag, available), host_tables::bytes_held(layout, available));
        let (parts, file) = memory_of_hosted(layout, in_memory, held, batch.touched() as u64);
        memory.extend(parts);
        file_bytes = file;
        if file.is_some() {
            notes.push("the tables are in a file; the predicted time counts no page that is waited for".into());
        }
    }
    memory.extend(memory_beside(&config, adapter.is_some(), step.upload_bytes, moved(&batch, None).0));
    let device = DeviceInfo::of(adapter.as_ref(), reason);
    let commands = || plan.phases.iter().flat_map(|p| &p.commands);
    Ok(DryRun {
        engine: device.engine,
        device: device.name,
        limits: adapter.as_ref().map(|a| of_adapter(&a.limits)),
        tables: shape.tables(),
        rows: shape.rows.iter().fold(0, |sum, &rows| sum.saturating_add(rows)),
        dim: shape.dim,
        embedding_parameters: shape.embedding_parameters(),
        mlp_parameters: shape.mlp_parameters(),
        batch: config.train.batch,
        device_bytes: memory.iter().filter(|part| part.on_device).map(|part| part.bytes).sum(),
        memory,
        shared,
        available: available.filter(|_| shared || layout.is_some()),
        file_bytes,
        bindings,
        largest_buffer: schedule.slots.iter().map(|&len| 4 * len as u64).max().unwrap_or(0),
        most_bound: commands().map(|c| c.views.len()).max().unwrap_or(0),
        touched: batch.touched() as u64,
        readback: 4 * (1 + batch.samples as u64) + step.returned_bytes,
        step,
        exchange,
        refresh_every,
        ceiling,
        samples_per_second: batch.samples as f64 / predicted.seconds(),
        predicted,
        notes,
    })
}

fn of_adapter(limits: &Limits) -> (u64, u64, usize) {
    (limits.max_binding, limits.max_buffer, limits.max_storage_buffers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Column, Device, Model, RowOptimizer};
    use crate::data::Batch;
    use crate::host_tables::HostTables;
    use crate::session::{RowStore, Rows};
    use crate::tables::Tables;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    fn config() -> Config {
        let mut config = Config { device: Device::Cpu, ..Config::default() };
        config.data.synthetic.samples = 10_000;
        config
    }

    #[test]
    fn the_parts_are_what_a_session_would_allocate() {
        for workers in [0, 2] {
            let mut config = config();
            config.optim.embedding = RowOptimizer::Adagrad;
            config.workers.count = workers;
            let shape = Model::default().shape(None, None).unwrap();
            let tables = Tables::new(&shape.rows, shape.dim, u64::MAX).unwrap();
            let plan = step::record(&shape, &config, &tables, &vec![1; shape.tables()], Session::RING).plan;
            let schedule = Schedule::new(plan, &CpuEngine::limits(None)).unwrap();
            let parts = memory_of(&schedule);
            assert_eq!(parts.iter().map(|p| p.bytes).sum::<u64>(), schedule.bytes() + schedule.params.len() as u64);
            assert_eq!(parts[0].bytes, 4 * shape.embedding_parameters());
            assert_eq!(parts[1], Part { name: "state of the tables' optimizer", ..parts[0].clone() });
            assert_eq!(parts.iter().any(|p| p.name == "what workers exchange"), workers > 0);
        }
    }

    /// Counts the bytes of rows that go each way.
    #[derive(Debug)]
    struct Counting(HostTables, Arc<[AtomicU64; 2]>);

    impl RowStore for Counting {
        fn layout(&self) -> &RowLayout {
            self.0.layout()
        }
        fn place(&self) -> &'static str {
            self.0.place()
        }
        fn announce(&mut self, numbers: Vec<u64>) -> Result<()> {
            self.0.announce(numbers)
        }
        fn read(&mut self, numbers: Vec<u64>) -> Result<Rows> {
            let rows = self.0.read(numbers)?;
            self.1[0].fetch_add(4 * (rows.weights.len() + rows.state.len()) as u64, Relaxed);
            Ok(rows)
        }
        fn write(&mut self, rows: Rows) -> Result<()> {
            self.1[1].fetch_add(4 * (rows.weights.len() + rows.state.len()) as u64, Relaxed);
            self.0.write(rows)
        }
        fn largest(&mut self) -> Result<Vec<u32>> {
            self.0.largest()
        }
        fn fill(&mut self, table: usize, first: u64, count: u64, make: &(dyn Fn(u64, &mut [f32]) + Sync)) -> Result<()> {
            self.0.fill(table, first, count, make)
        }
        fn read_values(&mut self, table: usize, state: bool, start: u64, values: &mut [f32]) -> Result<()> {
            self.0.read_values(table, state, start, values)
        }
        fn write_values(&mut self, table: usize, state: bool, start: u64, values: &[f32]) -> Result<()> {
            self.0.write_values(table, state, start, values)
        }
    }

    #[test]
    fn figures_of_tables_on_the_host_are_those_of_a_session() {
        for optimizer in [RowOptimizer::Sgd, RowOptimizer::Adagrad] {
            let mut config = config();
            (config.model.tables, config.optim.embedding, config.train.batch) = (TablePlace::Host, optimizer, 16);
            config.model.rows = Some(vec![9, 70_000, 500]);
            let told = dry_run_with(&config, Some(1 << 40), &mut |_, _, _| {}).unwrap();

            let (data, _) = known(&config, &mut |_, _, _| {}).unwrap();
            let (layout, counts) = (RowLayout::of(&data.shape, &config), Arc::new([AtomicU64::new(0), AtomicU64::new(0)]));
            let store = Counting(HostTables::in_memory(layout.clone()).unwrap(), counts.clone());
            let loaded = Session::load_hosted(&data.shape, &config, data.samples.max_bag(), Box::new(store), false);
            let mut session = pollster::block_on(loaded).unwrap();
            session.initialise(1, &mut |_, _| {}).unwrap();
            let order = Order { range: data.parts.train.clone(), shuffle: Some(config.seed), share: Share::default() };
            let batch = fetch_batch(&*data.samples, &order, session.tables(), config.train.batch, 0).unwrap();
            session.train_step(0, &batch).unwrap();
            pollster::block_on(session.read("emb_l.0.weight", 0, 1)).unwrap(); // takes the rows back

            let moved = [told.step.returned_bytes; 2];
            assert!(moved[0] > 0 && [&counts[0], &counts[1]].map(|c| c.load(Relaxed)) == moved, "{moved:?} {counts:?}");
            let others = moved_words(&batch) - batch.rows.len() - batch.shard_offsets.len() + 2;
            assert_eq!(told.step.upload_bytes, moved[0] + 4 * others as u64);
            assert_eq!(told.readback, moved[0] + 4 * 17);
            assert!(told.predicted.returned > 0.0 && told.predicted.seconds() > told.predicted.returned);

            let schedule = Schedule::new(session.plan().clone(), &CpuEngine::limits(None)).unwrap();
            assert_eq!(told.device_bytes, schedule.bytes() + schedule.params.len() as u64);
            assert_eq!(told.bindings, 1);
            let rows = told.memory.iter().find(|p| p.name.starts_with("a step's rows")).unwrap();
            let most = step::Capacity::of(1024.max(config.train.eval_batch), &data.shape.rows, &[1; 3]).touched;
            assert!(rows.bytes >= moved[0] && rows.bytes <= 4 * (most * layout.width()) as u64, "{rows:?}");
            let whole = told.memory.iter().find(|p| p.name == "embedding tables with state").unwrap();
            assert_eq!((whole.bytes, whole.on_device), (4 * 70_509 * layout.width() as u64, false));
            assert_eq!(told.file_bytes, None);
            assert!(told.fits().unwrap());

            let told = dry_run_with(&config, None, &mut |_, _, _| {}).unwrap();
            assert_eq!((told.file_bytes, told.fits()), (Some(whole.bytes), None));
            config.model.table_dir = Some("x".into());
            let told = dry_run_with(&config, Some(1 << 40), &mut |_, _, _| {}).unwrap();
            assert_eq!(told.file_bytes, Some(whole.bytes));
            let waiting = told.memory.iter().find(|p| p.name.starts_with("changed rows that wait")).unwrap();
            assert_eq!(
                (waiting.bytes, waiting.on_device),
                (70_509 * (4 * layout.width() as u64 + 20), false),
                "small tables may wait whole"
            );
            let others = told.memory.iter().filter(|p| p.name != waiting.name).all(|p| p.bytes < whole.bytes / 2);
            assert!(others && told.notes.iter().any(|n| n.contains("in a file")));
        }
    }

    fn moved_words(batch: &Batch) -> usize {
        (moved(batch, None).0 / 4) as usize
    }

    #[test]
    fn data_that_is_not_prepared_is_not_prepared() {
        let mut config = config();
        config.data.files = vec![std::env::current_exe().unwrap().display().to_string()];
        config = resolve(&config).unwrap();
        config.model.preset = crate::config::Preset::Kaggle;
        config.model.max_rows = Some(500);
        let (data, notes) = known(&config, &mut |_, _, _| {}).unwrap();
        assert_eq!((data.shape.tables(), data.shape.rows.iter().max()), (26, Some(&500)));
        assert!(notes[0].contains("not prepared yet") && notes[1].contains("the preset's"), "{notes:?}");
        config.data.format = Format::Text;
        (config.data.schema.dense, config.data.schema.categorical) = (vec![Column::Number(1)], vec![Column::Number(2)]);
        let error = known(&config, &mut |_, _, _| {}).unwrap_err().to_string();
        assert!(error.contains("--max-steps 1"), "{error}");
    }

    #[test]
    fn steps_that_cannot_be_counted_are_refused_before_they_are_recorded() {
        let mut config = config();
        config.train.batch = usize::MAX / 8;
        assert!(dry_run(&config, &mut |_, _, _| {}).is_err());
    }
}
