//! Runs the control loops over a view of the store, one after the other: each sees what those
//! before it decided, and all that they decide commits as one change set.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use shoal_proto::{ServiceId, StackId};

use crate::allocator::Allocator;
use crate::context::Context;
use crate::orchestrator::{self, Memory, earliest};
use crate::payload;
use crate::scheduler::Scheduler;
use crate::store::{Change, Changes, Event, Key, Object, Store, Task};

/// Objects that one pass changes at the most: a raft entry has an end, and agents shall not wait for
/// the last task of thousands to be placed.
const MOST: usize = 2000;

/// The control loops of a leader, with what has changed since they last ran.
#[derive(Debug)]
pub struct Control {
    /// Objects that a pass changes at the most.
    most: usize,
    allocator: Allocator,
    services: BTreeSet<ServiceId>,
    stacks: BTreeSet<StackId>,
    /// Services to look at again at a time, whatever happens until then.
    waiting: BTreeMap<ServiceId, SystemTime>,
    /// Services that have one task of the newest spec in each slot, all of them on their way to
    /// running or there: that one gets further is no news to their own loop.
    settled: BTreeSet<ServiceId>,
    memory: Memory,
    scheduler: Scheduler,
    /// Whether a version of a secret or config may have come out of use.
    has_old_payloads: bool,
}

/// What one run decided.
#[derive(Debug, Default)]
pub struct Pass {
    /// To be committed, whole or not at all.
    pub changes: Vec<Change>,
    /// When to run again at the latest.
    pub wake_at: Option<SystemTime>,
}

impl Control {
    /// Loops that look at everything first, as a new leader must.
    #[must_use]
    pub fn new(store: &Store) -> Self {
        let mut control = Self {
            most: MOST,
            allocator: Allocator::default(),
            services: BTreeSet::new(),
            stacks: BTreeSet::new(),
            waiting: BTreeMap::new(),
            settled: BTreeSet::new(),
            memory: Memory::default(),
            scheduler: Scheduler::default(),
            has_old_payloads: true,
        };
        control.resync(store);
        control
    }

    /// What a pass decided was too large for one entry: passes are smaller from now on.
    pub fn decide_less(&mut self) {
        self.most = (self.most / 2).max(1);
    }

    /// Looks at everything again: commits were missed.
    pub fn resync(&mut self, store: &Store) {
        self.services.extend(store.services().map(|service| service.id));
        self.settled.clear();
        self.stacks.extend(store.stacks().map(|stack| stack.id));
        self.scheduler = Scheduler::new(store);
        self.has_old_payloads = true;
    }

    /// Notes what a commit has changed. Every commit is to be told of, in order.
    pub fn observe(&mut self, store: &Store, events: &[Event]) {
        self.scheduler.observe(store.version(), events);
        for event in events {
            if let Some(task) = progress(event)
                && self.settled.contains(&task.service)
            {
                self.touch_dependents(store, &task.service_name);
                continue;
            }
            let object = match event {
                Event::Put { new, .. } => new,
                Event::Deleted(old) => old,
            };
            match object {
                Object::Service(service) => {
                    self.has_old_payloads = true;
                    self.touch(store, service.id, &service.spec.name, service.stack)
                }
                Object::Task(task) => {
                    self.has_old_payloads |= task.state().is_terminal();
                    let stack = store.service(task.service).and_then(|service| service.stack);
                    self.touch(store, task.service, &task.service_name, stack);
                }
                Object::Stack(stack) => drop(self.stacks.insert(stack.id)),
                Object::Network(network) => self.stacks.extend(network.stack),
                // What is on a node that is lost or to be emptied is made anew elsewhere.
                Object::Node(node) => {
                    for task in store.node_tasks(node.id) {
                        self.services.insert(task.service);
                        self.settled.remove(&task.service);
                    }
                    let global = store.services().filter(|service| service.is_global());
                    for service in global {
                        self.services.insert(service.id);
                        self.settled.remove(&service.id);
                    }
                }
                Object::Payload(_) => self.has_old_payloads = true,
                Object::Cluster(_) | Object::Container(_) => {}
            }
        }
    }

    fn touch(&mut self, store: &Store, id: ServiceId, name: &str, stack: Option<StackId>) {
        self.services.insert(id);
        self.settled.remove(&id);
        self.stacks.extend(stack);
        self.touch_dependents(store, name);
    }

    fn touch_dependents(&mut self, store: &Store, name: &str) {
        let dependents = store.services().filter(|service| orchestrator::depends_on(service, name));
        self.services.extend(dependents.map(|service| service.id));
    }

