//! Where the time of training steps goes: [`Profile`] adds up the times of commands, and says what rate each reached;
//! [`Profile::trace`] writes every one of them for a timeline (Perfetto, `chrome://tracing`).

use crate::data::Batch;
use crate::engine::{TimedRun, Timer};
use crate::ops::{Cost, Live, cost};
use crate::plan::Plan;
use serde_json::{Value, json};

/// A command of the plan over all profiled steps.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct CommandProfile {
    /// Its phase.
    pub phase: &'static str,
    /// Its kernel.
    pub kernel: &'static str,
    /// What it works on.
    pub label: String,
    /// How often it ran.
    pub calls: u64,
    /// Seconds of all calls.
    pub seconds: f64,
    /// Bytes and operations of all calls.
    #[serde(skip)]
    pub cost: Cost,
}

/// Something with a name, a beginning and an end, in seconds.
#[derive(Debug, Clone, PartialEq)]
struct Span {
    row: Row,
    name: String,
    start: f64,
    seconds: f64,
    step: u64,
    cost: Cost,
}

/// A line of the timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    Host = 1,
    Loader = 2,
    Device = 3,
}

/// The times of one step on the host, by one clock, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HostTimes {
    /// When the loop began to wait for the batch.
    pub wait: f64,
    /// When the batch was there, and its upload began.
    pub begin: f64,
    /// When the step was done.
    pub end: f64,
}

/// Times of some training steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// What ran them.
    pub device: String,
    /// How commands were timed.
    pub timer: Timer,
    /// Steps.
    pub steps: u64,
    /// Samples of all steps.
    pub samples: u64,
    /// Seconds that the loop waited for batches.
    pub wait: f64,
    /// Seconds until the batch was on the device.
    pub upload: f64,
    /// Seconds of the commands by the host's clock, from the first's beginning to the last's end.
    pub run: f64,
    /// Every command that ran, in the order of the plan.
    pub commands: Vec<CommandProfile>,
    places: Vec<(usize, usize)>,
    spans: Vec<Span>,
}

impl Profile {
    /// Of no step yet.
    pub fn new(device: impl Into<String>) -> Profile {
        Profile {
            device: device.into(),
            timer: Timer::Clock,
            steps: 0,
            samples: 0,
            wait: 0.0,
            upload: 0.0,
            run: 0.0,
            commands: Vec::new(),
            places: Vec::new(),
            spans: Vec::new(),
        }
    }

    /// Adds a step of `plan` with this batch.
    pub fn push(&mut self, plan: &Plan, step: u64, batch: &Batch, host: HostTimes, run: &TimedRun) {
        let live = Live::of(batch);
        self.timer = run.timer;
        self.steps += 1;
        self.samples += batch.samples as u64;
        self.wait += host.begin - host.wait;
        self.upload += run.start - host.begin;
        self.run += run.seconds;
        let mut span = |row, name: &str, start: f64, seconds: f64, cost| {
            self.spans.push(Span { row, name: name.into(), start, seconds: seconds.max(0.0), step, cost });
        };
        span(Row::Loader, "wait for the batch", host.wait, host.begin - host.wait, Cost::default());
        span(Row::Host, "upload", host.begin, run.start - host.begin, Cost::default());
        span(Row::Host, "step", run.start, host.end - run.start, Cost::default());
        for time in &run.commands {
            let (phase, command) = (&plan.phases[time.phase], &plan.phases[time.phase].commands[time.command]);
            let cost = cost(command, &live);
            span(Row::Device, &format!("{} {}", command.kernel.name, command.label), run.start + time.start, time.seconds, cost);
            let at = self.places.binary_search(&(time.phase, time.command)).unwrap_or_else(|at| {
                let (phase, kernel, label) = (phase.name, command.kernel.name, command.label.clone());
                self.places.insert(at, (time.phase, time.command));
                self.commands.insert(at, CommandProfile { phase, kernel, label, calls: 0, seconds: 0.0, cost: Cost::default() });
                at
            });
            let entry = &mut self.commands[at];
            entry.calls += 1;
            entry.seconds += time.seconds;
            entry.cost += cost;
        }
    }

    /// Seconds of all commands.
    pub fn commands_seconds(&self) -> f64 {
        self.commands.iter().map(|c| c.seconds).sum()
    }

    /// The commands added up by phase and kernel, the longest first.
    pub fn kernels(&self) -> Vec<CommandProfile> {
        let mut sums: Vec<CommandProfile> = Vec::new();
        for command in &self.commands {
            match sums.iter_mut().find(|s| (s.phase, s.kernel) == (command.phase, command.kernel)) {
                Some(sum) => {
                    sum.calls += command.calls;
                    sum.seconds += command.seconds;
                    sum.cost += command.cost;
                }
                None => sums.push(CommandProfile { label: String::new(), ..command.clone() }),
            }
        }
        sums.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        sums
    }

