//! The log and raft's own state on disk, through `raft-engine`.

use std::cell::Cell;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use prost_of_raft::Message;
use protobuf::well_known_types::BytesValue;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, StorageError};
use raft_engine::{Engine, LogBatch, MessageExt, ReadableSize, RecoveryMode};

use super::snapshot::{self, SnapshotFiles};
use super::{DataKey, Members, RaftError, check};

/// `raft-engine` keeps many groups in one log; Shoal has one.
const GROUP: u64 = 1;
const HARD_STATE: &[u8] = b"hard_state";
const CONF_STATE: &[u8] = b"conf_state";
/// Index and term of the last entry that a snapshot stands for.
const SNAPSHOT_MARK: &[u8] = b"snapshot_mark";

/// An entry as the log keeps it. `raft-engine` takes messages of the `protobuf` crate, raft's own
/// are of `prost`: the one is carried in the other, encrypted, behind its index.
struct Record;

impl MessageExt for Record {
    type Entry = BytesValue;

    fn index(record: &BytesValue) -> u64 {
        let index = record.value.first_chunk::<8>();
        index.map_or(0, |index| u64::from_le_bytes(*index))
    }
}

fn record(key: &DataKey, entry: &Entry) -> BytesValue {
    let place = entry.index.to_le_bytes();
    let mut value = place.to_vec();
    value.extend(key.seal(&place, &entry.encode_to_vec()));
    BytesValue { value, ..BytesValue::default() }
}

fn entry(key: &DataKey, record: &BytesValue) -> Result<Entry, raft_engine::Error> {
    let corrupt = |what: String| raft_engine::Error::Corruption(what);
    let (place, sealed) = record.value.split_at_checked(8).unwrap_or_default();
    let body = key.open(place, sealed).map_err(|error| corrupt(error.to_string()))?;
    Entry::decode(&*body).map_err(|error| corrupt(error.to_string()))
}

/// A snapshot from the leader is about to be put in the place of the log: up to which entry.
const INSTALLING: &[u8] = b"installing";

/// What raft reads its log from.
pub(super) struct LogStorage {
    engine: Engine,
    dir: PathBuf,
    /// Where the snapshots to send to others are.
    snapshots: SnapshotFiles,
    key: DataKey,
    /// A member needs a snapshot that there is not yet.
    lacks_snapshot: Cell<bool>,
    hard_state: HardState,
    conf_state: ConfState,
    mark: Mark,
}

/// The end of the log's dropped part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) index: u64,
    pub(super) term: u64,
}

impl Members {
    fn conf_state(&self) -> ConfState {
        ConfState {
            voters: self.voters.iter().copied().collect(),
            learners: self.learners.iter().copied().collect(),
            ..ConfState::default()
        }
    }
}

impl Mark {
    pub(super) fn encode(self) -> Vec<u8> {
        [self.index.to_le_bytes(), self.term.to_le_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (index, term) = bytes.split_at_checked(8)?;
        Some(Self {
            index: u64::from_le_bytes(index.try_into().ok()?),
            term: u64::from_le_bytes(term.try_into().ok()?),
        })
    }
}

impl LogStorage {
    /// Opens the log. `snapshot` is what the store was read from, with who was in the group then;
    /// without one, an empty folder becomes the log of a new group with that one voter, or without
    /// a voter that of a member that knows nothing of its group yet. With both, it becomes that of a
    /// group that begins with the snapshot.
    pub(super) fn open(
        dir: &Path,
        snapshots: SnapshotFiles,
        key: &DataKey,
        voter: Option<u64>,
        snapshot: Option<(Mark, Members)>,
    ) -> Result<Self, RaftError> {
        check::log(dir)?;
        let config = raft_engine::Config {
            dir: dir.to_string_lossy().into_owned(),
            // Safe after the check above.
            recovery_mode: RecoveryMode::TolerateTailCorruption,
            // Small files: a young cluster's log takes a few kilobytes, not 128 MiB.
            target_file_size: ReadableSize::mb(8),
            purge_threshold: ReadableSize::mb(32),
            enable_log_recycle: false,
            ..raft_engine::Config::default()
        };
        let engine = Engine::open(config).map_err(|source| log_error(dir, source))?;
        let hard_state = read::<HardState>(&engine, dir, HARD_STATE)?;
        let conf_state = read::<ConfState>(&engine, dir, CONF_STATE)?;
        let mark = engine.get(GROUP, SNAPSHOT_MARK);
        let is_empty = conf_state.is_none() && engine.is_empty();
        let is_new = snapshot.is_none() && is_empty;
        let mut storage = Self {
            engine,
            dir: dir.to_owned(),
            snapshots,
            key: key.clone(),
            lacks_snapshot: Cell::new(false),
            hard_state: hard_state.unwrap_or_default(),
            conf_state: conf_state.unwrap_or_default(),
            mark: Mark::default(),
        };
        if is_new {
            if let Some(voter) = voter {
                storage.conf_state.voters = vec![voter];
                storage.found()?;
            }
            return Ok(storage);
        }
        let corrupt = |what: String| RaftError::Corrupt { path: dir.to_owned(), what };
        if let Some(bytes) = mark {
            storage.mark = Mark::decode(&bytes)
                .ok_or_else(|| corrupt("its snapshot mark is not readable".to_owned()))?;
        }
        let (snapshot, members) = snapshot.unwrap_or_default();
        let installing = storage.engine.get(GROUP, INSTALLING).and_then(|mark| Mark::decode(&mark));
        if is_empty && voter.is_some() {
            storage.replace(snapshot, &members)?;
        }
        if installing.is_some_and(|mark| mark == snapshot && mark.index > storage.mark.index) {
            // The snapshot was whole when this member went down, and the log not replaced yet.
            storage.replace(snapshot, &members)?;
        } else if installing.is_some() {
            // It never was whole: the log went on without it.
            storage.forget_announced()?;
        }
        if !members.voters.is_empty() {
            // As of the entry that applying begins after.
            storage.conf_state = members.conf_state();
        }
        if let Some(what) = storage.contradiction(snapshot) {
            return Err(corrupt(what));
        }
        // A commit is written down with the next entries, a snapshot of it can be older.
        storage.note_commit(snapshot.index);
        Ok(storage)
    }

