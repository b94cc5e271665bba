//! What a leader remembers beside the store: what depends on how long something has been so, on a
//! clock that nobody sets. A new leader begins anew, and takes a little longer.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use shoal_proto::v1::TaskState;
use shoal_proto::{ServiceId, TaskId};

use super::fence::{Fences, Lost};
use crate::store::{Store, Task};

/// The leader's memory.
#[derive(Debug, Default)]
pub struct Memory {
    fences: Fences,
    uptime: Duration,
    /// Since when tasks of services that are being updated have been seen running.
    running_since: BTreeMap<TaskId, Duration>,
    /// When a task was last moved to another node.
    pub(super) moved_at: Option<Duration>,
    /// How many tasks the nodes had, in order, before a service's last move.
    moved_from: BTreeMap<ServiceId, Vec<usize>>,
}

impl Memory {
    /// Notes how late it is. `uptime` counts from any origin on a clock that nobody sets.
    pub fn observe(&mut self, store: &Store, uptime: Duration) {
        self.uptime = uptime;
        self.fences.observe(store, uptime);
        self.running_since
            .retain(|id, _| store.task(*id).is_some_and(|task| task.state() == TaskState::Running));
    }

    pub(super) fn uptime(&self) -> Duration {
        self.uptime
    }

    pub(super) fn lost(&self, store: &Store, task: &Task, now: SystemTime) -> Lost {
        self.fences.lost(store, task, now)
    }

    /// Notes that a task of the service is moved.
    pub(super) fn moves(&mut self, service: ServiceId, counts: Vec<usize>) {
        self.moved_at = Some(self.uptime);
        self.moved_from.insert(service, counts);
    }

    /// The service's tasks are where they should be: the last move has brought it about.
    pub(super) fn is_even(&mut self, service: ServiceId) {
        self.moved_from.remove(&service);
    }

    /// Whether the service's last move has left everything as it was.
    pub(super) fn moved_in_vain(&self, service: ServiceId, counts: &[usize]) -> bool {
        self.moved_from.get(&service).is_some_and(|before| before == counts)
    }

    /// Nothing hangs any more on how long these have been running.
    pub(super) fn forget(&mut self, tasks: impl Iterator<Item = TaskId>) {
        if !self.running_since.is_empty() {
            for task in tasks {
                self.running_since.remove(&task);
            }
        }
    }

    /// How long the task has been seen running.
    pub(super) fn running_for(&mut self, task: &Task) -> Duration {
        let since = *self.running_since.entry(task.id).or_insert(self.uptime);
        self.uptime.saturating_sub(since)
    }
}
