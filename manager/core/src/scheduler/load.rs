//! What the tasks on a node take of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_proto::ServiceId;
use shoal_proto::v1::{PublishMode, Resources};

use crate::store::{Node, Store, Task};

/// A node and what is promised of it.
pub(super) struct NodeLoad<'a> {
    pub(super) node: &'a Arc<Node>,
    /// Tasks that are not over.
    pub(super) tasks: usize,
    by_service: BTreeMap<ServiceId, usize>,
    nano_cpus: i64,
    memory_bytes: i64,
    host_ports: BTreeSet<(i32, u32)>,
}

impl<'a> NodeLoad<'a> {
    pub(super) fn of(store: &Store, node: &'a Arc<Node>) -> Self {
        let mut load = Self {
            node,
            tasks: 0,
            by_service: BTreeMap::new(),
            nano_cpus: 0,
            memory_bytes: 0,
            host_ports: BTreeSet::new(),
        };
        for task in store.node_tasks(node.id).filter(|task| task.holds_resources()) {
            load.add(task);
        }
        load
    }

    pub(super) fn add(&mut self, task: &Task) {
        self.tasks += 1;
        *self.by_service.entry(task.service).or_default() += 1;
        if let Some(reserved) = &task.spec.reservations {
            self.nano_cpus += reserved.nano_cpus;
            self.memory_bytes += reserved.memory_bytes;
        }
        self.host_ports.extend(host_ports(task));
    }

    pub(super) fn of_service(&self, service: ServiceId) -> usize {
        self.by_service.get(&service).copied().unwrap_or(0)
    }

    /// CPU and memory that no reservation has taken.
    pub(super) fn available(&self) -> Resources {
        let total = self.node.description.resources.unwrap_or_default();
        Resources {
            nano_cpus: total.nano_cpus - self.nano_cpus,
            memory_bytes: total.memory_bytes - self.memory_bytes,
            pids: 0,
        }
    }

    pub(super) fn has_host_port(&self, task: &Task) -> bool {
        host_ports(task).any(|port| self.host_ports.contains(&port))
    }
}

fn host_ports(task: &Task) -> impl Iterator<Item = (i32, u32)> {
    task.ports
        .iter()
        .filter(|port| port.mode() == PublishMode::Host)
        .map(|port| (port.protocol, port.published_port))
}
