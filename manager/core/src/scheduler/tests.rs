//! Where tasks go, and what is said of those that go nowhere.

mod placement;
mod preemption;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shoal_proto::TaskId;
use shoal_proto::time::timestamp;
use shoal_proto::v1::{
    NodeAvailability, NodeRole, NodeState, Placement, Platform, PortProtocol, PortSpec,
    PublishMode, Resources, TaskState,
};

use super::Scheduler;
use crate::context::Context;
use crate::placement::{Constraint, ConstraintError};
use crate::store::{Changes, Node, Service, Store, Task};
use crate::testing::{Cluster, GIB, Lcg, node, pending, placed, port, service, task};

/// A scheduler that has just begun.
pub(super) fn run(
    store: &Store,
    context: &mut Context<'_>,
    changes: &mut Changes,
) -> Option<SystemTime> {
    Scheduler::new(store).run(store, context, changes)
}

fn schedule(cluster: &mut Cluster) -> Option<SystemTime> {
    cluster.commit(run)
}

fn reserve(task: &mut Task, nano_cpus: i64, memory_bytes: i64) {
    let reserved = Resources { nano_cpus, memory_bytes, pids: 0 };
    Arc::make_mut(&mut task.spec).reservations = Some(reserved);
}

fn constrain(task: &mut Task, constraints: &[&str]) {
    let constraints = constraints.iter().map(|text| (*text).to_owned()).collect();
    Arc::make_mut(&mut task.spec).placement =
        Some(Placement { constraints, ..Placement::default() });
}

fn label(node: &mut Node, name: &str, value: &str) {
    node.spec.labels.insert(name.to_owned(), value.to_owned());
}

/// The node of each task by id, 0 for none.
fn places(cluster: &Cluster, service: &Service) -> Vec<u128> {
    let tasks = cluster.store.service_tasks(service.id);
    tasks.map(|task| task.node.map_or(0, |node| node.bits())).collect()
}

type Obstacle = fn(&mut Node, &mut Task);

#[test]
fn every_rule_refuses_with_its_reason() {
    let cases: [(&str, Obstacle); 9] = [
        ("1 is down", |node, _| node.status.set_state(NodeState::Down)),
        ("1 is down", |node, _| node.status.set_state(NodeState::Unknown)),
        ("1 is paused", |node, _| node.spec.set_availability(NodeAvailability::Pause)),
        ("1 is drained", |node, _| node.spec.set_availability(NodeAvailability::Drain)),
        ("1 lacks cpu", |_, task| reserve(task, 4_000_000_001, 0)),
        ("1 lacks memory", |_, task| reserve(task, 4_000_000_000, 4 * GIB + 1)),
        ("1 does not meet node.role==manager", |_, task| constrain(task, &["node.role==manager"])),
        ("1 does not meet node.labels.a!=b", |node, task| {
            label(node, "a", "b");
            constrain(task, &["node.role==worker", "node.labels.a!=b"]);
        }),
        // Whoever wrote it into the store: what can't be read is not met.
        ("1 does not meet nonsense", |_, task| constrain(task, &["nonsense"])),
    ];
    for (reason, set) in cases {
        let mut cluster = Cluster::default();
        let mut host = node(1);
        let mut waiting = pending(task(1, &service(1, "web", 1), 1));
        set(&mut host, &mut waiting);
        cluster.put(host);
        cluster.put(waiting);
        schedule(&mut cluster);
        let task = cluster.task(1);
        assert_eq!(task.status.error, format!("no suitable node ({reason})"));
        assert_eq!((task.node, task.state()), (None, TaskState::Pending), "{reason}");
    }
}

#[test]
fn the_reason_counts_every_node_once() {
    let mut cluster = Cluster::default();
    let mut waiting = pending(task(1, &service(1, "web", 1), 1));
    reserve(&mut waiting, 0, 5 * GIB);
    constrain(&mut waiting, &["node.labels.zone==eu"]);
    cluster.put(waiting);
    schedule(&mut cluster);
    assert_eq!(cluster.task(1).status.error, "no suitable node (the cluster has none)");

    for number in 1..=6 {
        let mut host = node(number);
        match number {
            1 => host.status.set_state(NodeState::Down),
            2 => host.spec.set_availability(NodeAvailability::Drain),
            3 | 4 => label(&mut host, "zone", "us"),
            _ => label(&mut host, "zone", "eu"),
        }
        cluster.put(host);
    }
    schedule(&mut cluster);
    assert_eq!(
        cluster.task(1).status.error,
        "no suitable node (1 is down, 1 is drained, 2 lack memory, \
         2 do not meet node.labels.zone==eu)"
    );
}

