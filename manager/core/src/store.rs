//! The state of the cluster in memory: typed tables with their indexes.
//!
//! The store is what the committed entries of the raft log make, one after the other, the same on
//! every manager: [`Store::apply`] is a function of the store and the entry alone. It is a
//! persistent structure: a clone costs a few pointers and stays as it was, so that readers and
//! control loops work on a view of their own. What must always hold (versions, unique names, no
//! address given twice, no task state going down) is checked here and nowhere else.

mod change;
mod convert;
mod index;
mod object;

use std::net::IpAddr;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use shoal_proto::v1::{NodeAvailability, NodeState, PayloadKind, StoreSnapshot, TaskStatus};
use shoal_proto::{ContainerId, NetworkId, NodeId, PayloadId, ServiceId, StackId, TaskId};

pub use change::{Change, Changes, Conflict, Event, Stamped};
pub use convert::ConvertError;
pub use object::{
    Attachment, Cluster, Container, Key, Meta, Network, Node, Object, Payload, Service,
    ServiceMode, Slot, Stack, Task, Vip,
};

use index::Indexes;

/// The objects of the cluster as of one raft index.
#[derive(Debug, Clone, Default)]
pub struct Store {
    version: u64,
    nodes: OrdMap<NodeId, Arc<Node>>,
    services: OrdMap<ServiceId, Arc<Service>>,
    tasks: OrdMap<TaskId, Arc<Task>>,
    networks: OrdMap<NetworkId, Arc<Network>>,
    stacks: OrdMap<StackId, Arc<Stack>>,
    cluster: Option<Arc<Cluster>>,
    payloads: OrdMap<PayloadId, Arc<Payload>>,
    containers: OrdMap<ContainerId, Arc<Container>>,
    indexes: Indexes,
}

impl Store {
    /// Raft index of the last entry applied.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The node of that id.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// All nodes by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// The service of that id.
    #[must_use]
    pub fn service(&self, id: ServiceId) -> Option<&Arc<Service>> {
        self.services.get(&id)
    }

    /// The service of that full name.
    #[must_use]
    pub fn service_by_name(&self, name: &str) -> Option<&Arc<Service>> {
        self.indexes.service_names.get(name).and_then(|id| self.services.get(id))
    }

