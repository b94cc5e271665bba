//! The replicated log under the store.
//!
//! One thread owns the raft node and everything it writes ([`driver`]); the rest of the process
//! talks to it over channels. An entry is a [`ChangeSet`]; applying committed entries in order to
//! [`Store`] is all that ever changes the store. All proposals that arrive while the disk is busy
//! become one batch with one fsync, and nobody hears of a commit before that fsync is done.

mod apply;
mod compactor;
mod driver;
mod error;
mod logger;
mod pending;
mod published;
mod snapshot;
mod storage;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use prost::Message as _;
use shoal_core::store::{Change, Event, Store};
use shoal_proto::v1::ChangeSet;
use tokio::sync::{broadcast, oneshot, watch};

pub use error::{ProposeError, RaftError};

use driver::Driver;
use pending::{Command, Proposal};
use published::State;

/// Bytes of one encoded change set at the most.
const MAX_CHANGE_SET: usize = 16 << 20;

/// How a manager takes part in raft.
#[derive(Debug, Clone)]
pub struct RaftConfig {
    /// Folder of the log and the snapshots; made when missing.
    pub dir: PathBuf,
    /// This manager's number in the group; from 1.
    pub raft_id: u64,
    /// The unit of the two below.
    pub tick: Duration,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// Ticks without a leader before an election, at the least; twice that at the most.
    pub election_ticks: usize,
    /// Applied entries between two snapshots; the log before the older of the last two is dropped.
    pub snapshot_every: u64,
}

impl RaftConfig {
    /// Ticks of 100 ms, heartbeats each 200 ms, elections after one to two seconds, a snapshot
    /// each 10,000 entries.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            raft_id: 1,
            tick: Duration::from_millis(100),
            heartbeat_ticks: 2,
            election_ticks: 10,
            snapshot_every: 10_000,
        }
    }
}

/// Whether this manager leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leadership {
    /// It does, and has applied everything that was committed before its term.
    Leader {
        /// Its term.
        term: u64,
    },
    /// It does not.
    Follower {
        /// Who does, when known.
        leader: Option<u64>,
    },
}

/// One applied change set.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Its index.
    pub index: u64,
    /// The store after it.
    pub store: Store,
    /// What it did.
    pub events: Arc<[Event]>,
}

/// Numbers for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// This manager's number.
    pub id: u64,
    /// The current term.
    pub term: u64,
    /// Last applied index.
    pub applied: u64,
    /// The leader's number; 0 for none.
    pub leader: u64,
    /// Batches written to the log since the start, each with one fsync.
    pub log_writes: u64,
    /// Index of the newest snapshot; 0 for none.
    pub snapshot: u64,
}

/// A handle on the raft thread. The thread ends when the last handle is dropped.
#[derive(Clone)]
pub struct Raft {
    id: u64,
    commands: Sender<Command>,
    state: watch::Receiver<State>,
    // Weak: when the thread ends, subscribers must hear of it.
    commits: broadcast::WeakSender<Commit>,
    next_proposal: Arc<AtomicU64>,
}

/// Starts raft on the folder: a new group of one when it is empty, else from what it holds. In a
/// group of one it returns when this manager leads and everything committed is in the store.
///
/// # Errors
/// The folder can't be used, or holds what this version can't read.
pub async fn start(config: RaftConfig) -> Result<Raft, RaftError> {
    let (commands, inbox) = channel();
    let (ready, started) = oneshot::channel();
    let id = config.raft_id;
    std::thread::Builder::new()
        .name("raft".to_owned())
        .spawn(move || match Driver::open(config, inbox) {
            Ok((driver, state, commits)) => {
                // Nobody waits any more: the caller was dropped, and so is the last handle.
                let _ = ready.send(Ok((state, commits)));
                driver.run();
            }
            Err(error) => drop(ready.send(Err(error))),
        })
        .map_err(RaftError::Thread)?;
    let (state, commits) = started.await.unwrap_or_else(|_| {
        Err(RaftError::Thread(std::io::Error::other("it ended before it was ready")))
    })?;
    Ok(Raft { id, commands, state, commits, next_proposal: Arc::new(AtomicU64::new(1)) })
}

impl Raft {
    /// Commits the changes, all or none. Returns the commit: its store holds them.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, changes: Vec<Change>) -> Result<Commit, ProposeError> {
        let id = self.next_proposal.fetch_add(1, Ordering::Relaxed);
        let changes = changes.iter().map(Into::into).collect();
        let data = ChangeSet { proposal: id, proposer: self.id, changes }.encode_to_vec();
        if data.len() > MAX_CHANGE_SET {
            return Err(ProposeError::TooLarge { size: data.len(), limit: MAX_CHANGE_SET });
        }
        let (reply, answer) = oneshot::channel();
        self.send(Command::Propose(Proposal { id, data, reply }))?;
        answer.await.unwrap_or(Err(ProposeError::Stopped))
    }

    /// The store with everything that was committed anywhere before the call (ReadIndex).
    ///
    /// # Errors
    /// This manager does not lead, or stops.
    pub async fn read_barrier(&self) -> Result<Store, ProposeError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Read(reply))?;
        answer.await.unwrap_or(Err(ProposeError::Stopped))
    }

    fn send(&self, command: Command) -> Result<(), ProposeError> {
        self.commands.send(command).map_err(|_| ProposeError::Stopped)
    }

    /// The store as of the newest entry applied here.
    #[must_use]
    pub fn store(&self) -> Store {
        self.state.borrow().store.clone()
    }

    /// Numbers for people.
    #[must_use]
    pub fn status(&self) -> Status {
        self.state.borrow().status
    }

    /// Whether this manager leads now.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        self.state.borrow().leadership
    }

    /// Waits until `done` says so of the leadership; false when raft has stopped.
    pub async fn leadership_until(&self, done: impl Fn(Leadership) -> bool) -> bool {
        let mut state = self.state.clone();
        state.wait_for(|state| done(state.leadership)).await.is_ok()
    }

    /// Waits until the thread has ended: after [`Self::shutdown`], or because the log can't be
    /// trusted any more. Nothing commits afterwards.
    pub async fn stopped(&self) {
        self.leadership_until(|_| false).await;
    }

    /// The store as it is, and exactly the commits after it, in order. A reader that falls behind
    /// gets [`broadcast::error::RecvError::Lagged`] and starts over with another call; raft never
    /// waits for it.
    #[must_use]
    pub fn commits(&self) -> (Store, broadcast::Receiver<Commit>) {
        // The thread sends commits under this lock, together with the store that holds them.
        let state = self.state.borrow();
        let commits = match self.commits.upgrade() {
            Some(commits) => commits.subscribe(),
            None => broadcast::channel(1).1,
        };
        (state.store.clone(), commits)
    }

    /// Stops the thread after what it is doing; later proposals are refused. When it returns, the
    /// folder can be opened again.
    pub async fn shutdown(&self) {
        let (reply, done) = oneshot::channel();
        if self.send(Command::Shutdown(reply)).is_ok() {
            // An error means that the thread has ended already.
            let _ = done.await;
        }
    }
}

#[cfg(test)]
mod tests;
