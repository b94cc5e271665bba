//! The agents' sessions: heartbeats and statuses up, assignments down.

mod reports;
mod session;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_core::context::Context;
use shoal_core::store::{Changes, Node};
use shoal_proto::NodeId;
use shoal_proto::v1::dispatcher_server;
use shoal_proto::v1::{
    AgentMessage, Hello, ManagerMessage, NodeState, NodeStatus, PublishLogsRequest,
    PublishLogsResponse, agent_message,
};
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::ca::{NodeIdentity, peer_identity};
use crate::join::removed;
use crate::logs::LogBroker;
use crate::raft::{ProposeError, Raft};
use crate::random;
use reports::Reports;

/// How often an agent says that it is there.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
/// Without a word for this long, a node is down.
pub(crate) const GRACE: Duration = Duration::from_secs(3);

/// The service; clones share it.
#[derive(Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

struct Shared {
    raft: Raft,
    broker: Arc<LogBroker>,
    reports: Reports,
    /// The node that this manager runs on: it needs no token.
    own: NodeId,
    /// Counts each node's sessions: only the newest one's end means anything.
    sessions: Mutex<BTreeMap<NodeId, u64>>,
}

impl Dispatcher {
    /// Nodes that were there have the grace time to begin a session with this manager.
    pub(crate) fn new(raft: Raft, broker: Arc<LogBroker>, own: NodeId) -> Self {
        let reports = Reports::start(raft.clone());
        let known: Vec<NodeId> = raft.store().nodes().map(|node| node.id).collect();
        let shared = Shared { raft, broker, reports, own, sessions: Mutex::default() };
        let dispatcher = Self { shared: Arc::new(shared) };
        for node in known {
            let turn = dispatcher.begin(node);
            let dispatcher = dispatcher.clone();
            tokio::spawn(async move { dispatcher.end(node, turn, Instant::now()).await });
        }
        dispatcher
    }
}

fn identify<T>(request: &Request<T>) -> Result<NodeIdentity, Status> {
    let certificates = request
        .peer_certs()
        .ok_or_else(|| Status::unauthenticated("a node must show its certificate"))?;
    let own = certificates
        .first()
        .ok_or_else(|| Status::unauthenticated("a node must show its certificate"))?;
    peer_identity(own).map_err(|error| Status::unauthenticated(error.to_string()))
}

#[tonic::async_trait]
impl dispatcher_server::Dispatcher for Dispatcher {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<ManagerMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let identity = identify(&request)?;
        let mut inbound = request.into_inner();
        let first = inbound.next().await.transpose()?.and_then(|message| message.message);
        let Some(agent_message::Message::Hello(hello)) = first else {
            return Err(Status::invalid_argument("a session begins with Hello"));
        };
        let is_known = self.shared.raft.store().node(identity.node).is_some();
        if !is_known && identity.node != self.shared.own {
            return Err(removed(identity.node));
        }
        let turn = self.begin(identity.node);
        self.register(&identity, hello).await?;
        tracing::info!(node.id = %identity.node, "session");
        let dispatcher = self.clone();
        Ok(Response::new(session::serve(dispatcher, identity.node, turn, inbound)))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<PublishLogsRequest>>,
    ) -> Result<Response<PublishLogsResponse>, Status> {
        identify(&request)?;
        let mut inbound = request.into_inner();
        let mut subscription = String::new();
        while let Some(part) = inbound.next().await.transpose()? {
            subscription.clone_from(&part.subscription_id);
            let Some(reader) = self.shared.broker.reader(&subscription) else {
                return Err(Status::cancelled("the reader has gone"));
            };
            for entry in part.entries {
                if reader.send(entry).await.is_err() {
                    return Err(Status::cancelled("the reader has gone"));
                }
            }
        }
        self.shared.broker.finish(&subscription);
        Ok(Response::new(PublishLogsResponse {}))
    }
}

impl Dispatcher {
    fn begin(&self, node: NodeId) -> u64 {
        let mut sessions = self.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = sessions.entry(node).or_default();
        *turn += 1;
        *turn
    }

    fn is_current(&self, node: NodeId, turn: u64) -> bool {
        let sessions = self.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.get(&node) == Some(&turn)
    }

    /// Notes what the agent says of its host, and that it is there.
    async fn register(&self, identity: &NodeIdentity, hello: Hello) -> Result<(), Status> {
        let status = |address: &str| NodeStatus {
            state: NodeState::Ready.into(),
            message: String::new(),
            address: address.to_owned(),
        };
        self.change_node(identity.node, |old| {
            // Taken out at this very moment.
            if old.is_none() && identity.node != self.shared.own {
                return None;
            }
            let mut node = old.cloned().unwrap_or_else(|| Node {
                id: identity.node,
                meta: Default::default(),
                spec: Default::default(),
                description: Default::default(),
                status: Default::default(),
            });
            node.spec.name.clone_from(&hello.node_name);
            node.spec.set_role(identity.role);
            node.description = hello.description.clone().unwrap_or_default();
            node.status = status(&hello.advertise_address);
            Some(node)
        })
        .await
    }

    /// A node that has not been heard of for the grace time, and has no newer session, is down.
    async fn end(&self, node: NodeId, turn: u64, heard: Instant) {
        tokio::time::sleep_until(heard + GRACE).await;
        if !self.is_current(node, turn) {
            return;
        }
        tracing::warn!(node.id = %node, "node is down");
        let down = self.change_node(node, |old| {
            let mut node = old?.clone();
            node.status.set_state(NodeState::Down);
            node.status.message = "its agent has not been heard of".to_owned();
            Some(node)
        });
        if let Err(error) = down.await {
            tracing::warn!(node.id = %node, %error, "can't note that the node is down");
        }
    }

    async fn change_node(
        &self,
        id: NodeId,
        change: impl Fn(Option<&Node>) -> Option<Node>,
    ) -> Result<(), Status> {
        loop {
            let store = self.shared.raft.store();
            let old = store.node(id);
            let Some(new) = change(old.map(|node| &**node)) else { return Ok(()) };
            if old.is_some_and(|old| **old == new) {
                return Ok(());
            }
            let mut random = random::bits;
            let context = Context { now: std::time::SystemTime::now(), random: &mut random };
            let mut changes = Changes::default();
            match old {
                Some(_) => changes.update(&context, new),
                None => changes.create(&context, new),
            }
            match self.shared.raft.propose(changes.into_vec()).await {
                Ok(_) => return Ok(()),
                Err(ProposeError::Conflict(_)) => {}
                Err(error) => return Err(Status::unavailable(error.to_string())),
            }
        }
    }
}
