//! Services whose tasks are to run for ever: which task fills each slot.
//!
//! An update goes slot by slot as [`super::updater`] allows: the new task gets its node and its
//! image while the old one still runs, then the old one stops, then the new one starts; or, start
//! first, the new one runs before the old one stops. A task that can't get ready therefore never
//! costs a running one.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::SystemTime;

use shoal_proto::v1::{TaskSpec, TaskState};

use super::fence::{self, Lost};
use super::memory::Memory;
use super::restart::{Decision, decide};
use super::slots::{Fit, Leaving, by_slot};
use super::updater::{self, Plan};
use super::{dependency, earliest, global, history, making, replicated, stop};
use crate::context::Context;
use crate::store::{Changes, Object, Service, ServiceMode, Slot, Store, Task};

pub(super) fn reconcile(
    store: &Store,
    service: &Service,
    memory: &mut Memory,
    context: &mut Context<'_>,
    changes: &mut Changes,
) -> Option<SystemTime> {
    let slots = by_slot(store, service);
    let wanted = match service.mode() {
        ServiceMode::Replicated(replicas) => replicated::wanted(store, replicas, &slots),
        _ => global::wanted(store, service, &slots),
    };
    for (slot, tasks) in &slots {
        let is_wanted = wanted.slots.contains_key(slot) || wanted.asleep.contains(slot);
        if !is_wanted {
            for task in tasks {
                let reason = || match service.is_global() {
                    true => global::words(store, task.only_node),
                    false => "scaled down".to_owned(),
                };
                match memory.lost(store, task, context.now) {
                    Lost::Gone => changes.delete(&Object::Task(Arc::clone(task))),
                    Lost::No | Lost::Until(_) => {
                        stop(task, TaskState::Remove, reason, context, changes);
                    }
                }
            }
        }
        history::reap(tasks, is_wanted, changes);
    }
    let plan = updater::plan(store, service, &slots, &wanted, memory, context, changes);
    // It has another spec now: the next pass is about that.
    let Plan { mut budget, start_first, mut wake_at } = plan?;
    let unmet = dependency::unmet(store, service);
    let spec = service.task_spec();
    let pass = Pass {
        store,
        service,
        spec: &spec,
        unmet: unmet.as_deref(),
        fit: &Fit::of(&slots),
        memory,
        start_first: start_first && !spec.fenced,
        now: context.now,
    };
    // What does not run is updated first: it costs nobody anything.
    let runs = |slot: &Slot| {
        let tasks = slots.get(slot).map(Vec::as_slice).unwrap_or_default();
        tasks.iter().any(|task| task.is_live() && task.state() == TaskState::Running)
    };
    let mut order: Vec<_> = wanted.slots.into_iter().collect();
    order.sort_by_key(|(slot, _)| (Reverse(!runs(slot)), *slot));
    for (slot, node) in order {
        let tasks = slots.get(&slot).map(Vec::as_slice).unwrap_or_default();
        let at = SlotPass { pass: &pass, slot, node, tasks }.run(&mut budget, context, changes);
        wake_at = earliest(wake_at, at);
    }
    wake_at
}

/// What all slots of a service have in common.
struct Pass<'a> {
    store: &'a Store,
    service: &'a Service,
    spec: &'a Arc<TaskSpec>,
    unmet: Option<&'a str>,
    fit: &'a Fit,
    memory: &'a Memory,
    start_first: bool,
    now: SystemTime,
}

struct SlotPass<'a> {
    pass: &'a Pass<'a>,
    slot: Slot,
    node: Option<shoal_proto::NodeId>,
    tasks: &'a [&'a Arc<Task>],
}

