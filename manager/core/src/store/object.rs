//! The objects of the store, with ids and states parsed: the messages of `shoal.v1` are their
//! form on the wire and on disk ([`super::convert`]).

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

use ipnet::IpNet;
use shoal_proto::v1::service_mode::Mode;
use shoal_proto::v1::{
    ClusterState, GenericResource, JobStatus, NodeDescription, NodeRole, NodeSpec, NodeStatus,
    PayloadKind, PayloadSpec, PortSpec, ServiceRevision, ServiceSpec, StackSpec, TaskSpec,
    TaskState, TaskStatus, UpdateState, UpdateStatus,
};
use shoal_proto::{
    ContainerId, NetworkId, NodeId, PayloadId, ServiceId, StackId, TaskId, Timestamp,
};

/// Kept for every object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Meta {
    /// Raft index of the last change by a manager; 0 before the first commit.
    pub version: u64,
    /// Time of the first commit, by the proposer's clock.
    pub created_at: Timestamp,
    /// Time of the last change by a manager, by the proposer's clock.
    pub updated_at: Timestamp,
}

/// A host with an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its id, also in its certificate.
    pub id: NodeId,
    /// Version and times.
    pub meta: Meta,
    /// What an operator decides.
    pub spec: NodeSpec,
    /// What its agent says of the host.
    pub description: NodeDescription,
    /// Whether it can be reached.
    pub status: NodeStatus,
    /// Its number among the managers; none for a worker. One that is made a worker keeps it until
    /// the others have let it go.
    pub raft_id: Option<NonZeroU64>,
}

impl Node {
    /// What it is now: one that is made a worker is a manager until the others have let it go, or
    /// they could not agree on that without it.
    #[must_use]
    pub fn present_role(&self) -> NodeRole {
        match self.raft_id {
            Some(_) => NodeRole::Manager,
            None => NodeRole::Worker,
        }
    }
}

/// A virtual address of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vip {
    /// The network it is an address of.
    pub network: NetworkId,
    /// The address.
    pub address: IpAddr,
}

/// A wanted number of equal tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its id.
    pub id: ServiceId,
    /// Version and times.
    pub meta: Meta,
    /// What people asked for.
    pub spec: Arc<ServiceSpec>,
    /// The stack it belongs to.
    pub stack: Option<StackId>,
    /// Its name inside the stack, else its name.
    pub short_name: Arc<str>,
    /// Counts the changes that need new tasks.
    pub spec_version: u64,
    /// One address a network, once allocated.
    pub vips: Vec<Vip>,
    /// The spec's ports with published ports filled in, once allocated.
    pub ports: Vec<PortSpec>,
    /// Its tasks are to stop, then it goes.
    pub removing: bool,
    /// What it was asked to be, the oldest first; the last is the spec but for its replicas.
    pub revisions: Arc<[ServiceRevision]>,
    /// The highest `spec_version` ever.
    pub last_spec_version: u64,
    /// Where its last update is.
    pub update: UpdateStatus,
    /// A job's: where its last run is.
    pub job: JobStatus,
}

/// How many tasks a service has, and whether they end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceMode {
    /// So many.
    Replicated(u64),
    /// One on each node that fits.
    Global,
    /// So many that end well.
    ReplicatedJob {
        /// At the same time.
        concurrent: u64,
        /// In all.
        completions: u64,
    },
    /// One that ends well on each node that fits.
    GlobalJob,
}

impl Service {
    /// The mode; replicated with one replica when the spec has none.
    #[must_use]
    pub fn mode(&self) -> ServiceMode {
        match self.spec.mode.as_ref().and_then(|mode| mode.mode.as_ref()) {
            Some(Mode::Replicated(mode)) => ServiceMode::Replicated(mode.replicas),
            Some(Mode::Global(_)) => ServiceMode::Global,
            Some(Mode::ReplicatedJob(mode)) => ServiceMode::ReplicatedJob {
                concurrent: match mode.max_concurrent {
                    0 => mode.total_completions,
                    bound => bound.min(mode.total_completions),
                },
                completions: mode.total_completions,
            },
            Some(Mode::GlobalJob(_)) => ServiceMode::GlobalJob,
            None => ServiceMode::Replicated(1),
        }
    }

