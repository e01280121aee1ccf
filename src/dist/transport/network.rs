//! A slower network than there is: every worker has one link to a switch, with a rate and a latency. So one
//! computer shows what a cluster would do. Pure arithmetic; transports wait until what they carry is due.

use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Network {
    /// Bits per second, in each direction.
    pub bits_per_second: f64,
    /// From one worker to another.
    pub latency: Duration,
}

impl Network {
    /// How long `bytes` occupy the link.
    pub fn time(&self, bytes: usize) -> Duration {
        Duration::from_secs_f64(8.0 * bytes as f64 / self.bits_per_second)
    }
}

/// A number before one of these units.
fn number(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (unit, factor) =
        units.iter().find(|(unit, _)| text.len() > unit.len() && text.to_ascii_lowercase().ends_with(&unit.to_ascii_lowercase()))?;
    let value = text[..text.len() - unit.len()].trim().parse::<f64>().ok()? * factor;
    value.is_finite().then_some(value)
}

impl FromStr for Network {
    type Err = String;

    /// `1Gbps`, `100Mbps,2ms`, `25Gbps,50us`.
    fn from_str(text: &str) -> Result<Network, String> {
        let (rate, latency) = text.split_once(',').unwrap_or((text, "0ms"));
        let rates = [("Gbps", 1e9), ("Mbps", 1e6), ("kbps", 1e3)];
        let bits_per_second = number(rate.trim(), &rates)
            .filter(|r| (1e3..=1e13).contains(r))
            .ok_or_else(|| format!("`{rate}` is no rate; write 1Gbps or 100Mbps"))?;
        // "us" and "ms" end with "s" too: the longer units stand first
        let times = [("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)];
        let seconds = number(latency.trim(), &times)
            .filter(|s| (0.0..=60.0).contains(s))
            .ok_or_else(|| format!("`{latency}` is no latency; write 0.2ms or 50us"))?;
        Ok(Network { bits_per_second, latency: Duration::from_secs_f64(seconds) })
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (rate, unit) =
            if self.bits_per_second >= 1e9 { (self.bits_per_second / 1e9, "Gbps") } else { (self.bits_per_second / 1e6, "Mbps") };
        write!(f, "{rate}{unit},{}ms", self.latency.as_secs_f64() * 1e3)
    }
}

/// One worker's link: when what is sent leaves, and when what comes has come.
#[derive(Debug)]
pub struct Shaper {
    network: Network,
    sending_until: Mutex<Option<Instant>>,
    receiving_until: Mutex<Option<Instant>>,
}

impl Shaper {
    /// A link that carries nothing yet.
    pub fn new(network: Network) -> Shaper {
        Shaper { network, sending_until: Mutex::new(None), receiving_until: Mutex::new(None) }
    }

    /// When `bytes` handed over at `now` have reached the other worker's link: everything that was handed over
    /// before leaves first.
    pub fn sent(&self, bytes: usize, now: Instant) -> Instant {
        let mut until = self.sending_until.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until.map_or(now, |free| free.max(now)) + self.network.time(bytes);
        *until = Some(left);
        left + self.network.latency
    }

    /// When `bytes` whose last one reached this worker's link at `arrival` have come in: senders share the link, and a
    /// single one at full rate is not slowed down again.
    pub fn received(&self, bytes: usize, arrival: Instant) -> Instant {
        let mut until = self.receiving_until.lock().unwrap_or_else(PoisonError::into_inner);
        let came = until.map_or(arrival, |free| arrival.max(free + self.network.time(bytes)));
        *until = Some(came);
        came
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_from_text() {
        let link: Network = "1Gbps,0.2ms".parse().unwrap();
        assert_eq!(link, Network { bits_per_second: 1e9, latency: Duration::from_micros(200) });
        assert_eq!(link.to_string().parse::<Network>().unwrap(), link);
        assert_eq!("25gbps, 50us".parse::<Network>().unwrap().latency, Duration::from_micros(50));
        assert_eq!("100Mbps".parse::<Network>().unwrap(), Network { bits_per_second: 1e8, latency: Duration::ZERO });
        for bad in ["", "1", "Gbps", "1Gb", "1Gbps,", "1Gbps,x", "0Gbps", "-1Gbps", "nanGbps", "infGbps", "1Gbps,-1ms", "1Gbps,1h"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_link_carries_one_thing_after_another() {
        let shaper = Shaper::new(Network { bits_per_second: 8e6, latency: Duration::from_millis(5) });
        let (now, ms) = (Instant::now(), |n| Duration::from_millis(n));
        assert_eq!(shaper.sent(10_000, now), now + ms(15), "10 ms on the link, 5 ms to get there");
        assert_eq!(shaper.sent(10_000, now), now + ms(25));
        assert_eq!(shaper.sent(1_000, now + ms(100)), now + ms(106), "an idle link waits for nothing");
        assert_eq!(shaper.received(10_000, now + ms(15)), now + ms(15), "one sender fills the link");
        assert_eq!(shaper.received(10_000, now + ms(15)), now + ms(25), "two share it");
        assert_eq!(shaper.received(10_000, now + ms(90)), now + ms(90));
    }
}
