//! Finds objects by what people type: a name, an id, or the beginning of an id that only one has.

use std::sync::Arc;

use crate::store::{Network, Node, Service, Stack, Store, Task};

/// Nothing, or too much, goes by that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// Nothing does.
    #[error("no such {kind}: {name}")]
    Missing {
        /// "service", "stack", "node" or "task".
        kind: &'static str,
        /// As typed.
        name: String,
    },
    /// Several ids begin so.
    #[error("{name} is the beginning of {count} {kind} ids; give more of it")]
    Ambiguous {
        /// "service", "stack", "node" or "task".
        kind: &'static str,
        /// As typed.
        name: String,
        /// How many.
        count: usize,
    },
}

fn one<T>(
    kind: &'static str,
    name: &str,
    candidates: impl Iterator<Item = (String, T)>,
) -> Result<T, LookupError> {
    let mut found: Vec<T> = candidates
        .filter(|(id, _)| !name.is_empty() && id.starts_with(name))
        .map(|(_, object)| object)
        .collect();
    match (found.len(), found.pop()) {
        (1, Some(object)) => Ok(object),
        (0, _) => Err(LookupError::Missing { kind, name: name.to_owned() }),
        (count, _) => Err(LookupError::Ambiguous { kind, name: name.to_owned(), count }),
    }
}

/// A service by full name or id.
///
/// # Errors
/// None or several go by that name.
pub fn service<'a>(store: &'a Store, name: &str) -> Result<&'a Arc<Service>, LookupError> {
    match store.service_by_name(name) {
        Some(service) => Ok(service),
        None => one("service", name, store.services().map(|s| (s.id.to_string(), s))),
    }
}

/// A stack by name or id.
///
/// # Errors
/// None or several go by that name.
pub fn stack<'a>(store: &'a Store, name: &str) -> Result<&'a Arc<Stack>, LookupError> {
    match store.stack_by_name(name) {
        Some(stack) => Ok(stack),
        None => one("stack", name, store.stacks().map(|s| (s.id.to_string(), s))),
    }
}

/// A network by full name or id.
///
/// # Errors
/// None or several go by that name.
pub fn network<'a>(store: &'a Store, name: &str) -> Result<&'a Arc<Network>, LookupError> {
    match store.network_by_name(name) {
        Some(network) => Ok(network),
        None => one("network", name, store.networks().map(|n| (n.id.to_string(), n))),
    }
}

/// A node by name or id.
///
/// # Errors
/// None or several go by that name.
pub fn node<'a>(store: &'a Store, name: &str) -> Result<&'a Arc<Node>, LookupError> {
    match store.nodes().find(|node| node.spec.name == name) {
        Some(node) => Ok(node),
        None => one("node", name, store.nodes().map(|n| (n.id.to_string(), n))),
    }
}

/// A task by id, or by `SERVICE.SLOT`, which means the newest in that slot.
///
/// # Errors
/// None or several go by that name.
pub fn task<'a>(store: &'a Store, name: &str) -> Result<&'a Arc<Task>, LookupError> {
    let in_slot = name.rsplit_once('.').and_then(|(service, slot)| {
        let service = store.service_by_name(service)?;
        let tasks = store.service_tasks(service.id).filter(|task| task.slot.to_string() == slot);
        tasks.max_by_key(|task| (task.meta.created_at.seconds, task.meta.created_at.nanos, task.id))
    });
    match in_slot {
        Some(task) => Ok(task),
        None => one("task", name, store.tasks().map(|t| (t.id.to_string(), t))),
    }
}
