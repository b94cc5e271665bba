//! Services with a task on each node.

use shoal_proto::NodeId;
use shoal_proto::v1::service_mode::Mode;
use shoal_proto::v1::{
    GlobalMode, NodeAvailability, NodeState, Placement, ServiceCounts, ServiceMode, TaskState,
};

use super::{WEB, picture, reconcile};
use crate::orchestrator::counts;
use crate::store::{Node, Task};
use crate::testing::{Cluster, node, placed, service, spec_of, task_spec_of};

/// Service web on nodes 1 to 3; all run.
fn everywhere() -> Cluster {
    let mut cluster = Cluster::default();
    (1..=3).for_each(|number| drop(cluster.put(node(number))));
    let mut web = service(1, "web", 1);
    spec_of(&mut web).mode = Some(ServiceMode { mode: Some(Mode::Global(GlobalMode {})) });
    task_spec_of(&mut web).placement = Some(Placement {
        constraints: vec!["node.labels.web!=no".to_owned()],
        ..Placement::default()
    });
    cluster.put(web);
    run(&mut cluster);
    assert_eq!(picture(&cluster), "1:running 2:running 3:running");
    cluster
}

/// Every task comes to run on its node.
fn run(cluster: &mut Cluster) {
    reconcile(cluster);
    let waiting: Vec<Task> = cluster
        .store
        .tasks()
        .filter(|task| task.node.is_none())
        .map(|task| (**task).clone())
        .collect();
    for task in waiting {
        let own = task.only_node.expect("it has a node of its own").bits();
        cluster.put(placed(task, own, TaskState::Running));
    }
    reconcile(cluster);
}

fn change(cluster: &mut Cluster, number: u128, change: impl FnOnce(&mut Node)) {
    let mut node = (**cluster.store.node(NodeId::from_bits(number)).unwrap()).clone();
    change(&mut node);
    cluster.put(node);
    reconcile(cluster);
}

fn running_and_wanted(cluster: &Cluster) -> (u64, u64) {
    let ServiceCounts { running, desired, .. } =
        counts(&cluster.store, cluster.store.service(WEB).unwrap());
    (running, desired)
}

#[test]
fn each_node_that_fits_has_one_and_keeps_its_slot() {
    let mut cluster = everywhere();
    change(&mut cluster, 2, |node| node.spec.set_availability(NodeAvailability::Drain));
    assert_eq!(picture(&cluster), "1:running 2:running/remove 3:running");
    let stopped = cluster.store.tasks().find(|task| task.desired == TaskState::Remove).unwrap();
    assert_eq!(stopped.stop_reason, "its node is drained");
    cluster.agents();
    reconcile(&mut cluster);
    assert_eq!(picture(&cluster), "1:running 3:running");
    cluster.put(node(4));
    run(&mut cluster);
    assert_eq!(picture(&cluster), "1:running 2:running 3:running");
    change(&mut cluster, 2, |node| node.spec.set_availability(NodeAvailability::Active));
    run(&mut cluster);
    assert_eq!(picture(&cluster), "1:running 2:running 3:running 4:running");
    assert_eq!(running_and_wanted(&cluster), (4, 4));
}

#[test]
fn a_label_that_changes_takes_the_task_away() {
    let mut cluster = everywhere();
    change(&mut cluster, 3, |node| {
        node.spec.labels.insert("web".to_owned(), "no".to_owned());
    });
    assert_eq!(picture(&cluster), "1:running 2:running 3:running/remove");
}

#[test]
fn a_paused_node_keeps_its_task_and_gets_none() {
    let mut cluster = everywhere();
    change(&mut cluster, 3, |node| node.spec.set_availability(NodeAvailability::Pause));
    let mut new = node(4);
    new.spec.set_availability(NodeAvailability::Pause);
    cluster.put(new);
    run(&mut cluster);
    assert_eq!(picture(&cluster), "1:running 2:running 3:running");
}

#[test]
fn a_node_that_is_away_for_a_while_finds_its_task_as_it_was() {
    let mut cluster = everywhere();
    change(&mut cluster, 2, |node| node.status.set_state(NodeState::Down));
    assert_eq!(picture(&cluster), "1:running 2:running 3:running");
    assert_eq!(running_and_wanted(&cluster), (2, 2));
    change(&mut cluster, 2, |node| node.status.set_state(NodeState::Ready));
    assert_eq!(picture(&cluster), "1:running 2:running 3:running");
}
