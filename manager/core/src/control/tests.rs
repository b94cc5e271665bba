//! All loops together over simulated agents, until nothing more changes.

use std::time::{Duration, SystemTime};

use shoal_proto::time::proto_duration;
use shoal_proto::v1::{
    Dependency, DependencyCondition, GenericReservation, GenericResource, PortSpec, PublishMode,
    RestartPolicy, ServiceMode, StackSpec, TaskState,
};

use super::{Control, merge};
use crate::deploy::{deploy_stack, remove_stack};
use crate::lookup;
use crate::store::{self, Change, Key, Object, Task};
use crate::testing::{
    Cluster, Lcg, declared, node, port, service, service_spec, stack, stack_spec,
};

/// A leader with its control loops, and agents that do at once what is wanted of them.
struct Leader {
    cluster: Cluster,
    control: Control,
}

impl Leader {
    fn new(nodes: u128) -> Self {
        let mut cluster = Cluster::default();
        for number in 1..=nodes {
            cluster.put(node(number));
        }
        Self { control: Control::new(&cluster.store), cluster }
    }

    fn commit(&mut self, changes: Vec<Change>) {
        let events = self.cluster.apply(changes);
        self.control.observe(&self.cluster.store, &events);
    }

    fn deploy(&mut self, spec: &StackSpec) {
        let (deployed, changes) = self
            .cluster
            .propose(|store, context, changes| deploy_stack(store, spec.clone(), context, changes));
        deployed.expect("nothing stands against the spec");
        self.commit(changes);
    }

    /// The newest task of the slot fails.
    fn fail(&mut self, slot: &str) {
        let task = lookup::task(&self.cluster.store, slot).expect("the slot has a task").id;
        let events = self.cluster.report(task, TaskState::Failed);
        self.control.observe(&self.cluster.store, &events);
    }

    /// One pass; whether it changed anything, and when the next is due.
    fn pass(&mut self) -> (bool, Option<SystemTime>) {
        let control = &mut self.control;
        let uptime = self.cluster.now.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let pass = self.cluster.with(|store, context| control.run(store, uptime, context));
        let changed = !pass.changes.is_empty();
        self.commit(pass.changes);
        (changed, pass.wake_at)
    }

    /// Runs until nothing is left to do at any time.
    #[track_caller]
    fn settle(&mut self) {
        for _ in 0..200 {
            let (changed, wake_at) = self.pass();
            let events = self.cluster.agents();
            self.control.observe(&self.cluster.store, &events);
            if changed || !events.is_empty() {
                continue;
            }
            match wake_at {
                Some(at) => self.cluster.now = at,
                None => return,
            }
        }
        panic!("it never comes to rest: {:#?}", self.cluster.store.tasks().collect::<Vec<_>>());
    }

    /// Each service has what its spec says, and a leader that starts now has nothing to do.
    #[track_caller]
    fn assert_as_wanted(&mut self, case: &str) {
        let store = &self.cluster.store;
        for service in store.services() {
            let up = |task: &Task| {
                task.state() == TaskState::Running
                    && task.desired == TaskState::Running
                    && task.spec_version == service.spec_version
            };
            let running = store.service_tasks(service.id).filter(|task| up(task)).count() as u64;
            let name = &service.spec.name;
            let store::ServiceMode::Replicated(wanted) = service.mode() else {
                panic!("{name} is another")
            };
            assert_eq!(running, wanted, "{case}: running tasks of {name}");
            let live = store.service_tasks(service.id).filter(|task| task.is_live()).count() as u64;
            assert_eq!(live, running, "{case}: tasks of {name} that are wanted");
        }
        let mut next = Control::new(store);
        let pass = self.cluster.with(|store, context| next.run(store, Duration::ZERO, context));
        assert!(pass.changes.is_empty(), "{case}: a new leader would do {:?}", pass.changes);
    }
}

/// Stack app: three of web, on a port that the cluster picks, wait for db to be healthy.
fn app() -> StackSpec {
    let mut spec = stack_spec("app", &["web", "db"]);
    let web = declared(&mut spec, "web");
    web.mode = replicas(3);
    web.ports = vec![port(0)];
    let condition = DependencyCondition::Healthy.into();
    web.depends_on = vec![Dependency { service: "app_db".to_owned(), condition, required: true }];
    spec
}

fn replicas(number: u64) -> Option<ServiceMode> {
    service_spec("", number).mode
}

