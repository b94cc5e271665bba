//! Services with a number of replicas: which slots there are, and which task fills each.
//!
//! An update goes slot by slot: the new task gets its node and its image while the old one still
//! runs, then the old one stops, then the new one starts. A task that can't get ready therefore
//! never costs a running one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use shoal_proto::TaskId;
use shoal_proto::v1::{TaskSpec, TaskState, TaskStatus};

use super::fence::{self, Fences, Lost};
use super::restart::{Decision, decide};
use super::{dependency, history, stop};
use crate::context::Context;
use crate::store::{Changes, Meta, Object, Service, Slot, Store, Task};

/// Slots of one service that may be without a running task for an update at the same time.
const UPDATE_PARALLELISM: usize = 1;

pub(super) fn reconcile(
    store: &Store,
    service: &Service,
    fences: &Fences,
    context: &mut Context<'_>,
    changes: &mut Changes,
) -> Option<SystemTime> {
    let mut slots: BTreeMap<Slot, Vec<&Arc<Task>>> = BTreeMap::new();
    for task in store.service_tasks(service.id) {
        slots.entry(task.slot).or_default().push(task);
    }
    for tasks in slots.values_mut() {
        tasks.sort_by_key(|task| {
            (task.meta.created_at.seconds, task.meta.created_at.nanos, task.id)
        });
    }
    let wanted = wanted_slots(store, service.replicas(), &slots);
    for (slot, tasks) in &slots {
        if !wanted.contains(slot) {
            for task in tasks {
                match fences.lost(store, task, context.now) {
                    Lost::Gone => changes.delete(&Object::Task(Arc::clone(task))),
                    Lost::No | Lost::Until(_) => stop(task, TaskState::Remove, context, changes),
                }
            }
        }
        history::reap(tasks, wanted.contains(slot), changes);
    }

    let unmet = dependency::unmet(store, service);
    let spec = service.task_spec();
    let mut budget = UPDATE_PARALLELISM.saturating_sub(
        wanted.iter().filter(|slot| in_update(service, slots.get(slot).map(Vec::as_slice))).count(),
    );
    let mut wake_at = None;
    for slot in wanted {
        let tasks = slots.get(&slot).map(Vec::as_slice).unwrap_or_default();
        let (unmet, now) = (unmet.as_deref(), context.now);
        let pass = SlotPass { store, service, spec: &spec, slot, tasks, unmet, fences, now };
        let at = pass.run(&mut budget, context, changes);
        wake_at = earliest(wake_at, at);
    }
    wake_at
}

pub(crate) fn earliest(a: Option<SystemTime>, b: Option<SystemTime>) -> Option<SystemTime> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The slots to fill: those with a running task first, then other live ones, then those that
/// only have a history, then new ones; low numbers before high ones.
fn wanted_slots(
    store: &Store,
    replicas: u64,
    slots: &BTreeMap<Slot, Vec<&Arc<Task>>>,
) -> BTreeSet<Slot> {
    let rank = |tasks: &[&Arc<Task>]| {
        let live = tasks.iter().filter(|task| task.is_live() && !store.is_lost(task));
        match live.map(|task| task.state()).max() {
            Some(TaskState::Running) => Some(0),
            Some(_) => Some(1),
            None if tasks.iter().any(|task| task.desired < TaskState::Remove) => Some(2),
            None => None,
        }
    };
    let mut ranked: Vec<(u8, Slot)> =
        slots.iter().filter_map(|(slot, tasks)| rank(tasks).map(|rank| (rank, *slot))).collect();
    ranked.sort_unstable();
    let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
    let mut wanted: BTreeSet<Slot> =
        ranked.into_iter().take(replicas).map(|(_, slot)| slot).collect();
    let mut number = 1;
    while wanted.len() < replicas {
        wanted.insert(Slot(number));
        number += 1;
    }
    wanted
}

/// Whether the slot is on its way from an older spec to the newest.
fn in_update(service: &Service, tasks: Option<&[&Arc<Task>]>) -> bool {
    let Some(tasks) = tasks else { return false };
    let current = |task: &&&Arc<Task>| task.spec_version == service.spec_version;
    let has_older = tasks.iter().any(|task| !current(&task));
    let newest = tasks.iter().rfind(current);
    has_older && newest.is_some_and(|task| task.state() != TaskState::Running)
}

struct SlotPass<'a> {
    store: &'a Store,
    service: &'a Service,
    spec: &'a Arc<TaskSpec>,
    slot: Slot,
    tasks: &'a [&'a Arc<Task>],
    unmet: Option<&'a str>,
    fences: &'a Fences,
    now: SystemTime,
}

