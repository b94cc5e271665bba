//! Even over the values of labels, level by level: among those with the fewest tasks of the
//! service on the first level those with the fewest on the second, and so on; then the best node.
//!
//! While tasks are being placed, nodes only fill up: a node that refused one refuses the next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::kind::Rank;
use super::load::{Loads, NodeLoad};
use crate::placement::Subject;
use shoal_proto::ServiceId;

/// Tasks of a service by what the nodes have of each level.
#[derive(Debug, Default)]
pub(super) struct Groups {
    levels: Vec<Subject>,
    counts: BTreeMap<Vec<String>, usize>,
}

impl Groups {
    pub(super) fn of(levels: Vec<Subject>, service: ServiceId, loads: &Loads) -> Self {
        let mut groups = Self { levels, counts: BTreeMap::new() };
        for load in loads.iter() {
            groups.add(load, load.of_service(service));
        }
        groups
    }

    /// A node without a label is one of those whose label is empty.
    fn path(&self, load: &NodeLoad) -> Vec<String> {
        self.levels.iter().map(|level| level.of(&load.node).unwrap_or_default()).collect()
    }

    pub(super) fn add(&mut self, load: &NodeLoad, tasks: usize) {
        if self.levels.is_empty() {
            return;
        }
        let path = self.path(load);
        for level in 1..=path.len() {
            *self.counts.entry(path[..level].to_vec()).or_default() += tasks;
        }
    }

    /// Tasks of the service in the node's group of each level.
    pub(super) fn counts(&self, load: &NodeLoad) -> Vec<usize> {
        let path = self.path(load);
        let count = |level| self.counts.get(&path[..level]).copied().unwrap_or(0);
        (1..=path.len()).map(count).collect()
    }
}

/// The nodes that may be taken, so that many equal tasks don't look at all nodes each.
#[derive(Debug)]
pub(super) enum Tree {
    /// By count of tasks and number of the child.
    Inner { order: BTreeSet<(usize, usize)>, children: Vec<Tree> },
    /// The best first. A rank only gets worse, so that one that is out of date is found when it
    /// comes first.
    Leaf(BinaryHeap<Reverse<(Rank, usize)>>),
}

impl Tree {
    pub(super) fn new(groups: &Groups, nodes: Vec<(Rank, usize)>, loads: &Loads) -> Self {
        let nodes =
            nodes.into_iter().map(|(rank, index)| (groups.path(loads.at(index)), (rank, index)));
        Self::build(groups, &[], nodes.collect())
    }

    fn build(groups: &Groups, prefix: &[String], nodes: Vec<(Vec<String>, (Rank, usize))>) -> Self {
        let level = prefix.len();
        if level == groups.levels.len() {
            return Self::Leaf(nodes.into_iter().map(|(_, node)| Reverse(node)).collect());
        }
        let mut by_value: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for node in nodes {
            by_value.entry(node.0[level].clone()).or_default().push(node);
        }
        let (mut order, mut children) = (BTreeSet::new(), Vec::new());
        for (value, nodes) in by_value {
            let path: Vec<String> = prefix.iter().cloned().chain([value]).collect();
            let count = groups.counts.get(&path).copied().unwrap_or(0);
            order.insert((count, children.len()));
            children.push(Self::build(groups, &path, nodes));
        }
        Self::Inner { order, children }
    }

    /// The best node that is not refused; it stays, for the next one.
    pub(super) fn take(
        &mut self,
        refused: &dyn Fn(usize) -> bool,
        rank: &dyn Fn(usize) -> Rank,
    ) -> Option<usize> {
        match self {
            Self::Inner { order, children } => {
                while let Some((count, child)) = order.pop_first() {
                    if let Some(index) = children[child].take(refused, rank) {
                        order.insert((count + 1, child));
                        return Some(index);
                    }
                }
                None
            }
            Self::Leaf(nodes) => {
                while let Some(Reverse((noted, index))) = nodes.pop() {
                    if refused(index) {
                        continue;
                    }
                    let current = rank(index);
                    nodes.push(Reverse((current, index)));
                    // Packed nodes get better as they fill: one that has stays the best.
                    if current <= noted {
                        return Some(index);
                    }
                }
                None
            }
        }
    }
}

/// The levels of a service's spread.
pub(super) fn levels(service: &[String]) -> Vec<Subject> {
    service.iter().filter_map(|text| text.parse().ok()).collect()
}
