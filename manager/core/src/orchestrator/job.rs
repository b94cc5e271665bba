//! Services whose tasks end: one run after the other, each until enough tasks have ended well.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use shoal_proto::v1::{ConcurrencyPolicy, RestartCondition, RestartPolicy, TaskSpec, TaskState};

use super::fence::Lost;
use super::memory::Memory;
use super::restart::{Decision, decide};
use super::slots::{Slots, Wanted, by_slot};
use super::{cron, dependency, earliest, global, history, making, stop};
use crate::context::Context;
use crate::store::{Changes, Service, ServiceMode, Slot, Store, Task};

pub(super) fn reconcile(
    store: &Store,
    service: &Service,
    memory: &Memory,
    context: &mut Context<'_>,
    changes: &mut Changes,
) -> Option<SystemTime> {
    let slots = by_slot(store, service);
    let wanted = wanted(store, service, &slots);
    let wake_at = match cron::look(service, context) {
        cron::Look::Wait(at) => at,
        // The next pass is about what it is then.
        cron::Look::Changed(new) => {
            changes.update(context, *new);
            return None;
        }
    };
    let allows_older = service
        .spec
        .schedule
        .as_ref()
        .is_some_and(|schedule| schedule.concurrency() == ConcurrencyPolicy::Allow);
    for (slot, tasks) in &slots {
        // What is done on a node is not done again when the node comes back into service.
        let is_done_there = has_completed(service, tasks)
            && tasks
                .iter()
                .filter_map(|task| task.only_node)
                .any(|node| store.node(node).is_some());
        let is_wanted =
            wanted.slots.contains_key(slot) || wanted.asleep.contains(slot) || is_done_there;
        for task in tasks {
            let is_older = task.job_iteration != service.job.iteration;
            let stays = is_wanted || (is_older && allows_older);
            if !stays {
                let reason = || "the run does not need it any more".to_owned();
                stop(task, TaskState::Remove, reason, context, changes);
            } else if is_older && !allows_older && task.is_live() {
                let reason = || "a newer run has begun".to_owned();
                stop(task, TaskState::Shutdown, reason, context, changes);
            }
        }
        history::reap(tasks, is_wanted, changes);
    }
    if service.job.iteration == 0 {
        return wake_at;
    }
    let unmet = dependency::unmet(store, service);
    let mut run = Run {
        store,
        service,
        memory,
        spec: service.task_spec(),
        unmet: unmet.as_deref(),
        concurrent: match service.mode() {
            ServiceMode::ReplicatedJob { concurrent, .. } => concurrent,
            _ => u64::MAX,
        },
        live: 0,
        completed: 0,
        given_up: Vec::new(),
        wake_at,
    };
    let empty = Vec::new();
    let now = context.now;
    // Those that go on come first: the bound is for them and for new ones together.
    let in_order = |is_first: bool| {
        let slots = &slots;
        wanted.slots.iter().filter(move |(slot, _)| {
            let tasks = slots.get(slot).map(Vec::as_slice).unwrap_or_default();
            tasks.iter().any(|task| takes_place(store, service, memory, task, now)) == is_first
        })
    };
    let order: Vec<(Slot, Option<shoal_proto::NodeId>)> =
        in_order(true).chain(in_order(false)).map(|(slot, node)| (*slot, *node)).collect();
    for (slot, node) in order {
        run.slot(slot, node, slots.get(&slot).unwrap_or(&empty), context, changes);
    }
    run.end(wanted.slots.len(), context, changes);
    run.wake_at
}

/// Of the run and not over, though it may be stopping or out of reach.
fn takes_place(
    store: &Store,
    service: &Service,
    memory: &Memory,
    task: &Task,
    now: SystemTime,
) -> bool {
    task.job_iteration == service.job.iteration
        && !task.state().is_terminal()
        && memory.lost(store, task, now) != Lost::Gone
}

/// Not over, and of the run.
fn run_goes_on(store: &Store, service: &Service, task: &Task) -> bool {
    task.job_iteration == service.job.iteration && task.is_live() && !store.is_lost(task)
}

fn wanted(store: &Store, service: &Service, slots: &Slots<'_>) -> Wanted {
    match service.mode() {
        ServiceMode::ReplicatedJob { completions, .. } => Wanted {
            slots: (1..=completions).map(|number| (Slot(number), None)).collect(),
            ..Wanted::default()
        },
        _ => global::wanted(store, service, slots),
    }
}

/// Slots of the last run that have ended well, and how many there are in it.
pub(super) fn completions(store: &Store, service: &Service) -> (u64, u64) {
    let slots = by_slot(store, service);
    let wanted = wanted(store, service, &slots).slots;
    let completed = slots
        .iter()
        .filter(|(slot, tasks)| wanted.contains_key(slot) && has_completed(service, tasks));
    (completed.count() as u64, wanted.len() as u64)
}

/// The last run has ended, and well.
pub(super) fn has_succeeded(store: &Store, service: &Service) -> bool {
    let (completed, wanted) = completions(store, service);
    service.job.iteration > 0 && completed >= wanted
}

