//! Rolling updates: the tasks of service web that are not over, `SLOT:VERSION` with the state where
//! that is not running, and what the service says of its update.

use std::sync::Arc;
use std::time::Duration;

use shoal_proto::time::proto_duration;
use shoal_proto::v1::{
    NodeState, RestartCondition, RestartPolicy, TaskState, UpdateConfig, UpdateFailureAction,
    UpdateOrder, UpdateState,
};
use shoal_proto::{ProtoDuration, TaskId};

use super::{Memory, WEB, newest, place, reconcile_with};
use crate::revision;
use crate::store::{Service, Task};
use crate::testing::{Cluster, Lcg, node, service_spec};

fn seconds(seconds: u64) -> Option<ProtoDuration> {
    Some(proto_duration(Duration::from_secs(seconds)))
}

fn config() -> UpdateConfig {
    UpdateConfig { monitor: seconds(5), ..UpdateConfig::default() }
}

struct Script {
    cluster: Cluster,
    memory: Memory,
}

impl Script {
    /// So many replicas that all run.
    fn new(replicas: u64, config: UpdateConfig) -> Self {
        let mut cluster = Cluster::default();
        cluster.put(node(1));
        let mut spec = service_spec("web", replicas);
        spec.update = Some(config);
        spec.rollback = Some(UpdateConfig { parallelism: Some(0), ..self::config() });
        let web = cluster.with(|_, context| revision::first(WEB, spec, None, "web", context));
        cluster.put(web);
        let mut script = Self { cluster, memory: Memory::default() };
        script.up();
        script.wait(60);
        script
    }

    fn service(&self) -> Service {
        (**self.cluster.store.service(WEB).expect("it is there")).clone()
    }

    fn look(&mut self) {
        reconcile_with(&mut self.cluster, &mut self.memory);
    }

    fn wait(&mut self, seconds: u64) {
        self.cluster.now += Duration::from_secs(seconds);
        self.look();
    }

    /// The service is to run another image.
    fn deploy(&mut self, image: &str) {
        let old = self.service();
        let mut spec = (*old.spec).clone();
        let task = spec.task.get_or_insert_default();
        task.container.get_or_insert_default().image = image.to_owned();
        self.cluster.now += Duration::from_secs(1);
        let new =
            self.cluster.with(|_, context| revision::with_spec(&old, spec, "updated", context));
        self.cluster.put(new);
        self.look();
    }

    /// Agents do what they are told, until there is nothing more to do now.
    fn up(&mut self) {
        for _ in 0..30 {
            self.look();
            place(&mut self.cluster);
            if self.cluster.agents().is_empty() {
                break;
            }
        }
        self.look();
    }

    /// The newest task of the slot comes to an end, and so does each one after it, as far as agents
    /// take them there now.
    fn fail(&mut self, slot: &str, state: TaskState) {
        place(&mut self.cluster);
        let id = newest(&self.cluster, slot);
        let mut status = self.cluster.store.task(id).unwrap().status.clone();
        status.set_state(state);
        status.error = "exit code 1".to_owned();
        status.since = Some(shoal_proto::time::timestamp(self.cluster.now));
        self.cluster.apply(vec![crate::store::Change::Report { task: id, status }]);
        self.look();
    }

    fn line(&self) -> String {
        let mut tasks: Vec<&Arc<Task>> =
            self.cluster.store.tasks().filter(|task| !task.state().is_terminal()).collect();
        tasks.sort_by_key(|task| (task.slot, task.spec_version, task.id));
        let tasks = tasks.into_iter().map(|task| {
            let state = match task.state() {
                TaskState::Running if task.desired > TaskState::Running => " stopping".to_owned(),
                TaskState::Running => String::new(),
                state => format!(" {state}"),
            };
            format!("{}:{}{state}", task.slot, task.spec_version)
        });
        let update = self.service().update;
        let message = match update.message.as_str() {
            "" => String::new(),
            message => format!(" ({message})"),
        };
        format!("{}, {}{message}", tasks.collect::<Vec<_>>().join(" "), update.state())
    }

    #[track_caller]
    fn is(&self, expected: &str) {
        assert_eq!(self.line(), expected);
    }
}