    /// Its tasks end by themselves.
    #[must_use]
    pub fn is_job(&self) -> bool {
        matches!(self.mode(), ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob)
    }

    /// No update is under way or was paused.
    #[must_use]
    pub fn is_updated(&self) -> bool {
        use UpdateState::{Completed, None, RolledBack};
        matches!(self.update.state(), None | Completed | RolledBack)
    }

    /// One task on each node.
    #[must_use]
    pub fn is_global(&self) -> bool {
        matches!(self.mode(), ServiceMode::Global | ServiceMode::GlobalJob)
    }

    /// The revision that it is now.
    #[must_use]
    pub fn revision(&self) -> Option<&ServiceRevision> {
        self.revisions.last()
    }

    /// What its tasks are made from.
    #[must_use]
    pub fn task_spec(&self) -> Arc<TaskSpec> {
        Arc::new(self.spec.task.clone().unwrap_or_default())
    }
}

/// A place of a service that one task at a time fills; from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u64);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An address that a task or a single container holds on a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Attachment {
    /// The network.
    pub network: NetworkId,
    /// The address, with the network's prefix length.
    pub address: IpNet,
    /// Further names on that network: of the task's service, or of the container.
    pub aliases: Vec<String>,
}

/// One attempt to run one container. It never moves and never restarts.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Version and times.
    pub meta: Meta,
    /// The service it works for.
    pub service: ServiceId,
    /// That service's full name.
    pub service_name: Arc<str>,
    /// The place it fills.
    pub slot: Slot,
    /// Where it runs, once scheduled.
    pub node: Option<NodeId>,
    /// What it runs.
    pub spec: Arc<TaskSpec>,
    /// The service's `spec_version` it was made from.
    pub spec_version: u64,
    /// What the managers want of it.
    pub desired: TaskState,
    /// What its agent saw of it; before it has a node, what the managers know.
    pub status: TaskStatus,
    /// Its addresses, once allocated.
    pub networks: Vec<Attachment>,
    /// The service's ports at the time it was allocated.
    pub ports: Vec<PortSpec>,
    /// Gets no node before this time.
    pub not_before: Option<Timestamp>,
    /// Failures in a row in its slot before it.
    pub failures: u32,
    /// Why a ready task is held back.
    pub waiting_for: String,
    /// What it holds of its node's generic resources, once scheduled.
    pub generic_resources: Vec<GenericResource>,
    /// Why the managers want it to end.
    pub stop_reason: String,
    /// The only node that it may go to.
    pub only_node: Option<NodeId>,
    /// A job's: which run it is of.
    pub job_iteration: u64,
    /// It is to be replaced by one elsewhere.
    pub moving: bool,
}

impl Task {
    /// Observed state.
    #[must_use]
    pub fn state(&self) -> TaskState {
        self.status.state()
    }

    /// Wanted to run, and not over yet.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.desired <= TaskState::Running && !self.state().is_terminal()
    }

    /// Holds addresses and resources: on the way up, running, or not yet gone.
    #[must_use]
    pub fn holds_resources(&self) -> bool {
        !self.state().is_terminal()
    }
}

/// A network that tasks are attached to.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Its id.
    pub id: NetworkId,
    /// Version and times.
    pub meta: Meta,
    /// What people asked for.
    pub spec: Arc<shoal_proto::v1::NetworkSpec>,
    /// The stack it belongs to.
    pub stack: Option<StackId>,
    /// Its addresses, once allocated.
    pub subnet: Option<IpNet>,
    /// The nodes' address on it, once allocated.
    pub gateway: Option<IpAddr>,
}

/// Services and networks that are deployed as one.
#[derive(Debug, Clone, PartialEq)]
pub struct Stack {
    /// Its id.
    pub id: StackId,
    /// Version and times.
    pub meta: Meta,
    /// As last deployed.
    pub spec: Arc<StackSpec>,
    /// Counts the deploys, from 1.
    pub revision: u64,
    /// Its services are to go, then it goes.
    pub removing: bool,
}

