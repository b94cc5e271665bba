//! Spread, packing, affinities, bounds, volumes, platforms, and nodes where tasks keep failing.

use std::sync::Arc;
use std::time::Duration;

use shoal_proto::time::timestamp;
use shoal_proto::v1::{
    Affinity, ContainerSpec, Mount, MountType, NodeState, Placement, PlacementStrategy, Platform,
    TaskState,
};

use super::{label, places, reserve, schedule};
use crate::store::{Service, Task};
use crate::testing::{Cluster, GIB, Lcg, node, pending, placed, service, task};

/// Nodes 1 to `zones.len()`, each in its zone.
fn zoned(zones: &[&str]) -> Cluster {
    let mut cluster = Cluster::default();
    for (index, zone) in zones.iter().enumerate() {
        let mut host = node(index as u128 + 1);
        if !zone.is_empty() {
            label(&mut host, "zone", zone);
        }
        cluster.put(host);
    }
    cluster
}

fn placement(placement: Placement) -> impl Fn(&mut Task) {
    move |task| Arc::make_mut(&mut task.spec).placement = Some(placement.clone())
}

/// So many tasks of the service that wait, with ids from 1.
fn wait(cluster: &mut Cluster, web: &Service, count: u128, set: impl Fn(&mut Task)) {
    for number in 1..=count {
        let mut waiting = pending(task(number, web, number as u64));
        set(&mut waiting);
        cluster.put(waiting);
    }
    schedule(cluster);
}

fn sorted(mut places: Vec<u128>) -> Vec<u128> {
    places.sort_unstable();
    places
}

#[test]
fn the_first_level_is_even_before_the_second() {
    let mut cluster = zoned(&["eu", "eu", "eu", "us"]);
    let web = service(1, "web", 8);
    let spread = vec!["node.labels.zone".to_owned()];
    wait(&mut cluster, &web, 8, placement(Placement { spread, ..Placement::default() }));
    assert_eq!(sorted(places(&cluster, &web)), [1, 1, 2, 3, 4, 4, 4, 4]);
}

#[test]
fn a_node_without_the_label_is_one_of_a_group_of_its_own() {
    let mut cluster = zoned(&["eu", "eu", "", ""]);
    let web = service(1, "web", 4);
    let spread = vec!["node.labels.zone".to_owned()];
    wait(&mut cluster, &web, 4, placement(Placement { spread, ..Placement::default() }));
    assert_eq!(sorted(places(&cluster, &web)), [1, 2, 3, 4]);
}

#[test]
fn packed_tasks_fill_one_node_before_the_next() {
    let mut cluster = zoned(&["", "", ""]);
    let web = service(1, "web", 6);
    let strategy = PlacementStrategy::Pack.into();
    let packed = placement(Placement { strategy, ..Placement::default() });
    wait(&mut cluster, &web, 6, |task| {
        packed(task);
        let placement = task.spec.placement.clone();
        reserve(task, 0, GIB);
        Arc::make_mut(&mut task.spec).placement = placement;
    });
    assert_eq!(sorted(places(&cluster, &web)), [1, 1, 1, 1, 2, 2]);
}

#[test]
fn no_node_has_more_of_a_service_than_its_bound() {
    let mut cluster = zoned(&["", ""]);
    let web = service(1, "web", 5);
    let bound = Placement { max_replicas_per_node: 2, ..Placement::default() };
    wait(&mut cluster, &web, 5, placement(bound));
    assert_eq!(sorted(places(&cluster, &web)), [0, 1, 1, 2, 2]);
    let waiting = cluster.store.pending_tasks().next().unwrap();
    assert_eq!(waiting.status.error, "no suitable node (2 have 2 replicas already)");
}

fn near(service: &str, topology: &str, anti: bool, preferred: bool) -> Placement {
    let (service, topology) = (service.to_owned(), topology.to_owned());
    let affinities = vec![Affinity { service, topology, anti, preferred }];
    Placement { affinities, ..Placement::default() }
}

/// Service db with a task on node 2.
fn with_db(zones: &[&str]) -> Cluster {
    let mut cluster = zoned(zones);
    let db = service(2, "db", 1);
    cluster.put(placed(task(100, &db, 1), 2, TaskState::Running));
    cluster.put(db);
    cluster
}

