//! Gradients of the MLPs as they travel: of a chunk first the scales of its groups, then their codes.
//! A chunk's owner sums what all ranks sent, in the order of the ranks, quantizes the sums and sends them to
//! all.

use super::layout::{Chunk, Grouped, Span, bytes_in, groups_in};
use super::rows::{Coded, first_not_finite};
use crate::quant::{self, gradient};

/// How a chunk is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkForm {
    /// Bits of a code; 32 is FP32.
    pub bits: u32,
    /// Scales travel with the codes.
    pub scales: bool,
}

impl ChunkForm {
    /// Bytes of the scales of a chunk.
    pub fn scale_bytes(&self, chunk: &[Span]) -> usize {
        if self.scales { 4 * groups_in(chunk) } else { 0 }
    }

    /// Writes a chunk of a part.
    pub fn write(&self, coded: &Coded, chunk: &[Span]) -> Vec<u8> {
        let mut payload = Vec::with_capacity(self.scale_bytes(chunk) + bytes_in(chunk));
        for span in chunk.iter().filter(|_| self.scales) {
            let scales = &coded.scales[span.first_group..][..span.groups.len()];
            scales.iter().for_each(|scale| payload.extend_from_slice(&scale.to_le_bytes()));
        }
        chunk.iter().for_each(|span| payload.extend_from_slice(&coded.bytes[span.bytes.clone()]));
        payload
    }

    /// Checks what a peer wrote of a chunk.
    ///
    /// # Errors
    /// What is wrong, in words that go after "rank 3".
    pub fn check(&self, payload: &[u8], chunk: &[Span], tensors: &[Grouped]) -> Result<(), String> {
        let wanted = self.scale_bytes(chunk) + self.code_bytes(chunk, tensors);
        if payload.len() != wanted {
            return Err(format!("sent {} bytes of MLP gradients, which take {wanted}", payload.len()));
        }
        let (scales, codes) = payload.split_at(self.scale_bytes(chunk));
        let floats = if self.bits == 32 { codes } else { scales };
        match first_not_finite(floats) {
            Some(_) => Err(format!(
                "sent {} that is not finite for `{}`",
                if self.bits == 32 { "a gradient" } else { "a scale" },
                names(chunk, tensors)
            )),
            None if scales.chunks_exact(4).any(|b| b[3] & 0x80 != 0) => {
                Err(format!("sent a negative scale for `{}`", names(chunk, tensors)))
            }
            None => Ok(()),
        }
    }

    fn code_bytes(&self, chunk: &[Span], tensors: &[Grouped]) -> usize {
        chunk.iter().map(|s| (s.groups.len() * tensors[s.tensor].len * self.bits as usize).div_ceil(8)).sum()
    }

    /// Calls `f(scale, codes, first element of the group, its length)` for each group of a chunk that was checked. Elements are
    /// counted through the chunk. `known` are the scales of all groups of the part where they did not travel.
    fn each_group(
        &self,
        payload: &[u8],
        chunk: &[Span],
        tensors: &[Grouped],
        known: Option<&[f32]>,
        mut f: impl FnMut(f32, GroupCodes<'_>),
    ) {
        let (scales, mut codes) = payload.split_at(self.scale_bytes(chunk));
        let mut scales = scales.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let mut element = 0;
        for span in chunk {
            let len = tensors[span.tensor].len;
            let bytes = (span.groups.len() * len * self.bits as usize).div_ceil(8);
            let (here, rest) = codes.split_at(bytes);
            for i in 0..span.groups.len() {
                let scale = match known {
                    Some(known) => known[span.first_group + i],
                    None => scales.next().unwrap_or(1.0),
                };
                f(scale, GroupCodes { codes: here, bits: self.bits, first: i * len, element, len });
                element += len;
            }
            codes = rest;
        }
    }

    /// Adds a chunk to `sums`, the elements of the chunk in order. Where scales do not travel, codes are added.
    pub fn add(&self, payload: &[u8], chunk: &[Span], tensors: &[Grouped], sums: &mut [f32]) {
        self.each_group(payload, chunk, tensors, None, |scale, group| group.add(scale, sums));
    }

    /// Adds a chunk to the gradients in the flat buffer's layout. `known` are the scales of all groups of the part where
    /// they did not travel.
    pub fn add_flat(&self, payload: &[u8], chunk: &[Span], tensors: &[Grouped], known: Option<&[f32]>, flat: &mut [f32]) {
        let mut starts = chunk.iter().flat_map(|s| s.groups.clone().map(move |g| tensors[s.tensor].at + g * tensors[s.tensor].len));
        self.each_group(payload, chunk, tensors, known, |scale, group| {
            if let Some(at) = starts.next() {
                GroupCodes { element: at, ..group }.add(scale, flat);
            }
        });
    }

    /// Quantizes the sums of a chunk, a scale for each group, and gives what travels. `errors` receives what was
    /// left out.
    pub fn quantize(&self, sums: &[f32], chunk: &[Span], tensors: &[Grouped], errors: &mut [f32]) -> Vec<u8> {
        if self.bits == 32 {
            return bytemuck::cast_slice(sums).to_vec();
        }
        let n = gradient::max_code(self.bits);
        let (mut scales, mut codes) = (Vec::with_capacity(self.scale_bytes(chunk)), Vec::new());
        let mut at = 0;
        for span in chunk {
            let len = tensors[span.tensor].len;
            for i in 0..span.groups.len() {
                let values = &sums[at..at + len];
                let scale = if self.scales { quant::scale(gradient::max_abs(values), n) } else { 1.0 };
                if self.scales {
                    scales.extend_from_slice(&scale.to_le_bytes());
                }
                write_codes(values, scale, self.bits, i * len, &mut codes);
                let (inverse, n) = (1.0 / scale, n as f32);
                errors[at..at + len].iter_mut().zip(values).for_each(|(e, &v)| *e = v - scale * quant::code(v, inverse, n));
                at += len;
            }
        }
        scales.extend_from_slice(&codes);
        scales
    }
}

/// One group's codes inside those of its span.
struct GroupCodes<'a> {
    codes: &'a [u8],
    bits: u32,
    /// The group's first code.
    first: usize,
    /// Where the group begins in the sums.
    element: usize,
    len: usize,
}

