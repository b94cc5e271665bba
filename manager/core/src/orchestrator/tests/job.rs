//! Services whose tasks end, and those that are run again and again.

use std::time::Duration;

use shoal_proto::time::{proto_duration, timestamp};
use shoal_proto::v1::service_mode::Mode;
use shoal_proto::v1::{
    ConcurrencyPolicy, GlobalJobMode, NodeAvailability, NodeState, ReplicatedJobMode,
    RestartCondition, RestartPolicy, Schedule, ServiceMode, ServiceSpec, TaskState,
};

use super::{Memory, WEB, newest, picture, place, reconcile_with};
use crate::orchestrator::counts;
use crate::revision;
use crate::store::Service;
use crate::testing::{Cluster, node, placed, service_spec};

struct Script {
    cluster: Cluster,
    memory: Memory,
}

fn job(concurrent: u64, total: u64) -> ServiceSpec {
    let mode = ReplicatedJobMode { max_concurrent: concurrent, total_completions: total };
    ServiceSpec {
        mode: Some(ServiceMode { mode: Some(Mode::ReplicatedJob(mode)) }),
        update: None,
        ..service_spec("web", 1)
    }
}

fn scheduled(cron: &str, concurrency: ConcurrencyPolicy) -> ServiceSpec {
    let cron = cron.to_owned();
    let schedule = Schedule { cron, concurrency: concurrency.into(), ..Schedule::default() };
    ServiceSpec { schedule: Some(schedule), ..job(1, 1) }
}

impl Script {
    fn new(spec: ServiceSpec) -> Self {
        let mut cluster = Cluster::default();
        // The beginning of an hour.
        cluster.now = std::time::UNIX_EPOCH + Duration::from_secs(1_700_002_800);
        cluster.put(node(1));
        let web = cluster.with(|_, context| revision::first(WEB, spec, None, "web", context));
        cluster.put(Service {
            meta: crate::store::Meta { created_at: timestamp(cluster.now), ..web.meta.clone() },
            ..web
        });
        let mut script = Self { cluster, memory: Memory::default() };
        script.look();
        script
    }

    fn look(&mut self) {
        reconcile_with(&mut self.cluster, &mut self.memory);
    }

    fn wait(&mut self, seconds: u64) {
        self.cluster.now += Duration::from_secs(seconds);
        self.look();
    }

    fn run(&mut self) {
        place(&mut self.cluster);
        self.cluster.agents();
        self.look();
    }

    fn end(&mut self, slot: &str, state: TaskState) {
        let id = newest(&self.cluster, slot);
        self.cluster.report(id, state);
        self.look();
    }

    fn service(&self) -> Service {
        (**self.cluster.store.service(WEB).expect("it is there")).clone()
    }

    #[track_caller]
    fn is(&self, expected: &str) {
        assert_eq!(picture(&self.cluster), expected);
    }
}

#[test]
fn so_many_tasks_end_well_and_only_so_many_run_at_once() {
    let mut script = Script::new(job(2, 3));
    script.is("1:new 2:new");
    script.run();
    script.end("web.1", TaskState::Complete);
    script.is("1:complete 2:running 3:new");
    script.run();
    script.end("web.2", TaskState::Failed);
    script.is("1:complete 2:failed/shutdown 2:new 3:running");
    let shown = counts(&script.cluster.store, &script.service());
    assert_eq!((shown.running, shown.desired, shown.completed, shown.completions), (1, 2, 1, 3));
    assert_eq!(script.service().job.ended_at, None);
    script.run();
    script.end("web.2", TaskState::Complete);
    script.end("web.3", TaskState::Complete);
    script.is("1:complete 2:failed/shutdown 2:complete 3:complete");
    assert!(script.service().job.ended_at.is_some());
    script.wait(3600);
    script.is("1:complete 2:failed/shutdown 2:complete 3:complete");
}

#[test]
fn a_job_that_is_given_up_says_so() {
    let mut spec = job(0, 2);
    let restart = RestartPolicy { max_attempts: 1, ..RestartPolicy::default() };
    spec.task.get_or_insert_default().restart = Some(restart);
    let mut script = Script::new(spec);
    script.run();
    script.end("web.1", TaskState::Failed);
    script.run();
    script.end("web.1", TaskState::Failed);
    script.wait(60);
    script.end("web.2", TaskState::Complete);
    script.is("1:failed/shutdown 1:failed 2:complete");
    assert_eq!(script.service().job.message, "1 of 2 tasks failed; web.1: ");
    assert!(script.service().job.ended_at.is_some());
}

#[test]
fn another_spec_runs_the_job_anew() {
    let mut script = Script::new(job(1, 1));
    script.run();
    let old = script.service();
    let mut spec = (*old.spec).clone();
    spec.task.get_or_insert_default().force_update = 1;
    let new = script.cluster.with(|_, context| revision::with_spec(&old, spec, "updated", context));
    script.cluster.put(new);
    script.look();
    // The old one is told to stop, and a new one is made at once: it is another run.
    script.is("1:running/shutdown 1:new");
    script.run();
    script.run();
    script.end("web.1", TaskState::Complete);
    assert_eq!(script.service().job.iteration, 2);
    assert!(script.service().job.ended_at.is_some());
}

