//! This process as one rank of several: launched by somebody, or started here with others over loopback.

use super::workers::WorkerArgs;
use crate::config::Config;
use crate::dist::exchange::Seat;
use crate::dist::launch::{self, Flags, Launch, Secret};
use crate::dist::transport::Transport;
use crate::dist::transport::tcp::{self, Security, TcpSettings};
use crate::error::{Error, Result};
use crate::train::{Connect, Ranks};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the other processes may take to end after rank 0.
const FAREWELL: Duration = Duration::from_secs(10);

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Who this worker is, where a launcher or the flags say that there are several.
pub(super) fn launched(args: &WorkerArgs) -> Result<Option<Launch>> {
    if args.workers.is_some() || args.simulate_workers.is_some() {
        return Ok(None);
    }
    let mut rendezvous = args.rdzv.as_deref().map(str::parse).transpose()?;
    if through_mpi(args) && rendezvous.is_none() {
        rendezvous = Some("localhost:1".parse()?); // nobody goes there: MPI has its own ways
    }
    let flags = Flags { rank: args.rank, world: args.world, rendezvous, job: args.job.clone(), attempt: args.attempt };
    let launch = launch::from(&flags, &environment)?;
    if let Some(launch) = &launch {
        log::info!("rank {} of {} ({}), job `{}`, attempt {}", launch.rank, launch.world, launch.source, launch.job, launch.attempt);
        launch.notes.iter().for_each(|note| log::warn!("{note}"));
    }
    Ok(launch)
}

/// The threads of this process when others of the host compute too.
pub(super) fn share_cores(local_world: usize) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // a pool that exists already is as good
    let _ = rayon::ThreadPoolBuilder::new().num_threads(launch::threads(cores, local_world)).build_global();
}

/// Connects over TCP.
fn connect(args: &WorkerArgs, launch: &Launch, secret: Option<Secret>, listener: Option<TcpListener>) -> Result<Connect> {
    let Some(mut place) = launch.rendezvous.clone() else {
        return Err(Error::Config("nothing says where rank 0 listens; name it with --rdzv HOST:PORT".into()));
    };
    let (rank, world, job, attempt) = (launch.rank, launch.world, launch.job.clone(), launch.attempt);
    if launch.local_world == launch.world && args.rdzv.is_none() {
        place.host = "127.0.0.1".into(); // all on this host, whatever it is called
    }
    // A host's own name may mean loopback there and something else on others: only `localhost` and its address count.
    let security = if args.insecure_network || place.is_loopback() { Security::Plain } else { Security::Tls };
    let (network, wait, silence) = (args.network, args.connect_timeout, args.silence_timeout);
    Ok(Box::new(move |terms, limits| {
        let mut settings = TcpSettings::new(rank, world, &place.host, place.ports, limits);
        (settings.job, settings.attempt, settings.facts) = (job, attempt, terms);
        (settings.security, settings.network, settings.listener) = (security, network, listener);
        settings.secret = secret.map(Secret::into_bytes);
        settings.connect = wait.unwrap_or(settings.connect);
        settings.silence = silence.unwrap_or(settings.silence);
        settings.heartbeat = settings.heartbeat.min(settings.silence / 4);
        Ok(Box::new(tcp::connect(settings)?) as Box<dyn Transport>)
    }))
}

#[cfg(feature = "mpi")]
fn through_mpi(args: &WorkerArgs) -> bool {
    args.transport == Some(super::workers::Local::Mpi)
}

#[cfg(not(feature = "mpi"))]
fn through_mpi(_args: &WorkerArgs) -> bool {
    false
}

/// Connects through MPI.
#[cfg(feature = "mpi")]
fn connect_mpi(launch: &Launch) -> Connect {
    let (rank, world, attempt) = (launch.rank, launch.world, launch.attempt);
    Box::new(move |_, limits| {
        let mpi = crate::dist::transport::mpi::Mpi::start(limits, attempt)?;
        if (mpi.rank(), mpi.world()) != (rank, world) {
            let found = format!("MPI says rank {} of {}", mpi.rank(), mpi.world());
            return Err(Error::Config(format!("{found}, the environment says rank {rank} of {world}")));
        }
        Ok(Box::new(mpi) as Box<dyn Transport>)
    })
}

