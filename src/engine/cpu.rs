//! The CPU engine: runs the twins on ordinary memory.

use super::{Engine, Local};
use crate::error::Result;
use crate::plan::schedule::{Limits, Schedule};
use crate::plan::{Access, Args, Command, StepUniform, View};

/// A schedule in memory.
#[derive(Debug)]
pub struct CpuEngine {
    schedule: Schedule,
    slots: Vec<Vec<u32>>,
}

impl CpuEngine {
    /// Makes the buffers, all zero.
    pub fn load(schedule: Schedule) -> CpuEngine {
        let slots = schedule.slots.iter().map(|&len| vec![0; len]).collect();
        CpuEngine { schedule, slots }
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

    fn execute(&mut self, phase: usize, command: usize, step: &StepUniform) {
        let CpuEngine { schedule, slots } = self;
        let command = &schedule.plan.phases[phase].commands[command];
        let written = |access| access != Access::Read;
        // The schedule saw to it that a written slot is bound once: taken out, it leaves the others readable.
        let mut taken: Vec<(usize, Vec<u32>)> = Vec::new();
        for (binding, view) in command.kernel.bindings.iter().zip(&command.views) {
            if written(binding.access) {
                let slot = schedule.slot(view);
                taken.push((slot, std::mem::take(&mut slots[slot])));
            }
        }
        call(schedule, command, slots, &mut taken, step);
        for (slot, memory) in taken {
            slots[slot] = memory;
        }
    }
}

fn call(schedule: &Schedule, command: &Command, slots: &[Vec<u32>], taken: &mut [(usize, Vec<u32>)], step: &StepUniform) {
    let bound = || command.kernel.bindings.iter().zip(&command.views);
    let inputs =
        bound().filter(|(b, _)| b.access == Access::Read).map(|(_, v)| &slots[schedule.slot(v)][v.offset..v.offset + v.len]).collect();
    let views = bound().filter(|(b, _)| b.access != Access::Read).map(|(_, v)| v);
    let outputs = taken.iter_mut().zip(views).map(|((_, memory), v)| &mut memory[v.offset..v.offset + v.len]).collect();
    (command.kernel.twin)(Args { params: &command.params, step, inputs, outputs });
}

impl Engine for CpuEngine {
    fn write(&mut self, view: View, words: &[u32]) -> Result<()> {
        let slot = self.schedule.slot(&view);
        self.slots[slot][view.offset..view.offset + words.len()].copy_from_slice(words);
        Ok(())
    }

    fn run(&mut self, phases: &[usize], step: &StepUniform) -> Result<()> {
        for &phase in phases {
            for command in 0..self.schedule.plan.phases[phase].commands.len() {
                self.execute(phase, command, step);
            }
        }
        Ok(())
    }

    fn run_command(&mut self, phase: usize, command: usize, step: &StepUniform) -> Result<()> {
        self.execute(phase, command, step);
        Ok(())
    }

    fn read(&mut self, view: View) -> Local<'_, Result<Vec<u32>>> {
        let words = self.slots[self.schedule.slot(&view)][view.offset..view.offset + view.len].to_vec();
        Box::pin(std::future::ready(Ok(words)))
    }
}
