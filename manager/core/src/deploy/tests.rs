//! What a deploy does to the store, and what it refuses.

use shoal_proto::v1::{
    Affinity, GenericReservation, NetworkSpec, PayloadReference, Placement, ReplicatedJobMode,
    Resources, Schedule, ServiceMode, StackService, StackSpec, TaskSpec, UpdateConfig,
    UpdateFailureAction, UpdateOrder, service_mode,
};

use super::{
    DeployError, Deployed, create_service, deploy_stack, remove_service, remove_stack,
    roll_back_service, scale_service, update_service,
};
use crate::store::{self, Change, Conflict, Object, Service, Stack};
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
        ("constraint \"zone=eu\" has no operator", |spec| {
            let placement =
                Placement { constraints: vec!["zone=eu".to_owned()], ..Placement::default() };
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

fn edit_task(spec: &mut StackSpec, edit: impl FnOnce(&mut TaskSpec)) {
    edit(declared(spec, "web").task.get_or_insert_default());
}

fn constrain(spec: &mut StackSpec, constraints: &[&str]) {
    let constraints = constraints.iter().map(|text| (*text).to_owned()).collect();
    edit_task(spec, |task| {
        task.placement = Some(Placement { constraints, ..Placement::default() });
    });
}

fn updated_so(spec: &mut StackSpec, config: UpdateConfig) {
    declared(spec, "web").update = Some(config);
}

fn run_at(spec: &mut StackSpec, cron: &str, time_zone: &str) {
    let web = declared(spec, "web");
    web.update = None;
    let job = ReplicatedJobMode { max_concurrent: 0, total_completions: 1 };
    web.mode = Some(ServiceMode { mode: Some(service_mode::Mode::ReplicatedJob(job)) });
    let (cron, time_zone) = (cron.to_owned(), time_zone.to_owned());
    web.schedule = Some(Schedule { cron, time_zone, ..Schedule::default() });
}

#[test]
fn what_could_never_be_is_refused_with_the_field() {
    let cases: [(&str, Edit); 18] = [
        ("no node ever meets both node.role==manager and node.role==worker", |spec| {
            constrain(spec, &["node.role==manager", "node.role==worker"]);
        }),
        ("no node ever meets both node.role==manager and node.role != manager", |spec| {
            constrain(spec, &["node.role==manager", "node.role != manager"]);
        }),
        ("spread over \"zone\": unknown subject", |spec| {
            let spread = vec!["zone".to_owned()];
            edit_task(spec, |task| {
                task.placement = Some(Placement { spread, ..Placement::default() });
            });
        }),
        ("affinity and anti-affinity to db contradict each other", |spec| {
            let service = "db".to_owned();
            let near = Affinity { service, ..Affinity::default() };
            let affinities = vec![near.clone(), Affinity { anti: true, ..near }];
            edit_task(spec, |task| {
                task.placement = Some(Placement { affinities, ..Placement::default() });
            });
        }),
        ("memory: more is reserved than the limit lets it use", |spec| {
            edit_task(spec, |task| {
                task.limits = Some(Resources { memory_bytes: 1, ..Resources::default() });
                task.reservations = Some(Resources { memory_bytes: 2, ..Resources::default() });
            });
        }),
        ("update: the max failure ratio 1.5 is not between 0 and 1", |spec| {
            updated_so(spec, UpdateConfig { max_failure_ratio: 1.5, ..UpdateConfig::default() });
        }),
        ("update: a progress deadline of 0 can't be met", |spec| {
            let progress_deadline = Some(shoal_proto::ProtoDuration::default());
            updated_so(spec, UpdateConfig { progress_deadline, ..UpdateConfig::default() });
        }),
        ("update: a delay of more than a year ends nowhere", |spec| {
            let delay = shoal_proto::ProtoDuration { seconds: i64::MAX, nanos: 0 };
            updated_so(spec, UpdateConfig { delay: Some(delay), ..UpdateConfig::default() });
        }),
        ("update: start-first runs two tasks of a slot at once, which fencing forbids", |spec| {
            let order = UpdateOrder::StartFirst.into();
            updated_so(spec, UpdateConfig { order, ..UpdateConfig::default() });
            edit_task(spec, |task| task.fenced = true);
        }),
        ("rollback: its failure action can be pause or continue", |spec| {
            let failure_action = UpdateFailureAction::Rollback.into();
            declared(spec, "web").rollback =
                Some(UpdateConfig { failure_action, ..UpdateConfig::default() });
        }),
        ("schedule: only jobs are run again and again", |spec| {
            let cron = "@daily".to_owned();
            declared(spec, "web").schedule = Some(Schedule { cron, ..Schedule::default() });
        }),
        ("the schedule \"* * *\" can't be read", |spec| run_at(spec, "* * *", "")),
        ("the schedule \"0 0 30 2 *\" never comes", |spec| run_at(spec, "0 0 30 2 *", "")),
        ("the time zone \"Moon\" is unknown", |spec| run_at(spec, "@daily", "Moon")),
        ("update: a job is not updated task by task", |spec| {
            run_at(spec, "@daily", "");
            updated_so(spec, UpdateConfig::default());
        }),
        ("secret \"key\" is not declared", |spec| {
            let used = PayloadReference { payload_id: "key".to_owned(), ..Default::default() };
            edit_task(spec, |task| task.container.get_or_insert_default().payloads = vec![used]);
        }),
        ("secret key can't be given in the variable KEY", |spec| {
            let (name, env) = ("key".to_owned(), "KEY".to_owned());
            let used = PayloadReference { name, env, ..Default::default() };
            edit_task(spec, |task| task.container.get_or_insert_default().payloads = vec![used]);
        }),
        ("/run/key is given twice", |spec| {
            let (name, target) = ("key".to_owned(), "/run/key".to_owned());
            let used = PayloadReference { name, target, ..Default::default() };
            let twice = vec![used.clone(), used];
            edit_task(spec, |task| task.container.get_or_insert_default().payloads = twice);
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
fn a_services_mode_stays() {
    let mut cluster = Cluster::default();
    let mut spec = stack_spec("app", &["web"]);
    deploy(&mut cluster, &spec).unwrap();
    run_at(&mut spec, "@daily", "");
    let error = deploy(&mut cluster, &spec).expect_err("it was replicated").to_string();
    assert_eq!(
        error,
        "service app_web: its mode can't be changed; remove the service and make it anew"
    );
}

#[test]
fn a_service_of_no_stack_is_on_a_network_of_all_nodes() {
    let mut cluster = Cluster::default();
    for name in ["one", "two"] {
        cluster
            .commit(|store, context, changes| {
                create_service(store, service_spec(name, 1), context, changes)
            })
            .unwrap();
    }
    let network = cluster.store.network_by_name("cluster").unwrap().id.to_string();
    for name in ["one", "two"] {
        let spec = cluster.store.service_by_name(name).unwrap().spec.clone();
        assert_eq!(spec.task.as_ref().unwrap().networks[0].network_id, network);
    }
    let (taken, _) = cluster.propose(|store, context, changes| {
        create_service(store, service_spec("one", 1), context, changes)
    });
    assert!(taken.unwrap_err().to_string().contains("is taken by a service that exists"));
}

#[test]
fn who_has_not_seen_the_last_change_does_not_undo_it() {
    let mut cluster = Cluster::default();
    cluster
        .commit(|store, context, changes| {
            create_service(store, service_spec("web", 1), context, changes)
        })
        .unwrap();
    let seen = (**cluster.store.service_by_name("web").unwrap()).clone();
    for (replicas, expected) in [(2, ""), (3, "service web was changed by somebody else")] {
        let service = (**cluster.store.service_by_name("web").unwrap()).clone();
        let mut spec = (*seen.spec).clone();
        spec.mode = service_spec("", replicas).mode;
        let (updated, changes) = cluster.propose(|store, context, changes| {
            update_service(store, &service, seen.meta.version, spec, context, changes)
        });
        cluster.apply(changes);
        let said = updated.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{said}");
    }
}

#[test]
fn a_revision_that_is_gone_is_named_with_those_that_are_kept() {
    let mut cluster = Cluster::default();
    cluster
        .commit(|store, context, changes| {
            create_service(store, service_spec("web", 1), context, changes)
        })
        .unwrap();
    let web = (**cluster.store.service_by_name("web").unwrap()).clone();
    for (number, words) in [
        (0, "service web has no earlier revision to go back to"),
        (7, "service web has no revision 7; there are 1"),
    ] {
        let (refused, _) = cluster.propose(|store, context, changes| {
            roll_back_service(store, &web, number, context, changes)
        });
        assert_eq!(refused.unwrap_err().to_string(), words);
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
        assert_eq!(service_of(&cluster, "app_web").mode(), store::ServiceMode::Replicated(2));
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
    assert_eq!(
        (new.mode(), new.spec_version),
        (store::ServiceMode::Replicated(5), web.spec_version)
    );
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
