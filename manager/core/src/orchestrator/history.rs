//! Which ended tasks are kept, for `ps` and `logs`, and which are forgotten.

use std::sync::Arc;

use shoal_proto::v1::TaskState;

use crate::store::{Changes, Object, Task};

/// Ended tasks kept in each slot, as in Swarm.
const KEPT_PER_SLOT: usize = 5;

/// Deletes the ended tasks of a slot that nobody needs any more. `tasks` are sorted, oldest first.
pub(super) fn reap(tasks: &[&Arc<Task>], wanted: bool, changes: &mut Changes) {
    let ended: Vec<_> = tasks.iter().filter(|task| task.state().is_terminal()).collect();
    let too_many = if wanted { ended.len().saturating_sub(KEPT_PER_SLOT) } else { 0 };
    for (age, task) in ended.into_iter().enumerate() {
        if age < too_many || task.desired == TaskState::Remove {
            changes.delete(&Object::Task(Arc::clone(task)));
        }
    }
}
