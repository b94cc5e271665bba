//! Tasks that want the same of a node: those of one service and one spec.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use shoal_proto::v1::{PlacementStrategy, PortSpec, TaskSpec, TaskState};
use shoal_proto::{NodeId, ServiceId};

use super::filter::{self, Refusal};
use super::load::{Amounts, Loads, NodeLoad, has_own_volumes, volumes};
use super::spread::{self, Groups, Tree};
use crate::node::unsteady_until;
use crate::placement::{Rules, Subject};
use crate::store::{Node, Slot, Store, Task};

/// What makes a node better than another, the weightiest first: not coming and going; the kind's
/// tasks don't keep failing there; preferences that are not met; then, spread: fewer tasks of the
/// service, fewer tasks; packed: fuller; and a smaller id.
pub(super) type Rank = (bool, bool, usize, u64, u64, NodeId);

/// The kind, and what has been found out about it in this run.
pub(super) struct Kind {
    pub(super) service: ServiceId,
    spec_version: u64,
    spec: Arc<TaskSpec>,
    ports: Vec<PortSpec>,
    pub(super) rules: Rules,
    pub(super) max_per_node: Option<u64>,
    /// Named volumes that some node has; of the task that is looked at, where each has its own.
    pub(super) volumes: Vec<String>,
    has_own_volumes: bool,
    near: Vec<Near>,
    packs: bool,
    groups: Groups,
    /// Made for the first task that may go anywhere.
    tree: Option<Tree>,
    /// Tasks of the service that are wanted, by slot.
    by_slot: Option<BTreeMap<Slot, Vec<Arc<Task>>>>,
    /// Why none is left.
    refusal: Option<String>,
}

/// A service to be near to, or away from.
struct Near {
    service: String,
    /// None: the node itself.
    topology: Option<Subject>,
    text: String,
    anti: bool,
    preferred: bool,
    /// It is the kind's own.
    is_own: bool,
    /// Its tasks by what their nodes have of the topology.
    counts: BTreeMap<String, usize>,
}

/// What older tasks of a slot have on a node, for one that takes over from them.
pub(super) struct HandedOver {
    pub(super) tasks: usize,
    pub(super) amounts: Amounts,
    /// Of each rule of [`Kind::near`], how many older tasks of the slot it counts here.
    near: Vec<usize>,
}

impl Kind {
    pub(super) fn new(store: &Store, task: &Task, loads: &Loads) -> Self {
        let placement = task.spec.placement.clone().unwrap_or_default();
        let own = store.service(task.service).map(|service| service.spec.name.clone());
        let near = placement.affinities.iter().map(|affinity| {
            let topology = affinity.topology.parse::<Subject>().ok();
            let target = store.service_by_name(&affinity.service).map(|service| service.id);
            let mut near = Near {
                service: affinity.service.clone(),
                topology,
                text: affinity.topology.clone(),
                anti: affinity.anti,
                preferred: affinity.preferred,
                is_own: own.as_ref() == Some(&affinity.service),
                counts: BTreeMap::new(),
            };
            for load in loads.iter() {
                let count = target.map_or(0, |target| load.of_service(target));
                if let Some(value) = near.value(&load.node).filter(|_| count > 0) {
                    *near.counts.entry(value).or_default() += count;
                }
            }
            near
        });
        Self {
            service: task.service,
            spec_version: task.spec_version,
            spec: Arc::clone(&task.spec),
            ports: task.ports.clone(),
            rules: Rules::of(&task.spec),
            max_per_node: match placement.max_replicas_per_node {
                0 => None,
                bound => Some(bound),
            },
            volumes: placed_volumes(task, loads),
            has_own_volumes: has_own_volumes(&task.spec),
            near: near.collect(),
            packs: placement.strategy() == PlacementStrategy::Pack,
            groups: Groups::of(spread::levels(&placement.spread), task.service, loads),
            tree: None,
            by_slot: None,
            refusal: None,
        }
    }