    /// All services by id.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// The services of a stack.
    pub fn stack_services(&self, stack: StackId) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values().filter(move |service| service.stack == Some(stack))
    }

    /// The task of that id.
    #[must_use]
    pub fn task(&self, id: TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(&id)
    }

    /// All tasks by id.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values()
    }

    /// The tasks of a service by id, history included.
    pub fn service_tasks(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.resolve(self.indexes.tasks_by_service.get(&service))
    }

    /// The tasks that a node was given, by id, history included.
    pub fn node_tasks(&self, node: NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.resolve(self.indexes.tasks_by_node.get(&node))
    }

    /// Tasks without addresses yet.
    pub fn new_tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.resolve(Some(&self.indexes.new_tasks))
    }

    /// Wanted tasks with addresses and without a node.
    pub fn pending_tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.resolve(Some(&self.indexes.pending_tasks))
    }

    fn resolve<'a>(
        &'a self,
        ids: Option<&'a OrdSet<TaskId>>,
    ) -> impl Iterator<Item = &'a Arc<Task>> {
        ids.into_iter().flatten().filter_map(|id| self.tasks.get(id))
    }

    /// The network of that id.
    #[must_use]
    pub fn network(&self, id: NetworkId) -> Option<&Arc<Network>> {
        self.networks.get(&id)
    }

    /// The network of that full name.
    #[must_use]
    pub fn network_by_name(&self, name: &str) -> Option<&Arc<Network>> {
        self.indexes.network_names.get(name).and_then(|id| self.networks.get(id))
    }

    /// All networks by id.
    pub fn networks(&self) -> impl Iterator<Item = &Arc<Network>> {
        self.networks.values()
    }

    /// Whether the task is on a node that is down: it may run or not, and nobody can tell.
    #[must_use]
    pub fn is_lost(&self, task: &Task) -> bool {
        let node = task.node.and_then(|node| self.nodes.get(&node));
        !task.state().is_terminal()
            && node.is_some_and(|node| node.status.state() == NodeState::Down)
    }

    /// Whether the task is on a node that is to be emptied.
    #[must_use]
    pub fn is_leaving(&self, task: &Task) -> bool {
        let node = task.node.and_then(|node| self.nodes.get(&node));
        node.is_some_and(|node| node.spec.availability() == NodeAvailability::Drain)
    }

    /// What is said of the cluster as a whole; none before its first manager has said it.
    #[must_use]
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }

    /// The stack of that id.
    #[must_use]
    pub fn stack(&self, id: StackId) -> Option<&Arc<Stack>> {
        self.stacks.get(&id)
    }

    /// The stack of that name.
    #[must_use]
    pub fn stack_by_name(&self, name: &str) -> Option<&Arc<Stack>> {
        self.indexes.stack_names.get(name).and_then(|id| self.stacks.get(id))
    }

    /// All stacks by id.
    pub fn stacks(&self) -> impl Iterator<Item = &Arc<Stack>> {
        self.stacks.values()
    }

    /// That version of a secret or config.
    #[must_use]
    pub fn payload(&self, id: PayloadId) -> Option<&Arc<Payload>> {
        self.payloads.get(&id)
    }

    /// All versions of a secret or config, the oldest first.
    pub fn payload_versions(
        &self,
        kind: PayloadKind,
        name: &str,
    ) -> impl DoubleEndedIterator<Item = &Arc<Payload>> {
        let versions = self.indexes.payload_names.get(&(kind.into(), name.to_owned()));
        let ids = versions.into_iter().flat_map(|versions| versions.values());
        ids.filter_map(|id| self.payloads.get(id))
    }

    /// The newest version of a secret or config.
    #[must_use]
    pub fn newest_payload(&self, kind: PayloadKind, name: &str) -> Option<&Arc<Payload>> {
        self.payload_versions(kind, name).next_back()
    }

    /// All versions of all secrets and configs, by id.
    pub fn payloads(&self) -> impl Iterator<Item = &Arc<Payload>> {
        self.payloads.values()
    }

    /// The single container of that id.
    #[must_use]
    pub fn container(&self, id: ContainerId) -> Option<&Arc<Container>> {
        self.containers.get(&id)
    }

    /// All single containers that are on networks of the cluster, by id.
    pub fn containers(&self) -> impl Iterator<Item = &Arc<Container>> {
        self.containers.values()
    }

    /// Who holds an address: a task that is not over, a single container, or a service by its VIP.
    #[must_use]
    pub fn address_holder(&self, network: NetworkId, address: IpAddr) -> Option<Key> {
        self.indexes.addresses.get(&(network, address)).copied()
    }

    /// The object of that key.
    #[must_use]
    pub fn object(&self, key: Key) -> Option<Object> {
        match key {
            Key::Node(id) => self.nodes.get(&id).cloned().map(Object::Node),
            Key::Service(id) => self.services.get(&id).cloned().map(Object::Service),
            Key::Task(id) => self.tasks.get(&id).cloned().map(Object::Task),
            Key::Network(id) => self.networks.get(&id).cloned().map(Object::Network),
            Key::Stack(id) => self.stacks.get(&id).cloned().map(Object::Stack),
            Key::Cluster => self.cluster.clone().map(Object::Cluster),
            Key::Payload(id) => self.payloads.get(&id).cloned().map(Object::Payload),
            Key::Container(id) => self.containers.get(&id).cloned().map(Object::Container),
        }
    }

    /// All objects: networks and payloads before services before tasks, so that each finds what it
    /// points at.
    pub fn objects(&self) -> impl Iterator<Item = Object> + '_ {
        let nodes = self.nodes.values().cloned().map(Object::Node);
        let stacks = self.stacks.values().cloned().map(Object::Stack);
        let networks = self.networks.values().cloned().map(Object::Network);
        let services = self.services.values().cloned().map(Object::Service);
        let tasks = self.tasks.values().cloned().map(Object::Task);
        let cluster = self.cluster.iter().cloned().map(Object::Cluster);
        let payloads = self.payloads.values().cloned().map(Object::Payload);
        let containers = self.containers.values().cloned().map(Object::Container);
        let first = cluster.chain(nodes).chain(stacks).chain(networks).chain(payloads);
        first.chain(services).chain(tasks).chain(containers)
    }

    /// Does all of `changes`, or nothing. `index` is the entry's raft index and becomes the
    /// version of what changes.
    ///
    /// # Errors
    /// The first rule that the changes break; the store is then as before, except for its version.
    pub fn apply(&mut self, index: u64, changes: Vec<Change>) -> Result<Vec<Event>, Conflict> {
        self.version = index;
        let mut next = self.clone();
        let mut events = Vec::with_capacity(changes.len());
        for change in changes {
            events.extend(next.apply_one(index, change)?);
        }
        *self = next;
        Ok(events)
    }

    fn apply_one(&mut self, index: u64, change: Change) -> Result<Option<Event>, Conflict> {
        match change {
            Change::Put { expected, object } => self.put(index, expected, object).map(Some),
            Change::Delete { expected, key } => {
                let Some(old) = self.object(key) else {
                    return Err(Conflict::Stale { key, expected, found: 0 });
                };
                check_version(&old, expected)?;
                self.remove(&old);
                Ok(Some(Event::Deleted(old)))
            }
            Change::Expect { version, key } => {
                let found = self.object(key).map_or(0, |object| object.meta().version);
                if found == version {
                    return Ok(None);
                }
                Err(Conflict::Stale { key, expected: version, found })
            }
            Change::Report { task, status } => Ok(self.report(task, status)),
        }
    }

    fn put(&mut self, index: u64, expected: u64, object: Object) -> Result<Event, Conflict> {
        let key = object.key();
        let old = self.object(key);
        match &old {
            Some(old) => check_version(old, expected)?,
            None if expected != 0 => return Err(Conflict::Stale { key, expected, found: 0 }),
            None => {}
        }
        let new = self.seal(index, old.as_ref(), object);
        if let Some(old) = &old {
            self.remove(old);
        }
        self.indexes.check(&new)?;
        self.insert(new.clone());
        Ok(Event::Put { old, new })
    }

    /// Sets what a writer has no say in: the version, the time of creation, and the status of a
    /// task that its agent has reported on since the writer read it.
    fn seal(&self, index: u64, old: Option<&Object>, object: Object) -> Object {
        let created = old.map(|old| old.meta().created_at);
        let seal = |meta: &mut Meta| {
            meta.version = index;
            meta.created_at = created.unwrap_or(meta.created_at);
        };
        match object {
            Object::Node(mut new) => {
                seal(&mut Arc::make_mut(&mut new).meta);
                Object::Node(new)
            }
            Object::Service(mut new) => {
                seal(&mut Arc::make_mut(&mut new).meta);
                Object::Service(new)
            }
            Object::Task(mut new) => {
                let task = Arc::make_mut(&mut new);
                seal(&mut task.meta);
                if let Some(Object::Task(old)) = old
                    && old.node.is_some()
                    && old.state() >= task.state()
                {
                    task.status = old.status.clone();
                }
                Object::Task(new)
            }
            Object::Network(mut new) => {
                seal(&mut Arc::make_mut(&mut new).meta);
                Object::Network(new)
            }
            Object::Stack(mut new) => {
                seal(&mut Arc::make_mut(&mut new).meta);
                Object::Stack(new)
            }
            Object::Cluster(mut new) => {
                seal(&mut Arc::make_mut(&mut new).meta);
                Object::Cluster(new)
            }
            Object::Payload(mut new) => {
                seal(&mut Arc::make_mut(&mut new).meta);
                Object::Payload(new)
            }
            Object::Container(mut new) => {
                seal(&mut Arc::make_mut(&mut new).meta);
                Object::Container(new)
            }
        }
    }

    fn report(&mut self, id: TaskId, status: TaskStatus) -> Option<Event> {
        let old = self.tasks.get(&id)?.clone();
        let lowers = status.state() < old.state();
        if lowers || old.state().is_terminal() || old.status == status {
            return None;
        }
        let new = Arc::new(Task { status, ..(*old).clone() });
        // Most reports: nothing that a task is found by has changed.
        if old.node.is_some() && !new.state().is_terminal() {
            self.tasks.insert(id, new.clone());
        } else {
            self.remove(&Object::Task(old.clone()));
            self.insert(Object::Task(new.clone()));
        }
        Some(Event::Put { old: Some(Object::Task(old)), new: Object::Task(new) })
    }

    /// Tasks of a service share what they run: most of a large store would be copies of it.
    fn share(&self, task: &mut Arc<Task>) {
        let others = self.indexes.tasks_by_service.get(&task.service);
        let other = others.and_then(|ids| ids.get_max()).and_then(|id| self.tasks.get(id));
        let Some(other) = other else { return };
        if !Arc::ptr_eq(&other.spec, &task.spec) && other.spec == task.spec {
            Arc::make_mut(task).spec = Arc::clone(&other.spec);
        }
        if !Arc::ptr_eq(&other.service_name, &task.service_name)
            && other.service_name == task.service_name
        {
            Arc::make_mut(task).service_name = Arc::clone(&other.service_name);
        }
    }

    fn insert(&mut self, mut object: Object) {
        if let Object::Task(task) = &mut object {
            self.share(task);
        }
        self.indexes.insert(&object);
        match object {
            Object::Node(object) => drop(self.nodes.insert(object.id, object)),
            Object::Service(object) => drop(self.services.insert(object.id, object)),
            Object::Task(object) => drop(self.tasks.insert(object.id, object)),
            Object::Network(object) => drop(self.networks.insert(object.id, object)),
            Object::Stack(object) => drop(self.stacks.insert(object.id, object)),
            Object::Cluster(object) => self.cluster = Some(object),
            Object::Payload(object) => drop(self.payloads.insert(object.id, object)),
            Object::Container(object) => drop(self.containers.insert(object.id, object)),
        }
    }

    fn remove(&mut self, object: &Object) {
        self.indexes.remove(object);
        match object.key() {
            Key::Node(id) => drop(self.nodes.remove(&id)),
            Key::Service(id) => drop(self.services.remove(&id)),
            Key::Task(id) => drop(self.tasks.remove(&id)),
            Key::Network(id) => drop(self.networks.remove(&id)),
            Key::Stack(id) => drop(self.stacks.remove(&id)),
            Key::Cluster => self.cluster = None,
            Key::Payload(id) => drop(self.payloads.remove(&id)),
            Key::Container(id) => drop(self.containers.remove(&id)),
        }
    }

    /// Everything, for a raft snapshot.
    #[must_use]
    pub fn snapshot(&self) -> StoreSnapshot {
        StoreSnapshot {
            applied_index: self.version,
            objects: self.objects().map(|object| (&object).into()).collect(),
            ..StoreSnapshot::default()
        }
    }

    /// The store that [`Self::snapshot`] was taken of.
    ///
    /// # Errors
    /// A snapshot with an object that this version of Shoal can't read.
    pub fn restore(snapshot: StoreSnapshot) -> Result<Self, ConvertError> {
        let mut store = Self { version: snapshot.applied_index, ..Self::default() };
        for object in snapshot.objects {
            store.insert(object.try_into()?);
        }
        Ok(store)
    }
}

fn check_version(old: &Object, expected: u64) -> Result<(), Conflict> {
    let found = old.meta().version;
    if found == expected {
        return Ok(());
    }
    Err(Conflict::Stale { key: old.key(), expected, found })
}

#[cfg(test)]
mod tests;
