//! Who makes room for whom.

use std::sync::Arc;

use shoal_proto::v1::TaskState;

use super::{reserve, schedule};
use crate::store::Task;
use crate::testing::{Cluster, GIB, Lcg, node, pending, placed, service, task};

fn important(mut task: Task, priority: i32, memory: i64) -> Task {
    reserve(&mut task, 0, memory * GIB);
    Arc::make_mut(&mut task.spec).priority = priority;
    task
}

/// Two nodes of 4 GiB; running tasks by id: node, priority, GiB.
fn full(running: &[(u128, u128, i32, i64)]) -> Cluster {
    let mut cluster = Cluster::default();
    (1..=2).for_each(|number| drop(cluster.put(node(number))));
    let low = service(2, "low", 9);
    for &(number, host, priority, memory) in running {
        let running = important(task(number, &low, number as u64), priority, memory);
        cluster.put(placed(running, host, TaskState::Running));
    }
    cluster
}

fn stopped(cluster: &Cluster) -> Vec<u128> {
    let stopped = cluster.store.tasks().filter(|task| task.desired == TaskState::Shutdown);
    stopped.map(|task| task.id.bits()).collect()
}

#[test]
fn the_fewest_and_least_important_end_and_the_task_waits_for_them() {
    let mut cluster = full(&[(11, 1, 0, 2), (12, 1, 0, 2), (13, 2, 1, 4)]);
    let web = service(1, "web", 1);
    cluster.put(important(pending(task(1, &web, 1)), 5, 2));
    schedule(&mut cluster);
    assert_eq!(stopped(&cluster).len(), 1);
    let victim = cluster.store.tasks().find(|task| task.desired == TaskState::Shutdown).unwrap();
    assert_eq!(victim.stop_reason, "makes room for web.1 of priority 5");
    let words = "waits for room: tasks of a lower priority end on node-1";
    assert_eq!(cluster.task(1).status.error, words);
    // Nobody else has to go while that one ends.
    let before = stopped(&cluster);
    schedule(&mut cluster);
    assert_eq!(stopped(&cluster), before);
    cluster.report(shoal_proto::TaskId::from_bits(before[0]), TaskState::Shutdown);
    schedule(&mut cluster);
    assert_eq!(cluster.task(1).node, Some(node(1).id));
}

#[test]
fn nobody_ends_for_an_equal_or_where_it_would_not_help() {
    for (priority, memory) in [(0, 2), (-1, 2), (9, 5)] {
        let mut cluster = full(&[(11, 1, 0, 4), (12, 2, 0, 4)]);
        let web = service(1, "web", 1);
        cluster.put(important(pending(task(1, &web, 1)), priority, memory));
        schedule(&mut cluster);
        assert!(stopped(&cluster).is_empty(), "{priority}, {memory} GiB");
        assert_eq!(cluster.task(1).status.error, "no suitable node (2 lack memory)");
    }
}

#[test]
fn room_that_is_made_is_promised_once() {
    let mut cluster = full(&[(11, 1, 0, 4), (12, 2, 0, 4)]);
    let web = service(1, "web", 2);
    for number in 1..=2 {
        cluster.put(important(pending(task(number, &web, number as u64)), 5, 4));
    }
    schedule(&mut cluster);
    assert_eq!(stopped(&cluster), [11, 12]);
    cluster.agents();
    schedule(&mut cluster);
    let mut hosts: Vec<_> = (1..=2).map(|number| cluster.task(number).node).collect();
    hosts.sort_unstable();
    assert_eq!(hosts, [Some(node(1).id), Some(node(2).id)]);
}

/// However it goes on, the important ones run in the end when there is room for them without the
/// others, and no one ends for one that is less important.
#[test]
fn in_the_end_the_important_run() {
    for seed in 0..60 {
        let mut random = Lcg(seed);
        let mut cluster = full(&[]);
        let (low, high) = (service(2, "low", 9), service(1, "web", 2));
        for number in 11..=18 {
            let memory = 1 + random.below(3) as i64;
            let low = important(pending(task(number, &low, number as u64)), 0, memory);
            cluster.put(low);
            schedule(&mut cluster);
        }
        for number in 1..=2 {
            let memory = 2 + random.below(3) as i64;
            cluster.put(important(pending(task(number, &high, number as u64)), 1, memory));
        }
        for _ in 0..6 {
            schedule(&mut cluster);
            cluster.agents();
        }
        for number in 1..=2 {
            assert!(cluster.task(number).node.is_some(), "seed {seed}: {:?}", cluster.task(number));
        }
    }
}

#[test]
fn who_made_room_does_not_get_it_back_for_its_successor() {
    let mut cluster = full(&[(11, 1, 0, 4), (12, 2, 5, 4)]);
    let web = service(1, "web", 1);
    cluster.put(important(pending(task(1, &web, 1)), 5, 4));
    schedule(&mut cluster);
    assert_eq!(stopped(&cluster), [11]);
    let low = service(2, "low", 9);
    let mut next = important(pending(task(21, &low, 11)), 0, 4);
    next.desired = TaskState::Ready;
    cluster.put(next);
    schedule(&mut cluster);
    assert_eq!(cluster.task(21).node, None);
}

#[test]
fn room_that_becomes_free_bit_by_bit_is_kept_together() {
    let mut cluster = full(&[(11, 1, 0, 2), (12, 1, 0, 2), (13, 2, 9, 4)]);
    let (web, low) = (service(1, "web", 1), service(2, "low", 9));
    cluster.put(important(pending(task(1, &web, 1)), 5, 4));
    schedule(&mut cluster);
    assert_eq!(stopped(&cluster), [11, 12]);
    for (ended, next) in [(11, 21), (12, 22)] {
        cluster.report(shoal_proto::TaskId::from_bits(ended), TaskState::Shutdown);
        cluster.put(important(pending(task(next, &low, ended as u64)), 0, 2));
        schedule(&mut cluster);
        assert_eq!(cluster.task(next).node, None);
    }
    assert_eq!(cluster.task(1).node, Some(node(1).id));
}