#[test]
fn the_next_slot_has_its_turn_when_the_last_has_run_for_the_monitor_time() {
    let mut script = Script::new(3, config());
    script.is("1:1 2:1 3:1, none");
    script.deploy("app:2");
    script.is("1:1 1:2 new 2:1 3:1, updating");
    script.up();
    script.is("1:2 2:1 3:1, updating");
    script.wait(4);
    script.up();
    script.is("1:2 2:1 3:1, updating");
    script.wait(1);
    script.up();
    script.is("1:2 2:2 3:1, updating");
    script.wait(5);
    script.up();
    script.wait(4);
    script.is("1:2 2:2 3:2, updating");
    script.wait(1);
    script.is("1:2 2:2 3:2, completed");
}

#[test]
fn so_many_slots_go_at_once_as_the_parallelism_says() {
    let parallel = |parallelism| UpdateConfig { parallelism: Some(parallelism), ..config() };
    let mut script = Script::new(5, parallel(2));
    script.deploy("app:2");
    script.up();
    script.is("1:2 2:2 3:1 4:1 5:1, updating");
    script.wait(5);
    script.up();
    script.is("1:2 2:2 3:2 4:2 5:1, updating");

    let mut script = Script::new(3, parallel(0));
    script.deploy("app:2");
    script.up();
    script.is("1:2 2:2 3:2, updating");
}

#[test]
fn a_delay_that_is_longer_than_the_monitor_time_is_kept() {
    let mut script = Script::new(2, UpdateConfig { delay: seconds(20), ..config() });
    script.deploy("app:2");
    script.up();
    script.wait(19);
    script.up();
    script.is("1:2 2:1, updating");
    script.wait(1);
    script.up();
    script.is("1:2 2:2, updating");
    // The last one is good after the monitor time.
    script.wait(5);
    script.is("1:2 2:2, completed");
}

#[test]
fn start_first_runs_the_new_task_before_the_old_one_stops() {
    let order = UpdateOrder::StartFirst.into();
    let mut script = Script::new(2, UpdateConfig { order, ..config() });
    script.deploy("app:2");
    script.is("1:1 1:2 new 2:1, updating");
    place(&mut script.cluster);
    let id = newest(&script.cluster, "web.1");
    assert_eq!(script.cluster.store.task(id).unwrap().desired, TaskState::Running);
    script.cluster.report(id, TaskState::Starting);
    script.look();
    script.is("1:1 1:2 starting 2:1, updating");
    script.cluster.report(id, TaskState::Running);
    script.look();
    script.is("1:1 stopping 1:2 2:1, updating");
    script.up();
    script.is("1:2 2:1, updating");
}

#[test]
fn a_failure_pauses_the_update_and_what_is_of_the_old_spec_stays_so() {
    let mut script = Script::new(3, config());
    script.deploy("app:2");
    script.fail("web.1", TaskState::Rejected);
    let paused = "paused (web.1: exit code 1)";
    script.is(&format!("1:1 1:2 new 2:1 3:1, {paused}"));
    // One of the old spec that ends is replaced by its like.
    script.fail("web.2", TaskState::Failed);
    script.is(&format!("1:1 1:2 assigned 2:1 new 3:1, {paused}"));
    script.up();
    // What was tried again runs after all.
    script.is(&format!("1:2 2:1 3:1, {paused}"));
    let resumed = {
        let old = script.service();
        script.cluster.now += Duration::from_secs(1);
        script.cluster.with(|_, context| revision::resumed(&old, context))
    };
    script.cluster.put(resumed);
    script.up();
    script.is("1:2 2:2 3:1, updating");
}

#[test]
fn a_failure_rolls_back_and_tasks_that_are_still_of_the_old_spec_stay() {
    let failure_action = UpdateFailureAction::Rollback.into();
    let mut script = Script::new(3, UpdateConfig { failure_action, ..config() });
    script.deploy("app:2");
    script.up();
    script.wait(5);
    script.up();
    script.is("1:2 2:2 3:1, updating");
    let untouched = newest(&script.cluster, "web.3");
    script.fail("web.2", TaskState::Failed);
    let why = "(web.2: exit code 1)";
    script.up();
    script.is(&format!("1:1 2:1 3:1, rolling back {why}"));
    script.wait(5);
    script.is(&format!("1:1 2:1 3:1, rolled back {why}"));
    assert_eq!(newest(&script.cluster, "web.3"), untouched);
    let service = script.service();
    let origins = service.revisions.iter().map(|one| (one.number, one.origin.as_str()));
    let origins: Vec<_> = origins.collect();
    assert_eq!(origins, [(1, "created"), (2, "updated"), (3, "rolled back to revision 1")]);
    // The next spec is none that there was.
    script.deploy("app:3");
    script.up();
    script.is("1:3 2:1 3:1, updating");
}

