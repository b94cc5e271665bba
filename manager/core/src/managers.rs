//! Who is in the raft group: what operators want of the nodes, brought about one step at a time.

use std::collections::BTreeSet;

use shoal_proto::v1::NodeRole;

use crate::store::Store;

/// More would make each commit slower and none safer.
pub const MOST: usize = 7;

/// The group as its leader sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// Those with a say.
    pub voters: BTreeSet<u64>,
    /// Those without.
    pub learners: BTreeSet<u64>,
    /// Those that have been heard of lately and have nearly all of the log.
    pub caught_up: BTreeSet<u64>,
    /// The leader.
    pub leader: u64,
}

/// The next thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Take in a manager that is told everything and has no say.
    Learner(u64),
    /// Give a manager a say.
    Voter(u64),
    /// Let one go.
    Remove(u64),
    /// The leader is to go: another leads first.
    HandOver(u64),
}

/// The numbers of the nodes that are to be managers.
#[must_use]
pub fn wanted(store: &Store) -> BTreeSet<u64> {
    let managers = store.nodes().filter(|node| node.spec.role() == NodeRole::Manager);
    managers.filter_map(|node| node.raft_id.map(|id| id.get())).collect()
}

/// What to do next; none when the group is as it should be, or waits for a learner to catch up.
/// A newcomer gets its say before another one goes, so that a manager can be replaced without a
/// time in which fewer may fail.
#[must_use]
pub fn next_step(group: &Group, wanted: &BTreeSet<u64>) -> Option<Step> {
    let is_in = |id: &u64| group.voters.contains(id) || group.learners.contains(id);
    let ready =
        group.learners.iter().find(|id| wanted.contains(id) && group.caught_up.contains(id));
    let stranger = wanted.iter().find(|id| !is_in(id));
    let leaving = |members: &BTreeSet<u64>| {
        members.iter().copied().find(|id| !wanted.contains(id) && *id != group.leader)
    };
    if let Some(id) = ready {
        return Some(Step::Voter(*id));
    }
    if let Some(id) = stranger {
        return Some(Step::Learner(*id));
    }
    // Nobody is let go while none would be left.
    if !group.voters.iter().any(|id| wanted.contains(id)) {
        return None;
    }
    if let Some(id) = leaving(&group.learners).or_else(|| leaving(&group.voters)) {
        return Some(Step::Remove(id));
    }
    let leader_goes = !wanted.contains(&group.leader) && group.voters.contains(&group.leader);
    // One that is not there can't lead, and would hold all writes up.
    let fit = |id: &&u64| wanted.contains(id) && group.caught_up.contains(id);
    let heir = group.voters.iter().find(fit);
    heir.filter(|_| leader_goes).map(|id| Step::HandOver(*id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[u64]) -> BTreeSet<u64> {
        ids.iter().copied().collect()
    }

    fn group(voters: &[u64], learners: &[u64], caught_up: &[u64]) -> Group {
        Group {
            voters: set(voters),
            learners: set(learners),
            caught_up: set(caught_up),
            leader: voters[0],
        }
    }

    #[test]
    fn a_manager_learns_before_it_has_a_say() {
        let wanted = set(&[1, 2]);
        assert_eq!(next_step(&group(&[1], &[], &[]), &wanted), Some(Step::Learner(2)));
        assert_eq!(next_step(&group(&[1], &[2], &[]), &wanted), None, "it has not caught up");
        assert_eq!(next_step(&group(&[1], &[2], &[2]), &wanted), Some(Step::Voter(2)));
        assert_eq!(next_step(&group(&[1, 2], &[], &[]), &wanted), None);
    }

    #[test]
    fn who_is_not_wanted_goes_and_the_leader_hands_over_first() {
        assert_eq!(next_step(&group(&[1, 2, 3], &[], &[]), &set(&[1, 2])), Some(Step::Remove(3)));
        assert_eq!(next_step(&group(&[1, 2], &[4], &[]), &set(&[1, 2])), Some(Step::Remove(4)));
        let leaving =
            |caught_up: &[u64]| next_step(&group(&[1, 2, 3], &[], caught_up), &set(&[2, 3]));
        assert_eq!(leaving(&[1, 2, 3]), Some(Step::HandOver(2)));
        assert_eq!(leaving(&[1, 3]), Some(Step::HandOver(3)), "2 is not there");
        assert_eq!(leaving(&[1]), None);
        assert_eq!(next_step(&group(&[1], &[], &[]), &set(&[])), None, "the last one stays");
    }

    #[test]
    fn one_is_replaced_by_another_that_has_its_say_first() {
        let wanted = set(&[1, 2, 4]);
        let before = group(&[1, 2, 3], &[], &[]);
        assert_eq!(next_step(&before, &wanted), Some(Step::Learner(4)));
        assert_eq!(next_step(&group(&[1, 2, 3], &[4], &[4]), &wanted), Some(Step::Voter(4)));
        assert_eq!(next_step(&group(&[1, 2, 3, 4], &[], &[]), &wanted), Some(Step::Remove(3)));
    }

    #[test]
    fn a_dead_one_does_not_wait_for_a_newcomer_that_never_learns() {
        // 5 never comes: 3 goes all the same.
        let wanted = set(&[1, 2, 5]);
        assert_eq!(next_step(&group(&[1, 2, 3], &[5], &[]), &wanted), Some(Step::Remove(3)));
    }
}