fn has_completed(service: &Service, tasks: &[&Arc<Task>]) -> bool {
    let mut of_run = tasks.iter().filter(|task| task.job_iteration == service.job.iteration);
    of_run.any(|task| task.state() == TaskState::Complete)
}

struct Run<'a> {
    store: &'a Store,
    service: &'a Service,
    memory: &'a Memory,
    spec: Arc<TaskSpec>,
    unmet: Option<&'a str>,
    concurrent: u64,
    live: u64,
    completed: usize,
    /// What the last tasks of slots said that won't be tried again.
    given_up: Vec<String>,
    wake_at: Option<SystemTime>,
}

impl Run<'_> {
    fn slot(
        &mut self,
        slot: Slot,
        node: Option<shoal_proto::NodeId>,
        tasks: &[&Arc<Task>],
        context: &mut Context<'_>,
        changes: &mut Changes,
    ) {
        if has_completed(self.service, tasks) {
            self.completed += 1;
            return;
        }
        let of_run: Vec<&&Arc<Task>> =
            tasks.iter().filter(|task| task.job_iteration == self.service.job.iteration).collect();
        let mut is_taken = false;
        for task in &of_run {
            match self.memory.lost(self.store, task, context.now) {
                Lost::No => {}
                lost => {
                    let reason = || "its node is out of reach".to_owned();
                    stop(task, TaskState::Shutdown, reason, context, changes);
                    if let Lost::Until(at) = lost {
                        is_taken = true;
                        self.wake_at = earliest(self.wake_at, Some(at));
                    }
                    continue;
                }
            }
            if task.state().is_terminal() {
                continue;
            }
            is_taken = true;
            if !task.is_live() {
                continue;
            }
            if self.store.is_leaving(task) {
                let reason = || "its node is drained".to_owned();
                stop(task, TaskState::Shutdown, reason, context, changes);
                continue;
            }
            self.release(task, context, changes);
        }
        if is_taken {
            self.live += 1;
            return;
        }
        self.fill(slot, node, of_run.last().map(|task| &****task), context, changes);
    }

    fn release(&self, task: &Task, context: &Context<'_>, changes: &mut Changes) {
        let waiting_for = self.unmet.unwrap_or_default().to_owned();
        let desired = if waiting_for.is_empty() { TaskState::Running } else { TaskState::Ready };
        // What runs is not held back again.
        if task.desired < TaskState::Running
            && (desired != task.desired || waiting_for != task.waiting_for)
        {
            changes.update(context, Task { desired, waiting_for, ..task.clone() });
        }
    }

    fn fill(
        &mut self,
        slot: Slot,
        node: Option<shoal_proto::NodeId>,
        last: Option<&Task>,
        context: &mut Context<'_>,
        changes: &mut Changes,
    ) {
        let (mut failures, mut not_before) = (0, None);
        // One that is lost has been told to stop already.
        let last = last.filter(|last| last.state().is_terminal());
        if let Some(last) = last.filter(|last| last.desired < TaskState::Shutdown) {
            match decide(&policy(&self.spec), last, context.now) {
                Decision::Leave => {
                    let (name, error) = (&last.service_name, &last.status.error);
                    self.given_up.push(format!("{name}.{slot}: {error}"));
                    return;
                }
                Decision::Restart { failures: more, at } => (failures, not_before) = (more, at),
            }
        }
        if self.live >= self.concurrent {
            return;
        }
        if let Some(last) = last {
            stop(last, TaskState::Shutdown, String::new, context, changes);
        }
        self.live += 1;
        let mut task = making::task(self.service, &self.spec, slot, context);
        task.only_node = node;
        task.failures = failures;
        task.not_before = not_before.map(shoal_proto::time::timestamp);
        if let Some(unmet) = self.unmet {
            task.desired = TaskState::Ready;
            unmet.clone_into(&mut task.waiting_for);
        }
        self.wake_at = earliest(self.wake_at, not_before);
        changes.create(context, task);
    }

    /// Notes the end of the run, or that there is more to do in it.
    fn end(&self, slots: usize, context: &Context<'_>, changes: &mut Changes) {
        let is_over = self.completed + self.given_up.len() == slots;
        if is_over == self.service.job.ended_at.is_some() {
            return;
        }
        let mut service = self.service.clone();
        service.job.ended_at = is_over.then(|| context.stamp());
        service.job.message = match (is_over, self.given_up.first()) {
            (true, Some(first)) => {
                format!("{} of {slots} tasks failed; {first}", self.given_up.len())
            }
            _ => String::new(),
        };
        changes.update(context, service);
    }
}

/// A task that has ended well is not started again.
fn policy(spec: &TaskSpec) -> RestartPolicy {
    let mut policy = spec.restart.unwrap_or_default();
    if policy.condition() == RestartCondition::Any {
        policy.set_condition(RestartCondition::OnFailure);
    }
    policy
}

/// Tasks of the last run that run, by slot.
pub(super) fn running(store: &Store, service: &Service) -> u64 {
    let tasks = store
        .service_tasks(service.id)
        .filter(|task| task.state() == TaskState::Running && run_goes_on(store, service, task));
    tasks.map(|task| (task.slot, ())).collect::<BTreeMap<_, _>>().len() as u64
}
