//! What a node is to know: its tasks, their networks, and the services they can reach.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_proto::v1::assignment_change::Change;
use shoal_proto::v1::{
    AssignmentChange, Endpoint, EndpointMode, Peer, PublishMode, ServiceEndpoints, TaskState,
};
use shoal_proto::{NetworkId, NodeId, TaskId};

use crate::store::{Attachment, Container, Event, Network, Object, Payload, Service, Store, Task};

/// One node's part of the cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Assignments {
    tasks: BTreeMap<String, Arc<Task>>,
    networks: BTreeMap<String, Arc<Network>>,
    endpoints: BTreeMap<String, ServiceEndpoints>,
    /// Secrets and configs of tasks that are not over.
    payloads: BTreeMap<String, Arc<Payload>>,
    /// Single containers on networks that are here.
    containers: BTreeMap<String, Arc<Container>>,
    /// Where the other nodes are, when there is a network here.
    peers: BTreeMap<String, String>,
}

impl Assignments {
    /// What the node is to know as of that store.
    #[must_use]
    pub fn of(store: &Store, node: NodeId) -> Self {
        let tasks: BTreeMap<String, Arc<Task>> =
            store.node_tasks(node).map(|task| (task.id.to_string(), Arc::clone(task))).collect();
        let live = tasks.values().filter(|task| task.holds_resources());
        let own = store.containers().filter(|container| container.node == node);
        let held = live.flat_map(|task| &task.networks);
        let held = held.chain(own.flat_map(|container| &container.networks));
        let here: BTreeSet<NetworkId> = held.map(|held| held.network).collect();
        let mut endpoints = BTreeMap::new();
        // Networks of published services are needed too: the node forwards into them.
        let mut networks = here.clone();
        for service in store.services() {
            let published = service.ports.iter().any(|port| port.mode() == PublishMode::Ingress);
            let attached = networks_of(service);
            if published {
                networks.extend(&attached);
            }
            if published || attached.iter().any(|network| here.contains(network)) {
                endpoints.insert(service.id.to_string(), service_endpoints(store, service));
            }
        }
        let others = store.nodes().filter(|other| other.id != node);
        let others = others.filter(|other| !other.status.address.is_empty());
        let peers = match networks.is_empty() {
            true => BTreeMap::new(),
            false => {
                others.map(|other| (other.id.to_string(), other.status.address.clone())).collect()
            }
        };
        let reachable = |held: &Attachment| networks.contains(&held.network);
        let containers = store.containers().filter(|one| one.networks.iter().any(reachable));
        let containers = containers.map(|one| (one.id.to_string(), Arc::clone(one))).collect();
        let networks = networks
            .into_iter()
            .filter_map(|id| store.network(id))
            .map(|network| (network.id.to_string(), Arc::clone(network)))
            .collect();
        let live = tasks.values().filter(|task| task.holds_resources());
        let used = live.flat_map(|task| &task.spec.container).flat_map(|one| &one.payloads);
        let payloads = used
            .filter_map(|used| store.payload(used.payload_id.parse().ok()?))
            .map(|payload| (payload.id.to_string(), Arc::clone(payload)))
            .collect();
        Self { tasks, networks, endpoints, payloads, containers, peers }
    }

    /// Tasks that take connections as `old` has them, and are to stop here: other nodes must hear of
    /// it first.
    #[must_use]
    pub fn leaving(&self, old: &Self) -> BTreeSet<TaskId> {
        let leaves = |(id, task): &(&String, &Arc<Task>)| {
            let before = old.tasks.get(*id);
            before.is_some_and(|before| is_endpoint(before) && !before.networks.is_empty())
                && task.desired > TaskState::Running
                && !task.state().is_terminal()
        };
        self.tasks.iter().filter(leaves).map(|(_, task)| task.id).collect()
    }

    /// Leaves those tasks as `old` has them.
    pub fn hold_back(&mut self, old: &Self, tasks: &[TaskId]) {
        for id in tasks.iter().map(ToString::to_string) {
            if let Some(task) = old.tasks.get(&id) {
                self.tasks.insert(id, Arc::clone(task));
            }
        }
    }

    /// Everything, as a node that knows nothing is told it.
    #[must_use]
    pub fn all(&self) -> Vec<AssignmentChange> {
        self.since(&Self::default())
    }

