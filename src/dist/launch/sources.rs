//! What each launcher says about a worker.

use super::environment::{Env, shown};
use super::{Flags, MAX_WORLD, Rendezvous, derived_port, hosts};
use crate::error::{Error, Result};

/// What one launcher said.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) source: &'static str,
    pub(super) rank: usize,
    pub(super) world: usize,
    /// Number on this host, and how many there are on it.
    pub(super) local: Option<(usize, usize)>,
    pub(super) place: Place,
    pub(super) job: Option<String>,
    pub(super) attempt: u32,
}

/// Where rank 0 is.
#[derive(Debug)]
pub(super) enum Place {
    At(Rendezvous),
    /// On this host, like all ranks; the port comes from the job's name.
    Here,
    /// Not known, for this reason.
    Unknown(String),
}

impl Found {
    fn new(source: &'static str, rank: (&str, u64), world: (&str, u64)) -> Result<Found> {
        super::check_world(world.0, world.1)?;
        if rank.1 >= world.1 {
            return Err(Error::Config(format!(
                "`{}` is `{}`, but `{}` is `{}`: ranks are numbered from 0",
                rank.0, rank.1, world.0, world.1
            )));
        }
        let place = Place::Unknown(format!("{source} does not say where rank 0 is"));
        Ok(Found { source, rank: rank.1 as usize, world: world.1 as usize, local: None, place, job: None, attempt: 0 })
    }

    /// Takes the number on this host and their count, when both are there.
    fn local(mut self, env: &Env<'_>, rank: &str, world: &str) -> Result<Found> {
        if let (Some(local), Some(locals)) = (env.number(rank, MAX_WORLD)?, env.number(world, MAX_WORLD)?) {
            self.set_local((rank, local), (world, locals))?;
        }
        Ok(self)
    }

    fn set_local(&mut self, rank: (&str, u64), world: (&str, u64)) -> Result<()> {
        if rank.1 >= world.1 {
            return Err(Error::Config(format!("`{}` is `{}`, but `{}` is `{}`", rank.0, rank.1, world.0, world.1)));
        }
        if world.1 > self.world as u64 {
            return Err(Error::Config(format!(
                "`{}` is `{}`, but {} counts {} workers in all (or hosts?); give --rank and --world",
                world.0, world.1, self.source, self.world
            )));
        }
        self.local = Some((rank.1 as usize, world.1 as usize));
        Ok(())
    }

    /// All ranks are on this host.
    fn is_one_host(&self) -> bool {
        self.local.is_some_and(|(_, locals)| locals == self.world)
    }
}

