//! How a group begins that does not begin empty: with a backup, or with what one member has left.

use std::collections::BTreeSet;

use raft::eraftpb::EntryType;
use raft::{GetEntriesContext, Storage as _};
use shoal_core::store::Store;

use super::member::decode_changes;
use super::snapshot::{self, SnapshotFiles};
use super::storage::{LogStorage, Mark};
use super::{Members, RaftConfig, RaftError};

fn alone(raft_id: u64) -> Members {
    Members { voters: BTreeSet::from([raft_id]), learners: BTreeSet::new() }
}

/// Writes a store as the first snapshot of a group of one.
pub(super) fn begin_with(
    files: &SnapshotFiles,
    raft_id: u64,
    store: &Store,
) -> Result<(Mark, Store, Members), RaftError> {
    // Raft knows no entry 0; all terms are later than the snapshot's.
    let mark = Mark { index: store.version().max(1), term: 1 };
    let members = alone(raft_id);
    files.write(mark, &snapshot::encode(store, &members))?;
    Ok((mark, store.clone(), members))
}

/// Applies all of the log, committed or not, and begins a group of one with what comes of it.
pub(super) fn go_on_alone(
    config: &RaftConfig,
    files: &SnapshotFiles,
    storage: &mut LogStorage,
    from: Mark,
    mut store: Store,
) -> Result<(Mark, Store), RaftError> {
    let last = storage.last_index()?;
    let mut mark = from;
    let context = GetEntriesContext::empty(false);
    let entries = match from.index < last {
        true => storage.entries(from.index + 1, last + 1, None, context)?,
        false => Vec::new(),
    };
    for entry in entries {
        mark = Mark { index: entry.index, term: entry.term };
        if entry.data.is_empty() || entry.entry_type() == EntryType::EntryConfChange {
            continue;
        }
        let (_, changes) = decode_changes(&config.dir, &entry)?;
        // A change that was refused is refused again.
        let _ = store.apply(entry.index, changes);
    }
    let members = alone(config.raft_id);
    storage.announce(mark)?;
    files.write(mark, &snapshot::encode(&store, &members))?;
    storage.replace(mark, &members)?;
    files.keep_only([mark, mark])?;
    Ok((mark, store))
}
