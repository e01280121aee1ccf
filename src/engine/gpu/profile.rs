//! Times of single commands on a GPU. Queries are made at load, and only when they are asked for.

use super::super::{Clock, CommandTime, TimedRun, Timer};
use super::GpuEngine;
use crate::error::{Error, Result};
use crate::plan::StepUniform;
use crate::plan::schedule::Schedule;

/// Features that give timestamps, as far as the adapter has them.
pub(super) fn features(adapter: &wgpu::Adapter) -> wgpu::Features {
    adapter.features() & (wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES)
}

/// What measures commands.
pub(super) struct Stopwatch {
    timer: Timer,
    /// Timestamps of the device, the buffer that they are resolved to and the one that the host reads.
    queries: Option<(wgpu::QuerySet, wgpu::Buffer, wgpu::Buffer)>,
    /// How many there are.
    count: usize,
    /// Seconds of one tick.
    tick: f64,
    /// A software adapter's timestamps must agree with the clock.
    strict: bool,
}

impl Stopwatch {
    pub(super) fn new(device: &wgpu::Device, queue: &wgpu::Queue, schedule: &Schedule, software: bool, one_pass: bool) -> Stopwatch {
        // Copies to texels stand between passes, and their time belongs to the command that reads them.
        let timer = if !one_pass {
            Timer::Submissions
        } else if device.features().contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES) {
            Timer::InPass
        } else if device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            Timer::Passes
        } else {
            Timer::Submissions
        };
        let commands: usize = schedule.plan.phases.iter().map(|p| p.commands.len()).sum();
        let count = (2 * commands).clamp(2, wgpu::QUERY_SET_MAX_QUERIES as usize);
        let queries = (timer != Timer::Submissions).then(|| {
            let set = device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("times of commands"),
                ty: wgpu::QueryType::Timestamp,
                count: count as u32,
            });
            let size = u64::from(wgpu::QUERY_SIZE) * count as u64;
            let resolved = super::make_buffer(device, "timestamps", size, wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC);
            let landing = super::make_buffer(device, "timestamps read", size, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
            (set, resolved, landing)
        });
        Stopwatch { timer, queries, count, tick: 1e-9 * f64::from(queue.get_timestamp_period()), strict: software }
    }

    /// Whether the timestamps of commands that took `seconds` by the clock can be true. By the clock there is the
    /// submission, too, so on a GPU it may say much more; timestamps that say more than the clock are wrong anywhere.
    fn plausible(&self, commands: &[CommandTime], seconds: f64) -> bool {
        let sum: f64 = commands.iter().map(|c| c.seconds).sum();
        let least = if self.strict { 0.9 * seconds - 5e-4 } else { 0.0 };
        commands.iter().all(|c| c.seconds >= 0.0 && c.start >= 0.0) && sum > 0.0 && sum >= least && sum <= 1.1 * seconds + 5e-4
    }
}

impl GpuEngine {
    pub(super) fn run_with_stopwatch(&mut self, phases: &[usize], step: &StepUniform, clock: Clock<'_>) -> Result<TimedRun> {
        let Some(mut watch) = self.stopwatch.take() else {
            return Err(Error::Device("the engine was not loaded for profiling".into()));
        };
        let run = self.timed(&mut watch, phases, step, clock);
        self.stopwatch = Some(watch);
        run
    }

    fn timed(&mut self, watch: &mut Stopwatch, phases: &[usize], step: &StepUniform, clock: Clock<'_>) -> Result<TimedRun> {
        let mut encoder = self.encoder();
        let target = self.step.clone();
        self.stage(&mut encoder, &target, 0, bytemuck::bytes_of(step));
        self.submit(encoder);
        self.wait()?;
        let list: Vec<(usize, usize)> = phases.iter().flat_map(|&p| (0..self.phases[p].len()).map(move |c| (p, c))).collect();
        let (begin, timer) = (clock(), watch.timer);
        let mut commands = Vec::with_capacity(list.len());
        let most = match timer {
            Timer::InPass => watch.count - 1,
            Timer::Passes => watch.count / 2,
            Timer::Clock | Timer::Submissions => 1,
        };
        for chunk in list.chunks(most) {
            let start = clock() - begin;
            let times = match (&watch.queries, timer) {
                (Some((set, resolved, landing)), Timer::InPass | Timer::Passes) => {
                    let encoder = self.with_timestamps(chunk, set, timer);
                    let pairs = self.timestamps(encoder, chunk.len(), timer, set, resolved, landing)?;
                    let (first, tick) = (pairs[0][0], watch.tick);
                    let seconds = |from: u64, to: u64| to.wrapping_sub(from) as i64 as f64 * tick;
                    pairs.iter().map(|&[from, to]| (start + seconds(first, from), seconds(from, to))).collect()
                }
                _ => {
                    chunk.iter().for_each(|&(phase, command)| self.alone(phase, command));
                    self.wait()?;
                    vec![(start, clock() - begin - start)]
                }
            };
            let timed = chunk.iter().zip(times);
            commands.extend(timed.map(|(&(phase, command), (start, seconds))| CommandTime { phase, command, start, seconds }));
        }
        let seconds = clock() - begin;
        if timer != Timer::Submissions && !list.is_empty() && !watch.plausible(&commands, seconds) {
            log::warn!("the timestamps of the device do not agree with the clock; commands are submitted one by one to be timed");
            watch.timer = Timer::Submissions;
        }
        Ok(TimedRun { timer, start: begin, seconds, commands })
    }

