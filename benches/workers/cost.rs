//! Bytes and time of a step (the first half of table 4).

use super::runs::{FP32, INT4, INT8, PUBLISHED, Runs, Scheme, Timing};
use crate::common::Spread;
use dqrm::config::{Model, Preset};
use dqrm::dist::ledger::Bytes;
use dqrm::dist::transport::network::Network;
use dqrm::train::Traffic;
use dqrm::{Error, Result};

/// The rows of the table, after the dense one.
pub(crate) const SCHEMES: [Scheme; 4] = [FP32, INT8, INT4, PUBLISHED];

/// Links to measure with; the first is none.
pub(crate) fn networks() -> Result<Vec<Option<Network>>> {
    let parse = |text: &str| text.parse::<Network>().map_err(Error::Config);
    Ok(vec![None, Some(parse("10Gbps,0.1ms")?), Some(parse("1Gbps,0.1ms")?)])
}

/// Bytes that a rank of `world` sends of `bytes` in a ring or in two phases.
fn all_reduced(bytes: f64, world: usize) -> f64 {
    2.0 * (world - 1) as f64 / world as f64 * bytes
}

/// About what a worker sends in a step: the MLPs, which are most of it.
pub(crate) fn sent_bytes(runs: &Runs, scheme: &Scheme) -> f64 {
    all_reduced(runs.data.shape.mlp_parameters() as f64 * f64::from(scheme.mlps.width()) / 8.0, runs.args.workers)
}

/// Times all schemes on all links in turns, and prints what they exchange and how long that takes.
pub(crate) fn print(runs: &Runs) -> Result<()> {
    let networks = networks()?;
    let mut timings = vec![vec![Vec::new(); networks.len()]; SCHEMES.len()];
    for round in 0..runs.args.rounds {
        for (n, network) in networks.iter().enumerate() {
            for (s, scheme) in SCHEMES.iter().enumerate() {
                let timing = runs.timing(scheme, *network)?;
                let link = network.map_or("no network".into(), |n| n.to_string());
                eprintln!("round {} of {}, {link}, {}: {:.1} ms", round + 1, runs.args.rounds, scheme.name, timing.ms);
                timings[s][n].push(timing);
            }
        }
    }
    let (batch, workers) = (runs.args.batch, runs.args.workers);
    println!("\n### Bytes of a step: {workers} workers, {batch} samples each\n");
    print_bytes(runs, &timings);
    println!("\n### Milliseconds of a step: {workers} workers as threads of one process, {batch} samples each\n");
    print_times(runs, &networks, &timings);
    println!("\n### Where a worker's milliseconds go, without a network\n");
    print_parts(&timings);
    Ok(())
}

/// The last report of a scheme.
fn traffic(timings: &[Vec<Timing>]) -> Option<&Traffic> {
    timings.iter().flatten().rev().find_map(|t| t.traffic.as_ref())
}

fn print_bytes(runs: &Runs, timings: &[Vec<Vec<Timing>>]) {
    let (shape, world) = (&runs.data.shape, runs.args.workers);
    println!("| gradients | ids | embeddings | MLPs | scales | framing | in all | dense is larger by | sent by a worker | received |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let [rows, mlps] = [shape.embedding_parameters(), shape.mlp_parameters()].map(|n| 4 * n);
    let dense = Bytes { rows, mlps, ..Bytes::default() };
    let wire = all_reduced(dense.step() as f64, world) as u64;
    println!("{}", byte_row("dense FP32 (computed, ring)", &dense, dense.step(), wire, wire));
    for (scheme, timings) in SCHEMES.iter().zip(timings) {
        match traffic(timings) {
            Some(t) => println!("{}", byte_row(scheme.name, &t.gradient, dense.step(), t.sent.step(), t.received.step())),
            None => println!("| {} | - | - | - | - | - | - | - | - | - |", scheme.name),
        }
    }
    if let Some(t) = traffic(&timings[0]) {
        println!("\nThe rows of all workers together are {:.2} of the sum of each worker's.", t.unique_rows);
    } else {
        println!("\nBytes are reported every {} steps; give as many with --steps.", (32_768 / runs.args.batch).clamp(1, 256));
    }
    let whole = Model { preset: Preset::Kaggle, ..Model::default() }.shape(None, None);
    if let (Ok(whole), Some(int8)) = (whole, traffic(&timings[1])) {
        let dense = whole.fp32_bytes() as f64;
        println!(
            "With the rows of the whole Kaggle data set a dense gradient has {:.1} MB, {:.0} times INT8's.",
            dense / 1e6,
            dense / int8.gradient.step() as f64
        );
    }
}

fn byte_row(name: &str, gradient: &Bytes, dense: u64, sent: u64, received: u64) -> String {
    let Bytes { ids, rows, mlps, scales, framing, .. } = *gradient;
    let cells = [ids, rows, mlps, scales, framing, gradient.step()].map(thousands);
    let factor = dense as f64 / gradient.step().max(1) as f64;
    format!("| {name} | {} | {factor:.1} | {} | {} |", cells.join(" | "), thousands(sent), thousands(received))
}

/// 1234567 as "1,234,567".
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn print_times(runs: &Runs, networks: &[Option<Network>], timings: &[Vec<Vec<Timing>>]) {
    let titles: Vec<String> = networks.iter().map(|n| n.map_or("no network".into(), |n| n.to_string())).collect();
    println!("| gradients | {} |\n|---{}|", titles.join(" | "), "|---".repeat(titles.len()));
    let wire = all_reduced(runs.data.shape.fp32_bytes() as f64, runs.args.workers);
    let dense: Vec<String> = networks
        .iter()
        .map(|n| n.map_or("-".into(), |n| format!("{:.1} (computed, the network alone)", 1e3 * n.time(wire as usize).as_secs_f64())))
        .collect();
    println!("| dense FP32 | {} |", dense.join(" | "));
    for (scheme, timings) in SCHEMES.iter().zip(timings) {
        let cells: Vec<String> = timings.iter().map(|t| spread(&t.iter().map(|t| t.ms).collect::<Vec<_>>())).collect();
        println!("| {} | {} |", scheme.name, cells.join(" | "));
    }
    println!(
        "\nMedians of {} rounds (least to largest), {} steps each, all in turns. The workers share {} threads, so while one waits for its \
         network another computes.",
        runs.args.rounds,
        runs.args.steps,
        rayon::current_num_threads()
    );
}

fn spread(values: &[f64]) -> String {
    let s = Spread::of(values);
    format!("{:.1} ({:.1} to {:.1})", s.median, s.min, s.max)
}

fn print_parts(timings: &[Vec<Vec<Timing>>]) {
    println!("| gradients | compute | compress | wait | decode and sum |\n|---|---|---|---|---|");
    for (scheme, timings) in SCHEMES.iter().zip(timings) {
        let ranks = timings[0].iter().filter_map(|t| t.traffic.as_ref()).flat_map(|t| &t.ranks);
        let parts: Vec<[f64; 4]> = ranks.map(|m| [m.compute, m.compress, m.wait, m.merge]).collect();
        if parts.is_empty() {
            println!("| {} | - | - | - | - |", scheme.name);
            continue;
        }
        let mean = |i: usize| format!("{:.2}", parts.iter().map(|p| p[i]).sum::<f64>() / parts.len() as f64);
        println!("| {} | {} |", scheme.name, [0, 1, 2, 3].map(mean).join(" | "));
    }
    println!("\nMeans over ranks and rounds.");
}
