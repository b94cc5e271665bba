//! What a committed entry does to the store: a function of the two alone.

use prost::Message as _;
use raft::eraftpb::{Entry, EntryType};
use shoal_core::store::{Change, Conflict, ConvertError, Store};
use shoal_proto::v1::ChangeSet;

use super::Commit;

/// An entry that this version of Shoal can't apply.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error("entry {0} is no change set: {1}")]
    Decode(u64, #[source] prost::DecodeError),
    #[error("entry {0} can't be read: {1}")]
    Convert(u64, #[source] ConvertError),
    #[error("entry {0} changes the group's members, which this version of shoal can't do")]
    Membership(u64),
}

/// What became of one change set, and whom to tell.
pub(super) struct Outcome {
    pub(super) proposer: u64,
    pub(super) proposal: u64,
    pub(super) result: Result<Commit, Conflict>,
}

/// Applies the entry; nothing comes of the empty one that a new leader begins its term with.
pub(super) fn apply(store: &mut Store, entry: &Entry) -> Result<Option<Outcome>, ApplyError> {
    let index = entry.index;
    match entry.entry_type() {
        EntryType::EntryNormal => {}
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
            return Err(ApplyError::Membership(index));
        }
    }
    if entry.data.is_empty() {
        return Ok(None);
    }
    let set = ChangeSet::decode(&*entry.data).map_err(|error| ApplyError::Decode(index, error))?;
    let changes: Vec<Change> = set
        .changes
        .into_iter()
        .map(TryInto::try_into)
        .collect::<Result<_, _>>()
        .map_err(|error| ApplyError::Convert(index, error))?;
    let applied = store.apply(index, changes);
    let result =
        applied.map(|events| Commit { index, store: store.clone(), events: events.into() });
    Ok(Some(Outcome { proposer: set.proposer, proposal: set.proposal, result }))
}
