use super::*;
use crate::testing::{Cluster, node, placed, service, task};
use shoal_proto::v1::TaskState;

fn by_name<'a>(store: &'a Store, name: &str) -> &'a Node {
    store.nodes().find(|node| node.spec.name == name).expect("the node is there")
}

#[test]
fn labels_and_availability_change_and_the_rest_stays() {
    let mut cluster = Cluster::default();
    let mut worker = node(1);
    worker.spec.labels.insert("old".to_owned(), "1".to_owned());
    cluster.put(worker.clone());
    let wanted = NodeUpdate {
        availability: Some(NodeAvailability::Drain),
        add_labels: BTreeMap::from([("zone".to_owned(), "eu".to_owned())]),
        remove_labels: vec!["old".to_owned(), "never-there".to_owned()],
    };
    cluster
        .commit(|store, context, changes| {
            update(by_name(store, "node-1"), &wanted, context, changes)
        })
        .unwrap();
    let now = by_name(&cluster.store, "node-1");
    assert_eq!(now.spec.availability(), NodeAvailability::Drain);
    let labels: BTreeMap<_, _> = now.spec.labels.clone().into_iter().collect();
    assert_eq!(labels, wanted.add_labels);
    assert_eq!(now.description, worker.description);
    let (done, changes) = cluster.propose(|store, context, changes| {
        update(by_name(store, "node-1"), &wanted, context, changes)
    });
    assert!(done.is_ok() && changes.is_empty(), "nothing is left to change");
}

#[test]
fn a_node_goes_when_it_is_down_or_by_force_and_its_tasks_with_it() {
    let mut cluster = Cluster::default();
    let web = service(1, "web", 1);
    cluster.put(node(1));
    cluster.put(web.clone());
    cluster.put(placed(task(1, &web, 1), 1, TaskState::Running));
    let try_it = |cluster: &mut Cluster, force| {
        cluster.propose(|store, _, changes| remove(store, by_name(store, "node-1"), force, changes))
    };
    let (refused, changes) = try_it(&mut cluster, false);
    assert!(refused.unwrap_err().to_string().contains("--force") && changes.is_empty());
    let (done, changes) = try_it(&mut cluster, true);
    done.unwrap();
    cluster.apply(changes);
    assert_eq!((cluster.store.nodes().count(), cluster.store.tasks().count()), (0, 0));
}

#[test]
fn a_manager_does_not_go() {
    let mut cluster = Cluster::default();
    let mut manager = node(1);
    manager.spec.set_role(NodeRole::Manager);
    cluster.put(manager);
    let (refused, _) =
        cluster.propose(|store, _, changes| remove(store, by_name(store, "node-1"), true, changes));
    assert!(matches!(refused, Err(NodeError::Manager { .. })));
}
