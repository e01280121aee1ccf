//! The CPU engine: runs the twins on ordinary memory.

use super::{Clock, CommandTime, Engine, Local, Reading, Shared, TimedRun, Timer};
use crate::error::{Error, Result};
use crate::plan::schedule::{Limits, Schedule};
use crate::plan::{Access, Args, BufferId, Command, Role, StepUniform, View};

mod memory;
use memory::Memory;

/// The threads that the twins share: `1 thread`, `16 threads`.
pub fn title() -> String {
    match rayon::current_num_threads() {
        1 => "1 thread".into(),
        threads => format!("{threads} threads"),
    }
}

/// A schedule in memory.
#[derive(Debug)]
pub struct CpuEngine {
    schedule: Schedule,
    slots: Vec<Slot>,
}

/// A buffer.
#[derive(Debug)]
enum Slot {
    Own(Memory),
    Shared(Shared),
}

impl Slot {
    fn words(&self) -> &[u32] {
        match self {
            Slot::Own(words) => words,
            Slot::Shared(shared) => shared.words(),
        }
    }
}

impl CpuEngine {
    /// Makes the buffers, all zero.
    pub fn load(schedule: Schedule) -> CpuEngine {
        let slots = schedule.slots.iter().map(|&len| Slot::Own(Memory::zeros(len))).collect();
        CpuEngine { schedule, slots }
    }

    /// Makes the buffers but for those that lie in memory already; they must be inputs of the plan.
    ///
    /// # Errors
    /// A buffer that commands write, or that is longer than its memory.
    pub fn load_with(schedule: Schedule, shared: Vec<(BufferId, Shared)>) -> Result<CpuEngine> {
        let mut slots: Vec<Option<Slot>> = schedule.slots.iter().map(|_| None).collect();
        for (id, words) in shared {
            let buffer = &schedule.plan.buffers[id.0];
            if buffer.role != Role::Input || words.words().len() < buffer.len {
                return Err(Error::Plan(format!("`{}` cannot lie in shared memory of {} words", buffer.name, words.words().len())));
            }
            slots[schedule.slot_of[id.0]] = Some(Slot::Shared(words));
        }
        let own = |(slot, &len): (Option<Slot>, &usize)| slot.map_or_else(|| Memory::try_zeros(len).map(Slot::Own), Ok);
        let slots = slots.into_iter().zip(&schedule.slots).map(own).collect::<Result<_>>()?;
        Ok(CpuEngine { schedule, slots })
    }

    /// Memory is the only limit; tables of any size lie in one shard unless `max_binding` says otherwise.
    pub fn limits(max_binding: Option<u64>) -> Limits {
        Limits {
            adapter: "cpu".into(),
            max_binding: max_binding.unwrap_or(u64::MAX),
            max_buffer: u64::MAX,
            max_storage_buffers: usize::MAX,
            max_groups: u32::MAX,
            max_invocations: u32::MAX,
        }
    }

    fn each_command(&mut self, phases: &[usize], mut run: impl FnMut(&mut CpuEngine, usize, usize)) {
        for &phase in phases {
            for command in 0..self.schedule.plan.phases[phase].commands.len() {
                run(self, phase, command);
            }
        }
    }

    fn execute(&mut self, phase: usize, command: usize, step: &StepUniform) {
        let CpuEngine { schedule, slots } = self;
        let command = &schedule.plan.phases[phase].commands[command];
        let written = |access| access != Access::Read;
        // The schedule saw to it that a written slot is bound once: taken out, it leaves the others readable.
        let mut taken: Vec<(usize, Memory)> = Vec::new();
        for (binding, view) in command.kernel.bindings.iter().zip(&command.views) {
            if written(binding.access) {
                let slot = schedule.slot(view);
                if let Slot::Own(words) = &mut slots[slot] {
                    taken.push((slot, std::mem::take(words)));
                }
            }
        }
        call(schedule, command, slots, &mut taken, step);
        for (slot, memory) in taken {
            slots[slot] = Slot::Own(memory);
        }
    }
}

fn call(schedule: &Schedule, command: &Command, slots: &[Slot], taken: &mut [(usize, Memory)], step: &StepUniform) {
    let bound = || command.kernel.bindings.iter().zip(&command.views);
    let inputs = bound()
        .filter(|(b, _)| b.access == Access::Read)
        .map(|(_, v)| &slots[schedule.slot(v)].words()[v.offset..v.offset + v.len])
        .collect();
    let views = bound().filter(|(b, _)| b.access != Access::Read).map(|(_, v)| v);
    let outputs = taken.iter_mut().zip(views).map(|((_, memory), v)| &mut memory[v.offset..v.offset + v.len]).collect();
    (command.kernel.twin)(Args { params: &command.params, step, inputs, outputs });
}

/// Runs `body` on one of rayon's own threads: a twin that shares its rows out then waits for no wake-up of another one.
fn inside(body: impl FnOnce() + Send) {
    rayon::scope(|_| body());
}

impl Engine for CpuEngine {
    fn write(&mut self, view: View, words: &[u32]) -> Result<()> {
        let slot = self.schedule.slot(&view);
        match &mut self.slots[slot] {
            Slot::Own(memory) => memory[view.offset..view.offset + words.len()].copy_from_slice(words),
            Slot::Shared(_) => return Err(Error::Plan("a buffer in shared memory cannot be written".into())),
        }
        Ok(())
    }

    fn fill(&mut self, view: View, make: &(dyn Fn(usize, &mut [u32]) + Sync)) -> Result<()> {
        let slot = self.schedule.slot(&view);
        match &mut self.slots[slot] {
            Slot::Own(memory) => super::fill_words(&mut memory[view.offset..view.offset + view.len], 0, make),
            Slot::Shared(_) => return Err(Error::Plan("a buffer in shared memory cannot be written".into())),
        }
        Ok(())
    }

    fn run(&mut self, phases: &[usize], step: &StepUniform) -> Result<()> {
        inside(|| self.each_command(phases, |engine, phase, command| engine.execute(phase, command, step)));
        Ok(())
    }

    fn run_command(&mut self, phase: usize, command: usize, step: &StepUniform) -> Result<()> {
        inside(|| self.execute(phase, command, step));
        Ok(())
    }

    fn run_timed(&mut self, phases: &[usize], step: &StepUniform, clock: Clock<'_>) -> Result<TimedRun> {
        let begin = clock();
        let mut commands = Vec::new();
        inside(|| {
            self.each_command(phases, |engine, phase, command| {
                let start = clock();
                engine.execute(phase, command, step);
                commands.push(CommandTime { phase, command, start: start - begin, seconds: clock() - start });
            });
        });
        Ok(TimedRun { timer: Timer::Clock, start: begin, seconds: clock() - begin, commands })
    }

    fn begin_read(&mut self, views: &[View]) -> Result<Box<dyn Reading>> {
        let words = |view: &View| &self.slots[self.schedule.slot(view)].words()[view.offset..view.offset + view.len];
        Ok(Box::new(Copied(views.iter().map(words).collect::<Vec<_>>().concat())))
    }
}

/// Words that were read at once.
#[derive(Debug)]
struct Copied(Vec<u32>);

impl Reading for Copied {
    fn ready(&mut self) -> Result<bool> {
        Ok(true)
    }

    fn wait(&mut self) -> Local<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn words(&mut self) -> Result<Vec<u32>> {
        Ok(std::mem::take(&mut self.0))
    }
}