    /// Decides. `store` is as of the last commit observed. What it looked at counts as seen; when the
    /// changes don't commit, call [`Self::resync`]. `uptime` counts from any origin on a clock that nobody sets.
    pub fn run(&mut self, store: &Store, uptime: Duration, context: &mut Context<'_>) -> Pass {
        self.memory.observe(store, uptime);
        let mut view = View { store: store.clone(), decided: Vec::new() };
        let due = self.waiting.iter().filter(|(_, at)| **at <= context.now).map(|(id, _)| *id);
        self.services.extend(due);
        while view.decided.len() < self.most
            && let Some(id) = self.services.pop_first()
        {
            self.waiting.remove(&id);
            let Some(service) = view.store.service(id).cloned() else { continue };
            let mut changes = Changes::default();
            let wake_at = orchestrator::reconcile_service(
                &view.store,
                &service,
                &mut self.memory,
                context,
                &mut changes,
            );
            if changes.is_empty() && orchestrator::is_settled(&view.store, &service) {
                self.settled.insert(id);
            }
            view.take(changes);
            self.waiting.extend(wake_at.map(|at| (id, at)));
        }
        for id in std::mem::take(&mut self.stacks) {
            let Some(stack) = view.store.stack(id).cloned() else { continue };
            let mut changes = Changes::default();
            orchestrator::reconcile_stack(&view.store, &stack, context, &mut changes);
            view.take(changes);
        }
        let mut changes = Changes::default();
        self.allocator.run(&view.store, context, &mut changes);
        view.take(changes);
        let mut changes = Changes::default();
        let retry_at = self.scheduler.run(&view.store, context, &mut changes);
        view.take(changes);
        if std::mem::take(&mut self.has_old_payloads) {
            let mut changes = Changes::default();
            payload::collect(&view.store, &mut changes);
            view.take(changes);
        }
        let mut move_at = None;
        if view.decided.is_empty() && self.services.is_empty() {
            let mut changes = Changes::default();
            move_at = orchestrator::rebalance(&view.store, &mut self.memory, context, &mut changes);
            view.take(changes);
        }
        let mut changes = merge(store, view.decided);
        let mut wake_at = earliest(retry_at, self.waiting.values().min().copied());
        wake_at = earliest(wake_at, move_at);
        if changes.len() > self.most {
            // Each object's change stands for itself: what is left out is decided again.
            changes.truncate(self.most);
            self.resync(store);
        }
        if !self.services.is_empty() {
            wake_at = Some(context.now);
        }
        Pass { changes, wake_at }
    }
}

/// The task that an agent has brought further on its way up, when that is all that happened.
fn progress(event: &Event) -> Option<&Task> {
    let Event::Put { old: Some(Object::Task(old)), new: Object::Task(new) } = event else {
        return None;
    };
    // What managers change has another version.
    let same = old.meta.version == new.meta.version;
    (same && new.node.is_some() && !new.state().is_terminal()).then_some(new)
}

/// The store as it will be when what was decided so far commits.
struct View {
    store: Store,
    decided: Vec<Change>,
}

impl View {
    fn take(&mut self, changes: Changes) {
        let changes = changes.into_vec();
        // Versions inside a pass are the view's own; `merge` puts the committed ones back.
        let version = self.store.version() + 1;
        match self.store.apply(version, changes.clone()) {
            Ok(_) => self.decided.extend(changes),
            // A loop's decision that contradicts one made before it in the same pass waits for
            // the next pass: the commit in between makes its objects dirty again.
            Err(_) => self.retry_one_by_one(version, changes),
        }
    }

    fn retry_one_by_one(&mut self, version: u64, changes: Vec<Change>) {
        for change in changes {
            if self.store.apply(version, vec![change.clone()]).is_ok() {
                self.decided.push(change);
            }
        }
    }
}

/// One change an object, against the version that is committed. Deletions come first: what they
/// free may be given again in the same set.
fn merge(committed: &Store, decided: Vec<Change>) -> Vec<Change> {
    let mut order: Vec<Key> = Vec::new();
    let mut last: BTreeMap<Key, Change> = BTreeMap::new();
    let mut expected: BTreeMap<Key, u64> = BTreeMap::new();
    for change in decided {
        let key = match &change {
            Change::Put { object, .. } => object.key(),
            Change::Delete { key, .. } => *key,
            // What it rests on is of the store as committed.
            Change::Expect { key, version } => {
                expected.insert(*key, *version);
                continue;
            }
            Change::Report { task, .. } => Key::Task(*task),
        };
        if last.insert(key, change).is_none() {
            order.push(key);
        }
    }
    let mut merged: Vec<Change> = order
        .into_iter()
        .filter_map(|key| {
            let committed = committed.object(key).map_or(0, |object| object.meta().version);
            match last.remove(&key)? {
                Change::Put { object, .. } => Some(Change::Put { expected: committed, object }),
                // Made and taken away again within the pass.
                Change::Delete { .. } if committed == 0 => None,
                Change::Delete { key, .. } => Some(Change::Delete { expected: committed, key }),
                other @ (Change::Report { .. } | Change::Expect { .. }) => Some(other),
            }
        })
        .collect();
    if !merged.is_empty() {
        let expected = expected.into_iter();
        merged.extend(expected.map(|(key, version)| Change::Expect { version, key }));
    }
    // What is expected is of before the set: it comes first.
    merged.sort_by_key(|change| match change {
        Change::Expect { .. } => 0,
        Change::Delete { .. } => 1,
        Change::Put { .. } | Change::Report { .. } => 2,
    });
    merged
}

#[cfg(test)]
mod tests;
