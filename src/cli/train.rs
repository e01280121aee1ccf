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
    let options = Options { dir, start, stop: &stop::STOP, ranks: Ranks::Alone };
    let outcome = train::run(&config, options, &mut |event| {
        if matches!(event, Event::Ready(_)) {
            stop::SAVES.store(true, Ordering::SeqCst);
        }
        live.event(event);
    });
    live.end();
    let outcome = outcome?;
    if args.device.json {
        return print_json(&outcome);
    }
    note("");
    print(&summary::table(&config, &outcome))
}
