//! What operators do to nodes: one atomic change each, checked first.

use std::collections::BTreeMap;

use shoal_proto::v1::{NodeAvailability, NodeRole, NodeState};

use crate::context::Context;
use crate::store::{Changes, Node, Object, Store};

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
    /// Without it there would be no manager, or too few.
    #[error("node {name} is a manager; a cluster can't lose its managers so")]
    Manager {
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
    /// Labels to set.
    pub add_labels: BTreeMap<String, String>,
    /// Labels to take away; fine when they are not there.
    pub remove_labels: Vec<String>,
}

/// States the changes of an update.
///
/// # Errors
/// A label without a name.
pub fn update(
    node: &Node,
    update: &NodeUpdate,
    context: &Context<'_>,
    changes: &mut Changes,
) -> Result<(), NodeError> {
    let mut new = node.clone();
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
/// It is a manager, or it is not down and `force` is not given.
pub fn remove(
    store: &Store,
    node: &Node,
    force: bool,
    changes: &mut Changes,
) -> Result<(), NodeError> {
    let name = node.spec.name.clone();
    if node.spec.role() == NodeRole::Manager {
        return Err(NodeError::Manager { name });
    }
    if !force && node.status.state() != NodeState::Down {
        return Err(NodeError::InUse { name });
    }
    for task in store.node_tasks(node.id) {
        changes.delete(&Object::Task(task.clone()));
    }
    changes.delete(&Object::from(node.clone()));
    Ok(())
}

#[cfg(test)]
mod tests;
