//! Tasks that move to nodes that came.

use std::sync::Arc;
use std::time::Duration;

use shoal_proto::v1::{ClusterSpec, ClusterState, TaskState};

use super::{Memory, picture, reconcile_with};
use crate::orchestrator::rebalance;
use crate::store::{Meta, Task};
use crate::testing::{Cluster, node, placed, service, task};

/// Service web with so many tasks on each node.
fn uneven(on: bool, counts: &[u128]) -> Cluster {
    let mut cluster = Cluster::default();
    let spec = Some(ClusterSpec { rebalance: on, ..ClusterSpec::default() });
    let state = ClusterState { spec, ..ClusterState::default() };
    cluster.put(crate::store::Cluster { meta: Meta::default(), state });
    let total: u128 = counts.iter().sum();
    let web = service(1, "web", total as u64);
    let mut number = 0;
    for (index, count) in counts.iter().enumerate() {
        cluster.put(node(index as u128 + 1));
        for _ in 0..*count {
            number += 1;
            let task = task(number, &web, number as u64);
            cluster.put(placed(task, index as u128 + 1, TaskState::Running));
        }
    }
    cluster.put(web);
    cluster
}

fn moved(cluster: &mut Cluster, memory: &mut Memory) -> usize {
    reconcile_with(cluster, memory);
    cluster.commit(|store, context, changes| rebalance(store, memory, context, changes));
    reconcile_with(cluster, memory);
    cluster.store.tasks().filter(|task| task.moving && task.is_live()).count()
}

fn of(cluster: &Cluster, host: u128) -> usize {
    cluster.store.tasks().filter(|task| task.is_live() && task.node == Some(node(host).id)).count()
}

#[test]
fn nothing_moves_unasked_or_when_it_is_even() {
    assert_eq!(moved(&mut uneven(false, &[4, 0]), &mut Memory::default()), 0);
    assert_eq!(moved(&mut uneven(true, &[2, 1]), &mut Memory::default()), 0);
    assert_eq!(moved(&mut uneven(true, &[4, 0]), &mut Memory::default()), 1);
}

#[test]
fn one_after_the_other_is_replaced_before_it_stops() {
    let mut cluster = uneven(true, &[4, 0]);
    let mut memory = Memory::default();
    let mut moves = 0;
    for _ in 0..10 {
        if moved(&mut cluster, &mut memory) == 0 {
            break;
        }
        moves += 1;
        let new: Arc<Task> =
            cluster.store.tasks().find(|task| task.node.is_none()).expect("a new one").clone();
        assert_eq!(new.desired, TaskState::Ready);
        assert_eq!(of(&cluster, 1), 5 - moves, "{}", picture(&cluster));
        cluster.put(placed((*new).clone(), 2, TaskState::Ready));
        for _ in 0..3 {
            reconcile_with(&mut cluster, &mut memory);
            cluster.agents();
        }
        // Not before its time.
        assert_eq!(moved(&mut cluster, &mut memory), 0);
        cluster.now += Duration::from_secs(10);
    }
    assert_eq!((moves, of(&cluster, 1), of(&cluster, 2)), (2, 2, 2));
}

#[test]
fn one_that_finds_no_room_stays() {
    let mut cluster = uneven(true, &[2, 0]);
    let mut memory = Memory::default();
    assert_eq!(moved(&mut cluster, &mut memory), 1);
    let new = cluster.store.tasks().find(|task| task.node.is_none()).expect("a new one").clone();
    let mut held = (*new).clone();
    held.status.error = "no suitable node".to_owned();
    cluster.put(held);
    reconcile_with(&mut cluster, &mut memory);
    assert_eq!(picture(&cluster), "1:running 2:running");
    // It is not tried again and again.
    cluster.now += Duration::from_secs(60);
    assert_eq!(moved(&mut cluster, &mut memory), 0);
}

#[test]
fn what_was_mended_once_is_mended_again() {
    let mut cluster = uneven(true, &[2, 0]);
    let mut memory = Memory::default();
    for (from, to) in [(1, 2), (2, 1)] {
        assert_eq!(moved(&mut cluster, &mut memory), 1, "from {from}");
        let new = cluster.store.tasks().find(|task| task.node.is_none()).expect("one").clone();
        cluster.put(placed((*new).clone(), to, TaskState::Ready));
        for _ in 0..3 {
            reconcile_with(&mut cluster, &mut memory);
            cluster.agents();
        }
        assert_eq!((of(&cluster, 1), of(&cluster, 2)), (1, 1));
        cluster.now += Duration::from_secs(20);
        assert_eq!(moved(&mut cluster, &mut memory), 0);
        // All come to be on the other node.
        let last =
            cluster.store.tasks().find(|task| task.is_live() && task.node == Some(node(from).id));
        let last = (**last.expect("one")).clone();
        cluster.put(placed(last, to, TaskState::Running));
        cluster.now += Duration::from_secs(20);
    }
}
