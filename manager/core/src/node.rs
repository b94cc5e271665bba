//! What operators do to nodes: one atomic change each, checked first.

mod presence;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;

use shoal_proto::time::{system_time, timestamp};
use shoal_proto::v1::{NodeAvailability, NodeRole, NodeState, RemovedNode};

use crate::context::Context;
use crate::managers;
use crate::settings::Settings;
use crate::store::{Changes, Node, Object, Store};

pub use presence::{Arrival, arrived, lost, revived, unsteady_until};

/// Why a node can't be changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// It still works for the cluster.
    #[error(
        "node {name} is not down; stop its agent, or remove it with --force: its containers are \
         made anew elsewhere"
    )]
    InUse {
        /// The node.
        name: String,
    },
    /// A manager is not taken out as one.
    #[error(
        "node {name} is a manager; make it a worker first with \"ctl node demote {name}\", or when \
         it is gone for good, remove it with --force"
    )]
    Manager {
        /// The node.
        name: String,
    },
    /// A manager that is there.
    #[error(
        "node {name} is a manager that runs; make it a worker first with \"ctl node demote {name}\", \
         or stop its agent"
    )]
    LiveManager {
        /// The node.
        name: String,
    },
    /// The only manager.
    #[error("node {name} is the only manager; promote another first")]
    LastManager {
        /// The node.
        name: String,
    },
    /// Too few managers would be left that can be reached.
    #[error(
        "without node {name} the managers would lose their quorum: of the {left} left, {reachable} \
         can be reached and {needed} are needed; bring back or promote others first"
    )]
    Quorum {
        /// The node.
        name: String,
        /// Managers without it.
        left: usize,
        /// Those of them that can be reached.
        reachable: usize,
        /// How many must be.
        needed: usize,
    },
    /// More than raft does well with.
    #[error("there are {} managers already, as many as there may be", managers::MOST)]
    TooMany,
    /// It can't take the part.
    #[error("node {name} is down: start its agent before it is promoted")]
    Down {
        /// The node.
        name: String,
    },
    /// A label of another form.
    #[error("{label:?} is not a label; write it as name=value, with a name that is not empty")]
    Label {
        /// As given.
        label: String,
    },
}

/// What an operator wants different of a node; what is not given stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeUpdate {
    /// Whether it takes tasks.
    pub availability: Option<NodeAvailability>,
    /// Whether it is a manager.
    pub role: Option<NodeRole>,
    /// Labels to set.
    pub add_labels: BTreeMap<String, String>,
    /// Labels to take away; fine when they are not there.
    pub remove_labels: Vec<String>,
}

/// States the changes of an update.
///
/// # Errors
/// A label without a name; a role that would leave too few managers or too many.
pub fn update(
    store: &Store,
    node: &Node,
    update: &NodeUpdate,
    context: &mut Context<'_>,
    changes: &mut Changes,
) -> Result<(), NodeError> {
    let mut new = node.clone();
    match update.role.filter(|role| *role != node.spec.role()) {
        None => {}
        Some(NodeRole::Manager) => {
            if node.status.state() != NodeState::Ready {
                return Err(NodeError::Down { name: node.spec.name.clone() });
            }
            check_room(store)?;
            new.spec.set_role(NodeRole::Manager);
            // One that was to be a worker, and is a manager still, stays what it is.
            new.raft_id = node.raft_id.or_else(|| Some(raft_id(context.bits())));
        }
        Some(NodeRole::Worker) => {
            check_without(store, node)?;
            new.spec.set_role(NodeRole::Worker);
            // Two that go at the same time meet here, so that one sees what the other has left.
            if let Some(cluster) = store.cluster() {
                changes.update(context, (**cluster).clone());
            }
        }
    }
    if let Some(availability) = update.availability {
        new.spec.set_availability(availability);
    }
    for (name, value) in &update.add_labels {
        if name.is_empty() {
            return Err(NodeError::Label { label: format!("{name}={value}") });
        }
        new.spec.labels.insert(name.clone(), value.clone());
    }
    for name in &update.remove_labels {
        new.spec.labels.remove(name);
    }
    if new != *node {
        changes.update(context, new);
    }
    Ok(())
}