/// One version of a secret or config. Its data never change.
#[derive(Debug, Clone, PartialEq)]
pub struct Payload {
    /// Its id.
    pub id: PayloadId,
    /// Version and times.
    pub meta: Meta,
    /// Kind, name and labels.
    pub spec: Arc<PayloadSpec>,
    /// Counts the versions under its name, from 1.
    pub number: u64,
    /// What is given to tasks.
    pub data: Arc<[u8]>,
    /// The stack it belongs to.
    pub stack: Option<StackId>,
}

impl Payload {
    /// Secret or config.
    #[must_use]
    pub fn kind(&self) -> PayloadKind {
        self.spec.kind()
    }
}

/// A single container of a node, as far as the cluster has to know it.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Version and times.
    pub meta: Meta,
    /// Where it is. It never moves.
    pub node: NodeId,
    /// What it is called on all of its networks; the first is its name.
    pub names: Vec<String>,
    /// Its places on networks of the cluster.
    pub networks: Vec<Attachment>,
    /// Its names are resolved while it does.
    pub running: bool,
}

impl Container {
    /// For people.
    #[must_use]
    pub fn name(&self) -> String {
        self.names.first().cloned().unwrap_or_else(|| self.id.to_string())
    }
}

/// What is said of the cluster as a whole; there is one.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Version and times.
    pub meta: Meta,
    /// Its id, root, secrets and settings.
    pub state: ClusterState,
}

/// An object of any kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// A node.
    Node(Arc<Node>),
    /// A service.
    Service(Arc<Service>),
    /// A task.
    Task(Arc<Task>),
    /// A network.
    Network(Arc<Network>),
    /// A stack.
    Stack(Arc<Stack>),
    /// The cluster.
    Cluster(Arc<Cluster>),
    /// A version of a secret or config.
    Payload(Arc<Payload>),
    /// A single container.
    Container(Arc<Container>),
}

/// An object's id with its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A node's.
    Node(NodeId),
    /// A service's.
    Service(ServiceId),
    /// A task's.
    Task(TaskId),
    /// A network's.
    Network(NetworkId),
    /// A stack's.
    Stack(StackId),
    /// The cluster's: it is the only one.
    Cluster,
    /// That of a version of a secret or config.
    Payload(PayloadId),
    /// A single container's.
    Container(ContainerId),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "node {id}"),
            Self::Service(id) => write!(f, "service {id}"),
            Self::Task(id) => write!(f, "task {id}"),
            Self::Network(id) => write!(f, "network {id}"),
            Self::Stack(id) => write!(f, "stack {id}"),
            Self::Cluster => f.write_str("the cluster"),
            Self::Payload(id) => write!(f, "payload {id}"),
            Self::Container(id) => write!(f, "container {id}"),
        }
    }
}

impl Object {
    /// Kind and id.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Node(object) => Key::Node(object.id),
            Self::Service(object) => Key::Service(object.id),
            Self::Task(object) => Key::Task(object.id),
            Self::Network(object) => Key::Network(object.id),
            Self::Stack(object) => Key::Stack(object.id),
            Self::Cluster(_) => Key::Cluster,
            Self::Payload(object) => Key::Payload(object.id),
            Self::Container(object) => Key::Container(object.id),
        }
    }

    /// Version and times.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Node(object) => &object.meta,
            Self::Service(object) => &object.meta,
            Self::Task(object) => &object.meta,
            Self::Network(object) => &object.meta,
            Self::Stack(object) => &object.meta,
            Self::Cluster(object) => &object.meta,
            Self::Payload(object) => &object.meta,
            Self::Container(object) => &object.meta,
        }
    }
}

macro_rules! into_object {
    ($($name:ident)*) => {$(
        impl From<$name> for Object {
            fn from(object: $name) -> Self {
                Self::$name(Arc::new(object))
            }
        }
    )*};
}

into_object! { Node Service Task Network Stack Cluster Payload Container }
