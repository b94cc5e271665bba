//! What the store must hold, whatever is asked of it.

use std::sync::Arc;

use shoal_proto::v1::{self, GenericResource, TaskState};
use shoal_proto::{NetworkId, NodeId, StackId, TaskId};

use super::{Attachment, Change, Conflict, ConvertError, Key, Object, ServiceMode, Store, Vip};
use crate::testing::{
    Cluster, Lcg, ip, network, node, pending, placed, port, service, stack, task,
};

/// What the store answers to changes that it must refuse without having done any of them.
#[track_caller]
fn refused(cluster: &mut Cluster, changes: Vec<Change>) -> Conflict {
    let before: Vec<Object> = cluster.store.objects().collect();
    let indexes = format!("{:?}", cluster.store.indexes);
    let index = cluster.store.version() + 1;
    let conflict = cluster.store.apply(index, changes).expect_err("a rule is broken");
    assert_eq!(cluster.store.objects().collect::<Vec<_>>(), before);
    assert_eq!(format!("{:?}", cluster.store.indexes), indexes);
    conflict
}

fn holding(number: u128, address: &str) -> super::Task {
    let mut task = placed(task(number, &service(1, "web", 1), 1), 1, TaskState::Running);
    task.networks = vec![Attachment {
        network: NetworkId::from_bits(1),
        address: address.parse().unwrap(),
        aliases: Vec::new(),
    }];
    task
}

#[test]
fn a_stale_change_is_refused_with_all_of_its_batch() {
    let mut cluster = Cluster::default();
    cluster.put(node(1));
    // Version 2, by another writer.
    cluster.put(node(1));
    let here = Key::Node(NodeId::from_bits(1));
    let missing = Key::Node(NodeId::from_bits(2));
    let put = |number, expected| Change::Put { expected, object: node(number).into() };
    for (change, key, expected, found) in [
        (put(1, 1), here, 1, 2),
        (put(1, 0), here, 0, 2),
        (put(2, 1), missing, 1, 0),
        (Change::Delete { expected: 1, key: here }, here, 1, 2),
        (Change::Delete { expected: 1, key: missing }, missing, 1, 0),
    ] {
        let good = Change::Put { expected: 0, object: service(1, "web", 1).into() };
        let conflict = refused(&mut cluster, vec![good, change]);
        assert_eq!(conflict, Conflict::Stale { key, expected, found });
    }
}

#[test]
fn a_name_has_one_holder_until_that_goes() {
    let pairs: [(Object, Object); 3] = [
        (service(1, "a", 1).into(), service(2, "a", 1).into()),
        (network(1, "a", "").into(), network(2, "a", "").into()),
        (stack(1, "a").into(), stack(2, "a").into()),
    ];
    for (first, second) in pairs {
        let mut cluster = Cluster::default();
        cluster.put(first.clone());
        let put = Change::Put { expected: 0, object: second };
        let conflict = refused(&mut cluster, vec![put.clone()]);
        assert_eq!(conflict, Conflict::NameTaken { name: "a".to_owned(), holder: first.key() });
        // A holder that changes does not stand in its own way.
        cluster.put(first.clone());
        cluster.delete(first.key());
        cluster.apply(vec![put]);
    }
}

#[test]
fn a_new_name_frees_the_old_one() {
    let mut cluster = Cluster::default();
    cluster.put(service(1, "old", 1));
    cluster.put(service(1, "new", 1));
    assert_eq!(cluster.store.service_by_name("old"), None);
    cluster.put(service(2, "old", 1));
    let holder = |name| cluster.store.service_by_name(name).map(|service| service.id.bits());
    assert_eq!((holder("old"), holder("new")), (Some(2), Some(1)));
}

#[test]
fn an_address_has_one_holder_until_that_is_over() {
    let mut cluster = Cluster::default();
    let mut net = network(1, "net", "10.9.0.0/24");
    net.gateway = Some(ip("10.9.0.1"));
    let mut web = service(1, "web", 1);
    web.vips = vec![Vip { network: net.id, address: ip("10.9.0.2") }];
    cluster.put(net.clone());
    cluster.put(web.clone());
    cluster.put(holding(3, "10.9.0.3/24"));
    for (address, holder) in [
        ("10.9.0.1", Key::Network(net.id)),
        ("10.9.0.2", Key::Service(web.id)),
        ("10.9.0.3", Key::Task(TaskId::from_bits(3))),
    ] {
        assert_eq!(cluster.store.address_holder(net.id, ip(address)), Some(holder));
        let second = holding(4, &format!("{address}/24"));
        let put = Change::Put { expected: 0, object: second.into() };
        let address = ip(address);
        let taken = Conflict::AddressTaken { address, network: net.id, holder };
        assert_eq!(refused(&mut cluster, vec![put]), taken);
    }

    cluster.report(TaskId::from_bits(3), TaskState::Failed);
    assert_eq!(cluster.store.address_holder(net.id, ip("10.9.0.3")), None);
    cluster.put(holding(4, "10.9.0.3/24"));
    // The old holder is only history: when it goes the address stays with the new one.
    cluster.delete(Key::Task(TaskId::from_bits(3)));
    let holder = cluster.store.address_holder(net.id, ip("10.9.0.3"));
    assert_eq!(holder, Some(Key::Task(TaskId::from_bits(4))));
}