#[test]
fn a_refused_task_is_written_once_and_placed_when_a_node_fits() {
    let mut cluster = Cluster::default();
    let mut host = node(1);
    host.status.set_state(NodeState::Down);
    cluster.put(host);
    cluster.put(pending(task(1, &service(1, "web", 1), 1)));
    schedule(&mut cluster);
    let (_, again) = cluster.propose(run);
    assert!(again.is_empty(), "nothing new to say");

    cluster.put(node(1));
    schedule(&mut cluster);
    let task = cluster.task(1);
    assert_eq!((task.node, task.state()), (Some(node(1).id), TaskState::Assigned));
    assert_eq!(task.status.error, "");
}

#[test]
fn constraints_read_what_a_node_says_of_itself() {
    let mut host = node(1);
    host.spec.set_role(NodeRole::Manager);
    label(&mut host, "zone", "eu");
    host.description.hostname = "alpha".to_owned();
    host.description.platform =
        Some(Platform { architecture: "amd64".to_owned(), os: "linux".to_owned() });
    for (subject, value, other) in [
        ("node.id", host.id.to_string().as_str(), "alpha"),
        ("node.hostname", "alpha", "node-1"),
        ("node.role", "manager", "worker"),
        ("node.platform.os", "linux", "amd64"),
        ("node.platform.arch", "amd64", "linux"),
        ("node.labels.zone", "eu", "us"),
    ] {
        let met = |text: String| text.parse::<Constraint>().unwrap().matches(&host);
        assert!(met(format!("{subject}=={value}")), "{subject}");
        assert!(met(format!(" {subject} == {value} ")), "{subject} with spaces");
        assert!(!met(format!("{subject}!={value}")), "{subject}");
        assert!(!met(format!("{subject}=={other}")), "{subject}");
        assert!(met(format!("{subject}!={other}")), "{subject}");
    }
    let met = |text: &str| text.parse::<Constraint>().unwrap().matches(&host);
    assert!(!met("node.labels.rack==1") && met("node.labels.rack!=1"), "a label it lacks");
}

#[test]
fn what_is_no_constraint_is_refused() {
    for text in ["", "node.role", "node.role=manager"] {
        let refused = text.parse::<Constraint>();
        assert_eq!(refused, Err(ConstraintError::Operator { text: text.to_owned() }));
    }
    for subject in ["role", "node.colour", "node.labels.", "engine.labels."] {
        let refused = format!("{subject}==x").parse::<Constraint>();
        assert!(matches!(refused, Err(ConstraintError::Subject { .. })), "{subject}");
    }
}

#[test]
fn tasks_of_a_service_spread_over_the_nodes() {
    let mut cluster = Cluster::default();
    let web = service(1, "web", 6);
    for number in 1..=3 {
        cluster.put(node(number));
    }
    for number in 1..=6 {
        cluster.put(pending(task(number, &web, 1)));
    }
    schedule(&mut cluster);
    assert_eq!(places(&cluster, &web), [1, 2, 3, 1, 2, 3]);
}

#[test]
fn among_nodes_with_equal_shares_of_the_service_the_emptiest_wins() {
    let mut cluster = Cluster::default();
    let (web, other) = (service(1, "web", 4), service(2, "other", 9));
    for number in 1..=3 {
        cluster.put(node(number));
    }
    // What has ended on node 3 weighs nothing.
    for (number, host, state) in [
        (11, 1, TaskState::Running),
        (12, 1, TaskState::Starting),
        (13, 2, TaskState::Running),
        (14, 3, TaskState::Failed),
        (15, 3, TaskState::Complete),
        (16, 3, TaskState::Shutdown),
    ] {
        cluster.put(placed(task(number, &other, 1), host, state));
    }
    for number in 1..=4 {
        cluster.put(pending(task(number, &web, 1)));
    }
    schedule(&mut cluster);
    assert_eq!(places(&cluster, &web), [3, 2, 1, 3]);
}

fn host_port(published: u32, protocol: PortProtocol) -> PortSpec {
    let mode = PublishMode::Host.into();
    PortSpec { mode, protocol: protocol.into(), ..port(published) }
}

#[test]
fn a_host_port_is_open_once_on_a_node() {
    let mut cluster = Cluster::default();
    let web = service(1, "web", 4);
    cluster.put(node(1));
    cluster.put(node(2));
    for (number, protocol) in [
        (1, PortProtocol::Tcp),
        (2, PortProtocol::Tcp),
        (3, PortProtocol::Tcp),
        (4, PortProtocol::Udp),
    ] {
        let ports = vec![host_port(8080, protocol)];
        cluster.put(Task { ports, ..pending(task(number, &web, 1)) });
    }
    schedule(&mut cluster);
    assert_eq!(places(&cluster, &web), [1, 2, 0, 1]);
    let reason = "no suitable node (2 have the host port in use)";
    assert_eq!(cluster.task(3).status.error, reason);
    cluster.report(TaskId::from_bits(2), TaskState::Failed);
    schedule(&mut cluster);
    assert_eq!(places(&cluster, &web), [1, 2, 2, 1]);
}