    /// Writes what makes the log one of a group.
    fn found(&self) -> Result<(), RaftError> {
        let mut batch = LogBatch::default();
        batch
            .put(GROUP, CONF_STATE.to_vec(), self.conf_state.encode_to_vec())
            .and_then(|()| batch.put(GROUP, HARD_STATE.to_vec(), self.hard_state.encode_to_vec()))
            .and_then(|()| self.engine.write(&mut batch, true).map(drop))
            .map_err(|source| log_error(&self.dir, source))
    }

    /// What lacks between the log and the snapshot that the store was read from.
    fn contradiction(&self, snapshot: Mark) -> Option<String> {
        let begin = self.mark.index;
        let first = self.engine.first_index(GROUP).unwrap_or(begin + 1);
        let last = self.engine.last_index(GROUP).unwrap_or(begin);
        let end = snapshot.index.max(self.hard_state.commit);
        if self.conf_state.voters.is_empty() && end > 0 {
            Some("it does not say who is in the group".to_owned())
        } else if first > begin + 1 {
            Some(format!("entries {} to {} are missing", begin + 1, first - 1))
        } else if snapshot.index < begin {
            let newest = snapshot.index;
            Some(format!("it begins after entry {begin}, the newest whole snapshot is of {newest}"))
        } else if last < end {
            Some(format!("it ends with entry {last}, but entry {end} was committed"))
        } else {
            None
        }
    }

    /// Notes that a snapshot from the leader is about to be kept and to replace the log.
    pub(super) fn announce(&mut self, mark: Mark) -> Result<(), RaftError> {
        let mut batch = LogBatch::default();
        batch
            .put(GROUP, INSTALLING.to_vec(), mark.encode())
            .and_then(|()| self.engine.write(&mut batch, true).map(drop))
            .map_err(|source| log_error(&self.dir, source))
    }

    fn forget_announced(&self) -> Result<(), RaftError> {
        let mut batch = LogBatch::default();
        batch.delete(GROUP, INSTALLING.to_vec());
        let written = self.engine.write(&mut batch, true).map(drop);
        written.map_err(|source| log_error(&self.dir, source))
    }

    /// Begins the log anew behind a snapshot.
    pub(super) fn replace(&mut self, mark: Mark, members: &Members) -> Result<(), RaftError> {
        let mut hard_state = self.hard_state.clone();
        hard_state.commit = hard_state.commit.max(mark.index);
        hard_state.term = hard_state.term.max(mark.term);
        let conf_state = members.conf_state();
        let mut batch = LogBatch::default();
        batch.add_command(GROUP, raft_engine::Command::Clean);
        batch
            .put(GROUP, CONF_STATE.to_vec(), conf_state.encode_to_vec())
            .and_then(|()| batch.put(GROUP, HARD_STATE.to_vec(), hard_state.encode_to_vec()))
            .and_then(|()| batch.put(GROUP, SNAPSHOT_MARK.to_vec(), mark.encode()))
            .and_then(|()| self.engine.write(&mut batch, true).map(drop))
            .map_err(|source| log_error(&self.dir, source))?;
        (self.hard_state, self.conf_state, self.mark) = (hard_state, conf_state, mark);
        Ok(())
    }

