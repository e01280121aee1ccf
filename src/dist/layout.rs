//! What the gradients of a model consist of, and how they are cut for the workers.
//!
//! The MLPs travel in two parts, because the top MLP's gradients are known while the rest of the
//! backward pass still runs. A part is a list of tensors, a tensor a list of **groups**: values that share
//! a scale, which are an output row of a matrix or a whole bias (arXiv 2410.20046 section 3.3 and the
//! published optimizer). Each part is cut into one **chunk** for each rank, between groups.

use crate::config::Shape;
use crate::model::{Layer, Network};
use std::ops::Range;

/// The two parts of the MLPs' gradients, in the order in which they are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The MLP above the interaction.
    Top = 0,
    /// The MLP of the dense features.
    Bottom = 1,
}

impl Part {
    /// Both.
    pub const ALL: [Part; 2] = [Part::Top, Part::Bottom];
}

/// The gradients of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grouped {
    /// PyTorch's name.
    pub name: String,
    /// First element in the flat buffer of gradients.
    pub at: usize,
    /// Groups.
    pub groups: usize,
    /// Elements of a group.
    pub len: usize,
}

impl Grouped {
    /// Elements.
    pub fn elements(&self) -> usize {
        self.groups * self.len
    }

    /// Bytes of its codes; a tensor begins on a byte.
    pub fn bytes(&self, bits: u32) -> usize {
        (self.elements() * bits as usize).div_ceil(8)
    }

    /// The bytes of some of its groups.
    fn range(&self, groups: &Range<usize>, bits: u32) -> Range<usize> {
        let bit = |group: usize| group * self.len * bits as usize;
        bit(groups.start) / 8..bit(groups.end).div_ceil(8)
    }
}

/// Consecutive groups of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The tensor's place in its part.
    pub tensor: usize,
    /// The groups.
    pub groups: Range<usize>,
    /// The place of the first group among all groups of the part.
    pub first_group: usize,
    /// Its codes among those of the part, in bytes.
    pub bytes: Range<usize>,
}

/// What one rank sums of a part.
pub type Chunk = Vec<Span>;

/// The gradients of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Rows of each table.
    pub rows: Vec<u64>,
    /// Width of a row.
    pub dim: usize,
    /// The tensors of each [`Part`].
    pub parts: [Vec<Grouped>; 2],
    /// Elements of the flat buffer of gradients.
    pub flat_len: usize,
}

impl Layout {
    /// The gradients of a model of this shape.
    pub fn new(shape: &Shape) -> Layout {
        let network = Network::new(shape);
        let tensors = |layers: &[Layer]| layers.iter().flat_map(of_layer).collect();
        let parts = [tensors(&network.top), tensors(&network.bottom)];
        Layout { rows: shape.rows.clone(), dim: shape.dim, parts, flat_len: network.flat_len }
    }

    /// The tensors of a part.
    pub fn part(&self, part: Part) -> &[Grouped] {
        &self.parts[part as usize]
    }

    /// Groups of a part.
    pub fn groups(&self, part: Part) -> usize {
        self.part(part).iter().map(|t| t.groups).sum()
    }

    /// Bytes of a part's codes.
    pub fn bytes(&self, part: Part, bits: u32) -> usize {
        self.part(part).iter().map(|t| t.bytes(bits)).sum()
    }

    /// Cuts a part into `world` chunks of nearly equal size. A chunk begins with a group whose codes begin on a
    /// byte.
    pub fn chunks(&self, part: Part, world: usize, bits: u32) -> Vec<Chunk> {
        let total: usize = self.part(part).iter().map(Grouped::elements).sum();
        let mut chunks = vec![Chunk::new(); world];
        let (mut done, mut group, mut byte, mut chunk) = (0, 0, 0, 0);
        for (tensor, grouped) in self.part(part).iter().enumerate() {
            let mut start = 0;
            for next in 1..=grouped.groups {
                let end_of_tensor = next == grouped.groups;
                let full = (done + next * grouped.len) * world >= (chunk + 1) * total;
                let on_byte = (next * grouped.len * bits as usize).is_multiple_of(8);
                if end_of_tensor || (full && on_byte) {
                    let bytes = grouped.range(&(start..next), bits);
                    let bytes = byte + bytes.start..byte + bytes.end;
                    chunks[chunk].push(Span { tensor, groups: start..next, first_group: group + start, bytes });
                    start = next;
                    // a chunk may be so small that one group is more than the next one's share too
                    while full && chunk + 1 < world && (done + next * grouped.len) * world >= (chunk + 1) * total {
                        chunk += 1;
                    }
                }
            }
            done += grouped.elements();
            group += grouped.groups;
            byte += grouped.bytes(bits);
        }
        chunks
    }
}

fn of_layer(layer: &Layer) -> [Grouped; 2] {
    let (inputs, outputs) = (layer.linear.inputs, layer.linear.outputs);
    [
        Grouped { name: format!("{}.weight", layer.name), at: layer.weight_at, groups: outputs, len: inputs },
        Grouped { name: format!("{}.bias", layer.name), at: layer.bias_at, groups: 1, len: outputs },
    ]
}

/// Groups in a chunk.
pub fn groups_in(chunk: &[Span]) -> usize {
    chunk.iter().map(|s| s.groups.len()).sum()
}

/// Bytes of the codes of a chunk.
pub fn bytes_in(chunk: &[Span]) -> usize {
    chunk.iter().map(|s| s.bytes.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Model, Preset};

    fn kaggle() -> Layout {
        Layout::new(&Model { preset: Preset::Kaggle, ..Model::default() }.shape(None, None).unwrap())
    }

    #[test]
    fn kaggles_gradients_have_the_published_scales() {
        let layout = kaggle();
        let groups: usize = Part::ALL.map(|p| layout.groups(p)).iter().sum();
        assert_eq!(groups, 1617 + 7, "a scale for each output row and one for each bias");
        assert_eq!(Part::ALL.map(|p| layout.bytes(p, 8)).iter().sum::<usize>(), 475_985);
    }

    #[test]
    fn chunks_cover_a_part_once_and_evenly() {
        let small = Layout::new(
            &Model { dim: Some(3), bottom: Some(vec![5, 3]), top: Some(vec![7, 1]), ..Model::default() }.shape(None, None).unwrap(),
        );
        for layout in [kaggle(), small] {
            for (part, world, bits) in
                [1, 2, 3, 4, 7, 64].iter().flat_map(|&w| [4, 8, 16, 32].map(|b| (w, b))).flat_map(|(w, b)| Part::ALL.map(|p| (p, w, b)))
            {
                let chunks = layout.chunks(part, world, bits);
                assert_eq!(chunks.len(), world);
                let (mut group, mut byte) = (0, 0);
                for span in chunks.iter().flatten() {
                    assert_eq!((span.first_group, span.bytes.start), (group, byte), "{part:?} {world} {bits}");
                    (group, byte) = (group + span.groups.len(), span.bytes.end);
                }
                assert_eq!((group, byte), (layout.groups(part), layout.bytes(part, bits)));
                let longest = layout.part(part).iter().map(|t| 2 * t.len * bits as usize / 8 + 1).max().unwrap();
                let most = chunks.iter().map(|c| bytes_in(c)).max().unwrap();
                assert!(most <= layout.bytes(part, bits) / world + longest + 8, "{part:?} {world} {bits}: {most}");
            }
        }
    }
}
