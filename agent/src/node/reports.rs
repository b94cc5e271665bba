//! The newest status of each task, on its way to the managers: a session sends what has changed,
//! a new session sends all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use shoal_proto::v1::{TaskStatus, TaskStatusUpdate};
use tokio::sync::Notify;

#[derive(Default)]
pub(crate) struct Reports {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    newest: BTreeMap<String, TaskStatus>,
    unsent: BTreeSet<String>,
}

impl Reports {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn put(&self, task: &str, status: TaskStatus) {
        let mut state = self.state();
        state.newest.insert(task.to_owned(), status);
        state.unsent.insert(task.to_owned());
        drop(state);
        self.changed.notify_one();
    }

    pub(crate) fn forget(&self, task: &str) {
        let mut state = self.state();
        state.newest.remove(task);
        state.unsent.remove(task);
    }

    /// A session has begun: its manager is to hear everything.
    pub(crate) fn resend_all(&self) {
        let mut state = self.state();
        state.unsent = state.newest.keys().cloned().collect();
        drop(state);
        self.changed.notify_one();
    }

    /// Waits until there is something to send, and takes it.
    pub(crate) async fn take(&self) -> Vec<TaskStatusUpdate> {
        loop {
            let taken = self.take_now();
            if !taken.is_empty() {
                return taken;
            }
            self.changed.notified().await;
        }
    }

    fn take_now(&self) -> Vec<TaskStatusUpdate> {
        let mut state = self.state();
        let unsent = std::mem::take(&mut state.unsent);
        let update = |task: String| {
            let status = state.newest.get(&task)?.clone();
            Some(TaskStatusUpdate { task_id: task, status: Some(status) })
        };
        unsent.into_iter().filter_map(update).collect()
    }
}
