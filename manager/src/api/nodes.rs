//! What operators do to nodes, and what they are shown of them.

use shoal_core::lookup;
use shoal_core::node::{self, NodeError, NodeUpdate};
use shoal_core::store::{Node, Store};
use shoal_proto::NodeId;
use shoal_proto::v1::{
    ManagerState, NodeAvailability, NodeRole, NodeState, RemoveNodeRequest, RemoveNodeResponse,
    UpdateNodeRequest, UpdateNodeResponse,
};
use tonic::{Response, Status};

use super::{Api, not_found};
use crate::raft::Raft;

/// The node that leads; none when nobody is known to.
pub(super) fn leader(store: &Store, raft: &Raft) -> Option<NodeId> {
    let leader = raft.status().leader;
    let node = store.nodes().find(|node| node.raft_id.is_some_and(|id| id.get() == leader))?;
    Some(node.id)
}

/// A node with what is not in the store: its part among the managers.
pub(super) fn shown(store: &Store, raft: &Raft, node: &Node) -> shoal_proto::v1::Node {
    let mut shown = shoal_proto::v1::Node::from(node);
    shown.leader = leader(store, raft) == Some(node.id);
    let has_say = node.raft_id.is_some_and(|id| raft.members().voters.contains(&id.get()));
    let state = match node.spec.role() {
        NodeRole::Worker => ManagerState::None,
        NodeRole::Manager if shown.leader => ManagerState::Leader,
        NodeRole::Manager if !has_say => ManagerState::Joining,
        NodeRole::Manager if node.status.state() == NodeState::Ready => ManagerState::Reachable,
        NodeRole::Manager => ManagerState::Unreachable,
    };
    shown.set_manager(state);
    shown
}

/// Where managers are to be found.
pub(super) fn manager_addresses(store: &Store) -> Vec<String> {
    let managers = store.nodes().filter(|node| node.spec.role() == NodeRole::Manager);
    let ready = managers.filter(|node| node.status.state() == NodeState::Ready);
    ready.map(|node| node.status.address.clone()).filter(|address| !address.is_empty()).collect()
}

fn refused(error: NodeError) -> Status {
    let message = error.to_string();
    match error {
        NodeError::Label { .. } => Status::invalid_argument(message),
        NodeError::InUse { .. }
        | NodeError::Manager { .. }
        | NodeError::LiveManager { .. }
        | NodeError::LastManager { .. }
        | NodeError::Quorum { .. }
        | NodeError::TooMany
        | NodeError::Down { .. } => Status::failed_precondition(message),
    }
}

fn known<T: TryFrom<i32>>(what: &str, number: Option<i32>) -> Result<Option<T>, Status> {
    let read = |number| {
        T::try_from(number)
            .map_err(|_| Status::invalid_argument(format!("there is no {what} {number}")))
    };
    number.map(read).transpose()
}

impl Api {
    pub(super) async fn change_node(
        &self,
        request: UpdateNodeRequest,
    ) -> Result<Response<UpdateNodeResponse>, Status> {
        let update = NodeUpdate {
            availability: known::<NodeAvailability>("availability", request.availability)?,
            role: known::<NodeRole>("role", request.role)?,
            add_labels: request.add_labels.into_iter().collect(),
            remove_labels: request.remove_labels,
        };
        let (id, store) = self
            .change(|store, context, changes| {
                let node = lookup::node(store, &request.node).map_err(not_found)?;
                node::update(store, node, &update, context, changes).map_err(refused)?;
                Ok(node.id)
            })
            .await?;
        let node = store.node(id).map(|node| shown(&store, &self.shared.raft, node));
        Ok(Response::new(UpdateNodeResponse { node }))
    }

    pub(super) async fn take_node_out(
        &self,
        request: RemoveNodeRequest,
    ) -> Result<Response<RemoveNodeResponse>, Status> {
        let RemoveNodeRequest { node: name, force } = request;
        let (id, _) = self
            .change(|store, context, changes| {
                let node = lookup::node(store, &name).map_err(not_found)?;
                node::remove(store, node, force, context, changes).map_err(refused)?;
                Ok(node.id)
            })
            .await?;
        Ok(Response::new(RemoveNodeResponse { id: id.to_string() }))
    }
}
