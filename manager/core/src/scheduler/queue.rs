//! The nodes that tasks of one kind may go to, the best first, so that many equal tasks don't look
//! at all nodes each. While tasks are being placed, nodes only fill up: a node that refused one
//! refuses the next, and a rank only gets worse, so one that is out of date is found when it comes
//! first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::SystemTime;

use shoal_proto::v1::{PortSpec, TaskSpec};
use shoal_proto::{NodeId, ServiceId};

use super::filter;
use super::load::NodeLoad;
use crate::node::unsteady_until;
use crate::store::Task;

/// What makes a node better than another: not coming and going, fewer tasks of the service, fewer
/// tasks, a smaller id.
pub(super) type Rank = (bool, usize, usize, NodeId);

pub(super) fn rank(load: &NodeLoad<'_>, service: ServiceId, now: SystemTime) -> Rank {
    let unsteady = unsteady_until(load.node, now).is_some();
    (unsteady, load.of_service(service), load.tasks, load.node.id)
}

pub(super) struct Queue {
    spec: Arc<TaskSpec>,
    ports: Vec<PortSpec>,
    nodes: BinaryHeap<Reverse<(Rank, usize)>>,
    /// Why there is none left.
    pub(super) refusal: Option<String>,
}

impl Queue {
    pub(super) fn new(task: &Task, loads: &[NodeLoad<'_>], now: SystemTime) -> Self {
        let fit =
            loads.iter().enumerate().filter(|(_, load)| filter::refusal(task, load).is_none());
        let nodes = fit.map(|(index, load)| Reverse((rank(load, task.service, now), index)));
        Self {
            spec: Arc::clone(&task.spec),
            ports: task.ports.clone(),
            nodes: nodes.collect(),
            refusal: None,
        }
    }

    /// Whether a task wants the same of a node.
    pub(super) fn is_for(&self, task: &Task) -> bool {
        (Arc::ptr_eq(&self.spec, &task.spec) || self.spec == task.spec) && self.ports == task.ports
    }

    /// The best node that takes the task; it stays in the queue, for the next one.
    pub(super) fn best(
        &mut self,
        task: &Task,
        loads: &[NodeLoad<'_>],
        now: SystemTime,
    ) -> Option<usize> {
        while let Some(Reverse((noted, index))) = self.nodes.pop() {
            let load = &loads[index];
            if filter::refusal(task, load).is_some() {
                continue;
            }
            let current = rank(load, task.service, now);
            self.nodes.push(Reverse((current, index)));
            if current == noted {
                return Some(index);
            }
        }
        None
    }
}
