//! What `dqrm train --dry-run` prints.

use super::comm::{aligned, size};
use super::live::grouped;
use super::table::{bytes_per_second, flops_per_second};
use crate::train::DryRun;
use std::fmt::Write;

/// The report.
pub(super) fn describe(d: &DryRun) -> String {
    let mut text = String::new();
    let mut line = |name: &str, what: String| writeln!(text, "{name:<10} {what}").expect("a string takes any text");
    line("device", format!("{} ({})", d.engine, d.device));
    match d.limits {
        Some((binding, buffer, buffers)) => {
            line("limits", format!("binding {}, buffer {}, {buffers} storage buffers in a shader", size(binding), size(buffer)));
        }
        None => line("limits", "memory alone".into()),
    }
    let [embedding, mlps] = [d.embedding_parameters, d.mlp_parameters].map(grouped);
    line("model", format!("{} tables, {} rows of width {}", d.tables, grouped(d.rows), d.dim));
    line("", format!("{embedding} parameters of tables, {mlps} of MLPs"));
    let cut = if d.bindings == 1 { "one binding".into() } else { format!("{} bindings", d.bindings) };
    let (bound, largest) = (d.most_bound, size(d.largest_buffer));
    line("bindings", format!("tables in {cut}; the largest buffer has {largest}, a command binds at most {bound} buffers"));
    for note in &d.notes {
        line("note", note.clone());
    }
    let mut rows = vec![vec!["memory".to_owned(), "bytes".into(), String::new()]];
    for part in &d.memory {
        let place = if part.on_device { "" } else { "(of the host)" };
        rows.push(vec![part.name.into(), grouped(part.bytes), place.into()]);
    }
    rows.push(vec!["all on the device".into(), grouped(d.device_bytes), format!("({})", size(d.device_bytes))]);
    rows.push(vec!["all of the host".into(), grouped(d.host_bytes()), format!("({})", size(d.host_bytes()))]);
    if let Some(bytes) = d.file_bytes {
        rows.push(vec!["file of the tables".into(), grouped(bytes), format!("({}, on the disk)", size(bytes))]);
    }
    text += &format!("\n{}", aligned(&rows));
    text += &match (d.fits(), d.available) {
        (Some(true), Some(available)) => format!("fits: {} are free\n", size(available)),
        (Some(false), Some(available)) => format!("does not fit: {} are free; use --max-rows or smaller batches\n", size(available)),
        _ if d.limits.is_some() => "no limit of the adapter forbids it; how much memory it has free, no graphics interface tells\n".into(),
        _ => "this system does not tell how much memory is free\n".into(),
    };
    text + &step(d)
}

/// A step: what it moves, and how long it should take.
fn step(d: &DryRun) -> String {
    let (s, p, c) = (&d.step, &d.predicted, &d.ceiling);
    let mut rows = vec![
        vec![format!("step of {} samples", grouped(d.batch as u64)), String::new()],
        vec!["commands".into(), grouped(s.dispatches)],
        vec!["upload, bytes".into(), grouped(s.upload_bytes)],
        vec!["rows touched".into(), grouped(d.touched)],
        vec!["rows looked up and updated, bytes".into(), grouped(s.row_bytes)],
        vec!["all that commands read and write, bytes".into(), grouped(s.bytes)],
        vec!["operations".into(), grouped(s.flops)],
        vec!["read back, bytes".into(), grouped(d.readback)],
    ];
    if s.returned_bytes > 0 {
        rows.push(vec!["rows to the device and back, each way, bytes".into(), grouped(s.returned_bytes)]);
    }
    if let Some((sent, received)) = d.exchange {
        rows.push(vec!["sent to other workers, bytes".into(), grouped(sent)]);
        rows.push(vec!["received from them, bytes".into(), grouped(received)]);
    }
    let ms = |seconds: f64| format!("{:.3}", 1e3 * seconds);
    let mut times = vec![
        vec!["predicted step".to_owned(), "ms".into()],
        vec!["commands at the ceilings".into(), ms(p.commands)],
        vec![format!("dispatches, {:.2} us each", 1e6 * c.dispatch_seconds), ms(p.dispatches)],
        vec![format!("upload at {}", bytes_per_second(c.upload_bytes_per_second)), ms(p.upload)],
    ];
    if s.returned_bytes > 0 {
        times.push(vec!["rows back, as quickly".into(), ms(p.returned)]);
    }
    if let Some(every) = d.refresh_every {
        times.push(vec![format!("refresh of scales, once in {every} steps"), ms(p.refresh)]);
    }
    times.push(vec!["all".into(), ms(p.seconds())]);
    let rate = grouped(d.samples_per_second as u64);
    format!(
        "\n{}\nceilings   {} (copy of {}, read and write), {} (product of {side} x {side} x {side})\n\n{}\n{rate} samples/s, if every command ran at a \
         ceiling. Small products stay below it, data in a cache goes beyond it, scattered rows\nstay below it: take this as a bound and an order \
         of magnitude, and measure with `dqrm bench step`.\n",
        aligned(&rows),
        bytes_per_second(c.bytes_per_second),
        size(c.copied),
        flops_per_second(c.flops_per_second),
        aligned(&times),
        side = c.side,
    )
}