/// The place of a launched worker.
pub(super) fn seat(args: &WorkerArgs, launch: &Launch) -> Result<Ranks> {
    #[cfg(feature = "mpi")]
    if through_mpi(args) {
        let seat = Seat { rank: launch.rank, world: launch.world, attempt: launch.attempt };
        return Ok(Ranks::Rank { seat, patience: args.patience(), connect: connect_mpi(launch) });
    }
    let secret = launch::secret(args.secret_file.as_deref(), &environment)?;
    if args.insecure_network && launch.rank == 0 {
        super::note("warning: --insecure-network: whoever is on the way between the workers can read and change what they send");
        if secret.is_none() {
            super::note("warning: without a secret, whoever reaches the port and knows the job's name can join");
        }
    }
    let seat = Seat { rank: launch.rank, world: launch.world, attempt: launch.attempt };
    Ok(Ranks::Rank { seat, patience: args.patience(), connect: connect(args, launch, secret, None)? })
}

/// The other ranks of a job on this computer, as processes.
#[derive(Debug)]
pub(super) struct Others(Vec<Child>);

/// A job on this computer over loopback: rank 0 is this process, or when it was started by one, rank `--local-rank`.
pub(super) fn local(args: &WorkerArgs, config: &Config) -> Result<(Ranks, Others)> {
    let world = config.workers.count;
    let of = |rank: usize, port: u16| -> Result<Launch> {
        let rendezvous = Some(format!("127.0.0.1:{port}").parse()?);
        Ok(Launch {
            rank,
            world,
            local_rank: rank,
            local_world: world,
            rendezvous,
            job: "local".into(),
            attempt: 0,
            source: "flags",
            notes: Vec::new(),
        })
    };
    if let (Some(rank), Some(port)) = (args.local_rank, args.local_port) {
        return Ok((seat(args, &of(rank, port)?)?, Others(Vec::new())));
    }
    let failed = |e: std::io::Error| Error::Device(format!("cannot listen on 127.0.0.1: {e}"));
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    let secret = random_secret()?;
    let program = std::env::current_exe().map_err(|e| Error::Device(format!("cannot find this program to start it again: {e}")))?;
    let mut others = Others(Vec::new());
    for rank in 1..world {
        let mut command = Command::new(&program);
        command.args(std::env::args_os().skip(1)).args(["--local-rank", &rank.to_string(), "--local-port", &port.to_string()]);
        command.env("DQRM_SECRET", &secret).stdin(Stdio::null()).stdout(Stdio::null());
        others.0.push(command.spawn().map_err(|e| Error::Device(format!("cannot start a process for rank {rank}: {e}")))?);
    }
    let secret = Secret::new(secret.into_bytes(), "this job")?;
    let launch = of(0, port)?;
    let seat = Seat { rank: 0, world, attempt: 0 };
    Ok((Ranks::Rank { seat, patience: args.patience(), connect: connect(args, &launch, Some(secret), Some(listener))? }, others))
}

/// 32 random bytes as text.
fn random_secret() -> Result<String> {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut bytes = [0u8; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::Device("the operating system gives no random numbers".into()))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

impl Others {
    /// Waits until all have ended; says which did not end well.
    pub(super) fn end(mut self) -> Result<()> {
        let began = Instant::now();
        let mut failed = Vec::new();
        for (i, child) in self.0.iter_mut().enumerate() {
            let status = loop {
                match child.try_wait() {
                    Ok(Some(status)) => break Some(status),
                    Ok(None) if began.elapsed() < FAREWELL => std::thread::sleep(Duration::from_millis(20)),
                    _ => break None,
                }
            };
            match status {
                Some(status) if status.success() => {}
                Some(status) => failed.push(format!("rank {} ended with {status}", i + 1)),
                None => failed.push(format!("rank {} did not end", i + 1)),
            }
        }
        kill(&mut self.0);
        if failed.is_empty() { Ok(()) } else { Err(Error::Device(failed.join("; "))) }
    }
}

/// Ends what has not ended.
fn kill(children: &mut Vec<Child>) {
    for mut child in children.drain(..) {
        if let Ok(None) = child.try_wait() {
            // it may end in this moment
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        let began = Instant::now();
        while began.elapsed() < FAREWELL && self.0.iter_mut().any(|child| matches!(child.try_wait(), Ok(None))) {
            std::thread::sleep(Duration::from_millis(20));
        }
        kill(&mut self.0);
    }
}
