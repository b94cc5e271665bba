//! What the cluster makes of a node, as its agent is told.

use shoal_core::settings::Settings;
use shoal_core::store::{Node, Object, Store};
use shoal_proto::NodeId;
use shoal_proto::time::proto_duration;
use shoal_proto::v1::{NodeRole, Standing};

use crate::ca::{ClusterCa, ca_digests};
use crate::raft::Commit;

/// None when the cluster does not have the node any more.
pub(super) fn of(store: &Store, node: NodeId) -> Option<Standing> {
    let node = store.node(node)?;
    let managers = store.nodes().filter(|node| is_manager(node));
    let mut managers: Vec<String> = managers
        .map(|node| node.status.address.clone())
        .filter(|address| !address.is_empty())
        .collect();
    managers.sort();
    let ca = store.cluster().and_then(|cluster| ClusterCa::of(&cluster.state).ok());
    Some(Standing {
        role: node.present_role().into(),
        raft_id: node.raft_id.map_or(0, |id| id.get()),
        managers,
        trusted_roots: ca.map(|ca| ca_digests(ca.roots_pem())).unwrap_or_default(),
        lease: Some(proto_duration(Settings::of(store).fencing_lease)),
    })
}

/// Whether a commit may have changed the standing of that node.
pub(super) fn may_differ(commit: &Commit, node: NodeId) -> bool {
    commit.touches(|object| match object {
        Object::Node(other) => other.id == node || is_manager(other),
        Object::Cluster(_) => true,
        _ => false,
    })
}

fn is_manager(node: &Node) -> bool {
    node.spec.role() == NodeRole::Manager
}