    /// What to tell a node that knows `old`. Networks and endpoints come before the tasks that
    /// need them, and go after them.
    #[must_use]
    pub fn since(&self, old: &Self) -> Vec<AssignmentChange> {
        let mut changes = Vec::new();
        let changed = |change| AssignmentChange { change: Some(change) };
        for (id, address) in &self.peers {
            if old.peers.get(id) != Some(address) {
                let (node_id, address) = (id.clone(), address.clone());
                changes.push(changed(Change::Peer(Peer { node_id, address })));
            }
        }
        for (id, network) in &self.networks {
            if old.networks.get(id) != Some(network) {
                changes.push(changed(Change::Network((&**network).into())));
            }
        }
        for (id, endpoints) in &self.endpoints {
            if old.endpoints.get(id) != Some(endpoints) {
                changes.push(changed(Change::Endpoints(endpoints.clone())));
            }
        }
        for (id, container) in &self.containers {
            if old.containers.get(id) != Some(container) {
                changes.push(changed(Change::Container((&**container).into())));
            }
        }
        for (id, payload) in &self.payloads {
            if !old.payloads.contains_key(id) {
                changes.push(changed(Change::Payload((&**payload).into())));
            }
        }
        for (id, task) in &self.tasks {
            // A node needs no echo of its own reports.
            let known = old.tasks.get(id).is_some_and(|old| {
                old.meta.version == task.meta.version && old.desired == task.desired
            });
            if !known {
                changes.push(changed(Change::Task((&**task).into())));
            }
        }
        for id in old.tasks.keys().filter(|id| !self.tasks.contains_key(*id)) {
            changes.push(changed(Change::RemoveTask(id.clone())));
        }
        for id in old.containers.keys().filter(|id| !self.containers.contains_key(*id)) {
            changes.push(changed(Change::RemoveContainer(id.clone())));
        }
        for id in old.payloads.keys().filter(|id| !self.payloads.contains_key(*id)) {
            changes.push(changed(Change::RemovePayload(id.clone())));
        }
        for id in old.endpoints.keys().filter(|id| !self.endpoints.contains_key(*id)) {
            changes.push(changed(Change::RemoveEndpoints(id.clone())));
        }
        for id in old.networks.keys().filter(|id| !self.networks.contains_key(*id)) {
            changes.push(changed(Change::RemoveNetwork(id.clone())));
        }
        for id in old.peers.keys().filter(|id| !self.peers.contains_key(*id)) {
            changes.push(changed(Change::RemovePeer(id.clone())));
        }
        changes
    }
}

/// Whether the event can change what the node is to know.
#[must_use]
pub fn concerns(event: &Event, node: NodeId) -> bool {
    match event {
        Event::Put { new: Object::Task(new), old } => {
            let old = match old {
                Some(Object::Task(old)) => Some(old),
                _ => None,
            };
            let was = old.is_some_and(|old| is_endpoint(old));
            (new.node == Some(node) && old.is_none_or(|old| old.meta.version != new.meta.version))
                || was != is_endpoint(new)
                // Others route to it.
                || old.is_none_or(|old| old.node != new.node)
                || old.is_some_and(|old| old.state().is_terminal() != new.state().is_terminal())
        }
        Event::Deleted(Object::Task(old)) => {
            old.node == Some(node) || (old.node.is_some() && old.holds_resources())
        }
        Event::Put { old, new: Object::Node(new) } => {
            let old = match old {
                Some(Object::Node(old)) => Some(old),
                _ => None,
            };
            old.is_none_or(|old| old.status.address != new.status.address)
        }
        Event::Deleted(Object::Node(_)) => true,
        Event::Put { new: Object::Stack(_) | Object::Cluster(_) | Object::Payload(_), .. }
        | Event::Deleted(Object::Stack(_) | Object::Cluster(_) | Object::Payload(_)) => false,
        Event::Put { .. } | Event::Deleted(_) => true,
    }
}

fn networks_of(service: &Service) -> BTreeSet<NetworkId> {
    let spec = service.spec.task.as_ref();
    let attached = spec.into_iter().flat_map(|spec| &spec.networks);
    attached.filter_map(|attached| attached.network_id.parse().ok()).collect()
}

/// Takes connections: it runs, and nobody has asked it to stop.
fn is_endpoint(task: &Task) -> bool {
    task.state() == TaskState::Running && task.desired <= TaskState::Running
}

fn service_endpoints(store: &Store, service: &Service) -> ServiceEndpoints {
    let (mut endpoints, mut others) = (Vec::new(), Vec::new());
    let placed = |task: &&Arc<Task>| task.node.is_some() && task.holds_resources();
    for task in store.service_tasks(service.id).filter(placed) {
        let place = Endpoint {
            task_id: task.id.to_string(),
            node_id: task.node.map(|node| node.to_string()).unwrap_or_default(),
            slot: task.slot.0,
            networks: task.networks.iter().map(Into::into).collect(),
        };
        match is_endpoint(task) {
            true => endpoints.push(place),
            false => others.push(place),
        }
    }
    for places in [&mut endpoints, &mut others] {
        places.sort_by(|a, b| (a.slot, &a.task_id).cmp(&(b.slot, &b.task_id)));
    }
    let mode: EndpointMode = service.spec.endpoint_mode();
    ServiceEndpoints {
        service_id: service.id.to_string(),
        name: service.spec.name.clone(),
        short_name: service.short_name.to_string(),
        vips: service.vips.iter().map(Into::into).collect(),
        ports: service.ports.clone(),
        endpoints,
        others,
        networks: service.spec.task.as_ref().map(|spec| spec.networks.clone()).unwrap_or_default(),
        endpoint_mode: mode.into(),
        sticky: service.spec.sticky,
    }
}

#[cfg(test)]
mod tests;
