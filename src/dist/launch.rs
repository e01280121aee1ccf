//! Who this worker is, from flags and from what its launcher left in the environment.
//!
//! | launcher | what counts | where rank 0 is |
//! |---|---|---|
//! | torchrun, Ray Train | `RANK`, `WORLD_SIZE`, if `LOCAL_RANK` and `LOCAL_WORLD_SIZE` are there too | `MASTER_ADDR`, `MASTER_PORT` |
//! | Open MPI | `OMPI_COMM_WORLD_RANK`, `_SIZE`, `_LOCAL_RANK`, `_LOCAL_SIZE` | this host, if all ranks are on it |
//! | MPICH, Intel MPI, Cray (PMI) | `PMI_RANK`, `PMI_SIZE`, `MPI_LOCALRANKID`, `MPI_LOCALNRANKS` | the same |
//! | Slurm, in a step | `SLURM_PROCID`, `SLURM_STEP_NUM_TASKS`, `SLURM_LOCALID` | first of `SLURM_STEP_NODELIST` |
//! | Kubernetes, an indexed job | `JOB_COMPLETION_INDEX`, `DQRM_WORLD_SIZE` | `DQRM_RDZV` |
//!
//! The first of these that says something gives both rank and world size; flags override single values. Whatever the
//! launcher, `DQRM_RDZV` (`host:port`) or `DQRM_RDZV_PORT`, `DQRM_JOB` and `DQRM_ATTEMPT` override what it gives,
//! and flags override those.
//!
//! **Ports.** Where no launcher names one it follows from the job, the same on all ranks, in 20,000 to 49,999:
//! `20000 + (SLURM_JOB_ID + 1009 SLURM_STEP_ID) mod 30000` for Slurm; for MPI on one host `20000 + h mod 30000`,
//! where `h` is the XXH3 of the job's name (`--job`, `DQRM_JOB`, else `PMIX_NAMESPACE` or what is like it). When
//! torchrun's agent listens at `MASTER_PORT` itself (`TORCHELASTIC_USE_AGENT_STORE`), the four after it are tried.
//!
//! The library reads no environment variable by itself: the caller hands a lookup in.

mod environment;
pub mod hosts;
mod secret;
mod sources;
#[cfg(test)]
mod tests;

pub use secret::{Secret, secret};

use crate::error::{Error, Result};
use environment::{Env, digits, shown};
use sources::{Found, Place};
use std::net::IpAddr;
use std::str::FromStr;
use xxhash_rust::xxh3::xxh3_64;

/// The largest world size.
pub const MAX_WORLD: u64 = 4096;

/// What the command line says; each field wins over the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--rank`.
    pub rank: Option<usize>,
    /// `--world`.
    pub world: Option<usize>,
    /// `--rdzv`.
    pub rendezvous: Option<Rendezvous>,
    /// `--job`.
    pub job: Option<String>,
    /// `--attempt`.
    pub attempt: Option<u32>,
}

/// A worker among others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Its number, less than `world`.
    pub rank: usize,
    /// Workers in all, 1 to [`MAX_WORLD`].
    pub world: usize,
    /// Its number among those of this host, less than `local_world`.
    pub local_rank: usize,
    /// Workers of this host, at most `world`. Where nothing says how many there are: all, if they meet at a loopback
    /// address, else 1.
    pub local_world: usize,
    /// Where rank 0 listens; `None` only when it is alone.
    pub rendezvous: Option<Rendezvous>,
    /// Name of the job, the same on all ranks; `dqrm` when nothing names it.
    pub job: String,
    /// How often the job was started before, the same on all ranks; 0 when nothing counts. Several agents of
    /// torchrun count differently, so that their counts are left out.
    pub attempt: u32,
    /// What gave rank and world size, to be logged: `flags`, `torchrun`, `Open MPI`, `PMI`, `Slurm` or `Kubernetes`.
    pub source: &'static str,
    /// What else is worth a line of the log: launchers that say different things.
    pub notes: Vec<String>,
}