    /// The timeline in the Trace Event Format: a JSON array of complete events (`ph` `X`), times in microseconds, with
    /// a line each for the host, for waiting for the loader, and for the device.
    pub fn trace(&self) -> String {
        let name = |kind: &str, row: u64, name: &str| json!({"ph": "M", "pid": 1, "tid": row, "name": kind, "args": {"name": name}});
        let mut events = vec![
            name("process_name", 0, "dqrm"),
            name("thread_name", Row::Host as u64, "host"),
            name("thread_name", Row::Loader as u64, "loader wait"),
            name("thread_name", Row::Device as u64, &format!("device: {}", self.device)),
        ];
        let zero = self.spans.iter().map(|s| s.start).fold(f64::INFINITY, f64::min);
        events.extend(self.spans.iter().map(|s| {
            let mut args = json!({"step": s.step});
            if s.cost.bytes > 0 {
                args["bytes"] = s.cost.bytes.into();
                args["flops"] = s.cost.flops.into();
            }
            let (ts, dur) = (1e6 * (s.start - zero), 1e6 * s.seconds);
            json!({"ph": "X", "pid": 1, "tid": s.row as u64, "name": s.name, "ts": ts, "dur": dur, "args": args})
        }));
        Value::Array(events).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::CommandTime;
    use crate::ops::case::Case;
    use crate::ops::copy;

    fn profile() -> Profile {
        let mut case = Case::new("", 1, 0);
        let [a, b] = [64, 64].map(|len| case.output("", len));
        copy::record(&mut case.plan, "there", a, b);
        copy::record(&mut case.plan, "back", b, a);
        let tables = crate::tables::Tables::new(&[1], 1, 64).unwrap();
        let block = crate::data::Block { samples: 1, dense: vec![0.0], labels: vec![0.0], offsets: vec![0, 1], ids: vec![0] };
        let batch = Batch::prepare(&block, &tables).unwrap();
        let mut profile = Profile::new("a \"device\"");
        let time = |command, start, seconds| CommandTime { phase: 0, command, start, seconds };
        // The second step lacks the first command.
        let first = TimedRun { timer: Timer::InPass, start: 1.5, seconds: 1.0, commands: vec![time(0, 0.0, 0.25), time(1, 0.25, 0.5)] };
        let second = TimedRun { timer: Timer::InPass, start: 4.0, seconds: 0.5, commands: vec![time(1, 0.0, 0.5)] };
        profile.push(&case.plan, 7, &batch, HostTimes { wait: 1.0, begin: 1.25, end: 2.75 }, &first);
        profile.push(&case.plan, 8, &batch, HostTimes { wait: 3.0, begin: 3.5, end: 4.75 }, &second);
        profile
    }

    #[test]
    fn times_add_up() {
        let p = profile();
        assert_eq!((p.steps, p.samples, p.wait, p.upload, p.run), (2, 2, 0.75, 0.75, 1.5));
        let found: Vec<_> = p.commands.iter().map(|c| (c.label.as_str(), c.calls, c.seconds, c.cost.bytes)).collect();
        assert_eq!(found, [("there", 1, 0.25, 512), ("back", 2, 1.0, 1024)]);
        assert_eq!(p.commands_seconds(), 1.25);
        let kernels = p.kernels();
        assert_eq!((kernels.len(), kernels[0].calls, kernels[0].seconds, kernels[0].cost.bytes), (1, 3, 1.25, 1536));
    }

    #[test]
    fn the_trace_is_json_with_names_and_no_negative_time() {
        let events: Vec<Value> = serde_json::from_str(&profile().trace()).unwrap();
        let names: Vec<&str> = events.iter().filter(|e| e["ph"] == "M").map(|e| e["args"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["dqrm", "host", "loader wait", "device: a \"device\""]);
        let complete: Vec<&Value> = events.iter().filter(|e| e["ph"] == "X").collect();
        assert_eq!(complete.len(), 9);
        assert!(complete.iter().all(|e| e["dur"].as_f64().unwrap() >= 0.0 && e["ts"].as_f64().unwrap() >= 0.0));
        let device: Vec<_> =
            complete.iter().filter(|e| e["tid"] == 3).map(|e| (&e["name"], &e["ts"], &e["dur"], &e["args"]["step"])).collect();
        assert_eq!(device[0], (&json!("copy there"), &json!(0.5e6), &json!(0.25e6), &json!(7)));
        assert_eq!(device[2], (&json!("copy back"), &json!(3.0e6), &json!(0.5e6), &json!(8)));
        assert_eq!(complete.iter().find(|e| e["name"] == "copy there").unwrap()["args"]["bytes"], 512);
    }
}
