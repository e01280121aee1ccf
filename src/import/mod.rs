//! Brings the weights of a PyTorch DLRM in: from a safetensors file, or from a `.pt` file, of which
//! nothing is ever executed.
//!
//! * [`pickle`] reads the values of a pickle and refuses by name whatever a state dict does not need.
//! * [`archive`] finds the entries of the zip file that a `.pt` file is.
//! * [`names`] says which weight a tensor is; [`shape`] what model the weights make.
//! * [`Source`] opens a file and reads its weights in pieces, as `f32`.
//!
//! Everything but [`Source`] is bytes in, values out; `Source` reads from anything that can seek.

mod bytes;
mod element;
mod source;
mod torch;

pub mod archive;
pub mod names;
pub mod pickle;
pub mod shape;

pub use element::Element;
pub use source::{MAX_ENTRIES, Source, Weight};

/// Reads all of a file of either kind that lies in memory, values too, and throws it away: what a
/// fuzzer calls.
///
/// # Errors
/// Whatever is wrong with it, in one sentence.
pub fn check(bytes: &[u8]) -> Result<shape::Inferred, String> {
    let mut source = Source::new(std::io::Cursor::new(bytes), bytes.len() as u64)?;
    let inferred = shape::infer(&source.dims(), None, crate::config::Loss::Bce)?;
    let weights: Vec<(names::Part, u64)> = source.weights().iter().map(|w| (w.part, w.len())).collect();
    for (part, len) in weights {
        let mut start = 0;
        while start < len {
            let count = (len - start).min(crate::checkpoint::CHUNK as u64);
            source.read(part, start, count as usize)?;
            start += count;
        }
    }
    Ok(inferred)
}
