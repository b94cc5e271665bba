//! What a deploy does to the store, and what it refuses.

use shoal_proto::v1::{GenericReservation, NetworkSpec, Placement, StackService, StackSpec};

use super::{DeployError, Deployed, deploy_stack, remove_service, remove_stack, scale_service};
use crate::store::{Change, Conflict, Object, Service, Stack};
use crate::testing::{
    Cluster, declared, network, port, service, service_spec, spec_of, stack, stack_spec,
};

fn propose(
    cluster: &mut Cluster,
    spec: &StackSpec,
) -> (Result<Deployed, DeployError>, Vec<Change>) {
    cluster.propose(|store, context, changes| deploy_stack(store, spec.clone(), context, changes))
}

/// Deploys when nothing stands against it.
fn deploy(cluster: &mut Cluster, spec: &StackSpec) -> Result<Deployed, DeployError> {
    let (deployed, changes) = propose(cluster, spec);
    if deployed.is_ok() {
        cluster.apply(changes);
    }
    deployed
}

fn service_of<'a>(cluster: &'a Cluster, name: &str) -> &'a Service {
    cluster.store.service_by_name(name).expect("the service is there")
}

fn stack_of<'a>(cluster: &'a Cluster, name: &str) -> &'a Stack {
    cluster.store.stack_by_name(name).expect("the stack is there")
}

#[test]
fn a_deploy_is_one_change_of_everything_it_needs() {
    let mut cluster = Cluster::default();
    let (deployed, changes) = propose(&mut cluster, &stack_spec("app", &["web", "db"]));
    let deployed = deployed.unwrap();
    assert_eq!((cluster.store.version(), changes.len()), (0, 4), "nothing before the commit");
    cluster.apply(changes);
    assert_eq!(deployed.created, ["app_web", "app_db"]);
    assert_eq!((deployed.updated.len(), deployed.removed.len()), (0, 0));

    let stack = stack_of(&cluster, "app");
    assert_eq!((deployed.stack, stack.revision), (Some(stack.id), 1));
    let net = cluster.store.network_by_name("app_net").expect("the network is there");
    assert_eq!(net.stack, Some(stack.id));
    for (name, short_name) in [("app_web", "web"), ("app_db", "db")] {
        let service = service_of(&cluster, name);
        assert_eq!((service.stack, &*service.short_name), (Some(stack.id), short_name));
        assert_eq!(service.spec_version, 1);
        assert_eq!(service.task_spec().networks[0].network_id, net.id.to_string());
    }
}

#[test]
fn a_second_deploy_of_the_same_spec_only_counts_a_revision() {
    let mut cluster = Cluster::default();
    let spec = stack_spec("app", &["web", "db"]);
    deploy(&mut cluster, &spec).unwrap();
    let stack = stack_of(&cluster, "app").id;
    let (deployed, changes) = propose(&mut cluster, &spec);
    assert_eq!(deployed, Ok(Deployed { stack: Some(stack), ..Deployed::default() }));
    assert_eq!(changes.len(), 1, "{changes:?}");
    cluster.apply(changes);
    assert_eq!(stack_of(&cluster, "app").revision, 2);
}

type Edit = fn(&mut StackSpec);

#[test]
fn only_what_tasks_are_made_of_makes_new_tasks() {
    let edits: [(&str, u64, Edit); 4] = [
        ("image", 2, |spec| {
            let task = declared(spec, "web").task.as_mut().unwrap();
            task.container.as_mut().unwrap().image = "app:2".to_owned();
        }),
        ("environment", 2, |spec| {
            let task = declared(spec, "web").task.as_mut().unwrap();
            task.container.as_mut().unwrap().env.push("A=b".to_owned());
        }),
        ("replicas", 1, |spec| declared(spec, "web").mode = service_spec("", 5).mode),
        ("port", 1, |spec| declared(spec, "web").ports.push(port(8080))),
    ];
    for (what, spec_version, edit) in edits {
        let mut cluster = Cluster::default();
        let mut spec = stack_spec("app", &["web", "db"]);
        deploy(&mut cluster, &spec).unwrap();
        let before = service_of(&cluster, "app_web").clone();
        edit(&mut spec);
        let deployed = deploy(&mut cluster, &spec).unwrap();
        assert_eq!(deployed.updated, ["app_web"], "{what}");
        assert_eq!((deployed.created.len(), deployed.removed.len()), (0, 0), "{what}");
        let web = service_of(&cluster, "app_web");
        assert_eq!((web.id, web.spec_version), (before.id, spec_version), "{what}");
        assert_ne!(web.spec, before.spec, "{what}");
    }
}

