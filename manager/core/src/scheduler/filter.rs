//! The rules that a node must pass to be given a task.

use shoal_proto::v1::{NodeAvailability, NodeState};

use super::kind::{HandedOver, Kind};
use super::load::{Amounts, NodeLoad};
use crate::placement::Broken;
use crate::store::Task;

/// The rule that a node broke.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Refusal {
    Down,
    NotActive(&'static str),
    Platform,
    Cpu,
    Memory,
    Pids,
    Generic(String),
    HostPort,
    Full(u64),
    Volume(String),
    Affinity { service: String, topology: String },
    AntiAffinity { service: String, topology: String },
    Constraint(String),
}

impl Refusal {
    /// In words, for that many nodes.
    pub(super) fn describe(&self, count: usize) -> String {
        let verb = |one: &str, many: &str| (if count == 1 { one } else { many }).to_owned();
        let place = |topology: &str| match topology {
            "" => "on it".to_owned(),
            topology => format!("in its {topology}"),
        };
        match self {
            Self::Down => format!("{count} {} down", verb("is", "are")),
            Self::NotActive(state) => format!("{count} {} {state}", verb("is", "are")),
            Self::Platform => format!("{count} {} of another platform", verb("is", "are")),
            Self::Cpu => format!("{count} {} cpu", verb("lacks", "lack")),
            Self::Memory => format!("{count} {} memory", verb("lacks", "lack")),
            Self::Pids => format!("{count} {} pids", verb("lacks", "lack")),
            Self::Generic(kind) => {
                format!("{count} {} generic resource {kind}", verb("lacks", "lack"))
            }
            Self::HostPort => {
                format!("{count} {} the host port in use", verb("has", "have"))
            }
            Self::Full(bound) => {
                format!("{count} {} {bound} replicas already", verb("has", "have"))
            }
            Self::Volume(name) => format!("{count} {} volume {name}", verb("lacks", "lack")),
            Self::Affinity { service, topology } => {
                let place = place(topology);
                format!("{count} {} no task of {service} {place}", verb("has", "have"))
            }
            Self::AntiAffinity { service, topology } => {
                let place = place(topology);
                format!("{count} {} a task of {service} {place}", verb("has", "have"))
            }
            Self::Constraint(text) => {
                format!("{count} {} not meet {text}", verb("does", "do"))
            }
        }
    }

    /// There would be room without other tasks.
    pub(super) fn is_for_want_of_room(&self) -> bool {
        matches!(self, Self::Cpu | Self::Memory | Self::Pids | Self::Generic(_))
    }
}

/// The first rule that the node breaks; none when it may run the task. What older tasks of its slot
/// have there counts as free for one that starts after them.
pub(super) fn refusal(
    kind: &Kind,
    task: &Task,
    load: &NodeLoad,
    handed_over: Option<&HandedOver>,
) -> Option<Refusal> {
    standing(kind, task, load, handed_over).or_else(|| room(task, load, handed_over))
}

/// The rules that no other task's end would change.
pub(super) fn standing(
    kind: &Kind,
    task: &Task,
    load: &NodeLoad,
    handed_over: Option<&HandedOver>,
) -> Option<Refusal> {
    let holder = handed_over.map(|_| (task.service, task.slot));
    ready(load)
        .or_else(|| available(load))
        .or_else(|| rules(kind, load))
        .or_else(|| volume(kind, task, load))
        .or_else(|| full(kind, load, handed_over))
        .or_else(|| kind.affinity_refusal(load, handed_over))
        .or_else(|| load.has_host_port(task, holder).then_some(Refusal::HostPort))
}

fn ready(load: &NodeLoad) -> Option<Refusal> {
    (load.node.status.state() != NodeState::Ready).then_some(Refusal::Down)
}

fn available(load: &NodeLoad) -> Option<Refusal> {
    match load.node.spec.availability() {
        NodeAvailability::Active => None,
        NodeAvailability::Pause => Some(Refusal::NotActive("paused")),
        NodeAvailability::Drain => Some(Refusal::NotActive("drained")),
    }
}

fn rules(kind: &Kind, load: &NodeLoad) -> Option<Refusal> {
    Some(match kind.rules.broken(&load.node)? {
        Broken::Constraint(text) => Refusal::Constraint(text),
        Broken::Platform => Refusal::Platform,
    })
}

/// A volume that some node has is used where it is. A task of a global service has its own on each
/// node.
fn volume(kind: &Kind, task: &Task, load: &NodeLoad) -> Option<Refusal> {
    if task.only_node.is_some() {
        return None;
    }
    let lacking = kind.volumes.iter().find(|volume| !load.has_volume(volume))?;
    Some(Refusal::Volume(lacking.clone()))
}

fn full(kind: &Kind, load: &NodeLoad, handed_over: Option<&HandedOver>) -> Option<Refusal> {
    let bound = kind.max_per_node?;
    let own = handed_over.map_or(0, |handed_over| handed_over.tasks);
    let others = load.of_service(kind.service).saturating_sub(own) as u64;
    (others >= bound).then_some(Refusal::Full(bound))
}

/// Whether what the task reserves is there.
pub(super) fn room(
    task: &Task,
    load: &NodeLoad,
    handed_over: Option<&HandedOver>,
) -> Option<Refusal> {
    let freed = handed_over.map(|handed_over| handed_over.amounts).unwrap_or_default();
    lacking(Amounts::reserved(&task.spec), load.available().plus(freed)).or_else(|| {
        let holder = handed_over.map(|_| (task.service, task.slot));
        let mut wanted = task.spec.generic_reservations.iter();
        let lacking = wanted.find(|wanted| load.generic_part(wanted, holder).is_none())?;
        Some(Refusal::Generic(lacking.kind.clone()))
    })
}

pub(super) fn lacking(wanted: Amounts, available: Amounts) -> Option<Refusal> {
    // One that reserves nothing fits also where more was reserved than there is by now.
    let lacks = |wanted: i64, available: i64| wanted > 0 && wanted > available;
    if lacks(wanted.nano_cpus, available.nano_cpus) {
        return Some(Refusal::Cpu);
    }
    if lacks(wanted.memory_bytes, available.memory_bytes) {
        return Some(Refusal::Memory);
    }
    lacks(wanted.pids, available.pids).then_some(Refusal::Pids)
}