type Source = fn(&Env<'_>, &Flags) -> Result<Option<Found>>;

/// The first launcher in the order of precedence that says something. What others say differently is added to `notes`.
///
/// # Errors
/// Variables of that launcher that cannot be used, or variables of which nothing can be made.
pub(super) fn find(env: &Env<'_>, flags: &Flags, notes: &mut Vec<String>) -> Result<Option<Found>> {
    let sources: [Source; 5] = [torchrun, open_mpi, pmi, slurm, kubernetes];
    let mut first: Option<Found> = None;
    for source in sources {
        match (&first, source(env, flags)) {
            (None, found) => first = found?,
            (Some(first), Ok(Some(other))) if (first.rank, first.world) != (other.rank, other.world) => notes.push(format!(
                "{} says rank {} of {}, {} says rank {} of {}: {0} is believed",
                first.source, first.rank, first.world, other.source, other.rank, other.world
            )),
            _ => {}
        }
    }
    match (&first, half_of_torchrun(env), env.text("PMIX_RANK")) {
        (Some(first), Some(doubt), _) => notes.push(format!("{doubt}: {} is believed", first.source)),
        (None, Some(doubt), _) => return Err(Error::Config(format!("{doubt}; give --rank and --world, or unset them"))),
        (None, None, Some(rank)) if first_of(env, &["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"]).is_none() => {
            return Err(Error::Config(format!(
                "`PMIX_RANK` is `{}`, but PMIx puts no world size into the environment; give --rank and --world",
                shown(&rank)
            )));
        }
        _ => {}
    }
    Ok(first)
}

const TORCHRUN: [&str; 4] = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"];

/// `RANK` and `WORLD_SIZE` alone may count hosts (Kubeflow's first operator, Alibaba PAI): only with the local two do
/// they count workers. Here is the complaint when they say that there are several of something.
fn half_of_torchrun(env: &Env<'_>) -> Option<String> {
    let world = env.text("WORLD_SIZE").filter(|world| world != "1")?;
    let missing: Vec<String> = TORCHRUN.iter().filter(|name| env.text(name).is_none()).map(|name| format!("`{name}`")).collect();
    let verb = if missing.len() == 1 { "is" } else { "are" };
    (!missing.is_empty())
        .then(|| format!("`WORLD_SIZE` is `{}`, which may count hosts, for {} {verb} not set", shown(&world), missing.join(", ")))
}

fn torchrun(env: &Env<'_>, _: &Flags) -> Result<Option<Found>> {
    if TORCHRUN.iter().any(|name| env.text(name).is_none()) {
        return Ok(None);
    }
    let [rank, world] = ["RANK", "WORLD_SIZE"].map(|name| env.required(name, u64::MAX, "torchrun"));
    let mut found = Found::new("torchrun", ("RANK", rank?), ("WORLD_SIZE", world?))?.local(env, "LOCAL_RANK", "LOCAL_WORLD_SIZE")?;
    found.job = env.job("TORCHELASTIC_RUN_ID")?;
    // Each agent counts its own restarts, and not those that another agent began: of several agents they differ.
    let agents = env.number("GROUP_WORLD_SIZE", u64::MAX)?;
    let restarts = env.number("TORCHELASTIC_RESTART_COUNT", u32::MAX.into())?.unwrap_or(0);
    if agents.map_or(found.is_one_host(), |agents| agents == 1) {
        found.attempt = restarts as u32;
    }
    found.place = match (env.text("MASTER_ADDR"), env.number("MASTER_PORT", u16::MAX.into())?) {
        (Some(host), Some(port @ 1..)) => {
            // The agent itself listens at `MASTER_PORT` then, and speaks a protocol of its own.
            let held = env.text("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|v| v.eq_ignore_ascii_case("true") || v == "1");
            let ports: Vec<u16> = if held { (port + 1..=port + 4).filter_map(|p| p.try_into().ok()).collect() } else { vec![port as u16] };
            match Rendezvous::new("MASTER_ADDR", host, ports) {
                Ok(place) => Place::At(place),
                Err(_) if port == u64::from(u16::MAX) => {
                    Place::Unknown("torchrun holds `MASTER_PORT`, which is `65535`, and no port comes after it".into())
                }
                Err(error) => Place::Unknown(error.to_string()),
            }
        }
        _ => Place::Unknown("`MASTER_ADDR` or `MASTER_PORT` is not set".into()),
    };
    Ok(Some(found))
}

fn open_mpi(env: &Env<'_>, _: &Flags) -> Result<Option<Found>> {
    let (rank, world) = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE");
    if env.text(rank).is_none() {
        return Ok(None);
    }
    let numbers = (env.required(rank, u64::MAX, "Open MPI")?, env.required(world, u64::MAX, "Open MPI")?);
    let found = Found::new("Open MPI", (rank, numbers.0), (world, numbers.1))?;
    let mut found = found.local(env, "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE")?;
    found.job = match env.job("PMIX_NAMESPACE")? {
        Some(job) => Some(job),
        None => env.job("OMPI_MCA_ess_base_jobid")?,
    };
    if found.is_one_host() {
        found.place = Place::Here;
    }
    Ok(Some(found))
}

/// MPICH, Intel MPI and Cray. Slurm sets these too; where it says the same, its own variables say more.
fn pmi(env: &Env<'_>, flags: &Flags) -> Result<Option<Found>> {
    if env.text("PMI_RANK").is_none() {
        return Ok(None);
    }
    let numbers = (env.required("PMI_RANK", u64::MAX, "PMI")?, env.required("PMI_SIZE", u64::MAX, "PMI")?);
    let mut found = Found::new("PMI", ("PMI_RANK", numbers.0), ("PMI_SIZE", numbers.1))?;
    if let Ok(Some(step)) = slurm(env, flags)
        && (step.rank, step.world) == (found.rank, found.world)
    {
        return Ok(None);
    }
    found = found.local(env, "MPI_LOCALRANKID", "MPI_LOCALNRANKS")?;
    if found.local.is_none() {
        found = found.local(env, "PMI_LOCAL_RANK", "PMI_LOCAL_SIZE")?;
    }
    found.job = env.job("PMI_JOBID")?;
    if found.is_one_host() {
        found.place = Place::Here;
    }
    Ok(Some(found))
}

/// The first of several variables that is set.
fn first_of<'a>(env: &Env<'_>, names: &[&'a str]) -> Option<&'a str> {
    names.iter().find(|name| env.text(name).is_some()).copied()
}

/// Only inside a step with several tasks: the shell of an allocation and a batch script know of tasks too, but are none.
fn slurm(env: &Env<'_>, _: &Flags) -> Result<Option<Found>> {
    // From 2^32 - 6 on, a step is the batch script, an interactive shell and the like.
    let step = env.number("SLURM_STEP_ID", u32::MAX.into())?.filter(|&step| step < u64::from(u32::MAX) - 5);
    let (Some(step), Some(_)) = (step, env.text("SLURM_PROCID")) else { return Ok(None) };
    let world = first_of(env, &["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"]).unwrap_or("SLURM_NTASKS");
    let tasks = env.required(world, u64::MAX, "Slurm")?;
    if tasks == 1 {
        return Ok(None);
    }
    let rank = env.required("SLURM_PROCID", u64::MAX, "Slurm")?;
    let mut found = Found::new("Slurm", ("SLURM_PROCID", rank), (world, tasks))?;
    let tasks = first_of(env, &["SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"]);
    if let (Some(name), Some(local)) = (tasks, env.number("SLURM_LOCALID", MAX_WORLD)?) {
        let node = env.number("SLURM_NODEID", u32::MAX.into())?.unwrap_or(0);
        if let Some(locals) = hosts::tasks_of(&env.text(name).unwrap_or_default(), node)? {
            found.set_local(("SLURM_LOCALID", local), (name, locals))?;
        }
    }
    found.attempt = env.number("SLURM_RESTART_COUNT", u32::MAX.into())?.unwrap_or(0) as u32;
    let Some(job) = env.number("SLURM_JOB_ID", u32::MAX.into())? else {
        found.place = Place::Unknown("`SLURM_JOB_ID` is not set".into());
        return Ok(Some(found));
    };
    found.job = Some(format!("slurm-{job}.{step}"));
    found.place = match slurm_host(env) {
        Ok(host) => Place::At(Rendezvous { host, ports: vec![derived_port(job + 1009 * step)] }),
        Err(reason) => Place::Unknown(reason),
    };
    Ok(Some(found))
}

/// The host of task 0: the first of the step's list, since Slurm hands tasks out in that order.
/// (`SLURM_LAUNCH_NODE_IPADDR` is where `srun` was typed.)
fn slurm_host(env: &Env<'_>) -> Result<String, String> {
    if env.text("SLURM_DISTRIBUTION").is_some_and(|order| order.starts_with("arbitrary")) {
        return Err("`SLURM_DISTRIBUTION` is `arbitrary`, so rank 0 may be on any host".into());
    }
    let names = ["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"];
    let name = first_of(env, &names).ok_or("`SLURM_STEP_NODELIST` is not set")?;
    let list = hosts::expand(&env.text(name).unwrap_or_default()).map_err(|error| format!("`{name}`: {error}"))?;
    list.into_iter().next().ok_or_else(|| format!("`{name}` is empty"))
}

fn kubernetes(env: &Env<'_>, flags: &Flags) -> Result<Option<Found>> {
    let index = "JOB_COMPLETION_INDEX";
    let Some(rank) = env.number(index, u64::MAX)? else { return Ok(None) };
    let (name, world) = match (flags.world, env.number("DQRM_WORLD_SIZE", u64::MAX)?) {
        (Some(world), _) => ("--world", world as u64),
        (None, Some(world)) => ("DQRM_WORLD_SIZE", world),
        (None, None) => {
            return Err(Error::Config(format!(
                "`{index}` is `{rank}`, but Kubernetes does not say how many workers there are; give --world or set \
                 `DQRM_WORLD_SIZE` to the job's completions (1 when each index trains alone)"
            )));
        }
    };
    if world == 1 {
        return Ok(None);
    }
    Found::new("Kubernetes", (index, rank), (name, world)).map(Some)
}
