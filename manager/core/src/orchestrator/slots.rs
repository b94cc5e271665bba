//! The places of a service, and the tasks that have been in each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_proto::NodeId;

use crate::placement::{Broken, Rules};
use crate::store::{Service, Slot, Store, Task};

/// A service's tasks by slot, the oldest first.
pub(super) type Slots<'a> = BTreeMap<Slot, Vec<&'a Arc<Task>>>;

pub(super) fn by_slot<'a>(store: &'a Store, service: &Service) -> Slots<'a> {
    let mut slots = Slots::new();
    for task in store.service_tasks(service.id) {
        slots.entry(task.slot).or_default().push(task);
    }
    for tasks in slots.values_mut() {
        tasks.sort_by_key(|task| {
            (task.meta.created_at.seconds, task.meta.created_at.nanos, task.id)
        });
    }
    slots
}

/// Which slots there shall be.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// With the only node that each may be on, if there is one.
    pub(super) slots: BTreeMap<Slot, Option<NodeId>>,
    /// Left as they are: nobody knows what becomes of their nodes.
    pub(super) asleep: BTreeSet<Slot>,
}

/// Why a task is to go from its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leaving {
    /// The node is to be emptied.
    Drained,
    /// The node breaks one of its rules by now.
    Unfit(String),
    /// There is more room elsewhere.
    Moving,
}

impl Leaving {
    /// It must go, also when nothing else can take over.
    pub(super) fn is_urgent(&self) -> bool {
        *self != Self::Moving
    }

    pub(super) fn words(&self) -> String {
        match self {
            Self::Drained => "its node is drained".to_owned(),
            Self::Unfit(rule) => format!("its node does not meet {rule} any more"),
            Self::Moving => "moved to a node with more room".to_owned(),
        }
    }
}

/// The rules of a service's specs, parsed once a pass.
pub(super) struct Fit {
    rules: BTreeMap<u64, Rules>,
}

impl Fit {
    pub(super) fn of(slots: &Slots<'_>) -> Self {
        let mut rules = BTreeMap::new();
        for task in slots.values().flatten().filter(|task| task.is_live()) {
            rules.entry(task.spec_version).or_insert_with(|| Rules::of(&task.spec));
        }
        Self { rules }
    }

    pub(super) fn leaving(&self, store: &Store, task: &Task) -> Option<Leaving> {
        if store.is_leaving(task) {
            return Some(Leaving::Drained);
        }
        if task.moving {
            return Some(Leaving::Moving);
        }
        let rules = self.rules.get(&task.spec_version).filter(|rules| !rules.is_empty())?;
        match rules.broken(store.node(task.node?)?)? {
            Broken::Constraint(text) => Some(Leaving::Unfit(text)),
            // It runs there.
            Broken::Platform => None,
        }
    }
}
