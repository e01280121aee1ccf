//! Measuring: what a device gives at best ([`ceiling`]), how long a step should take on it ([`predict`]), and how fast
//! training steps ([`step`]), loading ([`data`]) and prediction ([`infer`]) are. Every result is a median of rounds with
//! the least and the largest of them, beside what it was measured on.

use crate::session::DeviceInfo;

pub mod ceiling;
pub mod data;
pub mod infer;
pub mod predict;
pub mod step;

pub use ceiling::Ceiling;

/// Median, least and largest of some timings or rates.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Spread {
    /// The middle one; between two, their mean.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of at least one value; of none, zeros.
    pub fn of(values: &[f64]) -> Spread {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else { return Spread { median: 0.0, min: 0.0, max: 0.0 } };
        let half = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 };
        Spread { median, min, max }
    }
}

/// What was measured on, and when.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Machine {
    /// Version of this program.
    pub version: &'static str,
    /// When, in UTC: `2026-01-31T12:00:00Z`.
    pub date: String,
    /// `cpu` or `gpu`.
    pub engine: &'static str,
    /// The adapter with its driver, or the CPU engine's threads.
    pub device: String,
    /// Threads of the CPU that this process uses.
    pub threads: usize,
    /// Operating system and architecture.
    pub system: String,
}

impl Machine {
    /// This one, with a device in use.
    pub fn now(device: &DeviceInfo) -> Machine {
        let seconds = jiff::Timestamp::now().as_second();
        Machine {
            version: env!("CARGO_PKG_VERSION"),
            date: jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string(),
            engine: device.engine,
            device: device.name.clone(),
            threads: rayon::current_num_threads(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_is_a_mean() {
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of(&[2.0, 9.0, 1.0]).median, 2.0);
        assert_eq!(Spread::of(&[]), Spread { median: 0.0, min: 0.0, max: 0.0 });
    }

    #[test]
    fn a_machine_has_a_date() {
        let machine = Machine::now(&DeviceInfo { engine: "cpu", name: "2 threads".into(), reason: String::new() });
        assert!(machine.date.starts_with("20") && machine.date.ends_with('Z') && machine.date.len() == 20, "{}", machine.date);
    }
}
