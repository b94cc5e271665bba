//! Reads that are never stale, and what to say when there can be none.

use std::time::Duration;

use shoal_core::store::{Conflict, Store};
use shoal_proto::v1::{NodeRole, NodeState};
use tokio::time::Instant;
use tonic::Status;

use crate::raft::{ProposeError, Raft};

/// How long a request waits for somebody to lead: an election takes one to two seconds, and may have
/// to be held again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);
/// The question to the leader, or its answer, may be lost on the way.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// On a refusal that says that nothing was done, because this manager does not lead.
pub(crate) const NOT_LEADER: &str = "shoal-not-leader";

/// The store with everything that was committed anywhere before the call.
pub(crate) async fn barrier(raft: &Raft) -> Result<Store, Status> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match tokio::time::timeout(ASK_AGAIN, raft.read_barrier()).await {
            Ok(Ok(store)) => return Ok(store),
            Ok(Err(error @ (ProposeError::Stopped | ProposeError::Storage(_)))) => {
                return Err(error.into());
            }
            Ok(Err(_)) | Err(_) if Instant::now() < deadline => {}
            Ok(Err(_)) | Err(_) => return Err(no_leader(raft)),
        }
    }
}

/// Says who lacks, as far as is known here.
pub(crate) fn no_leader(raft: &Raft) -> Status {
    let store = raft.store();
    let managers = store.nodes().filter(|node| node.spec.role() == NodeRole::Manager);
    let (mut all, mut down) = (0, Vec::new());
    for manager in managers {
        all += 1;
        if manager.status.state() != NodeState::Ready {
            down.push(manager.spec.name.as_str());
        }
    }
    let known = match down.as_slice() {
        [] => String::new(),
        down => format!("; when it was last known, these were down: {}", down.join(", ")),
    };
    Status::unavailable(format!(
        "no manager leads: of {all} managers {} must reach each other{known}. Bring the others back; \
         if they are lost for good, start this agent with --force-new-cluster. \"ctl --stale\" shows \
         what was known",
        all / 2 + 1
    ))
}

/// What a change that was not made, or is not known to have been, is answered with.
impl From<ProposeError> for Status {
    fn from(error: ProposeError) -> Self {
        let message = error.to_string();
        match error {
            ProposeError::Conflict(Conflict::NameTaken { .. }) => Self::already_exists(message),
            ProposeError::Conflict(Conflict::Stale { .. }) => {
                Self::aborted("others change the same objects all the time; try again")
            }
            ProposeError::Conflict(_) => Self::aborted(message),
            ProposeError::TooLarge { .. } => Self::invalid_argument(message),
            ProposeError::NotLeader { .. } => not_leader(message),
            ProposeError::LeaderChanged | ProposeError::Stopped => Self::unavailable(message),
            ProposeError::Members(_) => Self::failed_precondition(message),
            ProposeError::Storage(_) => Self::resource_exhausted(message),
        }
    }
}

/// Nothing was done, because this manager does not lead.
pub(crate) fn not_leader(message: String) -> Status {
    let mut status = Status::unavailable(message);
    status.metadata_mut().insert(NOT_LEADER, tonic::metadata::MetadataValue::from_static("1"));
    status
}
