//! Times as people read and write them.

use std::time::{Duration, SystemTime};

use jiff::Timestamp as Instant;
use shoal_proto::Timestamp;
use shoal_proto::time::{system_time, timestamp};

/// `5 seconds ago`, in Docker's words.
pub(crate) fn ago(stamp: Option<&Timestamp>) -> String {
    let Some(stamp) = stamp else { return String::new() };
    let age = SystemTime::now().duration_since(system_time(stamp)).unwrap_or_default();
    format!("{} ago", human(age))
}

/// `About a minute`, `3 hours`: as Docker rounds.
fn human(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{} minutes", seconds / 60),
        3600..7200 => "About an hour".to_owned(),
        7200..172_800 => format!("{} hours", seconds / 3600),
        172_800..1_209_600 => format!("{} days", seconds / 86_400),
        1_209_600..5_184_000 => format!("{} weeks", seconds / 604_800),
        5_184_000..63_072_000 => format!("{} months", seconds / 2_592_000),
        _ => format!("{} years", seconds / 31_536_000),
    }
}

/// RFC 3339, UTC.
pub(crate) fn rfc3339(stamp: &Timestamp) -> String {
    Instant::new(stamp.seconds, stamp.nanos).map(|at| at.to_string()).unwrap_or_default()
}

/// A time (RFC 3339) or how long ago it was (`10m`).
///
/// # Errors
/// Neither.
pub(crate) fn parse(text: &str) -> Result<Timestamp, String> {
    if let Ok(age) = shoal_proto::duration::parse(text) {
        return Ok(timestamp(SystemTime::now() - age));
    }
    let at: Instant = text.parse().map_err(|_| {
        format!("{text:?} is neither a time such as 2026-01-31T12:00:00Z nor an age such as 10m")
    })?;
    Ok(Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_in_dockers_words() {
        for (seconds, text) in
            [(0, "Less than a second"), (5, "5 seconds"), (61, "About a minute"), (7300, "2 hours")]
        {
            assert_eq!(human(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn times_and_ages_are_read() {
        assert_eq!(parse("1970-01-01T00:01:00Z").unwrap().seconds, 60);
        assert!(parse("10m").is_ok());
        assert!(parse("yesterday").is_err());
    }
}
