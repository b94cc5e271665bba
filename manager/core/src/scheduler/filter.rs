//! The rules that a node must pass to be given a task.

use shoal_proto::v1::{NodeAvailability, NodeState};

use super::constraint::Constraint;
use super::load::NodeLoad;
use crate::store::Task;

/// The rule that a node broke.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Refusal {
    Down,
    NotActive(&'static str),
    Cpu,
    Memory,
    Generic(String),
    HostPort,
    Constraint(String),
}

impl Refusal {
    /// In words, for that many nodes.
    pub(super) fn describe(&self, count: usize) -> String {
        let verb = |one: &str, many: &str| (if count == 1 { one } else { many }).to_owned();
        match self {
            Self::Down => format!("{count} {} down", verb("is", "are")),
            Self::NotActive(state) => format!("{count} {} {state}", verb("is", "are")),
            Self::Cpu => format!("{count} {} cpu", verb("lacks", "lack")),
            Self::Memory => format!("{count} {} memory", verb("lacks", "lack")),
            Self::Generic(kind) => {
                format!("{count} {} generic resource {kind}", verb("lacks", "lack"))
            }
            Self::HostPort => {
                format!("{count} {} the host port in use", verb("has", "have"))
            }
            Self::Constraint(text) => {
                format!("{count} {} not meet {text}", verb("does", "do"))
            }
        }
    }
}

/// The first rule that the node breaks; none when it may run the task.
pub(super) fn refusal(task: &Task, load: &NodeLoad<'_>) -> Option<Refusal> {
    ready(load)
        .or_else(|| available(load))
        .or_else(|| constraints(task, load))
        .or_else(|| resources(task, load))
        .or_else(|| generic_resources(task, load))
        .or_else(|| load.has_host_port(task).then_some(Refusal::HostPort))
}

fn ready(load: &NodeLoad<'_>) -> Option<Refusal> {
    (load.node.status.state() != NodeState::Ready).then_some(Refusal::Down)
}

fn available(load: &NodeLoad<'_>) -> Option<Refusal> {
    match load.node.spec.availability() {
        NodeAvailability::Active => None,
        NodeAvailability::Pause => Some(Refusal::NotActive("paused")),
        NodeAvailability::Drain => Some(Refusal::NotActive("drained")),
    }
}

fn constraints(task: &Task, load: &NodeLoad<'_>) -> Option<Refusal> {
    let texts = task.spec.placement.iter().flat_map(|placement| &placement.constraints);
    texts
        .filter(|text| !text.parse::<Constraint>().is_ok_and(|rule| rule.matches(load.node)))
        .map(|text| Refusal::Constraint(text.clone()))
        .next()
}

fn resources(task: &Task, load: &NodeLoad<'_>) -> Option<Refusal> {
    let wanted = task.spec.reservations.as_ref()?;
    let available = load.available(task);
    if wanted.nano_cpus > available.nano_cpus {
        return Some(Refusal::Cpu);
    }
    (wanted.memory_bytes > available.memory_bytes).then_some(Refusal::Memory)
}

fn generic_resources(task: &Task, load: &NodeLoad<'_>) -> Option<Refusal> {
    let mut wanted = task.spec.generic_reservations.iter();
    let lacking = wanted.find(|wanted| load.generic_part(task, wanted).is_none())?;
    Some(Refusal::Generic(lacking.kind.clone()))
}
