//! What the tests share: a store that commits at once, a clock that only tests move, ids that
//! grow in the order they are asked for, and builders of the smallest objects that make sense.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shoal_proto::time::{proto_duration, timestamp};
use shoal_proto::v1::{
    ContainerSpec, JobStatus, NetworkAttachmentSpec, NetworkSpec, NodeDescription, NodeSpec,
    NodeState, NodeStatus, PortSpec, ReplicatedMode, Resources, ServiceMode, ServiceSpec,
    StackNetwork, StackService, StackSpec, TaskSpec, TaskState, TaskStatus, UpdateConfig,
    UpdateStatus, service_mode,
};
use shoal_proto::{NetworkId, NodeId, ServiceId, StackId, TaskId};

use crate::context::Context;
use crate::store::{
    Change, Changes, Event, Key, Meta, Network, Node, Object, Service, Slot, Stack, Store, Task,
};

/// One gibibyte.
pub(crate) const GIB: i64 = 1 << 30;

/// A store and what its loops get from outside.
pub(crate) struct Cluster {
    pub(crate) store: Store,
    pub(crate) now: SystemTime,
    last_id: u128,
}

impl Default for Cluster {
    fn default() -> Self {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        // Above all ids that tests give by hand.
        Self { store: Store::default(), now, last_id: 1 << 64 }
    }
}