    /// Submits one command.
    fn alone(&mut self, phase: usize, command: usize) {
        let mut encoder = self.encoder();
        let dispatch = &self.phases[phase][command];
        dispatch.stale.iter().for_each(|&texture| self.mirrors.copy(&mut encoder, &self.slots, texture));
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_bind_group(1, &self.step_group, &[]);
            dispatch.record(&mut pass);
        }
        self.submit(encoder);
    }

    /// Records commands with timestamps: before the first and after each in one pass, or two for a pass of each.
    fn with_timestamps(&mut self, list: &[(usize, usize)], set: &wgpu::QuerySet, timer: Timer) -> wgpu::CommandEncoder {
        let mut encoder = self.encoder();
        if timer == Timer::InPass {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_bind_group(1, &self.step_group, &[]);
            pass.write_timestamp(set, 0);
            for (i, &(phase, command)) in list.iter().enumerate() {
                self.phases[phase][command].record(&mut pass);
                pass.write_timestamp(set, i as u32 + 1);
            }
            drop(pass);
            return encoder;
        }
        for (i, &(phase, command)) in list.iter().enumerate() {
            let timestamp_writes = Some(wgpu::ComputePassTimestampWrites {
                query_set: set,
                beginning_of_pass_write_index: Some(2 * i as u32),
                end_of_pass_write_index: Some(2 * i as u32 + 1),
            });
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
            pass.set_bind_group(1, &self.step_group, &[]);
            self.phases[phase][command].record(&mut pass);
        }
        encoder
    }

    /// Submits, waits, and gives the ticks before and after each of `commands` commands.
    fn timestamps(
        &mut self,
        mut encoder: wgpu::CommandEncoder,
        commands: usize,
        timer: Timer,
        set: &wgpu::QuerySet,
        resolved: &wgpu::Buffer,
        landing: &wgpu::Buffer,
    ) -> Result<Vec<[u64; 2]>> {
        let count = if timer == Timer::InPass { commands + 1 } else { 2 * commands };
        let bytes = u64::from(wgpu::QUERY_SIZE) * count as u64;
        encoder.resolve_query_set(set, 0..count as u32, resolved, 0);
        encoder.copy_buffer_to_buffer(resolved, 0, landing, 0, bytes);
        self.submit(encoder);
        let (sender, mut receiver) = futures_channel::oneshot::channel();
        landing.map_async(wgpu::MapMode::Read, ..bytes, move |outcome| {
            let _ = sender.send(outcome); // the receiver lives until the end of this function
        });
        self.wait()?;
        let lost = |text: String| Error::Device(format!("reading timestamps failed: {text}"));
        match receiver.try_recv() {
            Ok(Some(outcome)) => outcome.map_err(|e| lost(e.to_string()))?,
            _ => return Err(lost("the device did not answer; a browser cannot wait for it".into())),
        }
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&landing.get_mapped_range(..bytes).map_err(|e| lost(e.to_string()))?);
        landing.unmap();
        Ok(if timer == Timer::InPass {
            ticks.windows(2).map(|w| [w[0], w[1]]).collect()
        } else {
            ticks.chunks_exact(2).map(|w| [w[0], w[1]]).collect()
        })
    }

    /// Waits for everything that was submitted.
    fn wait(&mut self) -> Result<()> {
        self.poll(wgpu::PollType::wait_indefinitely())?;
        self.in_flight.clear();
        Ok(())
    }
}
