//! What the raft thread shows the rest of the process.

use shoal_core::store::Store;
use tokio::sync::{broadcast, watch};

use super::{Commit, Leadership, Status};

/// Commits that a slow subscriber may be behind before it has to start over.
const BACKLOG: usize = 1024;

/// The newest of everything.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) store: Store,
    pub(super) leadership: Leadership,
    pub(super) status: Status,
}

/// The thread's end of it; dropping it tells all that raft has stopped.
pub(super) struct Publisher {
    state: watch::Sender<State>,
    commits: broadcast::Sender<Commit>,
}

pub(super) type Readers = (watch::Receiver<State>, broadcast::WeakSender<Commit>);

impl Publisher {
    pub(super) fn new(store: Store) -> (Self, Readers) {
        let leadership = Leadership::Follower { leader: None };
        let status = Status::default();
        let (state, states) = watch::channel(State { store, leadership, status });
        let (commits, _) = broadcast::channel(BACKLOG);
        let readers = (states, commits.downgrade());
        (Self { state, commits }, readers)
    }

    /// Shows the store and the commits that led to it as one step: who subscribes gets the store
    /// from before all of them or from after.
    pub(super) fn applied(&self, store: &Store, commits: impl Iterator<Item = Commit>) {
        self.state.send_modify(|state| {
            state.store = store.clone();
            for commit in commits {
                // No subscriber is no error.
                let _ = self.commits.send(commit);
            }
        });
    }

    pub(super) fn status(&self, leadership: Leadership, status: Status) {
        self.state.send_if_modified(|state| {
            let changed = state.leadership != leadership || state.status != status;
            state.leadership = leadership;
            state.status = status;
            changed
        });
    }
}
