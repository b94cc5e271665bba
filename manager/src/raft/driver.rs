//! The thread that owns the raft node: takes proposals, writes the log, applies what commits.

use std::collections::BTreeSet;
use std::mem;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use prost::Message as _;
use prost_of_raft::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeType, Entry, EntryType, Message, MessageType, Snapshot};
use raft::prelude::{Config, RawNode};
use raft::{Ready, SnapshotStatus, StateRole, Storage as _};
use shoal_core::store::{Change, Store};
use shoal_proto::v1::ChangeSet;
use tokio::sync::oneshot;

use super::compaction::Snapshots;
use super::publish::{self, Published, Publisher};
use super::storage::{LogStorage, Mark};
use super::waiting::{Reply, Waiting, answer};
use super::{
    Begin, Commit, Leadership, MemberChange, Members, Outbox, Outgoing, ProposeError, RaftConfig,
    RaftError, Status, snapshot,
};

/// Bytes of one entry at the most.
const MAX_ENTRY: usize = 16 << 20;
/// Commands taken in before the log is written, so that a flood can't starve it.
const MAX_BATCH: usize = 4096;
/// A member that lacks no more entries than this has caught up.
const CAUGHT_UP: u64 = 16;
/// Between two tries to write a log that could not be written.
const RETRY: Duration = Duration::from_millis(500);

pub(super) enum Command {
    Propose { changes: Vec<Change>, reply: Reply<Commit> },
    Read { reply: Reply<Store> },
    Step { bytes: Vec<u8> },
    SentSnapshot { to: u64, arrived: bool },
    Unreachable { member: u64 },
    ChangeMembers { change: MemberChange, reply: Reply<Members> },
    HasCaughtUp { member: u64, reply: Reply<bool> },
    Transfer { to: u64 },
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
    outbox: Outbox,
    /// Whoever waits was told by a leader that it would hear.
    was_leader: bool,
    /// Somebody can be told of a log that can't be written, and wait.
    started: bool,
    stopping: Vec<oneshot::Sender<()>>,
}

