//! How long this node may go on with tasks that are fenced: a manager runs them elsewhere only when
//! this lease has run out. It counts from the sending of the last heartbeat that a manager has
//! acknowledged, on the clock that nobody sets ([`shoal_runtime::uptime`]).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Heartbeats that are remembered until they are acknowledged.
const REMEMBERED: usize = 16;

/// The node's lease.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    length: Option<Duration>,
    sent: BTreeMap<u64, Duration>,
    from: Option<Duration>,
}

impl Lease {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session begins: heartbeats of the last one are acknowledged no more.
    pub(crate) fn begin(&self) {
        self.lock().sent.clear();
    }

    pub(crate) fn set_length(&self, length: Option<Duration>) {
        self.lock().length = length;
    }

    pub(crate) fn sent(&self, number: u64, now: Duration) {
        let mut state = self.lock();
        state.sent.insert(number, now);
        while state.sent.len() > REMEMBERED {
            state.sent.pop_first();
        }
    }

    pub(crate) fn heard(&self, number: u64) {
        let mut state = self.lock();
        if let Some(at) = state.sent.get(&number).copied() {
            state.from = Some(at);
            state.sent = state.sent.split_off(&(number + 1));
        }
    }

    /// The uptime at which it runs out; none when there never was one.
    pub(crate) fn until(&self) -> Option<Duration> {
        let state = self.lock();
        Some(state.from? + state.length?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_from_the_sending_of_what_was_heard() {
        let lease = Lease::default();
        lease.set_length(Some(Duration::from_secs(10)));
        assert_eq!(lease.until(), None);
        let start = Duration::from_secs(1000);
        let second = Duration::from_secs(1);
        lease.sent(1, start);
        lease.sent(2, start + second);
        lease.heard(1);
        assert_eq!(lease.until(), Some(start + 10 * second));
        lease.heard(2);
        assert_eq!(lease.until(), Some(start + 11 * second));
        lease.heard(1);
        assert_eq!(lease.until(), Some(start + 11 * second), "an old word");
    }
}
