//! Amounts of memory and disk as people write them: `512m`, `1.5GiB`, `64kb`.

use std::fmt;
use std::str::FromStr;

/// A number of bytes. Units are powers of 1024, as in Docker and the compose specification
/// ("Specifying byte values").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

/// A text that is not a number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a size: want a number and b, k, m, g, t or p, such as 512m")]
pub struct ByteSizeError {
    /// The text as given.
    pub text: String,
}

const UNITS: [(&str, u32); 5] = [("p", 50), ("t", 40), ("g", 30), ("m", 20), ("k", 10)];

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let error = || ByteSizeError { text: text.to_owned() };
        let lower = text.trim().to_ascii_lowercase();
        let split = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
        let (number, unit) = lower.split_at(split);
        let unit = unit.trim_start();
        let letter = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit);
        let shift = match letter {
            "" if unit != "ib" => 0,
            _ => UNITS.iter().find(|(name, _)| *name == letter).ok_or_else(error)?.1,
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(1 << shift).map(ByteSize).ok_or_else(error);
        }
        let value: f64 = number.parse().map_err(|_| error())?;
        let bytes = value * (1u64 << shift) as f64;
        if !(0.0..9.0e18).contains(&bytes) {
            return Err(error());
        }
        Ok(ByteSize(bytes as u64))
    }
}

impl fmt::Display for ByteSize {
    /// Three digits and the largest unit that leaves a number of at least one: `1.46GiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match UNITS.iter().find(|(_, shift)| self.0 >= 1 << shift) {
            None => format!("{}B", self.0),
            Some((unit, shift)) => {
                let value = self.0 as f64 / (1u64 << shift) as f64;
                let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
                format!("{value:.digits$}{}iB", unit.to_uppercase())
            }
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("42", 42),
            ("42b", 42),
            ("1k", 1024),
            ("1kb", 1024),
            ("1KiB", 1024),
            ("64M", 64 << 20),
            ("1.5g", 3 << 29),
            ("2 GB", 2 << 30),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "m", "1x", "-1", "1.2.3k", "99999999999p", "1ib", "1e5"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(ByteSize(0).to_string(), "0B");
        assert_eq!(ByteSize(1023).to_string(), "1023B");
        assert_eq!(ByteSize(1536).to_string(), "1.50KiB");
        assert_eq!(ByteSize(300 << 20).to_string(), "300MiB");
    }
}
