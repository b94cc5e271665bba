//! What the store says of whether a node is there. Only changes between ready and down are written;
//! the heartbeats in between are the leader's own affair ([`crate::liveness`]).

use std::time::{Duration, SystemTime};

use shoal_proto::Timestamp;
use shoal_proto::time::{system_time, timestamp};
use shoal_proto::v1::{NodeDescription, NodeState};

use crate::store::{Node, Store};

/// A node that was lost and stays for this long is as good as any.
const FORGIVEN: Duration = Duration::from_secs(600);
/// A node that was lost twice gets no new tasks for this long, and for twice as long each time
/// that it is lost again.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What an agent says when it begins a session.
#[derive(Debug, Clone, Default)]
pub struct Arrival {
    /// The node's name.
    pub name: String,
    /// Where others find it.
    pub address: String,
    /// Its host.
    pub description: NodeDescription,
}

/// The node with what its agent says, ready.
#[must_use]
pub fn arrived(store: &Store, node: &Node, arrival: &Arrival, now: SystemTime) -> Node {
    let mut node = node.clone();
    let is_taken =
        |name: &str| store.nodes().any(|other| other.id != node.id && other.spec.name == name);
    // Two nodes of one name could not be told apart.
    if !arrival.name.is_empty() && !is_taken(&arrival.name) {
        node.spec.name.clone_from(&arrival.name);
    }
    node.description.clone_from(&arrival.description);
    node.status.address.clone_from(&arrival.address);
    node.status.message.clear();
    if node.status.state() != NodeState::Ready {
        node.status.set_state(NodeState::Ready);
        node.status.changed_at = Some(timestamp(now));
    }
    node
}

/// The node when it was noted as lost and is there after all.
#[must_use]
pub fn revived(node: &Node, now: SystemTime) -> Node {
    let mut node = node.clone();
    node.status.set_state(NodeState::Ready);
    node.status.message.clear();
    node.status.changed_at = Some(timestamp(now));
    node
}

/// The node when its agent has been silent for too long.
#[must_use]
pub fn lost(node: &Node, now: SystemTime) -> Node {
    let mut node = node.clone();
    let stayed = node.status.changed_at.as_ref().map(|at| since(at, now));
    let forgiven = stayed.is_some_and(|stayed| stayed >= FORGIVEN);
    node.status.losses = if forgiven { 1 } else { node.status.losses.saturating_add(1) };
    node.status.set_state(NodeState::Down);
    node.status.message = "its agent has not been heard of".to_owned();
    node.status.changed_at = Some(timestamp(now));
    node
}

/// Until when a node that comes and goes gets no new tasks; none when it may have them.
#[must_use]
pub fn unsteady_until(node: &Node, now: SystemTime) -> Option<SystemTime> {
    if node.status.state() != NodeState::Ready || node.status.losses < 2 {
        return None;
    }
    let back = system_time(node.status.changed_at.as_ref()?);
    let doublings = (node.status.losses - 2).min(16);
    let until = back + (FIRST_PAUSE * 2u32.pow(doublings)).min(LONGEST_PAUSE);
    (until > now).then_some(until)
}

fn since(at: &Timestamp, now: SystemTime) -> Duration {
    now.duration_since(system_time(at)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn back(node: &Node, now: SystemTime) -> Node {
        arrived(&Store::default(), node, &Arrival::default(), now)
    }

    #[test]
    fn a_node_that_comes_and_goes_gets_nothing_new_for_longer_each_time() {
        let node = lost(&node(1), at(0));
        let node = back(&node, at(10));
        assert_eq!(unsteady_until(&node, at(10)), None, "once can happen to any");
        let node = back(&lost(&node, at(20)), at(30));
        assert_eq!(unsteady_until(&node, at(30)), Some(at(40)));
        assert_eq!(unsteady_until(&node, at(40)), None);
        let node = back(&lost(&node, at(50)), at(60));
        assert_eq!(unsteady_until(&node, at(60)), Some(at(80)));
        let node = back(&lost(&node, at(60 + 600)), at(700));
        assert_eq!(unsteady_until(&node, at(700)), None, "it had stayed for ten minutes");
    }

    #[test]
    fn a_session_that_begins_anew_changes_no_times() {
        let node = back(&lost(&node(1), at(0)), at(10));
        assert_eq!(back(&node, at(20)), node);
    }

    #[test]
    fn a_taken_name_stays_the_others() {
        let mut cluster = crate::testing::Cluster::default();
        cluster.put(node(1));
        cluster.put(node(2));
        let arrival = Arrival { name: "node-1".to_owned(), ..Arrival::default() };
        let second = cluster.store.nodes().find(|node| node.spec.name == "node-2").unwrap();
        assert_eq!(arrived(&cluster.store, second, &arrival, at(0)).spec.name, "node-2");
    }
}
