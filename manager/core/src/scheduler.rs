//! Gives each task with addresses a node, or the reason why none will do.
//!
//! Filters are small and stateless, one rule each; a node that passes all is ranked: one that comes
//! and goes is taken only when there is no other, then the one with the fewest tasks of the same
//! service wins, then the one with the fewest tasks, then the one with the smaller id. With its node a task gets its part of that node's generic resources. Decisions
//! commit against the versions they were made from.

mod constraint;
mod filter;
mod generic;
mod load;
mod queue;

use std::collections::BTreeMap;
use std::time::SystemTime;

use shoal_proto::ServiceId;
use shoal_proto::time::system_time;
use shoal_proto::v1::TaskState;

pub use constraint::{Constraint, ConstraintError};

use crate::context::Context;
use crate::orchestrator::earliest;
use crate::store::{Changes, Store, Task};
use filter::Refusal;
use load::NodeLoad;
use queue::{Queue, Rank, rank};

/// Places what can be placed. Returns the time at which the first task that is held back by its
/// restart delay may be placed.
pub fn run(store: &Store, context: &mut Context<'_>, changes: &mut Changes) -> Option<SystemTime> {
    let mut pending = store.pending_tasks().peekable();
    pending.peek()?;
    let mut loads: Vec<NodeLoad<'_>> =
        store.nodes().map(|node| NodeLoad::of(store, node)).collect();
    let mut queues = BTreeMap::new();
    let mut wake_at = None;
    for task in pending {
        let not_before = task.not_before.as_ref().map(system_time);
        if let Some(at) = not_before.filter(|at| *at > context.now) {
            wake_at = earliest(wake_at, Some(at));
            continue;
        }
        match find(task, &loads, &mut queues, context.now) {
            Ok(index) => {
                let load = &mut loads[index];
                let mut placed = (**task).clone();
                placed.node = Some(load.node.id);
                let reserved = task.spec.generic_reservations.iter();
                placed.generic_resources =
                    reserved.filter_map(|wanted| load.generic_part(task, wanted)).collect();
                load.add(&placed);
                placed.status.set_state(TaskState::Assigned);
                placed.status.since = Some(context.stamp());
                placed.status.message = format!("assigned to {}", load.node.spec.name);
                placed.status.error.clear();
                changes.update(context, placed);
            }
            Err(reason) if reason != task.status.error => {
                let mut held = (**task).clone();
                held.status.message = "waits for a node".to_owned();
                held.status.error = reason;
                changes.update(context, held);
            }
            Err(_) => {}
        }
    }
    wake_at
}

/// The best node for the task, or why there is none.
fn find(
    task: &Task,
    loads: &[NodeLoad<'_>],
    queues: &mut BTreeMap<(ServiceId, u64), Queue>,
    now: SystemTime,
) -> Result<usize, String> {
    // What one that is held may have depends on its slot.
    if task.desired < TaskState::Running {
        return place(task, loads, now);
    }
    let kind = (task.service, task.spec_version);
    let queue = queues.entry(kind).or_insert_with(|| Queue::new(task, loads, now));
    if !queue.is_for(task) {
        return place(task, loads, now);
    }
    if let Some(refusal) = &queue.refusal {
        return Err(refusal.clone());
    }
    match queue.best(task, loads, now) {
        Some(index) => Ok(index),
        None => {
            place(task, loads, now).inspect_err(|refusal| queue.refusal = Some(refusal.clone()))
        }
    }
}

/// The same with a look at all nodes.
fn place(task: &Task, loads: &[NodeLoad<'_>], now: SystemTime) -> Result<usize, String> {
    let mut refusals: BTreeMap<Refusal, usize> = BTreeMap::new();
    let mut best: Option<(Rank, usize)> = None;
    for (index, load) in loads.iter().enumerate() {
        if let Some(refusal) = filter::refusal(task, load) {
            *refusals.entry(refusal).or_default() += 1;
            continue;
        }
        let rank = rank(load, task.service, now);
        if best.is_none_or(|(best, _)| rank < best) {
            best = Some((rank, index));
        }
    }
    match best {
        Some((_, index)) => Ok(index),
        None => Err(explain(&refusals)),
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

#[cfg(test)]
mod tests;
