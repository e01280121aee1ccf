//! Rates for people.

/// "12.3 GB/s"
pub(super) fn bytes_per_second(rate: f64) -> String {
    scaled(rate, "B/s")
}

/// "45.6 GFLOP/s"
pub(super) fn flops_per_second(rate: f64) -> String {
    scaled(rate, "FLOP/s")
}

fn scaled(rate: f64, unit: &str) -> String {
    let (value, prefix) = match rate {
        r if r >= 1e12 => (r / 1e12, "T"),
        r if r >= 1e9 => (r / 1e9, "G"),
        r => (r / 1e6, "M"),
    };
    format!("{} {prefix}{unit}", short(value))
}

/// Three digits, and none beyond the third behind the point: "0.012", "1.23", "45.6", "789".
pub(super) fn short(value: f64) -> String {
    let digits = match value {
        v if v < 0.9995 => 3,
        v if v < 9.995 => 2,
        v => usize::from(v < 99.95),
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_three_digits() {
        assert_eq!([2.5e6, 9.996e9, 123.4e9, 4.8e12].map(bytes_per_second), ["2.50 MB/s", "10.0 GB/s", "123 GB/s", "4.80 TB/s"]);
        assert_eq!(flops_per_second(67e12), "67.0 TFLOP/s");
        assert_eq!([0.0004, 0.0123, 1.0, 456.7].map(short), ["0.000", "0.012", "1.00", "457"]);
    }
}
