//! The thread that owns the raft node: takes proposals, writes the log, applies what commits.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use prost::Message as _;
use raft::eraftpb::{Entry, EntryType};
use raft::prelude::{Config, RawNode};
use raft::{Ready, StateRole, Storage as _};
use shoal_core::store::{Change, Store};
use shoal_proto::v1::ChangeSet;
use tokio::sync::{broadcast, oneshot, watch};

use super::storage::{LogStorage, Mark};
use super::{Commit, Leadership, ProposeError, RaftConfig, RaftError, State, Status, snapshot};

/// Bytes of one entry at the most.
const MAX_ENTRY: usize = 16 << 20;
/// Commands taken in before the log is written, so that a flood can't starve it.
const MAX_BATCH: usize = 4096;
/// Between two tries to write a log that could not be written.
const RETRY: Duration = Duration::from_millis(500);

type Reply<T> = oneshot::Sender<Result<T, ProposeError>>;

pub(super) enum Command {
    Propose { changes: Vec<Change>, reply: Reply<Commit> },
    Read { reply: Reply<Store> },
    Shutdown { reply: oneshot::Sender<()> },
}

pub(super) struct Driver {
    config: RaftConfig,
    node: RawNode<LogStorage>,
    inbox: Receiver<Command>,
    commits: broadcast::Sender<Commit>,
    state: watch::Sender<State>,
    store: Store,
    applied: Mark,
    proposals: BTreeMap<u64, Reply<Commit>>,
    reads: BTreeMap<u64, Reply<Store>>,
    /// Reads whose index is known and not applied yet.
    barriers: Vec<(u64, Reply<Store>)>,
    next_id: u64,
    log_writes: u64,
    stopping: Option<oneshot::Sender<()>>,
}

impl Driver {
    pub(super) fn open(
        config: RaftConfig,
        inbox: Receiver<Command>,
        commits: broadcast::Sender<Commit>,
    ) -> Result<(Self, watch::Receiver<State>), RaftError> {
        let log = config.dir.join("log");
        let snapshots = config.dir.join("snapshots");
        let (mark, store) = snapshot::newest(&snapshots)?.unwrap_or_default();
        let storage = LogStorage::open(&log, config.raft_id)?;
        if mark.index < storage.mark().index {
            let what = format!(
                "the log begins after entry {} and the newest snapshot is of entry {}",
                storage.mark().index,
                mark.index
            );
            return Err(RaftError::Corrupt { path: config.dir, what });
        }
        let raft_config = Config {
            id: config.raft_id,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied: mark.index,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            pre_vote: true,
            check_quorum: true,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&raft_config, storage, &logger)?;
        let initial = State {
            store: store.clone(),
            leadership: Leadership::Follower { leader: None },
            status: Status { id: config.raft_id, ..Status::default() },
        };
        let (state, receiver) = watch::channel(initial);
        let mut driver = Self {
            config,
            node,
            inbox,
            commits,
            state,
            store,
            applied: mark,
            proposals: BTreeMap::new(),
            reads: BTreeMap::new(),
            barriers: Vec::new(),
            next_id: 1,
            log_writes: 0,
            stopping: None,
        };
        driver.start()?;
        Ok((driver, receiver))
    }

    /// A group of one elects itself at once instead of after its timeout.
    fn start(&mut self) -> Result<(), RaftError> {
        let voters = self.node.store().initial_state()?.conf_state.voters;
        if voters == [self.config.raft_id] {
            self.node.campaign()?;
        }
        while self.node.has_ready() {
            self.handle_ready()?;
        }
        self.publish();
        Ok(())
    }

