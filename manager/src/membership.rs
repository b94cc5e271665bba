//! Keeps the raft group as operators want the managers, while this manager leads.

use std::collections::BTreeSet;
use std::time::Duration;

use shoal_core::managers::{self, Group, Step};
use shoal_core::node;
use shoal_core::store::Object;
use tokio::sync::broadcast::error::RecvError;

use crate::change;
use crate::raft::{MemberChange, ProposeError, Raft};

/// While a newcomer catches up, or after a step that failed.
const PAUSE: Duration = Duration::from_millis(100);
/// Changes that are there may have been missed.
const CHECK: Duration = Duration::from_secs(5);
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// Ends when this manager does not lead any more.
pub(crate) async fn run(raft: &Raft) {
    let mut commits = raft.commits().1;
    loop {
        let Ok(pause) = step(raft).await else { return };
        let due = tokio::time::sleep(pause);
        tokio::pin!(due);
        loop {
            tokio::select! {
                () = &mut due => break,
                commit = commits.recv() => match commit {
                    Ok(commit) if !commit.touches(|object| matches!(object, Object::Node(_))) => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }
}

/// Takes the next step, if there is one; returns when to look again at the latest.
async fn step(raft: &Raft) -> Result<Duration, ProposeError> {
    let wanted = managers::wanted(&raft.store());
    let members = raft.members();
    let strangers = wanted.iter().any(|id| !members.voters.contains(id));
    let leaving = members.voters.iter().chain(&members.learners).any(|id| !wanted.contains(id));
    let all = members.voters.union(&members.learners).copied().collect();
    if let_go(raft, &all).await? {
        return Ok(Duration::ZERO);
    }
    if !strangers && !leaving {
        return Ok(CHECK);
    }
    let caught_up: BTreeSet<u64> = match raft.caught_up().await {
        Err(ProposeError::Storage(_)) => return Ok(PAUSE),
        caught_up => caught_up?,
    };
    let group = Group {
        voters: members.voters,
        learners: members.learners,
        caught_up,
        leader: raft.status().id,
    };
    let change = match managers::next_step(&group, &wanted) {
        None => return Ok(PAUSE),
        Some(Step::Learner(id)) => MemberChange::Learner(id),
        Some(Step::Voter(id)) => MemberChange::Voter(id),
        Some(Step::Remove(id)) => MemberChange::Remove(id),
        Some(Step::HandOver(id)) => {
            tracing::info!(raft.heir = id, "handing the leadership over");
            raft.transfer_leadership(id);
            return Ok(PAUSE * 5);
        }
    };
    match tokio::time::timeout(STEP_TIMEOUT, raft.change_members(change)).await {
        Ok(Ok(_)) => Ok(Duration::ZERO),
        Ok(Err(ProposeError::Members(_) | ProposeError::Storage(_))) | Err(_) => Ok(PAUSE),
        Ok(Err(error)) => Err(error),
    }
}

/// Makes workers of those that are to be and are in the group no more; whether there were any.
async fn let_go(raft: &Raft, members: &BTreeSet<u64>) -> Result<bool, ProposeError> {
    let change = change::commit(raft, raft.store(), |store, context, changes| {
        node::let_go(store, members, context, changes);
        Ok(!changes.is_empty())
    });
    match change.await {
        Ok((some, _)) => Ok(some),
        Err(ProposeError::Conflict(_) | ProposeError::Storage(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
