//! Makes each service's tasks what its spec says: creates them, replaces those that ended or are
//! out of date, takes away those that are too many, and forgets old ones.
//!
//! Each loop looks at one service and states the changes; nothing is remembered between runs
//! beside what the store holds.

mod cron;
mod dependency;
mod fence;
mod global;
mod history;
mod job;
mod making;
mod memory;
mod rebalance;
mod removal;
mod replicated;
mod restart;
mod slots;
mod steady;
mod updater;

use std::time::SystemTime;

use shoal_proto::v1::{ServiceCounts, TaskState};

pub use memory::Memory;
pub use rebalance::rebalance;
pub use removal::reconcile_stack;

use crate::context::Context;
use crate::store::{Changes, Object, Service, ServiceMode, Store, Task};

/// Brings one service nearer to its spec. Returns when it must be looked at again even if nothing
/// changes until then.
pub fn reconcile_service(
    store: &Store,
    service: &Service,
    memory: &mut Memory,
    context: &mut Context<'_>,
    changes: &mut Changes,
) -> Option<SystemTime> {
    if service.removing {
        removal::reconcile_service(store, service, context, changes);
        return None;
    }
    match service.is_job() {
        true => job::reconcile(store, service, memory, context, changes),
        false => steady::reconcile(store, service, memory, context, changes),
    }
}

pub(crate) fn earliest(a: Option<SystemTime>, b: Option<SystemTime>) -> Option<SystemTime> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// How many tasks a service has, and should have.
#[must_use]
pub fn counts(store: &Store, service: &Service) -> ServiceCounts {
    if service.is_job() {
        let (completed, completions) = job::completions(store, service);
        let concurrent = match service.mode() {
            ServiceMode::ReplicatedJob { concurrent, .. } => concurrent,
            _ => completions,
        };
        let goes_on = service.job.iteration > 0 && service.job.ended_at.is_none();
        let desired =
            if goes_on { concurrent.min(completions - completed.min(completions)) } else { 0 };
        let running = job::running(store, service);
        return ServiceCounts { running, desired, completed, completions, updated: running };
    }
    let running = store.service_tasks(service.id).filter(|task| {
        task.state() == TaskState::Running
            && task.desired <= TaskState::Running
            && !store.is_lost(task)
    });
    let mut counts = ServiceCounts::default();
    for task in running {
        counts.running += 1;
        counts.updated += u64::from(task.spec_version == service.spec_version);
    }
    if !service.removing {
        counts.desired = match service.mode() {
            ServiceMode::Replicated(replicas) => replicas,
            _ => global::count(store, service),
        };
    }
    counts
}

/// Whether all of a service's tasks are of the newest spec and on their way to running or there, so
/// that one that gets further is no news.
pub(crate) fn is_settled(store: &Store, service: &Service) -> bool {
    if service.removing {
        return false;
    }
    if service.is_job() {
        return true;
    }
    let mut live = 0;
    for task in store.service_tasks(service.id).filter(|task| !task.state().is_terminal()) {
        if task.desired != TaskState::Running || task.spec_version != service.spec_version {
            return false;
        }
        live += 1;
    }
    let wanted = match service.mode() {
        ServiceMode::Replicated(replicas) => replicas,
        _ => global::count(store, service),
    };
    service.is_updated() && live == wanted
}

/// Whether `other`'s state lets a service that depends on it start; see [`dependency`].
pub fn depends_on(service: &Service, other: &str) -> bool {
    service.spec.depends_on.iter().any(|dependency| dependency.service == other)
}

/// States that a task is to stop, and why. One that never got a node has no agent that would report
/// its end, so it ends here.
fn stop(
    task: &Task,
    desired: TaskState,
    reason: impl FnOnce() -> String,
    context: &Context<'_>,
    changes: &mut Changes,
) {
    if task.desired >= desired {
        return;
    }
    if task.node.is_none() && desired == TaskState::Remove {
        changes.delete(&Object::from(task.clone()));
        return;
    }
    let mut task = task.clone();
    task.desired = desired;
    // The first reason is the one that holds.
    if task.stop_reason.is_empty() && !task.state().is_terminal() {
        task.stop_reason = reason();
    }
    if task.node.is_none() && !task.state().is_terminal() {
        task.status.set_state(TaskState::Shutdown);
        task.status.since = Some(context.stamp());
        task.status.message = "stopped before it had a node".to_owned();
    }
    changes.update(context, task);
}

#[cfg(test)]
mod tests;