#[test]
fn tasks_go_where_those_of_another_service_are_or_are_not() {
    let zones = ["eu", "eu", "us", "us"];
    for (name, topology, anti, preferred, expected) in [
        ("db", "", false, false, vec![2, 2, 2]),
        ("db", "", true, false, vec![1, 3, 4]),
        ("db", "node.labels.zone", false, false, vec![1, 1, 2]),
        ("db", "node.labels.zone", true, false, vec![3, 3, 4]),
        ("db", "", true, true, vec![1, 3, 4]),
        ("none", "", false, true, vec![1, 3, 4]),
        ("none", "", true, false, vec![1, 3, 4]),
        ("none", "", false, false, vec![0, 0, 0]),
    ] {
        let mut cluster = with_db(&zones);
        let web = service(1, "web", 3);
        cluster.put(web.clone());
        wait(&mut cluster, &web, 3, placement(near(name, topology, anti, preferred)));
        let found = sorted(places(&cluster, &web));
        assert_eq!(found, expected, "{name} by {topology:?}, anti {anti}, preferred {preferred}");
    }
}

#[test]
fn tasks_of_one_service_stay_together_or_apart() {
    let zones = ["eu", "eu", "us"];
    for (topology, anti, expected) in [
        ("node.labels.zone", false, vec![1, 1, 2]),
        ("node.labels.zone", true, vec![0, 1, 3]),
        ("", true, vec![1, 2, 3]),
    ] {
        let mut cluster = zoned(&zones);
        let web = service(1, "web", 3);
        cluster.put(web.clone());
        wait(&mut cluster, &web, 3, placement(near("web", topology, anti, false)));
        assert_eq!(sorted(places(&cluster, &web)), expected, "{topology:?}, anti {anti}");
    }
}

#[test]
fn one_that_takes_over_may_be_where_the_one_before_it_is() {
    for topology in ["", "node.labels.zone"] {
        let mut cluster = zoned(&["eu", "us"]);
        let web = service(1, "web", 2);
        cluster.put(web.clone());
        let apart = placement(near("web", topology, true, false));
        for number in 1..=2 {
            let mut old = task(number + 10, &web, number as u64);
            apart(&mut old);
            cluster.put(placed(old, number, TaskState::Running));
        }
        let mut next = pending(task(1, &web, 1));
        apart(&mut next);
        next.desired = TaskState::Ready;
        cluster.put(next);
        schedule(&mut cluster);
        assert_eq!(cluster.task(1).node, Some(node(1).id), "{topology:?}");
    }
}

#[test]
fn an_affinity_that_is_not_met_is_told() {
    let mut cluster = with_db(&["eu", "us"]);
    let web = service(1, "web", 1);
    wait(&mut cluster, &web, 1, placement(near("cache", "node.labels.zone", false, false)));
    let reason = "no suitable node (2 have no task of cache in its node.labels.zone)";
    assert_eq!(cluster.task(1).status.error, reason);
}

fn mount(task: &mut Task, name: &str, movable: bool) {
    let mount = Mount {
        r#type: MountType::Volume.into(),
        source: name.to_owned(),
        target: "/data".to_owned(),
        movable,
        ..Mount::default()
    };
    Arc::make_mut(&mut task.spec).container = Some(ContainerSpec {
        image: "app:1".to_owned(),
        mounts: vec![mount],
        ..ContainerSpec::default()
    });
}

#[test]
fn a_volume_is_used_where_it_is() {
    for (state, movable, expected, reason) in [
        (NodeState::Ready, false, 3, ""),
        (NodeState::Ready, true, 1, ""),
        (
            NodeState::Down,
            false,
            0,
            "no suitable node (1 is down, 2 lack volume data); volume data is on node-3",
        ),
        (NodeState::Down, true, 1, ""),
    ] {
        let mut cluster = zoned(&["", ""]);
        let mut host = node(3);
        host.description.volumes = vec!["data".to_owned()];
        host.status.set_state(state);
        cluster.put(host);
        let web = service(1, "web", 1);
        wait(&mut cluster, &web, 1, |task| mount(task, "data", movable));
        assert_eq!(places(&cluster, &web), [expected], "{state}, movable {movable}");
        assert_eq!(cluster.task(1).status.error, reason);
    }
}

