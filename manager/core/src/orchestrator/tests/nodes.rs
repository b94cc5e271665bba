//! Nodes that are lost, come back, or are to be emptied.

use shoal_proto::NodeId;
use shoal_proto::v1::{NodeAvailability, NodeState, TaskState};

use super::{Memory, newest, picture, reconcile, reconcile_with};
use crate::testing::{Cluster, node, placed, service};

/// A service of two tasks: one on node 1, one on node 2.
fn running() -> Cluster {
    let mut cluster = Cluster::default();
    cluster.put(node(1));
    cluster.put(node(2));
    cluster.put(service(1, "web", 2));
    reconcile(&mut cluster);
    for (slot, place) in [("web.1", 1), ("web.2", 2)] {
        let id = newest(&cluster, slot);
        let task = (**cluster.store.task(id).unwrap()).clone();
        cluster.put(placed(task, place, TaskState::Running));
    }
    reconcile(&mut cluster);
    assert_eq!(picture(&cluster), "1:running 2:running");
    cluster
}

fn change(cluster: &mut Cluster, number: u128, change: impl FnOnce(&mut crate::store::Node)) {
    let mut node = (**cluster.store.node(NodeId::from_bits(number)).unwrap()).clone();
    change(&mut node);
    cluster.put(node);
    reconcile(cluster);
}

#[test]
fn what_ran_on_a_lost_node_is_replaced_at_once_and_not_waited_for() {
    let mut cluster = running();
    change(&mut cluster, 1, |node| node.status.set_state(NodeState::Down));
    assert_eq!(picture(&cluster), "1:running/shutdown 1:new 2:running");
    let id = newest(&cluster, "web.1");
    let task = (**cluster.store.task(id).unwrap()).clone();
    cluster.put(placed(task, 2, TaskState::Running));
    reconcile(&mut cluster);
    // Back again, it is told to stop what is no longer wanted.
    change(&mut cluster, 1, |node| node.status.set_state(NodeState::Ready));
    assert_eq!(picture(&cluster), "1:running/shutdown 1:running 2:running");
    cluster.agents();
    reconcile(&mut cluster);
    assert_eq!(picture(&cluster), "1:shutdown/shutdown 1:running 2:running");
}

#[test]
fn a_service_is_removed_though_a_node_of_its_is_lost() {
    let mut cluster = running();
    change(&mut cluster, 1, |node| node.status.set_state(NodeState::Down));
    let web = (**cluster.store.service_by_name("web").unwrap()).clone();
    cluster.put(crate::store::Service { removing: true, ..web });
    reconcile(&mut cluster);
    cluster.agents();
    reconcile(&mut cluster);
    assert_eq!((picture(&cluster), cluster.store.services().count()), (String::new(), 0));
}

#[test]
fn a_node_is_emptied_when_others_are_ready_to_take_over() {
    let mut cluster = running();
    change(&mut cluster, 1, |node| node.spec.set_availability(NodeAvailability::Drain));
    let waits = "(waits for web.1 to make room)";
    assert_eq!(picture(&cluster), format!("1:running 1:new/ready {waits} 2:running"));
    let id = newest(&cluster, "web.1");
    let task = (**cluster.store.task(id).unwrap()).clone();
    cluster.put(placed(task, 2, TaskState::Ready));
    reconcile(&mut cluster);
    assert_eq!(picture(&cluster), format!("1:running/shutdown 1:ready/ready {waits} 2:running"));
    cluster.agents();
    reconcile(&mut cluster);
    assert_eq!(picture(&cluster), "1:shutdown/shutdown 1:ready 2:running");
}

#[test]
fn a_node_is_emptied_also_when_nothing_can_take_over() {
    let mut cluster = running();
    change(&mut cluster, 1, |node| node.spec.set_availability(NodeAvailability::Drain));
    let id = newest(&cluster, "web.1");
    let mut task = (**cluster.store.task(id).unwrap()).clone();
    task.status.error = "no suitable node".to_owned();
    cluster.put(task);
    reconcile(&mut cluster);
    assert!(
        picture(&cluster).starts_with("1:running/shutdown 1:new/ready"),
        "{}",
        picture(&cluster)
    );
}

