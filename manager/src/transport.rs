//! Carries raft's messages between managers: one stream to each of the others for as long as the
//! connection holds, and a call of its own for each snapshot, so that heartbeats don't wait behind
//! it. What can't be sent is dropped: raft sends again.

mod peer;

use std::collections::BTreeMap;

use shoal_proto::NodeId;
use shoal_proto::v1::raft_server;
use shoal_proto::v1::{NodeRole, RaftPart, StepResponse};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};

use crate::ca::NodeIdentity;
use crate::join::removed;
use crate::peers::Peers;
use crate::raft::{Outbox, Outgoing, Raft};

/// Bytes of one part at the most; larger messages are sent in pieces.
const PART: usize = 1 << 20;
/// Bytes of one message at the most.
const MAX_MESSAGE: usize = 1 << 30;
/// Messages that wait for one peer; more are dropped.
const BACKLOG: usize = 4096;

/// Who sends: its number, and where it is to be found.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(crate) raft_id: u64,
    pub(crate) address: String,
}

/// What raft is started with: puts each message into its peer's queue.
pub(crate) fn outbox(sender: Sender, peers: Peers) -> Outbox {
    let runtime = Handle::current();
    let mut queues: BTreeMap<u64, mpsc::Sender<Outgoing>> = BTreeMap::new();
    Box::new(move |message| {
        let to = message.to;
        let queue = queues.entry(to).or_insert_with(|| {
            let (queue, inbox) = mpsc::channel(BACKLOG);
            runtime.spawn(peer::run(to, sender.clone(), peers.clone(), inbox));
            queue
        });
        if let Err(error) = queue.try_send(message) {
            lose(&peers, &error.into_inner());
        }
    })
}

/// Tells raft of a message that does not arrive.
fn lose(peers: &Peers, message: &Outgoing) {
    let Some(raft) = peers.raft() else { return };
    raft.unreachable(message.to);
    if message.is_snapshot {
        raft.sent_snapshot(message.to, false);
    }
}

/// The other end; clones share it.
#[derive(Clone)]
pub(crate) struct RaftService {
    raft: Raft,
    peers: Peers,
}

impl RaftService {
    pub(crate) fn new(raft: Raft, peers: Peers) -> Self {
        Self { raft, peers }
    }
}

/// Whom a caller's certificate names, when it is a manager's and the cluster has not taken the part
/// away from it.
pub(crate) fn manager_identity<T>(
    raft: &Raft,
    peers: &Peers,
    request: &Request<T>,
) -> Result<NodeIdentity, Status> {
    let identity = peers.identify(request)?;
    if identity.role != NodeRole::Manager {
        return Err(Status::permission_denied("only managers are spoken to here"));
    }
    check_role(raft, identity.node)?;
    Ok(identity)
}

/// A manager that joins knows no node yet, and takes whoever has a manager's certificate.
fn check_role(raft: &Raft, id: NodeId) -> Result<(), Status> {
    let store = raft.store();
    let Some(cluster) = store.cluster() else { return Ok(()) };
    let text = id.to_string();
    if cluster.state.removed.iter().any(|removed| removed.id == text) {
        return Err(removed(id));
    }
    match store.node(id) {
        Some(node) if node.present_role() == NodeRole::Manager => Ok(()),
        Some(_) => Err(Status::permission_denied(format!("node {id} is not a manager any more"))),
        // One that has just joined may be known to the leader alone.
        None if !raft.is_leader() => Ok(()),
        None => Err(removed(id)),
    }
}

#[tonic::async_trait]
impl raft_server::Raft for RaftService {
    async fn step(
        &self,
        request: Request<Streaming<RaftPart>>,
    ) -> Result<Response<StepResponse>, Status> {
        let identity = manager_identity(&self.raft, &self.peers, &request)?;
        let mut parts = request.into_inner();
        let mut large = Vec::new();
        while let Some(part) = parts.next().await.transpose()? {
            check_role(&self.raft, identity.node)?;
            if !part.address.is_empty() {
                self.peers.note_caller(part.from, &part.address);
            }
            for message in part.messages {
                self.raft.step(message);
            }
            if !part.piece.is_empty() {
                if large.len() + part.piece.len() > MAX_MESSAGE {
                    return Err(Status::resource_exhausted("a message of more than 1 GiB"));
                }
                large.extend(part.piece);
                if part.is_last {
                    self.raft.step(std::mem::take(&mut large));
                }
            }
        }
        Ok(Response::new(StepResponse {}))
    }
}
