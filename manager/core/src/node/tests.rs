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
        role: None,
        add_labels: BTreeMap::from([("zone".to_owned(), "eu".to_owned())]),
        remove_labels: vec!["old".to_owned(), "never-there".to_owned()],
    };
    cluster
        .commit(|store, context, changes| {
            update(store, by_name(store, "node-1"), &wanted, context, changes)
        })
        .unwrap();
    let now = by_name(&cluster.store, "node-1");
    assert_eq!(now.spec.availability(), NodeAvailability::Drain);
    let labels: BTreeMap<_, _> = now.spec.labels.clone().into_iter().collect();
    assert_eq!(labels, wanted.add_labels);
    assert_eq!(now.description, worker.description);
    let (done, changes) = cluster.propose(|store, context, changes| {
        update(store, by_name(store, "node-1"), &wanted, context, changes)
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
        cluster.propose(|store, context, changes| {
            remove(store, by_name(store, "node-1"), force, context, changes)
        })
    };
    let (refused, changes) = try_it(&mut cluster, false);
    assert!(refused.unwrap_err().to_string().contains("--force") && changes.is_empty());
    let (done, changes) = try_it(&mut cluster, true);
    done.unwrap();
    cluster.apply(changes);
    assert_eq!((cluster.store.nodes().count(), cluster.store.tasks().count()), (0, 0));
}

/// So many managers, of which the ones named are down, and a worker: node 9.
fn managers(count: u128, down: &[u128]) -> Cluster {
    let mut cluster = Cluster::default();
    for number in 1..=count {
        let mut manager = node(number);
        manager.spec.set_role(NodeRole::Manager);
        manager.raft_id = NonZeroU64::new(number as u64);
        if down.contains(&number) {
            manager.status.set_state(NodeState::Down);
        }
        cluster.put(manager);
    }
    cluster.put(node(9));
    cluster
}

fn set_role(cluster: &mut Cluster, name: &str, role: NodeRole) -> Result<(), NodeError> {
    let wanted = NodeUpdate { role: Some(role), ..NodeUpdate::default() };
    cluster.commit(|store, context, changes| {
        update(store, by_name(store, name), &wanted, context, changes)
    })
}

#[test]
fn a_promoted_node_gets_a_number_that_none_has_and_a_demoted_one_loses_it() {
    let mut cluster = managers(1, &[]);
    set_role(&mut cluster, "node-9", NodeRole::Manager).unwrap();
    let id = by_name(&cluster.store, "node-9").raft_id;
    assert!(id.is_some_and(|id| id.get() > 1));
    set_role(&mut cluster, "node-9", NodeRole::Worker).unwrap();
    let demoted = by_name(&cluster.store, "node-9");
    assert_eq!(demoted.present_role(), NodeRole::Manager, "the others have not let it go");
    let members = |ids: &[u64]| ids.iter().copied().collect();
    let still = members(&[1, id.unwrap().get()]);
    let (_, changes) = cluster.propose(|store, context, changes| {
        let_go(store, &still, context, changes);
        Ok::<_, NodeError>(())
    });
    assert!(changes.is_empty());
    cluster
        .commit(|store, context, changes| {
            let_go(store, &members(&[1]), context, changes);
            Ok::<_, NodeError>(())
        })
        .unwrap();
    assert_eq!(by_name(&cluster.store, "node-9").present_role(), NodeRole::Worker);
    set_role(&mut cluster, "node-9", NodeRole::Manager).unwrap();
    assert_ne!(by_name(&cluster.store, "node-9").raft_id, id);
}

#[test]
fn a_change_that_would_lose_the_quorum_is_refused() {
    let demote = |cluster: &mut Cluster, name| set_role(cluster, name, NodeRole::Worker);
    let only = demote(&mut managers(1, &[]), "node-1");
    assert!(matches!(only, Err(NodeError::LastManager { .. })));
    let third = demote(&mut managers(3, &[3]), "node-1");
    assert!(matches!(third, Err(NodeError::Quorum { left: 2, reachable: 1, needed: 2, .. })));
    demote(&mut managers(3, &[3]), "node-3").unwrap();
    let seven = set_role(&mut managers(7, &[]), "node-9", NodeRole::Manager);
    assert_eq!(seven, Err(NodeError::TooMany));
}

#[test]
fn a_manager_goes_by_force_alone_and_only_when_enough_are_left() {
    let try_it = |cluster: &mut Cluster, name, force| {
        let (done, _) = cluster.propose(|store, context, changes| {
            remove(store, by_name(store, name), force, context, changes)
        });
        done
    };
    let refused = try_it(&mut managers(3, &[3]), "node-3", false);
    assert!(matches!(refused, Err(NodeError::Manager { .. })));
    let refused = try_it(&mut managers(3, &[3]), "node-1", true);
    assert!(matches!(refused, Err(NodeError::Quorum { .. })));
    try_it(&mut managers(3, &[3]), "node-3", true).unwrap();
    let refused = try_it(&mut managers(3, &[]), "node-3", true);
    assert!(matches!(refused, Err(NodeError::LiveManager { .. })));
}
