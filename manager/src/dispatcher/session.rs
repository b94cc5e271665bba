//! One agent's session. First everything that the node is to know, then what changes. While one
//! message is on its way, further commits gather into the next.

use std::pin::Pin;
use std::time::Duration;

use shoal_core::assignment::{Assignments, concerns};
use shoal_core::store::Change;
use shoal_proto::NodeId;
use shoal_proto::time::proto_duration;
use shoal_proto::v1::manager_message::Message;
use shoal_proto::v1::{
    AgentMessage, Assignments as AssignmentsMessage, ManagerMessage, Welcome, agent_message,
};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};

use super::{Dispatcher, GRACE, HEARTBEAT};
use crate::raft::{Commit, Raft};

/// How often an agent's silence is looked at.
const CHECK: Duration = Duration::from_millis(100);

type Outbound = Result<ManagerMessage, Status>;

/// Messages that wait for the connection. One: what changes meanwhile becomes one message.
const BACKLOG: usize = 1;

pub(super) fn serve(
    dispatcher: Dispatcher,
    node: NodeId,
    turn: u64,
    inbound: Streaming<AgentMessage>,
) -> Pin<Box<dyn Stream<Item = Outbound> + Send>> {
    let (outbound, stream) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        let (direct, direct_inbox) = mpsc::unbounded_channel();
        dispatcher.shared.broker.add_session(node, direct.clone());
        let raft = dispatcher.shared.raft.clone();
        let mut heard = Instant::now();
        tokio::select! {
            () = send(&raft, node, &outbound, direct_inbox) => {}
            () = receive(&dispatcher, node, turn, inbound, &mut heard) => {}
        }
        dispatcher.shared.broker.remove_session(node, &direct);
        tracing::info!(node.id = %node, "session over");
        dispatcher.end(node, turn, heard).await;
    });
    Box::pin(ReceiverStream::new(stream))
}

/// Ends when the agent is silent for too long, has gone, or has begun another session.
async fn receive(
    dispatcher: &Dispatcher,
    node: NodeId,
    turn: u64,
    mut inbound: Streaming<AgentMessage>,
    heard: &mut Instant,
) {
    let mut check = tokio::time::interval(CHECK);
    loop {
        let message = tokio::select! {
            message = inbound.next() => message,
            _ = check.tick() => {
                if heard.elapsed() > GRACE || !dispatcher.is_current(node, turn) {
                    return;
                }
                continue;
            }
        };
        let Some(Ok(message)) = message else { return };
        *heard = Instant::now();
        if let Some(agent_message::Message::Status(update)) = message.message {
            for update in update.updates {
                let (Ok(task), Some(status)) = (update.task_id.parse(), update.status) else {
                    continue;
                };
                // A node reports on its own tasks, nobody else's.
                let store = dispatcher.shared.raft.store();
                if store.task(task).is_some_and(|task| task.node == Some(node)) {
                    dispatcher.shared.reports.add(Change::Report { task, status }).await;
                }
            }
        }
    }
}

async fn send(
    raft: &Raft,
    node: NodeId,
    outbound: &mpsc::Sender<Outbound>,
    mut direct: mpsc::UnboundedReceiver<ManagerMessage>,
) {
    let (store, mut commits) = raft.commits();
    let welcome = Message::Welcome(Welcome {
        node_id: node.to_string(),
        heartbeat_period: Some(proto_duration(HEARTBEAT)),
    });
    let mut known = Assignments::of(&store, node);
    let mut sequence = 1;
    let full = AssignmentsMessage { full: true, sequence, changes: known.all() };
    for message in [welcome, Message::Assignments(full)] {
        if outbound.send(Ok(ManagerMessage { message: Some(message) })).await.is_err() {
            return;
        }
    }
    loop {
        let commit = tokio::select! {
            message = direct.recv() => {
                let Some(message) = message else { return };
                if outbound.send(Ok(message)).await.is_err() {
                    return;
                }
                continue;
            }
            commit = commits.recv() => commit,
            () = outbound.closed() => return,
        };
        let mut dirty = match commit {
            Ok(commit) => touches(&commit, node),
            Err(RecvError::Lagged(_)) => true,
            Err(RecvError::Closed) => return,
        };
        // Room on the connection first: what commits until then goes along.
        let Ok(permit) = outbound.reserve().await else { return };
        loop {
            match commits.try_recv() {
                Ok(commit) => dirty |= touches(&commit, node),
                Err(TryRecvError::Lagged(_)) => dirty = true,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Closed) => return,
            }
        }
        if !dirty {
            continue;
        }
        let next = Assignments::of(&raft.store(), node);
        let changes = next.since(&known);
        known = next;
        if changes.is_empty() {
            continue;
        }
        sequence += 1;
        let increment = AssignmentsMessage { full: false, sequence, changes };
        permit.send(Ok(ManagerMessage { message: Some(Message::Assignments(increment)) }));
    }
}

fn touches(commit: &Commit, node: NodeId) -> bool {
    commit.whole || commit.events.iter().any(|event| concerns(event, node))
}
