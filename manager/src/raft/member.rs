//! One member of the group: takes proposals and messages, writes the log, applies what commits.
//!
//! It has no thread, no clock and no network: [`super::driver`] gives it ticks and commands, and an
//! [`Outbox`] takes its messages.

use std::collections::BTreeSet;
use std::path::Path;

use prost::Message as _;
use prost_of_raft::Message as _;
use raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot};
use raft::prelude::{Config, RawNode};
use raft::{Ready, SnapshotStatus, StateRole, Storage as _};
use shoal_core::store::{Change, Store};
use shoal_proto::v1::ChangeSet;

use super::beginning::{begin_with, go_on_alone};
use super::compaction::Snapshots;
use super::publish::{self, Published, Publisher};
use super::snapshot::SnapshotFiles;
use super::storage::{LogStorage, Mark};
use super::waiting::{Reply, Waiting, answer};
use super::{
    Begin, Commit, Leadership, MemberChange, Members, Outbox, Outgoing, ProposeError, RaftConfig,
    RaftError, Status, snapshot,
};

/// Bytes of one entry at the most.
const MAX_ENTRY: usize = 16 << 20;

/// What a member is asked to do.
#[allow(missing_docs)] // each is the method of `Raft` of that name
pub enum Command {
    Propose { changes: Vec<Change>, reply: Reply<Commit> },
    Read { reply: Reply<Store> },
    Step { bytes: Vec<u8> },
    SentSnapshot { to: u64, arrived: bool },
    Unreachable { member: u64 },
    ChangeMembers { change: MemberChange, reply: Reply<Members> },
    CaughtUp { reply: Reply<BTreeSet<u64>> },
    Transfer { to: u64 },
}

/// Random bits: for when elections begin, and for numbers that none may have twice.
pub type Random = Box<dyn FnMut() -> u128 + Send>;

