//! The tasks of this node. Each has a worker that takes it through its states and ends with it;
//! here is who they are and what they are told.

mod assigned;
mod cleanup;
mod container;
mod fence;
mod given;
mod template;
mod worker;

use std::collections::{BTreeMap, BTreeSet};

use shoal_proto::v1::{Assignments, Task, TaskState};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) use assigned::{Assigned, Told, outer_address, port};
pub(crate) use cleanup::{collect_garbage, forget_files, release_run};
pub(crate) use given::fill_in;

use crate::node::Node;

/// The task that a container's name or id means: `SERVICE.SLOT`, `SERVICE.SLOT.ID`, an id or the
/// unique beginning of one. Of several in a slot the newest that runs.
pub(crate) fn find(node: &Node, text: &str) -> Option<Task> {
    let tasks = all(node);
    let has_name = |task: &&Task| {
        let name = format!("{}.{}", task.service_name, task.slot);
        text == name || text == format!("{name}.{}", task.id)
    };
    let runs = |task: &Task| {
        node.statuses.status(&task.id).is_some_and(|status| status.state() == TaskState::Running)
    };
    if let Some(task) = tasks.iter().find(|task| task.id == text) {
        return Some(task.clone());
    }
    let mut named: Vec<&Task> = tasks.iter().filter(has_name).collect();
    named.sort_by_key(|task| !runs(task));
    if let Some(task) = named.first() {
        return Some((*task).clone());
    }
    let mut matching = tasks.iter().filter(|task| !text.is_empty() && task.id.starts_with(text));
    match (matching.next(), matching.next()) {
        (Some(task), None) => Some(task.clone()),
        _ => None,
    }
}

/// The tasks that this node was assigned.
pub(crate) fn all(node: &Node) -> Vec<Task> {
    use shoal_proto::v1::assignment_change::Change;
    let changes = node.statuses.assignments().changes.into_iter();
    let tasks = changes.filter_map(|change| match change.change {
        Some(Change::Task(task)) => Some(task),
        _ => None,
    });
    tasks.collect()
}

/// All workers.
pub(crate) struct Tasks {
    node: Node,
    assigned: Assigned,
    workers: BTreeMap<String, Worker>,
}

struct Worker {
    desired: watch::Sender<TaskState>,
    handle: JoinHandle<()>,
}

impl Tasks {
    pub(crate) fn new(node: Node) -> Self {
        Self { node, assigned: Assigned::default(), workers: BTreeMap::new() }
    }

    /// Goes on with what an agent before this one was assigned.
    pub(crate) async fn resume(&mut self) {
        let kept = self.node.statuses.assignments();
        if !kept.changes.is_empty() {
            self.apply(kept).await;
        }
    }

    /// Brings the node to what a manager has assigned: the network first, so that no task starts
    /// without its rules and no endpoint stops before others have been told.
    pub(crate) async fn apply(&mut self, assignments: Assignments) {
        self.assigned.take(assignments);
        self.keep_payloads();
        let hostname = |task: &Task| given::hostname(&self.node, task);
        let desired = self.assigned.network(&self.node.id.to_string(), self.node.address, hostname);
        match self.node.fabric.set_cluster(desired).await {
            Ok(report) => {
                for error in report.ports {
                    tracing::warn!(%error, "a published port");
                }
                if let Some(error) = report.overlay {
                    tracing::error!(%error, "containers on other nodes can't be reached");
                }
            }
            Err(error) => tracing::error!(%error, "the network is not as it should be"),
        }
        self.node.told.send_if_modified(|told| {
            let now = self.assigned.told(&self.node.id.to_string());
            let differs = *told != now;
            *told = now;
            differs
        });
        let gone: Vec<String> = self
            .workers
            .keys()
            .filter(|id| !self.assigned.tasks().contains_key(*id))
            .cloned()
            .collect();
        for id in gone {
            self.forget(&id);
        }
        for (id, task) in self.assigned.tasks() {
            match self.workers.get(id) {
                Some(worker) => drop(worker.desired.send_replace(task.desired_state())),
                None => {
                    let worker = start(self.node.clone(), task.clone(), self.assigned.clone());
                    self.workers.insert(id.clone(), worker);
                }
            }
        }
        if let Err(error) = self.node.statuses.save_assignments(&self.assigned.to_message()) {
            tracing::warn!(%error, "can't keep the assignments on disk");
        }
    }

    /// What has come goes into memory, and never on a disk.
    fn keep_payloads(&mut self) {
        // What finds no room is tried again with the next assignment.
        self.assigned.hand_over(|payload| {
            let kept = self.node.payloads.keep(payload);
            if let Err(error) = &kept {
                let name = payload.spec.as_ref().map(|spec| spec.name.as_str());
                tracing::error!(%error, name, "can't keep a secret or config in memory");
            }
            kept.is_ok()
        });
        if let Err(error) = self.node.payloads.retain(&self.assigned.payloads()) {
            tracing::warn!(%error, "can't forget a secret or config");
        }
    }

    /// The manager has forgotten the task: stop it if it still runs, then forget it here too.
    fn forget(&mut self, id: &str) {
        let Some(worker) = self.workers.remove(id) else { return };
        worker.desired.send_replace(TaskState::Remove);
        let node = self.node.clone();
        let id = id.to_owned();
        tokio::spawn(async move {
            // A worker that panicked has ended as well.
            let _ = worker.handle.await;
            cleanup::forget(&node, &id).await;
        });
    }

    /// Whether any container may still run.
    pub(crate) fn is_idle(&self) -> bool {
        self.workers.values().all(|worker| worker.handle.is_finished())
    }

    /// Tasks that an agent before this one was assigned.
    pub(crate) fn kept(&self) -> BTreeSet<String> {
        all(&self.node).into_iter().map(|task| task.id).collect()
    }
}

fn start(node: Node, task: Task, assigned: Assigned) -> Worker {
    let (desired, receiver) = watch::channel(task.desired_state());
    let handle = tokio::spawn(worker::run(node, task, assigned.networks().clone(), receiver));
    Worker { desired, handle }
}
