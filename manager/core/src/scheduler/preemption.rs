//! Tasks that end so that more important ones find room.
//!
//! Only what lacks cpu, memory, pids or generic resources is helped so, by as few and as
//! unimportant tasks as can be, all on one node. Room that is being made is given to who asked for it
//! first and not made twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_proto::NodeId;
use shoal_proto::v1::{GenericReservation, TaskState};

use super::filter;
use super::kind::Kind;
use super::load::{Amounts, Loads, NodeLoad};
use crate::store::{Store, Task};

/// What was promised in this run of generic resources that are not free yet, by node and kind. All
/// else that is promised is among the loads.
#[derive(Debug, Default)]
pub(super) struct Preemption {
    claims: BTreeMap<NodeId, BTreeMap<String, u64>>,
}

/// The highest priority of those that end, how many they are, and where.
type Cost = (i32, usize, NodeId);

/// Room that is being made for a task.
pub(super) struct Room {
    /// Tasks to end.
    pub(super) victims: Vec<Arc<Task>>,
    /// The task as it will be on the node, with what is free there of generic resources already.
    pub(super) promised: Task,
    /// For the task that waits.
    pub(super) words: String,
}

impl Preemption {
    /// None when no other task's end would help.
    pub(super) fn make_room(
        &mut self,
        store: &Store,
        kind: &mut Kind,
        task: &Task,
        loads: &Loads,
    ) -> Option<Room> {
        let mut best: Option<(Cost, Vec<Arc<Task>>)> = None;
        for load in loads.iter() {
            if task.only_node.is_some_and(|node| node != load.node.id) {
                continue;
            }
            let handed_over = kind.handed_over(store, task, load.node.id);
            let is_room = filter::room(task, load, handed_over.as_ref());
            if !is_room.is_some_and(|refusal| refusal.is_for_want_of_room())
                || filter::standing(kind, task, load, handed_over.as_ref()).is_some()
            {
                continue;
            }
            let Some(victims) = self.victims(store, task, load) else { continue };
            let highest = victims.iter().map(|victim| victim.spec.priority).max();
            let cost = (highest.unwrap_or(i32::MIN), victims.len(), load.node.id);
            if best.as_ref().is_none_or(|(best, _)| cost < *best) {
                best = Some((cost, victims));
            }
        }
        let ((_, _, node), victims) = best?;
        let load = loads.at(loads.index_of(node)?);
        let mut promised = task.clone();
        promised.node = Some(node);
        promised.status.set_state(TaskState::Assigned);
        let claims = self.claims.entry(node).or_default();
        for wanted in &task.spec.generic_reservations {
            let free = u64::try_from(load.generic_free(&wanted.kind)).unwrap_or(0);
            let count = free.min(wanted.count);
            let part = GenericReservation { count, ..wanted.clone() };
            promised.generic_resources.extend(load.generic_part(&part, None));
            *claims.entry(wanted.kind.clone()).or_default() += wanted.count - count;
        }
        let name = &load.node.spec.name;
        let words = format!("waits for room: tasks of a lower priority end on {name}");
        Some(Room { victims, promised, words })
    }

    /// Whose end makes enough room on the node; none at all when what ends already does.
    fn victims(&self, store: &Store, task: &Task, load: &NodeLoad) -> Option<Vec<Arc<Task>>> {
        let lower = |other: &&Arc<Task>| {
            other.spec.priority < task.spec.priority && !other.state().is_terminal()
        };
        let (mut ending, mut running): (Vec<&Arc<Task>>, Vec<&Arc<Task>>) = store
            .node_tasks(load.node.id)
            .filter(|other| !other.state().is_terminal())
            .partition(|other| other.desired > TaskState::Running);
        running.retain(lower);
        running.sort_by_key(|other| {
            let created = &other.meta.created_at;
            (other.spec.priority, std::cmp::Reverse((created.seconds, created.nanos)), other.id)
        });
        let mut free = Free::of(load, task, self.claims.get(&load.node.id));
        ending.drain(..).for_each(|other| free.add(other));
        let mut victims = Vec::new();
        let mut running = running.into_iter();
        while !free.is_enough(task) {
            let victim = running.next()?;
            free.add(victim);
            victims.push(Arc::clone(victim));
        }
        // The last ones may have been enough without the first.
        let mut index = 0;
        while index < victims.len() {
            free.remove(&victims[index]);
            if free.is_enough(task) {
                victims.remove(index);
            } else {
                free.add(&victims[index]);
                index += 1;
            }
        }
        Some(victims)
    }
}

/// What would be free on a node.
struct Free {
    amounts: Amounts,
    generic: BTreeMap<String, i64>,
}

fn count(task: &Task, kind: &str) -> i64 {
    let held = task.generic_resources.iter().filter(|resource| resource.kind == kind);
    held.map(|resource| resource.count as i64 + resource.names.len() as i64).sum()
}

impl Free {
    fn of(load: &NodeLoad, task: &Task, claims: Option<&BTreeMap<String, u64>>) -> Self {
        let generic = task.spec.generic_reservations.iter().map(|wanted| {
            let free = load.generic_free(&wanted.kind);
            let claimed = claims.and_then(|claims| claims.get(&wanted.kind)).copied();
            (wanted.kind.clone(), free - claimed.unwrap_or(0) as i64)
        });
        Self { amounts: load.available(), generic: generic.collect() }
    }

    fn add(&mut self, task: &Task) {
        self.amounts = self.amounts.plus(Amounts::reserved(&task.spec));
        self.generic.iter_mut().for_each(|(kind, free)| *free += count(task, kind));
    }

    fn remove(&mut self, task: &Task) {
        self.amounts = self.amounts.minus(Amounts::reserved(&task.spec));
        self.generic.iter_mut().for_each(|(kind, free)| *free -= count(task, kind));
    }

    fn is_enough(&self, task: &Task) -> bool {
        let wanted = task.spec.generic_reservations.iter();
        let mut generic = wanted.filter_map(|wanted| {
            Some((self.generic.get(&wanted.kind)?, i64::try_from(wanted.count).ok()?))
        });
        filter::lacking(Amounts::reserved(&task.spec), self.amounts).is_none()
            && generic.all(|(free, wanted)| *free >= wanted)
    }
}