#[test]
fn failures_up_to_the_ratio_are_borne() {
    let ratio = UpdateConfig { max_failure_ratio: 0.25, ..config() };
    let mut script = Script::new(4, ratio);
    script.deploy("app:2");
    script.fail("web.1", TaskState::Rejected);
    script.is("1:1 1:2 new 2:1 2:2 new 3:1 4:1, updating");
    script.fail("web.2", TaskState::Rejected);
    assert_eq!(script.service().update.state(), UpdateState::Paused, "two of four");
    assert_eq!(script.service().update.message, "web.1: exit code 1 (2 of 4 tasks failed)");
}

#[test]
fn failures_stop_nothing_where_they_shall_not() {
    let failure_action = UpdateFailureAction::Continue.into();
    let mut script = Script::new(2, UpdateConfig { failure_action, ..config() });
    script.deploy("app:2");
    script.up();
    script.fail("web.1", TaskState::Failed);
    script.is("1:2 new 2:1 2:2 new, updating");
    script.up();
    script.wait(5);
    // The second try has run well.
    script.is("1:2 2:2, completed");
}

#[test]
fn an_update_that_gets_nowhere_ends_at_its_deadline_with_what_the_task_says() {
    let mut script = Script::new(2, UpdateConfig { progress_deadline: seconds(30), ..config() });
    script.deploy("app:2");
    place(&mut script.cluster);
    let id: TaskId = newest(&script.cluster, "web.1");
    script.cluster.report(id, TaskState::Ready);
    script.look();
    script.cluster.agents();
    script.look();
    let mut status = script.cluster.store.task(id).unwrap().status.clone();
    status.set_state(TaskState::Starting);
    status.message = "health check: exit code 1: no".to_owned();
    script.cluster.apply(vec![crate::store::Change::Report { task: id, status }]);
    script.wait(29);
    script.is("1:2 starting 2:1, updating");
    script.wait(1);
    script.is(
        "1:2 starting 2:1, paused (web.1: health check: exit code 1: no: it did not come to run \
         within 30 s)",
    );
}

#[test]
fn a_service_that_never_comes_up_is_told_of_at_the_deadline() {
    let mut cluster = Cluster::default();
    let mut spec = service_spec("web", 1);
    spec.update = Some(UpdateConfig { progress_deadline: seconds(30), ..config() });
    let web = cluster.with(|_, context| revision::first(WEB, spec, None, "web", context));
    cluster.put(web);
    let mut script = Script { cluster, memory: Memory::default() };
    script.look();
    script.is("1:1 new, none");
    script.wait(30);
    script.is("1:1 new, paused (web.1: created: it did not come to run within 30 s)");
    script.up();
    script.is("1:1, completed");
}

#[test]
fn a_new_leader_only_takes_longer() {
    let mut script = Script::new(2, config());
    script.deploy("app:2");
    script.up();
    script.wait(4);
    script.memory = Memory::default();
    script.look();
    script.wait(4);
    script.up();
    script.is("1:2 2:1, updating");
    script.wait(1);
    script.up();
    script.is("1:2 2:2, updating");
}

#[test]
fn a_node_that_is_lost_is_no_failure_of_the_update() {
    let mut script = Script::new(2, config());
    script.deploy("app:2");
    script.up();
    let mut lost = node(1);
    lost.status.set_state(NodeState::Down);
    script.cluster.put(lost);
    script.look();
    assert_eq!(script.service().update.state(), UpdateState::Updating, "{}", script.line());
}

#[test]
fn a_label_that_changes_meanwhile_is_not_what_an_update_goes_back_to() {
    let failure_action = UpdateFailureAction::Rollback.into();
    let mut script = Script::new(2, UpdateConfig { failure_action, ..config() });
    script.deploy("app:2");
    let old = script.service();
    let mut spec = (*old.spec).clone();
    spec.labels.insert("team".to_owned(), "a".to_owned());
    let new = script.cluster.with(|_, context| revision::with_spec(&old, spec, "updated", context));
    script.cluster.put(new);
    script.look();
    script.fail("web.1", TaskState::Rejected);
    script.up();
    script.wait(5);
    script.is("1:1 2:1, rolled back (web.1: exit code 1)");
}