#[test]
fn a_global_job_ends_well_once_on_each_node() {
    let mode = Some(ServiceMode { mode: Some(Mode::GlobalJob(GlobalJobMode {})) });
    let mut script = Script::new(ServiceSpec { mode, ..job(1, 1) });
    script.cluster.put(node(2));
    script.look();
    script.is("1:new 2:new");
    for slot in ["web.1", "web.2"] {
        let id = newest(&script.cluster, slot);
        let task = (**script.cluster.store.task(id).unwrap()).clone();
        let own = task.only_node.unwrap().bits();
        script.cluster.put(placed(task, own, TaskState::Running));
        script.end(slot, TaskState::Complete);
    }
    assert!(script.service().job.ended_at.is_some());
    script.cluster.put(node(3));
    script.look();
    script.is("1:complete 2:complete 3:new");
}

#[test]
fn a_schedule_begins_a_run_when_it_is_due() {
    let mut script = Script::new(scheduled("*/5 * * * *", ConcurrencyPolicy::Forbid));
    script.is("");
    script.wait(299);
    script.is("");
    script.wait(1);
    script.is("1:new");
    script.run();
    script.end("web.1", TaskState::Complete);
    script.wait(299);
    script.is("1:complete");
    script.wait(1);
    script.is("1:complete 1:new");
    assert_eq!(script.service().job.iteration, 2);
}

#[test]
fn a_run_that_goes_on_when_the_next_is_due() {
    for (policy, expected) in [
        (ConcurrencyPolicy::Forbid, "1:running"),
        (ConcurrencyPolicy::Allow, "1:running 1:new"),
        (ConcurrencyPolicy::Replace, "1:running/shutdown 1:new"),
    ] {
        let mut script = Script::new(scheduled("*/5 * * * *", policy));
        script.wait(300);
        script.run();
        script.wait(300);
        script.is(expected);
        if policy == ConcurrencyPolicy::Forbid {
            let words = "the run that was due last was left out: run 1 still went on";
            assert_eq!(script.service().job.message, words);
        }
    }
}

#[test]
fn what_was_missed_is_made_up_for_once_or_left_out() {
    let mut script = Script::new(scheduled("*/5 * * * *", ConcurrencyPolicy::Forbid));
    script.wait(3600 + 60);
    script.is("1:new");
    assert_eq!(script.service().job.iteration, 1);

    let mut spec = scheduled("*/5 * * * *", ConcurrencyPolicy::Forbid);
    let deadline = Some(proto_duration(Duration::from_secs(30)));
    spec.schedule.as_mut().unwrap().starting_deadline = deadline;
    let mut script = Script::new(spec);
    script.wait(3600 + 60);
    script.is("");
    let words = "the run that was due last was left out: it was 60 s late";
    assert_eq!(script.service().job.message, words);
    script.wait(240);
    script.is("1:new");
}

#[test]
fn a_schedule_that_is_suspended_begins_nothing() {
    let mut spec = scheduled("*/5 * * * *", ConcurrencyPolicy::Forbid);
    spec.schedule.as_mut().unwrap().suspended = true;
    let mut script = Script::new(spec);
    script.wait(3600);
    script.is("");
    assert_eq!(script.service().job.next_at, None);
}

#[test]
fn a_task_whose_node_is_lost_is_not_given_up() {
    let mut spec = job(1, 1);
    let mut once = RestartPolicy::default();
    once.set_condition(RestartCondition::None);
    spec.task.get_or_insert_default().restart = Some(once);
    let mut script = Script::new(spec);
    script.run();
    let mut lost = node(1);
    lost.status.set_state(NodeState::Down);
    script.cluster.put(lost);
    script.look();
    assert_eq!(script.service().job.ended_at, None, "{}", script.service().job.message);
    script.is("1:running/shutdown 1:new");
}

#[test]
fn one_that_still_stops_counts_among_those_at_once() {
    let mut script = Script::new(job(1, 2));
    script.run();
    let mut drained = node(1);
    drained.spec.set_availability(NodeAvailability::Drain);
    script.cluster.put(drained);
    script.look();
    script.is("1:running/shutdown");
    script.end("web.1", TaskState::Shutdown);
    script.is("1:shutdown/shutdown 1:new");
}

#[test]
fn what_a_node_has_done_is_not_done_again_after_a_drain() {
    let mode = Some(ServiceMode { mode: Some(Mode::GlobalJob(GlobalJobMode {})) });
    let mut script = Script::new(ServiceSpec { mode, ..job(1, 1) });
    let task = (**script.cluster.store.tasks().next().unwrap()).clone();
    script.cluster.put(placed(task, 1, TaskState::Running));
    script.end("web.1", TaskState::Complete);
    for availability in [NodeAvailability::Drain, NodeAvailability::Active] {
        let mut changed = node(1);
        changed.spec.set_availability(availability);
        script.cluster.put(changed);
        script.look();
        script.is("1:complete");
        assert!(script.service().job.ended_at.is_some());
    }
}
