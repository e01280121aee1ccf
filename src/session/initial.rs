//! Initial weights as published (facebookresearch/dlrm `create_mlp` and `create_emb`).

use super::Session;
use crate::error::Result;
use crate::rng::Stream;
use rayon::prelude::*;

/// Values made and uploaded at a time.
const CHUNK: usize = 1 << 20;

impl Session {
    /// Weights as published: a table of n rows uniform in ±sqrt(1/n), matrices normal with deviation
    /// sqrt(2/(in+out)), biases normal with sqrt(1/out). Each value depends on the seed, its tensor and
    /// its place only. `progress` gets (values done, values in all).
    pub fn initialise(&mut self, seed: u64, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        let weights: Vec<_> = self.names.iter().filter(|t| t.is_weight()).cloned().collect();
        let total = weights.iter().map(|t| t.len()).sum();
        let mut done = 0;
        let mut chunk = Vec::new();
        for (number, tensor) in weights.iter().enumerate() {
            let stream = Stream::new(seed, 0x1217).sub(number as u64);
            let rows = tensor.shape[0] as f64;
            let table = tensor.name.starts_with("emb_l");
            let deviation = if tensor.shape.len() == 2 { (2.0 / (rows + tensor.shape[1] as f64)).sqrt() } else { (1.0 / rows).sqrt() };
            let bound = (1.0 / rows).sqrt();
            let mut start = 0;
            while start < tensor.len() {
                let len = (tensor.len() - start).min(CHUNK as u64) as usize;
                let value = |i: u64| if table { bound * (2.0 * stream.uniform(i) - 1.0) } else { deviation * stream.normal(i) };
                (0..len).into_par_iter().with_min_len(4096).map(|i| value(start + i as u64) as f32).collect_into_vec(&mut chunk);
                self.write(&tensor.name, start, &chunk)?;
                start += len as u64;
                done += len as u64;
                progress(done, total);
            }
        }
        Ok(())
    }
}
