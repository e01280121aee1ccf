//! Where a value that is not finite came from.

use super::{Session, TRAIN, floats};
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::plan::{Access, StepUniform};
use crate::step::phase;

impl Session {
    /// The first buffer, in the order of a step, that holds a value that is not finite, with a count:
    /// "`top_l.0.weight` (12 of 187904 values)". Looks at the MLPs' parameters and the scales, then, with
    /// a batch and no result left unread, runs the step's commands one by one, without updating, and looks at what each wrote.
    pub async fn first_not_finite(&mut self, batch: Option<&Batch>) -> Result<Option<String>> {
        for i in 0..self.names.len() {
            let tensor = self.names[i].clone();
            let small = !tensor.name.contains("emb_l") || tensor.name.contains("scale");
            if small && let Some(found) = count_not_finite(&tensor.name, &self.read(&tensor.name, 0, tensor.len() as usize).await?) {
                return Ok(Some(found));
            }
        }
        let Some(batch) = batch else { return Ok(None) };
        match self.results.unread() {
            0 => {}
            unread => return Err(Error::Plan(format!("{unread} steps whose results were not read; call `history` first"))),
        }
        self.begin_evaluation()?; // makes scales if there are none
        self.upload(batch, TRAIN)?;
        if let Some(found) = count_not_finite("dense features of the batch", &batch.dense) {
            return Ok(Some(found));
        }
        let uniform = StepUniform { slot: 0, ..self.uniform(0, batch) };
        let gradients = self.phase(if self.pretraining() { phase::FULL_GRADIENTS } else { phase::GRADIENTS })?;
        for command in 0..self.recorded.plan.phases[gradients].commands.len() {
            self.engine.run_command(gradients, command, &uniform)?;
            if let Some(found) = self.not_finite_after(gradients, command, batch).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn not_finite_after(&mut self, phase: usize, command: usize, batch: &Batch) -> Result<Option<String>> {
        let command = self.recorded.plan.phases[phase].commands[command].clone();
        for (binding, &view) in command.kernel.bindings.iter().zip(&command.views) {
            if binding.access != Access::Write || binding.elem != crate::plan::Elem::F32 {
                continue;
            }
            let values = floats(&self.engine.read(view).await?);
            let buffer = self.recorded.plan.buffers[view.buffer.0].clone();
            let dim = self.shape.dim;
            if buffer.name.ends_with("gathered") {
                let live = &values[..batch.touched() * dim];
                if let Some(u) = live.chunks_exact(dim).position(|row| row.iter().any(|v| !v.is_finite())) {
                    let table = batch.row_tables[u];
                    let of_table =
                        live.chunks_exact(dim).zip(&batch.row_tables).filter(|(_, t)| **t == table).flat_map(|(r, _)| r.iter().copied());
                    return Ok(count_not_finite(&format!("emb_l.{table}.weight"), &of_table.collect::<Vec<f32>>()));
                }
                continue;
            }
            // Buffers with one row per sample hold old values behind the live samples.
            let live =
                if buffer.shape.starts_with("[B") { values.len() / self.capacity[TRAIN].samples * batch.samples } else { values.len() };
            let live =
                if buffer.shape.starts_with("[U") { values.len() / self.capacity[TRAIN].touched.max(1) * batch.touched() } else { live };
            let name = if buffer.shape == "flat" { format!("{} of {}", buffer.name, command.label) } else { buffer.name };
            if let Some(found) = count_not_finite(&name, &values[..live]) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

fn count_not_finite(name: &str, values: &[f32]) -> Option<String> {
    let bad = values.iter().filter(|v| !v.is_finite()).count();
    (bad > 0).then(|| format!("`{name}` ({bad} of {} values)", values.len()))
}
