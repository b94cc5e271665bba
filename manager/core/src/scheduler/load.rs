//! What the tasks on a node take of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shoal_proto::time::system_time;
use shoal_proto::v1::{
    GenericReservation, GenericResource, MountType, PublishMode, Resources, TaskSpec, TaskState,
};
use shoal_proto::{NodeId, ServiceId, Timestamp};

use super::generic::{Held, Holder};
use crate::store::{Node, Store, Task};

/// So many failures of a service on a node...
const FAILURES: usize = 3;
/// ...in so short a time, and other nodes are better for it.
const LATELY: Duration = Duration::from_secs(300);

/// All nodes, in the order of their ids.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Loads {
    places: BTreeMap<NodeId, usize>,
    loads: Vec<NodeLoad>,
}

/// A node and what is promised of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NodeLoad {
    pub(super) node: Arc<Node>,
    /// Tasks that are not over.
    pub(super) tasks: usize,
    by_service: BTreeMap<ServiceId, usize>,
    promised: Amounts,
    generic: Held,
    host_ports: BTreeMap<(i32, u32), Vec<Holder>>,
    volumes: BTreeMap<String, usize>,
    /// Tasks that failed here.
    failures: BTreeMap<(ServiceId, u64), Vec<Timestamp>>,
}

/// What can be promised of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amounts {
    pub(super) nano_cpus: i64,
    pub(super) memory_bytes: i64,
    pub(super) pids: i64,
}

impl Amounts {
    pub(super) fn reserved(spec: &TaskSpec) -> Self {
        Self::from(spec.reservations.unwrap_or_default())
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            nano_cpus: self.nano_cpus.saturating_add(other.nano_cpus),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            pids: self.pids.saturating_add(other.pids),
        }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            nano_cpus: self.nano_cpus.saturating_sub(other.nano_cpus),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            pids: self.pids.saturating_sub(other.pids),
        }
    }
}

impl From<Resources> for Amounts {
    fn from(resources: Resources) -> Self {
        Self {
            nano_cpus: resources.nano_cpus,
            memory_bytes: resources.memory_bytes,
            pids: resources.pids,
        }
    }
}

