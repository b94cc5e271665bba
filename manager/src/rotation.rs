//! Replaces the cluster's root without an interruption: first all nodes come to trust both roots,
//! then all get certificates of the next one, then it is the only one. Each step waits until every
//! node has taken the one before; a node that is down holds it up until it is back or is removed.

use std::time::{Duration, SystemTime};

use shoal_core::context::Context;
use shoal_core::store::{Changes, Event, Object, Store};
use shoal_proto::v1::ClusterState;
use tokio::sync::broadcast::error::RecvError;

use crate::ca::{ClusterCa, ca_digests};
use crate::raft::{Commit, ProposeError, Raft};
use crate::random;

/// After a change that the disk did not take.
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
        let store = raft.store();
        if let Some((cluster, state)) = store.cluster().zip(next(&store)) {
            tracing::info!(done = state.next_root.is_none(), "the root is being replaced");
            let mut new = (**cluster).clone();
            new.state = state;
            let mut random = random::bits;
            let context = Context { now: SystemTime::now(), random: &mut random };
            let mut changes = Changes::default();
            changes.update(&context, new);
            match raft.propose(changes.into_vec()).await {
                Ok(_) | Err(ProposeError::Conflict(_)) => continue,
                Err(ProposeError::Storage(_)) => {
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
                Err(_) => return,
            }
        }
        loop {
            match commits.recv().await {
                Ok(commit) if !concerns(&commit) => {}
                Ok(_) | Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
    }
}

fn concerns(commit: &Commit) -> bool {
    commit.whole
        || commit.events.iter().any(|event| {
            let (Event::Put { new: object, .. } | Event::Deleted(object)) = event;
            matches!(object, Object::Node(_) | Object::Cluster(_))
        })
}
