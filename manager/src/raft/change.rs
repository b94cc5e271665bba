//! Who is in the group, and how that changes: one member at a time.

use std::collections::BTreeSet;

use prost_of_raft::Message as _;
use raft::StateRole;
use raft::eraftpb::{ConfChange, ConfChangeType, Entry};

use super::member::Member;
use super::waiting::{Reply, answer};
use super::{MemberChange, Members, ProposeError, RaftError};

/// A member that lacks no more entries than this has caught up.
const CAUGHT_UP: u64 = 16;

impl Member {
    pub(super) fn caught_up(&self) -> Result<BTreeSet<u64>, ProposeError> {
        if self.node.raft.state != StateRole::Leader {
            return Err(self.not_leader());
        }
        let all = self.node.raft.prs().iter();
        // One that has nothing yet may not be there at all.
        let has_most = |matched: u64| matched > 0 && matched + CAUGHT_UP >= self.applied.index;
        let own = self.config.raft_id;
        let caught_up = all.filter(|(id, member)| {
            (member.recent_active || **id == own) && has_most(member.matched)
        });
        Ok(caught_up.map(|(id, _)| *id).collect())
    }

    pub(super) fn change_members(&mut self, change: MemberChange, reply: Reply<Members>) {
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

    pub(super) fn apply_member_change(&mut self, entry: &Entry) -> Result<(), RaftError> {
        let change = ConfChange::decode(&*entry.data).map_err(|error| RaftError::Corrupt {
            path: self.config.dir.clone(),
            what: format!("entry {}: {error}", entry.index),
        })?;
        let conf_state = self.node.apply_conf_change(&change)?;
        self.node.mut_store().set_members(conf_state);
        let members = self.node.store().members();
        tracing::info!(?members, "managers");
        let proposal = <[u8; 8]>::try_from(&*entry.context).map(u64::from_le_bytes);
        if let Some(reply) = proposal.ok().and_then(|id| self.waiting.take_change(id)) {
            answer(reply, Ok(members));
        }
        Ok(())
    }
}