impl Cluster {
    /// Runs a loop over the store as it is.
    pub(crate) fn with<R>(&mut self, run: impl FnOnce(&Store, &mut Context<'_>) -> R) -> R {
        let last_id = &mut self.last_id;
        let mut random = move || {
            *last_id += 1;
            *last_id
        };
        run(&self.store, &mut Context { now: self.now, random: &mut random })
    }

    /// Runs a loop; what it states is not committed.
    pub(crate) fn propose<R>(
        &mut self,
        run: impl FnOnce(&Store, &mut Context<'_>, &mut Changes) -> R,
    ) -> (R, Vec<Change>) {
        let mut changes = Changes::default();
        let result = self.with(|store, context| run(store, context, &mut changes));
        (result, changes.into_vec())
    }

    /// Runs a loop and commits what it states.
    pub(crate) fn commit<R>(
        &mut self,
        run: impl FnOnce(&Store, &mut Context<'_>, &mut Changes) -> R,
    ) -> R {
        let (result, changes) = self.propose(run);
        self.apply(changes);
        result
    }

    /// Commits changes that nothing stands against.
    pub(crate) fn apply(&mut self, changes: Vec<Change>) -> Vec<Event> {
        let index = self.store.version() + 1;
        self.store.apply(index, changes).expect("the changes fit the store")
    }

    /// Makes the object, or replaces the version that is there.
    pub(crate) fn put(&mut self, object: impl Into<Object>) -> Vec<Event> {
        let object = object.into();
        let expected = self.version_of(object.key());
        self.apply(vec![Change::Put { expected, object }])
    }

    /// Takes the object away.
    pub(crate) fn delete(&mut self, key: Key) -> Vec<Event> {
        let expected = self.version_of(key);
        self.apply(vec![Change::Delete { expected, key }])
    }

    /// Version of the object; 0 when there is none.
    pub(crate) fn version_of(&self, key: Key) -> u64 {
        self.store.object(key).map_or(0, |object| object.meta().version)
    }

    /// An agent says that the task is in that state since now.
    pub(crate) fn report(&mut self, task: TaskId, state: TaskState) -> Vec<Event> {
        let since = Some(timestamp(self.now));
        let status = TaskStatus { state: state.into(), since, ..TaskStatus::default() };
        self.apply(vec![Change::Report { task, status }])
    }

    /// Every agent does what is wanted of its tasks, at once.
    pub(crate) fn agents(&mut self) -> Vec<Event> {
        let behind: Vec<Arc<Task>> = self
            .store
            .tasks()
            .filter(|task| task.node.is_some() && !task.state().is_terminal())
            .filter(|task| task.state() < task.desired)
            .cloned()
            .collect();
        let mut events = Vec::new();
        for task in behind {
            events.extend(self.report(task.id, task.desired.min(TaskState::Shutdown)));
        }
        events
    }

    /// The task of that number.
    pub(crate) fn task(&self, number: u128) -> &Task {
        self.store.task(TaskId::from_bits(number)).expect("the task is there")
    }
}

/// The same numbers for the same seed, spread well enough for tests.
pub(crate) struct Lcg(pub(crate) u64);

impl Lcg {
    /// A number under `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % bound
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A node that is ready, with four CPUs and four gibibytes.
pub(crate) fn node(number: u128) -> Node {
    let resources = Resources { nano_cpus: 4_000_000_000, memory_bytes: 4 * GIB, pids: 0 };
    Node {
        id: NodeId::from_bits(number),
        meta: Meta::default(),
        spec: NodeSpec { name: format!("node-{number}"), ..NodeSpec::default() },
        description: NodeDescription { resources: Some(resources), ..NodeDescription::default() },
        status: NodeStatus { state: NodeState::Ready.into(), ..NodeStatus::default() },
        raft_id: None,
    }
}

/// A network without addresses yet; an empty subnet asks for one of the pool.
pub(crate) fn network(number: u128, name: &str, subnet: &str) -> Network {
    let spec =
        NetworkSpec { name: name.to_owned(), subnet: subnet.to_owned(), ..NetworkSpec::default() };
    Network {
        id: NetworkId::from_bits(number),
        meta: Meta::default(),
        spec: Arc::new(spec),
        stack: None,
        subnet: None,
        gateway: None,
    }
}

pub(crate) fn attached(network: &Network) -> NetworkAttachmentSpec {
    NetworkAttachmentSpec { network_id: network.id.to_string(), ..NetworkAttachmentSpec::default() }
}

pub(crate) fn service_spec(name: &str, replicas: u64) -> ServiceSpec {
    let container = ContainerSpec { image: "app:1".to_owned(), ..ContainerSpec::default() };
    let mode = service_mode::Mode::Replicated(ReplicatedMode { replicas });
    ServiceSpec {
        name: name.to_owned(),
        task: Some(TaskSpec { container: Some(container), ..TaskSpec::default() }),
        mode: Some(ServiceMode { mode: Some(mode) }),
        // A task that runs is good at once.
        update: Some(UpdateConfig {
            monitor: Some(proto_duration(Duration::ZERO)),
            ..UpdateConfig::default()
        }),
        ..ServiceSpec::default()
    }
}

pub(crate) fn service(number: u128, name: &str, replicas: u64) -> Service {
    Service {
        id: ServiceId::from_bits(number),
        meta: Meta::default(),
        spec: Arc::new(service_spec(name, replicas)),
        stack: None,
        short_name: name.into(),
        spec_version: 1,
        vips: Vec::new(),
        ports: Vec::new(),
        removing: false,
        revisions: [].into(),
        last_spec_version: 1,
        update: UpdateStatus::default(),
        job: JobStatus::default(),
    }
}

/// The service's spec, to be changed.
pub(crate) fn spec_of(service: &mut Service) -> &mut ServiceSpec {
    Arc::make_mut(&mut service.spec)
}

/// What the service's tasks are made from, to be changed.
pub(crate) fn task_spec_of(service: &mut Service) -> &mut TaskSpec {
    spec_of(service).task.get_or_insert_default()
}

/// Port 80 of a container, open as `published`; 0 asks for a number.
pub(crate) fn port(published: u32) -> PortSpec {
    PortSpec { target_port: 80, published_port: published, ..PortSpec::default() }
}

pub(crate) fn stack(number: u128, name: &str) -> Stack {
    Stack {
        id: StackId::from_bits(number),
        meta: Meta::default(),
        spec: Arc::new(StackSpec { name: name.to_owned(), ..StackSpec::default() }),
        revision: 1,
        removing: false,
    }
}

/// Services `NAME_SERVICE` with one replica each, all on the stack's network `NAME_net`.
pub(crate) fn stack_spec(name: &str, services: &[&str]) -> StackSpec {
    let service = |service: &&str| {
        let mut spec = service_spec(&format!("{name}_{service}"), 1);
        let network_id = "net".to_owned();
        spec.task.get_or_insert_default().networks =
            vec![NetworkAttachmentSpec { network_id, ..NetworkAttachmentSpec::default() }];
        StackService { name: (*service).to_owned(), spec: Some(spec) }
    };
    let net = NetworkSpec { name: format!("{name}_net"), ..NetworkSpec::default() };
    StackSpec {
        name: name.to_owned(),
        services: services.iter().map(service).collect(),
        networks: vec![StackNetwork { key: "net".to_owned(), spec: Some(net), external: false }],
        ..StackSpec::default()
    }
}

/// A service of the stack, by its short name.
pub(crate) fn declared<'a>(stack: &'a mut StackSpec, name: &str) -> &'a mut ServiceSpec {
    let service = stack.services.iter_mut().find(|service| service.name == name);
    service.and_then(|service| service.spec.as_mut()).expect("the stack has the service")
}

/// A task that was just made.
pub(crate) fn task(number: u128, service: &Service, slot: u64) -> Task {
    Task {
        id: TaskId::from_bits(number),
        meta: Meta::default(),
        service: service.id,
        service_name: service.spec.name.as_str().into(),
        slot: Slot(slot),
        node: None,
        spec: service.task_spec(),
        spec_version: service.spec_version,
        desired: TaskState::Running,
        status: TaskStatus::default(),
        networks: Vec::new(),
        ports: service.spec.ports.clone(),
        not_before: None,
        failures: 0,
        waiting_for: String::new(),
        generic_resources: Vec::new(),
        stop_reason: String::new(),
        only_node: None,
        job_iteration: service.job.iteration,
        moving: false,
    }
}

/// The task with addresses, waiting for a node.
pub(crate) fn pending(mut task: Task) -> Task {
    task.status.set_state(TaskState::Pending);
    task
}

/// The task in that state on a node.
pub(crate) fn placed(mut task: Task, node: u128, state: TaskState) -> Task {
    task.node = Some(NodeId::from_bits(node));
    task.status.set_state(state);
    task
}
