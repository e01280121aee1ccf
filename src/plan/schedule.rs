//! A schedule: a checked plan. Hazards and limits are looked at once, lifetimes give each buffer a
//! physical slot (scratch buffers that are never alive together share one), parameters are packed.

use super::{Access, BufferId, Command, Elem, Plan, Role, View};
use crate::error::{Error, Result};

/// What an engine allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Who says so, for errors.
    pub adapter: String,
    /// Largest storage binding, in bytes.
    pub max_binding: u64,
    /// Largest buffer, in bytes.
    pub max_buffer: u64,
    /// Storage buffers in one shader.
    pub max_storage_buffers: usize,
    /// Workgroups in one dimension.
    pub max_groups: u32,
    /// Invocations in one workgroup.
    pub max_invocations: u32,
}

/// Views begin at multiples of this many elements (256 bytes, WebGPU's largest offset alignment).
pub const VIEW_ALIGNMENT: usize = 64;

/// A plan that may run.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// What was checked.
    pub plan: Plan,
    /// The slot of each buffer.
    pub slot_of: Vec<usize>,
    /// Length of each slot, in elements.
    pub slots: Vec<usize>,
    /// All parameter blocks, each at a multiple of 256 bytes, in the order of phases and commands.
    pub params: Vec<u8>,
}

impl Schedule {
    /// Checks `plan` against `limits` and assigns slots.
    ///
    /// # Errors
    /// [`Error::Limit`] when a binding or buffer is too large, [`Error::Plan`] when a rule is broken.
    pub fn new(plan: Plan, limits: &Limits) -> Result<Schedule> {
        check_sizes(&plan, limits)?;
        for phase in &plan.phases {
            for command in &phase.commands {
                check_command(&plan, command, limits)?;
            }
        }
        let (slot_of, slots) = assign_slots(&plan)?;
        for command in plan.phases.iter().flat_map(|p| &p.commands) {
            check_aliases(&plan, command, &slot_of)?;
        }
        let mut params = Vec::new();
        for command in plan.phases.iter().flat_map(|p| &p.commands) {
            params.extend_from_slice(&command.params);
            params.resize(params.len().next_multiple_of(256), 0);
        }
        Ok(Schedule { plan, slot_of, slots, params })
    }

    /// Bytes of all slots.
    pub fn bytes(&self) -> u64 {
        self.slots.iter().map(|&len| 4 * len as u64).sum()
    }

    /// The slot a view lies in.
    pub fn slot(&self, view: &View) -> usize {
        self.slot_of[view.buffer.0]
    }
}

fn check_sizes(plan: &Plan, limits: &Limits) -> Result<()> {
    for buffer in &plan.buffers {
        let needed = 4 * buffer.len as u64;
        let limit = |limit_name, limit, hint| Error::Limit {
            what: format!("buffer `{}` {}", buffer.name, buffer.shape),
            needed,
            limit_name,
            limit,
            adapter: limits.adapter.clone(),
            hint,
        };
        if needed > limits.max_buffer {
            return Err(limit("maxBufferSize", limits.max_buffer, "use a smaller batch, fewer rows (model.max_rows) or --device cpu"));
        }
        if needed > limits.max_binding {
            return Err(limit("maxStorageBufferBindingSize", limits.max_binding, "use a smaller batch or --device cpu"));
        }
    }
    Ok(())
}

fn check_command(plan: &Plan, command: &Command, limits: &Limits) -> Result<()> {
    let kernel = command.kernel;
    let fail = |text: String| Err(Error::Plan(format!("`{}` ({}): {text}", command.label, kernel.name)));
    if command.views.len() != kernel.bindings.len() {
        return fail(format!("{} views for {} bindings", command.views.len(), kernel.bindings.len()));
    }
    if kernel.bindings.len() > limits.max_storage_buffers {
        return fail(format!("{} storage buffers, the adapter allows {}", kernel.bindings.len(), limits.max_storage_buffers));
    }
    if command.params.len() != 4 * kernel.params.len() {
        return fail(format!("{} bytes of parameters for {} fields", command.params.len(), kernel.params.len()));
    }
    if kernel.workgroup.iter().product::<u32>() > limits.max_invocations {
        return fail(format!("workgroup {:?}, the adapter allows {} invocations", kernel.workgroup, limits.max_invocations));
    }
    if command.grid.iter().any(|&g| g == 0 || g > limits.max_groups) {
        return fail(format!("grid {:?}, the adapter allows {} workgroups in a dimension", command.grid, limits.max_groups));
    }
    for (binding, view) in kernel.bindings.iter().zip(&command.views) {
        let Some(buffer) = plan.buffers.get(view.buffer.0) else {
            return fail(format!("`{}` is bound to a buffer that does not exist", binding.name));
        };
        if view.offset % VIEW_ALIGNMENT != 0 || view.len == 0 || view.offset + view.len > buffer.len {
            return fail(format!(
                "`{}` is bound to {}+{} of `{}` ({} elements)",
                binding.name, view.offset, view.len, buffer.name, buffer.len
            ));
        }
        if binding.elem != buffer.elem && !(binding.elem == Elem::U32 && binding.access == Access::Read) {
            return fail(format!("`{}` is {:?}, `{}` holds {:?}", binding.name, binding.elem, buffer.name, buffer.elem));
        }
        if buffer.role == Role::Input && binding.access != Access::Read {
            return fail(format!("writes the input `{}`", buffer.name));
        }
    }
    Ok(())
}

