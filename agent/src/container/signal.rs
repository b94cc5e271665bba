//! Signals by name and number.

use std::str::FromStr;

use nix::sys::signal::Signal;

/// The first real-time signal and the last, on Linux with glibc and musl.
const REAL_TIME: (i32, i32) = (34, 64);

/// `SIGINT`, `INT`, `2`, `RTMIN+3`.
pub(crate) fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=REAL_TIME.1).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str| match rest {
        "" => Some(0),
        rest => rest.parse::<i32>().ok(),
    };
    let (first, last) = REAL_TIME;
    if let Some(rest) = short.strip_prefix("RTMIN") {
        return offset(rest).map(|n| first + n).filter(|n| (first..=last).contains(n));
    }
    if let Some(rest) = short.strip_prefix("RTMAX") {
        return offset(rest).map(|n| last + n).filter(|n| (first..=last).contains(n));
    }
    Signal::from_str(&format!("SIG{short}")).ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in
            [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)]
        {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in ["SIGNOTHING", "0", "65", "RTMIN+99", ""] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
