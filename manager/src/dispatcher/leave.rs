//! Endpoints that leave: a task that took connections is told to stop when every other node has said
//! that it sends it none any more, or has had time enough to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_core::assignment::Assignments;
use shoal_proto::{NodeId, TaskId};
use tokio::sync::watch;
use tokio::time::Instant;

/// A node that does not answer holds nobody up for longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What each node that has a session goes by.
#[derive(Default)]
pub(super) struct InForce {
    nodes: Mutex<BTreeMap<NodeId, Told>>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Told {
    /// Tells its sessions apart.
    session: u64,
    /// The store up to which it has been told everything that concerns it.
    version: u64,
    /// Messages that it has not acknowledged: sequence number, and the store that it was made of.
    under_way: VecDeque<(u64, u64)>,
}

impl Told {
    fn has(&self, version: u64) -> bool {
        let oldest = self.under_way.front();
        self.version >= version && oldest.is_none_or(|(_, made_of)| *made_of > version)
    }
}

/// A node's session, until dropped.
pub(super) struct Session<'a> {
    all: &'a InForce,
    node: NodeId,
    number: u64,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let mut nodes = self.all.lock();
        if nodes.get(&self.node).is_some_and(|told| told.session == self.number) {
            nodes.remove(&self.node);
        }
        drop(nodes);
        self.all.note();
    }
}

impl InForce {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Told>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    pub(super) fn begin(&self, node: NodeId) -> Session<'_> {
        let mut nodes = self.lock();
        let number = nodes.get(&node).map_or(0, |told| told.session) + 1;
        nodes.insert(node, Told { session: number, ..Told::default() });
        Session { all: self, node, number }
    }

    /// The agent says that what it was told up to that message is in force.
    pub(super) fn acknowledged(&self, node: NodeId, sequence: u64) {
        if let Some(told) = self.lock().get_mut(&node) {
            while told.under_way.front().is_some_and(|(number, _)| *number <= sequence) {
                told.under_way.pop_front();
            }
        }
        self.note();
    }

    /// Whether all nodes but one go by that store.
    fn others_have(&self, version: u64, except: NodeId) -> bool {
        self.lock().iter().all(|(node, told)| *node == except || told.has(version))
    }
}

impl Session<'_> {
    /// It knows all that there is up to that store: with a message, or without one as nothing
    /// concerned it.
    pub(super) fn told(&self, version: u64, message: Option<u64>) {
        if let Some(told) = self.all.lock().get_mut(&self.node) {
            told.version = told.version.max(version);
            told.under_way.extend(message.map(|sequence| (sequence, version)));
        }
        self.all.note();
    }
}

/// Tasks of one node that are to stop and are not told so yet.
#[derive(Default)]
pub(super) struct Held {
    /// Each with the store by which it leaves, and until when it is held.
    tasks: BTreeMap<TaskId, (u64, Instant)>,
}

impl Held {
    /// Takes out of `next` what waits for other nodes still.
    pub(super) fn hold(
        &mut self,
        session: &Session<'_>,
        known: &Assignments,
        next: &mut Assignments,
        version: u64,
    ) {
        let now = Instant::now();
        let leaving = next.leaving(known);
        self.tasks.retain(|task, _| leaving.contains(task));
        for task in leaving {
            self.tasks.entry(task).or_insert((version, now + PATIENCE));
        }
        let waits = |(version, until): &(u64, Instant)| {
            now < *until && !session.all.others_have(*version, session.node)
        };
        let waiting: Vec<TaskId> =
            self.tasks.iter().filter(|(_, held)| waits(held)).map(|(task, _)| *task).collect();
        self.tasks.retain(|task, _| waiting.contains(task));
        next.hold_back(known, &waiting);
    }

    /// Until it is worth looking again; never when nothing is held.
    pub(super) async fn changed(&self, session: &Session<'_>) {
        let Some(until) = self.tasks.values().map(|(_, until)| *until).min() else {
            return std::future::pending().await;
        };
        let mut changes = session.all.changed.subscribe();
        let all_have = || {
            let mut held = self.tasks.values();
            held.any(|(version, _)| session.all.others_have(*version, session.node))
        };
        loop {
            if all_have() {
                return;
            }
            tokio::select! {
                // The sender lives as long as the session.
                _ = changes.changed() => {}
                () = tokio::time::sleep_until(until) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_what_it_has_acknowledged_and_what_did_not_concern_it() {
        let (a, b) = (NodeId::from_bits(1), NodeId::from_bits(2));
        let all = InForce::default();
        assert!(all.others_have(5, a), "there are no others");
        let other = all.begin(b);
        assert!(!all.others_have(5, a), "it has not been told");
        other.told(4, Some(1));
        assert!(!all.others_have(4, a), "it has not said so");
        all.acknowledged(b, 1);
        assert!(all.others_have(4, a) && !all.others_have(5, a));
        other.told(5, None);
        assert!(all.others_have(5, a), "that was nothing to it");
        other.told(7, Some(2));
        assert!(all.others_have(6, a) && !all.others_have(7, a));
        assert!(all.others_have(7, b), "itself is not asked");
        // A new session begins with nothing; the end of the old one changes nothing in it.
        let again = all.begin(b);
        drop(other);
        assert!(!all.others_have(1, a));
        drop(again);
        assert!(all.others_have(9, a), "one that is gone holds nobody up");
    }
}
