//! Numbers as people read them. Each function gives about three significant digits and its unit.

/// A time in milliseconds: `0.123 ms`, `12.3 ms`, `1233 ms`; from ten seconds on in seconds.
pub fn milliseconds(value: f64) -> String {
    if value.abs() >= 10_000.0 {
        format!("{} s", digits(value / 1000.0))
    } else {
        format!("{} ms", digits(value))
    }
}

/// A ratio: `1.25 ×`.
pub fn ratio(value: f64) -> String {
    format!("{value:.2} ×")
}

/// A ratio of signal to noise: `32.1 dB`; `None` is infinite and shown as `∞`, what equal clips have.
pub fn decibels(value: Option<f64>) -> String {
    value.map_or_else(|| "∞".to_owned(), |value| format!("{value:.1} dB"))
}

/// A similarity in [0, 1]: `0.9876`; `–` where it is unknown.
pub fn similarity(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"))
}

/// A share as per cent: `12.5 %`. The argument is a fraction of 1.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A size in bytes, with binary prefixes: `512 B`, `1.50 KiB`, `18.0 MiB`.
pub fn bytes(count: u64) -> String {
    prefixed(count as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// A number of floating-point operations, with decimal prefixes: `12.3 GFLOP`.
pub fn flops(count: u64) -> String {
    prefixed(
        count as f64,
        1000.0,
        &["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"],
    )
}

fn prefixed(count: f64, base: f64, units: &[&str]) -> String {
    let mut value = count;
    let mut last = "";
    for (index, unit) in units.iter().enumerate() {
        last = unit;
        // 1023.6 would be shown as four digits of the smaller unit.
        if value < base - 0.5 {
            return if index == 0 {
                format!("{value} {unit}")
            } else {
                format!("{} {unit}", digits(value))
            };
        }
        value /= base;
    }
    format!("{} {last}", digits(value * base))
}

/// Three significant digits without an exponent; whole numbers from a hundred on keep all their digits.
fn digits(value: f64) -> String {
    let magnitude = value.abs();
    let decimals = match magnitude {
        _ if magnitude >= 99.95 || magnitude == 0.0 => 0,
        _ if magnitude >= 9.995 => 1,
        _ if magnitude >= 0.9995 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let shown = [0.0, 0.0123, 0.9996, 9.996, 12.34, 99.96, 1233.4, 12_345.0].map(milliseconds);
        assert_eq!(
            shown,
            [
                "0 ms", "0.012 ms", "1.00 ms", "10.0 ms", "12.3 ms", "100 ms", "1233 ms", "12.3 s"
            ]
        );
    }

    #[test]
    fn sizes() {
        let shown = [0, 512, 1023, 1024, 1536, 18 * 1024 * 1024, u64::MAX].map(bytes);
        assert_eq!(
            shown,
            ["0 B", "512 B", "1023 B", "1.00 KiB", "1.50 KiB", "18.0 MiB", "16.0 EiB"]
        );
        assert_eq!([999, 12_345_678_901].map(flops), ["999 FLOP", "12.3 GFLOP"]);
        assert_eq!(bytes(1024 * 1024 - 1), "1.00 MiB");
    }

    #[test]
    fn measures() {
        assert_eq!(ratio(1.2549), "1.25 ×");
        assert_eq!(
            (decibels(Some(32.149)), decibels(None)),
            ("32.1 dB".to_owned(), "∞".to_owned())
        );
        assert_eq!(percent(0.1249), "12.5 %");
        assert_eq!(
            (similarity(Some(0.98765)), similarity(None)),
            ("0.9877".to_owned(), "–".to_owned())
        );
    }
}