/// Why a member can't go on.
#[derive(Debug, thiserror::Error)]
pub enum Stuck {
    /// The log can't be written now. [`Member::settle`] tries the same again.
    #[error(transparent)]
    Disk(RaftError),
    /// Its memory and its disk can't be brought together any more.
    #[error(transparent)]
    Broken(#[from] RaftError),
}

/// A member of a raft group.
pub struct Member {
    pub(super) config: RaftConfig,
    pub(super) node: RawNode<LogStorage>,
    publisher: Publisher,
    pub(super) store: Store,
    pub(super) applied: Mark,
    pub(super) snapshots: Snapshots,
    pub(super) waiting: Waiting,
    log_writes: u64,
    outbox: Outbox,
    /// Whoever waits was told by a leader that it would hear.
    was_leader: bool,
    /// What the log could not take yet.
    unwritten: Option<Ready>,
    random: Random,
    /// As this member has set it.
    election_timeout: usize,
}

impl Member {
    /// Opens what is in the folder.
    ///
    /// # Errors
    /// See [`super::start`].
    pub fn open(
        config: RaftConfig,
        outbox: Outbox,
        mut random: Random,
    ) -> Result<(Self, Published), RaftError> {
        let files = SnapshotFiles::open(config.dir.join("snapshots"), &config.key)?;
        let found = match &config.begin {
            Begin::Restore(store) => match files.newest()? {
                None => Some(begin_with(&files, config.raft_id, store)?),
                begun => begun,
            },
            _ => files.newest()?,
        };
        let from = found.as_ref().map(|(mark, _, members)| (*mark, members.clone()));
        let voter = match &config.begin {
            Begin::Found if found.is_none() => Some(config.raft_id),
            Begin::Restore(_) => Some(config.raft_id),
            Begin::Found | Begin::Join | Begin::Alone => None,
        };
        let log = config.dir.join("log");
        let mut storage = LogStorage::open(&log, files.clone(), &config.key, voter, from)?;
        let (mut mark, mut store, _) = found.unwrap_or_default();
        if matches!(config.begin, Begin::Alone) {
            (mark, store) = go_on_alone(&config, &files, &mut storage, mark, store)?;
        }
        let raft_config = Config {
            id: config.raft_id,
            election_tick: config.election_ticks,
            // So wide that raft hardly ever draws what this member has drawn: that it has drawn is
            // seen, and what it has drawn is replaced.
            max_election_tick: config.election_ticks * 1000,
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
        let snapshots = Snapshots::new(files, config.snapshot_every, mark);
        let waiting = Waiting::new(random());
        let mut member = Self {
            config,
            node,
            publisher,
            store,
            applied: mark,
            snapshots,
            waiting,
            log_writes: 0,
            outbox,
            was_leader: false,
            unwritten: None,
            random,
            election_timeout: 0,
        };
        member.start()?;
        Ok((member, published))
    }

    /// A group of one elects itself at once instead of after its timeout.
    fn start(&mut self) -> Result<(), RaftError> {
        let voters = self.node.store().initial_state()?.conf_state.voters;
        if voters == [self.config.raft_id] {
            self.node.campaign()?;
        }
        self.settle().map_err(|stuck| match stuck {
            Stuck::Disk(error) | Stuck::Broken(error) => error,
        })
    }

    /// One unit of raft's time has passed.
    pub fn tick(&mut self) {
        self.node.tick();
        self.waiting.forget_the_gone();
    }

    /// Does all that follows from the commands and ticks since the last call: writes, sends,
    /// applies and answers.
    ///
    /// # Errors
    /// See [`Stuck`]. Whoever waited for an answer has been told.
    pub fn settle(&mut self) -> Result<(), Stuck> {
        self.draw_election_timeout();
        loop {
            let ready = match self.unwritten.take() {
                Some(ready) => ready,
                None if self.node.has_ready() => self.begin_ready(),
                None => break,
            };
            if let Err(error) = self.persist(&ready) {
                self.waiting.fail_all(&ProposeError::Storage(error.to_string()));
                self.unwritten = Some(ready);
                self.publish_stuck();
                return Err(Stuck::Disk(error));
            }
            if let Err(error) = self.finish_ready(ready) {
                self.waiting.fail_all(&ProposeError::Storage(error.to_string()));
                return Err(error.into());
            }
            self.step_down_when_removed();
            self.begin_reads();
        }
        self.begin_reads();
        self.publish();
        let leads = self.node.raft.state == StateRole::Leader;
        // After it is published: whoever is told finds it so.
        if self.was_leader && !leads {
            self.waiting.fail_all(&ProposeError::LeaderChanged);
        }
        self.was_leader = leads;
        self.compact();
        // Reads that have begun meanwhile.
        if self.node.has_ready() { self.settle() } else { Ok(()) }
    }

    /// Raft lets a leader that the group has let go lead on; it could commit nothing.
    fn step_down_when_removed(&mut self) {
        let id = self.config.raft_id;
        if self.node.raft.state == StateRole::Leader
            && !self.node.store().members().voters.contains(&id)
        {
            tracing::info!("the group has let this manager go");
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, 0);
        }
    }

    /// Others may lead already, of whom this member can't hear before its disk takes writes again:
    /// nobody is to take its word for the leader's.
    fn publish_stuck(&mut self) {
        if self.node.store().members().voters.len() > 1 {
            let status = Status { leader: 0, ..self.status() };
            self.publisher.status(Leadership::Follower { leader: None }, status);
        }
    }

    /// Raft draws the time until an election with randomness of its own each time that it begins to
    /// wait; this member's takes its place.
    fn draw_election_timeout(&mut self) {
        if self.node.raft.randomized_election_timeout() != self.election_timeout {
            let least = self.config.election_ticks;
            let spread = (least / 2).max(1) as u128;
            // Members count the same time to within a tick: one that asks for votes at the very least
            // would find others that don't listen yet, and wait all over again.
            let drawn = least + 2 + ((self.random)() % spread) as usize;
            self.node.raft.set_randomized_election_timeout(drawn);
            self.election_timeout = drawn;
        }
    }

    /// Waits until the snapshot that is being written is there, if one is; [`Self::settle`] goes on
    /// with it.
    pub fn let_snapshot_finish(&mut self) {
        self.snapshots.let_finish();
    }

    /// Waits for the snapshot that is being written, if one is, and lets it be.
    pub fn wait_for_snapshot(&mut self) {
        self.snapshots.wait();
    }

    /// Nothing is to be waited for any more.
    pub(super) fn refuse_all(&mut self, error: &ProposeError) {
        self.waiting.fail_all(error);
    }

