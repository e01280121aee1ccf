//! `dqrm train`.

use super::live::Live;
use super::options::TrainArgs;
use super::workers::Local;
use super::{dry_run, note, print, print_json, profile, ranks, stop, summary};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::train::{self, Event, Options, Outcome, Ranks, Start};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

/// Trains, and prints the summary.
pub(super) fn run(args: &TrainArgs) -> Result<()> {
    let mut config = args.config()?;
    if args.dry_run {
        let mut live = Live::new();
        let found = train::dry_run(&config, &mut |what, done, total| live.event(&Event::Preparing { what, done, total }));
        live.end();
        let found = found?;
        return if args.device.json { print_json(&found) } else { print(&dry_run::describe(&found)) };
    }
    let launched = ranks::launched(&args.workers)?;
    if let Some(launch) = &launched {
        config.workers.count = launch.world;
        config.validate()?;
        ranks::share_cores(launch.local_world);
    }
    let rank = launched.as_ref().map(|l| l.rank).or(args.workers.local_rank).unwrap_or(0);
    let dir = args.folder(&config);
    let start = match (&args.resume, &args.init) {
        (Some(_), _) => Start::Resume,
        (None, Some(path)) => Start::Init(path.clone()),
        (None, None) => Start::Fresh,
    };
    stop::listen()?;
    let mut live = Live::new();
    let mut profiled = None;
    let mut observe = |event: &Event<'_>| {
        if let Event::Profiled(profile) = event {
            profiled = Some((*profile).clone());
        }
        if matches!(event, Event::Ready(_)) {
            stop::SAVES.store(true, Ordering::SeqCst);
        }
        if rank == 0 {
            live.event(event);
        }
    };
    let ranks = match &launched {
        Some(launch) => ranks::seat(&args.workers, launch)?,
        None if args.workers.simulate_workers.is_some() => Ranks::Simulated { network: args.workers.network },
        None => Ranks::Alone,
    };
    let timeline = match &args.profile {
        Some(path) if path.as_os_str().is_empty() => dir.join(profile::TIMELINE),
        Some(path) => path.clone(),
        None => PathBuf::new(),
    };
    let steps = if args.profile.is_some() { args.profile_steps } else { 0 };
    let options = Options { dir, start, stop: &stop::STOP, ranks, profile: steps, tuning: args.tuning() };
    let outcome = start_run(args, &config, options, launched.is_some(), &mut observe);
    live.end();
    let outcome = outcome.inspect_err(|_| {
        if rank > 0 {
            note(&format!("rank {rank}:"));
        }
    })?;
    if rank > 0 {
        return Ok(());
    }
    let times = profiled.map(|p| profile::finish(&p, &timeline)).transpose()?;
    if args.device.json {
        times.iter().for_each(|text| note(text));
        return print_json(&outcome);
    }
    note("");
    print(&summary::table(&config, &outcome))?;
    times.map_or(Ok(()), |text| print(&format!("\n{text}")))
}

/// Runs alone or in the place that `options` name, or with workers on this computer.
fn start_run(
    args: &TrainArgs,
    config: &Config,
    mut options: Options<'_>,
    launched: bool,
    observe: &mut dyn FnMut(&Event<'_>),
) -> Result<Outcome> {
    let workers = &args.workers;
    if workers.transport.is_some() && !launched && !config.workers.on() {
        return Err(Error::Config("--transport is for workers; say how many with --workers, or start them with a launcher".into()));
    }
    if launched || !config.workers.on() || workers.simulate_workers.is_some() {
        return train::run(config, options, observe);
    }
    if workers.transport == Some(Local::Tcp) {
        ranks::share_cores(config.workers.count);
    }
    if workers.local_rank.is_none() {
        train::check_folder(config, &options)?;
    }
    // The data is prepared once, before others look for it.
    let config = train::resolve(config)?;
    let data = train::assemble(&config, &mut |what, done, total| observe(&Event::Preparing { what, done, total }))?;
    match workers.transport.unwrap_or_default() {
        Local::Inproc => train::run_in_process(&config, data, options, workers.patience(), workers.network, observe),
        Local::Tcp => {
            let (place, others) = ranks::local(workers, &config)?;
            options.ranks = place;
            let outcome = train::run_on(&config, data, options, observe)?;
            others.end().map(|()| outcome)
        }
        #[cfg(feature = "mpi")]
        Local::Mpi => Err(Error::Config("--transport mpi is for workers that mpirun or srun started".into())),
    }
}