    pub(super) fn is_of(&self, task: &Task) -> bool {
        self.service == task.service
            && self.spec_version == task.spec_version
            && (Arc::ptr_eq(&self.spec, &task.spec) || self.spec == task.spec)
            && self.ports == task.ports
    }

    /// The best node for the task, or why there is none.
    pub(super) fn find(
        &mut self,
        store: &Store,
        task: &Task,
        loads: &Loads,
        now: SystemTime,
    ) -> Result<usize, String> {
        if self.has_own_volumes {
            self.volumes = placed_volumes(task, loads);
        }
        if let Some(node) = task.only_node {
            return self.only(store, task, loads.index_of(node), loads);
        }
        // What one that is held may have depends on its slot.
        if task.desired < TaskState::Running || self.has_own_volumes {
            return self.scan(store, task, loads, now);
        }
        if let Some(words) = &self.refusal {
            return Err(words.clone());
        }
        let mut tree = match self.tree.take() {
            Some(tree) => tree,
            None => {
                let fit = loads.iter().enumerate();
                let fit = fit.filter(|(_, load)| filter::refusal(self, task, load, None).is_none());
                let ranked = fit.map(|(index, load)| (self.rank(load, now), index)).collect();
                Tree::new(&self.groups, ranked, loads)
            }
        };
        let refused = |index: usize| filter::refusal(self, task, loads.at(index), None).is_some();
        let found = tree.take(&refused, &|index| self.rank(loads.at(index), now));
        self.tree = Some(tree);
        match found {
            Some(index) => Ok(index),
            None => {
                let scanned = self.scan(store, task, loads, now);
                scanned.inspect_err(|words| self.refusal = Some(words.clone()))
            }
        }
    }

    fn only(
        &mut self,
        store: &Store,
        task: &Task,
        index: Option<usize>,
        loads: &Loads,
    ) -> Result<usize, String> {
        let Some(index) = index else {
            return Err("no suitable node (its node is gone)".to_owned());
        };
        let load = loads.at(index);
        let handed_over = self.handed_over(store, task, load.node.id);
        match filter::refusal(self, task, load, handed_over.as_ref()) {
            None => Ok(index),
            Some(refusal) => Err(explain(&BTreeMap::from([(refusal, 1)]))),
        }
    }

    /// The same with a look at all nodes.
    fn scan(
        &mut self,
        store: &Store,
        task: &Task,
        loads: &Loads,
        now: SystemTime,
    ) -> Result<usize, String> {
        let mut refusals: BTreeMap<Refusal, usize> = BTreeMap::new();
        let mut best: Option<((Vec<usize>, Rank), usize)> = None;
        for (index, load) in loads.iter().enumerate() {
            let handed_over = self.handed_over(store, task, load.node.id);
            if let Some(refusal) = filter::refusal(self, task, load, handed_over.as_ref()) {
                *refusals.entry(refusal).or_default() += 1;
                continue;
            }
            let rank = (self.groups.counts(load), self.rank(load, now));
            if best.as_ref().is_none_or(|(best, _)| rank < *best) {
                best = Some((rank, index));
            }
        }
        match best {
            Some((_, index)) => Ok(index),
            None => Err(self.explain(&refusals, loads)),
        }
    }

    fn rank(&self, load: &NodeLoad, now: SystemTime) -> Rank {
        let unsteady = unsteady_until(&load.node, now).is_some();
        let fails = load.fails((self.service, self.spec_version), now);
        let unmet = self.near.iter().filter(|near| near.preferred && !near.is_met(load, 0));
        let unmet = unmet.count();
        let (first, second) = match self.packs {
            false => (load.of_service(self.service) as u64, load.tasks as u64),
            true => (u64::MAX - load.fullness(), u64::MAX - load.tasks as u64),
        };
        (unsteady, fails, unmet, first, second, load.node.id)
    }

    pub(super) fn affinity_refusal(
        &self,
        load: &NodeLoad,
        handed_over: Option<&HandedOver>,
    ) -> Option<Refusal> {
        let own = |place: usize| handed_over.map_or(0, |handed_over| handed_over.near[place]);
        let mut required = self.near.iter().enumerate().filter(|(_, near)| !near.preferred);
        let (_, near) = required.find(|(place, near)| !near.is_met(load, own(*place)))?;
        let (service, topology) = (near.service.clone(), near.text.clone());
        Some(match near.anti {
            true => Refusal::AntiAffinity { service, topology },
            false => Refusal::Affinity { service, topology },
        })
    }

