//! What an owner's sums leave out when they are quantized is added to the sums of the next step. A checkpoint holds it
//! in one flat buffer, in which every rank has its own place.

use super::Exchange;
use crate::dist::layout::Part;

impl Exchange {
    /// The error feedback of sums that this rank owns, in the flat buffer's layout; zeros elsewhere.
    pub fn owner_errors(&self) -> Vec<f32> {
        let mut flat = vec![0.0; self.layout.flat_len];
        self.each_owned(|part, element, at, len| flat[at..at + len].copy_from_slice(&self.errors[part][element..element + len]));
        flat
    }

    /// Restores the error feedback of the sums that this rank owns from a flat buffer that holds everybody's.
    pub fn set_owner_errors(&mut self, flat: &[f32]) {
        let mut errors = std::mem::take(&mut self.errors);
        self.each_owned(|part, element, at, len| errors[part][element..element + len].copy_from_slice(&flat[at..at + len]));
        self.errors = errors;
    }

    /// Calls `f(part, element of the chunk, element of the flat buffer, length)` for each span that this rank owns.
    fn each_owned(&self, mut f: impl FnMut(usize, usize, usize, usize)) {
        for part in Part::ALL {
            let mut element = 0;
            for span in &self.chunks[part as usize][self.seat.rank] {
                let tensor = &self.layout.part(part)[span.tensor];
                let len = span.groups.len() * tensor.len;
                f(part as usize, element, tensor.at + span.groups.start * tensor.len, len);
                element += len;
            }
        }
    }
}