/// The service of [`running`] with fencing; both tasks run.
fn fenced() -> Cluster {
    let mut cluster = running();
    let web = (**cluster.store.service_by_name("web").unwrap()).clone();
    let mut spec = (*web.spec).clone();
    spec.task.get_or_insert_default().fenced = true;
    cluster.put(crate::store::Service { spec: spec.into(), ..web });
    for task in cluster.store.tasks().cloned().collect::<Vec<_>>() {
        let mut new = (*task).clone();
        std::sync::Arc::make_mut(&mut new.spec).fenced = true;
        cluster.put(new);
    }
    cluster
}

fn lose(cluster: &mut Cluster, number: u128) {
    let now = cluster.now;
    change(cluster, number, |node| *node = crate::node::lost(node, now));
}

#[test]
fn what_is_fenced_is_replaced_when_its_lease_has_run_out() {
    let mut cluster = fenced();
    let mut memory = Memory::default();
    let mut node = (**cluster.store.node(NodeId::from_bits(1)).unwrap()).clone();
    node.status.set_state(NodeState::Down);
    cluster.put(node);
    reconcile_with(&mut cluster, &mut memory);
    assert!(picture(&cluster).starts_with("1:running/shutdown 1:new/ready (waits until node-1"));
    let id = newest(&cluster, "web.1");
    let task = (**cluster.store.task(id).unwrap()).clone();
    cluster.put(placed(task, 2, TaskState::Ready));
    // The lease, and what a leader that was cut off may have added to it.
    let lease = crate::settings::FENCING_LEASE + std::time::Duration::from_secs(2);
    cluster.now += lease - std::time::Duration::from_millis(1);
    reconcile_with(&mut cluster, &mut memory);
    let held = (**cluster.store.task(id).unwrap()).clone();
    assert_eq!(held.desired, TaskState::Ready);
    assert!(held.waiting_for.contains("node-1, which is out of reach"), "{}", held.waiting_for);
    cluster.now += std::time::Duration::from_millis(1);
    reconcile_with(&mut cluster, &mut memory);
    assert_eq!(cluster.store.task(id).unwrap().desired, TaskState::Running);
}

#[test]
fn what_is_fenced_is_replaced_at_once_when_its_node_is_back_or_is_removed() {
    let mut cluster = fenced();
    lose(&mut cluster, 1);
    change(&mut cluster, 1, |node| node.status.set_state(NodeState::Ready));
    cluster.agents();
    reconcile(&mut cluster);
    assert_eq!(picture(&cluster), "1:shutdown/shutdown 1:new 2:running");

    let mut cluster = fenced();
    lose(&mut cluster, 1);
    let node = (**cluster.store.node(NodeId::from_bits(1)).unwrap()).clone();
    cluster
        .commit(|store, context, changes| crate::node::remove(store, &node, true, context, changes))
        .unwrap();
    reconcile(&mut cluster);
    assert_eq!(picture(&cluster), "1:new 2:running");
}

#[test]
fn a_fenced_slot_that_is_given_up_and_wanted_again_waits_too() {
    let mut cluster = fenced();
    lose(&mut cluster, 1);
    let scale = |cluster: &mut Cluster, replicas| {
        let web = (**cluster.store.service_by_name("web").unwrap()).clone();
        cluster
            .commit(|_, context, changes| {
                crate::deploy::scale_service(&web, replicas, context, changes)
            })
            .unwrap();
        reconcile(cluster);
    };
    scale(&mut cluster, 1);
    scale(&mut cluster, 2);
    let id = newest(&cluster, "web.1");
    assert_eq!(cluster.store.task(id).unwrap().desired, TaskState::Ready, "{}", picture(&cluster));
}
