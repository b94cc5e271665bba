//! Tasks on nodes that are down: whether they may be replaced.
//!
//! A task that is fenced is replaced when its node has certainly given it up: the node was told, or
//! could not be told for longer than the lease after which it stops such tasks by itself. That time
//! counts from when this leader has first seen the node down, on a clock that nobody sets: clocks
//! of managers differ, and jump.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use shoal_proto::NodeId;
use shoal_proto::v1::NodeState;

use crate::settings::Settings;
use crate::store::{Store, Task};

/// A leader that was cut off may have renewed leases for so long after the next one began.
const MARGIN: Duration = Duration::from_secs(2);

/// Since when nodes have been down, in the leader's memory.
#[derive(Debug, Default)]
pub(super) struct Fences {
    down_since: BTreeMap<NodeId, Duration>,
    uptime: Duration,
}

/// What a task's node being down means for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// Its node is there, or it has ended.
    No,
    /// It is fenced, and may run until then.
    Until(SystemTime),
    /// It may be replaced.
    Gone,
}

impl Fences {
    /// Notes which nodes are down. `uptime` counts from any origin on a clock that nobody sets.
    pub(super) fn observe(&mut self, store: &Store, uptime: Duration) {
        self.uptime = uptime;
        let is_down = |id: &NodeId| {
            store.node(*id).is_some_and(|node| node.status.state() == NodeState::Down)
        };
        self.down_since.retain(|id, _| is_down(id));
        for node in store.nodes().filter(|node| is_down(&node.id)) {
            self.down_since.entry(node.id).or_insert(uptime);
        }
    }

    pub(super) fn lost(&self, store: &Store, task: &Task, now: SystemTime) -> Lost {
        if !store.is_lost(task) {
            return Lost::No;
        }
        // However little it has reported, it may have started since.
        if !task.spec.fenced {
            return Lost::Gone;
        }
        let since = task.node.and_then(|node| self.down_since.get(&node)).copied();
        let falls = since.unwrap_or(self.uptime) + Settings::of(store).fencing_lease + MARGIN;
        match falls.checked_sub(self.uptime) {
            Some(left) if !left.is_zero() => Lost::Until(now + left),
            _ => Lost::Gone,
        }
    }
}

/// Why the task's successor waits.
pub(super) fn words(store: &Store, task: &Task) -> String {
    let node = task.node.and_then(|node| store.node(node));
    let name = node.map_or("its node", |node| node.spec.name.as_str());
    format!(
        "waits until {name}, which is out of reach, has given up {}.{} by itself (fencing); \
         \"ctl node rm --force {name}\" says that it is dead",
        task.service_name, task.slot
    )
}
