//! Who gets which of a node's generic resources, and who waits.

use std::collections::BTreeSet;
use std::sync::Arc;

use shoal_proto::TaskId;
use shoal_proto::v1::{GenericReservation, GenericResource, TaskState};

use crate::scheduler::tests::run;
use crate::store::{Node, Task};
use crate::testing::{Cluster, Lcg, node, pending, service, task};

fn resource(kind: &str, count: u64, names: &[&str]) -> GenericResource {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    GenericResource { kind: kind.to_owned(), count, names }
}

fn host(number: u128, resources: Vec<GenericResource>) -> Node {
    let mut host = node(number);
    host.description.generic_resources = resources;
    host
}

/// A task of the slot that waits for a node with so many of each kind.
fn waiting(number: u128, slot: u64, reserved: &[(&str, u64)]) -> Task {
    let mut waiting = pending(task(number, &service(1, "web", 1), slot));
    let spec = Arc::make_mut(&mut waiting.spec);
    for &(kind, count) in reserved {
        spec.generic_reservations.push(GenericReservation { kind: kind.to_owned(), count });
    }
    waiting
}

#[test]
fn the_reason_counts_the_nodes_that_lack_a_kind() {
    let mut cluster = Cluster::default();
    cluster.put(node(1));
    cluster.put(host(2, vec![resource("gpu", 1, &[]), resource("ssd", 1, &[])]));
    cluster.put(host(3, vec![resource("gpu", 0, &["a"])]));
    cluster.put(host(4, vec![resource("gpu", 0, &["a", "b"])]));
    cluster.put(waiting(1, 1, &[("gpu", 2), ("ssd", 1)]));
    cluster.commit(run);
    assert_eq!(
        cluster.task(1).status.error,
        "no suitable node (3 lack generic resource gpu, 1 lacks generic resource ssd)"
    );
    cluster.put(host(5, vec![resource("ssd", 0, &["x", "y"]), resource("gpu", 2, &[])]));
    cluster.commit(run);
    assert_eq!(cluster.task(1).node, Some(node(5).id));
    let held = [resource("gpu", 2, &[]), resource("ssd", 0, &["x"])];
    assert_eq!(cluster.task(1).generic_resources, held);
}

#[test]
fn a_task_holds_the_lowest_names_that_are_free_until_it_is_over() {
    let mut cluster = Cluster::default();
    cluster.put(host(1, vec![resource("gpu", 0, &["gpu-b", "gpu-c", "gpu-a"])]));
    for (number, count) in [(1, 1), (2, 2), (3, 1)] {
        cluster.put(waiting(u128::from(number), number, &[("gpu", count)]));
    }
    cluster.commit(run);
    assert_eq!(cluster.task(1).generic_resources, [resource("gpu", 0, &["gpu-a"])]);
    assert_eq!(cluster.task(2).generic_resources, [resource("gpu", 0, &["gpu-b", "gpu-c"])]);
    let reason = "no suitable node (1 lacks generic resource gpu)";
    assert_eq!(cluster.task(3).status.error, reason);
    assert!(cluster.task(3).generic_resources.is_empty());

    cluster.report(TaskId::from_bits(1), TaskState::Complete);
    cluster.commit(run);
    assert_eq!(cluster.task(3).generic_resources, [resource("gpu", 0, &["gpu-a"])]);
}

#[test]
fn a_slot_hands_its_part_over_to_its_next_task_alone() {
    for total in [resource("gpu", 1, &[]), resource("gpu", 0, &["gpu-a"])] {
        let mut cluster = Cluster::default();
        cluster.put(host(1, vec![total.clone()]));
        cluster.put(waiting(1, 1, &[("gpu", 1)]));
        cluster.commit(run);
        for (number, slot) in [(2, 1), (3, 2)] {
            let desired = TaskState::Ready;
            cluster.put(Task { desired, ..waiting(number, slot, &[("gpu", 1)]) });
        }
        cluster.commit(run);
        let expected = [total];
        assert_eq!(cluster.task(1).generic_resources, expected);
        assert_eq!(cluster.task(2).generic_resources, expected);
        assert_eq!(cluster.task(3).node, None, "{expected:?}");

        cluster.report(TaskId::from_bits(1), TaskState::Shutdown);
        cluster.commit(run);
        assert_eq!(cluster.task(3).node, None, "{expected:?}");
        cluster.report(TaskId::from_bits(2), TaskState::Shutdown);
        cluster.commit(run);
        assert_eq!(cluster.task(3).generic_resources, expected);
    }
}

#[test]
fn nothing_is_held_twice_and_no_task_waits_for_what_is_free() {
    for seed in 0..30 {
        let mut random = Lcg(seed);
        let mut cluster = Cluster::default();
        cluster.put(host(1, vec![resource("gpu", 3, &[])]));
        cluster.put(host(2, vec![resource("gpu", 0, &["a", "b", "c", "d"])]));
        for slot in 1..60 {
            let count = random.below(3) + 1;
            cluster.put(waiting(u128::from(slot), slot, &[("gpu", count)]));
            let tasks = cluster.store.tasks().filter(|task| task.node.is_some());
            let tasks = tasks.filter(|task| task.holds_resources() && random.below(3) == 0);
            let ended: Vec<TaskId> = tasks.map(|task| task.id).collect();
            for task in ended {
                cluster.report(task, TaskState::Complete);
            }
            cluster.commit(run);
            for host in cluster.store.nodes() {
                let tasks = cluster.store.node_tasks(host.id);
                let held: Vec<&GenericResource> = tasks
                    .filter(|task| task.holds_resources())
                    .flat_map(|task| &task.generic_resources)
                    .collect();
                let count: u64 = held.iter().map(|part| part.count).sum();
                let names: Vec<&String> = held.iter().flat_map(|part| &part.names).collect();
                let different: BTreeSet<&String> = names.iter().copied().collect();
                assert_eq!(different.len(), names.len(), "seed {seed}: {names:?}");
                let total = &host.description.generic_resources[0];
                let all = total.count + total.names.len() as u64;
                let taken = count + names.len() as u64;
                assert!(taken <= all, "seed {seed}: {taken} of {all} are taken");
                for waiting in cluster.store.pending_tasks() {
                    let wanted = waiting.spec.generic_reservations[0].count;
                    assert!(wanted > all - taken, "seed {seed}: {} fits", waiting.id);
                }
            }
        }
    }
}
