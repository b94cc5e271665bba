//! Services with a number of replicas: which slots there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_proto::v1::TaskState;

use super::slots::{Slots, Wanted};
use crate::store::{Slot, Store, Task};

/// The slots to fill: those with a running task first, then other live ones, then those that
/// only have a history, then new ones; low numbers before high ones.
pub(super) fn wanted(store: &Store, replicas: u64, slots: &Slots<'_>) -> Wanted {
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
    let mut wanted: BTreeMap<Slot, _> =
        ranked.into_iter().take(replicas).map(|(_, slot)| (slot, None)).collect();
    let mut number = 1;
    while wanted.len() < replicas {
        wanted.insert(Slot(number), None);
        number += 1;
    }
    Wanted { slots: wanted, ..Wanted::default() }
}
