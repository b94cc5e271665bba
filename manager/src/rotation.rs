//! Replaces the cluster's root without an interruption: first all nodes come to trust both roots,
//! then all get certificates of the next one, then it is the only one. Each step waits until every
//! node has taken the one before; a node that is down holds it up until it is back or is removed.

use std::time::Duration;

use shoal_core::store::{Cluster, Object, Store};
use shoal_proto::v1::ClusterState;
use tokio::sync::broadcast::error::RecvError;

use crate::ca::{ClusterCa, ca_digests};
use crate::change;
use crate::raft::{ProposeError, Raft};

/// After a step that could not be committed.
const RETRY: Duration = Duration::from_secs(1);

/// Names of the nodes that have not taken the present step; empty when nothing is being replaced.
pub(crate) fn waiting_for(store: &Store) -> Vec<String> {
    let Some(cluster) = store.cluster() else { return Vec::new() };
    if cluster.state.next_root.is_none() {
        return Vec::new();
    }
    let wanted = ClusterCa::of(&cluster.state).map(|ca| ca_digests(ca.roots_pem()));
    let wanted = wanted.unwrap_or_default();
    let behind = store.nodes().filter(|node| node.description.trusted_roots != wanted);
    behind.map(|node| node.spec.name.clone()).collect()
}

/// The next step, when the present one is done everywhere.
fn next(store: &Store) -> Option<ClusterState> {
    let mut state = store.cluster()?.state.clone();
    if state.next_root.is_none() || !waiting_for(store).is_empty() {
        return None;
    }
    if state.next_root_issues {
        state.root = state.next_root.take();
        state.next_root_issues = false;
    } else {
        state.next_root_issues = true;
    }
    Some(state)
}

/// Takes the steps while this manager leads; ends when it does not any more.
pub(crate) async fn run(raft: &Raft) {
    let mut commits = raft.commits().1;
    loop {
        let step = change::commit(raft, raft.store(), |store, context, changes| {
            let Some((cluster, state)) = store.cluster().zip(next(store)) else { return Ok(None) };
            let done = state.next_root.is_none();
            changes.update(context, Cluster { state, ..(**cluster).clone() });
            Ok(Some(done))
        });
        match step.await {
            Ok((Some(done), _)) => {
                tracing::info!(done, "the root is being replaced");
                continue;
            }
            Ok((None, _)) => {}
            Err(ProposeError::Conflict(_) | ProposeError::Storage(_)) => {
                tokio::time::sleep(RETRY).await;
                continue;
            }
            Err(_) => return,
        }
        loop {
            match commits.recv().await {
                Ok(commit) if !commit.touches(concerns) => {}
                Ok(_) | Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
    }
}

fn concerns(object: &Object) -> bool {
    matches!(object, Object::Node(_) | Object::Cluster(_))
}