    /// What older tasks of the task's slot have on the node; none when it does not wait for them.
    pub(super) fn handed_over(
        &mut self,
        store: &Store,
        task: &Task,
        node: NodeId,
    ) -> Option<HandedOver> {
        if task.desired >= TaskState::Running {
            return None;
        }
        let service = self.service;
        let by_slot = self.by_slot.get_or_insert_with(|| {
            let mut by_slot: BTreeMap<Slot, Vec<Arc<Task>>> = BTreeMap::new();
            // What one that was told to stop leaves may be promised to another.
            for task in store.service_tasks(service).filter(|task| task.is_live()) {
                by_slot.entry(task.slot).or_default().push(Arc::clone(task));
            }
            by_slot
        });
        let of_slot = by_slot.get(&task.slot)?;
        let value = |near: &Near, node| near.value(store.node(node)?);
        let near = self.near.iter().map(|near| match (near.is_own, value(near, node)) {
            (true, Some(here)) => {
                let nodes = of_slot.iter().filter_map(|older| older.node);
                nodes.filter(|node| value(near, *node).as_ref() == Some(&here)).count()
            }
            _ => 0,
        });
        let mut handed_over =
            HandedOver { tasks: 0, amounts: Amounts::default(), near: near.collect() };
        for older in of_slot.iter().filter(|older| older.node == Some(node)) {
            handed_over.tasks += 1;
            handed_over.amounts = handed_over.amounts.plus(Amounts::reserved(&older.spec));
        }
        Some(handed_over)
    }

    /// A task of the kind was given the node.
    pub(super) fn placed(&mut self, load: &NodeLoad) {
        self.groups.add(load, 1);
        for near in self.near.iter_mut().filter(|near| near.is_own) {
            if let Some(value) = near.value(&load.node) {
                *near.counts.entry(value).or_default() += 1;
            }
        }
    }

    fn explain(&self, refusals: &BTreeMap<Refusal, usize>, loads: &Loads) -> String {
        let mut words = explain(refusals);
        let lacking = refusals.keys().find_map(|refusal| match refusal {
            Refusal::Volume(name) => Some(name),
            _ => None,
        });
        if let Some(name) = lacking {
            let places = loads.iter().filter(|load| load.has_volume(name));
            let places: Vec<&str> =
                places.take(3).map(|load| load.node.spec.name.as_str()).collect();
            words += &format!("; volume {name} is on {}", places.join(", "));
        }
        words
    }
}

/// The task's volumes that some node has.
fn placed_volumes(task: &Task, loads: &Loads) -> Vec<String> {
    let mut volumes = volumes(task);
    volumes.retain(|volume| loads.iter().any(|load| load.has_volume(volume)));
    volumes
}

impl Near {
    fn value(&self, node: &Node) -> Option<String> {
        match &self.topology {
            None => Some(node.id.to_string()),
            Some(subject) => subject.of(node),
        }
    }

    /// `own` of its tasks here make way for the one that is looked at.
    fn is_met(&self, load: &NodeLoad, own: usize) -> bool {
        let here = self.value(&load.node).and_then(|value| self.counts.get(&value)).copied();
        let here = here.unwrap_or(0);
        // The first of those that are to be together goes anywhere.
        let is_first = self.is_own && self.counts.is_empty();
        match self.anti {
            true => here <= own,
            false => here > 0 || is_first,
        }
    }
}

fn explain(refusals: &BTreeMap<Refusal, usize>) -> String {
    if refusals.is_empty() {
        return "no suitable node (the cluster has none)".to_owned();
    }
    let counts: Vec<String> =
        refusals.iter().map(|(refusal, count)| refusal.describe(*count)).collect();
    format!("no suitable node ({})", counts.join(", "))
}
