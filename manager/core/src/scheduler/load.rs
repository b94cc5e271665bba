//! What the tasks on a node take of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_proto::ServiceId;
use shoal_proto::v1::{GenericReservation, GenericResource, PublishMode, Resources, TaskState};

use super::generic::Held;
use crate::store::{Node, Slot, Store, Task};

/// A node and what is promised of it.
pub(super) struct NodeLoad<'a> {
    pub(super) node: &'a Arc<Node>,
    /// Tasks that are not over.
    pub(super) tasks: usize,
    by_service: BTreeMap<ServiceId, usize>,
    promised: Promised,
    /// The same, for each slot that has a part in it.
    by_slot: BTreeMap<(ServiceId, Slot), Promised>,
    generic: Held,
    host_ports: BTreeMap<(i32, u32), (ServiceId, Slot)>,
}

#[derive(Clone, Copy, Default)]
struct Promised {
    nano_cpus: i64,
    memory_bytes: i64,
}

impl<'a> NodeLoad<'a> {
    pub(super) fn of(store: &Store, node: &'a Arc<Node>) -> Self {
        let mut load = Self {
            node,
            tasks: 0,
            by_service: BTreeMap::new(),
            promised: Promised::default(),
            by_slot: BTreeMap::new(),
            generic: Held::default(),
            host_ports: BTreeMap::new(),
        };
        for task in store.node_tasks(node.id).filter(|task| task.holds_resources()) {
            load.add(task);
        }
        load
    }

    pub(super) fn add(&mut self, task: &Task) {
        self.tasks += 1;
        *self.by_service.entry(task.service).or_default() += 1;
        let slot = (task.service, task.slot);
        if let Some(reserved) = &task.spec.reservations {
            for promised in [&mut self.promised, self.by_slot.entry(slot).or_default()] {
                promised.nano_cpus += reserved.nano_cpus;
                promised.memory_bytes += reserved.memory_bytes;
            }
        }
        self.generic.add(&task.generic_resources, slot);
        self.host_ports.extend(host_ports(task).map(|port| (port, slot)));
    }

    pub(super) fn of_service(&self, service: ServiceId) -> usize {
        self.by_service.get(&service).copied().unwrap_or(0)
    }

    /// CPU and memory that no reservation has taken, or only one that ends before the task starts.
    pub(super) fn available(&self, task: &Task) -> Resources {
        let total = self.node.description.resources.unwrap_or_default();
        let slot = (task.service, task.slot);
        let handed_over = self.by_slot.get(&slot).filter(|_| is_held(task));
        let handed_over = handed_over.copied().unwrap_or_default();
        Resources {
            nano_cpus: total.nano_cpus - self.promised.nano_cpus + handed_over.nano_cpus,
            memory_bytes: total.memory_bytes - self.promised.memory_bytes
                + handed_over.memory_bytes,
            pids: 0,
        }
    }

    /// What the task gets of the node's generic resources for one of its reservations; none when
    /// too little is left.
    pub(super) fn generic_part(
        &self,
        task: &Task,
        wanted: &GenericReservation,
    ) -> Option<GenericResource> {
        let mut kinds = self.node.description.generic_resources.iter();
        let total = kinds.find(|kind| kind.kind == wanted.kind)?;
        let slot = (task.service, task.slot);
        self.generic.pick(total, wanted.count, is_held(task).then_some(slot))
    }

    /// Whether another has a host port that the task needs, beyond the task's start.
    pub(super) fn has_host_port(&self, task: &Task) -> bool {
        let slot = (task.service, task.slot);
        host_ports(task).any(|port| {
            let holder = self.host_ports.get(&port);
            holder.is_some_and(|holder| !(is_held(task) && *holder == slot))
        })
    }
}

/// A held task starts only after the older tasks of its slot have ended: what those have, it gets.
fn is_held(task: &Task) -> bool {
    task.desired < TaskState::Running
}

/// Ports in host mode that have a number; the node picks one for the others when it starts the task.
fn host_ports(task: &Task) -> impl Iterator<Item = (i32, u32)> {
    task.ports
        .iter()
        .filter(|port| port.mode() == PublishMode::Host && port.published_port != 0)
        .map(|port| (port.protocol, port.published_port))
}
