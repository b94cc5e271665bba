//! Tasks on nodes that are down: whether they may be replaced.

use std::time::SystemTime;

use crate::node::fenced_at;
use crate::settings::Settings;
use crate::store::{Store, Task};

/// What a task's node being down means for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// Its node is there, or it has ended.
    No,
    /// It is fenced, and may run until then.
    Until(SystemTime),
    /// It may be replaced.
    Gone,
}

pub(super) fn lost(store: &Store, task: &Task, now: SystemTime) -> Lost {
    if !store.is_lost(task) {
        return Lost::No;
    }
    // However little it has reported, it may have started since.
    if !task.spec.fenced {
        return Lost::Gone;
    }
    let node = task.node.and_then(|node| store.node(node));
    let lease = Settings::of(store).fencing_lease;
    match node.and_then(|node| fenced_at(node, lease)) {
        Some(at) if at > now => Lost::Until(at),
        _ => Lost::Gone,
    }
}

/// Why the task's successor waits.
pub(super) fn words(store: &Store, task: &Task) -> String {
    let node = task.node.and_then(|node| store.node(node));
    let name = node.map_or("its node", |node| node.spec.name.as_str());
    format!(
        "waits until {name}, which is out of reach, has given up {}.{} by itself (fencing); \
         \"ctl node rm --force {name}\" says that it is dead",
        task.service_name, task.slot
    )
}
