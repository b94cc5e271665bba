//! The agents' sessions: heartbeats and statuses up, assignments down.

mod leave;
mod reports;
mod session;
mod standing;

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_core::container::{self, PlaceError, Placement};
use shoal_core::context::Context;
use shoal_core::liveness::{Liveness, Turn};
use shoal_core::lookup::LookupError;
use shoal_core::node::{self, Arrival};
use shoal_core::settings::Settings;
use shoal_core::store::{Changes, Store};
use shoal_proto::NodeId;
use shoal_proto::v1::dispatcher_server;
use shoal_proto::v1::{
    AgentMessage, Hello, Inventory, ManagerMessage, NodeState, PlaceContainerRequest,
    PlaceContainerResponse, PublishLogsRequest, PublishLogsResponse, Redirect, agent_message,
    manager_message,
};
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::change;
use crate::join::{check_protocol, removed};
use crate::logs::LogBroker;
use crate::peers::Peers;
use crate::raft::Raft;
use reports::Reports;

/// How often an agent says that it is there.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
/// How often silent nodes are looked for.
const CHECK: Duration = Duration::from_millis(100);

/// The service; clones share it.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
}

struct Shared {
    raft: Raft,
    peers: Peers,
    broker: Arc<LogBroker>,
    reports: Reports,
    liveness: Mutex<Liveness>,
    in_force: leave::InForce,
    /// What the times in it count from.
    origin: Instant,
}

impl Dispatcher {
    pub(crate) fn new(raft: Raft, peers: Peers, broker: Arc<LogBroker>) -> Self {
        let reports = Reports::start(raft.clone());
        let (liveness, origin) = (Mutex::default(), Instant::now());
        let in_force = leave::InForce::default();
        let shared = Shared { raft, peers, broker, reports, liveness, in_force, origin };
        Self { shared: Arc::new(shared) }
    }

    /// Watches over the nodes; each has the whole time once to begin a session with this manager.
    /// `longer` is added once, for a cluster that has been without managers. Never ends: to be
    /// dropped when this manager does not lead any more.
    pub(crate) async fn watch_nodes(&self, longer: Duration) {
        let store = self.shared.raft.store();
        let ready = store.nodes().filter(|node| node.status.state() == NodeState::Ready);
        self.liveness().take_over(ready.map(|node| node.id), self.now() + longer);
        drop(store);
        let mut check = tokio::time::interval(CHECK);
        loop {
            check.tick().await;
            let store = self.shared.raft.store();
            let patience = Settings::of(&store).node_down_after;
            let ready = store.nodes().filter(|node| node.status.state() == NodeState::Ready);
            self.liveness().adopt(ready.map(|node| node.id), self.now());
            let silent = self.liveness().take_silent(patience, self.now());
            if !silent.is_empty() {
                self.note_lost(&silent).await;
            }
            let back = |node: &NodeId| self.liveness().is_welcome(*node);
            let down = store.nodes().filter(|node| node.status.state() == NodeState::Down);
            let back: Vec<NodeId> = down.map(|node| node.id).filter(back).collect();
            if !back.is_empty() {
                self.note_back(&back).await;
            }
        }
    }

    fn liveness(&self) -> MutexGuard<'_, Liveness> {
        self.shared.liveness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.shared.origin.elapsed()
    }
}

#[tonic::async_trait]
impl dispatcher_server::Dispatcher for Dispatcher {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<ManagerMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let identity = self.shared.peers.identify(&request)?;
        let mut inbound = request.into_inner();
        let first = inbound.next().await.transpose()?.and_then(|message| message.message);
        let Some(agent_message::Message::Hello(hello)) = first else {
            return Err(Status::invalid_argument("a session begins with Hello"));
        };
        check_protocol(hello.protocol)?;
        if !self.shared.raft.is_leader() {
            return self.point_on();
        }
        if !self.shared.raft.is_awake() {
            return Err(Status::unavailable("this manager's disk does not answer"));
        }
        if self.shared.raft.store().cluster().is_none() {
            return Err(Status::unavailable("the cluster is being set up"));
        }
        let turn = self.liveness().begin(identity.node, self.now());
        self.register(identity.node, hello).await?;
        self.liveness().welcome(identity.node, turn);
        tracing::info!(node.id = %identity.node, "session");
        let dispatcher = self.clone();
        Ok(Response::new(session::serve(dispatcher, identity.node, turn, inbound)))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<PublishLogsRequest>>,
    ) -> Result<Response<PublishLogsResponse>, Status> {
        let node = self.shared.peers.identify(&request)?.node;
        let mut inbound = request.into_inner();
        let mut subscription = None;
        while let Some(part) = inbound.next().await.transpose()? {
            let broker = &self.shared.broker;
            let reader = broker.reader(&part.subscription_id, node);
            let Some(reader) = reader else {
                return Err(Status::cancelled("the reader has gone"));
            };
            subscription
                .get_or_insert_with(|| broker.finish_when_dropped(part.subscription_id.clone()));
            for entry in part.entries {
                // A node tells of its own tasks, nobody else's.
                let task = entry.task_id.parse().ok();
                let store = self.shared.raft.store();
                let task = task.and_then(|task| store.task(task));
                if task.is_some_and(|task| task.node != Some(node)) {
                    continue;
                }
                if reader.send(entry).await.is_err() {
                    return Err(Status::cancelled("the reader has gone"));
                }
            }
        }
        drop(subscription);
        Ok(Response::new(PublishLogsResponse {}))
    }

    async fn place_container(
        &self,
        request: Request<PlaceContainerRequest>,
    ) -> Result<Response<PlaceContainerResponse>, Status> {
        let node = self.shared.peers.identify(&request)?.node;
        if !self.shared.raft.is_leader() {
            return Err(Status::unavailable("this manager does not lead"));
        }
        let PlaceContainerRequest { container_id, names, networks, running } = request.into_inner();
        let id = container_id
            .parse()
            .map_err(|error: shoal_proto::IdError| Status::invalid_argument(error.to_string()))?;
        let wanted = Placement { node, id, names, networks, running };
        let store = self.shared.raft.store();
        let (placed, _) = change::commit(&self.shared.raft, store, |store, context, changes| {
            container::place(store, &wanted, context, changes).map_err(not_placed)
        })
        .await?;
        let networks = placed.iter().map(Into::into).collect();
        Ok(Response::new(PlaceContainerResponse { networks }))
    }
}