    /// Notes who is in the group from the entry on that is being applied. In memory: a group of more
    /// than its founder has a snapshot, which says who was in it, and the entries after it are
    /// applied again.
    pub(super) fn set_members(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    /// Whether a member has asked for a snapshot that there is not, since the last call.
    pub(super) fn take_lacks_snapshot(&self) -> bool {
        self.lacks_snapshot.take()
    }

    /// Who is in the group as of the last entry that was applied.
    pub(super) fn members(&self) -> Members {
        Members {
            voters: self.conf_state.voters.iter().copied().collect(),
            learners: self.conf_state.learners.iter().copied().collect(),
        }
    }

    /// Where the log begins.
    pub(super) fn mark(&self) -> Mark {
        self.mark
    }

    /// Writes entries and raft's state in one record; on disk when it returns. No write goes
    /// without a sync: that only the last record can be torn is what [`check`] builds on.
    pub(super) fn append(
        &mut self,
        entries: &[Entry],
        hard_state: Option<&HardState>,
    ) -> Result<(), RaftError> {
        let hard_state = hard_state.unwrap_or(&self.hard_state).clone();
        let mut batch = LogBatch::with_capacity(entries.len() + 1);
        let records: Vec<BytesValue> =
            entries.iter().map(|entry| record(&self.key, entry)).collect();
        batch
            .add_entries::<Record>(GROUP, &records)
            .and_then(|()| batch.put(GROUP, HARD_STATE.to_vec(), hard_state.encode_to_vec()))
            .and_then(|()| self.engine.write(&mut batch, true).map(drop))
            .map_err(|source| log_error(&self.dir, source))?;
        self.hard_state = hard_state;
        Ok(())
    }

    /// Notes how far entries are known to be committed. The next write takes it along: after a
    /// crash raft finds it out again.
    pub(super) fn note_commit(&mut self, commit: u64) {
        self.hard_state.commit = self.hard_state.commit.max(commit);
    }

    /// Drops the log up to and with the entry that a snapshot stands for.
    pub(super) fn compact(&mut self, mark: Mark) -> Result<(), RaftError> {
        let mut batch = LogBatch::default();
        batch.add_command(GROUP, raft_engine::Command::Compact { index: mark.index + 1 });
        batch
            .put(GROUP, SNAPSHOT_MARK.to_vec(), mark.encode())
            .and_then(|()| self.engine.write(&mut batch, true).map(drop))
            .map_err(|source| log_error(&self.dir, source))?;
        self.mark = mark;
        self.engine.purge_expired_files().map_err(|source| log_error(&self.dir, source))?;
        Ok(())
    }
}

/// A full disk is told by name: people can mend it.
fn log_error(dir: &Path, source: raft_engine::Error) -> RaftError {
    let path = dir.to_owned();
    let full = match &source {
        raft_engine::Error::Io(error) => {
            matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
        }
        // `raft-engine` says so of nothing else.
        raft_engine::Error::TryAgain(_) => true,
        _ => false,
    };
    if full { RaftError::Full { path, source } } else { RaftError::Log { path, source } }
}

/// A message of raft's own state; none in a new log.
fn read<M: Message + Default>(
    engine: &Engine,
    dir: &Path,
    key: &[u8],
) -> Result<Option<M>, RaftError> {
    let Some(bytes) = engine.get(GROUP, key) else { return Ok(None) };
    M::decode(&*bytes).map(Some).map_err(|error| RaftError::Corrupt {
        path: dir.to_owned(),
        what: format!("its {} is not readable: {error}", String::from_utf8_lossy(key)),
    })
}

fn other(source: raft_engine::Error) -> raft::Error {
    raft::Error::Store(StorageError::Other(Box::new(source)))
}

impl raft::Storage for LogStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.mark.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let max_size = max_size.into().map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        let mut records = Vec::new();
        self.engine
            .fetch_entries_to::<Record>(GROUP, low, high, max_size, &mut records)
            .map_err(other)?;
        records
            .iter()
            .map(|record| entry(&self.key, record))
            .collect::<Result<_, _>>()
            .map_err(other)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.mark.index {
            return Ok(self.mark.term);
        }
        if index < self.mark.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        match self.engine.get_entry::<Record>(GROUP, index).map_err(other)? {
            Some(record) => Ok(entry(&self.key, &record).map_err(other)?.term),
            None => Err(raft::Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.mark.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.engine.last_index(GROUP).unwrap_or(0).max(self.mark.index))
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        // Raft asks again with the member's next answer.
        let unavailable = || {
            self.lacks_snapshot.set(true);
            raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable)
        };
        let (mark, body) = self.snapshots.newest_body().ok_or_else(unavailable)?;
        let members = snapshot::decode(&body).map(|(_, members)| members);
        let members = members.map_err(|_| unavailable())?;
        // A member takes no snapshot of a group that it is not in.
        let is_in = members.voters.contains(&to) || members.learners.contains(&to);
        if mark.index < request_index || !is_in {
            return Err(unavailable());
        }
        let mut snapshot = Snapshot { data: body, ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        metadata.index = mark.index;
        metadata.term = mark.term;
        metadata.set_conf_state(members.conf_state());
        Ok(snapshot)
    }
}
