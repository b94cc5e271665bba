//! The replicated log under the store.
//!
//! One thread owns the raft node and everything it writes ([`driver`]); the rest of the process
//! talks to it over channels. An entry is a [`ChangeSet`](shoal_proto::v1::ChangeSet); applying
//! committed entries in order to [`Store`] is all that ever changes the store. All proposals that
//! arrive while the disk is busy become one batch with one fsync.

mod beginning;
mod change;
mod check;
mod compaction;
mod driver;
mod member;
mod publish;
mod seal;
mod snapshot;
mod storage;
mod waiting;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use shoal_core::store::{Change, Conflict, Event, Object, Store};
use tokio::sync::{broadcast, oneshot};

pub use member::{Command, Member, Random, Stuck};
pub use publish::Published;
pub use seal::{DataKey, SealError};
pub use waiting::Reply;

use crate::random;
use driver::{Driver, Order};

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
    /// Ticks without a leader before an election, at the least; half as many again at the most.
    pub election_ticks: usize,
    /// Applied entries between two snapshots. The last two are kept, and the log from the older
    /// one on.
    pub snapshot_every: u64,
    /// What an empty folder means.
    pub begin: Begin,
    /// What the log and the snapshots are encrypted with.
    pub key: DataKey,
}

/// What a manager with an empty folder is.
#[derive(Debug, Clone)]
pub enum Begin {
    /// The first of a new group.
    Found,
    /// One that a group that is there takes in: it waits until it is told of everything.
    Join,
    /// The first of a new group that begins with this store.
    Restore(Box<Store>),
    /// Whatever the folder holds: this member goes on alone with all that it knows, committed or
    /// not. To be used when most of the group are lost for good.
    Alone,
}

/// Who is in a group, by their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Those that elect, and whose word makes an entry committed.
    pub voters: BTreeSet<u64>,
    /// Those that are told everything and have no say.
    pub learners: BTreeSet<u64>,
}

/// A change of who is in the group; one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    /// Takes in a member that is told everything and has no say, or takes a voter's say away.
    Learner(u64),
    /// Gives a member a say.
    Voter(u64),
    /// Lets a member go.
    Remove(u64),
}

/// A message to another member, to be carried by whatever means: it may be lost, come late or
/// twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Whom to.
    pub to: u64,
    /// For [`Raft::step`] there.
    pub bytes: Vec<u8>,
    /// It holds a snapshot: say how its way ended with [`Raft::sent_snapshot`].
    pub is_snapshot: bool,
}

/// What carries messages away; it must not block.
pub type Outbox = Box<dyn FnMut(Outgoing) + Send>;

impl RaftConfig {
    /// Ticks of 50 ms, heartbeats each 200 ms, elections after 1 to 1.5 s, a snapshot each 10,000
    /// entries.
    #[must_use]
    pub fn new(dir: PathBuf, key: DataKey) -> Self {
        Self {
            dir,
            key,
            raft_id: 1,
            tick: Duration::from_millis(50),
            heartbeat_ticks: 4,
            election_ticks: 20,
            snapshot_every: 10_000,
            begin: Begin::Found,
        }
    }
}

