//! From settings to a loaded session.

use super::results::Results;
use super::{DeviceInfo, RowLayout, RowStore, Session, devices, tensors};
use crate::config::{Config, Shape, TablePlace};
use crate::engine::Engine;
use crate::engine::cpu::CpuEngine;
use crate::engine::gpu::{GpuAdapter, GpuEngine};
use crate::error::{Error, Result};
use crate::plan::schedule::Schedule;
use crate::plan::variant::Choice;
use crate::step::{self, Capacity, Recorded};
use crate::tables::Tables;
use crate::tune::Chooser;

/// Batches of more samples would run into the loop limit of software adapters (llvmpipe ends an
/// invocation silently after 65,535 loop iterations, about half of that with bounded loops).
pub(crate) const SOFTWARE_MAX_BATCH: usize = 30_000;

/// How a session is loaded, beyond its settings.
#[derive(Debug, Default)]
pub struct Loading<'a> {
    /// Where the tables live, for `model.tables = "host"`.
    pub store: Option<Box<dyn RowStore>>,
    /// Ready for [`Session::train_step_timed`].
    pub profile: bool,
    /// Tables are cut into bindings of at most so many bytes, even where the device allows more.
    pub max_binding: Option<u64>,
    /// Says which texts a GPU runs; without one, its traits and the shapes do.
    pub chooser: Option<&'a mut dyn Chooser>,
}

impl Session {
    /// Records, checks and loads the plans on the device that `config` asks for. `max_bag` is the
    /// most ids a bag of each table may have. Weights are zero until [`Session::initialise`] or
    /// [`Session::write`].
    ///
    /// # Errors
    /// No such device, a shape that does not fit it, too little memory.
    pub async fn load(shape: &Shape, config: &Config, max_bag: &[usize]) -> Result<Session> {
        Session::load_with(shape, config, max_bag, Loading::default()).await
    }

    /// Like [`Session::load`], in the way that `loading` says.
    ///
    /// # Errors
    /// As [`Session::load`]; a store of other tables, or none where `config` wants one.
    pub async fn load_with(shape: &Shape, config: &Config, max_bag: &[usize], loading: Loading<'_>) -> Result<Session> {
        let wanted = RowLayout::of(shape, config);
        match (&loading.store, config.model.tables) {
            (None, TablePlace::Host) => {
                let text = "tables on the host need a store for their rows: use `Session::load_hosted`, or model.tables = \"device\"";
                return Err(Error::Config(text.into()));
            }
            (Some(store), place) if place != TablePlace::Host || *store.layout() != wanted => {
                let found = store.layout();
                return Err(Error::Config(format!("a store of {found:?} does not fit a model of {wanted:?} on the {place:?}")));
            }
            _ => {}
        }
        Session::check(shape, config, max_bag)?;
        let max_binding = loading.max_binding.unwrap_or(u64::MAX);
        let mut session = match devices::choose(&config.device).await? {
            (Some(adapter), reason) => {
                Session::on_gpu(&adapter, reason, shape, config, max_bag, max_binding, loading.profile, loading.chooser).await?
            }
            (None, reason) => {
                let tables = Session::cut(shape, config, &CpuEngine::limits(None), max_binding)?;
                let recorded = step::record(shape, config, &tables, max_bag, Session::RING);
                let schedule = Schedule::new(recorded.plan.clone(), &CpuEngine::limits(None))?;
                let engine = Box::new(CpuEngine::load_with(schedule, Vec::new())?);
                let device = DeviceInfo::of(None, reason);
                Session::assemble(shape, config, max_bag, tables, recorded, engine, device)
            }
        };
        loading.store.map_or(Ok(()), |store| session.host(store))?;
        Ok(session)
    }

    /// Like [`Session::load`], with tables that live in `store` (`model.tables` is `host`); with `profile` ready for
    /// [`Session::train_step_timed`].
    ///
    /// # Errors
    /// As [`Session::load`]; a store of other tables.
    pub async fn load_hosted(
        shape: &Shape,
        config: &Config,
        max_bag: &[usize],
        store: Box<dyn RowStore>,
        profile: bool,
    ) -> Result<Session> {
        Session::load_with(shape, config, max_bag, Loading { store: Some(store), profile, ..Loading::default() }).await
    }

