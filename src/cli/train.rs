//! `dqrm train`.

use super::live::Live;
use super::options::TrainArgs;
use super::{note, print, print_json, stop, summary};
use crate::error::Result;
use crate::train::{self, Event, Options, Ranks, Start};
use std::sync::atomic::Ordering;

/// Trains, and prints the summary.
pub(super) fn run(args: &TrainArgs) -> Result<()> {
    let config = args.config()?;
    let dir = args.folder(&config);
    let start = match (&args.resume, &args.init) {
        (Some(_), _) => Start::Resume,
        (None, Some(path)) => Start::Init(path.clone()),
        (None, None) => Start::Fresh,
    };
    stop::listen()?;
    let mut live = Live::new();
    let workers = &args.workers;
    let simulated = workers.simulate_workers.is_some();
    let ranks = if simulated { Ranks::Simulated } else { Ranks::Alone };
    let options = Options { dir, start, stop: &stop::STOP, ranks };
    let mut observe = |event: &Event<'_>| {
        if matches!(event, Event::Ready(_)) {
            stop::SAVES.store(true, Ordering::SeqCst);
        }
        live.event(event);
    };
    let outcome = if config.workers.on() && !simulated {
        train::check_folder(&config, &options)?;
        let config = train::resolve(&config)?;
        let data = train::assemble(&config, &mut |what, done, total| observe(&Event::Preparing { what, done, total }))?;
        train::run_in_process(&config, data, options, workers.patience(), workers.network, &mut observe)
    } else {
        train::run(&config, options, &mut observe)
    };
    live.end();
    let outcome = outcome?;
    if args.device.json {
        return print_json(&outcome);
    }
    note("");
    print(&summary::table(&config, &outcome))
}