fn not_placed(error: PlaceError) -> Status {
    let message = error.to_string();
    match error {
        PlaceError::Lookup(LookupError::Missing { .. }) => Status::not_found(message),
        PlaceError::Lookup(LookupError::Ambiguous { .. }) | PlaceError::Twice { .. } => {
            Status::invalid_argument(message)
        }
        PlaceError::Foreign { .. } => Status::permission_denied(message),
        PlaceError::NotAttachable { .. } | PlaceError::Address { .. } => {
            Status::failed_precondition(message)
        }
    }
}

impl Dispatcher {
    /// Sends an agent to the leader.
    fn point_on(
        &self,
    ) -> Result<Response<<Self as dispatcher_server::Dispatcher>::SessionStream>, Status> {
        let address = self.shared.peers.leader_address().ok_or_else(|| {
            Status::unavailable("this manager does not lead, and knows nobody who does")
        })?;
        let message = Some(manager_message::Message::Redirect(Redirect { address }));
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(ManagerMessage { message })))))
    }

    fn is_current(&self, node: NodeId, turn: Turn) -> bool {
        self.liveness().is_current(node, turn)
    }

    /// A word of a node; false when its session counts no more.
    fn heard(&self, node: NodeId, turn: Turn) -> bool {
        let now = self.now();
        self.liveness().heard(node, turn, now)
    }

    /// Notes what the agent says of its host, and that it is there.
    async fn register(&self, id: NodeId, hello: Hello) -> Result<(), Status> {
        let arrival = Arrival {
            name: hello.node_name,
            address: hello.advertise_address,
            description: hello.description.unwrap_or_default(),
        };
        self.change(|store, context, changes| {
            let Some(old) = store.node(id) else { return Err(removed(id)) };
            let new = node::arrived(store, old, &arrival, context.now);
            if **old != new {
                changes.update(context, new);
            }
            Ok(())
        })
        .await
    }

    /// Notes what can be used on the node alone.
    async fn note_inventory(&self, id: NodeId, inventory: &Inventory) -> Result<(), Status> {
        self.change(|store, context, changes| {
            let Some(old) = store.node(id) else { return Err(removed(id)) };
            if old.description.volumes != inventory.volumes {
                let mut new = (**old).clone();
                new.description.volumes.clone_from(&inventory.volumes);
                changes.update(context, new);
            }
            Ok(())
        })
        .await
    }

    async fn note_lost(&self, nodes: &[NodeId]) {
        tracing::warn!(?nodes, "nodes are down");
        let noted = self.change(|store, context, changes| {
            let known = nodes.iter().filter_map(|id| store.node(*id));
            for old in known.filter(|node| node.status.state() == NodeState::Ready) {
                changes.update(context, node::lost(old, context.now));
            }
            Ok(())
        });
        if let Err(error) = noted.await {
            tracing::warn!(error = error.message(), "can't note that nodes are down");
        }
    }

    /// They came back in the moment that they were noted as lost.
    async fn note_back(&self, nodes: &[NodeId]) {
        let noted = self.change(|store, context, changes| {
            let known = nodes.iter().filter_map(|id| store.node(*id));
            for old in known.filter(|node| node.status.state() == NodeState::Down) {
                changes.update(context, node::revived(old, context.now));
            }
            Ok(())
        });
        if let Err(error) = noted.await {
            tracing::warn!(error = error.message(), "can't note that nodes are back");
        }
    }

    async fn change(
        &self,
        decide: impl Fn(&Store, &mut Context<'_>, &mut Changes) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let store = self.shared.raft.store();
        change::commit(&self.shared.raft, store, decide).await.map(drop)
    }
}
