//! Who waits for an answer of the raft thread.

use std::collections::BTreeMap;
use std::mem;

use shoal_core::store::Store;
use tokio::sync::oneshot;

use super::{Commit, Members, ProposeError};
use crate::random;

pub(super) type Reply<T> = oneshot::Sender<Result<T, ProposeError>>;

pub(super) struct Waiting {
    proposals: BTreeMap<u64, Reply<Commit>>,
    changes: BTreeMap<u64, Reply<Members>>,
    reads: BTreeMap<u64, Reply<Store>>,
    /// Reads whose index is known and not applied yet.
    barriers: Vec<(u64, Reply<Store>)>,
    last_id: u64,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self {
            proposals: BTreeMap::new(),
            changes: BTreeMap::new(),
            reads: BTreeMap::new(),
            barriers: Vec::new(),
            // An entry of an earlier run that commits in this one answers nobody.
            last_id: u64::from((random::bits() >> 96) as u32) << 32,
        }
    }

    /// A number that nothing else of this group has.
    pub(super) fn id(&mut self) -> u64 {
        self.last_id = self.last_id.wrapping_add(1);
        self.last_id
    }

    pub(super) fn add_proposal(&mut self, id: u64, reply: Reply<Commit>) {
        self.proposals.insert(id, reply);
    }

    pub(super) fn take_proposal(&mut self, id: u64) -> Option<Reply<Commit>> {
        self.proposals.remove(&id)
    }

    pub(super) fn add_change(&mut self, id: u64, reply: Reply<Members>) {
        self.changes.insert(id, reply);
    }

    pub(super) fn take_change(&mut self, id: u64) -> Option<Reply<Members>> {
        self.changes.remove(&id)
    }

    /// Returns the context to ask raft's ReadIndex with.
    pub(super) fn add_read(&mut self, reply: Reply<Store>) -> Vec<u8> {
        let id = self.id();
        self.reads.insert(id, reply);
        id.to_le_bytes().to_vec()
    }

    /// Raft's answer to a ReadIndex: the read waits until that is applied.
    pub(super) fn read_at(&mut self, context: &[u8], index: u64) {
        let id = context.try_into().map(u64::from_le_bytes);
        if let Some(reply) = id.ok().and_then(|id| self.reads.remove(&id)) {
            self.barriers.push((index, reply));
        }
    }

    pub(super) fn answer_reads(&mut self, applied: u64, store: &Store) {
        for (index, reply) in mem::take(&mut self.barriers) {
            if index <= applied {
                answer(reply, Ok(store.clone()));
            } else {
                self.barriers.push((index, reply));
            }
        }
    }

    pub(super) fn fail_all(&mut self, error: &ProposeError) {
        for (_, reply) in mem::take(&mut self.proposals) {
            answer(reply, Err(error.clone()));
        }
        for (_, reply) in mem::take(&mut self.changes) {
            answer(reply, Err(error.clone()));
        }
        let reads = mem::take(&mut self.reads).into_values();
        let barriers = mem::take(&mut self.barriers).into_iter().map(|(_, reply)| reply);
        for reply in reads.chain(barriers) {
            answer(reply, Err(error.clone()));
        }
    }
}

/// The caller may have given up waiting.
pub(super) fn answer<T>(reply: Reply<T>, result: Result<T, ProposeError>) {
    let _ = reply.send(result);
}
