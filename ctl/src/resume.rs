//! A log that is followed goes on when the agent that it comes from is stopped, crashes or is
//! upgraded: it is asked for again, from the last lines on, and what was shown already is left out.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_proto::Timestamp;
use shoal_proto::v1::LogEntry;
use tonic::{Code, Status};

/// An agent that is not back after this long does not come back by itself.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(200);

/// How far each task's log was shown: the last line's time, and how many lines have that time.
type Shown = BTreeMap<String, (Timestamp, usize)>;

/// Remembers what was shown.
#[derive(Debug, Default)]
pub(crate) struct Resume {
    shown: Shown,
    /// Of the connection before: what comes again.
    again: Shown,
}

impl Resume {
    /// Whether an entry is to be shown; it counts as shown then.
    pub(crate) fn take(&mut self, entry: &LogEntry) -> bool {
        let Some(time) = entry.time else { return true };
        let order = |time: &Timestamp| (time.seconds, time.nanos);
        if let Some((last, count)) = self.again.get_mut(&entry.task_id) {
            if order(&time) < order(last) {
                return false;
            }
            if time == *last && *count > 0 {
                *count -= 1;
                return false;
            }
        }
        let (last, count) = self.shown.entry(entry.task_id.clone()).or_insert((time, 0));
        if time == *last {
            *count += 1;
        } else {
            (*last, *count) = (time, 1);
        }
        true
    }

    /// A new connection begins. Returns from which time on it is to tell; none when nothing was
    /// shown yet.
    pub(crate) fn begin_again(&mut self) -> Option<Timestamp> {
        self.again = self.shown.clone();
        let times = self.shown.values().map(|(time, _)| *time);
        times.min_by_key(|time| (time.seconds, time.nanos))
    }
}

/// Whether the connection broke, and not the request.
pub(crate) fn is_broken(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::Aborted
    )
}

/// Asks until an agent answers.
///
/// # Errors
/// It answers with a refusal, or nobody does for a minute.
pub(crate) async fn ask_again<T>(
    mut ask: impl AsyncFnMut() -> Result<T, Status>,
) -> Result<T, Status> {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Err(status) if is_broken(&status) && tokio::time::Instant::now() < until => {
                tokio::time::sleep(RETRY).await;
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(task: &str, seconds: i64, line: &str) -> LogEntry {
        LogEntry {
            task_id: task.to_owned(),
            time: Some(Timestamp { seconds, nanos: 0 }),
            line: line.as_bytes().to_vec(),
            ..LogEntry::default()
        }
    }

    #[test]
    fn a_second_connection_shows_what_the_first_has_not() {
        let mut resume = Resume::default();
        assert_eq!(resume.begin_again(), None);
        let first = [("a", 1, "x"), ("b", 5, "y"), ("a", 2, "z"), ("a", 2, "z")];
        assert!(first.iter().all(|(task, at, line)| resume.take(&entry(task, *at, line))));
        assert_eq!(resume.begin_again().unwrap().seconds, 2);
        let second = [
            ("a", 2, "z"),
            ("b", 4, "old"),
            ("a", 2, "z"),
            ("a", 2, "new"),
            ("b", 5, "y"),
            ("b", 6, "n"),
        ];
        let shown: Vec<bool> =
            second.iter().map(|(task, at, line)| resume.take(&entry(task, *at, line))).collect();
        assert_eq!(shown, [false, false, false, true, false, true]);
        // And again, from there.
        assert_eq!(resume.begin_again().unwrap().seconds, 2);
        assert!(!resume.take(&entry("a", 2, "z")) && !resume.take(&entry("b", 6, "n")));
    }
}
