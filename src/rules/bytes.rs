//! Sizes in bytes as people write them.

use std::str::FromStr;

/// The units, the largest first, with their bytes.
const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// What may be written, for messages.
pub(super) const FORMS: &str = "write a number and a unit, such as `512MiB` or `1.5GiB`; units are B, kB, MB, GB, KiB, \
                                MiB, GiB";

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(
    /// How many.
    pub u64,
);

impl FromStr for Bytes {
    type Err = ();

    /// Reads `2GiB`, `1.5 GiB`, `300kB`, `4096`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.trim();
        let found = UNITS
            .iter()
            .find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?.trim_end(), *bytes)));
        // A number alone is bytes.
        let (digits, unit) = found.unwrap_or((text, 1));
        let plain = |byte: u8| byte.is_ascii_digit() || byte == b'.';
        if !digits.starts_with(|first: char| first.is_ascii_digit()) || !digits.bytes().all(plain) {
            return Err(());
        }
        let bytes = match digits.parse::<u64>() {
            Ok(number) => number.checked_mul(unit).ok_or(())?,
            Err(_) => {
                let bytes = digits.parse::<f64>().map_err(|_| ())? * unit as f64;
                // Beyond this a double does not hold every whole number.
                if !(0.0..=9.0e15).contains(&bytes) {
                    return Err(());
                }
                bytes.round() as u64
            }
        };
        Ok(Bytes(bytes))
    }
}

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Zero divides by every unit.
        let fits = |(_, bytes): &&(&str, u64)| self.0 > 0 && self.0.is_multiple_of(*bytes);
        let (unit, bytes) = UNITS.iter().find(fits).unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        let read = |text: &str| text.parse::<Bytes>().ok().map(|bytes| bytes.0);
        for (text, bytes) in [
            ("2GiB", Some(2 << 30)),
            ("1.5 KiB", Some(1536)),
            (" 7kB ", Some(7000)),
            ("0B", Some(0)),
            ("12", Some(12)),
            ("1.5x", None),
            ("GiB", None),
            ("-1B", None),
            ("1e3B", None),
            (".5MB", None),
            ("1.2.3B", None),
            ("99999999999999GiB", None),
            ("2gib", None),
        ] {
            assert_eq!(read(text), bytes, "{text}");
        }
        assert_eq!(
            [0, 1536, 2 << 30, 3_000_000].map(|bytes| Bytes(bytes).to_string()),
            ["0B", "1536B", "2GiB", "3MB"]
        );
    }

    proptest! {
        #[test]
        fn written_form_reads_back(bytes: u64) {
            prop_assert_eq!(Bytes(bytes).to_string().parse(), Ok(Bytes(bytes)));
        }
    }
}