#[test]
fn each_task_has_its_own_volume_where_it_was() {
    let mut cluster = zoned(&["", "", ""]);
    for (number, slot) in [(1, 3), (2, 1), (3, 2)] {
        let mut host = node(number);
        host.description.volumes = vec![format!("data-{slot}")];
        cluster.put(host);
    }
    let web = service(1, "web", 4);
    wait(&mut cluster, &web, 4, |task| mount(task, "data-{{.Task.Slot}}", false));
    assert_eq!(places(&cluster, &web)[..3], [2, 3, 1]);
    assert_ne!(places(&cluster, &web)[3], 0, "nobody has that of the fourth");
}

#[test]
fn a_volume_that_nobody_has_is_made_anywhere() {
    let mut cluster = zoned(&["", ""]);
    let web = service(1, "web", 2);
    wait(&mut cluster, &web, 2, |task| mount(task, "data", false));
    assert_eq!(sorted(places(&cluster, &web)), [1, 2]);
}

#[test]
fn an_image_goes_where_its_platform_is() {
    let mut cluster = Cluster::default();
    for (number, architecture) in [(1, "x86_64"), (2, "aarch64"), (3, "arm64")] {
        let mut host = node(number);
        let (architecture, os) = (architecture.to_owned(), "linux".to_owned());
        host.description.platform = Some(Platform { architecture, os });
        cluster.put(host);
    }
    let web = service(1, "web", 2);
    let platform = Platform { architecture: "arm64".to_owned(), os: "linux".to_owned() };
    let placed = Placement { platforms: vec![platform], ..Placement::default() };
    wait(&mut cluster, &web, 2, placement(placed));
    assert_eq!(places(&cluster, &web), [2, 3]);
}

#[test]
fn a_node_where_a_service_keeps_failing_is_left_alone_for_a_while() {
    let mut cluster = zoned(&["", ""]);
    let web = service(1, "web", 1);
    for number in 11..=13 {
        let mut failed = placed(task(number, &web, 1), 1, TaskState::Failed);
        failed.status.since = Some(timestamp(cluster.now));
        cluster.put(failed);
    }
    // Node 2 has more to do, and is better all the same.
    let other = service(2, "other", 1);
    cluster.put(placed(task(20, &other, 1), 2, TaskState::Running));
    wait(&mut cluster, &web, 1, |_| ());
    assert_eq!(cluster.task(1).node, Some(node(2).id));
    cluster.now += Duration::from_secs(300);
    cluster.put(pending(task(2, &web, 2)));
    schedule(&mut cluster);
    assert_eq!(cluster.task(2).node, Some(node(1).id));
}

/// Whatever comes and goes, what the scheduler has followed is what it would find out anew.
#[test]
fn what_is_followed_is_what_is_there() {
    for seed in 0..40 {
        let mut random = Lcg(seed);
        let mut cluster = zoned(&["eu", "us", "us"]);
        let mut scheduler = super::Scheduler::new(&cluster.store);
        for number in 1..=60_u128 {
            let web = service(u128::from(random.below(3)) + 1, "web", 1);
            let mut new = pending(task(number, &web, number as u64 % 5));
            new.status.since = Some(timestamp(cluster.now));
            reserve(&mut new, 100_000_000, GIB / 64);
            mount(&mut new, ["a", "b"][random.below(2) as usize], random.below(2) == 0);
            let mut events = cluster.put(new);
            scheduler.observe(cluster.store.version(), &events);
            let ((), changes) = cluster.propose(|store, context, changes| {
                scheduler.run(store, context, changes);
            });
            events = cluster.apply(changes);
            scheduler.observe(cluster.store.version(), &events);
            let tasks: Vec<_> = cluster.store.tasks().map(|task| task.id).collect();
            let any = tasks[random.below(tasks.len() as u64) as usize];
            let state = [TaskState::Running, TaskState::Failed, TaskState::Complete]
                [random.below(3) as usize];
            events = cluster.report(any, state);
            scheduler.observe(cluster.store.version(), &events);
            if random.below(5) == 0 {
                events = cluster.delete(crate::store::Key::Task(any));
                scheduler.observe(cluster.store.version(), &events);
            }
            if random.below(10) == 0 {
                let mut host = node(4);
                events = match random.below(2) {
                    0 => cluster.put(host),
                    _ if cluster.store.node(host.id).is_none() => Vec::new(),
                    _ => {
                        host.status.set_state(NodeState::Down);
                        cluster.put(host)
                    }
                };
                scheduler.observe(cluster.store.version(), &events);
            }
            let anew = super::Scheduler::new(&cluster.store);
            assert_eq!(scheduler.loads.sorted(), anew.loads.sorted(), "seed {seed}, task {number}");
        }
    }
}
