//! Between protobuf's times and the standard library's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{ProtoDuration, Timestamp};

/// Times before 1970 become 1970: no event of a cluster is older.
#[must_use]
pub fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 }
}

/// Negative parts, which no writer of ours makes, count as zero.
#[must_use]
pub fn system_time(stamp: &Timestamp) -> SystemTime {
    UNIX_EPOCH
        + Duration::from_secs(stamp.seconds.max(0) as u64)
        + Duration::from_nanos(stamp.nanos.max(0) as u64)
}

/// Durations longer than 2^63 seconds are cut to that.
#[must_use]
pub fn proto_duration(duration: Duration) -> ProtoDuration {
    ProtoDuration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos() as i32,
    }
}

/// Negative durations count as zero.
#[must_use]
pub fn std_duration(duration: &ProtoDuration) -> Duration {
    Duration::from_secs(duration.seconds.max(0) as u64)
        + Duration::from_nanos(duration.nanos.max(0) as u64)
}