/// One buffer must not be bound twice when one of the bindings writes: barriers are per buffer.
fn check_aliases(plan: &Plan, command: &Command, slot_of: &[usize]) -> Result<()> {
    let bound: Vec<_> = command.kernel.bindings.iter().zip(&command.views).collect();
    for (i, (a, va)) in bound.iter().enumerate() {
        for (b, vb) in &bound[..i] {
            if slot_of[va.buffer.0] == slot_of[vb.buffer.0] && (a.access != Access::Read || b.access != Access::Read) {
                let names = [va, vb].map(|v| plan.buffers[v.buffer.0].name.as_str());
                return Err(Error::Plan(format!(
                    "`{}`: `{}` and `{}` lie in one buffer and one of them is written",
                    command.label, names[0], names[1]
                )));
            }
        }
    }
    Ok(())
}

/// First and last command of each scratch buffer that is used in exactly one phase.
fn lifetimes(plan: &Plan) -> Result<Vec<Option<(usize, usize, usize)>>> {
    let mut lives: Vec<Option<(usize, usize, usize)>> = vec![None; plan.buffers.len()];
    let mut shared = vec![false; plan.buffers.len()];
    for (p, phase) in plan.phases.iter().enumerate() {
        for (c, command) in phase.commands.iter().enumerate() {
            for (binding, view) in command.kernel.bindings.iter().zip(&command.views) {
                let BufferId(b) = view.buffer;
                match &mut lives[b] {
                    Some((phase, _, last)) if *phase == p => *last = c,
                    Some(_) => shared[b] = true,
                    none => {
                        if plan.buffers[b].role == Role::Scratch && binding.access != Access::Write {
                            let text = format!("`{}` reads `{}` before anything wrote it", command.label, plan.buffers[b].name);
                            return Err(Error::Plan(text));
                        }
                        *none = Some((p, c, c));
                    }
                }
            }
        }
    }
    for (b, life) in lives.iter_mut().enumerate() {
        if shared[b] || plan.buffers[b].role != Role::Scratch {
            *life = None;
        }
    }
    Ok(lives)
}

fn assign_slots(plan: &Plan) -> Result<(Vec<usize>, Vec<usize>)> {
    let lives = lifetimes(plan)?;
    let mut slot_of = vec![usize::MAX; plan.buffers.len()];
    let mut slots: Vec<usize> = Vec::new();
    let mut pool: Vec<usize> = Vec::new(); // slots that scratch buffers share, in all phases
    for (b, buffer) in plan.buffers.iter().enumerate() {
        if lives[b].is_none() {
            slot_of[b] = slots.len();
            slots.push(buffer.len);
        }
    }
    for p in 0..plan.phases.len() {
        let mut born: Vec<_> = (0..plan.buffers.len()).filter_map(|b| lives[b].filter(|l| l.0 == p).map(|l| (l.1, l.2, b))).collect();
        born.sort_unstable();
        let mut busy: Vec<(usize, usize)> = Vec::new(); // (last command, slot)
        for (first, last, b) in born {
            busy.retain(|&(end, _)| end >= first);
            let len = plan.buffers[b].len;
            let free = pool.iter().copied().filter(|s| busy.iter().all(|&(_, taken)| taken != *s));
            // The free slot that needs the least growth, then the least waste.
            let best = free.min_by_key(|&s| (len.saturating_sub(slots[s]), slots[s].saturating_sub(len)));
            let slot = best.unwrap_or_else(|| {
                slots.push(0);
                pool.push(slots.len() - 1);
                slots.len() - 1
            });
            slots[slot] = slots[slot].max(len);
            slot_of[b] = slot;
            busy.push((last, slot));
        }
    }
    Ok((slot_of, slots))
}