impl Loads {
    pub(super) fn of(store: &Store) -> Self {
        let mut loads = Self::default();
        for (place, node) in store.nodes().enumerate() {
            let mut load = NodeLoad::new(node);
            store.node_tasks(node.id).for_each(|task| load.add(task));
            loads.places.insert(node.id, place);
            loads.loads.push(load);
        }
        loads
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &NodeLoad> {
        self.loads.iter()
    }

    pub(super) fn at(&self, index: usize) -> &NodeLoad {
        &self.loads[index]
    }

    pub(super) fn index_of(&self, node: NodeId) -> Option<usize> {
        self.places.get(&node).copied()
    }

    fn of_task(&mut self, task: &Task) -> Option<&mut NodeLoad> {
        let place = self.index_of(task.node?)?;
        self.loads.get_mut(place)
    }

    pub(super) fn add(&mut self, task: &Task) {
        if let Some(load) = self.of_task(task) {
            load.add(task);
        }
    }

    pub(super) fn remove(&mut self, task: &Task) {
        if let Some(load) = self.of_task(task) {
            load.remove(task);
        }
    }

    pub(super) fn put_node(&mut self, node: &Arc<Node>) {
        if let Some(place) = self.index_of(node.id) {
            self.loads[place].node = Arc::clone(node);
            return;
        }
        let place = self.loads.partition_point(|load| load.node.id < node.id);
        self.loads.insert(place, NodeLoad::new(node));
        self.number();
    }

    pub(super) fn remove_node(&mut self, node: NodeId) {
        self.loads.retain(|load| load.node.id != node);
        self.number();
    }

    /// In an order that does not depend on what came first.
    #[cfg(test)]
    pub(super) fn sorted(&self) -> Self {
        let mut sorted = self.clone();
        for load in &mut sorted.loads {
            load.host_ports.values_mut().for_each(|holders| holders.sort_unstable());
            let times = load.failures.values_mut();
            times.for_each(|times| times.sort_unstable_by_key(|time| (time.seconds, time.nanos)));
        }
        sorted
    }

    fn number(&mut self) {
        let places = self.loads.iter().enumerate().map(|(place, load)| (load.node.id, place));
        self.places = places.collect();
    }
}

fn count_down<K: Ord + Clone>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl NodeLoad {
    fn new(node: &Arc<Node>) -> Self {
        Self {
            node: Arc::clone(node),
            tasks: 0,
            by_service: BTreeMap::new(),
            promised: Amounts::default(),
            generic: Held::default(),
            host_ports: BTreeMap::new(),
            volumes: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    fn add(&mut self, task: &Task) {
        if let Some(at) = failed_at(task) {
            self.failures.entry((task.service, task.spec_version)).or_default().push(at);
        }
        if !task.holds_resources() {
            return;
        }
        self.tasks += 1;
        *self.by_service.entry(task.service).or_default() += 1;
        self.promised = self.promised.plus(Amounts::reserved(&task.spec));
        let holder = (task.service, task.slot);
        self.generic.add(&task.generic_resources, holder);
        for port in host_ports(task) {
            self.host_ports.entry(port).or_default().push(holder);
        }
        for volume in volumes(task) {
            *self.volumes.entry(volume).or_default() += 1;
        }
    }

    /// Undoes [`Self::add`] of the task as it was then.
    fn remove(&mut self, task: &Task) {
        if let Some(at) = failed_at(task) {
            let kind = (task.service, task.spec_version);
            if let Some(times) = self.failures.get_mut(&kind) {
                if let Some(place) = times.iter().position(|time| *time == at) {
                    times.swap_remove(place);
                }
                if times.is_empty() {
                    self.failures.remove(&kind);
                }
            }
        }
        if !task.holds_resources() {
            return;
        }
        self.tasks = self.tasks.saturating_sub(1);
        count_down(&mut self.by_service, &task.service);
        self.promised = self.promised.minus(Amounts::reserved(&task.spec));
        let holder = (task.service, task.slot);
        self.generic.remove(&task.generic_resources, holder);
        for port in host_ports(task) {
            if let Some(holders) = self.host_ports.get_mut(&port) {
                if let Some(place) = holders.iter().position(|one| *one == holder) {
                    holders.swap_remove(place);
                }
                if holders.is_empty() {
                    self.host_ports.remove(&port);
                }
            }
        }
        for volume in volumes(task) {
            count_down(&mut self.volumes, &volume);
        }
    }

    pub(super) fn of_service(&self, service: ServiceId) -> usize {
        self.by_service.get(&service).copied().unwrap_or(0)
    }

    /// What no reservation has taken. Of pids there are as many as one likes where the host has no
    /// bound.
    pub(super) fn available(&self) -> Amounts {
        let total = Amounts::from(self.node.description.resources.unwrap_or_default());
        let mut left = total.minus(self.promised);
        if total.pids == 0 {
            left.pids = i64::MAX;
        }
        left
    }

    /// How full it is, in thousandths of what is short most.
    pub(super) fn fullness(&self) -> u64 {
        let total = Amounts::from(self.node.description.resources.unwrap_or_default());
        let part = |used: i64, total: i64| match (u64::try_from(used), u64::try_from(total)) {
            (Ok(used), Ok(total)) if total > 0 => used.saturating_mul(1000) / total,
            _ => 0,
        };
        let cpu = part(self.promised.nano_cpus, total.nano_cpus);
        cpu.max(part(self.promised.memory_bytes, total.memory_bytes))
    }

    /// What a task gets of the node's generic resources for one of its reservations; none when too
    /// little is left. What `handed_over` holds counts as free.
    pub(super) fn generic_part(
        &self,
        wanted: &GenericReservation,
        handed_over: Option<Holder>,
    ) -> Option<GenericResource> {
        let mut kinds = self.node.description.generic_resources.iter();
        let total = kinds.find(|kind| kind.kind == wanted.kind)?;
        self.generic.pick(total, wanted.count, handed_over)
    }

    /// How many of a kind of generic resources nobody holds.
    pub(super) fn generic_free(&self, kind: &str) -> i64 {
        let mut kinds = self.node.description.generic_resources.iter();
        let total = kinds.find(|total| total.kind == kind);
        total.map_or(0, |total| self.generic.free(total))
    }

    /// Whether another has a host port that the task needs.
    pub(super) fn has_host_port(&self, task: &Task, handed_over: Option<Holder>) -> bool {
        host_ports(task).any(|port| {
            let holders = self.host_ports.get(&port).map(Vec::as_slice).unwrap_or_default();
            holders.iter().any(|holder| Some(*holder) != handed_over)
        })
    }

    /// Whether the volume's files are here, or will be.
    pub(super) fn has_volume(&self, name: &str) -> bool {
        self.volumes.contains_key(name)
            || self.node.description.volumes.iter().any(|volume| volume == name)
    }

    /// Whether tasks of a kind keep failing here.
    pub(super) fn fails(&self, kind: (ServiceId, u64), now: SystemTime) -> bool {
        let times = self.failures.get(&kind).map(Vec::as_slice).unwrap_or_default();
        let lately = times
            .iter()
            .filter(|time| now.duration_since(system_time(time)).unwrap_or_default() < LATELY);
        lately.count() >= FAILURES
    }
}

fn failed_at(task: &Task) -> Option<Timestamp> {
    let has_failed = matches!(task.state(), TaskState::Failed | TaskState::Rejected);
    has_failed.then_some(task.status.since).flatten()
}

/// Ports in host mode that have a number; the node picks one for the others when it starts the task.
fn host_ports(task: &Task) -> impl Iterator<Item = (i32, u32)> {
    task.ports
        .iter()
        .filter(|port| port.mode() == PublishMode::Host && port.published_port != 0)
        .map(|port| (port.protocol, port.published_port))
}

/// The task's named volumes whose files matter, with what placeholders in their names stand for; one
/// that hangs on its node has no place of its own.
pub(super) fn volumes(task: &Task) -> Vec<String> {
    let slot = task.slot.to_string();
    let fill_in = |name: &str| {
        let mut name = name.to_owned();
        for (field, value) in [(".Task.Slot", &*slot), (".Service.Name", &*task.service_name)] {
            for placeholder in [format!("{{{{{field}}}}}"), format!("{{{{ {field} }}}}")] {
                name = name.replace(&placeholder, value);
            }
        }
        (!name.contains("{{")).then_some(name)
    };
    sources(&task.spec).filter_map(fill_in).collect()
}

/// Whether the volumes are others for each task.
pub(super) fn has_own_volumes(spec: &TaskSpec) -> bool {
    sources(spec).any(|name| name.contains("{{"))
}

fn sources(spec: &TaskSpec) -> impl Iterator<Item = &str> {
    let mounts = spec.container.iter().flat_map(|container| &container.mounts);
    let named = mounts.filter(|mount| {
        mount.r#type() == MountType::Volume && !mount.source.is_empty() && !mount.movable
    });
    named.map(|mount| mount.source.as_str())
}
