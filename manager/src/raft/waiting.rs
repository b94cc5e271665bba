//! Who waits for an answer of the raft thread.

use std::collections::BTreeMap;
use std::mem;

use shoal_core::store::Store;
use tokio::sync::oneshot;

use super::{Commit, Members, ProposeError};

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, ProposeError>>;

pub(super) struct Waiting {
    proposals: BTreeMap<u64, Reply<Commit>>,
    changes: BTreeMap<u64, Reply<Members>>,
    /// Reads that raft has not been asked about yet.
    parked: Vec<Reply<Store>>,
    /// Whom raft has asked.
    pub(super) leader_for_reads: u64,
    reads: BTreeMap<u64, Reply<Store>>,
    /// Reads whose index is known and not applied yet.
    barriers: Vec<(u64, Reply<Store>)>,
    last_id: u64,
}

impl Waiting {
    pub(super) fn new(random: u128) -> Self {
        Self {
            proposals: BTreeMap::new(),
            changes: BTreeMap::new(),
            parked: Vec::new(),
            leader_for_reads: 0,
            reads: BTreeMap::new(),
            barriers: Vec::new(),
            // An entry of an earlier run that commits in this one answers nobody.
            last_id: u64::from((random >> 96) as u32) << 32,
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

    pub(super) fn park_read(&mut self, reply: Reply<Store>) {
        self.parked.push(reply);
    }

    /// Raft is to be asked again about the reads that it has not answered.
    pub(super) fn park_all_reads(&mut self) {
        self.parked.extend(mem::take(&mut self.reads).into_values());
    }

    /// The context to ask raft's ReadIndex with for the next read, if there is one.
    pub(super) fn begin_read(&mut self) -> Option<Vec<u8>> {
        let reply = self.parked.pop()?;
        let id = self.id();
        self.reads.insert(id, reply);
        Some(id.to_le_bytes().to_vec())
    }

    /// Raft's question or answer may have been lost on its way; who has waited for long enough has
    /// gone and asks again.
    pub(super) fn forget_the_gone(&mut self) {
        self.parked.retain(|reply| !reply.is_closed());
        self.reads.retain(|_, reply| !reply.is_closed());
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
        for reply in reads.chain(barriers).chain(mem::take(&mut self.parked)) {
            answer(reply, Err(error.clone()));
        }
    }
}

/// The caller may have given up waiting.
pub(super) fn answer<T>(reply: Reply<T>, result: Result<T, ProposeError>) {
    let _ = reply.send(result);
}
