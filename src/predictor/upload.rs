//! From the bytes of a packed model to the buffers of a predictor.

use super::Predictor;
use super::record::{LayerViews, Recorded};
use crate::engine::{Engine, Shared};
use crate::error::Result;
use crate::packed::Packed;
use crate::plan::{BufferId, View};
use crate::tables::Tables;

/// Words uploaded at a time.
const PIECE: usize = 1 << 20;

/// The tables' buffers inside the memory of the file, where they lie on words of four bytes.
pub(super) fn share(packed: &Packed, tables: &Tables, r: &Recorded) -> Option<Vec<(BufferId, Shared)>> {
    let memory = packed.memory()?;
    let mut shared = Vec::new();
    let mut add = |start: usize, views: &[View], bytes_per_row: usize| {
        views.iter().enumerate().try_for_each(|(s, view)| {
            let start = start + tables.first_row_of_shard(s) as usize * bytes_per_row;
            shared.push((view.buffer, Shared::new(memory.clone(), start, view.len)?));
            Some(())
        })
    };
    add(packed.codes().start, &r.shards, tables.row_bytes())?;
    add(packed.outline().table_scales().start, &r.scales, if r.row_scales { 4 } else { 0 })?;
    Some(shared)
}

impl Predictor {
    /// Writes the codes of the tables.
    pub(super) fn upload_codes(&mut self, packed: &Packed) -> Result<()> {
        self.write_rows(packed.slice(packed.codes()), &self.recorded.shards.clone(), self.tables.row_bytes())
    }

    /// Writes the scales of the tables.
    pub(super) fn upload_scales(&mut self, packed: &Packed) -> Result<()> {
        let per_row = if self.recorded.row_scales { 4 } else { 0 };
        self.write_rows(packed.slice(packed.outline().table_scales()), &self.recorded.scales.clone(), per_row)
    }

    fn write_rows(&mut self, all: &[u8], views: &[View], bytes_per_row: usize) -> Result<()> {
        views.iter().enumerate().try_for_each(|(s, &view)| {
            let start = self.tables.first_row_of_shard(s) as usize * bytes_per_row;
            upload(self.engine.as_mut(), view, &all[start..all.len().min(start + 4 * view.len)])
        })
    }

    /// Writes the layers.
    pub(super) fn upload_layers(&mut self, packed: &Packed) -> Result<()> {
        let (r, engine) = (&self.recorded, self.engine.as_mut());
        for (name, stride, views) in &r.layers {
            let bias = packed.tensor(&format!("{name}.bias"));
            match views {
                LayerViews::Full { weights, bias: view } => {
                    upload(engine, *weights, packed.tensor(&format!("{name}.weight")))?;
                    upload(engine, *view, bias)?;
                }
                LayerViews::Packed(layer) => {
                    // Every row begins on a word.
                    let rows = packed.tensor(&format!("{name}.weight.codes")).chunks(*stride);
                    let padded: Vec<u8> = rows
                        .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0, stride.next_multiple_of(4) - stride)))
                        .collect();
                    upload(engine, layer.codes, &padded)?;
                    upload(engine, layer.scales, packed.tensor(&format!("{name}.weight.scale")))?;
                    upload(engine, layer.bias, bias)?;
                }
            }
        }
        Ok(())
    }
}

/// Writes bytes in pieces; the last word is filled up with zeros.
fn upload(engine: &mut dyn Engine, view: View, bytes: &[u8]) -> Result<()> {
    for (i, piece) in bytes.chunks(4 * PIECE).enumerate() {
        let at = View { offset: view.offset + i * PIECE, len: view.len - i * PIECE, ..view };
        engine.write(at, &words(piece))?;
    }
    Ok(())
}

/// Little-endian words; the last one is filled up with zeros.
pub(super) fn words(bytes: &[u8]) -> Vec<u32> {
    let (whole, rest) = bytes.as_chunks::<4>();
    let mut words: Vec<u32> = whole.iter().map(|b| u32::from_le_bytes(*b)).collect();
    if !rest.is_empty() {
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        words.push(u32::from_le_bytes(last));
    }
    words
}
