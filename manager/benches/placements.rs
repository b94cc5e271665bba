//! Placements a second: 100,000 tasks of 100 services with constraints, reservations and a spread over
//! zones and racks, given to 10, 100, 1,000, 5,000 and 10,000 nodes in one pass of the scheduler.
//! Medians of five runs. Run by `make bench`.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)] // a bench

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use shoal_core::context::Context;
use shoal_core::scheduler::Scheduler;
use shoal_core::store::{Change, Changes, Meta, Node, Slot, Store, Task};
use shoal_proto::v1::{
    ContainerSpec, NodeDescription, NodeSpec, NodeState, NodeStatus, Placement, Resources,
    TaskSpec, TaskState, TaskStatus,
};
use shoal_proto::{NodeId, ServiceId, TaskId};

const TASKS: u64 = 100_000;
const SERVICES: u64 = 100;
const RUNS: usize = 5;

fn main() {
    println!("{TASKS} tasks of {SERVICES} services:");
    for nodes in [10, 100, 1000, 5000, 10_000] {
        let store = cluster(nodes);
        let mut rates: Vec<f64> = (0..RUNS).map(|_| rate(&store)).collect();
        rates.sort_by(f64::total_cmp);
        println!("{nodes} nodes: {:.0} placements/s", rates[RUNS / 2]);
    }
}

fn rate(store: &Store) -> f64 {
    let mut scheduler = Scheduler::new(store);
    let mut random = || 0;
    let mut context = Context { now: SystemTime::now(), random: &mut random };
    let mut changes = Changes::default();
    let begin = Instant::now();
    scheduler.run(store, &mut context, &mut changes);
    let seconds = begin.elapsed().as_secs_f64();
    let placed = changes.as_slice().iter().filter(|change| is_placed(change)).count() as u64;
    assert_eq!(placed, TASKS);
    TASKS as f64 / seconds
}

fn is_placed(change: &Change) -> bool {
    matches!(change, Change::Put { object: shoal_core::store::Object::Task(task), .. } if task.node.is_some())
}

fn cluster(nodes: u64) -> Store {
    let mut changes = Vec::new();
    for number in 1..=nodes {
        let label = |name: &str, value: u64| (name.to_owned(), value.to_string());
        let labels =
            [label("zone", number % 8), label("rack", number % 64), label("disk", number % 2)];
        // The same room in all, on however many nodes.
        let share = TASKS as i64 * 4 / nodes as i64 + 1000;
        let resources =
            Resources { nano_cpus: share * 1_000_000, memory_bytes: share << 20, pids: 0 };
        let node = Node {
            id: NodeId::from_bits(number.into()),
            meta: Meta::default(),
            spec: NodeSpec {
                name: format!("node-{number}"),
                labels: labels.into_iter().collect(),
                ..NodeSpec::default()
            },
            description: NodeDescription {
                resources: Some(resources),
                ..NodeDescription::default()
            },
            status: NodeStatus { state: NodeState::Ready.into(), ..NodeStatus::default() },
            raft_id: None,
        };
        changes.push(Change::Put { expected: 0, object: node.into() });
    }
    for service in 0..SERVICES {
        let text = |text: &str| text.to_owned();
        let placement = Placement {
            constraints: vec![format!("node.labels.disk=={}", service % 2)],
            spread: vec![text("node.labels.zone"), text("node.labels.rack")],
            ..Placement::default()
        };
        let spec = Arc::new(TaskSpec {
            container: Some(ContainerSpec { image: text("app:1"), ..ContainerSpec::default() }),
            reservations: Some(Resources { nano_cpus: 1_000_000, memory_bytes: 1 << 20, pids: 0 }),
            placement: Some(placement),
            ..TaskSpec::default()
        });
        let name: Arc<str> = format!("service-{service}").into();
        for slot in 1..=TASKS / SERVICES {
            let task = Task {
                id: TaskId::from_bits(u128::from(service) << 64 | u128::from(slot)),
                meta: Meta::default(),
                service: ServiceId::from_bits(service.into()),
                service_name: Arc::clone(&name),
                slot: Slot(slot),
                node: None,
                spec: Arc::clone(&spec),
                spec_version: 1,
                desired: TaskState::Running,
                status: TaskStatus { state: TaskState::Pending.into(), ..TaskStatus::default() },
                networks: Vec::new(),
                ports: Vec::new(),
                not_before: None,
                failures: 0,
                waiting_for: String::new(),
                generic_resources: Vec::new(),
                stop_reason: String::new(),
                only_node: None,
                job_iteration: 0,
                moving: false,
            };
            changes.push(Change::Put { expected: 0, object: task.into() });
        }
    }
    let mut store = Store::default();
    store.apply(1, changes).unwrap();
    store
}