#[test]
fn a_host_port_that_the_node_picks_is_never_in_use() {
    let mut cluster = Cluster::default();
    let web = service(1, "web", 2);
    cluster.put(node(1));
    for number in 1..=2 {
        let ports = vec![host_port(0, PortProtocol::Tcp)];
        cluster.put(Task { ports, ..pending(task(number, &web, 1)) });
    }
    schedule(&mut cluster);
    assert_eq!(places(&cluster, &web), [1, 1]);
}

#[test]
fn a_task_is_held_back_until_its_time() {
    let mut cluster = Cluster::default();
    let web = service(1, "web", 2);
    let at = |seconds| cluster.now + Duration::from_secs(seconds);
    let (first, second) = (at(5), at(9));
    cluster.put(node(1));
    for (number, not_before) in [(1, second), (2, first)] {
        let not_before = Some(timestamp(not_before));
        cluster.put(Task { not_before, ..pending(task(number, &web, 1)) });
    }
    assert_eq!(schedule(&mut cluster), Some(first));
    assert_eq!(places(&cluster, &web), [0, 0]);
    cluster.now = first;
    assert_eq!(schedule(&mut cluster), Some(second));
    assert_eq!(places(&cluster, &web), [0, 1]);
    cluster.now = second;
    assert_eq!(schedule(&mut cluster), None);
    assert_eq!(places(&cluster, &web), [1, 1]);
}

/// CPU and memory of the node that nothing on it has reserved.
fn free(store: &Store, node: &Node) -> (i64, i64) {
    let total = node.description.resources.unwrap();
    let here = store.tasks().filter(|task| task.node == Some(node.id));
    here.filter(|task| !task.state().is_terminal()).fold(
        (total.nano_cpus, total.memory_bytes),
        |(cpus, memory), task| {
            let reserved = task.spec.reservations.unwrap();
            (cpus - reserved.nano_cpus, memory - reserved.memory_bytes)
        },
    )
}

#[test]
fn no_node_is_promised_away_twice_and_no_task_waits_that_would_fit() {
    for seed in 0..30 {
        let mut random = Lcg(seed);
        let mut cluster = Cluster::default();
        let mut few = |bound: u64| random.below(bound) as i64;
        for number in 1..=4 {
            let mut host = node(number);
            host.description.resources =
                Some(Resources { nano_cpus: few(8), memory_bytes: few(12), pids: 0 });
            cluster.put(host);
        }
        for round in 0..25 {
            for number in 0..3 {
                let mut new = pending(task(round * 3 + number + 1, &service(1, "web", 1), 1));
                reserve(&mut new, few(4), few(5));
                cluster.put(new);
            }
            let tasks = cluster.store.tasks();
            let running = tasks.filter(|task| task.node.is_some() && !task.state().is_terminal());
            let ended: Vec<TaskId> = running.map(|task| task.id).filter(|_| few(3) == 0).collect();
            for task in ended {
                cluster.report(task, TaskState::Complete);
            }
            schedule(&mut cluster);
            for host in cluster.store.nodes() {
                let (cpus, memory) = free(&cluster.store, host);
                assert!(cpus >= 0 && memory >= 0, "seed {seed}: {cpus}, {memory} left");
                for waiting in cluster.store.pending_tasks() {
                    let wanted = waiting.spec.reservations.unwrap();
                    let fits = wanted.nano_cpus <= cpus && wanted.memory_bytes <= memory;
                    assert!(!fits, "seed {seed}: {} fits on {}", waiting.id, host.id);
                }
            }
        }
    }
}

#[test]
fn a_node_that_comes_and_goes_is_taken_only_when_there_is_no_other() {
    let mut cluster = Cluster::default();
    let web = service(1, "web", 2);
    let mut unsteady = node(1);
    unsteady.status.losses = 3;
    unsteady.status.changed_at = Some(timestamp(cluster.now));
    cluster.put(unsteady);
    cluster.put(node(2));
    cluster.put(web.clone());
    for number in 1..=2 {
        cluster.put(pending(task(number, &web, number as u64)));
    }
    schedule(&mut cluster);
    assert_eq!(places(&cluster, &web), [2, 2]);
    let mut alone = node(2);
    alone.spec.set_availability(NodeAvailability::Pause);
    cluster.put(alone);
    cluster.put(pending(task(3, &web, 3)));
    schedule(&mut cluster);
    assert_eq!(places(&cluster, &web), [2, 2, 1]);
}