    /// Like [`Session::load`], with tables cut into bindings of at most `max_binding` bytes even
    /// where the device allows more.
    ///
    /// # Errors
    /// As [`Session::load`].
    pub async fn load_cut(shape: &Shape, config: &Config, max_bag: &[usize], max_binding: u64) -> Result<Session> {
        Session::load_with(shape, config, max_bag, Loading { max_binding: Some(max_binding), ..Loading::default() }).await
    }

    /// Like [`Session::load`], ready for [`Session::train_step_timed`].
    ///
    /// # Errors
    /// As [`Session::load`].
    pub async fn load_profiled(shape: &Shape, config: &Config, max_bag: &[usize]) -> Result<Session> {
        Session::load_with(shape, config, max_bag, Loading { profile: true, ..Loading::default() }).await
    }

    /// Whether a plan can be recorded for these, whatever the device.
    ///
    /// # Errors
    /// Settings out of range, bags that do not fit the tables, a step with more values than can be counted.
    pub(crate) fn check(shape: &Shape, config: &Config, max_bag: &[usize]) -> Result<()> {
        shape.validate()?;
        config.validate()?;
        config.workers.check_width(shape.dim)?;
        if max_bag.len() != shape.tables() || max_bag.contains(&0) {
            return Err(Error::Config(format!(
                "{} bag sizes {max_bag:?} for {} tables; each must be at least 1",
                max_bag.len(),
                shape.tables()
            )));
        }
        let most = Capacity::of(config.train.batch.max(config.train.eval_batch), &shape.rows, max_bag);
        if most.largest(shape) > step::MAX_VALUES {
            return Err(Error::Config(format!(
                "a step of {} samples may have {} ids, touch {} rows of {} values and have layers of {} values; more than {} are not possible",
                most.samples,
                most.ids,
                most.touched,
                shape.dim,
                most.largest(shape),
                step::MAX_VALUES
            )));
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the one caller has just taken them apart")]
    async fn on_gpu(
        adapter: &GpuAdapter,
        reason: String,
        shape: &Shape,
        config: &Config,
        max_bag: &[usize],
        max_binding: u64,
        profile: bool,
        chooser: Option<&mut dyn Chooser>,
    ) -> Result<Session> {
        let batch = config.train.batch.max(config.train.eval_batch);
        if adapter.is_software() && batch > SOFTWARE_MAX_BATCH {
            let text = format!(
                "`{}` is a software adapter that stops long loops; batches of {batch} samples are more than its {SOFTWARE_MAX_BATCH}; use a smaller batch or --device cpu",
                adapter.name
            );
            return Err(Error::Device(text));
        }
        let tables = Session::cut(shape, config, &adapter.limits, max_binding)?;
        let recorded = step::record(shape, config, &tables, max_bag, Session::RING);
        let schedule = Schedule::new(recorded.plan.clone(), &adapter.limits)?;
        let picks = chooser.map(|c| c.picks(adapter, &recorded.plan)).unwrap_or_default();
        let engine = Box::new(GpuEngine::load_with(adapter, schedule, Choice::Picked(&picks), profile).await?);
        Ok(Session::assemble(shape, config, max_bag, tables, recorded, engine, DeviceInfo::of(Some(adapter), reason)))
    }

    fn assemble(
        shape: &Shape,
        config: &Config,
        max_bag: &[usize],
        tables: Tables,
        recorded: Recorded,
        engine: Box<dyn Engine>,
        device: DeviceInfo,
    ) -> Session {
        let placed = tensors::place(shape, config, &tables, &recorded);
        let scales = placed.iter().filter(|p| p.tensor.is_scale());
        let scaled = scales.map(|p| (p.tensor.name.clone(), vec![false; p.tensor.len() as usize])).collect();
        let capacity = [config.train.batch, config.train.eval_batch].map(|samples| Capacity::new(samples, &tables, max_bag));
        Session {
            config: config.clone(),
            shape: shape.clone(),
            tables,
            recorded,
            engine,
            device,
            names: placed.iter().map(|p| p.tensor.clone()).collect(),
            tensors: placed,
            capacity,
            results: Results::default(),
            scaled,
            pretrain_steps: 0,
            quantizing: false,
            hosted: None,
        }
    }
}