impl Driver {
    pub(super) fn open(
        config: RaftConfig,
        inbox: Receiver<Command>,
        outbox: Outbox,
    ) -> Result<(Self, Published), RaftError> {
        let snapshots = config.dir.join("snapshots");
        let found = snapshot::newest(&snapshots)?;
        let from = found.as_ref().map(|(mark, _, members)| (*mark, members.clone()));
        let voter = (config.begin == Begin::Found).then_some(config.raft_id);
        let storage = LogStorage::open(&config.dir.join("log"), &snapshots, voter, from)?;
        let (mark, store, _) = found.unwrap_or_default();
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
            outbox,
            was_leader: false,
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
            let leads = self.node.raft.state == StateRole::Leader;
            // After it is published: whoever is told finds it so.
            if self.was_leader && !leads {
                self.waiting.fail_all(&ProposeError::LeaderChanged);
            }
            self.was_leader = leads;
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
            Command::Step { bytes } => self.step(&bytes),
            Command::SentSnapshot { to, arrived } => {
                let how = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
                self.node.report_snapshot(to, how);
            }
            Command::Unreachable { member } => self.node.report_unreachable(member),
            Command::ChangeMembers { change, reply } => self.change_members(change, reply),
            Command::HasCaughtUp { member, reply } => {
                let caught_up = self.has_caught_up(member);
                answer(reply, caught_up);
            }
            Command::Transfer { to } => self.node.transfer_leader(to),
            Command::Shutdown { reply } => self.stopping.push(reply),
        }
    }

    fn step(&mut self, bytes: &[u8]) {
        let stepped = match Message::decode(bytes) {
            // Raft answers what makes no sense to it with an error, and stays as it was.
            Ok(message) => self.node.step(message).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = stepped {
            tracing::debug!(error, "a message of another manager's is dropped");
        }
    }

    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            let is_snapshot = message.msg_type() == MessageType::MsgSnapshot;
            let outgoing = Outgoing { to: message.to, bytes: message.encode_to_vec(), is_snapshot };
            (self.outbox)(outgoing);
        }
    }

    fn has_caught_up(&self, member: u64) -> Result<bool, ProposeError> {
        if self.node.raft.state != StateRole::Leader {
            return Err(self.not_leader());
        }
        let progress = self.node.raft.prs().get(member);
        Ok(progress.is_some_and(|progress| progress.matched + CAUGHT_UP >= self.applied.index))
    }

    fn change_members(&mut self, change: MemberChange, reply: Reply<Members>) {
        if self.node.raft.state != StateRole::Leader {
            return answer(reply, Err(self.not_leader()));
        }
        let refuse = |why: &str| Err(ProposeError::Members(why.to_owned()));
        if self.node.raft.has_pending_conf() {
            return answer(reply, refuse("another change is under way"));
        }
        let members = self.node.store().members();
        let (kind, member) = match change {
            MemberChange::Learner(member) => (ConfChangeType::AddLearnerNode, member),
            MemberChange::Voter(member) => (ConfChangeType::AddNode, member),
            MemberChange::Remove(member) => (ConfChangeType::RemoveNode, member),
        };
        if kind != ConfChangeType::AddNode && members.voters == BTreeSet::from([member]) {
            return answer(reply, refuse("it is the only one with a say"));
        }
        let is_new = !members.voters.contains(&member) && !members.learners.contains(&member);
        // A new member can't learn from the log who founded the group: it begins with a snapshot.
        if is_new && self.node.store().mark().index == 0 {
            let made = self.snapshots.make(self.applied, &self.store, &members);
            let cut = made.and_then(|()| self.node.mut_store().compact(self.applied));
            if let Err(error) = cut {
                return answer(reply, Err(ProposeError::Storage(error.to_string())));
            }
        }
        let mut change = ConfChange { node_id: member, ..ConfChange::default() };
        change.set_change_type(kind);
        let proposal = self.waiting.id();
        match self.node.propose_conf_change(proposal.to_le_bytes().to_vec(), change) {
            Ok(()) => self.waiting.add_change(proposal, reply),
            Err(_) => answer(reply, Err(self.not_leader())),
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
        // A leader's own entries may be on their way to others before they are on its disk.
        let messages = ready.take_messages();
        self.send(messages);
        if !ready.snapshot().is_empty() {
            self.install(ready.snapshot())?;
        }
        self.persist(&ready)?;
        let messages = ready.take_persisted_messages();
        self.send(messages);
        for read in ready.take_read_states() {
            self.waiting.read_at(&read.request_ctx, read.index);
        }
        self.apply(ready.take_committed_entries())?;
        let mut light = self.node.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.node.mut_store().note_commit(commit);
        }
        let messages = light.take_messages();
        self.send(messages);
        self.apply(light.take_committed_entries())?;
        self.node.advance_apply();
        self.waiting.answer_reads(self.applied.index, &self.store);
        Ok(())
    }

    /// Puts a store that came from the leader in the place of this one, on disk first.
    fn install(&mut self, snapshot: &Snapshot) -> Result<(), RaftError> {
        let metadata = snapshot.get_metadata();
        let mark = Mark { index: metadata.index, term: metadata.term };
        let (store, members) =
            snapshot::decode(&snapshot.data).map_err(|what| RaftError::Corrupt {
                path: self.config.dir.clone(),
                what: format!("a snapshot: {what}"),
            })?;
        self.node.mut_store().announce(mark)?;
        self.snapshots.install(mark, &snapshot.data)?;
        self.node.mut_store().replace(mark, &members)?;
        tracing::info!(raft.index = mark.index, "caught up by a snapshot");
        (self.store, self.applied) = (store, mark);
        let (store, events) = (self.store.clone(), Vec::new().into());
        self.publisher.commit(&Commit { index: mark.index, store, events, whole: true });
        Ok(())
    }

    fn apply_member_change(&mut self, entry: &Entry) -> Result<(), RaftError> {
        let change = ConfChange::decode(&*entry.data).map_err(|error| RaftError::Corrupt {
            path: self.config.dir.clone(),
            what: format!("entry {}: {error}", entry.index),
        })?;
        let conf_state = self.node.apply_conf_change(&change)?;
        self.node.mut_store().set_members(conf_state)?;
        let members = self.node.store().members();
        tracing::info!(?members, "managers");
        let proposal = <[u8; 8]>::try_from(&*entry.context).map(u64::from_le_bytes);
        if let Some(reply) = proposal.ok().and_then(|id| self.waiting.take_change(id)) {
            answer(reply, Ok(members));
        }
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
                Ok(Command::ChangeMembers { reply, .. }) => answer(reply, Err(refusal.clone())),
                Ok(Command::HasCaughtUp { reply, .. }) => answer(reply, Err(refusal.clone())),
                // Messages may be lost: the others try again.
                Ok(
                    Command::Step { .. }
                    | Command::SentSnapshot { .. }
                    | Command::Unreachable { .. }
                    | Command::Transfer { .. },
                ) => {}
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
            if entry.data.is_empty() {
                continue;
            }
            if entry.entry_type() == EntryType::EntryConfChange {
                self.apply_member_change(&entry)?;
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
                whole: false,
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
        let members = self.node.store().members();
        let wanted = self.node.store().take_lacks_snapshot();
        self.snapshots.begin_if_due(self.applied, &self.store, &members, wanted);
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
        self.publisher.members(&self.node.store().members());
        self.publisher.status(leadership, status);
    }
}