#[test]
fn a_service_that_is_no_longer_declared_goes_and_can_come_back() {
    let mut cluster = Cluster::default();
    let both = stack_spec("app", &["web", "db"]);
    deploy(&mut cluster, &both).unwrap();
    let one = deploy(&mut cluster, &stack_spec("app", &["web"])).unwrap();
    assert_eq!(one.removed, ["app_db"]);
    assert!(service_of(&cluster, "app_db").removing && !service_of(&cluster, "app_web").removing);

    let again = deploy(&mut cluster, &stack_spec("app", &["web"])).unwrap();
    assert_eq!(again.removed.len(), 0, "it is on its way already");
    let back = deploy(&mut cluster, &both).unwrap();
    assert_eq!(back.updated, ["app_db"]);
    assert!(!service_of(&cluster, "app_db").removing);
}

type Hindrance = fn(&mut Cluster, &mut StackSpec);

#[test]
fn what_belongs_to_others_is_refused() {
    let cases: [(&str, Hindrance); 6] = [
        ("the service name app_web is taken by one that is not of stack app", |cluster, _| {
            cluster.put(service(1, "app_web", 1));
        }),
        ("the network name app_net is taken by one that is not of stack app", |cluster, _| {
            cluster.put(network(1, "app_net", ""));
        }),
        ("network app_net is declared external and does not exist", |_, spec| {
            spec.networks[0].external = true;
        }),
        (
            "service app_web: port 8080/tcp is already published by service other; publish \
             another port or remove that service",
            |cluster, spec| {
                let mut other = service(1, "other", 1);
                other.ports = vec![port(8080)];
                cluster.put(other);
                declared(spec, "web").ports = vec![port(8080)];
            },
        ),
        ("stack app is being removed; deploy it again when it is gone", |cluster, _| {
            cluster.put(Stack { removing: true, ..stack(1, "app") });
        }),
        ("stack \"app\": it has no services", |_, spec| spec.services.clear()),
    ];
    for (message, hinder) in cases {
        let mut cluster = Cluster::default();
        let mut spec = stack_spec("app", &["web"]);
        hinder(&mut cluster, &mut spec);
        let error = deploy(&mut cluster, &spec).expect_err(message);
        assert_eq!(error.to_string(), message);
    }
}

fn reserve(spec: &mut StackSpec, kind: &str, count: u64) {
    let reservation = GenericReservation { kind: kind.to_owned(), count };
    declared(spec, "web").task.as_mut().unwrap().generic_reservations.push(reservation);
}

#[test]
fn a_spec_that_breaks_a_rule_is_refused_with_the_rule() {
    let cases: [(&str, Edit); 15] = [
        ("stack \"-app\": a name has up to 128", |spec| spec.name = "-app".to_owned()),
        ("service \"app web\": a name has up to 128", |spec| {
            declared(spec, "web").name = "app web".to_owned();
        }),
        ("network \"\": a name has up to 128", |spec| spec.networks[0].spec = None),
        ("network \"net\" is not declared", |spec| spec.networks.clear()),
        ("service app_web: it is there twice", |spec| {
            let twice: StackService = spec.services[0].clone();
            spec.services.push(twice);
        }),
        ("it names no image", |spec| declared(spec, "web").task = None),
        ("100001 replicas are more than the 100000", |spec| {
            declared(spec, "web").mode = service_spec("", 100_001).mode;
        }),
        ("constraint \"zone=eu\" has no == or !=", |spec| {
            let placement = Placement { constraints: vec!["zone=eu".to_owned()] };
            declared(spec, "web").task.as_mut().unwrap().placement = Some(placement);
        }),
        ("a reservation of a generic resource has no kind", |spec| reserve(spec, "", 1)),
        ("0 of generic resource gpu is no reservation", |spec| reserve(spec, "gpu", 0)),
        ("generic resource gpu is reserved twice", |spec| {
            reserve(spec, "gpu", 1);
            reserve(spec, "gpu", 2);
        }),
        ("port 70000:80 is not between 1 and 65535", |spec| {
            declared(spec, "web").ports = vec![port(70_000)];
        }),
        ("port 8080/tcp is published twice", |spec| {
            declared(spec, "web").ports = vec![port(8080), port(8080)];
        }),
        ("subnet \"10.0.0.0/31\" is not an IPv4 range of /30 or wider", |spec| {
            let subnet = "10.0.0.0/31".to_owned();
            let name = "app_net".to_owned();
            spec.networks[0].spec = Some(NetworkSpec { name, subnet, ..NetworkSpec::default() });
        }),
        ("subnet \"fd00::/64\" is not an IPv4 range", |spec| {
            let subnet = "fd00::/64".to_owned();
            let name = "app_net".to_owned();
            spec.networks[0].spec = Some(NetworkSpec { name, subnet, ..NetworkSpec::default() });
        }),
    ];
    for (rule, edit) in cases {
        let mut spec = stack_spec("app", &["web"]);
        edit(&mut spec);
        let error = deploy(&mut Cluster::default(), &spec).expect_err(rule);
        assert!(error.to_string().contains(rule), "{rule:?} is not in {:?}", error.to_string());
    }
}

