//! In which order stacks, services and networks go.

use shoal_proto::StackId;
use shoal_proto::v1::TaskState;

use super::{act, newest, picture, reconcile};
use crate::store::{Key, Stack};
use crate::testing::{Cluster, attached, network, service, stack, task_spec_of};

/// Kinds and numbers of all objects but tasks.
fn standing(cluster: &Cluster) -> Vec<Key> {
    let keys = cluster.store.objects().map(|object| object.key());
    keys.filter(|key| !matches!(key, Key::Task(_))).collect()
}

#[test]
fn a_stack_goes_after_its_last_task() {
    let mut cluster = Cluster::default();
    let mut net = network(1, "app_net", "");
    let mut web = service(1, "web", 3);
    net.stack = Some(StackId::from_bits(1));
    web.stack = net.stack;
    task_spec_of(&mut web).networks = vec![attached(&net)];
    cluster.put(stack(1, "app"));
    cluster.put(net);
    cluster.put(web);
    reconcile(&mut cluster);
    act(&mut cluster, "agents");
    act(&mut cluster, "scale 4");
    let whole = standing(&cluster);

    cluster.put(Stack { removing: true, ..stack(1, "app") });
    reconcile(&mut cluster);
    assert_eq!(picture(&cluster), "1:running/remove 2:running/remove 3:running/remove");
    for (ended, left) in
        [("web.3", "1:running/remove 2:running/remove"), ("web.1", "2:running/remove")]
    {
        act(&mut cluster, &format!("shutdown {ended}"));
        assert_eq!(picture(&cluster), left);
        assert_eq!(standing(&cluster), whole, "after the end of {ended}");
    }
    let last = newest(&cluster, "web.2");
    cluster.report(last, TaskState::Failed);
    reconcile(&mut cluster);
    assert_eq!(cluster.store.objects().count(), 0);
}

#[test]
fn a_network_that_its_stack_dropped_goes_when_nothing_is_attached() {
    let mut cluster = Cluster::default();
    let mut net = network(1, "app_net", "");
    net.stack = Some(StackId::from_bits(1));
    let mut web = service(1, "web", 0);
    task_spec_of(&mut web).networks = vec![attached(&net)];
    cluster.put(stack(1, "app"));
    cluster.put(net);
    cluster.put(web.clone());
    reconcile(&mut cluster);
    assert_eq!(cluster.store.networks().count(), 1);

    task_spec_of(&mut web).networks.clear();
    cluster.put(web);
    reconcile(&mut cluster);
    assert_eq!(cluster.store.networks().count(), 0);
    assert_eq!(cluster.store.stacks().count(), 1);
}