#[test]
fn a_task_that_is_made_late_has_its_own_time_to_come_to_run() {
    let deadline = UpdateConfig { progress_deadline: seconds(30), ..config() };
    let mut script = Script::new(2, deadline);
    script.fail("web.1", TaskState::Complete);
    script.is("1:1 new 2:1, none");
    script.wait(29);
    script.is("1:1 new 2:1, none");

    // One after the other that ends soon has none.
    let mut script = Script::new(1, deadline);
    script.deploy("app:2");
    for _ in 0..5 {
        script.up();
        script.fail("web.1", TaskState::Complete);
        script.wait(7);
    }
    assert_eq!(script.service().update.state(), UpdateState::Paused, "{}", script.line());
}

#[test]
fn a_slot_that_gets_no_other_task_has_failed_also_after_the_update_goes_on() {
    let mut script = Script::new(2, config());
    let old = script.service();
    let mut spec = (*old.spec).clone();
    let task = spec.task.get_or_insert_default();
    let mut once = RestartPolicy::default();
    once.set_condition(RestartCondition::None);
    task.restart = Some(once);
    let new = script.cluster.with(|_, context| revision::with_spec(&old, spec, "updated", context));
    script.cluster.put(new);
    script.look();
    script.up();
    script.fail("web.1", TaskState::Failed);
    script.is("2:1, paused (web.1: exit code 1)");
    let old = script.service();
    script.cluster.now += Duration::from_secs(1);
    let resumed = script.cluster.with(|_, context| revision::resumed(&old, context));
    script.cluster.put(resumed);
    script.look();
    script.is("2:1, paused (web.1: exit code 1)");
}

#[test]
fn ten_revisions_are_kept() {
    let mut script = Script::new(1, config());
    for number in 2..=14 {
        script.deploy(&format!("app:{number}"));
    }
    let numbers: Vec<u64> = script.service().revisions.iter().map(|one| one.number).collect();
    assert_eq!(numbers, (5..=14).collect::<Vec<u64>>());
}

/// Agents take their tasks on by single steps, in any order, at any time: there is never one task
/// less than the order and the parallelism allow, and the end is always reached.
#[test]
fn an_update_never_costs_more_tasks_than_it_may() {
    for seed in 0..120 {
        let mut random = Lcg(seed);
        let replicas = 1 + random.below(6);
        let parallelism = random.below(3);
        let order = if seed % 2 == 0 { UpdateOrder::StopFirst } else { UpdateOrder::StartFirst };
        let config = UpdateConfig {
            parallelism: Some(parallelism),
            order: order.into(),
            monitor: seconds(random.below(4)),
            ..UpdateConfig::default()
        };
        let mut script = Script::new(replicas, config);
        script.deploy("app:2");
        let least = match (order, parallelism) {
            (UpdateOrder::StartFirst, _) => replicas,
            (UpdateOrder::StopFirst, 0) => 0,
            (UpdateOrder::StopFirst, bound) => replicas.saturating_sub(bound),
        };
        let mut steps = 0;
        while script.service().update.state() != UpdateState::Completed {
            steps += 1;
            assert!(steps < 2000, "seed {seed}: it does not end: {}", script.line());
            place(&mut script.cluster);
            let tasks: Vec<Arc<Task>> = script.cluster.store.tasks().cloned().collect();
            for task in
                tasks.iter().filter(|task| random.below(3) == 0 && task.state() < task.desired)
            {
                if task.state().is_terminal() || task.node.is_none() {
                    continue;
                }
                let next = match task.state() {
                    _ if task.desired > TaskState::Running => TaskState::Shutdown,
                    TaskState::Assigned => TaskState::Preparing,
                    TaskState::Preparing => TaskState::Ready,
                    TaskState::Ready => TaskState::Starting,
                    _ => TaskState::Running,
                };
                script.cluster.report(task.id, next);
            }
            let running = script.cluster.store.tasks().filter(|task| {
                task.state() == TaskState::Running && task.desired <= TaskState::Running
            });
            let running = running.count() as u64;
            assert!(running >= least, "seed {seed}: {running} of {least}: {}", script.line());
            script.wait(random.below(3));
        }
        let all_new = script.cluster.store.tasks().filter(|task| !task.state().is_terminal());
        assert!(all_new.into_iter().all(|task| task.spec_version == 2), "{}", script.line());
    }
}