impl GroupCodes<'_> {
    fn add(&self, scale: f32, sums: &mut [f32]) {
        let GroupCodes { codes, bits, mut first, element, len } = *self;
        let mut sums = &mut sums[element..element + len];
        if bits == 32 {
            let values = codes[4 * first..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            return sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        if bits == 4 && first % 2 == 1 && len > 0 {
            sums[0] += scale * f32::from(codes[first / 2] as i8 >> 4);
            (sums, first) = (&mut sums[1..], first + 1);
        }
        let bytes = gradient::bytes(sums.len(), bits);
        let start = first * bits as usize / 8;
        gradient::add_scaled(&codes[start..start + bytes], bits, scale, sums);
    }
}

/// Appends the codes of a group that begins at element `first` of its span; groups follow each other without a gap.
fn write_codes(values: &[f32], scale: f32, bits: u32, first: usize, out: &mut Vec<u8>) {
    if bits != 4 || (first.is_multiple_of(2) && values.len().is_multiple_of(2)) {
        return gradient::quantize(values, scale, bits, out);
    }
    let mut values = values;
    if first % 2 == 1
        && let (Some((head, tail)), Some(last)) = (values.split_first(), out.last_mut())
    {
        let mut code = Vec::with_capacity(1);
        gradient::quantize(&[*head], scale, bits, &mut code);
        *last |= code[0] << 4;
        values = tail;
    }
    gradient::quantize(values, scale, bits, out);
}

fn names(chunk: &[Span], tensors: &[Grouped]) -> String {
    chunk.iter().map(|s| tensors[s.tensor].name.as_str()).collect::<Vec<_>>().join("`, `")
}

/// Elements of a chunk.
pub fn elements(chunk: &Chunk, tensors: &[Grouped]) -> usize {
    chunk.iter().map(|s| s.groups.len() * tensors[s.tensor].len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::layout::{Layout, Part};
    use crate::ops::case::random;

    fn layout() -> Layout {
        let model = crate::config::Model { dim: Some(3), bottom: Some(vec![5, 3]), top: Some(vec![7, 1]), ..Default::default() };
        Layout::new(&model.shape(None, None).unwrap())
    }

    /// A chunk quantized and read again is what `quant` says, in the place where it belongs.
    #[test]
    fn chunks_come_back_where_they_belong() {
        let layout = layout();
        for (bits, part) in [4, 8, 16, 32].into_iter().flat_map(|b| Part::ALL.map(|p| (b, p))) {
            let (form, tensors) = (ChunkForm { bits, scales: bits < 32 }, layout.part(part));
            let mut flat = vec![0.0; layout.flat_len];
            let mut wanted = flat.clone();
            for chunk in layout.chunks(part, 3, bits) {
                let values = random("sums", elements(&chunk, tensors));
                let mut errors = vec![0.0; values.len()];
                let payload = form.quantize(&values, &chunk, tensors, &mut errors);
                form.check(&payload, &chunk, tensors).unwrap();
                form.add_flat(&payload, &chunk, tensors, None, &mut flat);
                let mut sums = vec![0.0; values.len()];
                form.add(&payload, &chunk, tensors, &mut sums);
                sums.iter().zip(&errors).zip(&values).for_each(|((s, e), v)| assert!((s + e - v).abs() < 1e-6, "{bits} bits"));
                let mut at = 0;
                for span in &chunk {
                    let (tensor, len) = (&tensors[span.tensor], span.groups.len() * tensors[span.tensor].len);
                    let start = tensor.at + span.groups.start * tensor.len;
                    wanted[start..start + len].copy_from_slice(&sums[at..at + len]);
                    at += len;
                }
            }
            assert_eq!(flat, wanted, "{bits} bits, {part:?}");
        }
    }

    #[test]
    fn lies_about_chunks_are_refused() {
        let layout = layout();
        let (form, tensors) = (ChunkForm { bits: 8, scales: true }, layout.part(Part::Top));
        let chunk = &layout.chunks(Part::Top, 2, 8)[0];
        let values = vec![1.0; elements(chunk, tensors)];
        let good = form.quantize(&values, chunk, tensors, &mut values.clone());
        form.check(&good, chunk, tensors).unwrap();
        assert!(form.check(&good[1..], chunk, tensors).unwrap_err().contains("bytes of MLP gradients, which take"));
        let with = |scale: f32| [&scale.to_le_bytes()[..], &good[4..]].concat();
        assert!(form.check(&with(f32::INFINITY), chunk, tensors).unwrap_err().contains("a scale that is not finite for `top_l.0.weight`"));
        assert!(form.check(&with(-1.0), chunk, tensors).unwrap_err().contains("negative scale"));
    }
}