#[test]
fn reports_only_raise_a_task_and_end_it_once() {
    use TaskState::{Assigned, Complete, Failed, Orphaned, Preparing, Running, Starting};
    let mut cluster = Cluster::default();
    cluster.put(placed(task(1, &service(1, "web", 1), 1), 1, Assigned));
    for (reported, seen) in [
        (Preparing, Preparing),
        (Running, Running),
        (Starting, Running),
        (Complete, Complete),
        (Running, Complete),
        (Failed, Complete),
        (Orphaned, Complete),
    ] {
        let events = cluster.report(TaskId::from_bits(1), reported);
        assert_eq!(cluster.task(1).state(), seen, "after a report of {reported}");
        assert_eq!(events.is_empty(), reported != seen, "after a report of {reported}");
    }
    assert!(cluster.report(TaskId::from_bits(2), Running).is_empty(), "a task that is gone");
}

#[test]
fn a_managers_change_keeps_what_the_agent_has_reported_since() {
    let mut cluster = Cluster::default();
    cluster.put(placed(task(1, &service(1, "web", 1), 1), 1, TaskState::Assigned));
    let mut read = cluster.task(1).clone();
    cluster.report(read.id, TaskState::Running);
    assert_eq!(cluster.task(1).meta.version, read.meta.version, "a report is no one's conflict");

    read.desired = TaskState::Shutdown;
    cluster.apply(vec![Change::Put { expected: read.meta.version, object: read.into() }]);
    let task = cluster.task(1);
    assert_eq!((task.desired, task.state()), (TaskState::Shutdown, TaskState::Running));
}

#[test]
fn version_and_time_of_creation_are_not_the_writers() {
    let mut cluster = Cluster::default();
    let mut first = node(1);
    first.meta.version = 77;
    first.meta.created_at.seconds = 5;
    cluster.put(first.clone());
    first.meta.created_at.seconds = 9;
    let expected = cluster.version_of(Key::Node(first.id));
    cluster.store.apply(40, vec![Change::Put { expected, object: first.into() }]).unwrap();
    let meta = &cluster.store.node(NodeId::from_bits(1)).unwrap().meta;
    assert_eq!((expected, meta.version, meta.created_at.seconds), (1, 40, 5));
    assert_eq!(cluster.store.version(), 40);
}

#[test]
fn a_task_is_listed_by_how_far_it_is() {
    let mut cluster = Cluster::default();
    let new = task(1, &service(1, "web", 1), 1);
    let unwanted = super::Task { desired: TaskState::Shutdown, ..pending(new.clone()) };
    let steps = [
        ("new", new.clone(), [1, 0, 0]),
        ("pending", pending(new.clone()), [0, 1, 0]),
        ("not wanted", unwanted, [0, 0, 0]),
        ("placed", placed(new.clone(), 1, TaskState::Assigned), [0, 0, 1]),
        ("ended", placed(new.clone(), 1, TaskState::Failed), [0, 0, 1]),
    ];
    let listed = |store: &Store| {
        let on_node = store.node_tasks(NodeId::from_bits(1)).count();
        [store.new_tasks().count(), store.pending_tasks().count(), on_node]
    };
    for (step, task, expected) in steps {
        cluster.put(task);
        assert_eq!(listed(&cluster.store), expected, "{step}");
        assert_eq!(cluster.store.service_tasks(new.service).count(), 1, "{step}");
    }
    cluster.delete(Key::Task(new.id));
    assert_eq!(listed(&cluster.store), [0, 0, 0]);
    assert_eq!(cluster.store.service_tasks(new.service).count(), 0);
}

