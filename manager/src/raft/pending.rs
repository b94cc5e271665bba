//! Those who wait for raft: proposals for their commit, reads for their index.

use std::collections::BTreeMap;

use shoal_core::store::{Conflict, Store};
use tokio::sync::oneshot;

use super::{Commit, ProposeError};

pub(super) type Reply<T> = oneshot::Sender<Result<T, ProposeError>>;

/// What the rest of the process asks of the raft thread.
pub(super) enum Command {
    Propose(Proposal),
    Read(Reply<Store>),
    Shutdown(oneshot::Sender<()>),
}

/// An encoded change set, and who waits for it.
pub(super) struct Proposal {
    /// Also in the change set; no two of one handle's are the same.
    pub(super) id: u64,
    pub(super) data: Vec<u8>,
    pub(super) reply: Reply<Commit>,
}

#[derive(Default)]
pub(super) struct Pending {
    /// By term and id: an id alone may also be in entries from before a restart.
    proposals: BTreeMap<(u64, u64), Reply<Commit>>,
    /// Reads that came before this leader could answer any.
    parked: Vec<Reply<Store>>,
    /// Reads whose index raft is finding out.
    reads: BTreeMap<u64, Reply<Store>>,
    /// Reads whose index is known and not applied yet.
    barriers: Vec<(u64, Reply<Store>)>,
    last_read: u64,
}

impl Pending {
    pub(super) fn proposed(&mut self, term: u64, id: u64, reply: Reply<Commit>) {
        self.proposals.insert((term, id), reply);
    }

    /// The change set that was proposed in that term has been applied or refused.
    pub(super) fn resolve(&mut self, term: u64, id: u64, result: Result<Commit, Conflict>) {
        if let Some(reply) = self.proposals.remove(&(term, id)) {
            answer(reply, result.map_err(ProposeError::Conflict));
        }
    }

    pub(super) fn park(&mut self, reply: Reply<Store>) {
        self.parked.push(reply);
    }

    /// Names a parked read for raft; none when no read is parked.
    pub(super) fn next_read(&mut self) -> Option<Vec<u8>> {
        let reply = self.parked.pop()?;
        self.last_read += 1;
        self.reads.insert(self.last_read, reply);
        Some(self.last_read.to_le_bytes().to_vec())
    }

    /// Raft has found out what the read of that name has to wait for.
    pub(super) fn read_index(&mut self, name: &[u8], index: u64) {
        let number = name.try_into().map(u64::from_le_bytes);
        if let Some(reply) = number.ok().and_then(|number| self.reads.remove(&number)) {
            self.barriers.push((index, reply));
        }
    }

    /// Answers the reads that wait for nothing more.
    pub(super) fn answer_reads(&mut self, applied: u64, store: &Store) {
        for (_, reply) in self.barriers.extract_if(.., |(index, _)| *index <= applied) {
            answer(reply, Ok(store.clone()));
        }
    }

    pub(super) fn fail_all(&mut self, error: &ProposeError) {
        for reply in std::mem::take(&mut self.proposals).into_values() {
            answer(reply, Err(error.clone()));
        }
        let parked = std::mem::take(&mut self.parked).into_iter();
        let reads = std::mem::take(&mut self.reads).into_values();
        let barriers = std::mem::take(&mut self.barriers).into_iter().map(|(_, reply)| reply);
        for reply in parked.chain(reads).chain(barriers) {
            answer(reply, Err(error.clone()));
        }
    }
}

/// The caller may have given up waiting.
pub(super) fn answer<T>(reply: Reply<T>, result: Result<T, ProposeError>) {
    let _ = reply.send(result);
}
