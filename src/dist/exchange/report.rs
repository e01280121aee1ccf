//! What ranks tell each other of a step besides gradients.

use serde::Serialize;

/// Where a step's time went, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Times {
    /// Forward and backward pass, and the update.
    pub compute: u32,
    /// Scales and codes, and reading them from the device.
    pub compress: u32,
    /// Waiting for peers.
    pub wait: u32,
    /// Decoding and summing, and writing sums to the device.
    pub merge: u32,
}

/// One rank's word on a step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Report {
    /// Its samples.
    pub samples: u32,
    /// Its part of the mean loss of the global batch.
    pub loss: f32,
    /// It was asked to stop: all stop after this step.
    pub stop: bool,
    /// Times of its last step.
    pub times: Times,
}

impl Report {
    /// Bytes of a payload.
    pub const BYTES: usize = 28;

    /// As a payload.
    pub fn encode(&self) -> Vec<u8> {
        let t = self.times;
        let words = [self.samples, self.loss.to_bits(), self.stop.into(), t.compute, t.compress, t.wait, t.merge];
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    /// From a payload.
    ///
    /// # Errors
    /// Another length, or a flag that is neither 0 nor 1.
    pub fn decode(payload: &[u8]) -> Result<Report, String> {
        if payload.len() != Report::BYTES {
            return Err(format!("sent a report of {} bytes, which takes {}", payload.len(), Report::BYTES));
        }
        let word = |i: usize| u32::from_le_bytes([payload[4 * i], payload[4 * i + 1], payload[4 * i + 2], payload[4 * i + 3]]);
        if word(2) > 1 {
            return Err(format!("sent a report with the flag {}", word(2)));
        }
        let times = Times { compute: word(3), compress: word(4), wait: word(5), merge: word(6) };
        Ok(Report { samples: word(0), loss: f32::from_bits(word(1)), stop: word(2) == 1, times })
    }
}
