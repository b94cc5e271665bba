//! Waits between attempts.

use std::time::Duration;

/// Attempts in a row that may fail before a transfer is given up.
const ATTEMPTS: u32 = 5;
const FIRST: Duration = Duration::from_millis(200);
/// The longest that a server's `Retry-After` is obeyed.
const LONGEST: Duration = Duration::from_secs(30);

/// Counts failures that come one after another.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Something has arrived: the next failure is a first one.
    pub(crate) const fn progress(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt; returns `false`, at once, when there should be none.
    pub(crate) async fn wait(&mut self, asked: Option<Duration>) -> bool {
        self.failures += 1;
        if self.failures >= ATTEMPTS {
            return false;
        }
        let own = FIRST * 2u32.pow(self.failures - 1);
        tokio::time::sleep(asked.unwrap_or(own).min(LONGEST)).await;
        true
    }
}
