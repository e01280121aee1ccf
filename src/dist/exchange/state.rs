//! What has come of one step.

use super::Report;
use super::published::Averaged;
use crate::dist::frame::{Frame, Kind};
use crate::dist::ids::{self, RowLists};
use crate::dist::layout::Layout;
use crate::dist::rows::Coded;
use crate::dist::union::Union;

/// Pieces of all ranks, by rank.
type Pieces = Vec<Option<Vec<u8>>>;

/// One part of the MLPs.
#[derive(Debug, Default)]
pub(super) struct PartState {
    /// Gradients of the chunk that this rank owns, from every rank.
    pub(super) chunks: Pieces,
    /// The sums of every rank's chunk.
    pub(super) sums: Pieces,
}

/// One step.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) ids: Vec<Option<RowLists>>,
    pub(super) union: Option<Union>,
    /// Gradients of this rank's rows until they can be cut by owner.
    pub(super) own_rows: Option<Coded>,
    /// Of all rows of a rank, or of those that this rank owns.
    pub(super) rows: Pieces,
    /// Each owner's sums.
    pub(super) row_sums: Pieces,
    pub(super) parts: [PartState; 2],
    pub(super) reports: Vec<Option<Report>>,
    /// In the published mode, the scales of the two parts and of the rows.
    pub(super) scales: [Averaged; 3],
}

impl Step {
    pub(super) fn new(world: usize, published: bool, [row_bits, mlp_bits]: [u32; 2]) -> Step {
        let pieces = || vec![None; world];
        let averaged = |bits: u32| Averaged::new(if published && bits < 32 { world } else { 0 });
        Step {
            ids: vec![None; world],
            union: None,
            own_rows: None,
            rows: pieces(),
            row_sums: pieces(),
            parts: [(); 2].map(|()| PartState { chunks: pieces(), sums: pieces() }),
            reports: vec![None; world],
            scales: [averaged(mlp_bits), averaged(mlp_bits), averaged(row_bits)],
        }
    }

    /// Puts a frame into its place.
    pub(super) fn store(&mut self, from: usize, frame: Frame, layout: &Layout, most: &[u64]) -> Result<(), String> {
        let Frame { kind, part, payload, .. } = frame;
        let twice = || format!("sent {kind:?} {part} twice in one step");
        let parts = if kind == Kind::Scales { 3 } else { 2 };
        if part as usize >= parts || (part > 0 && !matches!(kind, Kind::Chunk | Kind::ChunkSums | Kind::Scales)) {
            return Err(format!("sent {kind:?} of a part {part} that does not exist"));
        }
        let place = match kind {
            Kind::Ids => {
                if self.ids[from].is_some() {
                    return Err(twice());
                }
                self.ids[from] = Some(ids::decode(&payload, &layout.rows, most).map_err(|e| format!("sent ids that cannot be read: {e}"))?);
                return Ok(());
            }
            Kind::Report => {
                if self.reports[from].is_some() {
                    return Err(twice());
                }
                self.reports[from] = Some(Report::decode(&payload)?);
                return Ok(());
            }
            Kind::Scales => return self.scales[part as usize].store(from, &payload, layout, part as usize),
            Kind::Rows => &mut self.rows[from],
            Kind::RowSums => &mut self.row_sums[from],
            Kind::Chunk => &mut self.parts[part as usize].chunks[from],
            _ => &mut self.parts[part as usize].sums[from],
        };
        if place.is_some() {
            return Err(twice());
        }
        *place = Some(payload);
        Ok(())
    }

    /// What rank `me` lacks, and from whom.
    pub(super) fn missing(&self, me: usize, owned: bool) -> Vec<(&'static str, Vec<usize>)> {
        fn absent<T>(pieces: &[Option<T>]) -> Vec<usize> {
            pieces.iter().enumerate().filter(|(_, p)| p.is_none()).map(|(rank, _)| rank).collect()
        }
        // What is summed here needs everybody's values; what is summed elsewhere only the sums.
        let part = |part: &PartState| absent(if part.sums[me].is_none() { &part.chunks } else { &part.sums });
        let rows = if owned && self.row_sums[me].is_some() { &self.row_sums } else { &self.rows };
        [
            ("row ids", absent(&self.ids)),
            ("row gradients", absent(rows)),
            ("gradients of the top MLP", part(&self.parts[0])),
            ("gradients of the bottom MLP", part(&self.parts[1])),
            ("reports", absent(&self.reports)),
        ]
        .into_iter()
        .filter(|(_, ranks)| !ranks.is_empty())
        .collect()
    }
}