    /// Takes a command in; [`Self::settle`] does the rest.
    pub fn take(&mut self, command: Command) {
        match command {
            Command::Propose { changes, reply } => self.propose(&changes, reply),
            Command::Read { reply } => self.waiting.park_read(reply),
            Command::Step { bytes } => self.step(&bytes),
            Command::SentSnapshot { to, arrived } => {
                let how = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
                self.node.report_snapshot(to, how);
            }
            Command::Unreachable { member } => self.node.report_unreachable(member),
            Command::ChangeMembers { change, reply } => self.change_members(change, reply),
            Command::CaughtUp { reply } => {
                let caught_up = self.caught_up();
                answer(reply, caught_up);
            }
            Command::Transfer { to } => self.node.transfer_leader(to),
        }
        self.draw_election_timeout();
    }

    /// Reads begin when raft would answer them: it drops those that come while nobody leads, or
    /// before the leader's term has its first entry committed.
    fn begin_reads(&mut self) {
        let raft = &self.node.raft;
        let leader = raft.leader_id;
        if self.waiting.leader_for_reads != leader {
            // The one that was asked may never answer.
            self.waiting.leader_for_reads = leader;
            self.waiting.park_all_reads();
        }
        let committed = self.node.store().term(raft.raft_log.committed);
        if leader == 0 || committed.ok() != Some(raft.term) {
            return;
        }
        while let Some(context) = self.waiting.begin_read() {
            self.node.read_index(context);
        }
    }

    fn step(&mut self, bytes: &[u8]) {
        let stepped = match Message::decode(bytes) {
            // Another member may have had this one's address.
            Ok(message) if message.to != self.config.raft_id => {
                Err(format!("it is for member {}", message.to))
            }
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

    pub(super) fn not_leader(&self) -> ProposeError {
        let leader = self.node.raft.leader_id;
        ProposeError::NotLeader { leader: (leader != 0).then_some(leader) }
    }

    fn begin_ready(&mut self) -> Ready {
        let mut ready = self.node.ready();
        // A leader's own entries may be on their way to others before they are on its disk.
        let messages = ready.take_messages();
        self.send(messages);
        ready
    }

    /// What may be done once the log is written.
    fn finish_ready(&mut self, mut ready: Ready) -> Result<(), RaftError> {
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

    /// Writes what raft says must be on disk first.
    fn persist(&mut self, ready: &Ready) -> Result<(), RaftError> {
        if !ready.snapshot().is_empty() {
            self.install(ready.snapshot())?;
        }
        if ready.must_sync() {
            self.node.mut_store().append(ready.entries(), ready.hs())?;
            self.log_writes += 1;
        } else if let Some(state) = ready.hs() {
            self.node.mut_store().note_commit(state.commit);
        }
        Ok(())
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
            let (set, changes) = decode_changes(&self.config.dir, &entry)?;
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
        // Before it has applied everything, this member leads as far as raft goes and can't answer.
        let own = self.config.raft_id;
        let leader = (raft.leader_id != 0 && raft.leader_id != own).then_some(raft.leader_id);
        let caught_up = raft.state == StateRole::Leader
            && self.node.store().term(self.applied.index).is_ok_and(|term| term == raft.term);
        let leadership = if caught_up {
            Leadership::Leader { term: raft.term }
        } else {
            Leadership::Follower { leader }
        };
        self.publisher.members(&self.node.store().members());
        self.publisher.status(leadership, self.status());
    }

    fn status(&self) -> Status {
        Status {
            id: self.config.raft_id,
            term: self.node.raft.term,
            applied: self.applied.index,
            leader: self.node.raft.leader_id,
            log_writes: self.log_writes,
        }
    }
}

/// The changes of an entry, and the set that they came in.
pub(super) fn decode_changes(
    dir: &Path,
    entry: &Entry,
) -> Result<(ChangeSet, Vec<Change>), RaftError> {
    let corrupt = |what: String| RaftError::Corrupt {
        path: dir.to_owned(),
        what: format!("entry {}: {what}", entry.index),
    };
    let mut set = ChangeSet::decode(&*entry.data).map_err(|error| corrupt(error.to_string()))?;
    let changes = std::mem::take(&mut set.changes).into_iter().map(TryInto::try_into);
    let changes = changes
        .collect::<Result<_, _>>()
        .map_err(|error: shoal_core::store::ConvertError| corrupt(error.to_string()))?;
    Ok((set, changes))
}