impl SlotPass<'_> {
    fn run(
        &self,
        budget: &mut usize,
        context: &mut Context<'_>,
        changes: &mut Changes,
    ) -> Option<SystemTime> {
        for lost in self.tasks.iter().filter(|task| task.is_live() && self.store.is_lost(task)) {
            stop(lost, TaskState::Shutdown, context, changes);
        }
        let current = self.live().find(|task| {
            task.spec_version == self.service.spec_version && !self.store.is_leaving(task)
        });
        let Some(current) = current else {
            return self.fill(budget, context, changes);
        };
        let up = current.state() >= TaskState::Ready;
        let has_no_place = current.node.is_none() && !current.status.error.is_empty();
        for other in self.live().filter(|task| task.id != current.id) {
            // A node that is to be emptied is, also when nothing else can take over.
            let evicted = has_no_place && self.store.is_leaving(other);
            if up || evicted || other.state() != TaskState::Running {
                stop(other, TaskState::Shutdown, context, changes);
            }
        }
        self.release(current, context, changes);
        self.fences_fall()
    }

    /// When the first task that is fenced off may be replaced.
    fn fences_fall(&self) -> Option<SystemTime> {
        let times = self.tasks.iter().filter_map(|task| {
            match self.fences.lost(self.store, task, self.now) {
                Lost::Until(at) => Some(at),
                Lost::No | Lost::Gone => None,
            }
        });
        times.max()
    }

    fn live(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.iter().copied().filter(|task| task.is_live() && !self.store.is_lost(task))
    }

    /// It has ended, or is out of reach and may run or not.
    fn is_over(&self, task: &Task) -> bool {
        task.state().is_terminal() || self.fences.lost(self.store, task, self.now) == Lost::Gone
    }

    /// Lets a held task run once nothing stands in its way, or says what does.
    fn release(&self, task: &Task, context: &Context<'_>, changes: &mut Changes) {
        if task.desired >= TaskState::Running {
            return;
        }
        let blocker = self.tasks.iter().find(|other| other.id != task.id && !self.is_over(other));
        let blocker = blocker.map(|other| match self.fences.lost(self.store, other, self.now) {
            Lost::Until(_) => fence::words(self.store, other),
            Lost::No | Lost::Gone => {
                format!("waits for {}.{} to make room", other.service_name, other.slot)
            }
        });
        let waiting_for = blocker.or_else(|| self.unmet.map(str::to_owned)).unwrap_or_default();
        let desired = if waiting_for.is_empty() { TaskState::Running } else { TaskState::Ready };
        if desired != task.desired || waiting_for != task.waiting_for {
            changes.update(context, Task { desired, waiting_for, ..task.clone() });
        }
    }

    /// Makes a task for a slot that has none of the newest spec.
    fn fill(
        &self,
        budget: &mut usize,
        context: &mut Context<'_>,
        changes: &mut Changes,
    ) -> Option<SystemTime> {
        // A slot whose new task failed keeps its turn.
        let stays = |task: &&Arc<Task>| !self.store.is_leaving(task);
        let mut running = self.live().filter(|task| task.state() == TaskState::Running);
        let replaces_running =
            running.any(|task| stays(&task)) && !in_update(self.service, Some(self.tasks));
        if replaces_running {
            if *budget == 0 {
                return None;
            }
            *budget -= 1;
        }
        let last = self.tasks.last().filter(|task| {
            task.spec_version == self.service.spec_version
                && task.desired < TaskState::Shutdown
                && task.state().is_terminal()
        });
        let (failures, not_before) = match last {
            None => (0, None),
            Some(last) => {
                let policy = self.spec.restart.unwrap_or_default();
                match decide(&policy, last, context.now) {
                    Decision::Leave => return None,
                    Decision::Restart { failures, at } => (failures, at),
                }
            }
        };
        if let Some(last) = last {
            stop(last, TaskState::Shutdown, context, changes);
        }
        let free = self.tasks.iter().all(|task| self.is_over(task));
        let id = TaskId::from_bits(context.bits());
        let desired =
            if free && self.unmet.is_none() { TaskState::Running } else { TaskState::Ready };
        changes.create(
            context,
            Task {
                id,
                meta: Meta::default(),
                service: self.service.id,
                service_name: self.service.spec.name.as_str().into(),
                slot: self.slot,
                node: None,
                spec: self.spec.clone(),
                spec_version: self.service.spec_version,
                desired,
                status: TaskStatus {
                    state: TaskState::New.into(),
                    since: Some(context.stamp()),
                    message: "created".to_owned(),
                    ..TaskStatus::default()
                },
                networks: Vec::new(),
                ports: Vec::new(),
                not_before: not_before.map(shoal_proto::time::timestamp),
                failures,
                waiting_for: self.unmet.unwrap_or_default().to_owned(),
                generic_resources: Vec::new(),
            },
        );
        earliest(not_before, self.fences_fall())
    }
}
