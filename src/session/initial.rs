//! Initial weights as published (facebookresearch/dlrm `create_mlp` and `create_emb`).

use super::Session;
use crate::error::Result;
use crate::rng::Stream;

/// About as many values are made between two reports of progress.
const CHUNK: u64 = 1 << 24;

/// Values uniform in ±`bound`, the first of which has place `first`. With the widest vector instructions that the
/// machine has: a large model is mostly this.
struct Uniform<'a> {
    stream: Stream,
    bound: f64,
    first: u64,
    out: &'a mut [f32],
}

impl pulp::NullaryFnOnce for Uniform<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (i, v) in self.out.iter_mut().enumerate() {
            *v = (self.bound * (2.0 * self.stream.uniform(self.first + i as u64) - 1.0)) as f32;
        }
    }
}

impl Session {
    /// Weights as published: a table of n rows uniform in ±sqrt(1/n), matrices normal with deviation
    /// sqrt(2/(in+out)), biases normal with sqrt(1/out). Each value depends on the seed, its tensor and
    /// its place only. `progress` gets (values done, values in all).
    ///
    /// # Errors
    /// A lost device; a disk that takes no more, with tables on the host.
    pub fn initialise(&mut self, seed: u64, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        let weights: Vec<_> = self.names.iter().filter(|t| t.is_weight()).cloned().collect();
        let total = weights.iter().map(|t| t.len()).sum();
        let mut done = 0;
        for (number, tensor) in weights.iter().enumerate() {
            let stream = Stream::new(seed, 0x1217).sub(number as u64);
            let rows = tensor.shape[0] as f64;
            let width = tensor.shape.get(1).copied().unwrap_or(1);
            let deviation = if tensor.shape.len() == 2 { (2.0 / (rows + width as f64)).sqrt() } else { (1.0 / rows).sqrt() };
            let bound = (1.0 / rows).sqrt();
            let uniform = |first: u64, out: &mut [f32]| pulp::Arch::new().dispatch(Uniform { stream, bound, first, out });
            let normal = |first: u64, out: &mut [f32]| (first..).zip(out).for_each(|(i, v)| *v = (deviation * stream.normal(i)) as f32);
            let table = self.tables.count() > number;
            let make: &(dyn Fn(u64, &mut [f32]) + Sync) = if table { &uniform } else { &normal };
            let step = (CHUNK / width).max(1);
            let mut row = 0;
            while row < tensor.shape[0] {
                let count = step.min(tensor.shape[0] - row);
                if !(table && self.fill_hosted(number, row, count, make)?) {
                    self.fill(&tensor.name, row * width, (count * width) as usize, make)?;
                }
                row += count;
                done += count * width;
                progress(done, total);
            }
        }
        Ok(())
    }

    /// Sets values `start..start + len` of a tensor on the device to what `make` gives for (place in the tensor, values).
    fn fill(&mut self, name: &str, start: u64, len: usize, make: &(dyn Fn(u64, &mut [f32]) + Sync)) -> Result<()> {
        let mut first = start;
        for piece in self.pieces(name, start, len)? {
            let of_piece = |place: usize, words: &mut [u32]| make(first + place as u64, bytemuck::cast_slice_mut(words));
            self.engine.fill(piece, &of_piece)?;
            first += piece.len as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vector_instructions_change_no_value() {
        let stream = Stream::new(5, 0x1217);
        for (first, len) in [(0, 1000), (u64::from(u32::MAX) - 7, 37), (1 << 40, 3)] {
            let mut out = vec![0.0; len];
            pulp::Arch::new().dispatch(Uniform { stream, bound: 0.03, first, out: &mut out });
            for (v, i) in out.into_iter().zip(first..) {
                assert_eq!(v.to_bits(), ((0.03 * (2.0 * stream.uniform(i) - 1.0)) as f32).to_bits(), "value {i}");
            }
        }
    }
}
