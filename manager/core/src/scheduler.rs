//! Gives each task with addresses a node, or the reason why none will do.
//!
//! Filters are small and stateless, one rule each ([`filter`]); nodes that pass all are ranked
//! ([`kind`]): spread evenly over the values that the spec names, or packed. A task that finds no
//! room may end others of a lower priority ([`preemption`]). With its node a task gets its part of
//! that node's generic resources. Decisions commit against the versions that they were made from, of
//! tasks and of nodes.
//!
//! What the nodes have taken on is kept from run to run and follows the committed events.

mod filter;
mod generic;
mod kind;
mod load;
mod preemption;
mod spread;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use shoal_proto::time::system_time;
use shoal_proto::v1::TaskState;
use shoal_proto::{NodeId, ServiceId, Timestamp};

use crate::context::Context;
use crate::orchestrator::earliest;
use crate::store::{Changes, Event, Object, Store, Task};
use kind::Kind;
use load::Loads;
use preemption::Preemption;

/// The scheduler's memory: what each node has taken on, as of the last event.
#[derive(Debug, Default)]
pub struct Scheduler {
    loads: Loads,
    /// The store's version that the loads are as of.
    version: u64,
}

impl Scheduler {
    /// One that knows what is in the store.
    #[must_use]
    pub fn new(store: &Store) -> Self {
        Self { loads: Loads::of(store), version: store.version() }
    }

    /// Takes in what a commit has changed; `version` is the store's after it. One that it began with
    /// is passed over.
    pub fn observe(&mut self, version: u64, events: &[Event]) {
        if version <= self.version {
            return;
        }
        self.version = version;
        for event in events {
            let (old, new) = match event {
                Event::Put { old, new } => (old.as_ref(), Some(new)),
                Event::Deleted(old) => (Some(old), None),
            };
            match (old, new) {
                (old @ (None | Some(Object::Task(_))), Some(Object::Task(new))) => {
                    if let Some(Object::Task(old)) = old {
                        self.loads.remove(old);
                    }
                    self.loads.add(new);
                }
                (Some(Object::Task(old)), None) => self.loads.remove(old),
                (_, Some(Object::Node(node))) => self.loads.put_node(node),
                (Some(Object::Node(node)), None) => self.loads.remove_node(node.id),
                _ => {}
            }
        }
    }

    /// Places what can be placed. `store` is what was committed up to the last event observed, with
    /// what the same pass has decided so far. Returns when to look again: at the first task that is
    /// held back by its restart delay.
    pub fn run(
        &mut self,
        store: &Store,
        context: &mut Context<'_>,
        changes: &mut Changes,
    ) -> Option<SystemTime> {
        let mut wake_at = None;
        let mut due = Vec::new();
        for task in store.pending_tasks() {
            let not_before = task.not_before.as_ref().map(system_time);
            match not_before.filter(|at| *at > context.now) {
                Some(at) => wake_at = earliest(wake_at, Some(at)),
                None => due.push(task),
            }
        }
        if due.is_empty() {
            return wake_at;
        }
        in_order(&mut due);
        let mut pass = Pass {
            store,
            loads: &mut self.loads,
            preemption: Preemption::default(),
            added: Vec::new(),
            used: BTreeSet::new(),
        };
        let mut kind: Option<Kind> = None;
        for task in due {
            if !kind.as_ref().is_some_and(|kind| kind.is_of(task)) {
                kind = Some(Kind::new(store, task, pass.loads));
            }
            if let Some(kind) = &mut kind {
                pass.place(kind, task, context, changes);
            }
        }
        pass.end(changes);
        wake_at
    }
}

/// The most important first; those of one kind together, the longest waiting kind first.
fn in_order(tasks: &mut [&Arc<Task>]) {
    let stamp = |stamp: &Timestamp| (stamp.seconds, stamp.nanos);
    let mut oldest: BTreeMap<(ServiceId, u64), (i64, i32)> = BTreeMap::new();
    for task in tasks.iter() {
        let created = stamp(&task.meta.created_at);
        let known = oldest.entry((task.service, task.spec_version)).or_insert(created);
        *known = (*known).min(created);
    }
    tasks.sort_by_key(|task| {
        let kind = (task.service, task.spec_version);
        (Reverse(task.spec.priority), oldest.get(&kind).copied(), kind, task.id)
    });
}

/// One run.
struct Pass<'a> {
    store: &'a Store,
    loads: &'a mut Loads,
    preemption: Preemption,
    /// What was added to the loads and is not committed yet.
    added: Vec<Task>,
    /// Nodes that were given something.
    used: BTreeSet<NodeId>,
}

impl Pass<'_> {
    fn place(
        &mut self,
        kind: &mut Kind,
        task: &Arc<Task>,
        context: &mut Context<'_>,
        changes: &mut Changes,
    ) {
        let mut reason = match kind.find(self.store, task, self.loads, context.now) {
            Ok(index) => return self.assign(kind, index, task, context, changes),
            Err(reason) => reason,
        };
        let evicted = self.preemption.make_room(self.store, kind, task, self.loads);
        if let Some(room) = evicted {
            for victim in room.victims {
                let mut victim = (*victim).clone();
                victim.desired = TaskState::Shutdown;
                let (name, slot, priority) = (&task.service_name, task.slot, task.spec.priority);
                victim.stop_reason = format!("makes room for {name}.{slot} of priority {priority}");
                changes.update(context, victim);
            }
            // Nobody who is less important takes what becomes free first.
            self.loads.add(&room.promised);
            self.added.push(room.promised);
            reason = room.words;
        }
        if reason != task.status.error {
            let mut held = (**task).clone();
            held.status.message = "waits for a node".to_owned();
            held.status.error = reason;
            changes.update(context, held);
        }
    }

    fn assign(
        &mut self,
        kind: &mut Kind,
        index: usize,
        task: &Task,
        context: &Context<'_>,
        changes: &mut Changes,
    ) {
        let load = self.loads.at(index);
        let mut placed = task.clone();
        placed.node = Some(load.node.id);
        let slot =
            kind.handed_over(self.store, task, load.node.id).map(|_| (task.service, task.slot));
        let reserved = task.spec.generic_reservations.iter();
        placed.generic_resources =
            reserved.filter_map(|wanted| load.generic_part(wanted, slot)).collect();
        placed.status.set_state(TaskState::Assigned);
        placed.status.since = Some(context.stamp());
        placed.status.message = format!("assigned to {}", load.node.spec.name);
        placed.status.error.clear();
        self.used.insert(load.node.id);
        kind.placed(load);
        self.loads.add(&placed);
        self.added.push(placed.clone());
        changes.update(context, placed);
    }

    /// What was decided holds for the nodes as they were read; and is counted when it is committed.
    fn end(self, changes: &mut Changes) {
        for node in &self.used {
            if let Some(node) = self.store.node(*node) {
                changes.expect(&Object::Node(Arc::clone(node)));
            }
        }
        for task in &self.added {
            self.loads.remove(task);
        }
    }
}

#[cfg(test)]
mod tests;
