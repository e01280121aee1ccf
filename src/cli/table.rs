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
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {prefix}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_three_digits() {
        assert_eq!([2.5e6, 9.996e9, 123.4e9, 4.8e12].map(bytes_per_second), ["2.50 MB/s", "10.0 GB/s", "123 GB/s", "4.80 TB/s"]);
        assert_eq!(flops_per_second(67e12), "67.0 TFLOP/s");
    }
}
