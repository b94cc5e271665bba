//! Moves tasks to nodes that came or returned, when operators want it: one after the other, each
//! replaced before it stops. What runs well is left alone otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use shoal_proto::NodeId;
use shoal_proto::v1::{NodeAvailability, NodeState, PlacementStrategy, TaskState};

use super::memory::Memory;
use crate::context::Context;
use crate::node::unsteady_until;
use crate::placement::{Rules, Subject};
use crate::settings::Settings;
use crate::store::{Changes, Node, Service, ServiceMode, Store, Task};

/// Moves one task, when it is time to and something is uneven. Returns when to look again.
pub fn rebalance(
    store: &Store,
    memory: &mut Memory,
    context: &Context<'_>,
    changes: &mut Changes,
) -> Option<SystemTime> {
    let settings = Settings::of(store);
    let is_busy = store.pending_tasks().next().is_some() || store.new_tasks().next().is_some();
    if !settings.rebalance || is_busy {
        return None;
    }
    let passed = memory.moved_at.map(|at| memory.uptime().saturating_sub(at));
    if let Some(left) = passed.and_then(|passed| settings.rebalance_interval.checked_sub(passed))
        && !left.is_zero()
    {
        return Some(context.now + left);
    }
    for service in store.services().filter(|service| is_at_rest(store, service)) {
        let places = Places::of(store, service, context.now);
        let Some(node) = places.fullest(0, &places.nodes.keys().copied().collect::<Vec<_>>())
        else {
            memory.is_even(service.id);
            continue;
        };
        // A move that has changed nothing is not tried again before something else has.
        let counts = places.counts();
        if memory.moved_in_vain(service.id, &counts) {
            continue;
        }
        let Some(task) = places.newest(store, node) else { continue };
        memory.moves(service.id, counts);
        changes.update(context, Task { moving: true, ..(*task).clone() });
        return Some(context.now + settings.rebalance_interval);
    }
    // Those that come and go are left out until they have stayed for a while.
    let ready = store.nodes().filter(|node| node.status.state() == NodeState::Ready);
    ready.filter_map(|node| unsteady_until(node, context.now)).min()
}

/// All of its tasks run, are of one spec, and may be moved.
fn is_at_rest(store: &Store, service: &Service) -> bool {
    let ServiceMode::Replicated(replicas) = service.mode() else { return false };
    let placement = service.spec.task.as_ref().and_then(|task| task.placement.as_ref());
    let is_even = placement.is_none_or(|placement| {
        placement.strategy() == PlacementStrategy::Spread
            && placement.affinities.iter().all(|affinity| affinity.preferred)
    });
    let has_volumes = service.spec.task.iter().flat_map(|task| &task.container).any(|container| {
        container.mounts.iter().any(|mount| !mount.source.is_empty() && !mount.movable)
    });
    let mut running = 0;
    for task in store.service_tasks(service.id).filter(|task| !task.state().is_terminal()) {
        let is_settled = task.state() == TaskState::Running
            && task.desired == TaskState::Running
            && task.spec_version == service.spec_version
            && !task.moving
            && !store.is_lost(task);
        if !is_settled {
            return false;
        }
        running += 1;
    }
    is_even && !has_volumes && !service.removing && running == replicas
}

/// A service's tasks by node, of all nodes that may have some.
struct Places<'a> {
    nodes: BTreeMap<NodeId, (&'a Arc<Node>, usize)>,
    service: &'a Service,
    levels: Vec<Subject>,
}

impl<'a> Places<'a> {
    fn of(store: &'a Store, service: &'a Service, now: SystemTime) -> Self {
        let rules = Rules::of(&service.task_spec());
        let fits = |node: &&Arc<Node>| {
            node.status.state() == NodeState::Ready
                && node.spec.availability() == NodeAvailability::Active
                && unsteady_until(node, now).is_none()
                && rules.broken(node).is_none()
        };
        let nodes = store.nodes().filter(fits);
        let mut nodes: BTreeMap<_, _> = nodes.map(|node| (node.id, (node, 0))).collect();
        for task in store.service_tasks(service.id).filter(|task| task.is_live()) {
            if let Some((_, count)) = task.node.and_then(|node| nodes.get_mut(&node)) {
                *count += 1;
            }
        }
        let placement = service.spec.task.as_ref().and_then(|task| task.placement.as_ref());
        let levels = placement.into_iter().flat_map(|placement| &placement.spread);
        let levels = levels.filter_map(|level| level.parse().ok()).collect();
        Self { nodes, service, levels }
    }

    fn counts(&self) -> Vec<usize> {
        let mut counts: Vec<usize> = self.nodes.values().map(|(_, count)| *count).collect();
        counts.sort_unstable();
        counts
    }

    fn sum(&self, nodes: &[NodeId]) -> usize {
        nodes.iter().filter_map(|node| self.nodes.get(node)).map(|(_, count)| count).sum()
    }

    /// The node that has two more than another has, or that is in a group that has, on the first
    /// level where that is so.
    fn fullest(&self, level: usize, nodes: &[NodeId]) -> Option<NodeId> {
        let mut groups: BTreeMap<String, Vec<NodeId>> = BTreeMap::new();
        for id in nodes {
            let Some((node, _)) = self.nodes.get(id) else { continue };
            let value = match self.levels.get(level) {
                Some(subject) => subject.of(node).unwrap_or_default(),
                None => id.to_string(),
            };
            groups.entry(value).or_default().push(*id);
        }
        let sums = || groups.values().map(|nodes| (self.sum(nodes), nodes));
        let (most, fullest) = sums().max_by_key(|(sum, _)| *sum)?;
        let (least, _) = sums().min_by_key(|(sum, _)| *sum)?;
        if most >= least + 2 {
            return fullest.iter().copied().max_by_key(|node| self.sum(&[*node]));
        }
        if level >= self.levels.len() {
            return None;
        }
        groups.values().find_map(|nodes| self.fullest(level + 1, nodes))
    }

    fn newest(&self, store: &Store, node: NodeId) -> Option<Arc<Task>> {
        let tasks = store
            .service_tasks(self.service.id)
            .filter(|task| task.is_live() && task.node == Some(node));
        let created =
            |task: &&Arc<Task>| (task.meta.created_at.seconds, task.meta.created_at.nanos, task.id);
        tasks.max_by_key(created).cloned()
    }
}