#[test]
fn one_port_is_not_for_two_services_of_a_stack() {
    let mut spec = stack_spec("app", &["web", "db"]);
    declared(&mut spec, "web").ports = vec![port(8080)];
    declared(&mut spec, "db").ports = vec![port(8080)];
    let deployed = deploy(&mut Cluster::default(), &spec);
    assert!(deployed.is_err(), "{deployed:?}");
}

#[test]
fn a_port_can_move_between_services_of_a_stack() {
    let mut cluster = Cluster::default();
    let mut spec = stack_spec("app", &["web", "db"]);
    declared(&mut spec, "web").ports = vec![port(8080)];
    deploy(&mut cluster, &spec).unwrap();
    declared(&mut spec, "web").ports.clear();
    declared(&mut spec, "db").ports = vec![port(8080)];
    assert_eq!(deploy(&mut cluster, &spec).unwrap().updated, ["app_web", "app_db"]);
}

#[test]
fn an_external_network_is_used_and_stays_what_it_is() {
    let mut cluster = Cluster::default();
    let shared = network(7, "shared", "10.9.0.0/24");
    cluster.put(shared.clone());
    let mut spec = stack_spec("app", &["web"]);
    spec.networks[0].external = true;
    let name = "shared".to_owned();
    spec.networks[0].spec = Some(NetworkSpec { name, ..NetworkSpec::default() });
    deploy(&mut cluster, &spec).unwrap();
    let task = service_of(&cluster, "app_web").task_spec();
    assert_eq!(task.networks[0].network_id, shared.id.to_string());
    let after = cluster.store.network(shared.id).unwrap();
    assert_eq!((after.stack, &after.spec), (None, &shared.spec));
}

#[test]
fn of_two_deploys_from_one_view_the_second_is_refused() {
    for there_already in [false, true] {
        let mut cluster = Cluster::default();
        let mut spec = stack_spec("app", &["web"]);
        if there_already {
            deploy(&mut cluster, &spec).unwrap();
        }
        declared(&mut spec, "web").mode = service_spec("", 2).mode;
        let (_, first) = propose(&mut cluster, &spec);
        declared(&mut spec, "web").mode = service_spec("", 3).mode;
        let (_, second) = propose(&mut cluster, &spec);
        cluster.apply(first);
        let index = cluster.store.version() + 1;
        let conflict = cluster.store.apply(index, second).expect_err("it read an old version");
        assert_eq!(matches!(conflict, Conflict::Stale { .. }), there_already, "{conflict}");
        assert_eq!(service_of(&cluster, "app_web").replicas(), 2);
    }
}

#[test]
fn scaling_changes_the_number_and_no_task() {
    let mut cluster = Cluster::default();
    cluster.put(service(1, "web", 2));
    let web = service_of(&cluster, "web").clone();
    let mut scale = |replicas| {
        cluster.propose(|_, context, changes| scale_service(&web, replicas, context, changes))
    };
    let (scaled, changes) = scale(5);
    assert_eq!(scaled, Ok(()));
    let [Change::Put { object: Object::Service(new), .. }] = &changes[..] else {
        panic!("one change of a service, not {changes:?}")
    };
    assert_eq!((new.replicas(), new.spec_version), (5, web.spec_version));
    assert_eq!(new.spec.task, web.spec.task);
    assert_eq!(scale(2), (Ok(()), vec![]), "it is so already");
    assert!(matches!(scale(100_001).0, Err(DeployError::Spec(_))));
}

#[test]
fn only_services_with_a_number_of_replicas_can_be_scaled() {
    let mut cluster = Cluster::default();
    let mut web = service(1, "web", 2);
    spec_of(&mut web).mode = None;
    let (scaled, changes) =
        cluster.propose(|_, context, changes| scale_service(&web, 3, context, changes));
    assert_eq!(scaled, Err(DeployError::NotReplicated { service: "web".to_owned() }));
    assert!(changes.is_empty());
}

#[test]
fn removal_is_asked_for_once() {
    let mut cluster = Cluster::default();
    cluster.put(service(1, "web", 2));
    cluster.put(stack(1, "app"));
    for expected in [2, 0] {
        let web = service_of(&cluster, "web").clone();
        let app = stack_of(&cluster, "app").clone();
        let ((), changes) = cluster.propose(|_, context, changes| {
            remove_service(&web, context, changes);
            remove_stack(&app, context, changes);
        });
        assert_eq!(changes.len(), expected);
        cluster.apply(changes);
        let removing = [service_of(&cluster, "web").removing, stack_of(&cluster, "app").removing];
        assert_eq!(removing, [true, true]);
    }
}
