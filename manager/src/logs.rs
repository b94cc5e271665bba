//! Brings the logs of tasks from the nodes that have them to whoever reads: a subscription goes
//! down the nodes' sessions, lines come back on streams of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use shoal_proto::NodeId;
use shoal_proto::v1::manager_message::Message;
use shoal_proto::v1::{LogEntry, LogOptions, LogSubscription, ManagerMessage};
use tokio::sync::mpsc;

/// Entries on their way to one reader; a node's stream waits when there are more.
const BACKLOG: usize = 256;

/// Sessions that a subscription can be sent to, and subscriptions that lines can come for.
#[derive(Default)]
pub(crate) struct LogBroker {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sessions: BTreeMap<NodeId, mpsc::UnboundedSender<ManagerMessage>>,
    readers: BTreeMap<String, Reader>,
    number: u64,
}

struct Reader {
    /// Whose lines it waits for.
    node: NodeId,
    entries: mpsc::Sender<LogEntry>,
}

/// Ends a subscription, however its stream ends.
pub(crate) struct Finish<'a> {
    broker: &'a LogBroker,
    id: String,
}

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.broker.state().readers.remove(&self.id);
    }
}

/// A reader's end. Dropping it tells the nodes to stop.
pub(crate) struct Subscription<'a> {
    broker: &'a LogBroker,
    entries: mpsc::Receiver<LogEntry>,
    sender: Option<mpsc::Sender<LogEntry>>,
    /// Ids sent out, with the node of each.
    open: BTreeMap<String, NodeId>,
}

impl LogBroker {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_session(&self, node: NodeId, sender: mpsc::UnboundedSender<ManagerMessage>) {
        self.state().sessions.insert(node, sender);
    }

    /// Only if it is still that session's turn: the node may be back already.
    pub(crate) fn remove_session(
        &self,
        node: NodeId,
        sender: &mpsc::UnboundedSender<ManagerMessage>,
    ) {
        let mut state = self.state();
        if state.sessions.get(&node).is_some_and(|current| current.same_channel(sender)) {
            state.sessions.remove(&node);
            // Nothing more comes for them; a reader that is full finds out by their end.
            for reader in state.readers.values().filter(|reader| reader.node == node) {
                let _ = reader.entries.try_send(LogEntry {
                    node_id: node.to_string(),
                    error: "the node was lost; its part of the logs ends here".to_owned(),
                    ..LogEntry::default()
                });
            }
            state.readers.retain(|_, reader| reader.node != node);
        }
    }

    /// Where lines of a node for a subscription go; none when its reader has gone, or waits for
    /// another node's.
    pub(crate) fn reader(&self, id: &str, node: NodeId) -> Option<mpsc::Sender<LogEntry>> {
        let state = self.state();
        let reader = state.readers.get(id).filter(|reader| reader.node == node)?;
        Some(reader.entries.clone())
    }

    /// All lines of the subscription have come when the answer is dropped.
    pub(crate) fn finish_when_dropped(&self, id: String) -> Finish<'_> {
        Finish { broker: self, id }
    }

    pub(crate) fn subscribe(&self) -> Subscription<'_> {
        let (sender, entries) = mpsc::channel(BACKLOG);
        Subscription { broker: self, entries, sender: Some(sender), open: BTreeMap::new() }
    }
}

impl Subscription<'_> {
    /// Asks a node for the logs of some of its tasks; false when it has no session.
    pub(crate) fn ask(
        &mut self,
        node: NodeId,
        tasks: &BTreeSet<String>,
        options: LogOptions,
    ) -> bool {
        let mut state = self.broker.state();
        state.number += 1;
        let id = state.number.to_string();
        let message = Message::LogSubscription(LogSubscription {
            id: id.clone(),
            task_ids: tasks.iter().cloned().collect(),
            options: Some(options),
            close: false,
        });
        let (Some(session), Some(sender)) = (state.sessions.get(&node), &self.sender) else {
            return false;
        };
        if session.send(ManagerMessage { message: Some(message) }).is_err() {
            return false;
        }
        state.readers.insert(id.clone(), Reader { node, entries: sender.clone() });
        self.open.insert(id, node);
        true
    }

    /// No further node will be asked: the entries end when the last one has sent all.
    pub(crate) fn close(&mut self) {
        self.sender = None;
    }

    /// The next line; none after the last.
    pub(crate) async fn next(&mut self) -> Option<LogEntry> {
        self.entries.recv().await
    }
}

impl Drop for Subscription<'_> {
    fn drop(&mut self) {
        let mut state = self.broker.state();
        for (id, node) in &self.open {
            if state.readers.remove(id).is_none() {
                continue;
            }
            let close = LogSubscription { id: id.clone(), close: true, ..Default::default() };
            let message = Some(Message::LogSubscription(close));
            if let Some(session) = state.sessions.get(node) {
                // A session that has ended has ended its subscriptions too.
                let _ = session.send(ManagerMessage { message });
            }
        }
    }
}
