//! What the raft thread shows to the rest of the process: the store, who leads, and each commit.
//!
//! A commit goes to its subscribers under the same lock that the store is replaced under, so that
//! a subscriber's store and its first commit always meet.

use shoal_core::store::Store;
use tokio::sync::{broadcast, watch};

use super::{Commit, Leadership, Members, Status};

/// Commits that a slow subscriber may be behind before it has to start over.
const COMMIT_BACKLOG: usize = 4096;

#[derive(Debug, Clone)]
struct State {
    store: Store,
    leadership: Leadership,
    status: Status,
    members: Members,
}

/// The raft thread's end. When it is dropped, nobody leads and the commits are over.
pub(super) struct Publisher {
    state: watch::Sender<State>,
    commits: broadcast::Sender<Commit>,
}

/// The readers' end; clones share it.
#[derive(Clone)]
pub struct Published {
    state: watch::Receiver<State>,
    /// Weak, so that the channel closes with its publisher.
    commits: broadcast::WeakSender<Commit>,
}

pub(super) fn channel(store: Store, status: Status) -> (Publisher, Published) {
    let leadership = Leadership::Follower { leader: None };
    let (state, receiver) =
        watch::channel(State { store, leadership, status, members: Members::default() });
    let (commits, _) = broadcast::channel(COMMIT_BACKLOG);
    let published = Published { state: receiver, commits: commits.downgrade() };
    (Publisher { state, commits }, published)
}

impl Publisher {
    pub(super) fn commit(&self, commit: &Commit) {
        self.state.send_modify(|state| {
            state.store = commit.store.clone();
            // No subscriber is no error.
            let _ = self.commits.send(commit.clone());
        });
    }

    pub(super) fn members(&self, members: &Members) {
        self.state.send_if_modified(|state| {
            let changed = state.members != *members;
            if changed {
                state.members = members.clone();
            }
            changed
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

impl Drop for Publisher {
    fn drop(&mut self) {
        self.state.send_modify(|state| {
            state.leadership = Leadership::Follower { leader: None };
            state.status.leader = 0;
        });
    }
}

impl Published {
    /// The store as of the newest entry applied.
    #[must_use]
    pub fn store(&self) -> Store {
        self.state.borrow().store.clone()
    }

    /// Numbers for people.
    #[must_use]
    pub fn status(&self) -> Status {
        self.state.borrow().status
    }

    /// Who is in the group.
    #[must_use]
    pub fn members(&self) -> Members {
        self.state.borrow().members.clone()
    }

    /// Whether this member leads.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        self.state.borrow().leadership
    }

    pub(super) async fn leadership_until(&self, done: impl Fn(Leadership) -> bool) -> bool {
        let mut state = self.state.clone();
        state.wait_for(|state| done(state.leadership)).await.is_ok()
    }

    pub(super) async fn store_until(&self, done: impl Fn(&Store) -> bool) -> bool {
        let mut state = self.state.clone();
        state.wait_for(|state| done(&state.store)).await.is_ok()
    }

    /// The store, and every commit after it, each once.
    #[must_use]
    pub fn subscribe(&self) -> (Store, broadcast::Receiver<Commit>) {
        let state = self.state.borrow();
        let receiver = match self.commits.upgrade() {
            Some(commits) => commits.subscribe(),
            // Raft has ended: a channel without a sender says so.
            None => broadcast::channel(1).1,
        };
        (state.store.clone(), receiver)
    }
}
