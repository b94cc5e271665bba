//! What the first leader of a cluster writes first: the cluster itself, and its own node.

use std::num::NonZeroU64;

use shoal_core::context::Context;
use shoal_core::store::{Changes, Cluster, Meta, Node, Store};
use shoal_proto::NodeId;
use shoal_proto::v1::{ClusterState, NodeRole, NodeSpec, NodeState, NodeStatus};

use crate::ca::ClusterCa;
use crate::change;
use crate::raft::{ProposeError, Raft};

/// The first node of a cluster.
#[derive(Debug, Clone)]
pub struct Founder {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where others find it.
    pub address: String,
    /// Its number in the raft group.
    pub raft_id: NonZeroU64,
}

/// What a manager writes first when it leads a group that it has begun alone.
pub struct Founding {
    /// Its node.
    pub founder: Founder,
    /// The root of a new cluster; none when the store has one.
    pub ca: Option<ClusterCa>,
    /// Others that were managers are so no more: this one has begun anew without them.
    pub alone: bool,
}

impl Founding {
    /// Writes what lacks, and returns when it is there.
    pub(crate) async fn carry_out(&self, raft: &Raft) -> Result<(), ProposeError> {
        let write = change::commit(raft, raft.store(), |store, context, changes| {
            self.write_missing(store, context, changes);
            Ok(())
        });
        write.await.map(drop)
    }

    fn write_missing(&self, store: &Store, context: &mut Context<'_>, changes: &mut Changes) {
        if store.cluster().is_none()
            && let Some(ca) = &self.ca
        {
            let state = ClusterState {
                id: ca.cluster().to_owned(),
                worker_secret: secret(context.bits()),
                manager_secret: secret(context.bits()),
                root: Some(ca.root().clone()),
                ..ClusterState::default()
            };
            changes.create(context, Cluster { meta: Meta::default(), state });
        }
        let Founder { node, name, address, raft_id } = &self.founder;
        match store.node(*node) {
            None => {
                let taken = store.nodes().any(|node| node.spec.name == *name);
                let name = if taken { format!("{name}-{node}") } else { name.clone() };
                let mut spec = NodeSpec { name, ..NodeSpec::default() };
                spec.set_role(NodeRole::Manager);
                changes.create(context, joined(*node, spec, Some(*raft_id), address));
            }
            Some(old) if old.raft_id != Some(*raft_id) || old.spec.role() != NodeRole::Manager => {
                let mut new = (**old).clone();
                new.spec.set_role(NodeRole::Manager);
                new.raft_id = Some(*raft_id);
                changes.update(context, new);
            }
            Some(_) => {}
        }
        let others = store.nodes().filter(|other| other.id != *node && self.alone);
        for other in others.filter(|other| other.spec.role() == NodeRole::Manager) {
            let mut new = (**other).clone();
            new.spec.set_role(NodeRole::Worker);
            new.raft_id = None;
            changes.update(context, new);
        }
    }
}

/// A node that has not been heard of yet.
pub(crate) fn joined(
    id: NodeId,
    spec: NodeSpec,
    raft_id: Option<NonZeroU64>,
    address: &str,
) -> Node {
    Node {
        id,
        meta: Meta::default(),
        spec,
        description: Default::default(),
        status: NodeStatus {
            state: NodeState::Down.into(),
            message: "it has joined and not been heard of since".to_owned(),
            address: address.to_owned(),
            ..NodeStatus::default()
        },
        raft_id,
    }
}

/// The secret part of a token, in the form of ids: letters and digits.
pub(crate) fn secret(bits: u128) -> String {
    NodeId::from_bits(bits).to_string()
}
