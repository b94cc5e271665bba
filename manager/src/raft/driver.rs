//! The thread that owns the raft node: takes proposals, writes the log, applies what commits.

use std::mem;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use prost::Message as _;
use raft::eraftpb::{Entry, EntryType};
use raft::prelude::{Config, RawNode};
use raft::{Ready, StateRole, Storage as _};
use shoal_core::store::{Change, Store};
use shoal_proto::v1::ChangeSet;
use tokio::sync::oneshot;

use super::compaction::Snapshots;
use super::publish::{self, Published, Publisher};
use super::storage::{LogStorage, Mark};
use super::waiting::{Reply, Waiting, answer};
use super::{Commit, Leadership, ProposeError, RaftConfig, RaftError, Status, snapshot};

/// Bytes of one entry at the most.
const MAX_ENTRY: usize = 16 << 20;
/// Commands taken in before the log is written, so that a flood can't starve it.
const MAX_BATCH: usize = 4096;
/// Between two tries to write a log that could not be written.
const RETRY: Duration = Duration::from_millis(500);

pub(super) enum Command {
    Propose { changes: Vec<Change>, reply: Reply<Commit> },
    Read { reply: Reply<Store> },
    Shutdown { reply: oneshot::Sender<()> },
}

pub(super) struct Driver {
    config: RaftConfig,
    /// Before the inbox: whoever waits for a command that was not taken any more finds the log
    /// closed.
    node: RawNode<LogStorage>,
    inbox: Receiver<Command>,
    publisher: Publisher,
    store: Store,
    applied: Mark,
    snapshots: Snapshots,
    waiting: Waiting,
    log_writes: u64,
    /// Somebody can be told of a log that can't be written, and wait.
    started: bool,
    stopping: Vec<oneshot::Sender<()>>,
}

impl Driver {
    pub(super) fn open(
        config: RaftConfig,
        inbox: Receiver<Command>,
    ) -> Result<(Self, Published), RaftError> {
        let snapshots = config.dir.join("snapshots");
        let found = snapshot::newest(&snapshots)?;
        let from = found.as_ref().map(|(mark, _)| *mark);
        let storage = LogStorage::open(&config.dir.join("log"), config.raft_id, from)?;
        let (mark, store) = found.unwrap_or_default();
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
        let status = Status { id: config.raft_id, ..Status::default() };
        let (publisher, published) = publish::channel(store.clone(), status);
        let snapshots = Snapshots::new(snapshots, config.snapshot_every, mark);
        let mut driver = Self {
            config,
            node,
            inbox,
            publisher,
            store,
            applied: mark,
            snapshots,
            waiting: Waiting::new(),
            log_writes: 0,
            started: false,
            stopping: Vec::new(),
        };
        driver.start()?;
        Ok((driver, published))
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
        self.started = true;
        Ok(())
    }

    /// Works until it is told to stop, nobody is left to tell it, or the log fails for good.
    pub(super) fn run(mut self) {
        self.serve();
        self.snapshots.wait();
        let stopping = mem::take(&mut self.stopping);
        // Closes the log: its lock is free when the answer comes.
        drop(self);
        for done in stopping {
            // The caller may have gone; the thread ends all the same.
            let _ = done.send(());
        }
    }

    fn serve(&mut self) {
        let mut next_tick = Instant::now() + self.config.tick;
        while self.stopping.is_empty() {
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
                    return self.waiting.fail_all(&ProposeError::Storage(error.to_string()));
                }
            }
            self.publish();
            self.compact();
        }
        self.waiting.fail_all(&ProposeError::Stopped);
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Propose { changes, reply } => self.propose(&changes, reply),
            Command::Read { reply } => {
                if self.node.raft.state != StateRole::Leader {
                    return answer(reply, Err(self.not_leader()));
                }
                self.node.read_index(self.waiting.add_read(reply));
            }
            Command::Shutdown { reply } => self.stopping.push(reply),
        }
    }

    fn propose(&mut self, changes: &[Change], reply: Reply<Commit>) {
        if self.node.raft.state != StateRole::Leader {
            return answer(reply, Err(self.not_leader()));
        }
        let proposal = self.waiting.id();
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
            Ok(()) => self.waiting.add_proposal(proposal, reply),
            Err(_) => answer(reply, Err(self.not_leader())),
        }
    }

    fn not_leader(&self) -> ProposeError {
        let leader = self.node.raft.leader_id;
        ProposeError::NotLeader { leader: (leader != 0).then_some(leader) }
    }

    fn handle_ready(&mut self) -> Result<(), RaftError> {
        let mut ready = self.node.ready();
        self.persist(&ready)?;
        for read in ready.take_read_states() {
            self.waiting.read_at(&read.request_ctx, read.index);
        }
        self.apply(ready.take_committed_entries())?;
        let mut light = self.node.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.node.mut_store().note_commit(commit);
        }
        self.apply(light.take_committed_entries())?;
        self.node.advance_apply();
        self.waiting.answer_reads(self.applied.index, &self.store);
        Ok(())
    }

    /// Writes what raft says must be on disk first. A disk that is full may have room again: once
    /// raft has started, the write is tried until it succeeds, and whoever waits is told.
    fn persist(&mut self, ready: &Ready) -> Result<(), RaftError> {
        if !ready.must_sync() {
            if let Some(state) = ready.hs() {
                self.node.mut_store().note_commit(state.commit);
            }
            return Ok(());
        }
        loop {
            let Err(error) = self.node.mut_store().append(ready.entries(), ready.hs()) else {
                self.log_writes += 1;
                return Ok(());
            };
            if !self.started {
                return Err(error);
            }
            tracing::error!(%error, "the raft log can't be written; trying again");
            let refusal = ProposeError::Storage(error.to_string());
            self.waiting.fail_all(&refusal);
            if !self.wait_for_retry(&refusal) {
                return Err(error);
            }
        }
    }

    /// Refuses what comes in while the log can't be written; false when raft is to stop.
    fn wait_for_retry(&mut self, refusal: &ProposeError) -> bool {
        let until = Instant::now() + RETRY;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(left) {
                Ok(Command::Propose { reply, .. }) => answer(reply, Err(refusal.clone())),
                Ok(Command::Read { reply }) => answer(reply, Err(refusal.clone())),
                Ok(Command::Shutdown { reply }) => {
                    self.stopping.push(reply);
                    return false;
                }
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
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
            let reply = own.then(|| self.waiting.take_proposal(set.proposal)).flatten();
            let outcome = applied.map(|events| Commit {
                index: entry.index,
                store: self.store.clone(),
                events: events.into(),
            });
            if let Ok(commit) = &outcome {
                self.publisher.commit(commit);
            }
            if let Some(reply) = reply {
                answer(reply, outcome.map_err(ProposeError::Conflict));
            }
        }
        Ok(())
    }

    /// Cuts the log when a snapshot allows it, and begins the next one when it is due.
    fn compact(&mut self) {
        if let Some(mark) = self.snapshots.finished()
            && mark.index > self.node.store().mark().index
            && let Err(error) = self.node.mut_store().compact(mark)
        {
            tracing::warn!(%error, "the log is not cut; it stays longer");
        }
        self.snapshots.begin_if_due(self.applied, &self.store);
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
        self.publisher.status(leadership, status);
    }
}