/// Where rank 0 listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendezvous {
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// One to four ports, none of them 0. Rank 0 takes the first that is free; the others try them in turn.
    pub ports: Vec<u16>,
}

impl Rendezvous {
    /// Checks what came from `origin`.
    ///
    /// # Errors
    /// A host that cannot be one: over 253 bytes, or other than letters, digits, `-`, `_`, `.`, `:`, `%`. No port.
    fn new(origin: &str, host: String, ports: Vec<u16>) -> Result<Rendezvous> {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '%');
        if host.is_empty() || host.len() > 253 || !host.chars().all(known) {
            return Err(Error::Config(format!("`{origin}` is `{}`; a host's name or address was expected", shown(&host))));
        }
        if ports.is_empty() || ports.contains(&0) {
            return Err(Error::Config(format!("`{origin}` has no port from 1 to 65535")));
        }
        Ok(Rendezvous { host, ports })
    }

    /// Reads `host:port` or `[address]:port` that came from `origin`.
    fn parse(origin: &str, text: &str) -> Result<Rendezvous> {
        let wrong = || {
            Error::Config(format!(
                "`{origin}` is `{}`; host:port was expected, such as node1:29500 or [fd00::1]:29500, with a port from 1 to 65535",
                shown(text)
            ))
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => address,
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        let port = digits(port).and_then(|port| u16::try_from(port).ok()).ok_or_else(wrong)?;
        Rendezvous::new(origin, host.into(), vec![port]).map_err(|_| wrong())
    }

    /// True when only processes of this host can get there.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for Rendezvous {
    type Err = Error;

    /// Reads `host:port`, the value of `--rdzv`.
    fn from_str(text: &str) -> Result<Rendezvous> {
        Rendezvous::parse("--rdzv", text)
    }
}

impl std::fmt::Display for Rendezvous {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}", self.host, ports.join("|"))
    }
}

