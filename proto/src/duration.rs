//! Durations as people write them: `1m30s`, `500ms`, `1h5m`.

use std::time::Duration;

/// A text that is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration: want numbers with us, ms, s, m, h or d, such as 1m30s")]
pub struct DurationError {
    /// The text as given.
    pub text: String,
}

/// Nanoseconds in each unit; the longer name first where one begins with another.
const UNITS: [(&str, u64); 9] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
];

/// Reads a duration (compose specification, "Specifying durations"); `0` needs no unit.
///
/// # Errors
/// A text of another form, a negative one, or one of over 584 years.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError { text: text.to_owned() };
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(error());
    }
    let mut nanos: u64 = 0;
    while !rest.is_empty() {
        let split = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(error)?;
        let (number, tail) = rest.split_at(split);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let scale = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?.1;
        let part = match number.parse::<u64>() {
            Ok(whole) => whole.checked_mul(scale).ok_or_else(error)?,
            Err(_) => {
                let value: f64 = number.parse().map_err(|_| error())?;
                (value * scale as f64) as u64
            }
        };
        nanos = nanos.checked_add(part).ok_or_else(error)?;
        rest = tail;
    }
    Ok(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        for (text, millis) in [
            ("0", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("1.5s", 1_500),
            ("1h5m", 3_900_000),
            ("2d", 172_800_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "10", "s", "-1s", "1x", "1s2", "1..2s", "99999999999h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