/// Why raft could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// A file or folder of the log.
    #[error("raft: {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The log can't be read or written.
    #[error("raft log in {}: {source}", path.display())]
    Log {
        /// The log's folder.
        path: PathBuf,
        /// What the log's library said.
        #[source]
        source: raft_engine::Error,
    },
    /// No room for the log.
    #[error("raft log in {}: the disk is full: {source}; free some space", path.display())]
    Full {
        /// The log's folder.
        path: PathBuf,
        /// What the log's library said.
        #[source]
        source: raft_engine::Error,
    },
    /// The log or a snapshot is damaged, or one lacks what the other needs.
    #[error("raft: {}: {what}; restore it from a backup or start with an empty folder", path.display())]
    Corrupt {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The raft library refused its own state.
    #[error("raft: {0}")]
    Raft(#[from] raft::Error),
    /// The thread could not be started.
    #[error("raft: no thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// Why a proposal did not commit, or is not known to have.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// It was made from a state that is not the newest; nothing was done.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// Another manager leads.
    #[error("this manager is not the leader")]
    NotLeader {
        /// The leader's number, when known.
        leader: Option<u64>,
    },
    /// This manager led and does not any more. The change is not confirmed; it may still commit.
    #[error("the leader changed meanwhile; look whether the change was made, and try again if not")]
    LeaderChanged,
    /// Who is in the group is being changed already, or can't be changed so.
    #[error("the managers can't be changed so: {0}")]
    Members(String),
    /// The log can't be written. The change is not confirmed; it may still commit later.
    #[error("the raft log can't be written: {0}; free space or repair the disk, then try again")]
    Storage(String),
    /// More than one entry may hold.
    #[error("the change is {size} bytes, more than the {limit} that one change may have")]
    TooLarge {
        /// Bytes of the encoded change.
        size: usize,
        /// The bound in bytes.
        limit: usize,
    },
    /// This manager is stopping.
    #[error("the manager is stopping")]
    Stopped,
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

/// One applied entry.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Its index.
    pub index: u64,
    /// The store after it.
    pub store: Store,
    /// What it did; empty when its changes were refused.
    pub events: Arc<[Event]>,
    /// The store came whole from the leader, for many entries at once: what they did is not known,
    /// and who follows the store looks at all of it again.
    pub whole: bool,
}

impl Commit {
    /// Whether it may have made, changed or deleted an object of which `concerns` says so, before or
    /// after.
    pub fn touches(&self, concerns: impl Fn(&Object) -> bool) -> bool {
        self.whole
            || self.events.iter().any(|event| match event {
                Event::Put { old, new } => concerns(new) || old.as_ref().is_some_and(&concerns),
                Event::Deleted(old) => concerns(old),
            })
    }
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
}

/// A handle on the raft thread.
#[derive(Clone)]
pub struct Raft {
    orders: Sender<Order>,
    published: Published,
    pulse: Pulse,
}

/// Work that takes longer than this is a disk that does not answer. Others hold an election after
/// as long.
const ASLEEP: Duration = Duration::from_secs(1);

/// When the raft thread was last done with its work.
#[derive(Clone)]
struct Pulse {
    origin: Instant,
    millis: Arc<AtomicU64>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { origin: Instant::now(), millis: Arc::default() }
    }
}

impl Pulse {
    fn beat(&self) {
        self.millis.store(self.origin.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        let last = Duration::from_millis(self.millis.load(Ordering::Relaxed));
        self.origin.elapsed().saturating_sub(last)
    }
}

/// Starts raft on the folder: a new group of one when it is empty, else from what it holds.
/// Returns when the state that was committed and known to be is in the store.
///
/// # Errors
/// The folder can't be used, is full, is damaged, or holds what this version can't read.
pub async fn start(config: RaftConfig, outbox: Outbox) -> Result<Raft, RaftError> {
    let (orders, inbox) = channel();
    let (ready, started) = oneshot::channel();
    let tick = config.tick;
    let pulse = Pulse::default();
    let own_pulse = pulse.clone();
    std::thread::Builder::new()
        .name("raft".to_owned())
        .spawn(move || match Member::open(config, outbox, Box::new(random::bits)) {
            Ok((member, published)) => {
                // Nobody waits any more: the caller was dropped, and so is the last handle.
                let _ = ready.send(Ok(published));
                Driver::new(tick, member, inbox, own_pulse).run();
            }
            Err(error) => drop(ready.send(Err(error))),
        })
        .map_err(RaftError::Thread)?;
    let published = started.await.unwrap_or_else(|_| {
        Err(RaftError::Thread(std::io::Error::other("it ended before it was ready")))
    })?;
    Ok(Raft { orders, published, pulse })
}

impl Raft {
    /// Commits the changes, all or none. Returns the commit: its store holds them.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, changes: Vec<Change>) -> Result<Commit, ProposeError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Propose { changes, reply })?;
        answer.await.unwrap_or(Err(ProposeError::Stopped))
    }

