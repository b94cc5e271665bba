//! Which nodes are there: when each was last heard of, and which of its sessions counts.
//!
//! It lives in the leader's memory alone. A new leader gives every node the whole time once, and
//! writes nothing: only a node that stays silent changes in the store.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_proto::NodeId;

/// A time since an origin that its user has chosen.
pub type Instant = Duration;

/// A session's number among those of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn(u64);

#[derive(Debug, Clone, Copy)]
struct Word {
    turn: u64,
    at: Instant,
    /// Its session has been let in.
    welcome: bool,
}

/// When each node was last heard of.
#[derive(Debug, Default)]
pub struct Liveness {
    nodes: BTreeMap<NodeId, Word>,
    /// No two sessions have the same number.
    last_turn: u64,
}

impl Liveness {
    /// Forgets what was, and waits for these as if they were heard of at `now`, which may be a time
    /// to come. Sessions of an earlier time that this manager led are over.
    pub fn take_over(&mut self, nodes: impl Iterator<Item = NodeId>, now: Instant) {
        self.nodes.clear();
        self.adopt(nodes, now);
    }

    /// Waits for these too, where they are not waited for: whatever else went wrong, a node that
    /// counts as ready is watched.
    pub fn adopt(&mut self, nodes: impl Iterator<Item = NodeId>, now: Instant) {
        for node in nodes {
            self.nodes.entry(node).or_insert(Word { turn: 0, at: now, welcome: false });
        }
    }

    /// A session begins: those before it count no more.
    pub fn begin(&mut self, node: NodeId, now: Instant) -> Turn {
        self.last_turn += 1;
        self.nodes.insert(node, Word { turn: self.last_turn, at: now, welcome: false });
        Turn(self.last_turn)
    }

    /// A session has been let in: its node is noted as ready.
    pub fn welcome(&mut self, node: NodeId, turn: Turn) {
        if let Some(word) = self.nodes.get_mut(&node).filter(|word| word.turn == turn.0) {
            word.welcome = true;
        }
    }

    /// Whether a node has a session that was let in. That it was lost may be noted after that, when
    /// it came back in the same moment: then that is not so.
    #[must_use]
    pub fn is_welcome(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|word| word.welcome)
    }

    /// A word in a session; false when the session counts no more.
    pub fn heard(&mut self, node: NodeId, turn: Turn, now: Instant) -> bool {
        match self.nodes.get_mut(&node) {
            Some(word) if word.turn == turn.0 => {
                word.at = now;
                true
            }
            _ => false,
        }
    }

    /// Whether the session is the node's newest.
    #[must_use]
    pub fn is_current(&self, node: NodeId, turn: Turn) -> bool {
        self.nodes.get(&node).is_some_and(|word| word.turn == turn.0)
    }

    /// Nodes that have been silent for that long, each told of once.
    pub fn take_silent(&mut self, patience: Duration, now: Instant) -> Vec<NodeId> {
        let silent = self.nodes.iter().filter(|(_, word)| word.at + patience <= now);
        let silent: Vec<NodeId> = silent.map(|(node, _)| *node).collect();
        for node in &silent {
            self.nodes.remove(node);
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);

    fn at(seconds: u64) -> Instant {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_node_is_lost_when_it_is_silent_for_the_whole_time_and_told_of_once() {
        let (mut liveness, node) = (Liveness::default(), NodeId::from_bits(1));
        let turn = liveness.begin(node, at(0));
        assert!(liveness.heard(node, turn, at(2)));
        assert_eq!(liveness.take_silent(PATIENCE, at(4)), []);
        assert_eq!(liveness.take_silent(PATIENCE, at(5)), [node]);
        assert_eq!(liveness.take_silent(PATIENCE, at(9)), []);
        assert!(!liveness.heard(node, turn, at(9)), "it begins anew");
    }

    #[test]
    fn only_the_newest_session_counts() {
        let (mut liveness, node) = (Liveness::default(), NodeId::from_bits(1));
        let old = liveness.begin(node, at(0));
        let new = liveness.begin(node, at(2));
        assert!(!liveness.heard(node, old, at(4)) && liveness.is_current(node, new));
        assert_eq!(liveness.take_silent(PATIENCE, at(5)), [node]);
    }

    #[test]
    fn a_new_leader_gives_every_node_the_whole_time_once() {
        let (mut liveness, node) = (Liveness::default(), NodeId::from_bits(1));
        let before = liveness.begin(node, at(0));
        liveness.take_over([node].into_iter(), at(100));
        assert!(!liveness.heard(node, before, at(101)), "a session of the last time that it led");
        assert_eq!(liveness.take_silent(PATIENCE, at(102)), []);
        assert_eq!(liveness.take_silent(PATIENCE, at(103)), [node]);
    }
}