fn set_image(spec: &mut StackSpec, service: &str, image: &str) {
    let task = declared(spec, service).task.as_mut().unwrap();
    task.container.as_mut().unwrap().image = image.to_owned();
}

#[test]
fn a_deploy_an_update_a_failure_and_a_removal_each_come_to_rest() {
    let mut leader = Leader::new(3);
    let mut spec = app();
    leader.deploy(&spec);
    leader.settle();
    leader.assert_as_wanted("deployed");

    declared(&mut spec, "web").mode = replicas(5);
    leader.deploy(&spec);
    leader.settle();
    leader.assert_as_wanted("scaled");

    set_image(&mut spec, "web", "app:2");
    leader.deploy(&spec);
    leader.settle();
    leader.assert_as_wanted("updated");

    leader.fail("app_web.2");
    leader.fail("app_db.1");
    leader.settle();
    leader.assert_as_wanted("failed");

    spec.services.retain(|service| service.name == "web");
    declared(&mut spec, "web").depends_on.clear();
    leader.deploy(&spec);
    leader.settle();
    leader.assert_as_wanted("without db");
    assert_eq!(leader.cluster.store.services().count(), 1);

    let stack = leader.cluster.store.stack_by_name("app").expect("it was deployed").clone();
    let ((), changes) =
        leader.cluster.propose(|_, context, changes| remove_stack(&stack, context, changes));
    leader.commit(changes);
    leader.settle();
    let left = leader.cluster.store.objects().filter(|object| !matches!(object, Object::Node(_)));
    assert_eq!(left.count(), 0);
}

#[test]
fn whatever_happens_the_cluster_comes_to_what_is_wanted() {
    for seed in 0..15 {
        let mut random = Lcg(seed);
        let mut leader = Leader::new(2);
        let mut spec = app();
        leader.deploy(&spec);
        leader.settle();
        for step in 0..15 {
            let what = random.below(6);
            match what {
                0 => declared(&mut spec, "web").mode = replicas(random.below(6)),
                1 => set_image(&mut spec, "web", &format!("app:{step}")),
                2 => set_image(&mut spec, "db", &format!("app:{step}")),
                3 => {
                    let number = random.below(7) + 1;
                    declared(&mut spec, "web").ports = vec![port(8000 + number as u32)];
                }
                4 => drop(leader.cluster.put(node(u128::from(random.below(6)) + 1))),
                _ => leader.fail("app_db.1"),
            }
            leader.deploy(&spec);
            // A change on top of one that is under way.
            for _ in 0..random.below(4) {
                leader.pass();
                let events = leader.cluster.agents();
                leader.control.observe(&leader.cluster.store, &events);
            }
            declared(&mut spec, "web").mode = replicas(random.below(6));
            leader.deploy(&spec);
            leader.settle();
            leader.assert_as_wanted(&format!("seed {seed}, step {step}, {what}"));
        }
    }
}

#[test]
fn tasks_wait_for_a_node_and_say_so() {
    let mut leader = Leader::new(0);
    leader.deploy(&app());
    leader.settle();
    let waiting: Vec<&str> =
        leader.cluster.store.pending_tasks().map(|task| task.status.error.as_str()).collect();
    assert_eq!(waiting, ["no suitable node (the cluster has none)"; 4]);

    let events = leader.cluster.put(node(1));
    leader.control.observe(&leader.cluster.store, &events);
    leader.settle();
    leader.assert_as_wanted("with a node");
}

#[test]
fn web_starts_in_the_pass_after_db_is_healthy() {
    let mut leader = Leader::new(1);
    leader.deploy(&app());
    leader.pass();
    leader.pass();
    let held = |leader: &Leader| {
        let web = leader.cluster.store.service_by_name("app_web").expect("it was deployed").id;
        let tasks = leader.cluster.store.service_tasks(web);
        tasks.filter(|task| task.desired == TaskState::Ready).count()
    };
    assert_eq!(held(&leader), 3);
    let db = lookup::task(&leader.cluster.store, "app_db.1").expect("db has a task").id;
    let events = leader.cluster.report(db, TaskState::Running);
    leader.control.observe(&leader.cluster.store, &events);
    leader.pass();
    assert_eq!(held(&leader), 0);
}