/// States the changes that take a node out of the cluster. What it ran counts as ended; an agent
/// that comes back is refused.
///
/// # Errors
/// It is a manager or not down, and `force` is not given; or too few managers would be left.
pub fn remove(
    store: &Store,
    node: &Node,
    force: bool,
    context: &Context<'_>,
    changes: &mut Changes,
) -> Result<(), NodeError> {
    let name = node.spec.name.clone();
    if node.spec.role() == NodeRole::Manager {
        check_without(store, node)?;
        if !force {
            return Err(NodeError::Manager { name });
        }
    }
    // The others may need its word to let it go.
    if node.raft_id.is_some() && node.status.state() == NodeState::Ready {
        return Err(NodeError::LiveManager { name });
    }
    if !force && node.status.state() != NodeState::Down {
        return Err(NodeError::InUse { name });
    }
    for task in store.node_tasks(node.id) {
        changes.delete(&Object::Task(task.clone()));
    }
    for container in store.containers().filter(|container| container.node == node.id) {
        changes.delete(&Object::Container(container.clone()));
    }
    changes.delete(&Object::from(node.clone()));
    note_removed(store, node, context, changes);
    Ok(())
}

/// A number for a new manager, of random bits: none has it or ever had it.
#[must_use]
pub fn raft_id(bits: u128) -> NonZeroU64 {
    // 1 is the number of a group's first.
    NonZeroU64::MIN.saturating_add((bits as u64 & (u64::MAX >> 1)).max(1))
}

/// Its certificate may be good for a while yet: nobody is to accept it. Two removals at the same time
/// meet here, so that one sees what the other has left.
fn note_removed(store: &Store, node: &Node, context: &Context<'_>, changes: &mut Changes) {
    let Some(cluster) = store.cluster() else { return };
    let mut new = (**cluster).clone();
    let good = |removed: &RemovedNode| {
        removed.until.as_ref().is_some_and(|until| system_time(until) > context.now)
    };
    new.state.removed.retain(good);
    let until = context.now + Settings::of(store).certificate_validity;
    let until = Some(timestamp(until));
    new.state.removed.push(RemovedNode { id: node.id.to_string(), until });
    changes.update(context, new);
}

/// States the changes that make workers of those that the others have let go.
pub fn let_go(
    store: &Store,
    members: &BTreeSet<u64>,
    context: &Context<'_>,
    changes: &mut Changes,
) {
    for node in store.nodes().filter(|node| node.spec.role() == NodeRole::Worker) {
        if node.raft_id.is_some_and(|id| !members.contains(&id.get())) {
            let mut new = (**node).clone();
            new.raft_id = None;
            changes.update(context, new);
        }
    }
}

/// Whether there may be one manager more.
///
/// # Errors
/// There are as many as there may be.
pub fn check_room(store: &Store) -> Result<(), NodeError> {
    let managers = store.nodes().filter(|node| node.spec.role() == NodeRole::Manager);
    if managers.count() < managers::MOST { Ok(()) } else { Err(NodeError::TooMany) }
}

/// Whether most of the managers that are left without one can be reached.
fn check_without(store: &Store, node: &Node) -> Result<(), NodeError> {
    let name = node.spec.name.clone();
    let others = store.nodes().filter(|other| other.id != node.id);
    let others = others.filter(|other| other.spec.role() == NodeRole::Manager);
    let (mut left, mut reachable) = (0, 0);
    for other in others {
        left += 1;
        reachable += usize::from(other.status.state() == NodeState::Ready);
    }
    let needed = left / 2 + 1;
    match (left, reachable) {
        (0, _) => Err(NodeError::LastManager { name }),
        _ if reachable < needed => Err(NodeError::Quorum { name, left, reachable, needed }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