impl SlotPass<'_> {
    fn run(
        &self,
        budget: &mut usize,
        context: &mut Context<'_>,
        changes: &mut Changes,
    ) -> Option<SystemTime> {
        let lost = |task: &&&Arc<Task>| task.is_live() && self.pass.store.is_lost(task);
        for task in self.tasks.iter().filter(lost) {
            let reason = || "its node is out of reach".to_owned();
            stop(task, TaskState::Shutdown, reason, context, changes);
        }
        if let Some(current) = self.staying().find(|task| self.is_current(task)) {
            return self.settle(current, context, changes);
        }
        let last = self.tasks.iter().rfind(|task| task.desired < TaskState::Remove);
        let Some(last) = last.filter(|last| !self.is_current(last)) else {
            return self.fill(self.pass.spec, self.pass.service.spec_version, context, changes);
        };
        if *budget > 0 {
            *budget -= 1;
            return self.fill(self.pass.spec, self.pass.service.spec_version, context, changes);
        }
        if let Some(older) = self.staying().last() {
            return self.settle(older, context, changes);
        }
        // It is not its turn: what failed or has to go is replaced by its like.
        self.fill(&last.spec, last.spec_version, context, changes)
    }

    fn is_current(&self, task: &Task) -> bool {
        task.spec_version == self.pass.service.spec_version
    }

    fn leaving(&self, task: &Task) -> Option<Leaving> {
        self.pass.fit.leaving(self.pass.store, task)
    }

    /// When the first task that is fenced off may be replaced.
    fn fences_fall(&self) -> Option<SystemTime> {
        let times = self.tasks.iter().filter_map(|task| match self.lost(task) {
            Lost::Until(at) => Some(at),
            Lost::No | Lost::Gone => None,
        });
        times.max()
    }

    fn lost(&self, task: &Task) -> Lost {
        self.pass.memory.lost(self.pass.store, task, self.pass.now)
    }

    fn live(&self) -> impl Iterator<Item = &Arc<Task>> {
        let store = self.pass.store;
        self.tasks.iter().copied().filter(|task| task.is_live() && !store.is_lost(task))
    }

    /// Live ones that need not go from their node.
    fn staying(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.live().filter(|task| self.leaving(task).is_none())
    }

    /// It has ended, or is out of reach and may run or not.
    fn is_over(&self, task: &Task) -> bool {
        task.state().is_terminal() || self.lost(task) == Lost::Gone
    }

    /// Whether a task may run although another of its slot does.
    fn may_overlap(&self, other: &Task) -> bool {
        self.pass.start_first && other.is_live() && !self.pass.store.is_lost(other)
    }

    /// The slot's task is there: the others go when it can take over, and it runs when they have
    /// gone.
    fn settle(
        &self,
        current: &Task,
        context: &Context<'_>,
        changes: &mut Changes,
    ) -> Option<SystemTime> {
        let takes_over = match self.pass.start_first {
            true => current.state() >= TaskState::Running,
            false => current.state() >= TaskState::Ready,
        };
        let has_no_place = current.node.is_none() && !current.status.error.is_empty();
        let moving = self.live().find(|task| task.id != current.id && task.moving);
        if let Some(moving) = moving.filter(|_| has_no_place) {
            // There is no more room elsewhere: it stays where it is.
            changes.update(context, Task { moving: false, ..(**moving).clone() });
            let reason = || "there was no room to move to".to_owned();
            stop(current, TaskState::Remove, reason, context, changes);
            return None;
        }
        for other in self.live().filter(|task| task.id != current.id) {
            let leaving = self.leaving(other);
            // A node that is to be emptied is, also when nothing else can take over.
            let evicted = has_no_place && leaving.as_ref().is_some_and(Leaving::is_urgent);
            if takes_over || evicted || other.state() != TaskState::Running {
                let reason = || match leaving {
                    Some(leaving) => leaving.words(),
                    None if self.is_current(other) => "replaced".to_owned(),
                    None => "replaced by one of a newer spec".to_owned(),
                };
                stop(other, TaskState::Shutdown, reason, context, changes);
            }
        }
        for ended in self.tasks.iter().filter(|task| task.id != current.id) {
            if ended.state().is_terminal() {
                stop(ended, TaskState::Shutdown, String::new, context, changes);
            }
        }
        self.release(current, context, changes);
        self.fences_fall()
    }

    /// What keeps a new task from running, in words; none when nothing does.
    fn blocked(&self, own: Option<&Task>) -> Option<String> {
        let others = self.tasks.iter().filter(|other| own.is_none_or(|own| own.id != other.id));
        let blocker =
            others.into_iter().find(|other| !self.is_over(other) && !self.may_overlap(other));
        let words = blocker.map(|other| match self.lost(other) {
            Lost::Until(_) => fence::words(self.pass.store, other),
            Lost::No | Lost::Gone => {
                format!("waits for {}.{} to make room", other.service_name, other.slot)
            }
        });
        words.or_else(|| self.pass.unmet.map(str::to_owned))
    }

    /// Lets a held task run once nothing stands in its way, or says what does.
    fn release(&self, task: &Task, context: &Context<'_>, changes: &mut Changes) {
        if task.desired >= TaskState::Running {
            return;
        }
        let waiting_for = self.blocked(Some(task)).unwrap_or_default();
        let desired = if waiting_for.is_empty() { TaskState::Running } else { TaskState::Ready };
        if desired != task.desired || waiting_for != task.waiting_for {
            changes.update(context, Task { desired, waiting_for, ..task.clone() });
        }
    }

    /// Makes a task for the slot.
    fn fill(
        &self,
        spec: &Arc<TaskSpec>,
        spec_version: u64,
        context: &mut Context<'_>,
        changes: &mut Changes,
    ) -> Option<SystemTime> {
        let last = self.tasks.last().filter(|task| {
            task.spec_version == spec_version
                && task.desired < TaskState::Shutdown
                && task.state().is_terminal()
        });
        let (failures, not_before) = match last {
            None => (0, None),
            Some(last) => {
                let policy = spec.restart.unwrap_or_default();
                match decide(&policy, last, context.now) {
                    Decision::Leave => return None,
                    Decision::Restart { failures, at } => (failures, at),
                }
            }
        };
        if let Some(last) = last {
            stop(last, TaskState::Shutdown, String::new, context, changes);
        }
        let mut task = making::task(self.pass.service, spec, self.slot, context);
        task.spec_version = spec_version;
        task.only_node = self.node;
        task.failures = failures;
        task.not_before = not_before.map(shoal_proto::time::timestamp);
        if let Some(words) = self.blocked(None) {
            task.desired = TaskState::Ready;
            task.waiting_for = words;
        }
        changes.create(context, task);
        earliest(not_before, self.fences_fall())
    }
}