    /// The store with everything that was committed anywhere before the call (ReadIndex).
    ///
    /// It waits while nobody leads, and for an answer that may have been lost on its way: give it a
    /// time, and ask again.
    ///
    /// # Errors
    /// This manager loses its leadership, or stops.
    pub async fn read_barrier(&self) -> Result<Store, ProposeError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Read { reply })?;
        answer.await.unwrap_or(Err(ProposeError::Stopped))
    }

    /// Takes in a message of another member's. One that can't be read is dropped.
    pub fn step(&self, bytes: Vec<u8>) {
        // A raft that has stopped needs no messages.
        let _ = self.send(Command::Step { bytes });
    }

    /// How the way of a snapshot to a member ended.
    pub fn sent_snapshot(&self, to: u64, arrived: bool) {
        let _ = self.send(Command::SentSnapshot { to, arrived });
    }

    /// A member can't be reached: it is asked less often until it is heard of.
    pub fn unreachable(&self, member: u64) {
        let _ = self.send(Command::Unreachable { member });
    }

    /// Changes who is in the group. Returns when the change is committed and in force here.
    ///
    /// # Errors
    /// This manager does not lead, another change is under way, or the change makes no sense.
    pub async fn change_members(&self, change: MemberChange) -> Result<Members, ProposeError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::ChangeMembers { change, reply })?;
        answer.await.unwrap_or(Err(ProposeError::Stopped))
    }

    /// The members that have all of the log, or nearly; only the leader can tell.
    ///
    /// # Errors
    /// This manager does not lead.
    pub async fn caught_up(&self) -> Result<BTreeSet<u64>, ProposeError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::CaughtUp { reply })?;
        answer.await.unwrap_or(Err(ProposeError::Stopped))
    }

    /// Asks a voter to lead instead of this manager. What comes of it the leadership tells.
    pub fn transfer_leadership(&self, to: u64) {
        let _ = self.send(Command::Transfer { to });
    }

    /// Who is in the group, as far as is known here.
    #[must_use]
    pub fn members(&self) -> Members {
        self.published.members()
    }

    fn send(&self, command: Command) -> Result<(), ProposeError> {
        self.orders.send(Order::Do(command)).map_err(|_| ProposeError::Stopped)
    }

    /// The store as of the newest entry applied here.
    #[must_use]
    pub fn store(&self) -> Store {
        self.published.store()
    }

    /// Numbers for people.
    #[must_use]
    pub fn status(&self) -> Status {
        self.published.status()
    }

    /// Whether this manager leads now.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        self.published.leadership()
    }

    /// Whether this manager leads, with everything applied that was committed before its term.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        matches!(self.leadership(), Leadership::Leader { .. })
    }

    /// Whether raft has done its work lately. A disk that does not answer holds it up, and others may
    /// lead already while this manager can't know.
    #[must_use]
    pub fn is_awake(&self) -> bool {
        self.pulse.age() < ASLEEP
    }

    /// Waits until `done` says so of the leadership; false when raft has stopped.
    pub async fn leadership_until(&self, done: impl Fn(Leadership) -> bool) -> bool {
        self.published.leadership_until(done).await
    }

    /// Waits until this manager leads; false when raft has stopped.
    pub async fn elected(&self) -> bool {
        self.leadership_until(|now| matches!(now, Leadership::Leader { .. })).await
    }

    /// Waits until this manager does not lead, or raft has stopped.
    pub async fn deposed(&self) {
        self.leadership_until(|now| matches!(now, Leadership::Follower { .. })).await;
    }

    /// Waits until `done` says so of the store; false when raft has stopped.
    pub async fn store_until(&self, done: impl Fn(&Store) -> bool) -> bool {
        self.published.store_until(done).await
    }

    /// The store, and every commit after it, each once. A reader that falls behind gets
    /// [`broadcast::error::RecvError::Lagged`] and starts over from [`Self::store`]; when raft has
    /// stopped, it gets [`broadcast::error::RecvError::Closed`] after the last one.
    #[must_use]
    pub fn commits(&self) -> (Store, broadcast::Receiver<Commit>) {
        self.published.subscribe()
    }

    /// Stops the thread after what it is doing; later proposals are refused. Afterwards nothing of
    /// the folder is in use.
    pub async fn shutdown(&self) {
        let (reply, done) = oneshot::channel();
        if self.orders.send(Order::Shutdown { reply }).is_ok() {
            // An error means that the thread has ended already.
            let _ = done.await;
        }
    }
}

#[cfg(test)]
mod tests;