    pub(super) fn run(mut self) {
        let mut next_tick = Instant::now() + self.config.tick;
        loop {
            let wait = next_tick.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(wait) {
                Ok(command) => {
                    self.take(command);
                    for _ in 0..MAX_BATCH {
                        let Ok(command) = self.inbox.try_recv() else { break };
                        self.take(command);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= next_tick {
                self.node.tick();
                next_tick = Instant::now() + self.config.tick;
            }
            while self.node.has_ready() {
                if let Err(error) = self.handle_ready() {
                    // Raft's memory and disk can't be brought together any more: end this
                    // manager rather than acknowledge what may be lost.
                    tracing::error!(%error, "raft stops");
                    self.fail_all(&ProposeError::Storage(error.to_string()));
                    return;
                }
            }
            self.publish();
            if let Some(done) = self.stopping.take() {
                self.fail_all(&ProposeError::Stopped);
                // The caller may have gone; the thread ends all the same.
                let _ = done.send(());
                return;
            }
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Propose { changes, reply } => self.propose(&changes, reply),
            Command::Read { reply } => {
                if self.node.raft.state != StateRole::Leader {
                    return answer(reply, Err(self.not_leader()));
                }
                let id = self.id();
                self.reads.insert(id, reply);
                self.node.read_index(id.to_le_bytes().to_vec());
            }
            Command::Shutdown { reply } => self.stopping = Some(reply),
        }
    }

    fn propose(&mut self, changes: &[Change], reply: Reply<Commit>) {
        if self.node.raft.state != StateRole::Leader {
            return answer(reply, Err(self.not_leader()));
        }
        let proposal = self.id();
        let set = ChangeSet {
            proposal,
            proposer: self.config.raft_id,
            changes: changes.iter().map(Into::into).collect(),
        };
        let data = set.encode_to_vec();
        if data.len() > MAX_ENTRY {
            let error = ProposeError::TooLarge { size: data.len(), limit: MAX_ENTRY };
            return answer(reply, Err(error));
        }
        match self.node.propose(Vec::new(), data) {
            Ok(()) => drop(self.proposals.insert(proposal, reply)),
            Err(_) => answer(reply, Err(self.not_leader())),
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn not_leader(&self) -> ProposeError {
        let leader = self.node.raft.leader_id;
        ProposeError::NotLeader { leader: (leader != 0).then_some(leader) }
    }

    fn handle_ready(&mut self) -> Result<(), RaftError> {
        let mut ready = self.node.ready();
        self.persist(&ready)?;
        for read in ready.take_read_states() {
            let id = read.request_ctx.as_slice().try_into().map(u64::from_le_bytes);
            if let Some(reply) = id.ok().and_then(|id| self.reads.remove(&id)) {
                self.barriers.push((read.index, reply));
            }
        }
        self.apply(ready.take_committed_entries())?;
        let mut light = self.node.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.node.mut_store().set_commit(commit)?;
        }
        self.apply(light.take_committed_entries())?;
        self.node.advance_apply();
        self.answer_reads();
        self.compact_if_due();
        Ok(())
    }

    /// Writes what raft says must be on disk first. A disk that is full may have room again: the
    /// write is tried until it succeeds, and whoever waits is told.
    fn persist(&mut self, ready: &Ready) -> Result<(), RaftError> {
        if ready.entries().is_empty() && ready.hs().is_none() {
            return Ok(());
        }
        loop {
            let storage = self.node.mut_store();
            let error = match storage.append(ready.entries(), ready.hs(), ready.must_sync()) {
                Ok(()) => {
                    self.log_writes += u64::from(ready.must_sync());
                    return Ok(());
                }
                Err(error) => error,
            };
            tracing::error!(%error, "the raft log can't be written; trying again");
            self.fail_all(&ProposeError::Storage(error.to_string()));
            if self.wait_for_retry().is_err() {
                return Err(error);
            }
        }
    }

    /// Refuses what comes in while the log can't be written. An error: raft is to stop.
    fn wait_for_retry(&mut self) -> Result<(), ()> {
        let until = Instant::now() + RETRY;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(left) {
                Ok(Command::Shutdown { reply }) => {
                    self.stopping = Some(reply);
                    return Err(());
                }
                Ok(Command::Propose { reply, .. }) => {
                    answer(reply, Err(ProposeError::Storage("no space or no access".to_owned())));
                }
                Ok(Command::Read { reply }) => {
                    answer(reply, Err(ProposeError::Storage("no space or no access".to_owned())));
                }
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err(()),
            }
        }
    }

    fn apply(&mut self, entries: Vec<Entry>) -> Result<(), RaftError> {
        for entry in entries {
            self.applied = Mark { index: entry.index, term: entry.term };
            // A new leader's first entry is empty.
            if entry.data.is_empty() || entry.entry_type() != EntryType::EntryNormal {
                continue;
            }
            let corrupt = |what: String| RaftError::Corrupt {
                path: self.config.dir.clone(),
                what: format!("entry {}: {what}", entry.index),
            };
            let set =
                ChangeSet::decode(&*entry.data).map_err(|error| corrupt(error.to_string()))?;
            let changes = set.changes.into_iter().map(TryInto::try_into);
            let changes: Vec<Change> = changes
                .collect::<Result<_, _>>()
                .map_err(|error: shoal_core::store::ConvertError| corrupt(error.to_string()))?;
            let applied = self.store.apply(entry.index, changes);
            let own = set.proposer == self.config.raft_id;
            let reply = own.then(|| self.proposals.remove(&set.proposal)).flatten();
            let outcome = applied.map(|events| Commit {
                index: entry.index,
                store: self.store.clone(),
                events: events.into(),
            });
            if let Ok(commit) = &outcome {
                self.publish_store();
                // No subscriber is no error.
                let _ = self.commits.send(commit.clone());
            }
            if let Some(reply) = reply {
                answer(reply, outcome.map_err(ProposeError::Conflict));
            }
        }
        Ok(())
    }

    fn answer_reads(&mut self) {
        let (ready, waiting) =
            self.barriers.drain(..).partition(|(index, _)| *index <= self.applied.index);
        self.barriers = waiting;
        let ready: Vec<(u64, Reply<Store>)> = ready;
        for (_, reply) in ready {
            answer(reply, Ok(self.store.clone()));
        }
    }

    /// A snapshot that can't be written leaves the log longer, and is tried again later.
    fn compact_if_due(&mut self) {
        let since = self.applied.index - self.node.store().mark().index;
        if since < self.config.snapshot_every {
            return;
        }
        let dir = self.config.dir.join("snapshots");
        let done = snapshot::write(&dir, self.applied, &self.store)
            .and_then(|()| self.node.mut_store().compact(self.applied));
        if let Err(error) = done {
            tracing::warn!(%error, "no snapshot");
        }
    }

    fn publish_store(&self) {
        self.state.send_modify(|state| state.store = self.store.clone());
    }

    fn publish(&self) {
        let raft = &self.node.raft;
        let leader = (raft.leader_id != 0).then_some(raft.leader_id);
        let caught_up = raft.state == StateRole::Leader
            && self.node.store().term(self.applied.index).is_ok_and(|term| term == raft.term);
        let leadership = if caught_up {
            Leadership::Leader { term: raft.term }
        } else {
            Leadership::Follower { leader }
        };
        let status = Status {
            id: self.config.raft_id,
            term: raft.term,
            applied: self.applied.index,
            leader: raft.leader_id,
            log_writes: self.log_writes,
        };
        self.state.send_if_modified(|state| {
            let changed = state.leadership != leadership || state.status != status;
            state.leadership = leadership;
            state.status = status;
            changed
        });
    }

    fn fail_all(&mut self, error: &ProposeError) {
        for (_, reply) in std::mem::take(&mut self.proposals) {
            answer(reply, Err(error.clone()));
        }
        let reads = std::mem::take(&mut self.reads).into_values();
        let barriers = std::mem::take(&mut self.barriers).into_iter().map(|(_, reply)| reply);
        for reply in reads.chain(barriers) {
            answer(reply, Err(error.clone()));
        }
    }
}

/// The caller may have given up waiting.
fn answer<T>(reply: Reply<T>, result: Result<T, ProposeError>) {
    let _ = reply.send(result);
}
