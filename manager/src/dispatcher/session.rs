//! One agent's session. First everything that the node is to know, then what changes. While one
//! message is on its way, further commits gather into the next.

use std::pin::Pin;

use shoal_core::assignment::{Assignments, concerns};
use shoal_core::liveness::Turn;
use shoal_core::store::Change;
use shoal_proto::NodeId;
use shoal_proto::time::proto_duration;
use shoal_proto::v1::manager_message::Message;
use shoal_proto::v1::{
    AgentMessage, Assignments as AssignmentsMessage, Heartbeat, HeartbeatAck, ManagerMessage,
    Welcome, agent_message,
};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};

use super::leave::Held;
use super::{CHECK, Dispatcher, HEARTBEAT, standing};
use crate::join::removed;
use crate::raft::Commit;

type Outbound = Result<ManagerMessage, Status>;

/// Messages that wait for the connection. One: what changes meanwhile becomes one message.
const BACKLOG: usize = 1;

pub(super) fn serve(
    dispatcher: Dispatcher,
    node: NodeId,
    turn: Turn,
    inbound: Streaming<AgentMessage>,
) -> Pin<Box<dyn Stream<Item = Outbound> + Send>> {
    let (outbound, stream) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        let (direct, direct_inbox) = mpsc::unbounded_channel();
        dispatcher.shared.broker.add_session(node, direct.clone());
        let raft = dispatcher.shared.raft.clone();
        tokio::select! {
            () = send(&dispatcher, node, &outbound, direct_inbox) => {}
            () = receive(&dispatcher, node, turn, inbound, &direct) => {}
            () = raft.deposed() => {}
        }
        dispatcher.shared.broker.remove_session(node, &direct);
        tracing::info!(node.id = %node, "session over");
    });
    Box::pin(ReceiverStream::new(stream))
}

/// Ends when the agent is silent for too long, has gone, or has begun another session. Each
/// heartbeat that counts is acknowledged.
async fn receive(
    dispatcher: &Dispatcher,
    node: NodeId,
    turn: Turn,
    mut inbound: Streaming<AgentMessage>,
    direct: &mpsc::UnboundedSender<ManagerMessage>,
) {
    let mut check = tokio::time::interval(CHECK);
    loop {
        let message = tokio::select! {
            message = inbound.next() => message,
            _ = check.tick() => {
                // Whoever leads meanwhile is to hear of the node, and not this manager.
                if !dispatcher.is_current(node, turn) || !dispatcher.shared.raft.is_awake() {
                    return;
                }
                continue;
            }
        };
        let Some(Ok(message)) = message else { return };
        if !dispatcher.shared.raft.is_awake() || !dispatcher.heard(node, turn) {
            return;
        }
        match message.message {
            Some(agent_message::Message::Status(update)) => {
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
            Some(agent_message::Message::Heartbeat(Heartbeat { number })) => {
                let message = Some(Message::HeartbeatAck(HeartbeatAck { number }));
                // The sender ends together with the session.
                let _ = direct.send(ManagerMessage { message });
            }
            Some(agent_message::Message::Inventory(inventory)) => {
                if let Err(error) = dispatcher.note_inventory(node, &inventory).await {
                    tracing::warn!(node.id = %node, error = error.message(), "can't note its volumes");
                }
            }
            Some(agent_message::Message::Ack(ack)) => {
                dispatcher.shared.in_force.acknowledged(node, ack.sequence);
            }
            Some(agent_message::Message::Hello(_)) | None => {}
        }
    }
}

async fn send(
    dispatcher: &Dispatcher,
    node: NodeId,
    outbound: &mpsc::Sender<Outbound>,
    mut direct: mpsc::UnboundedReceiver<ManagerMessage>,
) {
    let raft = &dispatcher.shared.raft;
    let session = dispatcher.shared.in_force.begin(node);
    let mut held = Held::default();
    let (store, mut commits) = raft.commits();
    let Some(mut told) = standing::of(&store, node) else { return };
    let welcome = Message::Welcome(Welcome {
        node_id: node.to_string(),
        heartbeat_period: Some(proto_duration(HEARTBEAT)),
        standing: Some(told.clone()),
    });
    let mut known = Assignments::of(&store, node);
    let mut sequence = 1;
    session.told(store.version(), Some(sequence));
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
            commit = commits.recv() => Some(commit),
            () = held.changed(&session) => None,
            () = outbound.closed() => return,
        };
        let mut seen = Seen::default();
        match commit {
            Some(Ok(commit)) => seen.take(&commit, node),
            Some(Err(RecvError::Lagged(_))) => seen = Seen::ALL,
            Some(Err(RecvError::Closed)) => return,
            None => seen.assignments = true,
        }
        // Room on the connection first: what commits until then goes along.
        let Ok(mut permit) = outbound.reserve().await else { return };
        loop {
            match commits.try_recv() {
                Ok(commit) => seen.take(&commit, node),
                Err(TryRecvError::Lagged(_)) => seen = Seen::ALL,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Closed) => return,
            }
        }
        if seen.standing {
            let Some(now) = standing::of(&raft.store(), node) else {
                permit.send(Err(removed(node)));
                return;
            };
            if now != told {
                told = now;
                let message = Some(Message::Standing(told.clone()));
                permit.send(Ok(ManagerMessage { message }));
                let Ok(next) = outbound.reserve().await else { return };
                permit = next;
            }
        }
        if !seen.assignments {
            session.told(seen.version, None);
            continue;
        }
        let store = raft.store();
        let mut next = Assignments::of(&store, node);
        held.hold(&session, &known, &mut next, store.version());
        let changes = next.since(&known);
        known = next;
        if changes.is_empty() {
            session.told(store.version(), None);
            continue;
        }
        sequence += 1;
        session.told(store.version(), Some(sequence));
        let increment = AssignmentsMessage { full: false, sequence, changes };
        permit.send(Ok(ManagerMessage { message: Some(Message::Assignments(increment)) }));
    }
}

/// What may differ for a node.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    assignments: bool,
    standing: bool,
    /// The last commit's.
    version: u64,
}

impl Seen {
    const ALL: Self = Self { assignments: true, standing: true, version: 0 };

    fn take(&mut self, commit: &Commit, node: NodeId) {
        self.assignments |= commit.whole || commit.events.iter().any(|e| concerns(e, node));
        self.standing |= standing::may_differ(commit, node);
        self.version = self.version.max(commit.store.version());
    }
}