/// A change of a random kind; some break a rule.
fn any_change(cluster: &Cluster, random: &mut Lcg) -> Change {
    let number = u128::from(random.below(6)) + 1;
    let name = ["a", "b", "c", "d"][random.below(4) as usize];
    let web = service(number, name, 1);
    let states = [TaskState::Assigned, TaskState::Running, TaskState::Complete, TaskState::Failed];
    let state = states[random.below(4) as usize];
    let status = v1::TaskStatus { state: state.into(), ..v1::TaskStatus::default() };
    let object: Object = match random.below(8) {
        0 => return Change::Report { task: TaskId::from_bits(number), status },
        1 => {
            let count = cluster.store.objects().count() as u64;
            let victim = cluster.store.objects().nth(random.below(count.max(1)) as usize);
            let key = victim.map_or(Key::Task(TaskId::from_bits(99)), |object| object.key());
            return Change::Delete { expected: cluster.version_of(key), key };
        }
        2 => web.into(),
        3 => network(number, name, "").into(),
        4 => stack(number, name).into(),
        5 => task(number, &web, 1).into(),
        6 => pending(task(number, &web, 1)).into(),
        _ => {
            let address = format!("10.9.0.{}/24", random.below(4) + 1);
            let node = NodeId::from_bits(number % 2 + 1);
            super::Task { node: Some(node), status, ..holding(number, &address) }.into()
        }
    };
    Change::Put { expected: cluster.version_of(object.key()), object }
}

#[test]
fn a_restored_snapshot_is_the_store_with_its_indexes_after_any_changes() {
    for seed in 0..20 {
        let mut random = Lcg(seed);
        let mut cluster = Cluster::default();
        for step in 0..60 {
            let change = any_change(&cluster, &mut random);
            let index = cluster.store.version() + 1;
            // Refused or not, the store must be whole afterwards.
            let _ = cluster.store.apply(index, vec![change]);
            let restored = Store::restore(cluster.store.snapshot()).unwrap();
            let (restored, store) = (format!("{restored:?}"), format!("{:?}", cluster.store));
            assert_eq!(restored, store, "seed {seed}, step {step}");
        }
    }
}

/// One object of each kind with something in every field.
fn whole_objects() -> Vec<Object> {
    let mut host = node(1);
    host.spec.labels.insert("zone".to_owned(), "eu".to_owned());
    let mut net = network(1, "net", "10.9.0.0/24");
    net.stack = Some(StackId::from_bits(1));
    net.subnet = Some("10.9.0.0/24".parse().unwrap());
    net.gateway = Some(ip("10.9.0.1"));
    let mut web = service(1, "app_web", 3);
    web.stack = Some(StackId::from_bits(1));
    web.short_name = "web".into();
    web.spec_version = 4;
    web.last_spec_version = 6;
    web.vips = vec![Vip { network: net.id, address: ip("10.9.0.2") }];
    web.ports = vec![port(8080)];
    web.removing = true;
    let mut one = holding(1, "10.9.0.3/24");
    one.networks[0].aliases = vec!["alias".to_owned()];
    one.desired = TaskState::Ready;
    one.ports = vec![port(8080)];
    one.not_before = Some(shoal_proto::Timestamp { seconds: 7, nanos: 8 });
    one.failures = 2;
    one.waiting_for = "waits for db to start".to_owned();
    one.generic_resources =
        vec![GenericResource { kind: "gpu".to_owned(), count: 2, names: vec!["gpu-a".to_owned()] }];
    let mut app = stack(1, "app");
    app.revision = 3;
    app.removing = true;
    vec![host.into(), net.into(), web.into(), one.into(), app.into()]
}

#[test]
fn a_snapshot_keeps_every_field() {
    let mut cluster = Cluster::default();
    for object in whole_objects() {
        cluster.put(object);
    }
    let restored = Store::restore(cluster.store.snapshot()).unwrap();
    assert_eq!(restored.version(), cluster.store.version());
    let objects = |store: &Store| store.objects().collect::<Vec<_>>();
    assert_eq!(objects(&restored), objects(&cluster.store));
}

#[test]
fn changes_read_back_from_the_log_as_written() {
    for object in whole_objects() {
        let key = object.key();
        let task = TaskId::from_bits(1);
        let status = v1::TaskStatus { message: "pulls".to_owned(), ..v1::TaskStatus::default() };
        for change in [
            Change::Put { expected: 3, object },
            Change::Delete { expected: 4, key },
            Change::Report { task, status },
        ] {
            assert_eq!(Change::try_from(v1::Change::from(&change)), Ok(change));
        }
    }
    let newer = Change::try_from(v1::Change::default());
    assert_eq!(newer, Err(ConvertError::Unknown { what: "change" }));
}

#[test]
fn a_view_stays_as_it_was() {
    let mut cluster = Cluster::default();
    cluster.put(service(1, "web", 1));
    let view = cluster.store.clone();
    let read = Arc::clone(view.service_by_name("web").unwrap());
    cluster.put(service(1, "web", 5));
    assert_eq!(view.service_by_name("web"), Some(&read));
    assert_eq!(read.mode(), ServiceMode::Replicated(1));
}
