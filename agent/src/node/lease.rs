//! How long this node may go on with tasks that are fenced: a manager runs them elsewhere only when
//! this lease has run out. It counts from the sending of the last heartbeat that a manager has
//! acknowledged, on the clock that nobody sets ([`shoal_runtime::uptime`]).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// Heartbeats that are remembered until they are acknowledged.
const REMEMBERED: usize = 16;

/// The node's lease.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    state: Mutex<State>,
    until: watch::Sender<Option<Duration>>,
}

#[derive(Debug, Default)]
struct State {
    length: Option<Duration>,
    sent: BTreeMap<u64, Duration>,
    from: Option<Duration>,
}

impl Lease {
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let until = state.from.zip(state.length).map(|(from, length)| from + length);
        self.until.send_if_modified(|known| std::mem::replace(known, until) != until);
    }

    /// A session begins: heartbeats of the last one are acknowledged no more.
    pub(crate) fn begin(&self) {
        self.change(|state| state.sent.clear());
    }

    pub(crate) fn set_length(&self, length: Option<Duration>) {
        self.change(|state| state.length = length);
    }

    pub(crate) fn sent(&self, number: u64, now: Duration) {
        self.change(|state| {
            state.sent.insert(number, now);
            while state.sent.len() > REMEMBERED {
                state.sent.pop_first();
            }
        });
    }

    pub(crate) fn heard(&self, number: u64) {
        self.change(|state| {
            if let Some(at) = state.sent.get(&number).copied() {
                state.from = Some(at);
                state.sent = state.sent.split_off(&(number + 1));
            }
        });
    }

    /// The uptime at which it runs out; none when there never was one.
    pub(crate) fn until(&self) -> Option<Duration> {
        *self.until.borrow()
    }

    /// The same, and each time that it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Duration>> {
        self.until.subscribe()
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
