//! Makes each service's tasks what its spec says: creates them, replaces those that ended or are
//! out of date, takes away those that are too many, and forgets old ones.
//!
//! Each loop looks at one service and states the changes; nothing is remembered between runs
//! beside what the store holds.

mod dependency;
mod fence;
mod history;
mod removal;
mod replicated;
mod restart;

pub use fence::Fences;
use std::time::SystemTime;

use shoal_proto::v1::TaskState;

pub use removal::reconcile_stack;
pub(crate) use replicated::earliest;

use crate::context::Context;
use crate::store::{Changes, Object, Service, Store, Task};

/// Brings one service nearer to its spec. Returns when it must be looked at again even if nothing
/// changes until then.
pub fn reconcile_service(
    store: &Store,
    service: &Service,
    fences: &Fences,
    context: &mut Context<'_>,
    changes: &mut Changes,
) -> Option<SystemTime> {
    if service.removing {
        removal::reconcile_service(store, service, context, changes);
        return None;
    }
    replicated::reconcile(store, service, fences, context, changes)
}

/// Whether `other`'s state lets a service that depends on it start; see [`dependency`].
pub fn depends_on(service: &Service, other: &str) -> bool {
    service.spec.depends_on.iter().any(|dependency| dependency.service == other)
}

/// States that a task is to stop. One that never got a node has no agent that would report its
/// end, so it ends here.
fn stop(task: &Task, desired: TaskState, context: &Context<'_>, changes: &mut Changes) {
    if task.desired >= desired {
        return;
    }
    if task.node.is_none() && desired == TaskState::Remove {
        changes.delete(&Object::from(task.clone()));
        return;
    }
    let mut task = task.clone();
    task.desired = desired;
    if task.node.is_none() && !task.state().is_terminal() {
        task.status.set_state(TaskState::Shutdown);
        task.status.since = Some(context.stamp());
        task.status.message = "stopped before it had a node".to_owned();
    }
    changes.update(context, task);
}

#[cfg(test)]
mod tests;