/// Who this worker is. `None` when nothing says that there are several: no launcher's variables, or a world size of
/// 1 that no flag asks for.
///
/// # Errors
/// Values that cannot be used, with the variable's or flag's name: no numbers, a rank that is not less than the world
/// size, a world size of 0 or more than [`MAX_WORLD`]; variables that leave open what they count; no place to meet.
/// What a launcher says wrongly is only noted when flags give both rank and world size.
pub fn from(flags: &Flags, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Launch>> {
    let env = Env(env);
    let mut notes = Vec::new();
    let flagged = flags.rank.is_some() && flags.world.is_some();
    let found = match sources::find(&env, flags, &mut notes) {
        Ok(found) => found,
        Err(error) if flagged => {
            notes.push(format!("{error} (left out)"));
            None
        }
        Err(error) => return Err(error),
    };
    let by_flag = flags.rank.is_some() || flags.world.is_some();
    let Some((rank, world)) = numbers(flags, found.as_ref())? else { return Ok(None) };
    if world == 1 && !by_flag && notes.is_empty() {
        return Ok(None);
    }
    let source = match &found {
        Some(found) if !flagged => found.source,
        _ => "flags",
    };
    if let Some(found) = found.as_ref().filter(|found| (found.rank, found.world) != (rank, world)) {
        notes.push(format!("flags say rank {rank} of {world}, {} says rank {} of {}", found.source, found.rank, found.world));
    }
    let job = match (&flags.job, env.job("DQRM_JOB")?) {
        (Some(job), _) => Some(environment::job("--job", job.clone())?),
        (None, Some(job)) => Some(job),
        (None, None) => found.as_ref().and_then(|found| found.job.clone()),
    };
    let attempt = match (flags.attempt, env.number("DQRM_ATTEMPT", u32::MAX.into())?) {
        (Some(attempt), _) => attempt,
        (None, Some(attempt)) => attempt as u32,
        (None, None) => found.as_ref().map_or(0, |found| found.attempt),
    };
    let local = found.as_ref().and_then(|found| found.local).filter(|&(_, locals)| locals <= world);
    let rendezvous = match meeting(flags, &env, found, job.as_deref()) {
        Ok(place) => Some(place),
        Err(_) if world == 1 => None,
        Err(error) => return Err(error),
    };
    let (local_rank, local_world) = match local {
        Some(local) => local,
        None if rendezvous.as_ref().is_some_and(Rendezvous::is_loopback) => (rank, world),
        None => (0, 1),
    };
    let job = job.unwrap_or_else(|| "dqrm".into());
    Ok(Some(Launch { rank, world, local_rank, local_world, rendezvous, job, attempt, source, notes }))
}

/// Rank and world size.
fn numbers(flags: &Flags, found: Option<&Found>) -> Result<Option<(usize, usize)>> {
    let rank = flags.rank.or(found.map(|found| found.rank));
    let world = flags.world.or(found.map(|found| found.world));
    let (rank, world) = match (rank, world) {
        (Some(rank), Some(world)) => (rank, world),
        (None, Some(1)) => (0, 1),
        (None, Some(world)) => {
            return Err(Error::Config(format!("`--world` is `{world}`, but nothing says which of them this is; give --rank")));
        }
        (Some(rank), None) => {
            return Err(Error::Config(format!("`--rank` is `{rank}`, but nothing says how many there are; give --world")));
        }
        (None, None) if flags.rendezvous.is_some() => {
            return Err(Error::Config("`--rdzv` is given, but nothing says who this worker is; give --rank and --world".into()));
        }
        (None, None) => return Ok(None),
    };
    check_world("--world", world as u64)?;
    if rank >= world {
        return Err(Error::Config(format!("rank `{rank}` of `{world}` workers: ranks are numbered from 0; change --rank or --world")));
    }
    Ok(Some((rank, world)))
}

/// Checks a world size that came from `origin`.
fn check_world(origin: &str, world: u64) -> Result<()> {
    match world {
        1..=MAX_WORLD => Ok(()),
        _ => Err(Error::Config(format!("`{origin}` is `{world}`; 1 to {MAX_WORLD} workers are possible"))),
    }
}

/// Where the workers meet.
fn meeting(flags: &Flags, env: &Env<'_>, found: Option<Found>, job: Option<&str>) -> Result<Rendezvous> {
    if let Some(place) = &flags.rendezvous {
        return Rendezvous::new("--rdzv", place.host.clone(), place.ports.clone());
    }
    if let Some(text) = env.text("DQRM_RDZV") {
        return Rendezvous::parse("DQRM_RDZV", &text);
    }
    let port = match env.number("DQRM_RDZV_PORT", u16::MAX.into())? {
        Some(0) => return Err(Error::Config("`DQRM_RDZV_PORT` is `0`; a port from 1 to 65535 was expected".into())),
        port => port.map(|port| port as u16),
    };
    let reason = match (found.map(|found| found.place), port, job) {
        (Some(Place::At(place)), None, _) => return Ok(place),
        (Some(Place::At(place)), Some(port), _) => return Ok(Rendezvous { ports: vec![port], ..place }),
        (Some(Place::Here), Some(port), _) => return Ok(Rendezvous { host: "127.0.0.1".into(), ports: vec![port] }),
        (Some(Place::Here), None, Some(job)) => {
            return Ok(Rendezvous { host: "127.0.0.1".into(), ports: vec![derived_port(xxh3_64(job.as_bytes()))] });
        }
        (Some(Place::Here), None, None) => "nothing names the job, from which a port would follow (--job or `DQRM_JOB` would)".into(),
        (Some(Place::Unknown(reason)), ..) => reason,
        (None, ..) => "nothing says where rank 0 is".into(),
    };
    Err(Error::Config(format!("{reason}; give --rdzv HOST:PORT, a port of rank 0's host, the same on all ranks (or set `DQRM_RDZV`)")))
}

/// A port from 20,000 to 49,999.
fn derived_port(number: u64) -> u16 {
    20_000 + (number % 30_000) as u16
}

/// Threads of a worker's pool: its share of the host's `cores`, at least 1. (`OMP_NUM_THREADS` is not asked; torchrun
/// sets it to 1 whatever the host has.)
pub fn threads(cores: usize, local_world: usize) -> usize {
    (cores / local_world.max(1)).max(1)
}