#[test]
fn a_restart_waits_for_its_delay_and_no_longer() {
    let delay = Duration::from_secs(5);
    let mut leader = Leader::new(1);
    let mut spec = stack_spec("app", &["web"]);
    let restart = RestartPolicy { delay: Some(proto_duration(delay)), ..RestartPolicy::default() };
    declared(&mut spec, "web").task.as_mut().unwrap().restart = Some(restart);
    leader.deploy(&spec);
    leader.settle();
    leader.fail("app_web.1");
    let due = leader.cluster.now + delay;
    assert_eq!(leader.pass(), (true, Some(due)));
    assert!(leader.cluster.agents().is_empty(), "it started early");
    leader.settle();
    assert_eq!(leader.cluster.now, due);
    leader.assert_as_wanted("after the delay");
}

#[test]
fn an_update_goes_through_where_two_tasks_of_a_slot_do_not_fit() {
    let mut leader = Leader::new(1);
    let mut spec = stack_spec("app", &["web"]);
    let mode = PublishMode::Host.into();
    declared(&mut spec, "web").ports = vec![PortSpec { mode, ..port(8080) }];
    leader.deploy(&spec);
    leader.settle();
    leader.assert_as_wanted("deployed");
    set_image(&mut spec, "web", "app:2");
    leader.deploy(&spec);
    leader.settle();
    leader.assert_as_wanted("updated");
}

#[test]
fn an_update_goes_through_where_a_slot_has_all_of_a_generic_resource() {
    let mut leader = Leader::new(0);
    let mut host = node(1);
    let kind = "gpu".to_owned();
    let names = vec!["gpu-a".to_owned()];
    host.description.generic_resources = vec![GenericResource { kind, count: 0, names }];
    let events = leader.cluster.put(host.clone());
    leader.control.observe(&leader.cluster.store, &events);
    let mut spec = stack_spec("app", &["web"]);
    let reservation = GenericReservation { kind: "gpu".to_owned(), count: 1 };
    let task = declared(&mut spec, "web").task.as_mut().unwrap();
    task.generic_reservations = vec![reservation];
    leader.deploy(&spec);
    leader.settle();
    leader.assert_as_wanted("deployed");
    set_image(&mut spec, "web", "app:2");
    leader.deploy(&spec);
    leader.settle();
    leader.assert_as_wanted("updated");
    let running = lookup::task(&leader.cluster.store, "app_web.1").expect("web has a task");
    assert_eq!(running.generic_resources, host.description.generic_resources);
}

#[test]
fn a_pass_commits_one_change_an_object_against_what_is_committed() {
    let mut cluster = Cluster::default();
    cluster.put(stack(1, "app"));
    cluster.put(service(1, "web", 1));
    let put = |expected, object: Object| Change::Put { expected, object };
    let last: Object = service(1, "web", 3).into();
    let made = service(2, "made and taken away", 1);
    let new: Object = service(3, "new", 1).into();
    let app = Key::Stack(stack(1, "app").id);
    // Versions of 10 and more are those of the pass's own view.
    let merged = merge(
        &cluster.store,
        vec![
            put(0, made.clone().into()),
            put(2, service(1, "web", 2).into()),
            put(0, new.clone()),
            put(10, last.clone()),
            Change::Delete { expected: 11, key: Key::Service(made.id) },
            put(11, new.clone()),
            Change::Delete { expected: 1, key: app },
        ],
    );
    let expected = [Change::Delete { expected: 1, key: app }, put(2, last), put(0, new)];
    assert_eq!(merged, expected);
}

#[test]
fn a_large_deploy_is_decided_in_parts_and_all_of_it_comes() {
    let mut leader = Leader::new(20);
    let mut spec = stack_spec("big", &["one", "two", "three"]);
    for name in ["one", "two", "three"] {
        let declared = declared(&mut spec, name);
        declared.mode = service_spec(name, 1500).mode;
        // More than a network has addresses for.
        declared.task.get_or_insert_default().networks.clear();
    }
    leader.deploy(&spec);
    let mut passes = 0;
    loop {
        let control = &mut leader.control;
        let pass =
            leader.cluster.with(|store, context| control.run(store, Duration::ZERO, context));
        assert!(pass.changes.len() <= super::MOST, "{}", pass.changes.len());
        if pass.changes.is_empty() && pass.wake_at.is_none_or(|at| at > leader.cluster.now) {
            break;
        }
        leader.commit(pass.changes);
        passes += 1;
        assert!(passes < 100, "it does not end");
    }
    let placed = leader.cluster.store.tasks().filter(|task| task.node.is_some()).count();
    assert_eq!(placed, 4500);
    assert!(passes > 2);
}
