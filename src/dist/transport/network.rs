//! A slower network than there is: every worker has one link to a switch, with a rate and a latency, so that one
//! computer shows what a cluster would do. Only arithmetic: transports wait until what they carry is due.

use std::str::FromStr;
use std::time::{Duration, Instant};

/// The links of the workers, all alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Network {
    /// Bits per second, in each direction.
    pub bits_per_second: f64,
    /// From one worker to another.
    pub latency: Duration,
}

impl Network {
    /// How long `bytes` occupy a link.
    pub fn time(&self, bytes: usize) -> Duration {
        // A rate that was set by hand may be nonsense; a year is as good as forever.
        let seconds = 8.0 * bytes as f64 / self.bits_per_second;
        Duration::try_from_secs_f64(seconds).unwrap_or(FOREVER).min(FOREVER)
    }
}

const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Units of rates, in bits per second.
const RATES: [(&str, f64); 3] = [("gbps", 1e9), ("mbps", 1e6), ("kbps", 1e3)];
/// Units of times, in seconds. The last one ends all others, so it comes last.
const TIMES: [(&str, f64); 4] = [("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)];

/// A number and one of these units.
fn quantity(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.trim().to_lowercase();
    let (number, factor) = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    number.trim().parse::<f64>().ok().map(|value| value * factor)
}

impl FromStr for Network {
    type Err = String;

    /// `1Gbps`, `100Mbps,2ms`, `25Gbps,50us`.
    fn from_str(text: &str) -> Result<Network, String> {
        let (rate, latency) = text.split_once(',').unwrap_or((text, "0s"));
        let bits_per_second = quantity(rate, &RATES)
            .filter(|rate| (1e3..=1e13).contains(rate))
            .ok_or_else(|| format!("`{text}`: `{rate}` is no rate; give one from 1kbps to 10000Gbps, as in 1Gbps or 25Gbps,50us"))?;
        let seconds = quantity(latency, &TIMES)
            .filter(|seconds| (0.0..=60.0).contains(seconds))
            .ok_or_else(|| format!("`{text}`: `{latency}` is no latency; give one up to 60s, as in 0.2ms or 50us"))?;
        Ok(Network { bits_per_second, latency: Duration::from_secs_f64(seconds) })
    }
}

impl std::fmt::Display for Network {
    /// In the form that is read.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (unit, factor) = match self.bits_per_second {
            rate if rate >= 1e9 => ("Gbps", 1e9),
            rate if rate >= 1e6 => ("Mbps", 1e6),
            _ => ("kbps", 1e3),
        };
        write!(f, "{}{unit},{}ms", self.bits_per_second / factor, self.latency.as_nanos() as f64 / 1e6)
    }
}

/// When the link of one worker is done with what it carries.
#[derive(Debug)]
pub struct Shaper {
    network: Network,
    sending_until: Option<Instant>,
    receiving_until: Option<Instant>,
}

impl Shaper {
    /// A link that carries nothing yet.
    pub fn new(network: Network) -> Shaper {
        Shaper { network, sending_until: None, receiving_until: None }
    }

    /// When `bytes` that are handed over at `now` have reached the link of the other worker: after all that was
    /// handed over before.
    pub fn sent(&mut self, bytes: usize, now: Instant) -> Instant {
        let free = self.sending_until.map_or(now, |until| until.max(now));
        let left = free + self.network.time(bytes);
        self.sending_until = Some(left);
        left + self.network.latency
    }

    /// When `bytes`, of which the last reached this link at `arrival`, have come in. Senders share the link; what a
    /// single one sends at the full rate is not delayed again. To be asked in the order of arrival.
    pub fn received(&mut self, bytes: usize, arrival: Instant) -> Instant {
        let came = self.receiving_until.map_or(arrival, |until| arrival.max(until + self.network.time(bytes)));
        self.receiving_until = Some(came);
        came
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_from_text() {
        for (text, bits_per_second, micros) in [
            ("1Gbps,0.2ms", 1e9, 200),
            ("10Gbps", 1e10, 0),
            ("100Mbps", 1e8, 0),
            ("25Gbps,50us", 25e9, 50),
            (" 25 gbps , 50 µs ", 25e9, 50),
            ("64kbps,1s", 64e3, 1_000_000),
        ] {
            let network: Network = text.parse().unwrap();
            assert_eq!(network, Network { bits_per_second, latency: Duration::from_micros(micros) }, "{text}");
            assert_eq!(network.to_string().parse(), Ok(network), "{network}");
        }
        assert_eq!("1Gbps,0.2ms".parse::<Network>().unwrap().to_string(), "1Gbps,0.2ms");
    }

    #[test]
    fn other_text_is_refused_with_an_example() {
        let error = |text: &str| text.parse::<Network>().unwrap_err();
        for text in ["", "1", "Gbps", "1Gb", "0Gbps", "-1Gbps", "nanGbps", "infGbps", "1e30Gbps", "0.1kbps", "fast,1ms"] {
            assert!(error(text).contains("is no rate") && error(text).contains("1Gbps"), "{text}");
        }
        for text in ["1Gbps,", "1Gbps,1", "1Gbps,-1ms", "1Gbps,1h", "1Gbps,61s", "1Gbps,nanms", "1Gbps,1ms,2ms"] {
            assert!(error(text).contains("is no latency") && error(text).contains("0.2ms"), "{text}");
        }
    }

    #[test]
    fn a_link_carries_one_thing_after_another() {
        // 1000 bytes a millisecond.
        let mut link = Shaper::new(Network { bits_per_second: 8e6, latency: Duration::from_millis(5) });
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        assert_eq!(link.sent(10_000, now), at(15), "10 ms on the link, 5 ms to get there");
        assert_eq!(link.sent(10_000, at(3)), at(25), "waits for the one before");
        assert_eq!(link.sent(1_000, at(100)), at(106), "an idle link waits for nothing");
        assert_eq!(link.received(10_000, at(15)), at(15), "one sender at the full rate is not delayed");
        assert_eq!(link.received(10_000, at(15)), at(25), "two share the link");
        assert_eq!(link.received(0, at(16)), at(25), "nothing overtakes");
        assert_eq!(link.received(10_000, at(90)), at(90));
    }

    #[test]
    fn rates_that_are_nonsense_do_not_panic() {
        for bits_per_second in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE] {
            let mut link = Shaper::new(Network { bits_per_second, latency: Duration::ZERO });
            let arrival = link.sent(usize::MAX, Instant::now());
            link.received(usize::MAX, arrival);
        }
    }
}
