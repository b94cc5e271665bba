//! Services with a task on each node: every node that fits has a slot of its own.

use std::collections::{BTreeMap, BTreeSet};

use shoal_proto::NodeId;
use shoal_proto::v1::{NodeAvailability, NodeState, TaskState};

use super::slots::{Slots, Wanted};
use crate::placement::Rules;
use crate::store::{Node, Service, Slot, Store};

/// One slot a node; a node keeps its slot's number. A node that is down keeps its slot as it is:
/// its tasks may run on.
pub(super) fn wanted(store: &Store, service: &Service, slots: &Slots<'_>) -> Wanted {
    let rules = Rules::of(&service.task_spec());
    let mut own: BTreeMap<NodeId, Slot> = BTreeMap::new();
    let mut taken: BTreeSet<Slot> = BTreeSet::new();
    for (slot, tasks) in slots {
        taken.insert(*slot);
        let wanted = tasks.iter().rfind(|task| task.desired < TaskState::Remove);
        if let Some(node) = wanted.and_then(|task| task.only_node) {
            own.entry(node).or_insert(*slot);
        }
    }
    let mut wanted = Wanted::default();
    let mut next = 1;
    for node in store.nodes() {
        let slot = own.get(&node.id).copied();
        if node.status.state() == NodeState::Down {
            wanted.asleep.extend(slot);
            continue;
        }
        if !fits(node, &rules, slot.is_some()) {
            continue;
        }
        // It gets no other task: it can neither be updated nor run again.
        if node.spec.availability() == NodeAvailability::Pause {
            wanted.asleep.extend(slot);
            continue;
        }
        let slot = slot.unwrap_or_else(|| {
            while !taken.insert(Slot(next)) {
                next += 1;
            }
            Slot(next)
        });
        wanted.slots.insert(slot, Some(node.id));
    }
    wanted
}

fn fits(node: &Node, rules: &Rules, has_task: bool) -> bool {
    let takes = match node.spec.availability() {
        NodeAvailability::Active => true,
        NodeAvailability::Pause => has_task,
        NodeAvailability::Drain => false,
    };
    takes && rules.broken(node).is_none()
}

/// Nodes that are to have a task of the service: of those that can be reached.
pub(super) fn count(store: &Store, service: &Service) -> u64 {
    let rules = Rules::of(&service.task_spec());
    let paused: BTreeSet<NodeId> = store
        .service_tasks(service.id)
        .filter(|task| task.is_live())
        .filter_map(|task| task.only_node)
        .collect();
    let nodes = store.nodes().filter(|node| node.status.state() == NodeState::Ready);
    nodes.filter(|node| fits(node, &rules, paused.contains(&node.id))).count() as u64
}

/// Why a task's slot is not wanted any more.
pub(super) fn words(store: &Store, node: Option<NodeId>) -> String {
    let node = node.and_then(|node| store.node(node));
    let is_drained = node.is_some_and(|node| node.spec.availability() == NodeAvailability::Drain);
    match is_drained {
        true => "its node is drained".to_owned(),
        false => "its node does not meet the constraints any more".to_owned(),
    }
}
