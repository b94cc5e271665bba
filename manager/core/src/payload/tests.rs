//! Versions of secrets and configs, and what uses them.

use shoal_proto::v1::{
    PayloadKind, PayloadReference, PayloadSpec, ServiceSpec, TaskState, UpdateState, UpdateStatus,
};

use super::{
    CONFIG_MOST, PayloadError, PayloadUpdate, SECRET_MOST, collect, create, remove, update, users,
};
use crate::deploy::{create_service, roll_back_service};
use crate::store::{Service, Store};
use crate::testing::{Cluster, placed, service_spec, task};

fn spec(kind: PayloadKind, name: &str) -> PayloadSpec {
    PayloadSpec { kind: kind.into(), name: name.to_owned(), ..PayloadSpec::default() }
}

fn make(
    cluster: &mut Cluster,
    kind: PayloadKind,
    name: &str,
    data: &[u8],
) -> Result<(), PayloadError> {
    let (made, changes) = cluster
        .propose(|store, context, changes| create(store, spec(kind, name), data, context, changes));
    cluster.apply(changes);
    made.map(drop)
}

fn change(cluster: &mut Cluster, data: &[u8]) -> Vec<String> {
    let wanted = PayloadUpdate { data: Some(data.to_vec()), ..PayloadUpdate::default() };
    let (updated, changes) = cluster.propose(|store, context, changes| {
        update(store, PayloadKind::Secret, "key", &wanted, context, changes)
    });
    cluster.apply(changes);
    updated.unwrap().1
}

fn using(name: &str, secret: &str) -> ServiceSpec {
    let mut spec = service_spec(name, 1);
    let reference = PayloadReference { name: secret.to_owned(), ..PayloadReference::default() };
    spec.task.get_or_insert_default().container.get_or_insert_default().payloads = vec![reference];
    spec
}

/// Secret `key`, and service web that uses it.
fn used() -> Cluster {
    let mut cluster = Cluster::default();
    make(&mut cluster, PayloadKind::Secret, "key", b"one").unwrap();
    cluster
        .commit(|store, context, changes| {
            create_service(store, using("web", "key"), context, changes)
        })
        .unwrap();
    cluster
}

fn web(store: &Store) -> Service {
    (**store.service_by_name("web").unwrap()).clone()
}

fn version_of_web(store: &Store) -> u64 {
    let spec = web(store).spec;
    let container = spec.task.as_ref().unwrap().container.as_ref().unwrap();
    store.payload(container.payloads[0].payload_id.parse().unwrap()).unwrap().number
}

fn versions(store: &Store) -> Vec<u64> {
    store.payload_versions(PayloadKind::Secret, "key").map(|one| one.number).collect()
}

#[test]
fn what_breaks_a_rule_is_refused() {
    let mut cluster = Cluster::default();
    for (kind, name, size, words) in [
        (PayloadKind::Secret, "key", SECRET_MOST, ""),
        (PayloadKind::Secret, "key", 1, "the secret key exists; give it new data"),
        (PayloadKind::Config, "key", CONFIG_MOST, ""),
        (PayloadKind::Secret, "big", SECRET_MOST + 1, "a secret has 512000 bytes at the most"),
        (PayloadKind::Config, "big", CONFIG_MOST + 1, "a config has 1024000 bytes at the most"),
        (PayloadKind::Config, "none", 0, "config none is empty"),
        (PayloadKind::Secret, "a b", 1, "a name has up to 128 letters"),
    ] {
        let made = make(&mut cluster, kind, name, &vec![0; size]);
        let said = made.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains(words) && words.is_empty() == said.is_empty(), "{name}: {said}");
    }
}

#[test]
fn new_data_are_a_new_version_that_services_are_updated_to() {
    let mut cluster = used();
    assert_eq!(change(&mut cluster, b"one"), Vec::<String>::new(), "nothing is new");
    assert_eq!(change(&mut cluster, b"two"), ["web"]);
    assert_eq!((versions(&cluster.store), version_of_web(&cluster.store)), (vec![1, 2], 2));
    let web = web(&cluster.store);
    assert_eq!((web.spec_version, web.update.state()), (2, UpdateState::Updating));
    assert_eq!(web.revision().unwrap().origin, "secret key updated");
}

#[test]
fn an_old_version_goes_when_nothing_can_need_it() {
    let mut cluster = used();
    let first = web(&cluster.store);
    cluster.put(placed(task(1, &first, 1), 1, TaskState::Running));
    change(&mut cluster, b"two");
    let collected = |cluster: &mut Cluster| {
        let (_, changes) = cluster.propose(|store, _, changes| collect(store, changes));
        cluster.apply(changes);
        versions(&cluster.store)
    };
    // The update may go back to it, and a task has it.
    assert_eq!(collected(&mut cluster), [1, 2]);
    let update = UpdateStatus { state: UpdateState::Completed.into(), ..UpdateStatus::default() };
    let done = Service { update, ..web(&cluster.store) };
    cluster.put(done);
    assert_eq!(collected(&mut cluster), [1, 2]);
    cluster.report(shoal_proto::TaskId::from_bits(1), TaskState::Shutdown);
    assert_eq!(collected(&mut cluster), [2]);
    // Who goes back later gets the newest.
    let service = web(&cluster.store);
    let ((revision, renewed), changes) = {
        let (back, changes) = cluster.propose(|store, context, changes| {
            roll_back_service(store, &service, 0, context, changes)
        });
        (back.unwrap(), changes)
    };
    cluster.apply(changes);
    assert_eq!((revision, renewed), (1, vec!["secret key".to_owned()]));
    assert_eq!(version_of_web(&cluster.store), 2);
}

#[test]
fn what_is_used_is_not_removed() {
    let mut cluster = used();
    assert_eq!(users(&cluster.store, PayloadKind::Secret, "key"), ["web"]);
    let (refused, _) =
        cluster.propose(|store, _, changes| remove(store, PayloadKind::Secret, "key", changes));
    assert!(refused.unwrap_err().to_string().contains("is used by web"));
    let web = cluster.store.service_by_name("web").unwrap().clone();
    cluster.delete(crate::store::Key::Service(web.id));
    change(&mut cluster, b"two");
    cluster.commit(|store, _, changes| remove(store, PayloadKind::Secret, "key", changes)).unwrap();
    assert!(versions(&cluster.store).is_empty());
}

#[test]
fn a_service_that_names_none_that_is_there_is_refused() {
    let mut cluster = Cluster::default();
    let (refused, _) = cluster.propose(|store, context, changes| {
        create_service(store, using("web", "key"), context, changes)
    });
    assert_eq!(refused.unwrap_err().to_string(), "no such secret: key");
}
